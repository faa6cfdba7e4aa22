//! Where a guarded file is: its name, as a path below a directory.
//!
//! Names are data, chosen by clients: up to 255 bytes of any text. As paths they must not escape
//! (`..`), hide (`.profile`), name a device, meet another name on a file system that takes `A` for
//! `a`, or be too long. And a person should find `journal` as `journal`.
//!
//! - `a`–`z`, `0`–`9`, `.`, `_` and `-` stay as they are.
//! - `/` becomes `+`: `jobs/nightly` is `jobs+nightly`.
//! - Every other byte becomes `%` and two hexadecimal digits, in lower case. So does a `.` at the
//!   beginning or at the end, a `-` at the beginning, and the first letter of what some system takes
//!   for a device (`con`, `nul.txt`).
//! - What is longer than 200 bytes then is cut into components of 200: all but the last get a `~` at
//!   the end and are directories, all but the first get a `=` at the beginning.
//!
//! Each step can be undone, so two names never have the same path; and no path has an upper-case
//! letter, so that holds on every file system. [`decode`] undoes them.

use std::fmt::Write as _;

use quorlock_core::text::FileName;

/// The most bytes of a component, before its signs.
const COMPONENT_BYTES_MAX: usize = 200;

/// What names a device on some system, whatever follows a dot.
const DEVICES: [&str; 4] = ["con", "prn", "aux", "nul"];
const NUMBERED_DEVICES: [&str; 2] = ["com", "lpt"];

/// The components of a file's path.
pub(super) fn encode(name: &FileName) -> Vec<String> {
    let escaped = escape(name.as_str());
    let last = escaped.len().div_ceil(COMPONENT_BYTES_MAX).saturating_sub(1);
    let pieces = escaped.as_bytes().chunks(COMPONENT_BYTES_MAX).enumerate();
    pieces
        .map(|(nth, piece)| {
            let begin = if nth > 0 { "=" } else { "" };
            let end = if nth < last { "~" } else { "" };
            let piece = str::from_utf8(piece).expect("what is escaped is ASCII");
            format!("{begin}{piece}{end}")
        })
        .collect()
}

/// The name whose path this is; `None` if there is none.
pub(super) fn decode(path: &[String]) -> Option<FileName> {
    let mut escaped = String::new();
    for component in path {
        let piece = component.strip_prefix('=').unwrap_or(component);
        escaped.push_str(piece.strip_suffix('~').unwrap_or(piece));
    }
    let name = FileName::new(unescape(&escaped)?).ok()?;
    (encode(&name) == path).then_some(name)
}

fn escape(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    let last = name.len() - 1;
    let is_device = is_device(name);
    for (nth, byte) in name.bytes().enumerate() {
        let stays = match byte {
            b'.' => nth > 0 && nth < last,
            b'-' => nth > 0,
            b'a'..=b'z' => nth > 0 || !is_device,
            b'0'..=b'9' | b'_' => true,
            _ => false,
        };
        if stays {
            escaped.push(char::from(byte));
        } else if byte == b'/' {
            escaped.push('+');
        } else {
            write!(escaped, "%{byte:02x}").expect("a string takes everything");
        }
    }
    escaped
}

fn unescape(escaped: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b'/'),
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                bytes.push(u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?);
            }
            _ => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

/// Whether some system takes a name, as far as its first dot, for a device.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name);
    let numbered = stem
        .strip_suffix(|digit: char| digit.is_ascii_digit())
        .is_some_and(|stem| NUMBERED_DEVICES.contains(&stem));
    DEVICES.contains(&stem) || numbered
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn path(name: &str) -> String {
        encode(&FileName::new(name).expect("a name")).join("/")
    }

    #[test]
    fn people_find_their_files() {
        assert_eq!(path("journal"), "journal");
        assert_eq!(path("release-1.2_final.txt"), "release-1.2_final.txt");
        assert_eq!(path("jobs/nightly"), "jobs+nightly");
    }

    #[test]
    fn nothing_is_special() {
        for (name, expected) in [
            (".", "%2e"),
            ("..", "%2e%2e"),
            ("../x", "%2e.+x"),
            (".profile", "%2eprofile"),
            ("x.", "x%2e"),
            ("-rf", "%2drf"),
            ("con", "%63on"),
            ("nul.txt", "%6eul.txt"),
            ("lpt1", "%6cpt1"),
            ("com", "com"),
            ("conx", "conx"),
            ("A", "%41"),
            ("+", "%2b"),
            ("%2e", "%252e"),
            ("~=", "%7e%3d"),
            ("é", "%c3%a9"),
            (r"a\b", "a%5cb"),
        ] {
            assert_eq!(path(name), expected, "{name}");
        }
    }

    #[test]
    fn long_names_are_cut() {
        let name = "A".repeat(255);
        let path = encode(&FileName::new(name.clone()).expect("a name"));
        assert_eq!(path.len(), 4);
        assert!(path.iter().all(|component| component.len() <= 202));
        assert_eq!(decode(&path).expect("it is a path").as_str(), name);
        let exact = encode(&FileName::new("a".repeat(200)).expect("a name"));
        assert_eq!(exact, ["a".repeat(200)]);
    }

    fn is_safe(component: &str) -> bool {
        let plain = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-+%~=".contains(&byte)
        };
        !component.is_empty()
            && component.len() <= 202
            && component.bytes().all(plain)
            && !component.starts_with(['.', '-'])
            && !component.ends_with('.')
            && !is_device(component)
    }

    fn any_name() -> impl Strategy<Value = FileName> {
        let parts = prop_oneof![
            Just("/".to_owned()),
            Just("..".to_owned()),
            Just("con".to_owned()),
            Just("%2f+~=".to_owned()),
            "[a-cA-C./%~=+-]{1,4}",
            "\\PC{1,8}",
            "[a-zA-Z]{150,255}",
        ];
        proptest::collection::vec(parts, 1..6)
            .prop_map(|parts| parts.concat())
            .prop_filter_map("no name", |name| FileName::new(name).ok())
    }

    proptest! {
        #[test]
        fn each_name_has_a_safe_path_of_its_own(name in any_name()) {
            let path = encode(&name);
            prop_assert!(path.iter().all(|component| is_safe(component)), "{path:?}");
            prop_assert_eq!(decode(&path), Some(name));
        }

        #[test]
        fn no_two_names_share_a_path(names in proptest::collection::btree_set(any_name(), 2..20)) {
            let paths: BTreeSet<_> = names.iter().map(encode).collect();
            prop_assert_eq!(paths.len(), names.len());
            // No file is where another one needs a directory.
            for path in &paths {
                for other in &paths {
                    prop_assert!(path == other || !other.starts_with(path));
                }
            }
        }

        #[test]
        fn other_paths_are_no_names(path in proptest::collection::vec("[a-cA-C.%~=+-]{0,6}", 0..3)) {
            if let Some(name) = decode(&path) {
                prop_assert_eq!(encode(&name), path);
            }
        }
    }
}
