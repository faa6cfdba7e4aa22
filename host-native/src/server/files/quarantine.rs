//! Where files go that are not what they must be: a person may want to look at them.
//!
//! Each gets a number that is higher than all before, and its encoded name. There are at most
//! [`KEPT_MAX`]; the oldest goes when one more comes.

use std::io;
use std::path::Path;

use super::directory::Directory;

/// The most files that are kept.
pub(super) const KEPT_MAX: usize = 64;

/// The directory.
#[derive(Debug)]
pub(super) struct Quarantine {
    directory: Directory,
}

impl Quarantine {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { directory: Directory::open(path)? })
    }

    /// Takes whatever is under a name; nothing, if there is nothing.
    pub(super) fn take(&mut self, from: &Directory, path: &[String]) -> io::Result<()> {
        let mut kept: Vec<(u64, String)> = self
            .directory
            .names()?
            .into_iter()
            .filter_map(|name| Some((name.split_once('-')?.0.parse().ok()?, name)))
            .collect();
        kept.sort();
        let excess = (kept.len() + 1).saturating_sub(KEPT_MAX);
        for (_, name) in kept.iter().take(excess) {
            // A directory stays: it was put among the files by a person, who can take it away.
            drop(self.directory.remove_file(std::slice::from_ref(name)));
        }
        let number = kept.last().map_or(1, |(number, _)| number + 1);
        // A part of a long name is enough to recognise it.
        let name: String = path.concat().chars().take(200).collect();
        from.give_away(path, &self.directory, &format!("{number}-{name}"))
    }
}
