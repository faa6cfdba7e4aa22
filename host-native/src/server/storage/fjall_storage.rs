//! The log in a fjall store.
//!
//! # What is where
//!
//! In the directory of the log: `store`, the database; `snapshot-<index>-<write>`, the latest
//! [snapshot](super::snapshot_file); `mark`, the [mark](super::mark). In the database there is one
//! keyspace with two kinds of keys: `e` and the index in eight big-endian bytes holds an entry, `s`
//! holds the [`Record`], which says what of all this counts.
//!
//! A write is one atomic batch, synced before it returns: the entries that are new, the entries
//! that a truncation removes, the record, and a bounded number of removals of entries that were
//! compacted away earlier, lowest first. One keyspace and not two, because a journal can be removed
//! only once every keyspace that it speaks of has been flushed.
//!
//! # Limits
//!
//! | setting | value | default | why |
//! |---|---|---|---|
//! | memtable | 8 MiB | 64 MiB | a memtable grows by more than its entries; up to four that wait to be flushed, and the one in use, are in memory at once |
//! | block cache | 1 MiB | 32 MiB | nothing is read after the start |
//! | open tables | 16 | 900 | the log is small, and compacted away every 64 MiB |
//! | worker threads | 1 | up to 4 | two that wait for each other's compaction spin |
//! | journals | 128 MiB | 512 MiB | what a start has to read; a journal is closed at 64 MB, which cannot be set |
//! | filters | none | Bloom | no key is looked up |
//! | durability | `SyncData`, each write | none | an acknowledgement is a promise |
//!
//! # What happens to a damaged disk
//!
//! fjall finds much of it, but by itself it would take a flipped bit in the middle of its journal for
//! the end that a crash has torn, and cut away everything behind. So:
//!
//! - [`journal::examine`] reads the journal before fjall does, and refuses, untouched, whatever is
//!   broken in front of a whole batch. Only the last batch may be broken: that is what a crash leaves
//!   of a write that nobody was told about, whatever its length, and also with sectors of zeros in
//!   it. The log goes on from the write before.
//! - The [mark](super::mark) covers that last batch, and whatever is missing altogether: a store
//!   that ends before a write that the mark knows is refused, as [`StorageError::Lost`]. The
//!   mark lags behind by at most [`TIDY_INTERVAL`](super::TIDY_INTERVAL) of writing (and is exact after a
//!   stop): damage to the very last batch of that time, and only to that, looks like a torn end.
//! - The [`Record`], the entries and the journal check each other: each entry is at the index
//!   that it carries, none is missing, none is too many, the record is that of the last write.
//! - Tables have a checksum for every block, and recovery reads all blocks that count.
//! - A snapshot has length and checksum in the record.
//!
//! # What happens on errors
//!
//! After any failed write or sync, fjall takes no more writes until it is opened again. When the
//! reason is a full disk, the store is closed, and the next write opens it again, once at least
//! [`SPACE_MIN`] are free: first it makes the system forget what it has in memory of those files,
//! so that only what is on the disk counts; then it checks that everything that was acknowledged is
//! there, and whether the write that failed is. Every other reason is final: a second sync may succeed although the first one lost the
//! data (the system marks the pages as written), so there is no second sync.
//!
//! fjall's own thread moves entries from the journal to tables. When that fails, the next write
//! fails without a reason; it counts as a full disk if the disk is indeed full.

#[cfg(test)]
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fjall::config::FilterPolicy;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use quorlock_core::codec;
use quorlock_core::ids::{LogIndex, WriteId};
use quorlock_core::message::{Entry, Recovered, WriteBatch};

use rustix::io::Errno;

use super::journal::{self, RECORD_KEY};
use super::mark::Mark;
use super::record::{Change, Record};
use super::snapshot_file::SnapshotFile;
use super::{Storage, StorageError, damaged, durable};

/// How much space there must be before a store that was closed on a full disk is opened again: what
/// it takes to flush its memtables.
pub(super) const SPACE_MIN: u64 = 32 << 20;

const MEMTABLE_BYTES_MAX: u64 = 8 << 20;
const CACHE_BYTES_MAX: u64 = 1 << 20;
const JOURNAL_BYTES_MAX: u64 = 128 << 20;
const OPEN_TABLES_MAX: usize = 16;

/// How many entries that were compacted away are removed with a write, beside as many as it adds.
const REMOVALS_PER_WRITE: u64 = 64;
/// How many are removed at once when there is nothing to write.
const REMOVALS_PER_TIDY: u64 = 4096;

pub(super) const STORE: &str = "store";
pub(super) const MARK: &str = "mark";

const KEYSPACE: &str = "log";
const ENTRY_PREFIX: u8 = b'e';
/// The first key behind all entries.
const ENTRIES_END: &[u8] = b"f";

/// The log in a fjall store.
pub(crate) struct FjallStorage {
    directory: PathBuf,
    /// `None` from a write that found the disk full until the next one.
    store: Option<Store>,
    /// What is durable, as far as this process knows.
    record: Record,
    /// The last batch in it; zero for one of an earlier start.
    written: WriteId,
    /// A write that failed, and may still be found on the disk: its number, and its last batch.
    doubtful: Option<(u64, WriteId)>,
    /// Entries that were compacted away and may still be in the store.
    left_over: Range<LogIndex>,
    mark: Mark,
    /// Why nothing is written any more.
    failed: Option<String>,
    /// Errors to come, for tests.
    #[cfg(test)]
    pub(super) faults: VecDeque<super::tests::Fault>,
}

struct Store {
    database: Database,
    keyspace: Keyspace,
}

impl FjallStorage {
    /// Makes the log of a new node. The directory must exist and be empty.
    pub(crate) fn create(directory: &Path, start: &Recovered) -> Result<(), StorageError> {
        let store = Store::open(directory)?;
        let snapshot = SnapshotFile::write(directory, &start.snapshot, 1)
            .map_err(|error| StorageError::writing("the snapshot", &error))?;
        let record = Record {
            written: 0,
            hard_state: start.hard_state,
            first: LogIndex::ZERO.next(),
            next: LogIndex::ZERO.next(),
            snapshot,
        };
        let entries = WriteBatch {
            id: WriteId::ZERO.next(),
            hard_state: None,
            truncate_from: None,
            entries: start.entries.clone(),
            snapshot: None,
            compact_through: None,
        };
        let change = Change::of(&record, std::slice::from_ref(&entries));
        let none = LogIndex::ZERO..LogIndex::ZERO;
        store.commit(&change, none).map_err(|error| error.explained("the log", directory))?;
        Mark::create(&mark_path(directory), change.record.written)
            .map_err(|error| StorageError::writing("the mark", &error))?;
        durable::sync_directory(directory)
            .map_err(|error| StorageError::syncing("the directory of the log", &error))
    }

    /// Opens the log of a node.
    pub(crate) fn open(directory: &Path) -> Result<Self, StorageError> {
        let path = mark_path(directory);
        let mark = match Mark::open(&path) {
            Ok(Some(mark)) => mark,
            Ok(None) => return Err(damaged(format!("{} cannot be read", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(damaged(format!("{} is missing", path.display())));
            }
            Err(error) => return Err(StorageError::open(path.display().to_string())(error)),
        };
        if !directory.join(STORE).join("version").exists() {
            return Err(StorageError::Lost { found: 0, marked: mark.written() });
        }
        let (store, record) = Store::open_checked(directory, mark.written())?;
        let left_over = tidied_up(directory, &store, &record)?;
        Ok(Self {
            directory: directory.to_path_buf(),
            store: Some(store),
            record,
            written: WriteId::ZERO,
            doubtful: None,
            left_over,
            mark,
            failed: None,
            #[cfg(test)]
            faults: VecDeque::new(),
        })
    }

    /// Fails if an earlier write did.
    fn check(&self) -> Result<(), StorageError> {
        match &self.failed {
            None => Ok(()),
            Some(reason) => {
                Err(StorageError::Failed { reason: format!("an earlier write failed: {reason}") })
            }
        }
    }

    /// Notes an error: from now on the store is closed, for a while or for good.
    fn fail(&mut self, error: StorageError) -> StorageError {
        match &error {
            StorageError::Full { .. } => self.store = None,
            StorageError::Failed { .. }
            | StorageError::Damaged { .. }
            | StorageError::Lost { .. }
            | StorageError::Open { .. } => {
                self.store = None;
                self.failed = Some(error.to_string());
            }
        }
        error
    }

    /// Opens the store again after the disk was full, and finds out what became of the write that
    /// met the end of it.
    fn reopen(&mut self) -> Result<(), StorageError> {
        if self.store.is_some() {
            return Ok(());
        }
        let free = free_bytes(&self.directory).map_err(StorageError::open("the free space"))?;
        if free < SPACE_MIN {
            let reason = format!("{free} bytes are free, {SPACE_MIN} are needed");
            return Err(StorageError::Full { reason });
        }
        forget(&self.directory.join(STORE))
            .map_err(|error| StorageError::syncing("the files of the log", &error))?;
        let (store, record) = Store::open_checked(&self.directory, self.record.written)?;
        self.left_over = tidied_up(&self.directory, &store, &record)?;
        if let Some((number, last)) = self.doubtful.take()
            && record.written == number
        {
            self.written = last;
        }
        self.store = Some(store);
        self.record = record;
        Ok(())
    }

    fn write_group(&mut self, batches: &[WriteBatch]) -> Result<(), StorageError> {
        self.reopen()?;
        // What was written when the disk was full all the same is not written twice: it may not
        // follow what is there any more.
        let batches = &batches[batches.partition_point(|batch| batch.id <= self.written)..];
        let Some(last) = batches.last().map(|batch| batch.id) else { return Ok(()) };
        #[cfg(test)]
        super::tests::Fault::strike(&mut self.faults, super::tests::Step::Snapshot)?;
        let mut change = Change::of(&self.record, batches);
        if let Some(snapshot) = change.snapshot {
            change.record.snapshot =
                SnapshotFile::write(&self.directory, snapshot, change.record.written)
                    .map_err(|error| StorageError::writing("the snapshot", &error))?;
        }
        #[cfg(test)]
        super::tests::Fault::strike(&mut self.faults, super::tests::Step::Commit)?;
        let left_over = self.left_over_after(&change);
        let added = change.entries.len() as u64;
        let removals = some_of(&left_over, added + REMOVALS_PER_WRITE);
        self.doubtful = Some((change.record.written, last));
        self.commit(&change, removals.clone())?;
        #[cfg(test)]
        super::tests::Fault::strike(&mut self.faults, super::tests::Step::Committed)?;
        self.doubtful = None;
        self.written = last;
        self.left_over = removals.end..left_over.end;
        if change.snapshot.is_some() {
            drop(change.record.snapshot.remove_others(&self.directory));
        }
        self.record = change.record;
        Ok(())
    }

    /// What of the store no longer counts after a change, and is still there.
    fn left_over_after(&self, change: &Change<'_>) -> Range<LogIndex> {
        let mut left_over = self.left_over.clone();
        if change.compacted >= left_over.end {
            left_over.end = change.compacted.next();
        }
        let record = &change.record;
        if record.first < record.next {
            left_over.end = left_over.end.min(record.first);
        }
        left_over.start = left_over.start.min(left_over.end);
        left_over
    }

    fn commit(&self, change: &Change<'_>, removals: Range<LogIndex>) -> Result<(), StorageError> {
        let store = self.store.as_ref().expect("a write begins with opening the store");
        store
            .commit(change, removals)
            .map_err(|error| error.explained("the journal", &self.directory))
    }

    fn tidy_some(&mut self) -> Result<bool, StorageError> {
        let Some(store) = &self.store else { return Ok(false) };
        // The first to tell when fjall's own thread failed.
        let health = store.database.persist(PersistMode::Buffer).map_err(CommitError);
        health.map_err(|error| error.explained("the tables", &self.directory))?;
        if self.mark.written() < self.record.written {
            self.mark
                .raise(self.record.written)
                .map_err(|error| StorageError::syncing("the mark", &error))?;
        }
        let removals = some_of(&self.left_over, REMOVALS_PER_TIDY);
        if removals.is_empty() {
            return Ok(false);
        }
        let change = Change::of(&self.record, &[]);
        self.doubtful = Some((change.record.written, self.written));
        self.commit(&change, removals.clone())?;
        self.doubtful = None;
        self.left_over.start = removals.end;
        self.record = change.record;
        Ok(true)
    }
}

impl Storage for FjallStorage {
    fn recover(&mut self) -> Result<Option<Recovered>, StorageError> {
        self.check()?;
        let store = self.store.as_ref().expect("nothing was written yet");
        let snapshot = self.record.snapshot.read(&self.directory).map_err(damaged)?;
        let entries = guarded(|| store.entries(&self.record))?;
        let hard_state = self.record.hard_state;
        Ok(Some(Recovered { hard_state, snapshot, entries }))
    }

    fn write(&mut self, batches: &[WriteBatch]) -> Result<(), StorageError> {
        self.check()?;
        self.write_group(batches).map_err(|error| self.fail(error))
    }

    fn tidy(&mut self) -> Result<bool, StorageError> {
        self.check()?;
        self.tidy_some().map_err(|error| self.fail(error))
    }
}

impl Store {
    fn open(directory: &Path) -> Result<Self, StorageError> {
        let open = || -> Result<Self, fjall::Error> {
            let database = Database::builder(directory.join(STORE))
                .cache_size(CACHE_BYTES_MAX)
                .worker_threads(1)
                .max_cached_files(Some(OPEN_TABLES_MAX))
                .max_journaling_size(JOURNAL_BYTES_MAX)
                .manual_journal_persist(true)
                .open()?;
            let options = || {
                KeyspaceCreateOptions::default()
                    .max_memtable_size(MEMTABLE_BYTES_MAX)
                    .manual_journal_persist(true)
                    .filter_policy(FilterPolicy::disabled())
            };
            let keyspace = database.keyspace(KEYSPACE, options)?;
            Ok(Self { database, keyspace })
        };
        guarded(|| open().map_err(opening))
    }

    /// Opens the store, reads the record, and sees that nothing durable is missing.
    fn open_checked(directory: &Path, marked: u64) -> Result<(Self, Record), StorageError> {
        let last = journal::examine(&directory.join(STORE), marked)?;
        let store = Self::open(directory)?;
        let bytes = guarded(|| store.keyspace.get(RECORD_KEY).map_err(opening))?;
        let Some(bytes) = bytes else { return Err(StorageError::Lost { found: 0, marked }) };
        let record = Record::decode(&bytes)
            .ok_or_else(|| damaged("its record cannot be read".to_owned()))?;
        if record.written < marked {
            return Err(StorageError::Lost { found: record.written, marked });
        }
        if last.is_some_and(|last| record.written != last) {
            let what = format!("its record is of write {}, its journal is not", record.written);
            return Err(damaged(what));
        }
        Ok((store, record))
    }

    /// The lowest entry that is there, whether it counts or not.
    fn first_entry(&self) -> Result<Option<LogIndex>, StorageError> {
        guarded(|| {
            let first = self.keyspace.range(&[ENTRY_PREFIX][..]..ENTRIES_END).next();
            let Some(first) = first else { return Ok(None) };
            index_of(&first.key().map_err(opening)?).map(Some)
        })
    }

    /// The entries that count: all of them, and nothing behind them.
    fn entries(&self, record: &Record) -> Result<Vec<Entry>, StorageError> {
        let mut entries = Vec::new();
        let mut next = record.first;
        for item in self.keyspace.range(&entry_key(record.first)[..]..ENTRIES_END) {
            let (key, value) = item.into_inner().map_err(opening)?;
            let index = index_of(&key)?;
            if index != next || index >= record.next {
                let (first, end) = (record.first, record.next);
                let what = format!("entry {index} where {next} of {first} to {end} should be");
                return Err(damaged(what));
            }
            let entry: Entry = codec::decode(&value)
                .map_err(|error| damaged(format!("entry {index} cannot be read: {error}")))?;
            if entry.id.index != index {
                return Err(damaged(format!("entry {} is in the place of {index}", entry.id)));
            }
            entries.push(entry);
            next = next.next();
        }
        if next != record.next {
            return Err(damaged(format!("entry {next} is missing, of {} in all", record.next)));
        }
        Ok(entries)
    }

    /// One atomic, synced batch.
    fn commit(&self, change: &Change<'_>, removals: Range<LogIndex>) -> Result<(), CommitError> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for index in removals.start.value()..removals.end.value() {
            let index = LogIndex::new(index);
            if !change.entries.contains_key(&index) {
                batch.remove(&self.keyspace, entry_key(index));
            }
        }
        for (index, entry) in &change.entries {
            match entry {
                Some(bytes) => batch.insert(&self.keyspace, entry_key(*index), &bytes[..]),
                None => batch.remove(&self.keyspace, entry_key(*index)),
            }
        }
        batch.insert(&self.keyspace, RECORD_KEY, change.record.encode());
        batch.commit().map_err(CommitError)
    }
}

/// A batch that fjall did not take.
struct CommitError(fjall::Error);

impl CommitError {
    /// Whether it is for lack of space. When fjall's own thread failed, it does not say why.
    fn explained(self, doing: &str, directory: &Path) -> StorageError {
        let reason = format!("{doing}: {}", said(&self.0));
        let is_full = if let Some(error) = io_error(&self.0) {
            durable::is_full(error)
        } else {
            let is_unexplained = matches!(self.0, fjall::Error::Poisoned);
            is_unexplained && free_bytes(directory).is_ok_and(|free| free < SPACE_MIN)
        };
        if is_full { StorageError::Full { reason } } else { StorageError::Failed { reason } }
    }
}

/// Removes the files that were left behind, and finds the entries that were.
fn tidied_up(
    directory: &Path,
    store: &Store,
    record: &Record,
) -> Result<Range<LogIndex>, StorageError> {
    // If that fails, they stay until the next snapshot, which is harmless.
    drop(record.snapshot.remove_others(directory));
    let end = if record.first == record.next { record.next } else { record.first };
    let start = store.first_entry()?.unwrap_or(end).min(end);
    Ok(start..end)
}

fn mark_path(directory: &Path) -> PathBuf {
    directory.join(MARK)
}

fn entry_key(index: LogIndex) -> [u8; 9] {
    let mut key = [ENTRY_PREFIX; 9];
    key[1..].copy_from_slice(&index.value().to_be_bytes());
    key
}

fn index_of(key: &[u8]) -> Result<LogIndex, StorageError> {
    let number = match key {
        [ENTRY_PREFIX, number @ ..] => number.try_into().ok().map(u64::from_be_bytes),
        _ => None,
    };
    number
        .filter(|number| *number <= quorlock_core::ids::ID_MAX)
        .map(LogIndex::new)
        .ok_or_else(|| damaged(format!("it holds the key {key:?}")))
}

/// The first `count` of a range.
fn some_of(range: &Range<LogIndex>, count: u64) -> Range<LogIndex> {
    range.start..range.end.min(range.start.plus(count))
}

fn io_error(error: &fjall::Error) -> Option<&io::Error> {
    std::error::Error::source(error).and_then(|source| {
        source
            .downcast_ref::<io::Error>()
            .or_else(|| source.source().and_then(|source| source.downcast_ref::<io::Error>()))
    })
}

/// What fjall means, in words.
fn said(error: &fjall::Error) -> String {
    match io_error(error) {
        Some(error) => error.to_string(),
        None if matches!(error, fjall::Error::Poisoned) => {
            "a write in the background failed".to_owned()
        }
        None => format!("{error:?}"),
    }
}

/// What the system says when it is at fault, or who started the node is. Anything else comes from
/// files that are not what fjall wrote: it looks for a table that another file names, or for the last
/// bytes of one that is empty.
const SYSTEM_ERRORS: [Errno; 8] = [
    Errno::ACCESS,
    Errno::IO,
    Errno::MFILE,
    Errno::NFILE,
    Errno::NODEV,
    Errno::NOMEM,
    Errno::PERM,
    Errno::ROFS,
];

/// What fjall says when a store is opened or read.
fn opening(error: fjall::Error) -> StorageError {
    let said = said(&error);
    let Some(error) = io_error(&error) else { return damaged(said) };
    if durable::is_full(error) {
        return StorageError::Full { reason: said };
    }
    let number = error.raw_os_error().map(Errno::from_raw_os_error);
    if number.is_some_and(|number| SYSTEM_ERRORS.contains(&number)) {
        let source = io::Error::new(error.kind(), said);
        return StorageError::Open { doing: "the store".to_owned(), source };
    }
    damaged(said)
}

/// Calls fjall where it reads what may be damaged: it expects much of its files, and panics when
/// they are otherwise.
fn guarded<T>(read: impl FnOnce() -> Result<T, StorageError>) -> Result<T, StorageError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        Err(damaged(format!("the store cannot be read: {said}")))
    })
}

fn free_bytes(directory: &Path) -> io::Result<u64> {
    let space = rustix::fs::statvfs(directory)?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}

/// Makes the system read files anew from the disk, as far as it can be asked to.
fn forget(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            forget(&entry.path())?;
        } else if kind.is_file() {
            let file = File::open(entry.path())?;
            file.sync_all()?;
            #[cfg(target_os = "linux")]
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
impl FjallStorage {
    /// How many entries there are, whether they count or not.
    pub(super) fn entries_in_store(&self) -> usize {
        let store = self.store.as_ref().expect("it is open");
        store.keyspace.range(&[ENTRY_PREFIX][..]..ENTRIES_END).count()
    }

    /// Moves everything to tables.
    pub(super) fn flush(&self) {
        let store = self.store.as_ref().expect("it is open");
        store.keyspace.rotate_memtable_and_wait().expect("there is space");
    }
}
