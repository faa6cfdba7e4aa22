//! A snapshot from the leader, from its arrival until it counts.
//!
//! It counts when two things are durable: the bytes that the files of this node lack, which the
//! host fetches; and the effects that this node has already asked for, since the log that could
//! repeat them goes.

use super::boundary::{Event, Output};
use super::snapshots::missing_bytes;
use super::{LockTable, Node};
use crate::ids::EntryId;
use crate::message::Snapshot;

/// A snapshot that was checked and waits for the files.
#[derive(Clone, Debug)]
pub(super) struct Arriving {
    last: EntryId,
    table: LockTable,
    /// Whether the bytes that were missing are here.
    fetched: bool,
}

impl Node {
    /// A snapshot from the leader is here, in full: check it, and get the bytes that the files
    /// lack.
    pub(super) fn prepare(&mut self, snapshot: &Snapshot) {
        self.arriving = None;
        let last = snapshot.last;
        let (Some(table), Some(from)) = (self.acceptable_table(snapshot), self.raft.leader())
        else {
            self.raft.snapshot_ready(self.now, last, false);
            return;
        };
        let files = missing_bytes(&self.locks, &table);
        self.arriving = Some(Arriving { last, table, fetched: files.is_empty() });
        if !files.is_empty() {
            self.outputs.push_back(Output::FetchFiles { snapshot: last, from, files });
        }
        self.finish_arrival();
    }

    /// The lock table of a snapshot, if it is what the snapshot says, and of this cluster.
    fn acceptable_table(&self, snapshot: &Snapshot) -> Option<LockTable> {
        let table = LockTable::decode(&snapshot.data).ok()?;
        let fits = is_state_of(&table, snapshot) && table.limits() == self.locks.limits();
        fits.then_some(table)
    }

    pub(super) fn handle_files_fetched(&mut self, snapshot: EntryId, complete: bool) {
        let Some(arriving) = self.arriving.as_mut().filter(|arriving| arriving.last == snapshot)
        else {
            return;
        };
        if complete {
            arriving.fetched = true;
            self.finish_arrival();
        } else {
            self.arriving = None;
            self.raft.snapshot_ready(self.now, snapshot, false);
        }
    }

    /// Lets the snapshot be installed, if everything that it needs is durable.
    pub(super) fn finish_arrival(&mut self) {
        let arriving = self.arriving.as_ref().filter(|arriving| arriving.fetched);
        if let Some(Arriving { last, .. }) = arriving
            && self.snapshots.are_effects_durable()
        {
            self.raft.snapshot_ready(self.now, *last, true);
        }
    }

    /// Consensus has put the snapshot in the place of the log: the state follows.
    pub(super) fn install(&mut self, last: EntryId) {
        let arriving = self.arriving.take().filter(|arriving| arriving.last == last);
        let arriving =
            arriving.expect("consensus installs only the snapshot that was prepared last");
        self.locks = arriving.table;
        self.applied = last.index;
        self.snapshots.replace(last, self.now);
        let locks = &self.locks;
        self.routing.retain_sessions(|session| locks.has_session(session));
        self.event(Event::SnapshotInstalled { last });
    }

    /// Forgets a snapshot that the log has overtaken.
    pub(super) fn forget_overtaken_arrival(&mut self) {
        let applied = self.applied;
        self.arriving.take_if(|arriving| arriving.last.index <= applied);
    }
}

/// Whether a lock table is the state at the end of what a snapshot covers.
pub(super) fn is_state_of(table: &LockTable, snapshot: &Snapshot) -> bool {
    table.index() == snapshot.last.index && table.now() <= snapshot.stamp
}
