//! What the types on the wire look like, read from their source.
//!
//! A type that contains itself would let a few bytes overflow the stack; a list without a cap, or
//! with elements that take no bytes, would let them fill the memory or the afternoon. No value can
//! show that there is none, so this looks at the declarations.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use syn::visit::{self, Visit};

/// Where the types are that a decoder can be asked for.
const SOURCES: &[&str] = &[
    "checksum.rs",
    "config.rs",
    "ids.rs",
    "lock/command.rs",
    "lock/queue.rs",
    "lock/snapshot.rs",
    "membership.rs",
    "message/client.rs",
    "message/log.rs",
    "message/peer.rs",
    "message/view.rs",
    "text.rs",
    "time.rs",
];

/// Every list on the wire: where it is, and of what. A new one belongs here and in `caps`.
const LISTS: &[(&str, &str)] = &[
    ("Acked::except", "Sequence"),
    ("Answer::Files", "FileView"),
    ("Answer::History", "PastHold"),
    ("Answer::Locks", "LockSummary"),
    ("AppendEntries::entries", "Entry"),
    ("Command::KeepAlive", "KeepAlive"),
    ("Done::Released", "u64"),
    ("Done::Sectioned", "u64"),
    ("Encoded::outgoing", "NodeId"),
    ("Encoded::voters", "NodeId"),
    ("LockState::queue", "LogIndex Waiter"),
    ("LockView::queue", "WaiterView"),
    ("Op::Release", "FileAppend"),
    ("Op::Section", "FileAppend"),
    ("SessionNews::losses", "Loss"),
    ("SessionNews::outcomes", "Sequence Outcome"),
    ("SessionState::losses", "Loss"),
    ("SessionState::outcomes", "Sequence Outcome"),
    ("State::files", "FileView"),
    ("State::history", "LockName PastHold"),
    ("State::locks", "LockState"),
    ("State::sessions", "SessionState"),
    ("Turn::Section", "FileAppend"),
];

/// The declarations that can be decoded.
#[derive(Default)]
struct Shapes {
    /// The names that each type's fields mention.
    parts: BTreeMap<String, BTreeSet<String>>,
    lists: Vec<(String, String)>,
    without_cap: Vec<String>,
    other_collections: Vec<String>,
}

/// The type names in a type, in order.
struct Mentioned(Vec<String>);

impl<'ast> Visit<'ast> for Mentioned {
    fn visit_path_segment(&mut self, segment: &'ast syn::PathSegment) {
        self.0.push(segment.ident.to_string());
        visit::visit_path_segment(self, segment);
    }
}

fn mentioned(ty: &syn::Type) -> Vec<String> {
    let mut names = Mentioned(Vec::new());
    names.visit_type(ty);
    names.0
}

/// Whether a declaration can be decoded: by derivation, or by hand as those of ids and texts.
fn is_decoded(attributes: &[syn::Attribute]) -> bool {
    let derives = |attribute: &syn::Attribute| {
        let syn::Meta::List(list) = &attribute.meta else { return false };
        list.path.is_ident("derive") && list.tokens.to_string().contains("Deserialize")
    };
    attributes.iter().any(derives)
}

fn is_capped(field: &syn::Field) -> bool {
    field.attrs.iter().any(|attribute| {
        let syn::Meta::List(list) = &attribute.meta else { return false };
        let tokens: String = list.tokens.to_string().split_whitespace().collect();
        list.path.is_ident("serde") && tokens.contains("deserialize_with=\"capped::vec::<")
    })
}

impl Shapes {
    fn field(&mut self, of: &str, place: &str, field: &syn::Field) {
        let names = mentioned(&field.ty);
        let name = field.ident.as_ref().map_or(String::new(), ToString::to_string);
        let place =
            if place.contains("::") { place.to_owned() } else { format!("{place}::{name}") };
        if let Some(list) = names.iter().position(|name| name == "Vec") {
            self.lists.push((place.clone(), names[list + 1..].join(" ")));
            if !is_capped(field) {
                self.without_cap.push(place.clone());
            }
        }
        let others = ["BTreeMap", "BTreeSet", "VecDeque", "HashMap", "HashSet", "String"];
        if names.iter().any(|name| others.contains(&name.as_str())) {
            self.other_collections.push(place);
        }
        self.parts.entry(of.to_owned()).or_default().extend(names);
    }
}

impl<'ast> Visit<'ast> for Shapes {
    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        if is_decoded(&item.attrs) {
            let name = item.ident.to_string();
            for field in &item.fields {
                self.field(&name, &name, field);
            }
        }
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        if is_decoded(&item.attrs) {
            let name = item.ident.to_string();
            for variant in &item.variants {
                for field in &variant.fields {
                    self.field(&name, &format!("{name}::{}", variant.ident), field);
                }
            }
        }
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        let names = mentioned(&item.ty);
        self.parts.entry(item.ident.to_string()).or_default().extend(names);
    }
}

fn shapes() -> Shapes {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/src");
    let mut shapes = Shapes::default();
    for source in SOURCES {
        let text = fs::read_to_string(folder.join(source)).expect("a source of the core");
        shapes.visit_file(&syn::parse_file(&text).expect("the core compiles"));
    }
    shapes
}

/// Follows what a type contains; the first type that contains itself, with the way there.
fn cycle<'a>(shapes: &'a Shapes, name: &'a str, way: &mut Vec<&'a str>) -> Option<Vec<&'a str>> {
    if way.contains(&name) {
        return Some([&way[..], &[name]].concat());
    }
    way.push(name);
    let parts = shapes.parts.get(name).into_iter().flatten();
    let found = parts.into_iter().find_map(|part| cycle(shapes, part, way));
    way.pop();
    found
}

#[test]
fn no_type_contains_itself() {
    let shapes = shapes();
    assert!(shapes.parts.len() > 40, "the sources were read: {:?}", shapes.parts.keys());
    for name in shapes.parts.keys() {
        assert_eq!(cycle(&shapes, name, &mut Vec::new()), None, "{name} contains itself");
    }
}

#[test]
fn every_list_has_a_cap() {
    let shapes = shapes();
    assert_eq!(shapes.without_cap, Vec::<String>::new());
    let mut lists = shapes.lists.clone();
    lists.sort();
    let known: Vec<(String, String)> =
        LISTS.iter().map(|(place, of)| ((*place).to_owned(), (*of).to_owned())).collect();
    assert_eq!(lists, known, "a list that is not in the table here, and so without a test");
    // A list with another type would escape the caps.
    assert_eq!(shapes.other_collections, Vec::<String>::new());
}

/// Every type of an element has at least one field, and at the bottom of every field is a number, a
/// text or the number of a variant, each of which takes at least one byte.
#[test]
fn every_element_has_bytes() {
    let shapes = shapes();
    let leaves = ["u8", "u32", "u64", "bool", "Duration", "Bytes", "LockName", "FileName", "Text"];
    for (place, of) in &shapes.lists {
        for name in of.split(' ') {
            // An identifier or a name is declared by a macro: they are numbers and texts.
            let is_leaf = leaves.contains(&name) || is_identifier(name);
            let has_fields = shapes.parts.get(name).is_some_and(|parts| !parts.is_empty());
            assert!(is_leaf || has_fields, "an element of {place} may take no bytes: {name}");
        }
    }
}

fn is_identifier(name: &str) -> bool {
    ["Sequence", "LogIndex", "SessionId", "NodeId", "Term", "FencingToken"].contains(&name)
}
