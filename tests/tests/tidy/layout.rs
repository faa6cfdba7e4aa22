//! Which files there are, and what documents may say.

use crate::repository::{Finding, TextFile, assert_lines, assert_none};
use crate::repository::{has_extension, text_files, top_level};

/// What the root of the repository has to hold.
const REQUIRED: &[&str] = &[
    ".ci",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "core",
    "deny.toml",
    "perf",
    "rust-toolchain.toml",
    "tests",
];

/// What it may hold besides: folders that get their content later, and configuration of tools.
const ALLOWED: &[&str] =
    &[".gitattributes", "clippy.toml", "host-native", "host-wasm", "rustfmt.toml", "web-demo"];

/// Folders of one person's or one machine's files. A document that names one helps nobody else.
const MACHINE_FOLDERS: &[&str] =
    &["/Users/", "/builds/", "/home/", "/root/", "/work/", "/workspace/", "C:\\"];

fn unexpected_names(names: &[String]) -> Vec<Finding> {
    let surplus = names
        .iter()
        .filter(|name| !REQUIRED.contains(&name.as_str()) && !ALLOWED.contains(&name.as_str()))
        .map(|name| Finding::new(name, 0, "does not belong in the root: move it into a folder"));
    let missing = REQUIRED
        .iter()
        .filter(|required| !names.iter().any(|name| name == *required))
        .map(|required| Finding::new(required, 0, "is missing from the root: add it"));
    surplus.chain(missing).collect()
}

fn module_files(paths: &[String]) -> Vec<Finding> {
    paths
        .iter()
        .filter(|path| path.ends_with("/mod.rs"))
        .map(|path| Finding::new(path, 0, "name it after its module, beside the folder"))
        .collect()
}

fn machine_paths(file: &TextFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        for folder in MACHINE_FOLDERS {
            // `a/work/b` and `https://example.org/home/` are no paths of a machine.
            let starts_a_path = |at: usize| {
                !line[..at]
                    .ends_with(|before: char| before.is_alphanumeric() || "._-~".contains(before))
            };
            if line.match_indices(folder).any(|(at, _)| starts_a_path(at)) {
                let what =
                    format!("names `{folder}`, of one machine: use a path in the repository");
                findings.push(Finding::new(&file.path, index + 1, what));
            }
        }
    }
    findings
}

#[test]
fn the_root_holds_what_it_should() {
    assert_none(unexpected_names(&top_level()));
}

#[test]
fn a_module_has_the_name_of_its_file() {
    let files = text_files(|path| has_extension(path, &["rs"]));
    let paths: Vec<String> = files.into_iter().map(|file| file.path).collect();
    assert_none(module_files(&paths));
}

#[test]
fn documents_name_no_path_of_a_machine() {
    let is_document =
        |path: &str| has_extension(path, &["md", "toml", "txt"]) || path.ends_with("/run");
    let documents = text_files(is_document);
    assert_none(documents.iter().flat_map(machine_paths).collect());
}

#[test]
fn finds_names_that_do_not_belong() {
    let mut names: Vec<String> = REQUIRED.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(unexpected_names(&names), []);
    names.retain(|name| name != "README.md");
    names.push("notes.md".to_owned());
    assert_eq!(unexpected_names(&names).len(), 2);
}

#[test]
fn finds_module_files() {
    let paths = ["core/src/raft/mod.rs".to_owned(), "core/src/raft.rs".to_owned()];
    assert_eq!(module_files(&paths).len(), 1);
}

#[test]
fn finds_paths_of_a_machine() {
    let text = "see `/home/someone/notes`\nhttps://example.org/home/page\ncore/work/x\n(/root/x)\n";
    let file = TextFile { path: "README.md".to_owned(), text: text.to_owned() };
    assert_lines(&machine_paths(&file), &[1, 4]);
}
