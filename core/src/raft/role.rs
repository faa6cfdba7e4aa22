//! What a node keeps for as long as it plays one part (paper, figure 4).
//!
//! Changing the role makes a new value, so nothing of an earlier role is left over: votes are fresh
//! in each campaign, acknowledgements in each leadership.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;

use crate::ids::{EntryId, LogIndex, NodeId, ReadRound};
use crate::time::{LeaseTime, Time};

use super::action::Role;
use super::progress::Progress;

/// The role, with everything that belongs to it.
#[derive(Clone, Debug)]
pub(super) enum RoleState {
    Follower(Follower),
    PreCandidate(Campaign),
    Candidate(Campaign),
    Leader(Box<Leader>),
}

/// One that follows a leader, or knows none.
#[derive(Clone, Debug, Default)]
pub(super) struct Follower {
    /// Whom it follows, in its present term.
    pub(super) following: Option<Following>,
}

/// What a follower knows of its leader, and owes it.
///
/// Invariant: `verified` is at least the commit index, and within the log.
#[derive(Clone, Debug)]
pub(super) struct Following {
    pub(super) leader: NodeId,
    pub(super) heard_at: Time,
    /// Up to here this log is known to equal the leader's. What follows may be left over from
    /// another term, and must neither be acknowledged nor committed.
    pub(super) verified: LogIndex,
    /// What was acknowledged last.
    pub(super) acked: LogIndex,
    /// The leader's latest round of confirmation, which every answer repeats.
    pub(super) round: ReadRound,
    /// Whether an acknowledgement is due even if it says nothing new.
    pub(super) ack_due: bool,
    /// A refusal that is due.
    pub(super) conflict_due: Option<Conflict>,
}

/// That this log does not have the entry at `previous`, and where to look instead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conflict {
    pub(super) previous: LogIndex,
    pub(super) hint: EntryId,
}

/// The votes of one campaign, real or not.
#[derive(Clone, Debug, Default)]
pub(super) struct Campaign {
    /// Who granted, and who refused. A node's own vote is here only once it counts.
    pub(super) votes: BTreeMap<NodeId, bool>,
}

/// One that replicates its log.
///
/// Invariant: `peers` are all nodes of the membership but this one.
#[derive(Clone, Debug)]
pub(super) struct Leader {
    pub(super) peers: BTreeMap<NodeId, Progress>,
    /// The first entry of the term: until it is committed, the leader does not know how far the
    /// cluster is (paper, section 8).
    pub(super) term_start: LogIndex,
    /// The stamp of the last entry that it inherited, and when it began to count from there.
    pub(super) stamp_base: LeaseTime,
    pub(super) stamp_from: Time,
    pub(super) heartbeat_at: Time,
    pub(super) transfer: Option<Transfer>,
}

/// A hand-over of leadership that is under way (thesis, 3.10).
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    pub(super) to: NodeId,
    /// When it is given up.
    pub(super) deadline: Time,
    /// Whether the target was told to campaign.
    pub(super) told: bool,
}

impl RoleState {
    /// Its name.
    pub(super) fn role(&self) -> Role {
        match self {
            Self::Follower(_) => Role::Follower,
            Self::PreCandidate(_) => Role::PreCandidate,
            Self::Candidate(_) => Role::Candidate,
            Self::Leader(_) => Role::Leader,
        }
    }

    /// The leader's state; `None` in every other role.
    pub(super) fn as_leader(&self) -> Option<&Leader> {
        match self {
            Self::Leader(leader) => Some(leader),
            Self::Follower(_) | Self::PreCandidate(_) | Self::Candidate(_) => None,
        }
    }

    /// As [`RoleState::as_leader`], to change it.
    pub(super) fn as_leader_mut(&mut self) -> Option<&mut Leader> {
        match self {
            Self::Leader(leader) => Some(leader),
            Self::Follower(_) | Self::PreCandidate(_) | Self::Candidate(_) => None,
        }
    }

    /// What is known of the leader; `None` unless this is a follower that has one.
    pub(super) fn as_following(&self) -> Option<&Following> {
        match self {
            Self::Follower(follower) => follower.following.as_ref(),
            Self::PreCandidate(_) | Self::Candidate(_) | Self::Leader(_) => None,
        }
    }

    /// As [`RoleState::as_following`], to change it.
    pub(super) fn as_following_mut(&mut self) -> Option<&mut Following> {
        match self {
            Self::Follower(follower) => follower.following.as_mut(),
            Self::PreCandidate(_) | Self::Candidate(_) | Self::Leader(_) => None,
        }
    }
}

impl Following {
    /// The beginning with a leader. It has every entry that is committed here (paper, 5.4.3), so
    /// the logs agree that far before it has sent anything.
    pub(super) fn new(leader: NodeId, committed: LogIndex, now: Time) -> Self {
        Self {
            leader,
            heard_at: now,
            verified: committed,
            acked: LogIndex::ZERO,
            round: ReadRound::ZERO,
            ack_due: false,
            conflict_due: None,
        }
    }
}
