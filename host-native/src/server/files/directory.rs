//! A directory beneath which files are opened, by components, and never through a link.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};

/// How deep the path of a file can be: more than any name's is.
const DEPTH_MAX: usize = 8;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
// Not blocking, in case that somebody put a pipe in the place of the file.
const FILE: OFlags =
    OFlags::RDWR.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// Which file: no two that exist at the same time have the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    /// Its type differs from system to system.
    device: i128,
    inode: u64,
}

/// The directory.
#[derive(Debug)]
pub(super) struct Directory {
    root: OwnedFd,
    /// The directories in which files or directories were made since the last sync.
    unsynced: BTreeSet<Vec<String>>,
}

impl Directory {
    /// Opens the directory, which must exist.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let root = rustix::fs::open(path, DIRECTORY, Mode::empty())?;
        Ok(Self { root, unsynced: BTreeSet::new() })
    }

    /// What is there: the identity and the length of a regular file with no other name; `None` for
    /// anything else.
    pub(super) fn look(&self, path: &[String]) -> io::Result<Option<(Identity, u64)>> {
        let (parent, name) = match self.parent(path) {
            Ok(found) => found,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(file_of(&stat)),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a file; `None` where [`Directory::look`] finds none.
    pub(super) fn open_file(&self, path: &[String]) -> io::Result<Option<(File, Identity, u64)>> {
        let opened = self
            .parent(path)
            .and_then(|(parent, name)| Ok(rustix::fs::openat(&parent, name, FILE, Mode::empty())?));
        let file = match opened {
            Ok(file) => file,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let found = file_of(&rustix::fs::fstat(&file)?);
        Ok(found.map(|(identity, length)| (File::from(file), identity, length)))
    }

    /// Makes a file, and the directories that it needs. It must not exist.
    pub(super) fn create_file(&mut self, path: &[String]) -> io::Result<(File, Identity)> {
        for depth in 1..path.len() {
            let (parent, name) = self.parent(&path[..depth])?;
            match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
                Ok(()) => {
                    self.unsynced.insert(path[..depth - 1].to_vec());
                }
                Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let (parent, name) = self.parent(path)?;
        let flags = FILE | OFlags::CREATE | OFlags::EXCL;
        let file = rustix::fs::openat(&parent, name, flags, Mode::RUSR | Mode::WUSR)?;
        self.unsynced.insert(path[..path.len() - 1].to_vec());
        let found = file_of(&rustix::fs::fstat(&file)?);
        let (identity, _) = found.ok_or_else(|| io::Error::other("a new file is none"))?;
        Ok((File::from(file), identity))
    }

    /// Removes a file, if it is there.
    pub(super) fn remove_file(&mut self, path: &[String]) -> io::Result<()> {
        let (parent, name) = match self.parent(path) {
            Ok(found) => found,
            Err(error) if is_absent(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes durable which files were made.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        for path in std::mem::take(&mut self.unsynced) {
            rustix::fs::fsync(self.directory(&path)?)?;
        }
        Ok(())
    }

    /// Moves whatever is under a name to another directory, durably. Nothing, if there is nothing.
    pub(super) fn give_away(&self, path: &[String], to: &Self, name: &str) -> io::Result<()> {
        let (parent, old) = match self.parent(path) {
            Ok(found) => found,
            Err(error) if is_absent(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        match rustix::fs::renameat(&parent, old, &to.root, name) {
            Ok(()) => {}
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        rustix::fs::fsync(&to.root)?;
        Ok(rustix::fs::fsync(&parent)?)
    }

    /// The names in the directory itself.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        Ok(entries(&self.root)?.into_iter().map(|(name, _)| name).collect())
    }

    /// Everything beneath that is no directory, by path. Directories too where no file can be.
    pub(super) fn list(&self) -> io::Result<Vec<Vec<String>>> {
        let mut found = Vec::new();
        let mut left = vec![Vec::new()];
        while let Some(path) = left.pop() {
            for (name, kind) in entries(&self.directory(&path)?)? {
                let mut below = path.clone();
                below.push(name);
                let is_ours =
                    below.len() < DEPTH_MAX && below.last().is_some_and(|name| name.ends_with('~'));
                if kind == FileType::Directory && is_ours {
                    left.push(below);
                } else {
                    found.push(below);
                }
            }
        }
        Ok(found)
    }

    /// The directory in which a path ends, and its last component.
    fn parent<'a>(&self, path: &'a [String]) -> io::Result<(OwnedFd, &'a str)> {
        let (name, directories) = path.split_last().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.directory(directories)?, name))
    }

    fn directory(&self, path: &[String]) -> io::Result<OwnedFd> {
        let mut directory = self.root.try_clone()?;
        for component in path {
            directory = rustix::fs::openat(&directory, component, DIRECTORY, Mode::empty())?;
        }
        Ok(directory)
    }
}

/// Whether there is nothing under a name, or a link, which is as good as nothing.
fn is_absent(error: &io::Error) -> bool {
    let absent = [rustix::io::Errno::NOENT, rustix::io::Errno::NOTDIR, rustix::io::Errno::LOOP];
    // What cannot be opened for writing: a directory, a socket, a device that is not there.
    let other = [rustix::io::Errno::ISDIR, rustix::io::Errno::NXIO];
    error
        .raw_os_error()
        .map(rustix::io::Errno::from_raw_os_error)
        .is_some_and(|error| absent.contains(&error) || other.contains(&error))
}

fn file_of(stat: &Stat) -> Option<(Identity, u64)> {
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if !is_file || stat.st_nlink != 1 {
        return None;
    }
    let length = u64::try_from(stat.st_size).ok()?;
    let device = i128::from(stat.st_dev);
    Some((Identity { device, inode: stat.st_ino }, length))
}

fn entries(directory: &OwnedFd) -> io::Result<Vec<(String, FileType)>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        // None of ours has such a name, so which one it is does not matter.
        let name = String::from_utf8_lossy(name).into_owned();
        found.push((name, entry.file_type()));
    }
    Ok(found)
}
