//! Lines in a file and in a function: what does not fit is two things.

use std::ops::RangeInclusive;

use proc_macro2::Span;
use syn::visit::{self, Visit};

use crate::repository::{Finding, Source, assert_lines, assert_none, sources};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// What is measured: unit tests are not.
#[derive(Default)]
struct Measure {
    /// The name, the line it starts on, and the number of lines from its signature to its end.
    functions: Vec<(String, usize, usize)>,
    test_modules: Vec<RangeInclusive<usize>>,
}

impl Measure {
    fn of(source: &Source) -> Self {
        let mut measure = Self::default();
        measure.visit_file(&source.syntax);
        measure
    }

    fn add(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let lines = lines_of(signature.fn_token.span, body.brace_token.span.close());
        let length = lines.end() - lines.start() + 1;
        self.functions.push((signature.ident.to_string(), *lines.start(), length));
    }
}

impl<'ast> Visit<'ast> for Measure {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if is_for_tests(&module.attrs) {
            // Without content it is a file of its own, and measured as one.
            if let (Some((braces, _)), [first, ..]) = (&module.content, &*module.attrs) {
                let lines = lines_of(first.pound_token.span, braces.span.close());
                self.test_modules.push(lines);
            }
        } else {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.add(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.add(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(body) = &function.default {
            self.add(&function.sig, body);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

fn lines_of(first: Span, last: Span) -> RangeInclusive<usize> {
    first.start().line..=last.end().line
}

/// Whether there is a `#[cfg(test)]`, or one that asks for tests and something else.
fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).any(|attribute| {
        let syn::Meta::List(list) = &attribute.meta else {
            return false;
        };
        let condition = list.tokens.to_string().replace(' ', "");
        condition == "test" || condition.starts_with("all(test,")
    })
}

fn long_files(source: &Source) -> Vec<Finding> {
    let measure = Measure::of(source);
    let tests: usize = measure.test_modules.iter().map(|lines| lines.clone().count()).sum();
    let lines = source.text.lines().count() - tests;
    if lines <= FILE_LINES_MAX {
        return Vec::new();
    }
    let what = format!("{lines} lines without unit tests: split it, at {FILE_LINES_MAX} at most");
    vec![Finding::new(&source.path, 0, what)]
}

fn long_functions(source: &Source) -> Vec<Finding> {
    let functions = Measure::of(source).functions.into_iter();
    let long = functions.filter(|(_, _, lines)| *lines > FUNCTION_LINES_MAX);
    let finding = |(name, line, lines): (String, usize, usize)| {
        let what = format!("`{name}` has {lines} lines: split it, at {FUNCTION_LINES_MAX} at most");
        Finding::new(&source.path, line, what)
    };
    long.map(finding).collect()
}

#[test]
fn files_are_short() {
    assert_none(sources().iter().flat_map(long_files).collect());
}

#[test]
fn functions_are_short() {
    assert_none(sources().iter().flat_map(long_functions).collect());
}

#[test]
fn finds_long_files() {
    let findings = |text: &str| long_files(&Source::parse("core/src/raft.rs", text)).len();
    let line = "// One line.\n";
    assert_eq!(findings(&line.repeat(FILE_LINES_MAX)), 0);
    assert_eq!(findings(&line.repeat(FILE_LINES_MAX + 1)), 1);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", line.repeat(100));
    assert_eq!(findings(&format!("{}{tests}", line.repeat(FILE_LINES_MAX))), 0);
    assert_eq!(findings(&format!("{}{tests}", line.repeat(FILE_LINES_MAX + 1))), 1);
}

#[test]
fn finds_long_functions() {
    let body = "    // One line.\n".repeat(FUNCTION_LINES_MAX - 1);
    let long = format!("fn f() {{\n{body}}}\n");
    let short = long.replacen("    // One line.\n", "", 1);
    let text = format!("{short}impl X {{\n{long}}}\n#[cfg(test)]\nmod tests {{\n{long}}}\n{long}");
    let findings = long_functions(&Source::parse("core/src/raft.rs", &text));
    let second = 2 + FUNCTION_LINES_MAX;
    let last = second + 2 * (FUNCTION_LINES_MAX + 1) + 4;
    assert_lines(&findings, &[second, last]);
}
