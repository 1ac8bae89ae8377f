//! Checks the dependencies between the files of each crate: no cycles, and only one direction between the folders
//! of `src/server` (ARCHITECTURE.md, Dependencies).

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use syn::{
    Attribute, ItemMod, ItemUse, UseTree,
    visit::{self, Visit},
};

/// The folders of `src/server`. Each may depend only on those after it.
const LAYERS: [&str; 3] = ["server/http/", "server/auth/", "server/db/"];

/// The files that each file uses.
type Uses = BTreeMap<String, BTreeSet<String>>;

#[test]
fn files_have_no_cyclic_dependencies() {
    for (folder, minimum) in [("src", 80), ("crates/allowlist/src", 20), ("crates/guard/src", 12)] {
        let uses = uses_of_all_files(folder);
        assert!(uses.len() > minimum, "the files were not found");
        let in_circles: Vec<_> =
            uses.keys().filter(|file| reachable_from(&uses, file).contains(*file)).collect();
        assert!(
            in_circles.is_empty(),
            "these files name each other, directly or by way of others: {in_circles:?}"
        );
    }
}

#[test]
fn http_depends_on_auth_and_auth_on_db() {
    let layer_of = |file: &str| LAYERS.iter().position(|folder| file.starts_with(folder));
    let mut upwards = Vec::new();
    for (file, used) in uses_of_all_files("src") {
        let Some(layer) = layer_of(&file) else { continue };
        upwards.extend(used.into_iter().filter(|used| layer_of(used) < Some(layer)).filter_map(|used| {
            layer_of(&used)?;
            Some(format!("{file} names {used}"))
        }));
    }
    assert!(upwards.is_empty(), "{upwards:#?}");
}

fn reachable_from(uses: &Uses, file: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![file.to_owned()];
    while let Some(file) = open.pop() {
        for used in &uses[&file] {
            if found.insert(used.clone()) {
                open.push(used.clone());
            }
        }
    }
    found
}

fn uses_of_all_files(folder: &str) -> Uses {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files = BTreeMap::new();
    collect(&root, &root, &mut files);
    let uses = files.iter().map(|(module, file)| {
        let source = fs::read_to_string(root.join(file)).unwrap();
        let mut paths = Paths { module: module.clone(), found: Vec::new() };
        paths.visit_file(&syn::parse_file(&source).unwrap());
        let used = paths.found.iter().filter_map(|path| {
            // The longest prefix of the path that is a module: the rest names an item in it.
            (1..=path.len()).rev().find_map(|length| files.get(&path[..length]))
        });
        (file.clone(), used.filter(|used| *used != file).cloned().collect())
    });
    uses.collect()
}

/// Collects the modules below `folder`, with the files that contain them.
fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<Vec<String>, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let file = path.strip_prefix(root).unwrap();
            let mut module: Vec<_> = file
                .with_extension("")
                .iter()
                .map(|part| part.to_str().unwrap().to_owned())
                .filter(|part| part != "mod")
                .collect();
            if module == ["lib"] {
                module.clear();
            }
            files.insert(module, file.to_str().unwrap().to_owned());
        }
    }
}

/// Collects the absolute paths that a module uses outside its tests.
struct Paths {
    module: Vec<String>,
    found: Vec<Vec<String>>,
}

impl Paths {
    /// The path from the root of the crate; `None` if it leads to another crate.
    fn absolute(&self, path: &[String]) -> Option<Vec<String>> {
        let mut base = self.module.clone();
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => {
                base.clear();
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {}
            _ => return None,
        }
        while let Some("super") = rest.first().map(String::as_str) {
            base.pop();
            rest = &rest[1..];
        }
        base.extend(rest.iter().cloned());
        Some(base)
    }

    fn add(&mut self, path: &[String]) {
        self.found.extend(self.absolute(path));
    }

    fn add_tree(&mut self, tree: &UseTree, before: &[String]) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.add_tree(&path.tree, &with(&path.ident)),
            UseTree::Name(name) if name.ident == "self" => self.add(before),
            UseTree::Name(name) => self.add(&with(&name.ident)),
            UseTree::Rename(rename) => self.add(&with(&rename.ident)),
            UseTree::Glob(_) => self.add(before),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_tree(tree, before)),
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        let is_test = |attribute: &Attribute| {
            attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string() == "test")
        };
        if !module.attrs.iter().any(is_test) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.add_tree(&item.tree, &[]);
    }

    /// `pub(super)` is not a dependency.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.add(&segments);
        visit::visit_path(self, path);
    }
}
