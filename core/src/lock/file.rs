//! Guarded files: their lengths, checksums and guards. Their bytes are the host's.

use alloc::collections::BTreeMap;
use core::ops::Bound;

use crate::checksum::Checksum;
use crate::config::Limits;
use crate::ids::ID_MAX;
use crate::message::{FileAppend, FileView, Rejection};
use crate::text::{FileName, LockName};

/// The most bytes of a file: 2^53 − 1, so that JavaScript can count them.
pub const FILE_BYTES_MAX: u64 = ID_MAX;

/// All guarded files.
///
/// Invariant: no file is longer than [`FILE_BYTES_MAX`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Files(BTreeMap<FileName, File>);

/// One guarded file. It only ever becomes longer, and never changes its guard.
#[derive(Clone, PartialEq, Eq, Debug)]
struct File {
    guard: LockName,
    length: u64,
    checksum: Checksum,
}

impl File {
    fn empty(guard: LockName) -> Self {
        Self { guard, length: 0, checksum: Checksum::EMPTY }
    }

    fn view(&self, name: &FileName) -> FileView {
        FileView {
            file: name.clone(),
            guard: self.guard.clone(),
            length: self.length,
            checksum: self.checksum,
        }
    }
}

impl Files {
    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    pub(super) fn view(&self, name: &FileName) -> Option<FileView> {
        self.0.get(name).map(|file| file.view(name))
    }

    pub(super) fn views(&self) -> impl Iterator<Item = FileView> {
        self.0.iter().map(|(name, file)| file.view(name))
    }

    /// The files after this name, in the order of names; `None` for all.
    pub(super) fn views_after(&self, after: Option<&FileName>) -> impl Iterator<Item = FileView> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let files = self.0.range::<FileName, _>((start, Bound::Unbounded));
        files.map(|(name, file)| file.view(name))
    }

    /// Puts a file in as a snapshot describes it; `false` when its name is taken.
    pub(super) fn insert(&mut self, view: FileView) -> bool {
        let file = File { guard: view.guard, length: view.length, checksum: view.checksum };
        self.0.insert(view.file, file).is_none()
    }

    /// Creates an empty file, unless it is there with the same guard. Says whether it is new.
    pub(super) fn create(
        &mut self,
        name: &FileName,
        guard: &LockName,
        files_max: u32,
    ) -> Result<bool, Rejection> {
        if self.length_under(name, guard)?.is_some() {
            return Ok(false);
        }
        if self.len() >= u64::from(files_max) {
            return Err(Rejection::TooManyFiles);
        }
        self.0.insert(name.clone(), File::empty(guard.clone()));
        Ok(true)
    }

    /// The length of a file that `guard` guards; `None` when there is no such file.
    fn length_under(&self, name: &FileName, guard: &LockName) -> Result<Option<u64>, Rejection> {
        match self.0.get(name) {
            Some(file) if file.guard == *guard => Ok(Some(file.length)),
            Some(file) => Err(Rejection::WrongGuard { guard: file.guard.clone() }),
            None => Ok(None),
        }
    }

    /// Whether all of `appends` can be made under `guard`, one after the other. If so,
    /// [`Files::append`] cannot fail for any of them.
    pub(super) fn check(
        &self,
        guard: &LockName,
        appends: &[FileAppend],
        limits: &Limits,
    ) -> Result<(), Rejection> {
        let mut lengths: BTreeMap<&FileName, u64> = BTreeMap::new();
        let mut files = self.len();
        for append in appends {
            let length = match lengths.get(&append.file) {
                Some(length) => *length,
                None => self.length_under(&append.file, guard)?.unwrap_or_else(|| {
                    files += 1;
                    0
                }),
            };
            if files > u64::from(limits.files_max) {
                return Err(Rejection::TooManyFiles);
            }
            let length = length + append.bytes.len() as u64;
            if length > FILE_BYTES_MAX {
                return Err(Rejection::FileFull);
            }
            lengths.insert(&append.file, length);
        }
        Ok(())
    }

    /// Makes an append that was checked. Says where the bytes begin, and whether the file is new.
    pub(super) fn append(&mut self, guard: &LockName, append: &FileAppend) -> (u64, bool) {
        let before = self.0.len();
        let file = self.0.entry(append.file.clone()).or_insert_with(|| File::empty(guard.clone()));
        assert!(file.guard == *guard, "an append is made under the lock that guards the file");
        let offset = file.length;
        file.length += append.bytes.len() as u64;
        file.checksum = file.checksum.extended(&append.bytes);
        (offset, self.0.len() > before)
    }

    /// Finds a broken invariant.
    pub(super) fn verify(&self) -> Result<(), &'static str> {
        if self.0.values().any(|file| file.length > FILE_BYTES_MAX) {
            return Err("no file is longer than its limit");
        }
        Ok(())
    }
}

/// Checks what does not depend on any state: how many appends, and how many bytes.
pub(super) fn check_sizes(appends: &[FileAppend], limits: &Limits) -> Result<(), Rejection> {
    let appends_max = limits.appends_per_request_max;
    if appends.len() as u64 > u64::from(appends_max) {
        return Err(Rejection::TooManyAppends { appends_max });
    }
    let bytes_max = limits.append_bytes_max;
    let bytes: u64 = appends.iter().map(|append| append.bytes.len() as u64).sum();
    if bytes > u64::from(bytes_max) {
        return Err(Rejection::AppendTooLarge { bytes_max });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_file_is_full_before_its_length_is_no_longer_exact() {
        let name = |text: &str| FileName::new(text).expect("a valid name");
        let guard = LockName::new("l").expect("a valid name");
        let (file, length) = (name("f"), FILE_BYTES_MAX - 3);
        let mut files = Files::default();
        let view = FileView { file, guard: guard.clone(), length, checksum: Checksum::EMPTY };
        assert!(files.insert(view));
        let append = |bytes| FileAppend { file: name("f"), bytes: Bytes::from_static(bytes) };
        let limits = Limits::default();
        assert_eq!(files.check(&guard, &[append(b"12"), append(b"3")], &limits), Ok(()));
        let over = [append(b"12"), append(b"34")];
        assert_eq!(files.check(&guard, &over, &limits), Err(Rejection::FileFull));
    }
}
