//! Linearizable reads without a log entry (ReadIndex; thesis, 6.4).
//!
//! A leader may answer a read once it knows that it was still the leader after the read arrived.
//! It finds out by a *round*: a number that every `AppendEntries` carries and every reply repeats.
//! When a quorum has repeated it, no other leader can have committed anything before the round
//! began. Rounds never repeat for as long as the node runs, so that a reply to an old round, held
//! back by the network, confirms nothing.
//!
//! One round is under way at a time; reads that arrive meanwhile share the next one.

use crate::ids::{LogIndex, ReadRound};
use crate::message::Unavailable;
use crate::time::Time;

use super::Raft;
use super::action::RaftAction;
use super::role::Leader;

/// The rounds of one node, over all of its leaderships.
///
/// Invariants: the round under way is the one before `next`; a round has at least one read.
#[derive(Clone, Debug)]
pub(super) struct Reads {
    /// The round that reads join now.
    next: ReadRound,
    /// How many have joined it.
    joined: u64,
    under_way: Option<Round>,
}

#[derive(Clone, Copy, Debug)]
struct Round {
    /// The commit index when it began.
    index: LogIndex,
    /// How many reads it confirms.
    reads: u64,
}

impl Reads {
    /// No round yet.
    pub(super) fn new() -> Self {
        Self { next: ReadRound::ZERO.next(), joined: 0, under_way: None }
    }

    /// The latest round that began.
    pub(super) fn latest(&self) -> ReadRound {
        self.next.previous()
    }

    /// A leadership began or ended: the reads of the other one are lost, and so are their rounds.
    pub(super) fn reset(&mut self) {
        self.next = self.next.next();
        (self.joined, self.under_way) = (0, None);
    }

    /// Asserts the invariants of the struct.
    pub(super) fn check_invariants(&self) {
        assert!(self.next > ReadRound::ZERO, "round zero is no round");
        assert!(self.under_way.is_none_or(|round| round.reads > 0), "a round without reads");
    }
}

impl Raft {
    /// Asks for a read that sees everything committed so far: returns the round that will confirm
    /// it, by [`RaftAction::ReadConfirmed`].
    ///
    /// # Errors
    /// [`Unavailable::NotLeader`], or [`Unavailable::Overloaded`] when
    /// [`pending_reads_max`](crate::config::Config::pending_reads_max) reads wait already.
    pub fn request_read(&mut self, now: Time) -> Result<ReadRound, Unavailable> {
        self.advance_clock(now);
        if self.role.as_leader().is_none() {
            return Err(self.not_leader());
        }
        let waiting = self.reads.joined + self.reads.under_way.map_or(0, |round| round.reads);
        if waiting >= u64::from(self.config.pending_reads_max) || self.reads.next == ReadRound::MAX
        {
            return Err(Unavailable::Overloaded);
        }
        self.reads.joined += 1;
        Ok(self.reads.next)
    }

    /// Confirms the round under way if a quorum has answered it, and begins the next.
    pub(super) fn drive_reads(&mut self) {
        self.confirm_reads();
        self.begin_read_round();
        // A cluster of one has its quorum at once.
        self.confirm_reads();
    }

    fn begin_read_round(&mut self) {
        let Some(leader) = self.role.as_leader_mut() else { return };
        // Before that, what earlier leaders committed may be unknown to this one.
        let knows_commit = self.commit >= leader.term_start;
        if self.reads.under_way.is_some() || self.reads.joined == 0 || !knows_commit {
            return;
        }
        let reads = core::mem::take(&mut self.reads.joined);
        self.reads.under_way = Some(Round { index: self.commit, reads });
        self.reads.next = self.reads.next.next();
        leader.broadcast_heartbeat();
    }

    fn confirm_reads(&mut self) {
        let (Some(leader), Some(round)) = (self.role.as_leader(), self.reads.under_way) else {
            return;
        };
        let latest = self.reads.latest();
        let answered = |node| {
            node == self.id || leader.peers.get(&node).is_some_and(|peer| peer.round >= latest)
        };
        if self.memberships.latest().is_quorum(answered) {
            self.reads.under_way = None;
            let action = RaftAction::ReadConfirmed { round: latest, index: round.index };
            self.actions.push_back(action);
        }
    }
}

impl Leader {
    /// Every follower gets a sign of life.
    pub(super) fn broadcast_heartbeat(&mut self) {
        for peer in self.peers.values_mut() {
            peer.heartbeat_due = true;
        }
    }
}
