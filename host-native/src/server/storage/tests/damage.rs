//! What is damaged is refused, or does no harm. It never silently loses what was durable.

use super::*;

/// A copy of a log with one file changed.
struct Changed {
    directory: tempfile::TempDir,
}

impl Changed {
    fn new(log: &Log, file: &Path, change: impl FnOnce(&Path)) -> Self {
        let directory = tempfile::tempdir().expect("there is space");
        copy(log.path(), directory.path());
        let below = file.strip_prefix(log.path()).expect("it is a file of the log");
        change(&directory.path().join(below));
        Self { directory }
    }

    /// Whether it is refused. Otherwise it is whole, also the second time.
    fn is_refused(&self, log: &Log, what: &str) -> bool {
        match recover(self.directory.path()) {
            Ok(recovered) => {
                assert!(recovered == log.model, "{what}: something is lost");
                let again = recover(self.directory.path()).expect("it was fine before");
                assert!(again == log.model, "{what}: something is lost the second time");
                false
            }
            Err(error) => {
                let is_clear =
                    matches!(error, StorageError::Damaged { .. } | StorageError::Lost { .. });
                assert!(is_clear, "{what}: {error}");
                // Nor is it lost the next time, when all is cut that looked torn.
                if let Ok(again) = recover(self.directory.path()) {
                    assert!(again == log.model, "{what}: something is lost the second time");
                }
                true
            }
        }
    }
}

/// A log that was written in many steps, with a mark behind the last.
fn log() -> Log {
    let mut log = Log::new();
    let mut storage = log.open();
    for step in 0..12_u64 {
        let batch = log.append(1 + step % 3, 40);
        log.write(&mut storage, vec![batch]);
        let term = Term::new(step + 2);
        let hard_state = Some(HardState { term, vote: Some(NodeId::new(step % 3)) });
        let batch = WriteBatch { hard_state, ..log.batch() };
        log.write(&mut storage, vec![batch]);
    }
    while storage.tidy().expect("there is space") {}
    drop(storage);
    log
}

fn flip(path: &Path, at: usize, bit: u32) {
    let mut content = fs::read(path).expect("it is there");
    content[at] ^= 1 << bit;
    fs::write(path, content).expect("there is space");
}

fn flips_in_the_journal(stride: usize) {
    let log = log();
    let (journal, content) = shorten_journal(log.path());
    let mut refused = 0;
    let mut tried = 0;
    for at in (0..content.len()).step_by(stride) {
        let bit = u32::try_from((at / stride) % 8).expect("less than 8");
        let changed = Changed::new(&log, &journal, |path| flip(path, at, bit));
        refused += u32::from(changed.is_refused(&log, &format!("bit {bit} of byte {at}")));
        tried += 1;
    }
    println!("{refused} of {tried} flips in {} bytes were refused", content.len());
    assert!(refused * 10 > tried * 8, "{refused} of {tried} flips were refused");
}

#[test]
fn flipped_bits_in_the_journal() {
    flips_in_the_journal(13);
}

#[test]
#[ignore = "takes minutes"]
fn flipped_bits_in_every_byte_of_the_journal() {
    flips_in_the_journal(1);
}

/// All files of a log, with their lengths.
fn files(directory: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("it is there") {
        let entry = entry.expect("it can be read");
        let metadata = entry.metadata().expect("it can be read");
        if metadata.is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push((entry.path(), metadata.len()));
        }
    }
    found.sort();
    found
}

/// A log whose entries are in tables, not only in the journal.
fn log_in_tables() -> Log {
    let mut log = log();
    let mut storage = log.open();
    let batch = log.append(200, 100);
    log.write(&mut storage, vec![batch]);
    while storage.tidy().expect("there is space") {}
    storage.flush();
    drop(storage);
    shorten_journal(log.path());
    log
}

#[test]
fn flipped_bits_in_every_file() {
    let log = log_in_tables();
    for (path, length) in files(log.path()) {
        let length = usize::try_from(length).expect("a small file");
        let stride = (length / 8).max(1);
        for at in (0..length).step_by(stride) {
            let changed = Changed::new(&log, &path, |path| flip(path, at, 3));
            changed.is_refused(&log, &format!("byte {at} of {}", path.display()));
        }
    }
}

#[test]
fn files_that_are_gone_or_cut() {
    let log = log_in_tables();
    for (path, length) in files(log.path()) {
        let gone = Changed::new(&log, &path, |path| fs::remove_file(path).expect("it is there"));
        gone.is_refused(&log, &format!("without {}", path.display()));
        for keep in [0, length / 2, length.saturating_sub(1)] {
            let cut = Changed::new(&log, &path, |path| {
                let file = fs::OpenOptions::new().write(true).open(path).expect("it is there");
                file.set_len(keep).expect("it can be cut");
            });
            cut.is_refused(&log, &format!("{keep} bytes of {}", path.display()));
        }
    }
}

/// An older copy of the store, beside the mark of now.
#[test]
fn a_store_that_was_rolled_back() {
    let mut log = Log::new();
    let old = tempfile::tempdir().expect("there is space");
    copy(log.path(), old.path());
    let mut storage = log.open();
    let batch = log.append(5, 40);
    log.write(&mut storage, vec![batch]);
    while storage.tidy().expect("there is space") {}
    drop(storage);
    fs::copy(log.path().join("mark"), old.path().join("mark")).expect("there is space");
    let refused = recover(old.path()).expect_err("entries are missing");
    assert!(matches!(refused, StorageError::Lost { found: 1, .. }), "{refused}");
}

#[test]
fn a_snapshot_that_is_not_what_was_written() {
    let mut log = Log::new();
    let mut storage = log.open();
    let batch = log.append(5, 40);
    log.write(&mut storage, vec![batch]);
    let batch = log.snapshot(3 << 20);
    log.write(&mut storage, vec![batch]);
    drop(storage);
    shorten_journal(log.path());
    log.check();
    let (path, length) = files(log.path())
        .into_iter()
        .find(|(path, _)| path.to_string_lossy().contains("snapshot-"))
        .expect("there is a snapshot");
    let length = usize::try_from(length).expect("a small file");
    for at in [0, 3, 4, 20, length / 2, length - 1] {
        let changed = Changed::new(&log, &path, |path| flip(path, at, 0));
        assert!(changed.is_refused(&log, &format!("byte {at} of the snapshot")));
    }
    let gone = Changed::new(&log, &path, |path| fs::remove_file(path).expect("it is there"));
    assert!(gone.is_refused(&log, "no snapshot"));
}
