//! Tests of the files.

mod disks;
mod fetching;
mod outside;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use quorlock_core::text::LockName;

use super::*;

/// A data directory, and what must be in its files.
struct Place {
    directory: tempfile::TempDir,
    model: BTreeMap<FileName, Vec<u8>>,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("there is space");
        for name in ["files", "fetched", "quarantine"] {
            fs::create_dir(directory.path().join(name)).expect("there is space");
        }
        Self { directory, model: BTreeMap::new() }
    }

    fn open(&self) -> Files {
        Files::open(self.directory.path()).expect("the directories are there")
    }

    /// Opens and verifies; nothing must be missing.
    fn verified(&self) -> Files {
        let mut files = self.open();
        assert_eq!(files.verify(self.views().into_iter()).expect("they can be read"), []);
        files
    }

    /// What the snapshot records.
    fn views(&self) -> Vec<FileView> {
        let views = self.model.iter().map(|(file, content)| FileView {
            file: file.clone(),
            guard: LockName::new("guard").expect("a name"),
            length: content.len() as u64,
            checksum: Checksum::of(content),
        });
        views.collect()
    }

    fn missing(&self, file: &str, offset: u64) -> MissingBytes {
        let content = &self.model[file];
        let (length, checksum) = (content.len() as u64, Checksum::of(content));
        MissingBytes { file: name(file), offset, length, checksum }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join("files").join(file)
    }

    fn on_disk(&self, file: &str) -> Vec<u8> {
        fs::read(self.path(file)).expect("it is there")
    }

    /// What is in quarantine, by name.
    fn quarantine(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path().join("quarantine")).expect("it is there");
        let names = entries.map(|entry| entry.expect("it can be read").file_name());
        let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Appends to a file and the model.
    fn append(&mut self, files: &mut Files, file: &str, bytes: &[u8]) {
        let content = self.model.entry(name(file)).or_default();
        files.write_at(&name(file), content.len() as u64, bytes).expect("there is space");
        content.extend_from_slice(bytes);
    }

    fn check(&self) {
        for (file, content) in &self.model {
            let path = names::encode(file).join("/");
            assert!(self.on_disk(&path) == *content, "{file} is as it must be");
        }
    }
}

fn name(file: &str) -> FileName {
    FileName::new(file).expect("a name")
}

fn is_damaged<T>(outcome: Result<T, FilesError>) -> bool {
    match outcome {
        Ok(_) => false,
        Err(FilesError::Damaged { .. }) => true,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn writes_reads_and_repeats() {
    let mut place = Place::new();
    let mut files = place.verified();
    let long = "x".repeat(250) + "/ä";
    for file in ["journal", "jobs/nightly", "..", long.as_str()] {
        place.append(&mut files, file, b"");
        place.append(&mut files, file, b"one line\n");
        place.append(&mut files, file, b"another\n");
        assert_eq!(files.read_at(&name(file), 4, 9).expect("it is there"), "line\nanot");
        files.write_at(&name(file), 0, b"one line\nan").expect("the same again");
        assert_eq!(files.length(&name(file)), Some(17));
    }
    assert_eq!(files.unsynced.len(), 4);
    files.sync().expect("the disk is fine");
    assert!(files.unsynced.is_empty());
    place.check();
    drop(files);
    place.verified();
    assert_eq!(place.on_disk("journal"), b"one line\nanother\n");
    assert_eq!(place.on_disk("jobs+nightly"), b"one line\nanother\n");
}

#[test]
fn reads_nothing_that_is_not_there() {
    let mut place = Place::new();
    let mut files = place.verified();
    place.append(&mut files, "journal", b"0123456789");
    for (file, offset, length) in
        [("other", 0, 0), ("journal", 0, 11), ("journal", 11, 0), ("journal", u64::MAX, 1)]
    {
        let refused = files.read_at(&name(file), offset, length).expect_err("it is not there");
        assert!(matches!(refused, FilesError::NotThere { .. }), "{refused}");
    }
    assert_eq!(files.read_at(&name("journal"), 10, 0).expect("nothing is asked for"), "");
}

#[test]
fn leaves_no_holes() {
    let mut place = Place::new();
    let mut files = place.verified();
    assert!(is_damaged(files.write_at(&name("journal"), 1, b"x")));
    assert!(!place.path("journal").exists());
    place.append(&mut files, "journal", b"0123456789");
    assert!(is_damaged(files.write_at(&name("journal"), 11, b"x")));
    assert_eq!(place.on_disk("journal"), b"0123456789");
}

/// What follows the snapshot is cut off, and repeated by the log.
#[test]
fn goes_on_from_the_snapshot() {
    let mut place = Place::new();
    let mut files = place.verified();
    place.append(&mut files, "journal", b"recorded");
    let recorded = place.views();
    place.append(&mut files, "journal", b" and repeated");
    place.append(&mut files, "later", b"new since");
    drop(files);
    let mut files = place.open();
    assert_eq!(files.verify(recorded.into_iter()).expect("they can be read"), []);
    assert_eq!(place.on_disk("journal"), b"recorded");
    assert_eq!(place.quarantine(), ["1-later"]);
    files.write_at(&name("journal"), 8, b" and repeated").expect("there is space");
    files.write_at(&name("later"), 0, b"new since").expect("there is space");
    place.check();
}

#[test]
fn few_files_are_open_at_once() {
    let mut place = Place::new();
    let mut files = place.verified();
    for round in 0..3_u8 {
        for nth in 0..OPEN_FILES_MAX * 2 {
            place.append(&mut files, &format!("file-{nth}"), &[round]);
            assert!(files.open.len() <= OPEN_FILES_MAX);
            assert!(files.unsynced.len() <= OPEN_FILES_MAX / 2);
        }
    }
    files.sync().expect("the disk is fine");
    place.check();
}

#[test]
fn the_quarantine_is_bounded() {
    let place = Place::new();
    for round in 0..quarantine::KEPT_MAX + 10 {
        fs::write(place.path(&format!("stranger-{round}")), b"?").expect("there is space");
        place.verified();
    }
    let names = place.quarantine();
    assert_eq!(names.len(), quarantine::KEPT_MAX);
    assert!(names.contains(&format!(
        "{0}-stranger-{1}",
        quarantine::KEPT_MAX + 10,
        quarantine::KEPT_MAX + 9
    )));
    assert!(!names.contains(&"1-stranger-0".to_owned()), "the oldest went first");
}
