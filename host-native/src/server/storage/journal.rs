//! A look at fjall's journal before fjall opens it.
//!
//! fjall (3.1) reads its journal until something does not parse, takes that for the end that a
//! crash has torn, and cuts the file there; where a batch parses and its checksum is wrong, it
//! refuses to open. Both are wrong for us half of the time. A flipped bit in the middle may look
//! like an end, and everything behind it, votes and acknowledged entries, would be cut away without a
//! word. And an end that was torn out of order, with a sector of zeros in its middle and its last
//! sector written, is refused, though nobody was ever told about that write.
//!
//! What tells them apart is what comes behind. One write at a time is in flight, so only the last
//! batch can be torn: whatever is broken and has a whole batch behind it was damaged later. The same
//! goes for every journal but the last, since those were closed when all of them was durable.
//! So [`examine`] reads all batches, as fjall would, and refuses what is damaged, without touching it;
//! cuts a torn end that fjall would refuse; and checks what no checksum covers: that the writes are
//! numbered without a gap, and their sequence numbers grow.
//!
//! Only the very last batch remains: if nothing of it can be read, nothing tells whether it was
//! torn by a crash or damaged later. That is what the [mark](super::mark) is for.
//!
//! The format is an inner matter of fjall. It is part of its version 3, which it writes beside the
//! journal; the tests on torn and damaged journals fail if another release changes it.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::record::Record;
use super::{StorageError, damaged};

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
/// The last bytes of a batch.
const TRAILER: &[u8] = b"FJL\x03";
/// Values are not compressed.
const PLAIN: u8 = 0;

/// The key of the record, of which each batch has one.
pub(super) const RECORD_KEY: &[u8] = b"s";

/// Reads the journals of a store. Returns the number of the last write in them; `None` if there is
/// none.
pub(super) fn examine(store: &Path, marked: u64) -> Result<Option<u64>, StorageError> {
    let journals = journals(store)?;
    let mut order = Order::default();
    let (last, closed) = match journals.split_last() {
        None => return Ok(None),
        Some((last, closed)) => (last, closed),
    };
    for path in closed {
        let content = read(path)?;
        let end = order.follow(path, &content)?;
        if content[end..].iter().any(|byte| *byte != 0) {
            return Err(broken(path, end));
        }
    }
    let content = read(last)?;
    let end = order.follow(last, &content)?;
    let rest = trim(&content[end..]);
    if !rest.is_empty() {
        if has_batch(rest) {
            return Err(broken(last, end));
        }
        if let Some(found) = order.written
            && found < marked
        {
            return Err(StorageError::Lost { found, marked });
        }
        cut(last, end)?;
    }
    Ok(order.written)
}

/// The journals, oldest first.
fn journals(store: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let doing = || store.display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir(store).map_err(StorageError::open(doing()))? {
        let path = entry.map_err(StorageError::open(doing()))?.path();
        let is_journal = path.extension().is_some_and(|extension| extension == "jnl");
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        match number {
            Some(number) if is_journal => found.push((number, path)),
            Some(_) | None => {}
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

fn read(path: &Path) -> Result<Vec<u8>, StorageError> {
    fs::read(path).map_err(StorageError::open(path.display().to_string()))
}

fn broken(path: &Path, at: usize) -> StorageError {
    damaged(format!("{} cannot be read from byte {at} on", path.display()))
}

/// Without the zeros at the end, which reserve space.
fn trim(bytes: &[u8]) -> &[u8] {
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &bytes[..used]
}

fn cut(path: &Path, length: usize) -> Result<(), StorageError> {
    let doing = || path.display().to_string();
    let file = OpenOptions::new().write(true).open(path).map_err(StorageError::open(doing()))?;
    file.set_len(length as u64)
        .and_then(|()| file.sync_all())
        .map_err(|error| StorageError::syncing("the journal", &error))
}

/// What the batches have to be, one after the other.
#[derive(Default)]
struct Order {
    sequence: Option<u64>,
    written: Option<u64>,
}

impl Order {
    /// Reads whole batches from the beginning of a journal. Returns where the first one ends that is
    /// followed by none.
    fn follow(&mut self, path: &Path, content: &[u8]) -> Result<usize, StorageError> {
        let mut at = 0;
        while let Some(batch) = Batch::parse(&content[at..]) {
            let is_in_order = self.sequence.is_none_or(|before| before < batch.sequence);
            let follows = match (self.written, batch.written) {
                (Some(before), Some(written)) => written == before + 1,
                (None, _) | (_, None) => true,
            };
            if !is_in_order || !follows {
                let path = path.display();
                return Err(damaged(format!("a write is missing before byte {at} of {path}")));
            }
            self.sequence = Some(batch.sequence);
            self.written = batch.written.or(self.written);
            at += batch.length;
        }
        Ok(at)
    }
}

/// Whether a whole batch begins anywhere behind the first byte.
///
/// Entries may hold any bytes, also those of a batch, so what is within the items of the broken
/// batch, as far as they can be read, does not count.
fn has_batch(rest: &[u8]) -> bool {
    let first = Batch::items_end(rest).unwrap_or(1).max(1);
    (first..rest.len())
        .filter(|at| rest[*at] == START)
        .any(|at| Batch::parse(&rest[at..]).is_some_and(|batch| batch.written.is_some()))
}

/// One batch that is whole.
struct Batch {
    length: usize,
    sequence: u64,
    /// The number of the write.
    written: Option<u64>,
}

impl Batch {
    /// The batch at the beginning of these bytes, if there is a whole one with the right checksum.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { rest: bytes };
        let (count, sequence) = reader.start()?;
        let mut hash = Xxh3::new();
        let mut written = None;
        for _ in 0..count {
            let (item, key, value) = reader.item()?;
            hash.update(item);
            if key == RECORD_KEY {
                written = Some(Record::decode(value)?.written);
            }
        }
        let is_end = reader.byte()? == END;
        let is_right = reader.u64()? == hash.digest();
        let is_whole = reader.take(TRAILER.len())? == TRAILER;
        let length = bytes.len() - reader.rest.len();
        (is_end && is_right && is_whole).then_some(Self { length, sequence, written })
    }

    /// Where the items end of the batch at the beginning of these bytes, if all of them parse.
    fn items_end(bytes: &[u8]) -> Option<usize> {
        let mut reader = Reader { rest: bytes };
        let (count, _) = reader.start()?;
        for _ in 0..count {
            reader.item()?;
        }
        Some(bytes.len() - reader.rest.len())
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    /// The number of items, and the sequence number.
    fn start(&mut self) -> Option<(u32, u64)> {
        if self.byte()? != START {
            return None;
        }
        Some((self.u32()?, self.u64()?))
    }

    /// The whole item, its key and its value.
    fn item(&mut self) -> Option<(&'a [u8], &'a [u8], &'a [u8])> {
        let whole = self.rest;
        if self.byte()? != ITEM {
            return None;
        }
        let _kind = self.byte()?;
        if self.byte()? != PLAIN {
            return None;
        }
        let _keyspace = self.u64()?;
        let key_length = usize::from(self.u16()?);
        let value_length = self.u32()?;
        if self.u32()? != value_length {
            return None;
        }
        let key = self.take(key_length)?;
        let value = self.take(usize::try_from(value_length).ok()?)?;
        Some((&whole[..whole.len() - self.rest.len()], key, value))
    }
}
