//! The calls that are open: queued, submitted, or reading.
//!
//! An op gets its number at the moment it is first sent, never earlier: so a call without a number
//! was certainly not sent. It keeps the number, and is sent again under it on every new
//! connection, until its outcome is there. Apply accepts numbers only in order and remembers the
//! outcomes, so however often a request arrives, it takes effect once (RIFL, SOSP 2015, and the
//! Raft thesis, 6.3).

use alloc::collections::{BTreeMap, VecDeque};

use super::config::ClientConfig;
use super::fit;
use crate::ids::{CallId, RequestId, Sequence};
use crate::message::{Acked, Consistency, Op, Query};
use crate::text::LockName;

/// The open calls of a client.
///
/// Calls are submitted in the order in which they were made, with one exception. A full window of
/// acquires that wait would leave no number for the cancel or the release that could end the wait.
/// So calls that may wait leave one place of the window free, and one of all calls; at that point,
/// calls that are answered at once overtake them.
///
/// Invariants: both queues ascend by call; numbers below `next` are submitted, or their outcome is
/// here; `answered` is the highest number of the latter kind; `submitted_waits` and `bytes` are
/// what counting them gives.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    /// Ops without a number that are answered at once.
    prompt: VecDeque<Call>,
    /// Ops without a number that may wait.
    waits: VecDeque<Call>,
    /// Ops that were sent, by number.
    submitted: BTreeMap<Sequence, Call>,
    /// How many of them may wait.
    submitted_waits: usize,
    /// Reads, by the number that their answer will name.
    reads: BTreeMap<RequestId, Read>,
    /// The next op gets this number.
    next: Sequence,
    /// The highest number whose outcome is here.
    answered: Sequence,
    /// What all open ops append.
    bytes: u64,
    /// Whether an open call closes the session, so that nothing can follow it.
    closing: bool,
}

/// An op on its way.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) id: CallId,
    pub(super) op: Op,
}

/// A read on its way.
#[derive(Clone, Debug)]
pub(super) struct Read {
    pub(super) id: CallId,
    pub(super) query: Query,
    pub(super) consistency: Consistency,
}

impl Calls {
    pub(super) const fn new() -> Self {
        Self {
            prompt: VecDeque::new(),
            waits: VecDeque::new(),
            submitted: BTreeMap::new(),
            submitted_waits: 0,
            reads: BTreeMap::new(),
            next: Sequence::new(1),
            answered: Sequence::ZERO,
            bytes: 0,
            closing: false,
        }
    }

    /// How many calls are open.
    pub(super) fn len(&self) -> usize {
        self.prompt.len() + self.waits.len() + self.submitted.len() + self.reads.len()
    }

    /// Whether a call that closes the session is open.
    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether one more read is within the limits.
    pub(super) fn has_room(&self, config: &ClientConfig) -> bool {
        (self.len() as u64) < u64::from(config.calls_max)
    }

    /// Whether one more op is within the limits.
    pub(super) fn has_room_for(&self, config: &ClientConfig, op: &Op) -> bool {
        let bytes = fit::append_bytes(op);
        let bytes_fit =
            bytes == 0 || self.bytes == 0 || self.bytes + bytes <= config.call_bytes_max;
        let calls_max = u64::from(config.calls_max);
        let reserved = u64::from(fit::may_wait(op) && calls_max > 1);
        bytes_fit && self.len() as u64 + reserved < calls_max
    }

    /// Puts an op into its queue.
    pub(super) fn enqueue(&mut self, id: CallId, op: Op) {
        self.bytes += fit::append_bytes(&op);
        self.closing |= matches!(op, Op::CloseSession);
        let queue = if fit::may_wait(&op) { &mut self.waits } else { &mut self.prompt };
        queue.push_back(Call { id, op });
    }

    /// Takes a call without a number out of its queue.
    pub(super) fn take_back(&mut self, id: CallId) -> Option<Call> {
        let call = [&mut self.prompt, &mut self.waits].into_iter().find_map(|queue| {
            let position = queue.binary_search_by_key(&id, |call| call.id).ok()?;
            queue.remove(position)
        })?;
        self.forget(&call.op);
        Some(call)
    }

    /// The number of a call that was sent and may wait.
    pub(super) fn waiting_number(&self, id: CallId) -> Option<Sequence> {
        let found = self.submitted.iter().find(|(_, call)| call.id == id);
        found.filter(|(_, call)| fit::may_wait(&call.op)).map(|(sequence, _)| *sequence)
    }

    /// The submitted op with the lowest number from `from` on.
    pub(super) fn submitted_from(&self, from: Sequence) -> Option<(Sequence, &Op)> {
        let (sequence, call) = self.submitted.range(from..).next()?;
        Some((*sequence, &call.op))
    }

    /// Gives the next queued op a number, if the window has room for it.
    pub(super) fn number_next(&mut self, window_max: usize) -> Option<(Sequence, &Op)> {
        if self.submitted.len() >= window_max {
            return None;
        }
        let sequence = self.next;
        let call = self.dequeue(window_max)?;
        self.submitted_waits += usize::from(fit::may_wait(&call.op));
        self.next = sequence.next();
        assert!(self.next > sequence, "a session does not last for 2^53 calls");
        Some((sequence, &self.submitted.entry(sequence).or_insert(call).op))
    }

    /// The next op in the order of calls; one that may wait only if that leaves a place.
    fn dequeue(&mut self, window_max: usize) -> Option<Call> {
        let waits_max = window_max.saturating_sub(1).max(1);
        let wait = self.waits.front().filter(|_| self.submitted_waits < waits_max);
        let wait_first = match (wait, self.prompt.front()) {
            (Some(wait), Some(prompt)) => wait.id < prompt.id,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if wait_first { self.waits.pop_front() } else { self.prompt.pop_front() }
    }

    /// The op with a number whose outcome is not here yet.
    pub(super) fn submitted(&self, sequence: Sequence) -> Option<&Op> {
        self.submitted.get(&sequence).map(|call| &call.op)
    }

    /// Takes note of the outcome of a submitted op, and gives the call back.
    pub(super) fn answer(&mut self, sequence: Sequence) -> Option<Call> {
        let call = self.submitted.remove(&sequence)?;
        self.answered = self.answered.max(sequence);
        self.submitted_waits -= usize::from(fit::may_wait(&call.op));
        self.forget(&call.op);
        Some(call)
    }

    fn forget(&mut self, op: &Op) {
        self.bytes -= fit::append_bytes(op);
        self.closing &= !matches!(op, Op::CloseSession);
    }

    /// The outcomes that are here.
    pub(super) fn acked(&self) -> Acked {
        let except = self.submitted.range(..self.answered).map(|(sequence, _)| *sequence);
        Acked { through: self.answered, except: except.collect() }
    }

    /// Takes up a read, under a new number.
    pub(super) fn add_read(&mut self, request: RequestId, read: Read) {
        self.reads.insert(request, read);
    }

    /// The open read with this number.
    pub(super) fn read(&self, request: RequestId) -> Option<&Read> {
        self.reads.get(&request)
    }

    /// The numbers of all open reads.
    pub(super) fn reads(&self) -> impl Iterator<Item = RequestId> {
        self.reads.keys().copied()
    }

    /// Takes note of the answer to a read, and gives it back.
    pub(super) fn finish_read(&mut self, request: RequestId) -> Option<Read> {
        self.reads.remove(&request)
    }

    /// Takes out the submitted op with the lowest number.
    pub(super) fn pop_submitted(&mut self) -> Option<Call> {
        let (sequence, _) = self.submitted.first_key_value()?;
        self.answer(*sequence)
    }

    /// Takes out the oldest call that was never sent, or is a read.
    pub(super) fn pop_unsent(&mut self) -> Option<CallId> {
        if let Some(call) = self.dequeue(usize::MAX) {
            self.forget(&call.op);
            return Some(call.id);
        }
        self.reads.pop_first().map(|(_, read)| read.id)
    }

    /// How many acquires of each lock are submitted.
    pub(super) fn acquires(&self) -> BTreeMap<&LockName, usize> {
        let mut acquires = BTreeMap::new();
        for call in self.submitted.values() {
            if let Op::Acquire { lock, .. } = &call.op {
                *acquires.entry(lock).or_default() += 1;
            }
        }
        acquires
    }

    /// Asserts the invariants.
    pub(super) fn check_invariants(&self, window_max: usize) {
        assert!(self.submitted.len() <= window_max, "the window is not overrun");
        for queue in [&self.prompt, &self.waits] {
            assert!(queue.iter().is_sorted_by(|a, b| a.id < b.id), "queues ascend");
        }
        assert!(self.answered < self.next, "only what was sent is answered");
        let last = self.submitted.last_key_value();
        assert!(last.is_none_or(|(last, _)| *last < self.next), "numbers are given out in order");
        let ops = || {
            let queued = self.prompt.iter().chain(&self.waits);
            queued.chain(self.submitted.values()).map(|call| &call.op)
        };
        assert_eq!(self.bytes, ops().map(fit::append_bytes).sum(), "bytes are counted");
        assert_eq!(self.closing, ops().any(|op| matches!(op, Op::CloseSession)), "closing");
        let waits = self.submitted.values().filter(|call| fit::may_wait(&call.op)).count();
        assert_eq!(self.submitted_waits, waits, "waits are counted");
    }
}
