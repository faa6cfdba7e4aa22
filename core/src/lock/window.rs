//! Exactly once: what one session's client has not acknowledged.
//!
//! A client numbers its requests 1, 2, 3, ... and may have several under way. The window accepts
//! the number after the last one only, so that whatever is repeated, late or reordered on the way
//! is recognised by its number alone. Outcomes stay until the client says that it has them.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::mem;

use crate::ids::{LogIndex, Sequence};
use crate::message::{Acked, Done, EndCause, Loss, Outcome, Rejection, SessionNews};
use crate::text::LockName;

/// What a request or a loss counts for beside its own bytes, in
/// [`Limits::pending_bytes_max`](crate::config::Limits::pending_bytes_max).
pub(super) const PENDING_OVERHEAD_BYTES: u64 = 64;

/// The requests and losses of one session that its client has not acknowledged.
///
/// Invariants: the numbers of `slots` ascend, and none is above `last`; `bytes` is the cost of all
/// slots and losses; losses are in the order of their indexes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Window {
    /// The highest number that was accepted.
    last: Sequence,
    /// A request gets its slot when it is accepted, so new ones are at the end; those in front go
    /// as the client acknowledges them.
    slots: VecDeque<(Sequence, Slot)>,
    losses: VecDeque<Loss>,
    bytes: u64,
}

/// A request that was accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Slot {
    /// It waits in a queue.
    Open {
        /// For which lock.
        lock: LockName,
        /// What its appends count for.
        bytes: u64,
    },
    /// It has its outcome, and the client may not know.
    Decided(Outcome),
}

/// What to do with a request, by its number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Admission {
    /// It is new and next in order: run it.
    Run,
    /// It was decided before.
    Decided(Outcome),
    /// It was accepted before and waits.
    Open,
    /// It is new and next in order, but there is only room to say so: decide it as
    /// [`Rejection::TooManyPendingBytes`].
    Crowded,
    /// None of these; its number is not used up.
    Refused(Rejection),
}

/// What the pending bytes of all sessions leave room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Room {
    /// The request may run.
    Run,
    /// It may be decided, but must not run.
    Decide,
    /// Not even that.
    None,
}

impl Room {
    /// The room for a request. One that `begins` something must find the limit not reached; any
    /// other, and a rejection, may use as much again.
    pub(super) fn new(pending: u64, pending_max: u64, begins: bool) -> Self {
        if pending >= pending_max * 2 {
            Self::None
        } else if begins && pending >= pending_max {
            Self::Decide
        } else {
            Self::Run
        }
    }
}

impl Window {
    /// A window as a snapshot describes it, still without its open requests.
    pub(super) fn restore(
        last: Sequence,
        outcomes: impl IntoIterator<Item = (Sequence, Outcome)>,
        losses: impl IntoIterator<Item = Loss>,
    ) -> Self {
        let mut window = Self { last, ..Self::default() };
        for (sequence, outcome) in outcomes {
            window.put(sequence, Slot::Decided(outcome));
        }
        for loss in losses {
            window.lose(loss);
        }
        window
    }

    /// The highest number that was accepted.
    pub(super) fn last(&self) -> Sequence {
        self.last
    }

    /// What the window counts for.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many requests are open or not acknowledged.
    pub(super) fn len(&self) -> u64 {
        self.slots.len() as u64
    }

    /// The losses that are not acknowledged, oldest first.
    pub(super) fn losses(&self) -> &VecDeque<Loss> {
        &self.losses
    }

    /// All requests that are open or not acknowledged, in the order of their numbers.
    pub(super) fn slots(&self) -> impl Iterator<Item = &(Sequence, Slot)> {
        self.slots.iter()
    }

    /// One of them; `None` for a number that was acknowledged, or not yet accepted.
    pub(super) fn slot(&self, sequence: Sequence) -> Option<&Slot> {
        let place = self.find(sequence).ok()?;
        self.slots.get(place).map(|(_, slot)| slot)
    }

    fn find(&self, sequence: Sequence) -> Result<usize, usize> {
        self.slots.binary_search_by_key(&sequence, |(sequence, _)| *sequence)
    }

    /// The outcomes that are not acknowledged.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = (Sequence, &Outcome)> {
        self.slots.iter().filter_map(|(sequence, slot)| match slot {
            Slot::Open { .. } => None,
            Slot::Decided(outcome) => Some((*sequence, outcome)),
        })
    }

    /// The lock that an open request waits for; `None` when no such request is open.
    pub(super) fn waits_for(&self, sequence: Sequence) -> Option<&LockName> {
        match self.slot(sequence)? {
            Slot::Open { lock, .. } => Some(lock),
            Slot::Decided(_) => None,
        }
    }

    /// Everything that the client may have missed.
    pub(super) fn news(&self) -> SessionNews {
        SessionNews {
            outcomes: self.outcomes().map(|(number, outcome)| (number, outcome.clone())).collect(),
            losses: self.losses.iter().cloned().collect(),
        }
    }

    /// Forgets the outcomes that the client has. Nothing is remembered of the acknowledgement
    /// itself, so one that names open or future requests changes nothing about them.
    pub(super) fn acknowledge(&mut self, acked: &Acked) {
        let mut except = acked.except.iter().copied().peekable();
        let through = self.slots.partition_point(|(sequence, _)| *sequence <= acked.through);
        let (mut kept, mut bytes) = (Vec::new(), 0);
        for (sequence, slot) in self.slots.drain(..through) {
            // A walk along both lists rather than a search: whatever a client puts into its list,
            // even out of order, every node draws the same conclusion from it.
            while except.next_if(|excepted| *excepted < sequence).is_some() {}
            let has_outcome = except.peek() != Some(&sequence);
            if has_outcome && matches!(slot, Slot::Decided(_)) {
                bytes += slot.cost();
            } else {
                kept.push((sequence, slot));
            }
        }
        self.bytes -= bytes;
        kept.into_iter().rev().for_each(|slot| self.slots.push_front(slot));
    }

    /// Forgets the losses that were decided at `seen` or before.
    pub(super) fn acknowledge_losses(&mut self, seen: LogIndex) {
        while let Some(loss) = self.losses.pop_front_if(|loss| loss.index <= seen) {
            self.bytes -= loss_cost(&loss);
        }
    }

    /// Says what a request with this number is, and uses the number up if it is to be run, or
    /// decided for lack of room.
    ///
    /// Lack of room must not hold up a number while another way is left: the requests behind it
    /// in the client's pipeline would be out of order for as long, and it may be one of them that
    /// makes the room.
    pub(super) fn admit(&mut self, sequence: Sequence, window_max: u32, room: Room) -> Admission {
        if sequence <= self.last {
            return match self.slot(sequence) {
                Some(Slot::Decided(outcome)) => Admission::Decided(outcome.clone()),
                Some(Slot::Open { .. }) => Admission::Open,
                None => Admission::Refused(Rejection::ResultEvicted),
            };
        }
        let expected = self.last.next();
        if sequence != expected {
            return Admission::Refused(Rejection::OutOfOrder { expected });
        }
        if self.len() >= u64::from(window_max) {
            return Admission::Refused(Rejection::WindowFull);
        }
        let admission = match room {
            Room::Run => Admission::Run,
            Room::Decide => Admission::Crowded,
            Room::None => return Admission::Refused(Rejection::WindowFull),
        };
        self.last = sequence;
        admission
    }

    /// Notes that an accepted request waits.
    pub(super) fn open(&mut self, sequence: Sequence, lock: LockName, bytes: u64) {
        self.put(sequence, Slot::Open { lock, bytes });
    }

    /// Notes what was decided on an accepted request, whether it waited or not.
    pub(super) fn decide(&mut self, sequence: Sequence, outcome: Outcome) {
        self.put(sequence, Slot::Decided(outcome));
    }

    /// Notes the loss of a lock.
    pub(super) fn lose(&mut self, loss: Loss) {
        self.bytes += loss_cost(&loss);
        self.losses.push_back(loss);
    }

    /// Gives a request its slot, or puts another thing into the one that it has.
    fn put(&mut self, sequence: Sequence, slot: Slot) {
        self.bytes += slot.cost();
        match self.find(sequence) {
            Ok(place) => {
                let before = mem::replace(&mut self.slots[place], (sequence, slot));
                self.bytes -= before.1.cost();
            }
            Err(place) => self.slots.insert(place, (sequence, slot)),
        }
    }

    /// Finds a broken invariant.
    pub(super) fn verify(&self) -> Result<(), &'static str> {
        let slots: u64 = self.slots.iter().map(|(_, slot)| slot.cost()).sum();
        let losses: u64 = self.losses.iter().map(loss_cost).sum();
        if self.bytes != slots + losses {
            return Err("a window costs what its slots and losses cost");
        }
        if !self.slots.iter().is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err("the requests of a window are in the order of their numbers");
        }
        let accepted = Sequence::new(1)..=self.last;
        if self.slots.iter().any(|(sequence, _)| !accepted.contains(sequence)) {
            return Err("only accepted requests are in a window");
        }
        if !self.losses.iter().is_sorted_by_key(|loss| loss.index) {
            return Err("losses are in the order of the log");
        }
        Ok(())
    }
}

impl Slot {
    /// What a slot counts for.
    fn cost(&self) -> u64 {
        let own = match self {
            Self::Open { bytes, .. } => *bytes,
            Self::Decided(outcome) => outcome_cost(outcome),
        };
        PENDING_OVERHEAD_BYTES + own
    }
}

/// What an outcome counts for: only those with a list or a name have a size of their own.
fn outcome_cost(outcome: &Outcome) -> u64 {
    if let Ok(Done::Released { offsets } | Done::Sectioned { offsets, .. }) = outcome {
        offsets.len() as u64 * 8
    } else if let Err(Rejection::WrongGuard { guard }) = outcome {
        guard.as_str().len() as u64
    } else {
        0
    }
}

/// What a loss counts for.
fn loss_cost(loss: &Loss) -> u64 {
    let cause = match &loss.cause {
        EndCause::Broken { by, reason } => {
            let label = [&by.host, &by.user, &by.command];
            label.iter().map(|text| text.as_str().len()).sum::<usize>() + reason.as_str().len()
        }
        EndCause::Released
        | EndCause::SessionClosed
        | EndCause::SessionExpired
        | EndCause::HoldTimedOut => 0,
    };
    PENDING_OVERHEAD_BYTES + (loss.lock.as_str().len() + cause) as u64
}
