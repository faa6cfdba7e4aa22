//! The mark: a small file of its own that says how far the log was durable at some moment.
//!
//! A write that a crash has torn is to be forgotten, and one that was acknowledged is not; but when
//! nothing can be read of the last one, nothing in the journal tells which of both it was. Nor does
//! anything if the store is gone, or is an old copy. The mark tells: it holds the number of a write that
//! was durable, and a store that ends before that number lost something.
//!
//! It is written after the acknowledgements, a few times a second, so it lags behind: what was
//! written in the last fraction of a second before a crash, and is destroyed by more than that
//! crash, is not missed. There are two slots, a sector or more apart, written in turns, so that one
//! of them is whole whenever the machine stops.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use quorlock_core::checksum::Checksum;

use super::durable;

/// Where the slots are.
const SLOTS: [u64; 2] = [0, SECOND_SLOT as u64];
const SECOND_SLOT: usize = 4096;

const SLOT_BYTES: usize = 16;

/// The mark's file.
#[derive(Debug)]
pub(super) struct Mark {
    file: File,
    /// The highest number in it.
    written: u64,
    /// The slot that is written next.
    next: usize,
}

impl Mark {
    /// Makes the file.
    pub(super) fn create(path: &Path, written: u64) -> io::Result<Self> {
        let mut content = [0; SECOND_SLOT + SLOT_BYTES];
        content[..SLOT_BYTES].copy_from_slice(&slot(written));
        durable::replace(path, &content)?;
        let file = OpenOptions::new().write(true).open(path)?;
        Ok(Self { file, written, next: 1 })
    }

    /// Reads the file. `None` if neither slot can be read.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let slots = [read_slot(&file, SLOTS[0])?, read_slot(&file, SLOTS[1])?];
        Ok(match slots {
            [None, None] => None,
            [first, second] if first > second => {
                first.map(|written| Self { file, written, next: 1 })
            }
            [_, second] => second.map(|written| Self { file, written, next: 0 }),
        })
    }

    /// The number of a write that was durable.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Raises the number, durably.
    pub(super) fn raise(&mut self, written: u64) -> io::Result<()> {
        self.file.write_all_at(&slot(written), SLOTS[self.next])?;
        self.file.sync_data()?;
        self.written = written;
        self.next = 1 - self.next;
        Ok(())
    }
}

fn slot(written: u64) -> [u8; SLOT_BYTES] {
    let number = written.to_be_bytes();
    let mut slot = [0; SLOT_BYTES];
    slot[..8].copy_from_slice(&number);
    // Begun with something, since the checksum of nothing but ones is nothing but ones.
    let checksum = Checksum::of(b"mark").extended(&number);
    slot[8..].copy_from_slice(&checksum.value().to_be_bytes());
    slot
}

fn read_slot(file: &File, offset: u64) -> io::Result<Option<u64>> {
    let mut bytes = [0; SLOT_BYTES];
    match file.read_exact_at(&mut bytes, offset) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[..8]);
    let written = u64::from_be_bytes(number);
    // Nor is a slot of zeros, which was never written.
    Ok((slot(written) == bytes).then_some(written))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(path: &Path) -> Option<u64> {
        Mark::open(path).expect("the file is there").map(|mark| mark.written())
    }

    #[test]
    fn keeps_the_highest_number() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("mark");
        let mut mark = Mark::create(&path, 1).expect("there is space");
        for number in 2..6 {
            mark.raise(number).expect("there is space");
            assert_eq!(written(&path), Some(number));
        }
        let mut mark = Mark::open(&path).expect("it is there").expect("it can be read");
        mark.raise(6).expect("there is space");
        assert_eq!(written(&path), Some(6));
    }

    #[test]
    fn a_torn_slot_leaves_the_other() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("mark");
        let mut mark = Mark::create(&path, 7).expect("there is space");
        mark.raise(8).expect("there is space");
        let whole = std::fs::read(&path).expect("it is there");
        for torn in 0..SLOT_BYTES {
            let mut content = whole.clone();
            content[SECOND_SLOT + torn..].fill(0xff);
            std::fs::write(&path, &content).expect("there is space");
            assert_eq!(written(&path), Some(7), "torn at {torn}");
            std::fs::write(&path, &whole[..SECOND_SLOT + torn]).expect("there is space");
            assert_eq!(written(&path), Some(7), "cut at {torn}");
        }
        std::fs::write(&path, b"nothing").expect("there is space");
        assert_eq!(written(&path), None);
    }
}
