//! `HAZARDS.md` is complete, and what it names exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Words that a row uses when it waits for something.
const WAITS: &[&str] = &[
    "waits for durable storage",
    "waits for the fault simulator",
    "waits for membership change",
    "waits for the network layer",
    "waits for the web page",
    "waits for several locks at once",
];

fn tests_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// A row of a table: number, evidence, scenario, and what covers it.
struct Row {
    number: String,
    evidence: String,
    scenario: String,
    covered: String,
}

fn rows() -> Vec<Row> {
    let text = fs::read_to_string(tests_folder().join("HAZARDS.md")).expect("the table is there");
    let row = |line: &str| {
        let cells: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').collect();
        let [number, evidence, scenario, covered] = cells[..] else { return None };
        let number = number.trim().to_owned();
        let digits = number.trim_start_matches(['L', 'F', 'N']);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let [evidence, scenario, covered] =
            [evidence, scenario, covered].map(|cell| cell.trim().to_owned());
        Some(Row { number, evidence, scenario, covered })
    };
    text.lines().filter_map(row).collect()
}

/// What stands in backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The names of all functions in the sources of the tests, of the core and of the native host.
fn functions() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let folders = ["tests", "src", "../core/src", "../host-native/src", "../host-native/tests"];
    let mut left: Vec<PathBuf> = folders.map(|folder| tests_folder().join(folder)).into();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a folder can be read");
            left.extend(entries.map(|entry| entry.expect("an entry of a folder").path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).expect("a source can be read");
            for after in source.split("fn ").skip(1) {
                let is_name = |byte: char| byte.is_alphanumeric() || byte == '_';
                let name: String = after.chars().take_while(|it| is_name(*it)).collect();
                names.insert(name);
            }
        }
    }
    names
}

#[test]
fn every_row_is_there_once_and_says_enough() {
    let rows = rows();
    let numbers: Vec<&str> = rows.iter().map(|row| row.number.as_str()).collect();
    let of = |letter: &str, last: u32| {
        (1..=last).map(|number| format!("{letter}{number}")).collect::<Vec<String>>()
    };
    let expected = [of("", 64), of("L", 26), of("F", 17), of("N", 23)].concat();
    assert_eq!(numbers, expected);
    for row in rows {
        let number = row.number;
        assert!(row.evidence.len() > 5, "row {number} has no evidence");
        assert!(row.scenario.len() > 20, "row {number} has no scenario");
        let waits = WAITS.iter().any(|words| row.covered.contains(words));
        let covered = quoted(&row.covered).next().is_some();
        assert!(waits || covered, "row {number} has no test, and waits for nothing we know of");
    }
}

#[test]
fn every_test_and_script_that_a_row_names_exists() {
    let functions = functions();
    for row in rows() {
        for name in quoted(&row.covered) {
            let is_script = Path::new(name).extension().is_some_and(|extension| extension == "txt");
            let exists = if is_script {
                tests_folder().join("scripts").join(name).is_file()
            } else {
                functions.contains(name)
            };
            assert!(exists, "row {} names `{name}`, which is not there", row.number);
        }
    }
}
