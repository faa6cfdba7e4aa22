//! Types that differ between machines or runs, where that would matter.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use crate::repository::{Finding, Source, assert_lines, assert_none, core_sources};

/// Finds the fields of types that are written as bytes.
///
/// A type counts when it derives or implements one of serde's traits; what a macro makes counts
/// when the macro's text names one of them.
struct WireTypes<'a> {
    source: &'a Source,
    /// Types that implement a trait of serde by hand, in any file.
    by_hand: &'a BTreeSet<String>,
    findings: Vec<Finding>,
}

impl WireTypes<'_> {
    fn check(
        &mut self,
        name: &syn::Ident,
        attributes: &[syn::Attribute],
        fields: Vec<&syn::Field>,
    ) {
        let is_derived = attributes.iter().any(|attribute| match &attribute.meta {
            syn::Meta::List(list) => names_serde(&list.tokens),
            syn::Meta::Path(_) | syn::Meta::NameValue(_) => false,
        });
        if is_derived || self.by_hand.contains(&name.to_string()) {
            for field in fields {
                let mut sized = SizedByMachine::default();
                sized.visit_type(&field.ty);
                self.add(sized.lines);
            }
        }
    }

    fn add(&mut self, lines: Vec<usize>) {
        let what = "it differs between native and wasm32, and this type is written as bytes: \
                    use u32 or u64";
        let findings = lines.into_iter().map(|line| Finding::new(&self.source.path, line, what));
        self.findings.extend(findings);
    }
}

impl<'ast> Visit<'ast> for WireTypes<'_> {
    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.check(&item.ident, &item.attrs, item.fields.iter().collect());
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        let fields = item.variants.iter().flat_map(|variant| &variant.fields).collect();
        self.check(&item.ident, &item.attrs, fields);
    }

    fn visit_item_macro(&mut self, item: &'ast syn::ItemMacro) {
        if names_serde(&item.mac.tokens) {
            let lines = lines_of(&item.mac.tokens, &["usize", "isize"]);
            self.add(lines);
        }
    }
}

/// Collects the lines on which a type names an integer whose size depends on the machine. The
/// length of an array is an expression, and does not count.
#[derive(Default)]
struct SizedByMachine {
    lines: Vec<usize>,
}

impl<'ast> Visit<'ast> for SizedByMachine {
    fn visit_path_segment(&mut self, segment: &'ast syn::PathSegment) {
        if segment.ident == "usize" || segment.ident == "isize" {
            self.lines.push(segment.ident.span().start().line);
        }
        visit::visit_path_segment(self, segment);
    }

    fn visit_expr(&mut self, _: &'ast syn::Expr) {}
}

fn names_serde(tokens: &TokenStream) -> bool {
    !lines_of(tokens, &["Serialize", "Deserialize"]).is_empty()
}

/// The lines on which one of `words` stands.
fn lines_of(tokens: &TokenStream, words: &[&str]) -> Vec<usize> {
    let mut lines = Vec::new();
    for tree in tokens.clone() {
        match tree {
            TokenTree::Group(group) => lines.extend(lines_of(&group.stream(), words)),
            TokenTree::Ident(word) if words.contains(&word.to_string().as_str()) => {
                lines.push(word.span().start().line);
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
    lines
}

/// The types for which an `impl` of a trait of serde is written out.
fn serde_by_hand(sources: &[Source]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for item in sources.iter().flat_map(|source| &source.syntax.items) {
        let syn::Item::Impl(item) = item else {
            continue;
        };
        let Some((path, _)) = &item.trait_ else {
            continue;
        };
        let Some(last) = path.segments.last() else {
            continue;
        };
        if (last.ident == "Serialize" || last.ident == "Deserialize")
            && let syn::Type::Path(own) = &*item.self_ty
            && let Some(name) = own.path.segments.last()
        {
            names.insert(name.ident.to_string());
        }
    }
    names
}

fn wire_types_sized_by_machine(sources: &[Source]) -> Vec<Finding> {
    let by_hand = serde_by_hand(sources);
    let mut findings = Vec::new();
    for source in sources {
        let mut types = WireTypes { source, by_hand: &by_hand, findings: Vec::new() };
        types.visit_file(&source.syntax);
        findings.extend(types.findings);
    }
    findings
}

fn floats(source: &Source) -> Vec<Finding> {
    let mut lines = lines_of(&source.tokens, &["f16", "f32", "f64", "f128"]);
    lines.extend(float_literals(&source.tokens));
    lines.sort_unstable();
    let what = "floats round, and NaNs differ between machines: use integers or integer ratios";
    lines.into_iter().map(|line| Finding::new(&source.path, line, what)).collect()
}

fn float_literals(tokens: &TokenStream) -> Vec<usize> {
    let mut lines = Vec::new();
    let mut after_dot = false;
    for tree in tokens.clone() {
        match &tree {
            TokenTree::Group(group) => lines.extend(float_literals(&group.stream())),
            // In `pair.0.1`, the tokens are `pair`, a dot, and `0.1`.
            TokenTree::Literal(literal) if !after_dot => {
                if let syn::Lit::Float(_) = syn::Lit::new(literal.clone()) {
                    lines.push(literal.span().start().line);
                }
            }
            TokenTree::Literal(_) | TokenTree::Ident(_) | TokenTree::Punct(_) => {}
        }
        after_dot = matches!(&tree, TokenTree::Punct(punct) if punct.as_char() == '.');
    }
    lines
}

fn hash_tables(source: &Source) -> Vec<Finding> {
    let what = "its order differs from run to run: use BTreeMap or BTreeSet";
    lines_of(&source.tokens, &["HashMap", "HashSet"])
        .into_iter()
        .map(|line| Finding::new(&source.path, line, what))
        .collect()
}

#[test]
fn wire_types_have_the_same_size_everywhere() {
    assert_none(wire_types_sized_by_machine(&core_sources()));
}

#[test]
fn the_core_has_no_floats() {
    assert_none(core_sources().iter().flat_map(floats).collect());
}

#[test]
fn the_core_has_no_hash_tables() {
    assert_none(core_sources().iter().flat_map(hash_tables).collect());
}

#[test]
fn finds_wire_types_sized_by_machine() {
    let text = "#[derive(Clone, Serialize)]\nstruct A { list: Vec<Option<usize>>, fixed: [u8; MAX as usize] }\n\
                #[derive(Clone)]\nstruct B { count: usize }\n\
                #[derive(serde::Deserialize)]\nenum C { One(u8), Two { count: isize } }\n\
                struct D(usize);\nimpl Serialize for D {}\n\
                macro_rules! id { () => { #[derive(Serialize)]\nstruct E(usize); } }\n";
    let sources = [Source::parse("core/src/message.rs", text)];
    assert_lines(&wire_types_sized_by_machine(&sources), &[2, 6, 7, 10]);
}

#[test]
fn finds_floats() {
    let text = "fn f(x: f64) -> u8 { 1 }\nfn g() { h(1.5); }\nfn i() { j!(2e3) }\n\
                fn k() { pair.0.1; 0..1; 0xf32; \"1.5\"; }\n";
    assert_lines(&floats(&Source::parse("core/src/raft.rs", text)), &[1, 2, 3]);
}

#[test]
fn finds_hash_tables() {
    let text = "use std::collections::{BTreeMap, HashMap};\nfn f() -> HashSet<u8> { todo() }\n";
    assert_lines(&hash_tables(&Source::parse("core/src/raft.rs", text)), &[1, 2]);
}
