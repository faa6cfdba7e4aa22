//! What a bootstrap left that did not end.
//!
//! It is told from what somebody else has in a directory by its names, by the first words in
//! `lock`, which is made first, and by this: nothing of it was ever in use, so no guarded file is in
//! it.

use std::fs;
use std::io;
use std::path::Path;

use super::identity::Identity;
use super::{DIRECTORIES, DataDirError, IDENTITY, LOCK, LOG, PEERS, lock_file, system};
use crate::server::storage::{durable, is_part_of_log};

/// Refuses a directory that holds a node, or anything else than leftovers.
pub(super) fn check(path: &Path) -> Result<(), DataDirError> {
    let foreign =
        |found: &str| DataDirError::Foreign { path: path.to_path_buf(), found: found.to_owned() };
    let names = match names(path) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(system(path)(error)),
    };
    if names.iter().any(|name| name == IDENTITY) {
        let identity = Box::new(Identity::read(&path.join(IDENTITY))?);
        return Err(DataDirError::Bootstrapped { path: path.to_path_buf(), identity });
    }
    let Some(other) = names.iter().find(|name| *name != LOCK) else {
        return match names.first() {
            Some(lock) if !lock_file::is_ours(&path.join(LOCK)) => Err(foreign(lock)),
            Some(_) | None => Ok(()),
        };
    };
    if !names.iter().any(|name| name == LOCK) || !lock_file::is_ours(&path.join(LOCK)) {
        return Err(foreign(other));
    }
    for name in names.iter().filter(|name| *name != LOCK) {
        if !is_leftover(path, name).map_err(system(path))? {
            return Err(foreign(name));
        }
    }
    Ok(())
}

/// Removes them, but for the lock.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    for name in names(path)? {
        let below = path.join(&name);
        if name == LOCK {
            continue;
        }
        if fs::symlink_metadata(&below)?.is_dir() {
            fs::remove_dir_all(&below)?;
        } else {
            fs::remove_file(&below)?;
        }
    }
    durable::sync_directory(path)
}

fn is_leftover(path: &Path, name: &str) -> io::Result<bool> {
    let below = path.join(name);
    if DIRECTORIES.contains(&name) {
        if !fs::symlink_metadata(&below)?.is_dir() {
            return Ok(false);
        }
        let names = names(&below)?;
        return Ok(names.iter().all(|inner| name == LOG && is_part_of_log(inner)));
    }
    let identity = durable::temporary(Path::new(IDENTITY));
    let peers = durable::temporary(Path::new(PEERS));
    Ok([identity.as_path(), peers.as_path()].contains(&Path::new(name)))
}

fn names(path: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(path)?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}
