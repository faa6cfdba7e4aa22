//! The README says what is true: its commands run, and print what it shows.
//!
//! Its Rust code is a doc test of this package (`tests/src/lib.rs`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The content of each fenced block of one language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    let blocks = text.split(&fence).skip(1);
    blocks.map(|block| block.split("```").next().unwrap_or_default()).collect()
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).expect("there is a README")
}

#[test]
fn the_first_example_prints_what_the_readme_shows() {
    let readme = readme();
    let command = blocks(&readme, "sh")[0].trim();
    let arguments = command.strip_prefix("cargo ").expect("the first command is cargo's");
    let output = Command::new(env!("CARGO"))
        .current_dir(root())
        // The outer cargo may hold the lock of the usual folder.
        .env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("readme"))
        .args(arguments.split_whitespace())
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), blocks(&readme, "text")[0]);
}

#[test]
fn every_file_that_a_document_links_to_exists() {
    for document in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        let text = fs::read_to_string(root().join(document)).expect("the document is there");
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.starts_with("http")) {
            assert!(root().join(target).exists(), "{document} links to {target}");
        }
    }
}

#[test]
fn the_commands_for_benches_and_tests_name_what_exists() {
    let readme = readme();
    let commands = blocks(&readme, "sh").concat();
    assert!(commands.contains("tests/run") && root().join("tests/run").exists());
    assert!(commands.contains("cargo bench -p quorlock-perf"));
    assert!(root().join("perf/benches").exists());
}
