//! Bytes from peers that wait until a file is whole.
//!
//! One file for each, with the path of the guarded file: in its first eight bytes the offset at
//! which its bytes belong, then those bytes. They are checked when all are there, as a whole; here they
//! may be anything, so nothing of this needs to be synced.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use quorlock_core::checksum::Checksum;
use quorlock_core::text::FileName;

use super::directory::Directory;
use super::{Disk, extend, names, read_all, write_all};

const HEADER_BYTES: u64 = 8;

/// What was fetched of one file.
#[derive(Debug)]
struct Part {
    file: File,
    base: u64,
    /// The offset behind the last byte.
    end: u64,
}

/// The directory.
#[derive(Debug)]
pub(super) struct Fetched {
    directory: Directory,
    /// Those that are open: at most [`OPEN_MAX`].
    parts: BTreeMap<FileName, Part>,
}

/// The most that are open at once. Files are fetched one after the other, or a few at a time.
const OPEN_MAX: usize = 16;

impl Fetched {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { directory: Directory::open(path)?, parts: BTreeMap::new() })
    }

    /// The paths of all that was fetched.
    pub(super) fn list(&self) -> io::Result<Vec<Vec<String>>> {
        self.directory.list()
    }

    /// The offset behind what was fetched of a file of which `known` bytes are there; `None` if
    /// nothing was that joins them.
    pub(super) fn end(&mut self, name: &FileName, known: u64) -> io::Result<Option<u64>> {
        if !self.parts.contains_key(name) {
            let Some(part) = self.find(name)? else { return Ok(None) };
            self.keep(name, part);
        }
        let part = self.parts.get(name).filter(|part| part.base <= known && part.end > known);
        Ok(part.map(|part| part.end))
    }

    /// Adds bytes, which begin at `offset`. They join the `known` bytes of the file, or what was
    /// fetched already.
    pub(super) fn append(
        &mut self,
        disk: &mut dyn Disk,
        name: &FileName,
        known: u64,
        offset: u64,
        bytes: &[u8],
    ) -> io::Result<()> {
        if self.end(name, known)? != Some(offset) {
            self.remove(name)?;
            let (file, _) = self.directory.create_file(&names::encode(name))?;
            write_all(disk, &file, 0, &offset.to_be_bytes())?;
            self.keep(name, Part { file, base: offset, end: offset });
        }
        let part = self.parts.get_mut(name).expect("it was found or made");
        write_all(disk, &part.file, HEADER_BYTES + (offset - part.base), bytes)?;
        part.end = offset + bytes.len() as u64;
        Ok(())
    }

    /// Continues a checksum over the bytes between two offsets.
    pub(super) fn checksum(
        &self,
        disk: &mut dyn Disk,
        name: &FileName,
        checksum: Checksum,
        from: u64,
        to: u64,
    ) -> io::Result<Checksum> {
        let part = self.part(name)?;
        extend(disk, &part.file, checksum, HEADER_BYTES + (from - part.base), to - from)
    }

    /// Reads bytes.
    pub(super) fn read(
        &self,
        disk: &mut dyn Disk,
        name: &FileName,
        offset: u64,
        length: u64,
    ) -> io::Result<Vec<u8>> {
        let part = self.part(name)?;
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        read_all(disk, &part.file, HEADER_BYTES + (offset - part.base), &mut bytes)?;
        Ok(bytes)
    }

    /// Forgets what was fetched of a file.
    pub(super) fn remove(&mut self, name: &FileName) -> io::Result<()> {
        self.parts.remove(name);
        self.directory.remove_file(&names::encode(name))
    }

    fn part(&self, name: &FileName) -> io::Result<&Part> {
        self.parts.get(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn find(&self, name: &FileName) -> io::Result<Option<Part>> {
        let Some((file, _, length)) = self.directory.open_file(&names::encode(name))? else {
            return Ok(None);
        };
        let Some(count) = length.checked_sub(HEADER_BYTES) else { return Ok(None) };
        let mut header = 0_u64.to_be_bytes();
        read_all(&mut super::SystemDisk, &file, 0, &mut header)?;
        let base = u64::from_be_bytes(header);
        let end = base.checked_add(count);
        Ok(end.map(|end| Part { file, base, end }))
    }

    fn keep(&mut self, name: &FileName, part: Part) {
        if self.parts.len() >= OPEN_MAX {
            self.parts.pop_first();
        }
        self.parts.insert(name.clone(), part);
    }
}
