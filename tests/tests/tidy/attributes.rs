//! Silenced lints and unsafe code.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

use crate::repository::{Finding, MEMBERS, Source, assert_lines, assert_none, sources};

/// The words of `tokens`, on all levels, each with its line and the group that follows it.
fn words(tokens: &TokenStream) -> Vec<(String, usize, Option<Group>)> {
    let mut found = Vec::new();
    let mut trees = tokens.clone().into_iter().peekable();
    while let Some(tree) = trees.next() {
        match tree {
            TokenTree::Ident(word) => {
                let argument = match trees.peek() {
                    Some(TokenTree::Group(group)) => Some(group.clone()),
                    Some(TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_))
                    | None => None,
                };
                found.push((word.to_string(), word.span().start().line, argument));
            }
            TokenTree::Group(group) => found.extend(words(&group.stream())),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
    found
}

/// What stands between the brackets of each attribute, on all levels, those of macros included.
fn attributes(tokens: &TokenStream) -> Vec<TokenStream> {
    let mut found = Vec::new();
    let mut after_hash = false;
    for tree in tokens.clone() {
        // `#[...]` or `#![...]`, but not `vec![...]`.
        let is_mark = match &tree {
            TokenTree::Punct(punct) => {
                punct.as_char() == '#' || (after_hash && punct.as_char() == '!')
            }
            TokenTree::Ident(_) | TokenTree::Literal(_) | TokenTree::Group(_) => false,
        };
        if let TokenTree::Group(group) = tree {
            if after_hash && group.delimiter() == Delimiter::Bracket {
                found.push(group.stream());
            } else {
                found.extend(attributes(&group.stream()));
            }
        }
        after_hash = is_mark;
    }
    found
}

fn silenced_lints(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (word, line, argument) in attributes(&source.tokens).iter().flat_map(words) {
        let Some(argument) = argument else { continue };
        let has_reason = words(&argument.stream()).iter().any(|(word, _, _)| word == "reason");
        let what = match word.as_str() {
            "allow" => "write `#[expect(lint, reason = \"...\")]`, which tells when it is obsolete",
            "expect" if !has_reason => "add `reason = \"...\"`",
            _ => continue,
        };
        findings.push(Finding::new(&source.path, line, what));
    }
    findings
}

/// A module of wasm cannot export a function without an attribute that counts as unsafe; an example
/// of the core may have it. Nothing else is unsafe.
fn unsafe_code(source: &Source) -> Vec<Finding> {
    let is_export = |argument: &Option<Group>| {
        let is_example = source.path.starts_with("core/examples/");
        let text = argument.as_ref().map(|group| group.stream().to_string());
        is_example && text.is_some_and(|text| text == "no_mangle")
    };
    words(&source.tokens)
        .into_iter()
        .filter(|(word, _, argument)| word == "unsafe" && !is_export(argument))
        .map(|(_, line, _)| {
            Finding::new(&source.path, line, "nothing here is unsafe: find a safe way")
        })
        .collect()
}

/// What the root file of a library has to say about all of it.
fn missing_promises(source: &Source) -> Vec<Finding> {
    let is_root = MEMBERS.iter().any(|member| source.path == format!("{member}/src/lib.rs"));
    let mut required = if is_root { vec!["forbid(unsafe_code)"] } else { Vec::new() };
    if source.path == "core/src/lib.rs" {
        required.push("no_std");
    }
    let inner = source.syntax.attrs.iter();
    let stated: Vec<String> = inner
        .flat_map(|_| attributes(&source.tokens))
        .map(|tokens| tokens.to_string().replace(' ', ""))
        .collect();
    required
        .into_iter()
        .filter(|promise| !stated.iter().any(|stated| stated == promise))
        .map(|promise| Finding::new(&source.path, 0, format!("add `#![{promise}]`")))
        .collect()
}

#[test]
fn lints_are_silenced_with_a_reason() {
    assert_none(sources().iter().flat_map(silenced_lints).collect());
}

#[test]
fn no_code_is_unsafe() {
    assert_none(sources().iter().flat_map(unsafe_code).collect());
}

#[test]
fn libraries_say_what_they_never_do() {
    assert_none(sources().iter().flat_map(missing_promises).collect());
}

#[test]
fn finds_silenced_lints() {
    let text = "#![allow(dead_code)]\n\
                #[expect(dead_code)]\nfn f() {}\n\
                #[expect(dead_code, reason = \"a sample\")]\nfn g() { x.expect(1); allow(2); }\n\
                #[cfg_attr(test, allow(dead_code))]\nfn h() {}\n\
                make! { #[allow(dead_code)] struct X; }\n\
                fn i() { vec![x.expect(1)]; }\n";
    assert_lines(&silenced_lints(&Source::parse("core/src/raft.rs", text)), &[1, 2, 6, 8]);
}

#[test]
fn finds_unsafe_code() {
    let text = "#[unsafe(no_mangle)]\nfn f() { let unsafely = 1; }\nfn g() { unsafe { h() } }\n";
    assert_lines(&unsafe_code(&Source::parse("core/src/raft.rs", text)), &[1, 3]);
    assert_lines(&unsafe_code(&Source::parse("core/examples/digests.rs", text)), &[3]);
}

#[test]
fn finds_missing_promises() {
    let findings = |text: &str| missing_promises(&Source::parse("core/src/lib.rs", text)).len();
    assert_eq!(findings("//! The core.\n#![no_std]\n#![forbid(unsafe_code)]\n"), 0);
    assert_eq!(findings("//! The core.\n#![no_std]\n"), 1);
    assert_eq!(findings("fn f() {}\n"), 2);
}
