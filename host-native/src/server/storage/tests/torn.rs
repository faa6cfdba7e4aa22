//! A write that a crash interrupts leaves the state before it, and the log goes on from there.

use super::*;

const SECTOR_BYTES: [usize; 2] = [512, 4096];

/// A log with the bytes of its journal before and after the last write, which counts for nothing.
struct Torn {
    log: Log,
    journal: PathBuf,
    before: usize,
    content: Vec<u8>,
}

impl Torn {
    fn new(last_bytes: usize) -> Self {
        let mut log = Log::new();
        let mut storage = log.open();
        for _ in 0..3 {
            let batch = log.append(2, 50);
            log.write(&mut storage, vec![batch]);
        }
        drop(storage);
        let (_, before) = shorten_journal(log.path());
        let mut storage = log.open();
        let batch = log.append(2, last_bytes);
        storage.write(&[batch]).expect("there is space");
        drop(storage);
        let (journal, content) = shorten_journal(log.path());
        assert!(content.starts_with(&before));
        Self { log, journal, before: before.len(), content }
    }

    /// The journal is `content` when the log is opened: the last write is not there, and everything
    /// that comes afterwards is.
    fn check(&self, content: &[u8]) {
        fs::write(&self.journal, content).expect("there is space");
        let mut log = Log {
            directory: tempfile::tempdir().expect("there is space"),
            model: self.log.model.clone(),
            writes: self.log.writes,
        };
        copy(self.log.path(), log.path());
        log.check();
        let mut storage = log.open();
        let batch = log.append(1, 30);
        log.write(&mut storage, vec![batch]);
        drop(storage);
        log.check();
        log.check();
    }
}

#[test]
fn cut_at_every_byte() {
    let torn = Torn::new(20);
    for length in torn.before..torn.content.len() {
        torn.check(&torn.content[..length]);
    }
}

#[test]
fn zeros_from_every_byte() {
    let torn = Torn::new(20);
    for length in torn.before..torn.content.len() {
        let mut content = torn.content.clone();
        content[length..].fill(0);
        content.resize(content.len() + 5000, 0);
        // A batch ends with bytes that are not zeros, so one byte less is never the whole.
        torn.check(&content);
    }
}

#[test]
fn sectors_of_zeros() {
    let torn = Torn::new(6000);
    for sector in SECTOR_BYTES {
        let first = torn.before / sector;
        for nth in first..=torn.content.len() / sector {
            let start = (nth * sector).max(torn.before);
            let end = ((nth + 1) * sector).min(torn.content.len());
            let mut content = torn.content.clone();
            content[start..end].fill(0);
            torn.check(&content);
        }
    }
}
