//! What a leader knows of one follower, and what it may send to it.
//!
//! A follower is *probed* until its log is known to agree with the leader's somewhere; then entries
//! are *replicated* to it in a pipeline (thesis, 10.2.1); and when the entries it needs are
//! compacted away, it is sent a *snapshot*.
//!
//! What is in flight is not counted but computed: it is the part of the log between `matched` and
//! `next`. A counter has to be reset at every change of state, and a reset that is forgotten stops
//! the stream for ever.

use alloc::boxed::Box;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::config::Config;
use crate::ids::{EntryId, LogIndex, NodeId, ReadRound, Term};
use crate::message::{Entry, InstallSnapshot, Snapshot, SnapshotMeta};
use crate::time::{Duration, Time};

use super::log::Log;

/// A leader's view of one follower.
///
/// Invariants: `matched < next`; neither is beyond the leader's log.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    matched: LogIndex,
    next: LogIndex,
    pub(super) state: State,
    /// When a message of this term last came from it.
    pub(super) heard_at: Time,
    /// The latest round of leadership confirmation that it answered.
    pub(super) round: ReadRound,
    /// Whether it is to get an `AppendEntries` without entries.
    pub(super) heartbeat_due: bool,
}

/// How entries get to the follower.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// One message, to find out whether the logs agree before `next`.
    Probe {
        /// The end of the entries that it carried; `None` while it is not out. A heartbeat asks
        /// again.
        sent: Option<LogIndex>,
    },
    /// A stream of messages, `next` running ahead of `matched`.
    Replicate,
    /// A snapshot.
    Snapshot(Box<Sending>),
}

/// A snapshot on its way, piece after piece, each sent when the one before has arrived.
///
/// It is kept until it has arrived, also when a newer one is taken: a follower that is slower than
/// the leader takes snapshots would otherwise never get a whole one.
///
/// Invariant: `offset` is within the data.
#[derive(Clone, Debug)]
pub(super) struct Sending {
    meta: SnapshotMeta,
    data: Bytes,
    /// How much of the data the follower has.
    offset: u64,
    /// Whether the piece at `offset` is to be sent now.
    piece_due: bool,
    /// When the last piece was sent.
    sent_at: Time,
}

/// How a leader sends to a follower.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProgressState {
    /// One message at a time, to find where the logs part.
    Probe,
    /// A stream of messages.
    Replicate,
    /// A snapshot, in pieces.
    Snapshot,
}

/// What the leader knows of one follower.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProgressView {
    /// The follower.
    pub node: NodeId,
    /// Its log equals the leader's up to here, durably.
    pub matched: LogIndex,
    /// The next entry to send.
    pub next: LogIndex,
    /// How entries get to it.
    pub state: ProgressState,
    /// When it was last heard; for one that was not, when leadership began.
    pub heard_at: Time,
}

impl Progress {
    /// Of a follower of which nothing is known. The first guess is that its log equals the
    /// leader's before `next` (paper, figure 2, `nextIndex`).
    pub(super) fn new(next: LogIndex, now: Time) -> Self {
        Self {
            matched: LogIndex::ZERO,
            next,
            state: State::Probe { sent: None },
            heard_at: now,
            round: ReadRound::ZERO,
            heartbeat_due: false,
        }
    }

    /// Up to where the follower's log is known to equal the leader's, durably.
    pub(super) fn matched(&self) -> LogIndex {
        self.matched
    }

    /// The entry before the next one to send.
    pub(super) fn previous(&self) -> LogIndex {
        self.next.previous()
    }

    /// A copy for whoever looks at the leader from outside.
    pub(super) fn view(&self, node: NodeId) -> ProgressView {
        let state = match self.state {
            State::Probe { .. } => ProgressState::Probe,
            State::Replicate => ProgressState::Replicate,
            State::Snapshot(_) => ProgressState::Snapshot,
        };
        ProgressView {
            node,
            matched: self.matched,
            next: self.next,
            state,
            heard_at: self.heard_at,
        }
    }

    /// The follower acknowledged everything through `index`, which is in the leader's log.
    pub(super) fn acknowledge(&mut self, index: LogIndex, log: &Log) {
        self.matched = self.matched.max(index);
        match self.state {
            State::Probe { sent } => self.acknowledge_probe(sent),
            State::Replicate => self.next = self.next.max(self.matched.next()),
            // A snapshot older than the one that is being sent can be enough to go on with entries.
            State::Snapshot(_) if self.matched >= log.base().index => self.probe(),
            State::Snapshot(_) => self.next = self.next.max(self.matched.next()),
        }
    }

    /// What an acknowledgement means for a probe that carried entries up to `sent`.
    ///
    /// The pipeline starts when one of them has arrived, or when there were none. That the logs
    /// agree is not enough: a follower whose log is full agrees at every heartbeat, and would be
    /// sent a whole window each time for nothing. It gets the one message again.
    fn acknowledge_probe(&mut self, sent: Option<LogIndex>) {
        let previous = self.previous();
        if self.matched < previous {
            // It is from before the probe, and says nothing about what the probe asks.
        } else if self.matched > previous || sent == Some(previous) {
            self.state = State::Replicate;
            self.next = self.matched.next();
        } else {
            self.state = State::Probe { sent: None };
        }
    }

    /// The follower does not have the entry at `previous`; `hint` is the last entry of its log that
    /// can be in the leader's. `false` if that would be no progress, which a follower that follows
    /// the rules never says.
    ///
    /// An answer to anything but what is being asked now is ignored: it says how things were.
    pub(super) fn refute(&mut self, previous: LogIndex, hint: EntryId, log: &Log) -> bool {
        let is_current = match self.state {
            State::Probe { .. } => previous == self.previous(),
            State::Replicate => previous > self.matched && previous < self.next,
            State::Snapshot(_) => false,
        };
        if !is_current || previous <= self.matched {
            return true;
        }
        // `None` is below the base: the next message will need a snapshot.
        let common = log.last_within(hint).map_or(LogIndex::ZERO, |id| id.index);
        if common >= previous {
            return false;
        }
        self.next = common.max(self.matched).next();
        self.state = State::Probe { sent: None };
        true
    }

    /// Starts over from what is known to match.
    pub(super) fn probe(&mut self) {
        self.next = self.matched.next();
        self.state = State::Probe { sent: None };
    }

    /// The entries to send now, and what precedes them. They count as sent from here on.
    /// `None` while the follower has all it may get, or when it needs a snapshot.
    pub(super) fn take_entries(
        &mut self,
        log: &Log,
        config: &Config,
    ) -> Option<(EntryId, Vec<Entry>)> {
        let previous = log.id(self.previous())?;
        let room = self.room(log, config)?;
        let bytes = u64::from(config.message_bytes_max).min(room.bytes);
        let entries = log.copy_from(self.next, room.entries, bytes);
        match &mut self.state {
            State::Probe { sent } => *sent = Some(previous.index.plus(entries.len() as u64)),
            State::Replicate => self.next = self.next.plus(entries.len() as u64),
            State::Snapshot(_) => {}
        }
        Some((previous, entries))
    }

    /// Whether the entry before `next` is compacted away, so that only a snapshot helps.
    pub(super) fn needs_snapshot(&self, log: &Log) -> bool {
        match self.state {
            State::Probe { .. } | State::Replicate => self.previous() < log.base().index,
            State::Snapshot(_) => false,
        }
    }

    /// Starts to send a snapshot from its beginning: at once, or when the time to repeat a piece
    /// has passed, for a follower that could not use what it got.
    pub(super) fn send_snapshot(&mut self, snapshot: &Snapshot, at_once: bool, now: Time) {
        self.state = State::Snapshot(Box::new(Sending {
            meta: snapshot.meta(),
            data: snapshot.data.clone(),
            offset: 0,
            piece_due: at_once,
            sent_at: now,
        }));
    }

    /// What may be sent in one message: `None` for nothing, not even an empty probe.
    fn room(&self, log: &Log, config: &Config) -> Option<Room> {
        let message = u64::from(config.message_entries_max);
        match self.state {
            State::Probe { sent } => {
                sent.is_none().then_some(Room { entries: message, bytes: u64::MAX })
            }
            State::Replicate if self.previous() == log.last_index() => None,
            State::Replicate => {
                // What was compacted away meanwhile costs no memory here and is not counted.
                let start = self.matched.max(log.base().index);
                let entries = self.previous().since(start);
                let bytes = log.bytes_between(start, self.previous());
                if entries == 0 {
                    return Some(Room { entries: message, bytes: u64::MAX });
                }
                let entries = u64::from(config.in_flight_entries_max).saturating_sub(entries);
                let bytes = u64::from(config.in_flight_bytes_max).saturating_sub(bytes);
                let next_cost = log.bytes_between(self.previous(), self.next);
                (entries > 0 && next_cost <= bytes)
                    .then_some(Room { entries: entries.min(message), bytes })
            }
            State::Snapshot(_) => None,
        }
    }

    /// Asserts the invariants of the struct.
    pub(super) fn check_invariants(&self, log: &Log) {
        assert!(self.matched < self.next, "matched reaches the next entry to send");
        assert!(self.next <= log.last_index().next(), "the next entry to send is beyond the log");
        match &self.state {
            State::Probe { .. } | State::Replicate => {}
            State::Snapshot(sending) => sending.check_invariants(),
        }
    }
}

/// What fits into the next message.
struct Room {
    entries: u64,
    bytes: u64,
}

impl Sending {
    /// The last entry that the snapshot covers.
    pub(super) fn last(&self) -> EntryId {
        self.meta.last
    }

    /// The follower has `length` bytes. `false` if the snapshot is not that long.
    ///
    /// Only an answer that brings the transfer forward triggers the next piece. Others may be
    /// duplicates, and answering each of them would double the traffic for ever after.
    pub(super) fn received(&mut self, length: u64) -> bool {
        if length > self.meta.data_length {
            return false;
        }
        self.piece_due |= length > self.offset;
        self.offset = length;
        true
    }

    /// A heartbeat passed: a piece that was not answered for long is sent again. When all of the
    /// data has arrived, that is an empty piece, and it asks how the installation goes.
    pub(super) fn repeat(&mut self, now: Time, patience: Duration) {
        self.piece_due |= now >= self.sent_at.after(patience);
    }

    /// The piece to send now, in a message of the leader's `term`.
    pub(super) fn take_piece(
        &mut self,
        term: Term,
        now: Time,
        size_max: u32,
    ) -> Option<InstallSnapshot> {
        if !core::mem::take(&mut self.piece_due) {
            return None;
        }
        self.sent_at = now;
        let end = self.meta.data_length.min(self.offset.saturating_add(u64::from(size_max)));
        let piece = self.data.slice(position(self.offset)..position(end));
        Some(InstallSnapshot { term, meta: self.meta.clone(), offset: self.offset, piece })
    }

    /// Asserts the invariant of the struct.
    fn check_invariants(&self) {
        assert!(self.offset <= self.meta.data_length, "an offset beyond the snapshot");
        assert!(self.data.len() as u64 == self.meta.data_length, "the wrong length");
    }
}

/// A place in data that is in memory.
fn position(offset: u64) -> usize {
    usize::try_from(offset).expect("the data is in memory, so a place in it is a usize")
}

#[cfg(test)]
mod tests;
