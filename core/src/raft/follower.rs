//! The follower's side of replication (paper, 5.3, and figure 2 under AppendEntries).
//!
//! What a follower says is always this one thing: "my log equals yours up to here, durably". It is
//! the smaller of what was *verified* against this leader in this term and of what is durable on
//! this disk. So neither a leftover of another term nor an entry that a crash could take away is
//! ever acknowledged, whatever the message was that is being answered.

use alloc::vec::Vec;

use crate::ids::{EntryId, LogIndex, NodeId};
use crate::message::{AppendEntries, AppendEntriesReply, AppendResult, Entry, Message};

use super::Raft;
use super::action::DropReason;
use super::replication::Room;
use super::role::{Conflict, Following};

impl Raft {
    /// New entries, or a sign of life, from the leader of this term.
    pub(super) fn handle_append(&mut self, from: NodeId, append: AppendEntries) {
        if !self.hear_leader(from) {
            return;
        }
        let end = append.previous.index.plus(append.entries.len() as u64);
        if self.contradicts_committed(&append) {
            return self.drop_message(DropReason::ContradictsLog);
        }
        if let Some(following) = self.role.as_following_mut() {
            following.round = following.round.max(append.round);
        }
        // What is committed is in the leader's log too, so only what follows can be missing here.
        if append.previous.index > self.commit && !self.log.contains(append.previous) {
            let previous = append.previous.index;
            let conflict = Conflict { previous, hint: self.conflict_hint(append.previous) };
            return self.with_following(|following| following.conflict_due = Some(conflict));
        }
        let is_heartbeat = append.entries.is_empty();
        if let Err(reason) = self.take_entries(append.entries) {
            return self.drop_message(reason);
        }
        // A full log takes what fits, as if the rest was lost on the way: it is not answered, so
        // that the leader asks again with a heartbeat and not at once, and for ever.
        let taken = end.min(self.log.last_index().max(self.commit));
        let (commit, durable) = (append.commit, self.persistence.durable());
        let Some(following) = self.role.as_following_mut() else { return };
        following.verified = following.verified.max(taken);
        // Entries that are not durable yet are answered when they are.
        following.ack_due |= is_heartbeat || (taken == end && end <= durable);
        self.commit = self.commit.max(commit.min(following.verified));
        self.forget_covered_reception();
    }

    /// Takes a message of this term as a sign of life from its leader. `false` if the term has
    /// another leader already.
    pub(super) fn hear_leader(&mut self, from: NodeId) -> bool {
        if self.leader().is_some_and(|leader| leader != from) {
            self.drop_message(DropReason::SecondLeader);
            return false;
        }
        self.become_follower(self.hard_state.term, Some(from));
        let now = self.now;
        self.with_following(|following| following.heard_at = now);
        self.reset_election_timer();
        true
    }

    fn with_following(&mut self, change: impl FnOnce(&mut Following)) {
        if let Some(following) = self.role.as_following_mut() {
            change(following);
        }
    }

    /// Whether the message names another entry where this log has a committed one. No leader that
    /// follows the rules does (paper, 5.4.3).
    fn contradicts_committed(&self, append: &AppendEntries) -> bool {
        let named = append.entries.iter().map(|entry| entry.id);
        core::iter::once(append.previous)
            .chain(named)
            .take_while(|id| id.index <= self.commit)
            .any(|id| self.log.id(id.index).is_some_and(|own| own != id))
    }

    /// The last entry here that can be in the leader's log, given that `previous` is not. Never
    /// below the commit index: so far the logs do agree.
    fn conflict_hint(&self, previous: EntryId) -> EntryId {
        let committed = self.log.id(self.commit).unwrap_or(self.log.base());
        let found = self.log.last_within(previous).unwrap_or(committed);
        if found.index < committed.index { committed } else { found }
    }

    /// Adds the entries that are missing. Those that are here already stay: the message may be an
    /// old one, and what follows them may have been acknowledged since (paper, figure 2, step 3).
    fn take_entries(&mut self, entries: Vec<Entry>) -> Result<(), DropReason> {
        let known = entries
            .iter()
            .take_while(|entry| entry.id.index <= self.commit || self.log.contains(entry.id))
            .count();
        let Some(first) = entries.get(known) else { return Ok(()) };
        let before = first.id.index.previous();
        if self.log.stamp(before).is_some_and(|stamp| stamp > first.stamp) {
            return Err(DropReason::Malformed);
        }
        if first.id.index <= self.log.last_index() {
            self.overwrite_from(first.id.index)?;
        }
        for entry in entries.into_iter().skip(known) {
            // Nothing tells which entries carry leases, so all have the room of those.
            if !self.log_has_room_for(&entry, Room::Extra) {
                break;
            }
            self.append(entry);
        }
        Ok(())
    }

    /// Makes way for entries of the leader that differ from those here.
    fn overwrite_from(&mut self, from: LogIndex) -> Result<(), DropReason> {
        let verified = self.role.as_following().map_or(self.commit, |f| f.verified);
        assert!(verified >= self.commit, "what is committed here is in the leader's log");
        if from <= verified {
            return Err(DropReason::ContradictsLog);
        }
        self.log.truncate_from(from);
        self.memberships.truncate_from(from);
        self.persistence.truncated(from);
        Ok(())
    }

    /// Adds an entry to the log.
    pub(super) fn append(&mut self, entry: Entry) {
        self.memberships.note(&entry);
        self.log.push(entry);
    }

    /// The disk has more than before: the leader is to hear of it.
    pub(super) fn acknowledge_durable(&mut self) {
        let durable = self.persistence.durable();
        self.with_following(|following| {
            following.ack_due |= following.verified.min(durable) > following.acked;
        });
    }

    /// Queues what the leader is owed, as far as the disk allows.
    pub(super) fn answer_leader(&mut self) {
        if !self.persistence.is_hard_state_durable() {
            return;
        }
        let durable = self.persistence.durable();
        let term = self.hard_state.term;
        let Some(following) = self.role.as_following_mut() else { return };
        let matched = following.verified.min(durable);
        let result = if let Some(Conflict { previous, hint }) = following.conflict_due.take() {
            AppendResult::Conflict { previous, hint }
        } else if core::mem::take(&mut following.ack_due) {
            following.acked = matched;
            AppendResult::Matched(matched)
        } else {
            return;
        };
        let reply = AppendEntriesReply { term, round: following.round, result };
        let to = following.leader;
        self.send_unheld(to, Message::AppendEntriesReply(reply));
    }
}
