//! Makes a product of a copy of this repository, as docs/START-A-PRODUCT.md describes.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::{fs, path::Path, process::Command};

use tempfile::TempDir;

/// The name that appears nowhere else.
const NAME: &str = "turnstile";

/// The folders that are not part of the repository.
const IGNORED: [&str; 5] = [".git", "target", "node_modules", "data", "test-results"];

/// A copy of the repository.
struct Product(TempDir);

impl Product {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        copy(Path::new(env!("CARGO_MANIFEST_DIR")), folder.path());
        Self(folder)
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(program);
        // The dependencies are those of this build.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        command.args(arguments).current_dir(self.0.path()).env("CARGO_TARGET_DIR", target);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {text}");
    }

    fn compiles(&self) {
        let browser = ["--target", "wasm32-unknown-unknown", "--lib", "--features", "hydrate"];
        self.run(env!("CARGO"), &["check", "--quiet", "--features", "ssr"]);
        self.run(env!("CARGO"), &[&["check", "--quiet"], &browser[..]].concat());
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (name, path) = entry.map(|entry| (entry.file_name(), entry.path())).unwrap();
        if path.is_dir() && !IGNORED.iter().any(|ignored| name == *ignored) {
            copy(&path, &to.join(name));
        } else if path.is_file() {
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

/// The lines of all text files below `folder`, and the names of all files, each with the path of its file.
fn lines(root: &Path, folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            lines(root, &path, found);
            continue;
        }
        found.push((name.clone(), name.clone()));
        if let Ok(text) = fs::read_to_string(&path) {
            found.extend(text.lines().map(|line| (name.clone(), line.to_owned())));
        }
    }
}

#[test]
fn renamed_product_compiles_and_no_other_name_is_left() {
    let product = Product::new();
    product.run("deploy/rename", &[NAME]);
    let mut found = Vec::new();
    lines(product.0.path(), product.0.path(), &mut found);
    let kept = ["hallpass-allowlist", "hallpass_allowlist", "hallpass-guard", "hallpass_guard"];
    let left = found.iter().filter(|(file, line)| {
        let line = kept.iter().fold(line.to_lowercase(), |line, name| line.replace(name, ""));
        let is_credit = file == "README.md" && line.contains("was made from");
        let may_name = file.starts_with("crates/") || file.starts_with("LICENSE");
        line.contains("hallpass") && !is_credit && !may_name
    });
    let left: Vec<_> = left.collect();
    assert!(left.is_empty(), "{left:#?}");
    for part in ["name = \"turnstile\"", "TURNSTILE_HTTPS", "turnstile-refresh", "\"Turnstile\""] {
        assert!(found.iter().any(|(_, line)| line.contains(part)), "{part}");
    }
    assert!(found.iter().any(|(file, _)| file == "deploy/turnstile.service"));
    product.compiles();
}

#[test]
fn product_without_the_demonstration_compiles() {
    let product = Product::new();
    // Under the old name, its test programs would replace those of this build, which has the same target folder.
    product.run("deploy/rename", &[NAME]);
    product.run("deploy/remove-demo", &[]);
    let mut found = Vec::new();
    lines(product.0.path(), &product.0.path().join("src"), &mut found);
    let demonstration =
        ["check_statelessly", "kept_copy", "HeldToken", "ReplayPage", "ClusterPage", "LiveCluster"];
    let left: Vec<_> =
        found.iter().filter(|(_, line)| demonstration.iter().any(|name| line.contains(name))).collect();
    assert!(found.len() > 10_000 && left.is_empty(), "{left:#?}");
    product.compiles();
    product.run(env!("CARGO"), &["test", "--quiet", "--features", "ssr", "--test", "structure"]);
}
