//! The built files of the site: style sheet, JavaScript, wasm. Browsers may cache them for a year, because
//! their path contains a version that changes with any of them.
//!
//! There is one version for all files, and not a hash in each name: the files name each other, so a hash in a
//! name would change the contents of other files.

use std::{
    borrow::Cow,
    fs, io,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{Context, SHA256};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use leptos::config::LeptosOptions;

use crate::server::db::site_files::SiteFiles;

/// How long browsers may keep a file whose path contains its version.
pub const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// The length of a version, in bytes of the hash: long enough that no two builds have the same.
const VERSION_BYTES: usize = 12;

/// The beginning of the name of the script that loads the parts of the wasm. The build lists names in it, in an order
/// that differs between builds of the same commit.
const LOADER: &str = "__wasm_split.";

/// The version of these files: a hash that can be part of a path.
pub fn version(files: &SiteFiles) -> String {
    let mut hash = Context::new(&SHA256);
    for (path, contents) in files {
        let contents = match path.starts_with(LOADER) {
            true => Cow::Owned(sorted_words(contents)),
            false => Cow::Borrowed(&**contents),
        };
        for part in [path.as_bytes(), &contents] {
            // Lengths are hashed too, so that the end of one part cannot pass for the beginning of the next.
            hash.update(&part.len().to_le_bytes());
            hash.update(part);
        }
    }
    BASE64_URL_SAFE_NO_PAD.encode(&hash.finish().as_ref()[..VERSION_BYTES])
}

/// The words in a file, in an order that does not depend on theirs.
fn sorted_words(contents: &[u8]) -> Vec<u8> {
    let mut words: Vec<_> = contents.split(u8::is_ascii_whitespace).collect();
    words.sort_unstable();
    words.join(&b' ')
}

/// The contents of all files below `root`, by their paths relative to it, without the compressed copies that the
/// build makes of each.
///
/// # Errors
/// The folder, or something in it, cannot be read.
pub fn contents(root: &Path) -> io::Result<SiteFiles> {
    let is_copy = |file: &Path| file.extension().is_some_and(|suffix| suffix == "br" || suffix == "gz");
    let files = list(root)?.into_iter().filter(|file| !is_copy(file));
    files.map(|file| Ok((file.to_string_lossy().into_owned(), fs::read(root.join(&file))?.into()))).collect()
}

/// Whether the app's part of the wasm is a file of its own.
pub fn is_split(options: &LeptosOptions) -> bool {
    let folder = Path::new(&*options.site_root).join(&*options.site_pkg_dir);
    folder.join("__wasm_split_manifest.json").exists()
}

/// All files below `root`, by their paths relative to it.
fn list(root: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut files, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version_of(folder: &Path) -> String {
        version(&contents(folder).unwrap())
    }

    #[test]
    fn whatever_changes_the_version_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let write = |name: &str, contents: &str| {
            fs::write(path(name), contents).unwrap();
            version_of(folder.path())
        };
        fs::create_dir(path("snippets")).unwrap();
        let versions = [
            write("a.js", "1"),
            write("a.js", "2"),
            write("b.js", ""),
            write("snippets/c.js", ""),
            write("snippets/c.js", "1"),
        ];
        for (index, one) in versions.iter().enumerate() {
            assert!(!versions[..index].contains(one), "{versions:?}");
        }
        assert_eq!(version_of(folder.path()), versions[4]);
        fs::remove_file(path("snippets/c.js")).unwrap();
        assert_eq!(version_of(folder.path()), versions[2]);
        fs::rename(path("b.js"), path("c.js")).unwrap();
        assert_ne!(version_of(folder.path()), versions[2]);
    }

    #[test]
    fn order_of_the_names_in_the_loader_does_not_change_the_version() {
        let version =
            |path: &str, contents: &'static str| version(&[(path.to_owned(), contents.into())].into());
        let loader = |contents| version("__wasm_split.______________________.js", contents);
        assert_eq!(loader("const { memory, table, } = x;"), loader("const { table, memory, } = x;"));
        assert_ne!(loader("const { memory, table, } = x;"), loader("const { memory, other, } = x;"));
        assert_ne!(version("a.js", "const { a, b, } = x;"), version("a.js", "const { b, a, } = x;"));
    }
}
