//! Checks that the files and the tests that SECURITY.md quotes exist.

use std::{fs, path::Path};

const PAGE: &str = include_str!("../../SECURITY.md");
const FOLDERS: [&str; 4] = ["crates/", "src/", "tests/", "end2end/"];

/// The texts in backticks, in order.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn is_path(text: &str) -> bool {
    FOLDERS.iter().any(|folder| text.starts_with(folder))
}

fn read(path: &str) -> String {
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(full).unwrap_or_else(|error| panic!("SECURITY.md names {path}: {error}"))
}

#[test]
fn every_quoted_file_exists() {
    quoted(PAGE).filter(|text| is_path(text)).for_each(|path| drop(read(path)));
}

/// The last cell of a row quotes files, each followed by tests in that file.
#[test]
fn every_quoted_test_is_in_the_quoted_file() {
    let cells = PAGE.lines().filter_map(|line| line.strip_suffix('|')?.rsplit('|').next());
    let mut count = 0;
    for cell in cells {
        let mut file = None;
        for text in quoted(cell) {
            if is_path(text) {
                file = Some((text, read(text)));
                continue;
            }
            let (path, code) = file.as_ref().unwrap_or_else(|| panic!("{text} stands after no file"));
            assert!(code.contains(&format!("fn {text}() {{")), "{path} has no test {text}");
            count += 1;
        }
    }
    assert!(count > 50, "only {count} tests were found on the page");
}
