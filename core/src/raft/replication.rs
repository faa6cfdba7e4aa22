//! The leader's side of replication (paper, 5.3 and 5.4.2; thesis, 10.2).
//!
//! Handlers only take note of what changed. Messages are made when the caller takes actions: all
//! that was proposed in between travels together.

use alloc::vec::Vec;

use crate::config::FRAME_BYTES_MAX;
use crate::ids::{EntryId, LogIndex, NodeId};
use crate::message::{AppendEntries, AppendEntriesReply, AppendResult, Entry, Message};
use crate::message::{Payload, Unavailable};
use crate::time::Time;

use super::Raft;
use super::action::DropReason;
use super::checks::is_plausible_stamp;
use super::progress::{Progress, State};

/// The most that an entry may cost: one message carries it, with all that goes around it.
const ENTRY_COST_MAX: u64 = FRAME_BYTES_MAX as u64 - (64 << 10);

/// How far the limits of the log reach for an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Room {
    /// As far as they say.
    Ordinary,
    /// A quarter further.
    Extra,
}

impl Room {
    fn of(self, limit: u64) -> u64 {
        match self {
            Self::Ordinary => limit,
            Self::Extra => limit.saturating_add(limit.div_ceil(4)),
        }
    }
}

impl Raft {
    /// Appends an entry, if this node leads. It may be lost until it is committed.
    ///
    /// # Errors
    /// [`Unavailable::NotLeader`]; [`Unavailable::Transferring`] while leadership is handed over;
    /// [`Unavailable::Overloaded`] when the part of the log that is not committed is as large as
    /// [`Config`](crate::config::Config) lets it be, or the whole log is; when the entry fits into
    /// no message; while another change of the membership is under way; or when its stamp would be
    /// larger than any that is believed.
    pub fn propose(&mut self, now: Time, payload: Payload) -> Result<EntryId, Unavailable> {
        self.propose_into(Room::Ordinary, now, payload)
    }

    /// As [`Raft::propose`], for an entry that keeps leases alive or carries lease time. Its room
    /// is a quarter larger in every respect: requests that fill the ordinary room must not end the
    /// sessions of those who wait for them.
    ///
    /// # Errors
    /// As [`Raft::propose`].
    pub fn propose_lease(&mut self, now: Time, payload: Payload) -> Result<EntryId, Unavailable> {
        self.propose_into(Room::Extra, now, payload)
    }

    fn propose_into(
        &mut self,
        room: Room,
        now: Time,
        payload: Payload,
    ) -> Result<EntryId, Unavailable> {
        self.advance_clock(now);
        let Some(leader) = self.role.as_leader() else {
            return Err(self.not_leader());
        };
        if let Some(transfer) = leader.transfer {
            return Err(Unavailable::Transferring { to: transfer.to });
        }
        let entry = self.next_entry(payload);
        let changes_members = matches!(entry.payload, Payload::Membership(_));
        if !self.has_room_for(&entry, room)
            || !is_plausible_stamp(entry.stamp)
            || (changes_members && !self.may_change_members())
        {
            return Err(Unavailable::Overloaded);
        }
        let id = entry.id;
        self.append(entry);
        if changes_members {
            self.follow_membership();
        }
        Ok(id)
    }

    /// The entry that would come next in this leader's log.
    pub(super) fn next_entry(&self, payload: Payload) -> Entry {
        let id = EntryId::new(self.hard_state.term, self.log.last_index().next());
        let stamp = self.lease_now(self.now).expect("only a leader makes entries");
        Entry { id, stamp, payload }
    }

    /// Whether an entry fits into the part of the log that is not committed. What is there is
    /// computed from the log each time; and when nothing is there, anything fits.
    fn has_room_for(&self, entry: &Entry, room: Room) -> bool {
        let last = self.log.last_index();
        let entries = last.since(self.commit);
        let bytes = self.log.bytes_between(self.commit, last) + entry.cost_bytes();
        let fits = entries < room.of(u64::from(self.config.uncommitted_entries_max))
            && bytes <= room.of(u64::from(self.config.uncommitted_bytes_max));
        (fits || entries == 0)
            && self.log_has_room_for(entry, room)
            && entry.cost_bytes() <= ENTRY_COST_MAX
            && last.next() < LogIndex::MAX
    }

    /// Whether the log may grow by an entry. It may not while something holds up all snapshots.
    pub(super) fn log_has_room_for(&self, entry: &Entry, room: Room) -> bool {
        self.kept_bytes() + entry.cost_bytes() <= room.of(self.config.log_bytes_max)
    }

    /// What the log costs in memory.
    pub(super) fn kept_bytes(&self) -> u64 {
        self.log.bytes_between(self.log.base().index, self.log.last_index())
    }

    /// One change at a time, and none before the leader knows what is committed: two majorities
    /// that do not meet could come of it otherwise (Ongaro on raft-dev, 10 July 2015).
    fn may_change_members(&self) -> bool {
        let term_start = self.role.as_leader().map(|leader| leader.term_start);
        self.memberships.latest_index() <= self.commit && term_start <= Some(self.commit)
    }

    /// Begins to replicate to new members, and stops for those that left.
    fn follow_membership(&mut self) {
        let membership = self.memberships.latest();
        let (id, next, now) = (self.id, self.log.last_index().next(), self.now);
        let Some(leader) = self.role.as_leader_mut() else { return };
        leader.peers.retain(|node, _| membership.contains(*node));
        for node in membership.nodes().filter(|node| *node != id) {
            leader.peers.entry(node).or_insert_with(|| Progress::new(next, now));
        }
    }

    /// A follower says how an `AppendEntries` of this term went.
    pub(super) fn handle_append_reply(&mut self, from: NodeId, reply: AppendEntriesReply) {
        if reply.round > self.reads.latest() {
            return self.drop_message(DropReason::NeverSent);
        }
        let Some(leader) = self.role.as_leader_mut() else { return };
        let Some(peer) = leader.peers.get_mut(&from) else { return };
        peer.heard_at = self.now;
        peer.round = peer.round.max(reply.round);
        match reply.result {
            AppendResult::Matched(index) if index > self.log.last_index() => {
                self.drop_message(DropReason::NeverSent);
            }
            AppendResult::Matched(index) => {
                peer.acknowledge(index, &self.log);
                self.advance_commit();
            }
            AppendResult::Conflict { previous, hint } => {
                if !peer.refute(previous, hint, &self.log) {
                    self.drop_message(DropReason::Malformed);
                }
            }
            // It is not stale: the terms are equal.
            AppendResult::StaleTerm => self.drop_message(DropReason::Malformed),
        }
    }

    /// Commits what a quorum has, if its last entry is of this term: an entry of an earlier term
    /// can be overwritten even though a quorum has it (paper, 5.4.2 and figure 8).
    ///
    /// The leader is one of many here, and counts only what is durable on its own disk.
    pub(super) fn advance_commit(&mut self) {
        let Some(leader) = self.role.as_leader() else { return };
        let own = self.persistence.durable();
        let reached = self.memberships.latest().quorum_index(|node| {
            let peer = leader.peers.get(&node).map_or(LogIndex::ZERO, Progress::matched);
            if node == self.id { own } else { peer }
        });
        if reached > self.commit && reached >= leader.term_start {
            self.commit = reached;
            self.forget_covered_reception();
        }
    }

    /// Makes the messages that followers are to get now.
    pub(super) fn make_messages(&mut self) {
        let Some(leader) = self.role.as_leader() else { return };
        let nodes: Vec<NodeId> = leader.peers.keys().copied().collect();
        for node in nodes {
            self.make_snapshot_message(node);
            self.make_heartbeat(node);
            self.make_append_messages(node);
        }
    }

    /// A sign of life. It goes out even if entries do: entries are answered when they are durable,
    /// this is answered at once.
    fn make_heartbeat(&mut self, node: NodeId) {
        let Some(leader) = self.role.as_leader_mut() else { return };
        let Some(peer) = leader.peers.get_mut(&node) else { return };
        if !core::mem::take(&mut peer.heartbeat_due) {
            return;
        }
        let previous = match peer.state {
            // The entry before the next one: if what was sent got lost, this finds out.
            State::Probe { .. } | State::Replicate => peer.previous(),
            // Matches every log, and says nothing about it.
            State::Snapshot(_) => LogIndex::ZERO,
        };
        let previous = self.log.id(previous).unwrap_or(EntryId::ZERO);
        self.send_append(node, previous, Vec::new());
    }

    fn make_append_messages(&mut self, node: NodeId) {
        loop {
            let Some(leader) = self.role.as_leader_mut() else { return };
            let Some(peer) = leader.peers.get_mut(&node) else { return };
            let Some((previous, entries)) = peer.take_entries(&self.log, &self.config) else {
                return;
            };
            self.send_append(node, previous, entries);
        }
    }

    /// Not held back: the leader's entries may reach others before its own disk (thesis, 10.2.1).
    /// Its term is durable, or it would not have been elected.
    fn send_append(&mut self, to: NodeId, previous: EntryId, entries: Vec<Entry>) {
        let message = Message::AppendEntries(AppendEntries {
            term: self.hard_state.term,
            previous,
            entries,
            commit: self.commit,
            round: self.reads.latest(),
        });
        self.send_unheld(to, message);
    }
}
