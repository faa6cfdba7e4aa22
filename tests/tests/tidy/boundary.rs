//! That the simulator uses only what the core offers to everybody.
//!
//! The simulator lives inside the core, so the compiler would let it reach for what is private to
//! the crate. Then it would test a node that no host can have. This is an approximation: it looks
//! up paths item by item, but methods and fields by name alone.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Item, Visibility};

use crate::paths::{module_of, references};
use crate::repository::{Finding, Source, assert_lines, assert_none, core_sources};

/// Methods that collections, iterators and options have too. By name alone one cannot tell whose is
/// meant, so these are passed over.
const COMMON: &str = "\
    all any clear clone contains contains_key count drain entry expect extend filter find \
    first get get_mut insert is_empty iter iter_mut keys last len map max min next peek pop \
    position push range remove replace retain skip split swap take values values_mut";

/// For each item, by its path from the root of the crate, whether it is public.
type Items = BTreeMap<Vec<String>, bool>;

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn is_sim(source: &Source) -> bool {
    module_of(&source.path).first().is_some_and(|module| module == "sim")
}

fn items(sources: &[Source]) -> Items {
    let mut found = Items::new();
    for source in sources {
        collect_items(&source.syntax.items, &module_of(&source.path), &mut found);
    }
    found
}

fn collect_items(items: &[Item], module: &[String], found: &mut Items) {
    let path_of = |name: &syn::Ident| -> Vec<String> {
        module.iter().cloned().chain([name.to_string()]).collect()
    };
    for item in items {
        if let Item::Use(item) = item {
            // A private `use` adds no name that others can see.
            if is_public(&item.vis) {
                let mut names = Vec::new();
                names_of(&item.tree, &mut names);
                found.extend(names.into_iter().map(|name| (path_of(name), true)));
            }
        } else if let Some((name, visibility)) = name_of(item) {
            found.insert(path_of(name), is_public(visibility));
        }
        if let Item::Mod(item) = item
            && let Some((_, items)) = &item.content
        {
            collect_items(items, &path_of(&item.ident), found);
        }
    }
}

fn name_of(item: &Item) -> Option<(&syn::Ident, &Visibility)> {
    // What has no name of its own, such as an `impl`, cannot be named by a path.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the enum is not ours, and not exhaustive")]
    match item {
        Item::Const(item) => Some((&item.ident, &item.vis)),
        Item::Enum(item) => Some((&item.ident, &item.vis)),
        Item::Fn(item) => Some((&item.sig.ident, &item.vis)),
        Item::Mod(item) => Some((&item.ident, &item.vis)),
        Item::Static(item) => Some((&item.ident, &item.vis)),
        Item::Struct(item) => Some((&item.ident, &item.vis)),
        Item::Trait(item) => Some((&item.ident, &item.vis)),
        Item::Type(item) => Some((&item.ident, &item.vis)),
        Item::Union(item) => Some((&item.ident, &item.vis)),
        _ => None,
    }
}

fn names_of<'a>(tree: &'a syn::UseTree, names: &mut Vec<&'a syn::Ident>) {
    match tree {
        syn::UseTree::Path(path) => names_of(&path.tree, names),
        syn::UseTree::Name(name) => names.push(&name.ident),
        syn::UseTree::Rename(rename) => names.push(&rename.rename),
        syn::UseTree::Group(group) => group.items.iter().for_each(|tree| names_of(tree, names)),
        syn::UseTree::Glob(_) => {}
    }
}

fn private_paths(sources: &[Source]) -> Vec<Finding> {
    let items = items(sources);
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| is_sim(source)) {
        for reference in references(source) {
            if reference.path.first().is_none_or(|module| module == "sim") {
                continue;
            }
            let prefixes = (1..=reference.path.len()).map(|length| &reference.path[..length]);
            for prefix in prefixes.filter(|prefix| items.get(*prefix) == Some(&false)) {
                let what = format!(
                    "`{}` is not public: a host could not do this, so neither may the simulator",
                    prefix.join("::")
                );
                findings.push(Finding::new(&source.path, reference.line, what));
            }
        }
    }
    findings
}

/// The names of methods and fields, by who may use them.
#[derive(Default)]
struct Members {
    public: BTreeSet<String>,
    restricted: BTreeSet<String>,
    private: BTreeSet<String>,
}

impl Members {
    fn contains(&self, name: &str) -> bool {
        [&self.public, &self.restricted, &self.private].iter().any(|names| names.contains(name))
    }

    fn insert(&mut self, name: &syn::Ident, visibility: &Visibility) {
        match visibility {
            Visibility::Public(_) => self.public.insert(name.to_string()),
            Visibility::Restricted(_) => self.restricted.insert(name.to_string()),
            Visibility::Inherited => self.private.insert(name.to_string()),
        };
    }
}

impl<'ast> Visit<'ast> for Members {
    fn visit_impl_item_fn(&mut self, method: &'ast syn::ImplItemFn) {
        self.insert(&method.sig.ident, &method.vis);
    }

    fn visit_trait_item_fn(&mut self, method: &'ast syn::TraitItemFn) {
        self.public.insert(method.sig.ident.to_string());
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if let Some(name) = &field.ident {
            self.insert(name, &field.vis);
        }
    }

    fn visit_variant(&mut self, variant: &'ast syn::Variant) {
        let names = variant.fields.iter().filter_map(|field| field.ident.as_ref());
        self.public.extend(names.map(ToString::to_string));
        visit::visit_variant(self, variant);
    }
}

fn private_members(sources: &[Source]) -> Vec<Finding> {
    let mut core = Members::default();
    let mut sim = Members::default();
    for source in sources {
        if is_sim(source) { &mut sim } else { &mut core }.visit_file(&source.syntax);
    }
    let is_private = |name: &str| {
        core.restricted.contains(name)
            && !core.public.contains(name)
            && !COMMON.split(' ').any(|common| common == name)
            && !sim.contains(name)
    };
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| is_sim(source)) {
        for (name, line) in members_used(&source.tokens) {
            if is_private(&name) {
                let what = format!("`.{name}` is not public: use what a host could use");
                findings.push(Finding::new(&source.path, line, what));
            }
        }
    }
    findings
}

/// All words that follow a dot.
fn members_used(tokens: &TokenStream) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let mut after_dot = false;
    for tree in tokens.clone() {
        match &tree {
            TokenTree::Group(group) => found.extend(members_used(&group.stream())),
            TokenTree::Ident(name) if after_dot => {
                found.push((name.to_string(), name.span().start().line));
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
        after_dot = matches!(&tree, TokenTree::Punct(punct) if punct.as_char() == '.');
    }
    found
}

#[test]
fn the_simulator_names_only_public_items() {
    assert_none(private_paths(&core_sources()));
}

#[test]
fn the_simulator_uses_only_public_members() {
    assert_none(private_members(&core_sources()));
}

#[cfg(test)]
fn sample(sim: &str) -> Vec<Source> {
    let node = "pub(crate) mod reads { pub fn f() {} }\n\
                pub struct Node { pub(crate) log: u8, pub term: u8, pub(crate) name: u8 }\n\
                impl Node { pub(crate) fn reveal(&self) {} pub fn status(&self) {} }\n";
    vec![
        Source::parse("core/src/lib.rs", "pub mod node;\nmod raft;\npub use node::Node;\n"),
        Source::parse("core/src/node.rs", node),
        Source::parse("core/src/raft.rs", "pub struct Log;\n"),
        Source::parse("core/src/sim.rs", sim),
    ]
}

#[test]
fn finds_private_items() {
    let sim = "use crate::{Node, node};\nuse crate::raft::Log;\nuse crate::node::reads::f;\n\
               use super::node::Node as Same;\nuse self::node::x;\n";
    assert_lines(&private_paths(&sample(sim)), &[2, 3]);
}

#[test]
fn finds_private_members() {
    let sim = "fn f(node: &Node, host: &Host) {\n node.status();\n assert!(node.reveal());\n node.log;\n\
               node.term; host.name; }\nstruct Host { name: u8 }\n";
    assert_lines(&private_members(&sample(sim)), &[3, 4]);
}
