//! `lock`: held by the process that uses the directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::{DataDirError, LOCK, system};

/// What the file begins with: by this a directory is known as one of ours, whatever else is missing.
const FIRST_WORDS: &str = "quorlock data directory, used by process ";

/// The lock, until it is dropped. The system takes it from a process that dies.
#[derive(Debug)]
pub(super) struct LockFile {
    _file: File,
}

impl LockFile {
    /// Takes the lock of a directory.
    pub(super) fn acquire(directory: &Path) -> Result<Self, DataDirError> {
        let path = directory.join(LOCK);
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(system(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let path = directory.to_path_buf();
                return Err(DataDirError::Locked { path, holder: holder(&mut file) });
            }
            Err(TryLockError::Error(error)) => return Err(system(&path)(error)),
        }
        write_holder(&mut file).map_err(system(&path))?;
        Ok(Self { _file: file })
    }
}

/// Whether a file is a lock of ours: one that was just made is empty.
pub(super) fn is_ours(path: &Path) -> bool {
    let mut content = String::new();
    let read = File::open(path).and_then(|file| file.take(256).read_to_string(&mut content));
    read.is_ok() && (content.is_empty() || content.starts_with(FIRST_WORDS))
}

fn write_holder(file: &mut File) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    let line = format!("{FIRST_WORDS}{}\n", std::process::id());
    file.write_all(line.as_bytes())?;
    file.set_len(line.len() as u64)?;
    file.sync_all()
}

/// Who holds the lock, in words.
fn holder(file: &mut File) -> String {
    let mut content = String::new();
    let read = file.take(256).read_to_string(&mut content);
    let process = content.trim_end().strip_prefix(FIRST_WORDS);
    match process.filter(|pid| read.is_ok() && pid.bytes().all(|byte| byte.is_ascii_digit())) {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}
