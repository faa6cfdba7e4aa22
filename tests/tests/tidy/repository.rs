//! The files of the repository, and how a rule says what it found.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::TokenStream;

/// The folders of the workspace, some of which may not exist yet.
pub(crate) const MEMBERS: &[&str] =
    &["core", "host-native", "host-wasm", "perf", "tests", "web-demo"];

/// One place that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    path: String,
    /// From 1; 0 when it is about the whole file.
    line: usize,
    what: String,
}

impl Finding {
    pub(crate) fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }

    /// The same place, with more to say.
    pub(crate) fn followed_by(&self, more: &str) -> Self {
        Self { what: format!("{}; {more}", self.what), ..self.clone() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, what } = self;
        if *line == 0 { write!(f, "{path}: {what}") } else { write!(f, "{path}:{line}: {what}") }
    }
}

/// Fails the test with everything that was found, one place a line.
pub(crate) fn assert_none(mut findings: Vec<Finding>) {
    findings.sort();
    findings.dedup();
    let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
    assert!(lines.is_empty(), "{} found:\n{}", lines.len(), lines.join("\n"));
}

/// Asserts that a rule finds, in a sample, exactly the lines `expected`.
pub(crate) fn assert_lines(findings: &[Finding], expected: &[usize]) {
    let lines: Vec<usize> = findings.iter().map(|finding| finding.line).collect();
    assert_eq!(lines, expected, "{findings:#?}");
}

/// A text file. The path is relative to the root of the repository, with `/`.
#[derive(Debug)]
pub(crate) struct TextFile {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A Rust file, parsed.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) tokens: TokenStream,
    pub(crate) syntax: syn::File,
}

impl Source {
    /// Parses `text` as if it stood at `path`.
    pub(crate) fn parse(path: &str, text: &str) -> Self {
        let tokens = text
            .parse()
            .unwrap_or_else(|error| panic!("{path}: these are no tokens of Rust: {error}"));
        let syntax = syn::parse_file(text)
            .unwrap_or_else(|error| panic!("{path}: this is not Rust: {error}"));
        Self { path: path.to_owned(), text: text.to_owned(), tokens, syntax }
    }

    /// Whether it is part of the core library, whose rules are stricter.
    pub(crate) fn is_core(&self) -> bool {
        self.path.starts_with("core/src/")
    }
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the folder `tests` is in the repository").to_owned()
}

/// All Rust files of the workspace, in the order of their paths.
pub(crate) fn sources() -> Vec<Source> {
    let files = text_files(|path| has_extension(path, &["rs"]));
    assert!(files.len() > 5, "found almost no sources; where did they go?");
    files.iter().map(|file| Source::parse(&file.path, &file.text)).collect()
}

/// All Rust files of the core library.
pub(crate) fn core_sources() -> Vec<Source> {
    let mut sources = sources();
    sources.retain(Source::is_core);
    sources
}

/// The manifest of every folder that has one.
pub(crate) fn manifests() -> Vec<TextFile> {
    let is_manifest = |path: &str| {
        path.strip_suffix("/Cargo.toml").is_some_and(|folder| MEMBERS.contains(&folder))
    };
    text_files(is_manifest)
}

/// One file that has to be there.
pub(crate) fn text_file(path: &str) -> TextFile {
    let text = fs::read_to_string(root().join(path))
        .unwrap_or_else(|error| panic!("{path}: cannot be read: {error}"));
    TextFile { path: path.to_owned(), text }
}

/// Whether the name of the file ends in a dot and one of `extensions`.
pub(crate) fn has_extension(path: &str, extensions: &[&str]) -> bool {
    path.rsplit_once('.').is_some_and(|(_, extension)| extensions.contains(&extension))
}

/// All files that `is_wanted`, in the order of their paths.
pub(crate) fn text_files(is_wanted: impl Fn(&str) -> bool) -> Vec<TextFile> {
    let mut paths = Vec::new();
    collect(&root(), "", &mut paths);
    paths.retain(|path| is_wanted(path));
    paths.sort();
    paths.iter().map(|path| text_file(path)).collect()
}

/// The names in the root that are part of the repository: all but what git ignores, and git's own.
pub(crate) fn top_level() -> Vec<String> {
    let ignored = text_file(".gitignore").text;
    let is_ignored = |name: &str| ignored.lines().any(|line| line.trim_matches('/') == name);
    let mut names = names_in(&root());
    names.retain(|name| name != ".git" && !is_ignored(name));
    names
}

fn collect(folder: &Path, prefix: &str, paths: &mut Vec<String>) {
    let names = if prefix.is_empty() { top_level() } else { names_in(folder) };
    for name in names {
        let path = folder.join(&name);
        let relative = format!("{prefix}{name}");
        if path.is_dir() {
            collect(&path, &format!("{relative}/"), paths);
        } else {
            paths.push(relative);
        }
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: cannot be listed: {error}", folder.display()));
    let name = |entry: std::io::Result<fs::DirEntry>| {
        let name = entry.expect("a listed folder can be read").file_name();
        name.into_string().expect("names of files are UTF-8")
    };
    entries.map(name).collect()
}
