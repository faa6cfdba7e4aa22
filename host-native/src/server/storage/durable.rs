//! The steps by which a file becomes durable.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Whether a call failed for lack of space or quota: what passes once somebody makes room.
pub(in crate::server) fn is_full(error: &io::Error) -> bool {
    // The list of kinds is open, so only these two are named.
    [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded].contains(&error.kind())
}

/// Makes durable which names a directory has.
pub(in crate::server) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The name of a file that is being written, and will take the place of `path`.
pub(in crate::server) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}

/// Puts a file in place, durably and as one step: whenever the machine stops, the file is there as
/// it was before, or with the new content.
pub(in crate::server) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = temporary(path);
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_parent(path)
}

/// Makes durable that a name is there, or gone.
pub(in crate::server) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
        Some(_) | None => sync_directory(Path::new(".")),
    }
}
