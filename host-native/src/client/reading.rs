//! Looking at locks and files, a page or a chunk at a time.

use std::ops::{Bound, RangeBounds};
use std::time::Duration;

use bytes::Bytes;
use quorlock_core::config::{PAGE_MAX, READ_BYTES_MAX};
use quorlock_core::ids::LogIndex;
use quorlock_core::message::{
    Answer, Consistency, FileView, LockSummary, LockView, PastHold, Query,
};
use quorlock_core::text::{FileName, LockName, Text};

use super::{CallError, Client};

/// The first and the longest pause before [`Tail`] looks again.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// Why an answer is of the right kind.
const FITS: &str = "the core checks that an answer fits its query";

impl Client {
    /// A lock with its holder and its queue, as of now.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn inspect(&self, lock: &str) -> Result<LockView, CallError> {
        let lock = LockName::new(lock).map_err(CallError::name(lock))?;
        let answer = self.read(Query::Lock { lock }, Consistency::Linearizable).await?.1;
        let Answer::Lock(view) = answer else { unreachable!("{FITS}") };
        Ok(view)
    }

    /// All locks that are held or waited for and whose names begin with `prefix`, by name. Each page
    /// of [`PAGE_MAX`] is as of its own moment.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn locks(&self, prefix: &str) -> Result<Vec<LockSummary>, CallError> {
        let prefix = Text::new(prefix).map_err(CallError::name(prefix))?;
        let mut all: Vec<LockSummary> = Vec::new();
        loop {
            let after = all.last().map(|last| last.lock.clone());
            let query = Query::Locks { prefix: prefix.clone(), after };
            let answer = self.read(query, Consistency::Linearizable).await?.1;
            let Answer::Locks(page) = answer else { unreachable!("{FITS}") };
            let is_last = page.len() < PAGE_MAX;
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// The past holds of a lock that are remembered, oldest first.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn history(&self, lock: &str) -> Result<Vec<PastHold>, CallError> {
        let lock = LockName::new(lock).map_err(CallError::name(lock))?;
        let answer = self.read(Query::History { lock }, Consistency::Linearizable).await?.1;
        let Answer::History(holds) = answer else { unreachable!("{FITS}") };
        Ok(holds)
    }

    /// What is known of a file; `None` when there is no such file.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn file(&self, file: &str) -> Result<Option<FileView>, CallError> {
        let file = FileName::new(file).map_err(CallError::name(file))?;
        let answer = self.read(Query::File { file }, Consistency::Linearizable).await?.1;
        let Answer::File(view) = answer else { unreachable!("{FITS}") };
        Ok(view)
    }

    /// All files, by name. Each page of [`PAGE_MAX`] is as of its own moment.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn files(&self) -> Result<Vec<FileView>, CallError> {
        let mut all: Vec<FileView> = Vec::new();
        loop {
            let query = Query::Files { after: all.last().map(|last| last.file.clone()) };
            let answer = self.read(query, Consistency::Linearizable).await?.1;
            let Answer::Files(page) = answer else { unreachable!("{FITS}") };
            let is_last = page.len() < PAGE_MAX;
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// Reads a file, or a part of it, in chunks. A range without an end ends where the file ended
    /// at the first chunk.
    ///
    /// # Errors
    /// [`CallError::Name`]. All else comes with the chunks.
    pub fn read_file(
        &self,
        file: &str,
        range: impl RangeBounds<u64>,
        consistency: Consistency,
    ) -> Result<FileReader, CallError> {
        let file = FileName::new(file).map_err(CallError::name(file))?;
        let offset = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => Some(end.saturating_add(1)),
            Bound::Excluded(end) => Some(*end),
            Bound::Unbounded => None,
        };
        Ok(FileReader { client: self.clone(), file, offset, end, length: None, consistency })
    }

    /// Follows a file from `offset` on: first what is there, then what is appended. A file that is
    /// not there yet is waited for.
    ///
    /// # Errors
    /// [`CallError::Name`].
    pub fn tail(
        &self,
        file: &str,
        offset: u64,
        consistency: Consistency,
    ) -> Result<Tail, CallError> {
        let file = FileName::new(file).map_err(CallError::name(file))?;
        Ok(Tail { client: self.clone(), file, offset, consistency, pause: PAUSE_MIN, due: true })
    }

    /// At most `length` bytes from `offset` on, with what is known of the file at that moment.
    async fn read_chunk(
        &self,
        file: &FileName,
        offset: u64,
        length: u64,
        consistency: Consistency,
    ) -> Result<(LogIndex, Option<FileView>, Bytes), CallError> {
        let length = u32::try_from(length).unwrap_or(u32::MAX).min(READ_BYTES_MAX);
        let query = Query::ReadFile { file: file.clone(), offset, length };
        let (index, answer) = self.read(query, consistency).await?;
        let Answer::Bytes { file, bytes } = answer else { unreachable!("{FITS}") };
        Ok((index, file, bytes))
    }
}

/// A piece of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// Where it begins.
    pub offset: u64,
    /// Its bytes; at least one.
    pub bytes: Bytes,
    /// The log index as of which the file was read.
    pub index: LogIndex,
}

/// Reads a file from its beginning, or from the middle, to its end.
#[derive(Debug)]
pub struct FileReader {
    client: Client,
    file: FileName,
    offset: u64,
    /// What was asked for.
    end: Option<u64>,
    /// Where the file ended at the first chunk.
    length: Option<u64>,
    consistency: Consistency,
}

impl FileReader {
    /// The next piece; `None` at the end. May be dropped at any await: nothing is left out then.
    ///
    /// # Errors
    /// [`CallError::NoSuchFile`], or another [`CallError`].
    pub async fn next(&mut self) -> Result<Option<Chunk>, CallError> {
        let end = self.end.unwrap_or(u64::MAX).min(self.length.unwrap_or(u64::MAX));
        // At first even nothing is asked for, to learn whether there is such a file.
        if self.offset >= end && self.length.is_some() {
            return Ok(None);
        }
        let length = end.saturating_sub(self.offset);
        let read =
            self.client.read_chunk(&self.file, self.offset, length, self.consistency).await?;
        let (index, view, bytes) = read;
        let Some(view) = view else { return Err(CallError::NoSuchFile(self.file.clone())) };
        self.length.get_or_insert(view.length);
        // No bytes: the end; or a stale read of a node that is behind the one before it.
        if bytes.is_empty() {
            self.length = Some(self.offset);
            return Ok(None);
        }
        let chunk = Chunk { offset: self.offset, bytes, index };
        self.offset += chunk.bytes.len() as u64;
        Ok(Some(chunk))
    }

    /// All that is left, in one piece in memory.
    ///
    /// # Errors
    /// As [`FileReader::next`].
    pub async fn read_to_end(mut self) -> Result<Vec<u8>, CallError> {
        let mut all = Vec::new();
        while let Some(chunk) = self.next().await? {
            all.extend_from_slice(&chunk.bytes);
        }
        Ok(all)
    }
}

/// Follows a file. It asks again and again, less often while nothing happens, and goes on across
/// changes of the leader, for as long as the session lives.
#[derive(Debug)]
pub struct Tail {
    client: Client,
    file: FileName,
    offset: u64,
    consistency: Consistency,
    pause: Duration,
    /// Whether to ask at once.
    due: bool,
}

impl Tail {
    /// Where the next piece will begin.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Waits for the next piece. May be dropped at any await: nothing is left out then.
    ///
    /// # Errors
    /// [`CallError`], when the session is over.
    pub async fn next(&mut self) -> Result<Chunk, CallError> {
        loop {
            if !self.due {
                self.client.inner.background.sleep(self.pause).await;
            }
            self.due = false;
            let most = u64::from(READ_BYTES_MAX);
            let read = self.client.read_chunk(&self.file, self.offset, most, self.consistency);
            let (index, _, bytes) = read.await?;
            if bytes.is_empty() {
                self.pause = (self.pause * 2).min(PAUSE_MAX);
                continue;
            }
            let chunk = Chunk { offset: self.offset, bytes, index };
            self.offset += chunk.bytes.len() as u64;
            self.pause = PAUSE_MIN;
            // There may be more.
            self.due = true;
            return Ok(chunk);
        }
    }
}
