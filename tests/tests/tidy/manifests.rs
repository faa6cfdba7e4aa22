//! Who may depend on whom, and that each fact has one place.

use toml::{Table, Value};

use crate::repository::{Finding, TextFile, assert_none, manifests, text_file};

/// Crates that only some folders may depend on. A name covers what begins with it and a dash.
const CONFINED: &[(&str, &[&str])] = &[
    ("js-sys", &["host-wasm"]),
    ("quinn", &["host-native", "perf", "tests"]),
    ("rustls", &["host-native", "perf", "tests"]),
    ("serde_json", &["host-native", "host-wasm", "perf", "tests", "web-demo"]),
    ("tokio", &["host-native", "perf", "tests"]),
    ("wasm-bindgen", &["host-wasm"]),
    ("web-sys", &["host-wasm"]),
];

/// All that the core may depend on: small, `no_std`, and each with a fixed algorithm or format.
const CORE: &[&str] = &["bytes", "crc", "postcard", "rand_core", "rand_pcg", "serde"];

/// Packages at the end of every chain.
const LAST: &[&str] = &["quorlock-perf", "quorlock-tests"];

/// Facts that the root manifest states for all.
const INHERITED: &[&str] = &["version", "edition", "rust-version", "license"];

struct Dependency {
    name: String,
    value: Value,
    /// Whether it is there only for tests, examples and benches.
    is_dev: bool,
}

fn parse(file: &TextFile) -> Table {
    file.text.parse().unwrap_or_else(|error| panic!("{}: {error}", file.path))
}

fn folder(file: &TextFile) -> &str {
    file.path.split('/').next().unwrap_or_default()
}

/// All dependencies, also those for one target only, by the name that the registry knows.
fn dependencies(manifest: &Table) -> Vec<Dependency> {
    let targets = manifest.get("target").and_then(Value::as_table).into_iter().flatten();
    let tables = targets.filter_map(|(_, table)| table.as_table()).chain([manifest]);
    let mut found = Vec::new();
    for table in tables {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (key, value) in table.get(kind).and_then(Value::as_table).into_iter().flatten() {
                let renamed = value.get("package").and_then(Value::as_str);
                let name = renamed.unwrap_or(key).to_owned();
                let is_dev = kind == "dev-dependencies";
                found.push(Dependency { name, value: value.clone(), is_dev });
            }
        }
    }
    found
}

fn line_of(file: &TextFile, name: &str) -> usize {
    let is_it = |line: &str| line.starts_with(name) || line.contains(&format!("\"{name}\""));
    file.text.lines().position(is_it).map_or(0, |index| index + 1)
}

fn is_family(name: &str, family: &str) -> bool {
    name.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

fn forbidden_dependencies(file: &TextFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |name: &str, what: String| {
        findings.push(Finding::new(&file.path, line_of(file, name), what));
    };
    for Dependency { name, is_dev, .. } in dependencies(&parse(file)) {
        if LAST.contains(&name.as_str()) {
            find(&name, format!("nothing may depend on {name}: move what you need out of it"));
        }
        for (family, folders) in CONFINED {
            if is_family(&name, family) && !folders.contains(&folder(file)) {
                let allowed = folders.join(", ");
                find(&name, format!("{name} may only be used in {allowed}"));
            }
        }
        if folder(file) == "core" && !is_dev && !CORE.contains(&name.as_str()) {
            let allowed = CORE.join(", ");
            find(&name, format!("the core depends only on {allowed}: is {name} worth a new one?"));
        }
    }
    findings
}

fn facts_stated_twice(file: &TextFile) -> Vec<Finding> {
    let manifest = parse(file);
    let is_inherited =
        |value: &Value| value.get("workspace").and_then(Value::as_bool) == Some(true);
    let mut findings = Vec::new();
    for Dependency { name, value, .. } in dependencies(&manifest) {
        if !is_inherited(&value) {
            let what =
                format!("put {name} in [workspace.dependencies], and `workspace = true` here");
            findings.push(Finding::new(&file.path, line_of(file, &name), what));
        }
    }
    let package = manifest.get("package").and_then(Value::as_table);
    for fact in INHERITED {
        if !package.and_then(|package| package.get(*fact)).is_some_and(is_inherited) {
            let what = format!("the root manifest states it: write `{fact}.workspace = true`");
            findings.push(Finding::new(&file.path, line_of(file, fact), what));
        }
    }
    if !manifest.get("lints").is_some_and(is_inherited) {
        let what = "add `[lints]` with `workspace = true`";
        findings.push(Finding::new(&file.path, 0, what));
    }
    findings
}

/// The toolchain may name a patch release of the promised version, and nothing else.
fn compiler_differs(root: &TextFile, toolchain: &TextFile) -> Vec<Finding> {
    let text_at = |file: &TextFile, path: &[&str]| {
        let table = Value::Table(parse(file));
        let value = path.iter().try_fold(&table, |value, key| value.get(key));
        value.and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let promised = text_at(root, &["workspace", "package", "rust-version"]);
    let tested = text_at(toolchain, &["toolchain", "channel"]);
    let release = tested.rsplit_once('.').map_or(tested.as_str(), |(release, _)| release);
    if release == promised {
        return Vec::new();
    }
    let what =
        format!("tests use Rust {tested}, but Cargo.toml promises {promised}: make them equal");
    vec![Finding::new(&toolchain.path, line_of(toolchain, "channel"), what)]
}

#[test]
fn dependencies_are_allowed() {
    assert_none(manifests().iter().flat_map(forbidden_dependencies).collect());
}

#[test]
fn facts_are_stated_once() {
    assert_none(manifests().iter().flat_map(facts_stated_twice).collect());
}

#[test]
fn the_tested_compiler_is_the_promised_one() {
    assert_none(compiler_differs(&text_file("Cargo.toml"), &text_file("rust-toolchain.toml")));
}

#[cfg(test)]
fn sample(path: &str, text: &str) -> TextFile {
    TextFile { path: path.to_owned(), text: text.to_owned() }
}

#[test]
fn finds_forbidden_dependencies() {
    let text = "[dependencies]\ntokio = \"1\"\nserde = \"1\"\n\
                [target.'cfg(unix)'.dependencies]\nnet = { package = \"quinn-proto\", version = \"1\" }\n\
                [dev-dependencies]\nquorlock-tests = { path = \"../tests\" }\nproptest = \"1\"\n";
    let lines = |folder: &str| {
        let findings = forbidden_dependencies(&sample(&format!("{folder}/Cargo.toml"), text));
        findings.len()
    };
    // In the core each of the two is both confined elsewhere and not on the core's own list.
    assert_eq!(lines("core"), 5);
    assert_eq!(lines("host-wasm"), 3);
    assert_eq!(lines("host-native"), 1);
}

#[test]
fn finds_facts_stated_twice() {
    let good = "[package]\nversion.workspace = true\nedition.workspace = true\n\
                rust-version.workspace = true\nlicense.workspace = true\n\
                [dependencies]\nserde.workspace = true\n[lints]\nworkspace = true\n";
    assert_eq!(facts_stated_twice(&sample("core/Cargo.toml", good)), []);
    let bad = "[package]\nversion = \"0.1.0\"\n[dependencies]\nserde = \"1\"\n";
    // The dependency, the four facts and the lints.
    assert_eq!(facts_stated_twice(&sample("core/Cargo.toml", bad)).len(), 6);
}

#[test]
fn finds_a_compiler_that_differs() {
    let root = sample("Cargo.toml", "[workspace.package]\nrust-version = \"1.95\"\n");
    let differs = |channel: &str| {
        let text = format!("[toolchain]\nchannel = \"{channel}\"\n");
        !compiler_differs(&root, &sample("rust-toolchain.toml", &text)).is_empty()
    };
    assert!(!differs("1.95.0"));
    assert!(differs("1.94.1"));
    assert!(differs("stable"));
}
