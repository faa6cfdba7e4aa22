//! A snapshot in a file of its own: up to a gigabyte would not do the journal any good.
//!
//! Layout: the length of the header in four bytes, the header (the snapshot without its data, as
//! the codec encodes it), the data. Length and checksum of the whole are in the store, written in
//! one step with everything else of the batch that the snapshot came in; so a snapshot counts when,
//! and only when, its batch does. The file is durable before, under a name that no other snapshot
//! had or will have.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use quorlock_core::checksum::Checksum;
use quorlock_core::codec::{self, SNAPSHOT_BYTES_MAX};
use quorlock_core::ids::LogIndex;
use quorlock_core::message::Snapshot;
use serde::{Deserialize, Serialize};

use super::durable;

/// What every name begins with.
const PREFIX: &str = "snapshot-";

/// How much is written or read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// The most bytes of a header: a membership and some numbers.
const HEADER_BYTES_MAX: u64 = 64 << 10;

/// Which file, and what is in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct SnapshotFile {
    /// The last entry that the snapshot covers.
    pub(super) index: LogIndex,
    /// The number of the write that it came with: no two files have the same name, so that a
    /// crash never leaves the name of one snapshot on another.
    pub(super) write: u64,
    /// How long the file is.
    pub(super) length: u64,
    /// The checksum of the file.
    pub(super) checksum: Checksum,
}

impl SnapshotFile {
    /// The name of the file.
    pub(super) fn name(&self) -> String {
        format!("{PREFIX}{}-{}", self.index, self.write)
    }

    /// Writes a snapshot durably, under its name.
    pub(super) fn write(directory: &Path, snapshot: &Snapshot, write: u64) -> io::Result<Self> {
        let header = codec::encode(&Snapshot { data: Bytes::new(), ..snapshot.clone() });
        let header_length = u32::try_from(header.len()).expect("a header is short").to_be_bytes();
        let parts = [&header_length[..], &header, &snapshot.data];
        let mut checksum = Checksum::EMPTY;
        let mut length = 0;
        for part in parts {
            checksum = checksum.extended(part);
            length += part.len() as u64;
        }
        let this = Self { index: snapshot.last.index, write, length, checksum };
        let path = directory.join(this.name());
        let temporary = durable::temporary(&path);
        let written = write_parts(&temporary, &parts).and_then(|()| {
            fs::rename(&temporary, &path)?;
            durable::sync_directory(directory)
        });
        if written.is_err() {
            // It must not use up the space that there is not. If this fails too, it is removed when
            // the log is opened next.
            drop(fs::remove_file(&temporary));
        }
        written.map(|()| this)
    }

    /// Reads the snapshot. The error says what is wrong with it.
    pub(super) fn read(&self, directory: &Path) -> Result<Snapshot, String> {
        let name = self.name();
        let wrong = |what: String| format!("{name}: {what}");
        let mut file =
            File::open(directory.join(&name)).map_err(|error| wrong(error.to_string()))?;
        let length = file.metadata().map_err(|error| wrong(error.to_string()))?.len();
        let length_max = 4 + HEADER_BYTES_MAX + SNAPSHOT_BYTES_MAX as u64;
        if length != self.length || length > length_max {
            return Err(wrong(format!("{length} bytes, and {} were written", self.length)));
        }
        let (content, checksum) =
            read_whole(&mut file, length).map_err(|error| wrong(error.to_string()))?;
        if checksum != self.checksum {
            return Err(wrong(format!("its checksum is {checksum}, not {}", self.checksum)));
        }
        parse(content).ok_or_else(|| wrong("no snapshot".to_owned()))
    }

    /// Removes every snapshot but this one, and what was left behind when one was written.
    pub(super) fn remove_others(&self, directory: &Path) -> io::Result<()> {
        let keep = self.name();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let is_other = name.to_str().is_some_and(|name| is_name(name) && name != keep);
            if is_other {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// Whether a file of this name is a snapshot, whole or not.
pub(super) fn is_name(name: &str) -> bool {
    name.starts_with(PREFIX)
}

fn write_parts(path: &PathBuf, parts: &[&[u8]]) -> io::Result<()> {
    let mut file = File::create(path)?;
    for chunk in parts.iter().flat_map(|part| part.chunks(CHUNK_BYTES)) {
        file.write_all(chunk)?;
    }
    file.sync_all()
}

fn read_whole(file: &mut File, length: u64) -> io::Result<(Vec<u8>, Checksum)> {
    let length = usize::try_from(length).map_err(io::Error::other)?;
    let mut content = Vec::with_capacity(length);
    let mut checksum = Checksum::EMPTY;
    while content.len() < length {
        let start = content.len();
        let chunk = CHUNK_BYTES.min(length - start) as u64;
        if file.take(chunk).read_to_end(&mut content)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        checksum = checksum.extended(&content[start..]);
    }
    Ok((content, checksum))
}

fn parse(content: Vec<u8>) -> Option<Snapshot> {
    let mut content = Bytes::from(content);
    let header_length = u32::from_be_bytes(content.get(..4)?.try_into().ok()?);
    let data_start = usize::try_from(header_length).ok()?.checked_add(4)?;
    let header = content.get(4..data_start)?;
    let snapshot: Snapshot = codec::decode(header).ok()?;
    let data = content.split_off(data_start);
    Some(Snapshot { data, ..snapshot })
}
