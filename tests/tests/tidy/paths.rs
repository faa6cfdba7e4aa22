//! Finds the paths that a file of the core names, wherever they stand: in `use` items, in code and
//! in macros.
//!
//! It reads tokens, not syntax, because what a macro is given is only tokens.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::repository::Source;

/// A path that starts at the root of the crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    /// As in `raft`, `log`, `Entry`; ends in `*` for all of a module.
    pub(crate) path: Vec<String>,
    pub(crate) line: usize,
}

/// The module that a file of the core holds: empty for the root, `["raft", "log"]` for
/// `core/src/raft/log.rs`.
pub(crate) fn module_of(path: &str) -> Vec<String> {
    let inner = path.strip_prefix("core/src/").unwrap_or(path);
    let inner = inner.strip_suffix(".rs").unwrap_or(inner);
    if inner == "lib" { Vec::new() } else { inner.split('/').map(str::to_owned).collect() }
}

/// Every path in `source` that says where it starts: with `crate`, `self` or `super`.
pub(crate) fn references(source: &Source) -> Vec<Reference> {
    let mut found = Vec::new();
    walk(&trees(&source.tokens), &module_of(&source.path), &mut found);
    found
}

fn trees(tokens: &TokenStream) -> Vec<TokenTree> {
    tokens.clone().into_iter().collect()
}

fn walk(tokens: &[TokenTree], module: &[String], found: &mut Vec<Reference>) {
    let mut rest = tokens;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if let TokenTree::Group(group) = first {
            walk(&trees(&group.stream()), module, found);
        } else if is_word(first, "mod") {
            rest = walk_module(after, module, found);
        } else if let Some(base) = start(first, after, module) {
            rest = walk_path(after, &base, module, found);
        }
    }
}

/// After `mod`: reads what is inside the braces as part of that module.
fn walk_module<'a>(
    rest: &'a [TokenTree],
    module: &[String],
    found: &mut Vec<Reference>,
) -> &'a [TokenTree] {
    if let [TokenTree::Ident(name), TokenTree::Group(body), after @ ..] = rest {
        let inner: Vec<String> = module.iter().cloned().chain([name.to_string()]).collect();
        walk(&trees(&body.stream()), &inner, found);
        return after;
    }
    rest
}

/// Where a path that begins with `first` starts, if it says so.
fn start(first: &TokenTree, after: &[TokenTree], module: &[String]) -> Option<Vec<String>> {
    if !starts_with_colons(after) {
        return None;
    }
    if is_word(first, "crate") {
        return Some(Vec::new());
    }
    if is_word(first, "self") {
        return Some(module.to_vec());
    }
    is_word(first, "super").then(|| parent(module))
}

/// Follows a path, from its `::` to its end, and into the braces of a `use`.
fn walk_path<'a>(
    mut rest: &'a [TokenTree],
    base: &[String],
    module: &[String],
    found: &mut Vec<Reference>,
) -> &'a [TokenTree] {
    let mut path = base.to_vec();
    let mut line = None;
    while starts_with_colons(rest) {
        let Some((next, after)) = rest[2..].split_first() else {
            break;
        };
        line.get_or_insert(next.span().start().line);
        match next {
            TokenTree::Ident(word) if word == "super" => path = parent(&path),
            TokenTree::Ident(word) => path.push(word.to_string()),
            TokenTree::Punct(punct) if punct.as_char() == '*' => path.push("*".to_owned()),
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                for branch in branches(&trees(&group.stream())) {
                    walk_branch(&branch, &path, module, found);
                }
                return after;
            }
            // The `<` of a turbofish ends the path.
            TokenTree::Group(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => break,
        }
        rest = after;
    }
    let line = line.unwrap_or_default();
    found.push(Reference { path, line });
    rest
}

/// One of the parts between the commas in the braces of a `use`.
fn walk_branch(
    branch: &[TokenTree],
    base: &[String],
    module: &[String],
    found: &mut Vec<Reference>,
) {
    let Some((first, after)) = branch.split_first() else {
        return;
    };
    let mut path = base.to_vec();
    if !is_word(first, "self") {
        path.push(first.to_string());
    }
    if starts_with_colons(after) {
        walk_path(after, &path, module, found);
    } else {
        found.push(Reference { path, line: first.span().start().line });
    }
}

fn branches(tokens: &[TokenTree]) -> Vec<Vec<TokenTree>> {
    let is_comma =
        |tree: &TokenTree| matches!(tree, TokenTree::Punct(punct) if punct.as_char() == ',');
    tokens.split(is_comma).map(<[TokenTree]>::to_vec).collect()
}

fn is_word(tree: &TokenTree, word: &str) -> bool {
    matches!(tree, TokenTree::Ident(ident) if ident == word)
}

fn starts_with_colons(tokens: &[TokenTree]) -> bool {
    let is_colon =
        |tree: &TokenTree| matches!(tree, TokenTree::Punct(punct) if punct.as_char() == ':');
    tokens.len() > 2 && tokens[..2].iter().all(is_colon)
}

fn parent(module: &[String]) -> Vec<String> {
    let (_, above) = module.split_last().expect("`super` is above the root of the crate");
    above.to_vec()
}

#[test]
fn finds_paths_of_every_shape() {
    let text = "use crate::{ids::{NodeId, Term as T}, time};\n\
                use super::{self, log::*};\n\
                fn f(x: u8) -> crate::node::Node { assert!(super::super::sim::go::<u8>(x)); }\n\
                mod tests { use super::super::lock::Table; fn g() { self::h::<u8>() } }\n\
                pub(crate) fn h() { std::process::exit(1) }\n";
    let found = references(&Source::parse("core/src/raft/log.rs", text));
    let paths: Vec<String> = found
        .iter()
        .map(|reference| format!("{} {}", reference.line, reference.path.join("::")))
        .collect();
    let expected = [
        "1 ids::NodeId",
        "1 ids::Term",
        "1 time",
        "2 raft",
        "2 raft::log::*",
        "3 node::Node",
        "3 sim::go",
        "4 raft::lock::Table",
        "4 raft::log::tests::h",
    ];
    assert_eq!(paths, expected);
}
