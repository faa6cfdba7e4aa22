//! One word for each thing: the glossary, as far as a machine can hold it.
//!
//! It looks at names where they are given, since a name that is only used is somebody else's, and
//! at comments. What stands there in backquotes or quotation marks is a quotation, and is free.

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use syn::visit::{self, Visit};

use crate::repository::{Finding, Source, assert_lines, assert_none, sources};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    /// In names and in comments.
    Everywhere,
    /// In names only: in prose it is a common word, or right in another sense.
    Names,
    /// In names in the core: elsewhere, other libraries have a say in names.
    CoreNames,
}

/// What is not said, where, and what is said for it.
const UNSAID: &[(&[&str], Where, &str)] = &[
    (&["chaos"], Where::Everywhere, "fault"),
    (&["epoch", "epochs"], Where::Everywhere, "term"),
    (&["login", "logins"], Where::Everywhere, "session"),
    (&["master", "masters", "primary"], Where::Everywhere, "leader"),
    (&["msgapp"], Where::Everywhere, "AppendEntries"),
    (&["replica", "replicas"], Where::Everywhere, "node or peer"),
    (&["slave", "slaves"], Where::Everywhere, "follower"),
    (&["ttl", "ttls"], Where::Everywhere, "session lease, or time to live"),
    (&["owner", "owners"], Where::Names, "holder"),
    (&["unlock", "unlocked"], Where::Names, "release or break"),
    (&["execute", "executed"], Where::CoreNames, "apply"),
    (&["flush", "flushed", "save", "saved"], Where::CoreNames, "persist"),
    (&["resource", "resources"], Where::CoreNames, "guarded file"),
    (&["timestamp", "timestamps", "tick", "ticks"], Where::CoreNames, "Time or LeaseTime"),
    // Abbreviations; `id`, `prng` and `tls` are words.
    (&["cfg", "ctx", "mgr", "srv", "svc"], Where::Names, "the whole word"),
    (&["cmd", "evt", "msg", "req", "resp"], Where::Names, "the whole word"),
    (&["cnt", "idx", "val"], Where::Names, "the whole word"),
];

/// Marks of work that was left; each belongs in an issue.
const LEFT_OVER: &[&str] = &["TODO", "FIXME", "XXX", "HACK"];

/// A name, where it is given.
struct Name {
    text: String,
    line: usize,
    is_function: bool,
}

#[derive(Default)]
struct Names(Vec<Name>);

impl Names {
    fn of(source: &Source) -> Vec<Name> {
        let mut names = Self::default();
        names.visit_file(&source.syntax);
        names.0
    }

    fn add(&mut self, ident: &syn::Ident, is_function: bool) {
        let line = ident.span().start().line;
        self.0.push(Name { text: ident.to_string(), line, is_function });
    }
}

/// Visits each kind of node in `$visit`, and adds the name that it gives.
macro_rules! give_names {
    ($($visit:ident: $node:ident),* $(,)?) => {
        impl<'ast> Visit<'ast> for Names {
            $(fn $visit(&mut self, node: &'ast syn::$node) {
                self.add(&node.ident, stringify!($node) == "Signature");
                visit::$visit(self, node);
            })*

            fn visit_field(&mut self, field: &'ast syn::Field) {
                if let Some(ident) = &field.ident {
                    self.add(ident, false);
                }
                visit::visit_field(self, field);
            }

            fn visit_use_rename(&mut self, rename: &'ast syn::UseRename) {
                self.add(&rename.rename, false);
            }

            // A method of a foreign trait has the name that the trait gives it.
            fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
                let functions_before = self.0.len();
                visit::visit_item_impl(self, item);
                if item.trait_.is_some() {
                    let given: Vec<Name> = self.0.drain(functions_before..).collect();
                    self.0.extend(given.into_iter().filter(|name| !name.is_function));
                }
            }
        }
    };
}

give_names! {
    visit_const_param: ConstParam,
    visit_impl_item_const: ImplItemConst,
    visit_item_const: ItemConst,
    visit_item_enum: ItemEnum,
    visit_item_mod: ItemMod,
    visit_item_static: ItemStatic,
    visit_item_struct: ItemStruct,
    visit_item_trait: ItemTrait,
    visit_item_type: ItemType,
    visit_pat_ident: PatIdent,
    visit_signature: Signature,
    visit_type_param: TypeParam,
    visit_variant: Variant,
}

/// The words of a name or of a text, in lower case: `AppendEntriesReply` and `append_entries_reply`
/// have the same three.
fn words_of(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for part in text.split(|c: char| !c.is_alphanumeric()) {
        let is_shouted = part.chars().all(|c| !c.is_lowercase());
        let mut word = String::new();
        for c in part.chars() {
            if c.is_uppercase() && !is_shouted && !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            word.extend(c.to_lowercase());
        }
        words.push(word);
    }
    words.retain(|word| !word.is_empty());
    words
}

fn unsaid_names(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in Names::of(source) {
        for word in words_of(&name.text) {
            for (unsaid, place, instead) in UNSAID {
                let counts = *place != Where::CoreNames || source.is_core();
                if counts && unsaid.contains(&word.as_str()) {
                    let what = format!("`{}`: for \"{word}\" we say {instead}", name.text);
                    findings.push(Finding::new(&source.path, name.line, what));
                }
            }
        }
    }
    findings
}

fn shapeless_names(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for Name { text, line, is_function } in Names::of(source) {
        let lower = text.to_lowercase();
        let what = if is_function && text.starts_with("get_") {
            format!("`{text}`: a getter has the name of what it gives")
        } else if lower.starts_with("max_") && lower != "max_hold" {
            format!("`{text}`: a limit ends in `_max`")
        } else {
            continue;
        };
        findings.push(Finding::new(&source.path, line, what));
    }
    findings
}

/// The comments of a file, line by line, documentation included; all that is code is blank.
fn comments(source: &Source) -> Vec<String> {
    let mut lines: Vec<Vec<char>> =
        source.text.lines().map(|line| line.chars().collect()).collect();
    blank(&source.tokens, &mut lines);
    lines.into_iter().map(|line| line.into_iter().collect()).collect()
}

fn blank(tokens: &TokenStream, lines: &mut [Vec<char>]) {
    for tree in tokens.clone() {
        if let TokenTree::Group(group) = tree {
            // Comments may stand inside, so only the brackets go.
            if group.delimiter() != Delimiter::None && !is_comment(group.span(), lines) {
                blank_span(group.span_open(), lines);
                blank_span(group.span_close(), lines);
                blank(&group.stream(), lines);
            }
        } else if !is_comment(tree.span(), lines) {
            blank_span(tree.span(), lines);
        }
    }
}

/// A comment that documents is a token of an attribute, whose place is that of the comment.
fn is_comment(span: Span, lines: &[Vec<char>]) -> bool {
    let start = span.start();
    let line = start.line.checked_sub(1).and_then(|index| lines.get(index));
    let text = line.and_then(|line| line.get(start.column..start.column + 2));
    matches!(text, Some(['/', '/' | '*']))
}

fn blank_span(span: Span, lines: &mut [Vec<char>]) {
    let (start, end) = (span.start(), span.end());
    for number in start.line..=end.line {
        let Some(line) = number.checked_sub(1).and_then(|index| lines.get_mut(index)) else {
            continue;
        };
        let first = if number == start.line { start.column } else { 0 };
        let last = if number == end.line { end.column } else { line.len() };
        let last = last.min(line.len());
        line[first.min(last)..last].fill(' ');
    }
}

/// A line without what it quotes.
fn without_quotations(line: &str) -> String {
    let mut kept = String::new();
    let mut quote = None;
    for c in line.chars() {
        match quote {
            Some(mark) if c == mark => quote = None,
            Some(_) => {}
            None if c == '`' || c == '"' => quote = Some(c),
            None => kept.push(c),
        }
    }
    kept
}

fn unsaid_comments(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in comments(source).iter().enumerate() {
        for word in words_of(&without_quotations(line)) {
            for (unsaid, place, instead) in UNSAID {
                if *place == Where::Everywhere && unsaid.contains(&word.as_str()) {
                    let what = format!("for \"{word}\" we say {instead}; quote it if it is theirs");
                    findings.push(Finding::new(&source.path, index + 1, what));
                }
            }
        }
    }
    findings
}

fn left_overs(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in comments(source).iter().enumerate() {
        let line = without_quotations(line);
        for word in line.split(|c: char| !c.is_alphanumeric()) {
            if LEFT_OVER.contains(&word) {
                let what = format!("{word}: do it now, or open an issue and say here what is true");
                findings.push(Finding::new(&source.path, index + 1, what));
            }
        }
    }
    findings
}

#[test]
fn names_use_the_words_of_the_glossary() {
    assert_none(sources().iter().flat_map(unsaid_names).collect());
}

#[test]
fn names_have_the_shape_of_their_kind() {
    assert_none(sources().iter().flat_map(shapeless_names).collect());
}

#[test]
fn comments_use_the_words_of_the_glossary() {
    assert_none(sources().iter().flat_map(unsaid_comments).collect());
}

#[test]
fn no_work_is_left_in_comments() {
    assert_none(sources().iter().flat_map(left_overs).collect());
}

#[cfg(test)]
fn sample(text: &str) -> Source {
    Source::parse("core/src/raft.rs", text)
}

#[test]
fn finds_unsaid_names() {
    let text = "struct ReplicaState;\nstruct S { owner: u8, holder: u8 }\n\
                fn f(msg: u8) { let idx = std::time::UNIX_EPOCH; }\nconst SESSION_TTL: u8 = 1;\n\
                enum E { Primary, Leader }\nmod save {}\n\
                impl Write for S { fn flush(&mut self) { let req = 1; } }\n";
    assert_lines(&unsaid_names(&sample(text)), &[1, 2, 3, 3, 4, 5, 6, 7]);
    let elsewhere = Source::parse("host-native/src/disk.rs", "fn flush() {}\nfn unlock() {}\n");
    assert_lines(&unsaid_names(&elsewhere), &[2]);
}

#[test]
fn finds_shapeless_names() {
    let text =
        "fn get_term() {}\nconst MAX_BYTES: u8 = 1;\nstruct S { max_hold: u8, bytes_max: u8 }\n";
    assert_lines(&shapeless_names(&sample(text)), &[1, 2]);
}

#[test]
fn finds_unsaid_comments() {
    let text = "//! Each replica has a log.\n\n/// As the \"master\" of `replica` does.\n\
                fn f() { g(\"the master\") } // The Epoch ends.\n/* one\nslave */\n\
                const X: &str = \"// a primary\";\n";
    assert_lines(&unsaid_comments(&sample(text)), &[1, 4, 6]);
}

#[test]
fn finds_work_that_is_left() {
    let text = "// TODO: more\nfn f() { g(\"TODO\") }\n/// Not a `TODO`.\nfn h() {} // XXX\n";
    assert_lines(&left_overs(&sample(text)), &[1, 4]);
}
