//! Which module of the core may name which.
//!
//! A module may name those of the layers below it. So one can read the core from the bottom up,
//! and test consensus without locks, and locks without consensus.

use std::collections::{BTreeMap, BTreeSet};

use crate::paths::{module_of, references};
use crate::repository::{Finding, Source, assert_lines, assert_none, core_sources};

struct Layer {
    modules: &'static [&'static str],
    /// Whether the modules of the layer may name each other, as long as there is no circle.
    siblings_meet: bool,
}

/// From the bottom to the top.
const LAYERS: &[Layer] = &[
    Layer { modules: &["capped", "checksum", "ids", "prng", "text", "time"], siblings_meet: true },
    Layer { modules: &["config", "membership"], siblings_meet: true },
    Layer { modules: &["message"], siblings_meet: true },
    Layer { modules: &["codec"], siblings_meet: true },
    // Only `node` knows all three.
    Layer { modules: &["client", "lock", "raft"], siblings_meet: false },
    Layer { modules: &["node"], siblings_meet: true },
    Layer { modules: &["sim"], siblings_meet: true },
];

fn rank(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.modules.contains(&module))
}

fn may_name(from: usize, to: usize) -> bool {
    to < from || (to == from && LAYERS[from].siblings_meet)
}

/// What the root of the crate re-exports: a name, and the module it comes from. `crate::Node` is
/// `node`, whatever it looks like.
fn re_exports(sources: &[Source]) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    let Some(root) = sources.iter().find(|source| source.path == "core/src/lib.rs") else {
        return names;
    };
    for item in &root.syntax.items {
        if let syn::Item::Use(item) = item {
            collect_names(&item.tree, None, &mut names);
        }
    }
    names
}

fn collect_names(tree: &syn::UseTree, module: Option<&str>, names: &mut BTreeMap<String, String>) {
    let mut insert = |name: &syn::Ident| {
        let module = module.map_or_else(|| name.to_string(), str::to_owned);
        names.insert(name.to_string(), module);
    };
    match tree {
        syn::UseTree::Path(path) if path.ident == "crate" || path.ident == "self" => {
            collect_names(&path.tree, module, names);
        }
        syn::UseTree::Path(path) => {
            let module = module.map_or_else(|| path.ident.to_string(), str::to_owned);
            collect_names(&path.tree, Some(&module), names);
        }
        syn::UseTree::Name(name) => insert(&name.ident),
        syn::UseTree::Rename(rename) => insert(&rename.rename),
        syn::UseTree::Group(group) => {
            for tree in &group.items {
                collect_names(tree, module, names);
            }
        }
        syn::UseTree::Glob(_) => {}
    }
}

/// Which module names which, and where: all but a module naming itself.
fn edges(sources: &[Source]) -> Vec<(String, String, Finding)> {
    let re_exports = re_exports(sources);
    let mut edges = Vec::new();
    for source in sources {
        // The root names all modules: that is what it is for.
        let Some(from) = module_of(&source.path).into_iter().next() else {
            continue;
        };
        for reference in references(source) {
            let Some(name) = reference.path.first() else {
                continue;
            };
            let to = if rank(name).is_some() { name } else { re_exports.get(name).unwrap_or(name) };
            if *to != from {
                let what = format!("`{from}` names `{}`", reference.path.join("::"));
                let place = Finding::new(&source.path, reference.line, what);
                edges.push((from.clone(), to.clone(), place));
            }
        }
    }
    edges
}

fn wrong_imports(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (from, to, place) in edges(sources) {
        let advice = match (rank(&from), rank(&to)) {
            (Some(from), Some(to)) if may_name(from, to) => continue,
            (Some(_), Some(_)) => {
                format!("`{to}` is not below it: move what both need into a lower module")
            }
            (None, _) => {
                format!("give `{from}` its place in LAYERS of tests/tests/tidy/imports.rs")
            }
            (_, None) => format!("`{to}` is not in LAYERS of tests/tests/tidy/imports.rs"),
        };
        findings.push(place.followed_by(&advice));
    }
    findings
}

/// Modules of one layer that name each other in a circle.
fn circles(sources: &[Source]) -> Vec<Finding> {
    let edges = edges(sources);
    let reaches = |start: &str, goal: &str| {
        let mut seen = BTreeSet::from([start.to_owned()]);
        let mut open = vec![start.to_owned()];
        while let Some(module) = open.pop() {
            for (_, to, _) in edges.iter().filter(|(from, _, _)| *from == module) {
                if seen.insert(to.clone()) {
                    open.push(to.clone());
                }
            }
        }
        seen.contains(goal)
    };
    edges
        .iter()
        .filter(|(from, to, _)| rank(from) == rank(to) && reaches(to, from))
        .map(|(from, to, place)| place.followed_by(&format!("and `{to}` leads back to `{from}`")))
        .collect()
}

#[test]
fn modules_name_only_what_is_below_them() {
    assert_none(wrong_imports(&core_sources()));
}

#[test]
fn modules_name_each_other_in_no_circle() {
    assert_none(circles(&core_sources()));
}

#[cfg(test)]
fn sample(files: &[(&str, &str)]) -> Vec<Source> {
    files.iter().map(|(name, text)| Source::parse(&format!("core/src/{name}"), text)).collect()
}

#[test]
fn finds_wrong_imports() {
    let sources = sample(&[
        ("lib.rs", "pub mod node;\npub use node::{Node, Output};\n"),
        ("ids.rs", "use crate::time::Time;\n"),
        ("message.rs", "use crate::ids::NodeId;\nuse crate::codec;\n"),
        ("raft.rs", "\nfn f() { assert!(crate::lock::g()) }\n"),
        ("lock/table.rs", "use super::super::raft::Log;\nuse super::queue;\n"),
        ("client.rs", "\n\nuse crate::{ids, Node};\n"),
        ("sim.rs", "use crate::{Node, client::Client};\n"),
        ("helpers.rs", "use crate::ids;\n"),
    ]);
    assert_lines(&wrong_imports(&sources), &[2, 2, 1, 3, 1]);
}

#[test]
fn finds_circles() {
    let sources = sample(&[
        ("ids.rs", "use crate::time::Time;\n"),
        ("time.rs", "\nuse crate::prng::Prng;\n"),
        ("prng.rs", "\n\nuse crate::ids::NodeId;\n"),
        ("checksum.rs", "use crate::ids::NodeId;\n"),
    ]);
    assert_lines(&circles(&sources), &[1, 2, 3]);
}
