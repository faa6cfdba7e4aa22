//! When a snapshot is taken, and the two things that one can wait for: the files, before a
//! snapshot of ours lets the log go; and the missing bytes of the files, before one from the
//! leader counts.

use alloc::vec::Vec;

use super::boundary::MissingBytes;
use crate::config::Config;
use crate::ids::{EntryId, LogIndex};
use crate::lock::LockTable;
use crate::message::{Effect, Entry, Snapshot};
use crate::time::Time;

/// What decides when the next snapshot is taken.
///
/// Invariant: `effects_durable` never passes `applied`.
#[derive(Clone, Debug)]
pub(super) struct Snapshots {
    /// The last entry of the latest snapshot.
    latest: EntryId,
    /// When it was taken.
    taken: Time,
    /// Entries applied since then, and their bytes.
    entries: u64,
    bytes: u64,
    /// The last entry with an effect; the files must be durable up to it before a snapshot can
    /// take the place of the log.
    last_effect: LogIndex,
    /// How far the files are durable.
    effects_durable: LogIndex,
    /// A snapshot that waits for the files.
    waiting: Option<Snapshot>,
}

impl Snapshots {
    pub(super) fn new(latest: EntryId, now: Time) -> Self {
        Self {
            latest,
            taken: now,
            entries: 0,
            bytes: 0,
            last_effect: latest.index,
            effects_durable: latest.index,
            waiting: None,
        }
    }

    /// Counts an entry that was applied.
    pub(super) fn count(&mut self, entry: &Entry, effects: &[Effect]) {
        self.entries += 1;
        self.bytes += entry.cost_bytes();
        if !effects.is_empty() {
            self.last_effect = entry.id.index;
        }
    }

    /// Whether it is time for a snapshot: by entries, by bytes, or by age. Never while another one
    /// waits for the files.
    pub(super) fn is_due(&self, config: &Config, now: Time) -> bool {
        let many = self.entries >= config.snapshot_entries || self.bytes >= config.snapshot_bytes;
        self.waiting.is_none() && (many || self.deadline(config).is_some_and(|time| now >= time))
    }

    /// When whatever was applied since the latest snapshot is old enough for another one.
    pub(super) fn deadline(&self, config: &Config) -> Option<Time> {
        let pending = self.entries > 0 && self.waiting.is_none();
        pending.then(|| self.taken.after(config.snapshot_interval))
    }

    /// A snapshot was taken of the present state.
    pub(super) fn take(&mut self, snapshot: Snapshot, now: Time) {
        self.latest = snapshot.last;
        self.taken = now;
        self.entries = 0;
        self.bytes = 0;
        self.waiting = Some(snapshot);
    }

    /// The snapshot that waited for the files, once they are durable as far as it goes.
    pub(super) fn next_ready(&mut self) -> Option<Snapshot> {
        let waiting = self.waiting.as_ref()?;
        let effects = self.last_effect.min(waiting.last.index);
        if self.effects_durable < effects {
            return None;
        }
        self.waiting.take()
    }

    /// Whether a snapshot has waited for the files for so long that their disk must be taken for
    /// one that hangs.
    pub(super) fn is_stalled(&self, config: &Config, now: Time) -> bool {
        self.waiting.is_some() && now.since(self.taken) >= config.write_stall_timeout
    }

    /// Whether all effects so far are durable.
    pub(super) fn are_effects_durable(&self) -> bool {
        self.effects_durable >= self.last_effect
    }

    /// The files are durable up to `up_to`. An earlier answer that comes late changes nothing.
    pub(super) fn effects_durable(&mut self, up_to: LogIndex) {
        self.effects_durable = self.effects_durable.max(up_to);
    }

    /// A snapshot from the leader replaced the state; the files it needs are durable.
    pub(super) fn replace(&mut self, last: EntryId, now: Time) {
        let effects_durable = self.effects_durable.max(last.index);
        *self = Self { effects_durable, ..Self::new(last, now) };
    }

    pub(super) fn check_invariants(&self, applied: LogIndex) {
        assert!(self.latest.index <= applied, "a snapshot covers what was applied");
        assert!(self.last_effect <= applied, "effects come from what was applied");
        assert!(self.effects_durable <= applied, "only what was applied can be durable");
    }
}

/// What the files of a node whose state is `ours` lack for the state `theirs`, which is later.
pub(super) fn missing_bytes(ours: &LockTable, theirs: &LockTable) -> Vec<MissingBytes> {
    theirs
        .files()
        .filter_map(|file| {
            let (known, offset) = match ours.file(&file.file) {
                Some(own) => (true, own.length),
                None => (false, 0),
            };
            (!known || offset < file.length).then_some(MissingBytes {
                file: file.file,
                offset,
                length: file.length,
                checksum: file.checksum,
            })
        })
        .collect()
}
