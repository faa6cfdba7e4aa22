//! What a message must look like before anything else looks at it.
//!
//! Peers are trusted to be who they are, and for nothing more. A message that breaks a rule is
//! dropped and counted: it never panics, and it changes nothing.

use crate::ids::{ID_MAX, LogIndex, ReadRound, Term};
use crate::message::{
    AppendEntries, AppendResult, Entry, Envelope, Message, Payload, SnapshotResult,
};
use crate::time::LeaseTime;

use super::Raft;
use super::action::DropReason;
use super::snapshot;

impl Raft {
    /// Checks everything that can be seen from the message and the membership alone.
    pub(super) fn check_envelope(&self, envelope: &Envelope) -> Result<(), DropReason> {
        let Envelope { from, to, message } = envelope;
        let is_member =
            self.membership().contains(*from) || self.memberships.base().contains(*from);
        if *to != self.id {
            Err(DropReason::NotForThisNode)
        } else if *from == self.id {
            Err(DropReason::OwnMessage)
        } else if !is_member {
            Err(DropReason::NotAMember)
        } else if !is_plausible(message) {
            Err(DropReason::Implausible)
        } else if !is_well_formed(message) {
            Err(DropReason::Malformed)
        } else {
            Ok(())
        }
    }
}

/// The highest term, index or round that is believed: half of what there is. A higher one would
/// take a century to reach, and leave no room: no election could follow the last term, no entry
/// the last index, and the cluster would stop for ever.
pub(super) const PLAUSIBLE_MAX: u64 = ID_MAX / 2;

/// Whether a stamp is believed: lease time never goes back, so one from the end of time would end
/// every lease, and leave no time for others. The bound is 142 years.
pub(super) fn is_plausible_stamp(stamp: LeaseTime) -> bool {
    stamp.as_micros() <= PLAUSIBLE_MAX
}

/// Whether every number in a message leaves room for those that follow.
fn is_plausible(message: &Message) -> bool {
    let (index, round, term) = match message {
        Message::PreVote(request) | Message::RequestVote(request) => {
            (request.last.index, ReadRound::ZERO, request.last.term)
        }
        Message::PreVoteReply(reply) | Message::RequestVoteReply(reply) => {
            (LogIndex::ZERO, ReadRound::ZERO, reply.campaign)
        }
        Message::AppendEntries(append) => {
            let end = append.previous.index.plus(append.entries.len() as u64);
            (end.max(append.commit), append.round, append.previous.term)
        }
        Message::AppendEntriesReply(reply) => (last_index(&reply.result), reply.round, reply.term),
        Message::InstallSnapshot(install) => {
            (install.meta.last.index, ReadRound::ZERO, install.meta.last.term)
        }
        Message::InstallSnapshotReply(reply) => {
            (reply.last.index, ReadRound::ZERO, reply.last.term)
        }
        Message::TimeoutNow { term } => (LogIndex::ZERO, ReadRound::ZERO, *term),
    };
    [index.value(), round.value(), term.value(), message.term().value()]
        .into_iter()
        .all(|number| number <= PLAUSIBLE_MAX)
        && has_plausible_stamps(message)
}

fn has_plausible_stamps(message: &Message) -> bool {
    match message {
        Message::AppendEntries(append) => {
            append.entries.iter().all(|entry| is_plausible_stamp(entry.stamp))
        }
        Message::InstallSnapshot(install) => is_plausible_stamp(install.meta.stamp),
        Message::PreVote(_)
        | Message::PreVoteReply(_)
        | Message::RequestVote(_)
        | Message::RequestVoteReply(_)
        | Message::AppendEntriesReply(_)
        | Message::InstallSnapshotReply(_)
        | Message::TimeoutNow { .. } => true,
    }
}

/// The highest index that a reply names.
fn last_index(result: &AppendResult) -> LogIndex {
    match *result {
        AppendResult::Matched(index) => index,
        AppendResult::Conflict { previous, hint } => previous.max(hint.index),
        AppendResult::StaleTerm => LogIndex::ZERO,
    }
}

/// Whether a message keeps to the rules of its kind. Every message is of a term that has begun.
fn is_well_formed(message: &Message) -> bool {
    match message {
        Message::PreVote(request) | Message::RequestVote(request) => {
            request.term > Term::ZERO && request.last.term < request.term
        }
        Message::PreVoteReply(reply) => !reply.granted || reply.term < reply.campaign,
        Message::RequestVoteReply(reply) => !reply.granted || reply.term == reply.campaign,
        Message::AppendEntries(append) => is_append_well_formed(append),
        Message::AppendEntriesReply(reply) => reply.term > Term::ZERO,
        Message::InstallSnapshot(install) => snapshot::is_well_formed(install),
        Message::InstallSnapshotReply(reply) => match reply.result {
            SnapshotResult::Received { .. }
            | SnapshotResult::Installed
            | SnapshotResult::Failed
            | SnapshotResult::StaleTerm => reply.term > Term::ZERO,
        },
        Message::TimeoutNow { term } => *term > Term::ZERO,
    }
}

/// Whether the entries follow `previous` and each other, and none is of a later term than the
/// message.
fn is_append_well_formed(append: &AppendEntries) -> bool {
    let starts = (append.previous.index == LogIndex::ZERO) == (append.previous.term == Term::ZERO);
    let mut last = append.previous;
    let mut stamp = None;
    let follows = |entry: &Entry| {
        let Entry { id, stamp: entry_stamp, payload } = entry;
        let is_next = id.index == last.index.next()
            && id.term >= last.term
            && id.term > Term::ZERO
            && stamp <= Some(*entry_stamp);
        (last, stamp) = (*id, Some(*entry_stamp));
        match payload {
            Payload::Empty | Payload::Membership(_) | Payload::Command(_) => is_next,
        }
    };
    starts && append.entries.iter().all(follows) && {
        let end = append.entries.last().map_or(append.previous, |entry| entry.id);
        append.term > Term::ZERO && end.term <= append.term
    }
}
