//! Snapshots: taking one's own, sending one to a follower, receiving one (paper, section 7).
//!
//! A snapshot travels in pieces, each sent when the one before has arrived. Its data is small: the
//! guarded files are in it by length and checksum only, and the caller fetches them before it lets
//! the snapshot be installed.

use alloc::vec::Vec;

use bytes::Bytes;

use crate::checksum::Checksum;
use crate::codec::SNAPSHOT_BYTES_MAX;
use crate::ids::{EntryId, LogIndex, NodeId, Term, WriteId};
use crate::message::{
    InstallSnapshot, InstallSnapshotReply, Message, Snapshot, SnapshotMeta, SnapshotResult,
};
use crate::time::Time;

use super::Raft;
use super::action::{DropReason, RaftAction, Role};
use super::outbox::envelope;
use super::progress::{Progress, State};

/// A snapshot that is being received: one at a time.
///
/// Invariant: there is not more data than its description says.
#[derive(Clone, Debug)]
pub(super) struct Receiving {
    /// The leader's term. Pieces of two leaders never mix.
    term: Term,
    meta: SnapshotMeta,
    data: Data,
}

/// How far a reception is.
#[derive(Clone, Debug)]
enum Data {
    /// This much from the start.
    Partial(Vec<u8>),
    /// All, checked and given to the caller, who says when it may be installed.
    Complete(Bytes),
}

impl Receiving {
    fn new(term: Term, meta: SnapshotMeta) -> Self {
        Self { term, meta, data: Data::Partial(Vec::new()) }
    }

    /// Whether a piece of this description goes on with what is here. Once all is here, it does
    /// not matter who sent it.
    fn is_continued_by(&self, term: Term, meta: &SnapshotMeta) -> bool {
        let same_leader = match self.data {
            Data::Partial(_) => self.term == term,
            Data::Complete(_) => true,
        };
        same_leader && self.meta == *meta
    }

    fn length(&self) -> u64 {
        match &self.data {
            Data::Partial(bytes) => bytes.len() as u64,
            Data::Complete(bytes) => bytes.len() as u64,
        }
    }

    /// Adds a piece if it is the next one. The whole data, the first time that it is complete.
    fn add(&mut self, offset: u64, piece: &[u8]) -> Option<Bytes> {
        let Data::Partial(bytes) = &mut self.data else { return None };
        if offset == bytes.len() as u64 {
            bytes.extend_from_slice(piece);
        }
        if (bytes.len() as u64) < self.meta.data_length {
            return None;
        }
        let whole = Bytes::from(core::mem::take(bytes));
        self.data = Data::Complete(whole.clone());
        Some(whole)
    }

    /// The snapshot with its data.
    fn snapshot(&self, data: Bytes) -> Snapshot {
        let SnapshotMeta { last, stamp, membership, .. } = &self.meta;
        Snapshot { last: *last, stamp: *stamp, membership: membership.clone(), data }
    }

    /// Asserts the invariant of the struct.
    pub(super) fn check_invariants(&self) {
        assert!(self.length() <= self.meta.data_length, "more data than the snapshot has");
    }
}

/// Whether an `InstallSnapshot` keeps to the rules that do not depend on who receives it.
pub(super) fn is_well_formed(install: &InstallSnapshot) -> bool {
    let InstallSnapshot { term, meta, offset, piece } = install;
    let end = offset.checked_add(piece.len() as u64);
    meta.data_length <= SNAPSHOT_BYTES_MAX as u64
        && end.is_some_and(|end| end <= meta.data_length)
        && meta.last.term <= *term
        && meta.last.term > Term::ZERO
        && meta.last.index > EntryId::ZERO.index
}

/// This node's own snapshots.
impl Raft {
    /// A snapshot as of what was applied last: `data` is the applied state, encoded. It counts
    /// once it is given to [`Raft::compact`].
    #[must_use]
    pub fn snapshot_of(&self, data: Bytes) -> Snapshot {
        Snapshot {
            last: self.applied,
            stamp: self.applied_stamp,
            membership: self.memberships.at(self.applied.index).clone(),
            data,
        }
    }

    /// Keeps `snapshot` in place of the log up to `retained` entries before its end; fewer if they
    /// cost more than a quarter of [`log_bytes_max`](crate::config::Config::log_bytes_max): what is
    /// kept for others must not leave the log without room. One that is not newer than the present
    /// one changes nothing.
    ///
    /// The caller gives it what [`Raft::snapshot_of`] made, once all effects of the entries that
    /// it covers are durable.
    ///
    /// # Panics
    /// If the snapshot covers what was not applied, or contradicts the log.
    pub fn compact(&mut self, snapshot: Snapshot, retained: u64) {
        let last = snapshot.last;
        if last.index <= self.snapshot.last.index {
            return;
        }
        assert!(last.index <= self.applied.index, "the snapshot covers what was not applied");
        assert!(self.log.contains(last), "the snapshot contradicts the log");
        let by_count = LogIndex::new(last.index.value().saturating_sub(retained));
        let through = by_count.max(self.log.first_within(last.index, self.retained_bytes_max()));
        self.memberships.rebase(last.index, snapshot.membership.clone());
        self.snapshot = snapshot;
        self.log.compact_through(through);
        self.persistence.compacted(through);
    }

    /// The most bytes of entries that are kept below a snapshot.
    fn retained_bytes_max(&self) -> u64 {
        self.config.log_bytes_max / 4
    }

    /// Lets go of entries below the snapshot that are too many for the settings of now. The disk
    /// lets go of them with the next snapshot.
    pub(super) fn trim_recovered(&mut self) {
        let through = self.log.first_within(self.snapshot.last.index, self.retained_bytes_max());
        self.log.compact_through(through);
    }
}

/// The leader's side.
impl Raft {
    /// Queues the next piece for a follower, and begins a snapshot for one that needs it.
    pub(super) fn make_snapshot_message(&mut self, to: NodeId) {
        let (now, term) = (self.now, self.hard_state.term);
        let patience = self.config.election_timeout_min;
        let Some(leader) = self.role.as_leader_mut() else { return };
        let Some(peer) = leader.peers.get_mut(&to) else { return };
        if peer.needs_snapshot(&self.log) {
            peer.send_snapshot(&self.snapshot, true, now);
        }
        let State::Snapshot(sending) = &mut peer.state else { return };
        if peer.heartbeat_due {
            sending.repeat(now, patience);
        }
        if let Some(install) = sending.take_piece(term, now, self.config.snapshot_piece_bytes) {
            self.send_unheld(to, Message::InstallSnapshot(install));
        }
    }

    /// A follower says how the snapshot is getting on.
    pub(super) fn handle_install_reply(&mut self, from: NodeId, reply: InstallSnapshotReply) {
        let now = self.now;
        let Some(leader) = self.role.as_leader_mut() else { return };
        let Some(peer) = leader.peers.get_mut(&from) else { return };
        peer.heard_at = now;
        match reply.result {
            SnapshotResult::Installed => self.handle_installed(from, reply.last),
            SnapshotResult::Received { length } => {
                let State::Snapshot(sending) = &mut peer.state else { return };
                if sending.last() == reply.last && !sending.received(length) {
                    self.drop_message(DropReason::NeverSent);
                }
            }
            SnapshotResult::Failed => {
                if is_sending(peer, reply.last) {
                    // Not at once: what failed is likely to fail again.
                    peer.send_snapshot(&self.snapshot, false, now);
                }
            }
            // It is not stale: the terms are equal.
            SnapshotResult::StaleTerm => self.drop_message(DropReason::Malformed),
        }
    }

    /// The follower has everything that is committed up to `last`, durably.
    fn handle_installed(&mut self, from: NodeId, last: EntryId) {
        let unknown = last.index > self.log.last_index();
        let other = self.log.id(last.index).is_some_and(|own| own != last);
        if unknown || other {
            return self.drop_message(DropReason::NeverSent);
        }
        let Some(leader) = self.role.as_leader_mut() else { return };
        let Some(peer) = leader.peers.get_mut(&from) else { return };
        peer.acknowledge(last.index, &self.log);
        if is_sending(peer, last) {
            // It is installed, and still what follows it was compacted away meanwhile.
            peer.send_snapshot(&self.snapshot, true, self.now);
        }
        self.advance_commit();
    }
}

fn is_sending(peer: &Progress, last: EntryId) -> bool {
    matches!(&peer.state, State::Snapshot(sending) if sending.last() == last)
}

/// The follower's side.
impl Raft {
    /// A piece of a snapshot from the leader of this term.
    pub(super) fn handle_install(&mut self, from: NodeId, install: InstallSnapshot) {
        if !self.hear_leader(from) {
            return;
        }
        let InstallSnapshot { term, meta, offset, piece } = install;
        let last = meta.last;
        if last.index <= self.commit {
            return self.answer_covered(last);
        }
        let receiving = match self.receiving.take() {
            Some(receiving) if receiving.is_continued_by(term, &meta) => receiving,
            // A leader only ever turns to a newer snapshot: this piece comes late.
            Some(receiving) if receiving.term == term && receiving.meta.last > last => {
                self.receiving = Some(receiving);
                return;
            }
            Some(_) | None => Receiving::new(term, meta),
        };
        let receiving = self.receiving.insert(receiving);
        let whole = receiving.add(offset, &piece);
        let length = receiving.length();
        if let Some(data) = whole {
            if Checksum::of(&data) != receiving.meta.checksum {
                self.receiving = None;
                self.drop_message(DropReason::Checksum);
                return self.answer_install(last, SnapshotResult::Failed);
            }
            let snapshot = receiving.snapshot(data);
            self.actions.push_back(RaftAction::SnapshotReceived(snapshot));
        }
        self.answer_install(last, SnapshotResult::Received { length });
    }

    /// The caller has checked the snapshot that ends at `last`, and has fetched the files that it
    /// names, or could not (`ok`). Anything but the snapshot that was received last is ignored.
    pub fn snapshot_ready(&mut self, now: Time, last: EntryId, ok: bool) {
        self.advance_clock(now);
        let Some(Receiving { data: Data::Complete(data), meta, .. }) = &self.receiving else {
            return;
        };
        if meta.last != last {
            return;
        }
        let data = data.clone();
        let Some(receiving) = self.receiving.take() else { return };
        if !ok {
            self.answer_install(last, SnapshotResult::Failed);
        } else if last.index <= self.commit {
            self.answer_covered(last);
        } else if self.may_install(&receiving.meta) {
            self.install(receiving.snapshot(data));
            let needs = self.persistence.next_write();
            self.answer_install_after(needs, last, SnapshotResult::Installed);
        } else {
            self.drop_message(DropReason::ContradictsLog);
            self.answer_install(last, SnapshotResult::Failed);
        }
    }

    /// Whether a snapshot fits what is known. A leader has all that is committed. If this log has
    /// the snapshot's last entry, it has its stamp, too. And if this log equals the leader's beyond
    /// the snapshot, it must have that entry.
    fn may_install(&self, meta: &SnapshotMeta) -> bool {
        let (last, stamp) = (meta.last, Some(meta.stamp));
        let verified = self.role.as_following().map_or(self.commit, |f| f.verified);
        let fits = if self.log.contains(last) {
            self.log.stamp(last.index) == stamp
        } else {
            verified < last.index
        };
        let goes_on = self.log.id(self.commit).is_none_or(|committed| committed < last)
            && self.log.stamp(self.commit) <= stamp;
        self.role() != Role::Leader && fits && goes_on
    }

    /// Puts the snapshot in the place of the log. What follows it stays if the log has its last
    /// entry (paper, figure 13, step 6); else none of the log is worth anything.
    fn install(&mut self, snapshot: Snapshot) {
        let (last, stamp) = (snapshot.last, snapshot.stamp);
        assert!(last.index > self.commit, "a snapshot replaces nothing that is committed");
        // A candidate has told others what its log is; it is not to lead with another.
        if self.role.as_following().is_none() {
            self.become_follower(self.hard_state.term, None);
        }
        let log_kept = self.log.contains(last);
        self.persistence.installed(last.index, self.commit, log_kept);
        if log_kept {
            self.log.compact_through(last.index);
            self.memberships.rebase(last.index, snapshot.membership.clone());
        } else {
            self.log.reset(last, stamp);
            self.memberships.replace(last.index, snapshot.membership.clone());
        }
        self.snapshot = snapshot;
        (self.commit, self.applied, self.applied_stamp) = (last.index, last, stamp);
        if let Some(following) = self.role.as_following_mut() {
            following.verified = following.verified.max(last.index);
        }
        self.actions.push_back(RaftAction::SnapshotInstalled { last });
    }

    /// Says that the snapshot is not needed, if a crash cannot change that. If one can, the
    /// acknowledgement that follows the disk says as much, and else the leader asks again.
    ///
    /// A snapshot that ends with another entry than the committed one is no leader's that follows
    /// the rules (openraft #1892).
    fn answer_covered(&mut self, last: EntryId) {
        if self.log.id(last.index).is_some_and(|own| own != last) {
            return self.drop_message(DropReason::ContradictsLog);
        }
        if self.persistence.durable() >= last.index {
            self.answer_install(last, SnapshotResult::Installed);
        }
    }

    /// Answers the leader, if one is known.
    fn answer_install(&mut self, last: EntryId, result: SnapshotResult) {
        self.answer_install_after(self.persistence.hard_state_write(), last, result);
    }

    fn answer_install_after(&mut self, needs: WriteId, last: EntryId, result: SnapshotResult) {
        let Some(following) = self.role.as_following() else { return };
        let reply = InstallSnapshotReply { term: self.hard_state.term, last, result };
        let message = Message::InstallSnapshotReply(reply);
        self.outbox.push(needs, envelope(self.id, following.leader, message));
    }

    /// Forgets a reception that the log has overtaken.
    pub(super) fn forget_covered_reception(&mut self) {
        let commit = self.commit;
        self.receiving.take_if(|receiving| receiving.meta.last.index <= commit);
    }
}
