//! The guarded files, on the disk.
//!
//! They are plain files below `files`, and a person can open them: `journal` is `files/journal`
//! (other names are [encoded](names)). The log decides what is in them; here its
//! [effects](quorlock_core::message::Effect) are carried out.
//!
//! # Rules
//!
//! - Every write goes to an explicit offset, so that doing it twice is harmless, and an effect can be
//!   repeated after a restart. A file is never opened for appending.
//! - No holes: bytes are written at or before the end that the file must have, never behind it.
//! - Before each write, and each read, the file must be what it was: the same one under its name, a
//!   regular file with that one name, as long as it must be. Otherwise it is
//!   [damaged](FilesError::Damaged): somebody was there from outside. Nothing is repaired in passing;
//!   the node has to be started again, from [`Files::verify`].
//! - A failed sync is final. The system may take the bytes that it could not write for written, and
//!   the next sync would succeed.
//! - Nothing is opened through a link: each component of a path is opened beneath the one before, and
//!   none of them may be a symbolic link. (Linux could do that in one call, `openat2`, but not under
//!   every system that filters calls; nearly all paths have one component, so there is little to
//!   gain.)
//!
//! # At the start
//!
//! The snapshot says how long each file was, and its checksum. [`Files::verify`] compares. What a
//! file has beyond that length is cut off: the effects behind the snapshot are repeated as soon as
//! their entries are known to be committed, and what a crash left half-written is never seen. A file
//! that is shorter or different goes to `quarantine`, under a number, and is fetched anew from a peer; a
//! file that the snapshot does not know goes there too.
//!
//! # Fetching
//!
//! Bytes from a peer are collected in a file of their own below `fetched`, and joined to the guarded
//! file only when length and checksum of the whole are right. So no wrong byte ever comes between
//! right ones, and what was fetched is kept when the node is started again.

mod directory;
mod fetched;
mod names;
mod quarantine;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use quorlock_core::checksum::Checksum;
use quorlock_core::message::FileView;
use quorlock_core::node::MissingBytes;
use quorlock_core::text::FileName;

use super::storage::durable;
use directory::{Directory, Identity};
use fetched::Fetched;
use quarantine::Quarantine;

/// The most files that are open at once.
pub(crate) const OPEN_FILES_MAX: usize = 256;

/// How much is read at once when a checksum is computed or a file is joined.
const CHUNK_BYTES: usize = 1 << 18;

/// The calls on an open file that can fail as disks fail: the seam at which a test puts in one that
/// does.
pub(crate) trait Disk: Send {
    /// Writes some of the bytes; how many.
    fn write_at(&mut self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Reads some bytes; how many. Zero at the end of the file.
    fn read_at(&mut self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Makes what was written durable, with the file's length.
    fn sync(&mut self, file: &File) -> io::Result<()>;
}

/// The disk of the system.
#[derive(Debug)]
pub(crate) struct SystemDisk;

impl Disk for SystemDisk {
    fn write_at(&mut self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(file, bytes, offset)
    }

    fn read_at(&mut self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(file, bytes, offset)
    }

    fn sync(&mut self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

/// Why a file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilesError {
    /// No space, or no quota. The same call can be made again.
    #[error(
        "the disk of the files is full ({reason}): the node goes on by itself once there is space"
    )]
    Full {
        /// What the system said.
        reason: String,
    },
    /// The file is not what this node made of it.
    #[error(
        "the file {file} was changed from outside ({reason}): the node has to start again, to put the \
         file aside and fetch it from a peer; leave the files of a node alone"
    )]
    Damaged {
        /// Which.
        file: FileName,
        /// What is wrong with it.
        reason: String,
    },
    /// A write or a sync failed, and what it was about may or may not be on the disk.
    #[error(
        "the files cannot be written ({reason}): the node must stop, since what was written last may \
         be lost; check the disk, then start it again"
    )]
    Failed {
        /// What the system said.
        reason: String,
    },
    /// The bytes that were asked for are not there (yet).
    #[error("the file {file} has no {length} bytes at {offset} here: ask another node, or later")]
    NotThere {
        /// Which.
        file: FileName,
        /// From where.
        offset: u64,
        /// How many.
        length: u64,
    },
    /// Too many reads wait.
    #[error("too many reads of files wait already: ask again later")]
    TooManyReads,
    /// The thread of the files has ended, of which it told.
    #[error("the files are closed, after an error that was reported before")]
    Closed,
}

/// The guarded files. They belong to one thread.
pub(crate) struct Files {
    disk: Box<dyn Disk>,
    directory: Directory,
    fetched: Fetched,
    quarantine: Quarantine,
    known: BTreeMap<FileName, Known>,
    open: BTreeMap<FileName, Open>,
    /// Files with writes that are not durable. They stay open, and are at most half of those that may
    /// be, so that there is always one to close.
    unsynced: BTreeSet<FileName>,
    /// Counts uses, to find the file that was not used for longest.
    uses: u64,
    /// Why nothing is written any more.
    failed: Option<String>,
}

/// What a file must be.
#[derive(Clone, Copy, Debug)]
struct Known {
    identity: Identity,
    /// Bytes that are right.
    length: u64,
    /// The end of the furthest write that was attempted: the file may be longer than `length`, but
    /// not longer than this.
    reach: u64,
}

struct Open {
    file: File,
    used: u64,
}

impl Files {
    /// The files below a data directory.
    pub(crate) fn open(data: &Path) -> Result<Self, FilesError> {
        Self::with_disk(data, Box::new(SystemDisk))
    }

    /// The same, on another disk.
    pub(crate) fn with_disk(data: &Path, disk: Box<dyn Disk>) -> Result<Self, FilesError> {
        Ok(Self {
            disk,
            directory: Directory::open(&data.join("files")).map_err(failed("files"))?,
            fetched: Fetched::open(&data.join("fetched")).map_err(failed("fetched"))?,
            quarantine: Quarantine::open(&data.join("quarantine")).map_err(failed("quarantine"))?,
            known: BTreeMap::new(),
            open: BTreeMap::new(),
            unsynced: BTreeSet::new(),
            uses: 0,
            failed: None,
        })
    }

    /// Compares all files with what is recorded of them, and puts aside what is otherwise. To be
    /// called once, before anything else. What it returns has to be fetched, from the beginning.
    pub(crate) fn verify(
        &mut self,
        recorded: impl Iterator<Item = FileView>,
    ) -> Result<Vec<MissingBytes>, FilesError> {
        let mut strangers: BTreeSet<_> =
            self.directory.list().map_err(failed("the files"))?.into_iter().collect();
        let mut missing = Vec::new();
        for view in recorded {
            let path = names::encode(&view.file);
            strangers.remove(&path);
            if !self.verify_one(&view)? {
                self.put_aside(&path)?;
                let FileView { file, guard: _, length, checksum } = view;
                missing.push(MissingBytes { file, offset: 0, length, checksum });
            }
        }
        for stranger in &strangers {
            self.put_aside(stranger)?;
        }
        self.forget_overtaken()?;
        Ok(missing)
    }

    /// Removes what was fetched and is of no use any more.
    fn forget_overtaken(&mut self) -> Result<(), FilesError> {
        for path in self.fetched.list().map_err(failed("what was fetched"))? {
            let Some(name) = names::decode(&path) else { continue };
            let known = self.length(&name).unwrap_or(0);
            let end = self.fetched.end(&name, known).map_err(failed("what was fetched"))?;
            if end.is_none() {
                self.fetched.remove(&name).map_err(failed("what was fetched"))?;
            }
        }
        Ok(())
    }

    /// Writes an effect, or a part of it again.
    pub(crate) fn write_at(
        &mut self,
        name: &FileName,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), FilesError> {
        self.check()?;
        if !self.known.contains_key(name) {
            if offset > 0 {
                let reason = format!("it is not there, and is to be written at {offset}");
                return Err(FilesError::Damaged { file: name.clone(), reason });
            }
            self.create(name)?;
        }
        let known = self.look(name)?;
        if offset > known.length {
            let reason = format!("it has {} bytes, and is to be written at {offset}", known.length);
            return Err(FilesError::Damaged { file: name.clone(), reason });
        }
        let end = offset + bytes.len() as u64;
        self.note(name, |known| known.reach = known.reach.max(end));
        self.note_unsynced(name)?;
        let open = self.open.get(name).expect("it was looked at");
        let written = write_all(self.disk.as_mut(), &open.file, offset, bytes);
        written.map_err(|error| self.fail_write(name, &error))?;
        self.note(name, |known| known.length = known.length.max(end));
        Ok(())
    }

    /// Makes everything durable that was written.
    pub(crate) fn sync(&mut self) -> Result<(), FilesError> {
        self.check()?;
        for name in std::mem::take(&mut self.unsynced) {
            let open = self.open.get(&name).expect("what is not synced stays open");
            if let Err(error) = self.disk.sync(&open.file) {
                return Err(self.fail_sync(&name, &error));
            }
        }
        if let Err(error) = self.directory.sync() {
            return Err(self.fail("the directory of the files", &error));
        }
        Ok(())
    }

    /// Reads bytes, exactly as many as are asked for.
    pub(crate) fn read_at(
        &mut self,
        name: &FileName,
        offset: u64,
        length: u32,
    ) -> Result<Bytes, FilesError> {
        let not_there =
            || FilesError::NotThere { file: name.clone(), offset, length: u64::from(length) };
        let end = offset.checked_add(u64::from(length)).ok_or_else(not_there)?;
        if self.length(name).is_none_or(|known| end > known) {
            return Err(not_there());
        }
        self.look(name)?;
        let open = self.open.get(name).expect("it was looked at");
        let mut bytes = vec![0; length as usize];
        let is_read = read_all(self.disk.as_mut(), &open.file, offset, &mut bytes);
        match is_read {
            Ok(()) => Ok(Bytes::from(bytes)),
            Err(error) => Err(damaged(name, error.to_string())),
        }
    }

    /// How long a file is; `None` if there is none.
    pub(crate) fn length(&self, name: &FileName) -> Option<u64> {
        self.known.get(name).map(|known| known.length)
    }

    /// Where fetching a file goes on: the first byte that this node neither has nor fetched.
    pub(crate) fn fetch_from(&mut self, missing: &MissingBytes) -> Result<u64, FilesError> {
        let known = self.length(&missing.file).unwrap_or(0);
        if known >= missing.length {
            return Ok(missing.length);
        }
        let fetched = self.fetched.end(&missing.file, known).map_err(failed("what was fetched"))?;
        Ok(fetched.unwrap_or(known).min(missing.length))
    }

    /// Keeps bytes that were fetched. They must begin where [`Files::fetch_from`] said, or before;
    /// returns where to go on.
    pub(crate) fn install(
        &mut self,
        missing: &MissingBytes,
        offset: u64,
        bytes: &[u8],
    ) -> Result<u64, FilesError> {
        self.check()?;
        let from = self.fetch_from(missing)?;
        let end = offset.saturating_add(bytes.len() as u64).min(missing.length);
        if offset > from || end <= from {
            return Ok(from);
        }
        let start = usize::try_from(from - offset).expect("it lies within bytes in memory");
        let count = usize::try_from(end - from).expect("it lies within bytes in memory");
        let known = self.length(&missing.file).unwrap_or(0);
        let bytes = &bytes[start..start + count];
        self.fetched
            .append(self.disk.as_mut(), &missing.file, known, from, bytes)
            .map_err(|error| self.fail_write(&missing.file, &error))?;
        Ok(end)
    }

    /// Joins what was fetched to the file, if length and checksum of the whole are right, and makes it
    /// durable. If they are not, what was fetched is dropped. Whether the file is complete.
    ///
    /// If that fails again and again, it is the part that was there before which is wrong: the node
    /// has to start again, which [verifies](Files::verify) that part.
    pub(crate) fn complete(&mut self, missing: &MissingBytes) -> Result<bool, FilesError> {
        self.check()?;
        let name = &missing.file;
        let known = self.length(name).unwrap_or(0);
        if self.fetch_from(missing)? < missing.length {
            return Ok(false);
        }
        let own = known.min(missing.length);
        let mut checksum = Checksum::EMPTY;
        if own > 0 {
            self.look(name)?;
            let open = self.open.get(name).expect("it was looked at");
            checksum = extend(self.disk.as_mut(), &open.file, checksum, 0, own)
                .map_err(|error| damaged(name, error.to_string()))?;
        }
        if known < missing.length {
            checksum = self
                .fetched
                .checksum(self.disk.as_mut(), name, checksum, known, missing.length)
                .map_err(failed("what was fetched"))?;
        }
        if checksum != missing.checksum {
            self.fetched.remove(name).map_err(failed("what was fetched"))?;
            return Ok(false);
        }
        self.join(missing, known)?;
        self.sync()?;
        self.fetched.remove(name).map_err(failed("what was fetched"))?;
        Ok(true)
    }

    fn join(&mut self, missing: &MissingBytes, known: u64) -> Result<(), FilesError> {
        let name = &missing.file;
        if known == 0 && missing.length == 0 {
            return self.write_at(name, 0, &[]);
        }
        let mut offset = known;
        while offset < missing.length {
            let count = (missing.length - offset).min(CHUNK_BYTES as u64);
            let bytes = self
                .fetched
                .read(self.disk.as_mut(), name, offset, count)
                .map_err(failed("what was fetched"))?;
            self.write_at(name, offset, &bytes)?;
            offset += count;
        }
        Ok(())
    }

    /// Whether a file has what is recorded of it; then it is cut to that length and noted.
    fn verify_one(&mut self, view: &FileView) -> Result<bool, FilesError> {
        let path = names::encode(&view.file);
        let Some((file, identity, length)) =
            self.directory.open_file(&path).map_err(failed("the files"))?
        else {
            return Ok(false);
        };
        if length < view.length {
            return Ok(false);
        }
        let checksum = extend(self.disk.as_mut(), &file, Checksum::EMPTY, 0, view.length);
        // An error is a block that cannot be read: the file is put aside, as one with wrong bytes.
        if !checksum.is_ok_and(|checksum| checksum == view.checksum) {
            return Ok(false);
        }
        if length > view.length {
            file.set_len(view.length)
                .and_then(|()| self.disk.sync(&file))
                .map_err(failed("a file that is cut"))?;
        }
        let known = Known { identity, length: view.length, reach: view.length };
        self.known.insert(view.file.clone(), known);
        Ok(true)
    }

    fn put_aside(&mut self, path: &[String]) -> Result<(), FilesError> {
        self.quarantine.take(&self.directory, path).map_err(failed("the quarantine"))
    }

    fn create(&mut self, name: &FileName) -> Result<(), FilesError> {
        let path = names::encode(name);
        let created = match self.directory.create_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Nobody but this node may make files here, and it knows of none.
                self.put_aside(&path)?;
                self.directory.create_file(&path)
            }
            created => created,
        };
        let (file, identity) = created.map_err(|error| self.fail_write(name, &error))?;
        self.known.insert(name.clone(), Known { identity, length: 0, reach: 0 });
        self.keep_open(name, file);
        Ok(())
    }

    /// Opens a file if it is not, and sees that it is what it must be.
    fn look(&mut self, name: &FileName) -> Result<Known, FilesError> {
        let known =
            *self.known.get(name).ok_or_else(|| damaged(name, "it is not known".to_owned()))?;
        let path = names::encode(name);
        let found = self.directory.look(&path).map_err(|error| damaged(name, error.to_string()))?;
        let Some((identity, length)) = found else {
            return Err(damaged(name, "it is gone, or no regular file with one name".to_owned()));
        };
        if identity != known.identity {
            return Err(damaged(name, "it was replaced by another file".to_owned()));
        }
        if length < known.length || length > known.reach.max(known.length) {
            let reason = format!("it has {length} bytes instead of {}", known.length);
            return Err(damaged(name, reason));
        }
        self.uses += 1;
        if let Some(open) = self.open.get_mut(name) {
            open.used = self.uses;
        } else {
            let opened = self.directory.open_file(&path);
            let opened = opened.map_err(|error| damaged(name, error.to_string()))?;
            let Some((file, _, _)) = opened.filter(|(_, identity, _)| *identity == known.identity)
            else {
                return Err(damaged(name, "it was replaced by another file".to_owned()));
            };
            self.keep_open(name, file);
        }
        Ok(known)
    }

    fn keep_open(&mut self, name: &FileName, file: File) {
        if self.open.len() >= OPEN_FILES_MAX {
            let idle = self.open.iter().filter(|(name, _)| !self.unsynced.contains(*name));
            let oldest = idle.min_by_key(|(_, open)| open.used).map(|(name, _)| name.clone());
            self.open.remove(&oldest.expect("at most half of the open files are not synced"));
        }
        self.uses += 1;
        self.open.insert(name.clone(), Open { file, used: self.uses });
    }

    fn note(&mut self, name: &FileName, change: impl FnOnce(&mut Known)) {
        change(self.known.get_mut(name).expect("it was looked at"));
    }

    fn note_unsynced(&mut self, name: &FileName) -> Result<(), FilesError> {
        if self.unsynced.len() >= OPEN_FILES_MAX / 2 && !self.unsynced.contains(name) {
            self.sync()?;
        }
        self.unsynced.insert(name.clone());
        Ok(())
    }

    fn check(&self) -> Result<(), FilesError> {
        match &self.failed {
            None => Ok(()),
            Some(reason) => {
                Err(FilesError::Failed { reason: format!("an earlier call failed: {reason}") })
            }
        }
    }

    fn fail(&mut self, what: &str, error: &io::Error) -> FilesError {
        let reason = format!("{what}: {error}");
        self.failed = Some(reason.clone());
        FilesError::Failed { reason }
    }

    fn fail_sync(&mut self, name: &FileName, error: &io::Error) -> FilesError {
        self.fail(&format!("the file {name}"), error)
    }

    /// A write may be tried again when there was no space for it, and only then.
    fn fail_write(&mut self, name: &FileName, error: &io::Error) -> FilesError {
        if durable::is_full(error) {
            return FilesError::Full { reason: format!("the file {name}: {error}") };
        }
        self.fail(&format!("the file {name}"), error)
    }
}

fn damaged(file: &FileName, reason: String) -> FilesError {
    FilesError::Damaged { file: file.clone(), reason }
}

/// A call that is not a write to a guarded file failed.
fn failed(what: &'static str) -> impl FnOnce(io::Error) -> FilesError {
    move |error| {
        let reason = format!("{what}: {error}");
        if durable::is_full(&error) {
            FilesError::Full { reason }
        } else {
            FilesError::Failed { reason }
        }
    }
}

/// How long a full disk is left alone.
pub(crate) const RETRY_INTERVAL: Duration = Duration::from_millis(250);

fn write_all(disk: &mut dyn Disk, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match disk.write_at(file, &bytes[done..], offset + done as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn read_all(disk: &mut dyn Disk, file: &File, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match disk.read_at(file, &mut bytes[done..], offset + done as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Continues a checksum over bytes of a file.
fn extend(
    disk: &mut dyn Disk,
    file: &File,
    mut checksum: Checksum,
    offset: u64,
    length: u64,
) -> io::Result<Checksum> {
    let mut bytes = vec![0; CHUNK_BYTES];
    let (mut at, end) = (offset, offset + length);
    while at < end {
        let count = usize::try_from(end - at).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        read_all(disk, file, at, &mut bytes[..count])?;
        checksum = checksum.extended(&bytes[..count]);
        at += count as u64;
    }
    Ok(checksum)
}
