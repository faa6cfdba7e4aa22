//! A node: consensus and the lock table, joined.
//!
//! A [`Node`] is a value. Its host gives it the time and an [`Input`], and takes [`Output`]s;
//! nothing else crosses. The same inputs at the same times give the same outputs, so the list of
//! them is a complete record of a run.
//!
//! ```text
//!  Request ──► requests ──► Raft ──► log ──► commit ──► apply ──► LockTable ──► Reply
//!                            ▲ │                                     │
//!                   Message ─┘ └─► Send, Persist                     └─► Effect
//! ```
//!
//! This module and its children only carry things from one part to the other. What is true of the
//! log is decided in [`raft`](crate::raft), which takes commands for opaque bytes; what is true of
//! a lock is decided in [`lock`](crate::lock), which has never heard of terms.
//!
//! # The contract with the host
//!
//! - Batches are written in the order of their ids, each atomically. [`Input::Persisted`] covers all
//!   earlier ones. Everything else that [`Node::poll_output`] returns may be done at once and in any
//!   order, but that effects and reads of files keep theirs: what depends on a write is held back here.
//! - Inputs may be given in any number before outputs are taken. All that was appended meanwhile
//!   is in one batch.
//! - Time does not go backwards. Waking the node too early does no harm, waking it late only makes
//!   it late.
//! - [`Node::handle_input`] does not fail. What comes from a peer or a client is dropped and
//!   counted, or answered with a refusal, when it makes no sense. What breaks this contract, or an
//!   invariant of ours, panics: a node that has lost track of itself must stop before it grants a
//!   lock twice.

mod apply;
mod arrival;
mod boundary;
mod keep_alives;
mod reads;
mod requests;
mod routing;
mod snapshots;
mod status;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

pub use boundary::{Event, FileRead, Input, MissingBytes, Output, StartError, Timer};
pub use status::Status;

use crate::config::{Config, ConfigError, Limits};
use crate::ids::{EntryId, LogIndex, NodeId};
use crate::lock::{Applied, LockTable};
use crate::membership::Membership;
use crate::message::{Envelope, HardState, Message, Recovered, Snapshot};
use crate::raft::{Raft, RaftAction, Role};
use crate::time::{LeaseTime, Time};

use arrival::Arriving;
use keep_alives::KeepAlives;
use reads::Reads;
use routing::Routing;
use snapshots::Snapshots;

/// One server of the cluster, without its disk, its network and its clock.
///
/// Invariants: the lock table is the result of applying the log up to `applied`; everything that
/// waits in `routing`, `reads` and `keep_alives` was asked for by a client and will be answered, at
/// the latest when this node stops leading.
#[derive(Clone, Debug)]
pub struct Node {
    config: Config,
    raft: Raft,
    locks: LockTable,
    /// The last entry that the lock table has seen.
    applied: LogIndex,
    /// A snapshot from the leader that waits for the files.
    arriving: Option<Arriving>,
    snapshots: Snapshots,
    routing: Routing,
    reads: Reads,
    keep_alives: KeepAlives,
    /// No empty entry is proposed for a due lease before this, after one was refused.
    lease_retry: Time,
    outputs: VecDeque<Output>,
    /// Messages that were dropped since they carry a command that this node cannot read.
    unreadable: u64,
    /// What apply says, kept for its memory.
    buffer: Applied,
    /// The time of the latest input.
    now: Time,
}

impl Recovered {
    /// What each node of a new cluster starts from: an empty lock table with these limits.
    ///
    /// Every node must be given the same voters and the same limits.
    ///
    /// # Errors
    /// [`ConfigError`] if the limits are out of their ranges.
    pub fn bootstrap(membership: Membership, limits: Limits) -> Result<Self, ConfigError> {
        limits.check()?;
        Ok(Self {
            hard_state: HardState::default(),
            snapshot: Snapshot {
                last: EntryId::ZERO,
                stamp: LeaseTime::ZERO,
                membership,
                data: LockTable::new(limits).encode(),
            },
            entries: Vec::new(),
        })
    }
}

impl Node {
    /// A node with what its storage recovered. It starts as a follower.
    ///
    /// `seed` decides its random time-outs; no two nodes of a cluster should have the same.
    ///
    /// # Errors
    /// [`StartError`]: settings that do not work together, or storage that is damaged.
    pub fn new(
        id: NodeId,
        config: Config,
        recovered: Recovered,
        seed: u64,
        now: Time,
    ) -> Result<Self, StartError> {
        let latest = recovered.snapshot.last;
        let locks = LockTable::decode(&recovered.snapshot.data).map_err(StartError::Snapshot)?;
        if !arrival::is_state_of(&locks, &recovered.snapshot) {
            return Err(StartError::OtherState { state: locks.index(), snapshot: latest });
        }
        config.check(locks.limits()).map_err(StartError::Config)?;
        let unreadable = recovered.entries.iter().find(|entry| !apply::is_readable(entry));
        if let Some(entry) = unreadable {
            return Err(StartError::Unreadable { entry: entry.id });
        }
        let raft = Raft::new(id, &config, recovered, seed, now).map_err(StartError::Recovered)?;
        Ok(Self {
            config,
            raft,
            locks,
            applied: latest.index,
            arriving: None,
            snapshots: Snapshots::new(latest, now),
            routing: Routing::default(),
            reads: Reads::default(),
            keep_alives: KeepAlives::default(),
            lease_retry: Time::ZERO,
            outputs: VecDeque::new(),
            unreadable: 0,
            buffer: Applied::default(),
            now,
        })
    }

    /// Tells the node something.
    ///
    /// # Panics
    /// If `now` is before an earlier input, if a write or an effect is acknowledged that was never
    /// asked for, or if an invariant is broken.
    pub fn handle_input(&mut self, now: Time, input: Input) {
        assert!(now >= self.now, "time went backwards: {now:?} after {:?}", self.now);
        self.now = now;
        self.raft.set_snapshot_stalled(self.snapshots.is_stalled(&self.config, now));
        match input {
            Input::Message(envelope) => self.handle_message(envelope),
            Input::Request { conn, request } => self.handle_request(conn, request),
            Input::Disconnected { conn } => self.routing.disconnect(conn),
            Input::Persisted { up_to } => self.raft.handle_persisted(now, up_to),
            Input::EffectsDurable { up_to } => self.handle_effects_durable(up_to),
            Input::FilesFetched { snapshot, complete } => {
                self.handle_files_fetched(snapshot, complete);
            }
            Input::TransferLeadership { to } => self.handle_transfer(to),
            Input::Timeout => self.handle_timeout(),
        }
    }

    /// What the node wants done next; `None` when it has said everything.
    ///
    /// All inputs since the last output are answered together: what was appended to the log is in
    /// one batch, and each peer gets it in as few messages as can be.
    pub fn poll_output(&mut self) -> Option<Output> {
        while self.outputs.is_empty() && self.proceed() {}
        self.outputs.pop_front()
    }

    /// When the node wants to be woken with [`Input::Timeout`], and what for. Ask once all outputs
    /// are taken: what is due may be among them.
    ///
    /// `None`: not before the next input.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Time, Timer)> {
        let raft = self.raft.poll_timeout().map(|(time, timer)| (time, Timer::Raft(timer)));
        let keep_alives = self.keep_alives.deadline().map(|time| (time, Timer::KeepAlives));
        let lease = self.lease_deadline().map(|time| (time, Timer::LeaseDue));
        let snapshot = self.snapshots.deadline(&self.config).map(|time| (time, Timer::Snapshot));
        [raft, keep_alives, lease, snapshot].into_iter().flatten().min()
    }

    /// Asserts everything that is always true of a node.
    ///
    /// # Panics
    /// If something is not.
    pub fn check_invariants(&self) {
        self.raft.check_invariants();
        self.locks.check_invariants();
        self.routing.check_invariants();
        self.reads.check_invariants();
        self.keep_alives.check_invariants();
        self.snapshots.check_invariants(self.applied);
        assert!(self.applied <= self.raft.applied().index, "consensus knows what is applied");
    }

    fn handle_effects_durable(&mut self, up_to: LogIndex) {
        assert!(up_to <= self.applied, "effects up to {up_to} were never asked for");
        self.snapshots.effects_durable(up_to);
        self.finish_arrival();
    }

    /// Passes a message on to consensus, unless it carries a command that this node cannot read:
    /// to take it now would be to fail, or to differ from the others, when it is applied.
    fn handle_message(&mut self, envelope: Envelope) {
        if let Message::AppendEntries(append) = &envelope.message
            && !append.entries.iter().all(apply::is_readable)
        {
            self.unreadable += 1;
            return;
        }
        self.raft.handle_message(self.now, envelope);
    }

    fn handle_transfer(&mut self, to: Option<NodeId>) {
        if let Err(refused) = self.raft.transfer_leadership(self.now, to) {
            self.event(Event::TransferRefused(refused));
        }
    }

    fn handle_timeout(&mut self) {
        self.raft.handle_timeout(self.now);
        if self.keep_alives.deadline().is_some_and(|time| self.now >= time) {
            self.propose_keep_alives();
        }
        if self.lease_deadline().is_some_and(|time| self.now >= time) {
            self.propose_lease_time();
        }
    }

    /// Takes one step towards the next output. `false` when there is nothing left to do.
    fn proceed(&mut self) -> bool {
        match self.raft.poll_action() {
            Some(RaftAction::Persist(batch)) => self.outputs.push_back(Output::Persist(batch)),
            Some(RaftAction::Send(envelope)) => self.outputs.push_back(Output::Send(envelope)),
            Some(RaftAction::ReadConfirmed { round, index }) => self.reads.confirm(round, index),
            Some(RaftAction::SnapshotReceived(snapshot)) => self.prepare(&snapshot),
            Some(RaftAction::SnapshotInstalled { last }) => self.install(last),
            Some(RaftAction::RoleChanged { role, term, leader }) => {
                self.event(Event::Role { role, term, leader });
                if role != Role::Leader {
                    self.refuse_all();
                }
            }
            Some(RaftAction::TransferExpired { to }) => self.event(Event::TransferExpired { to }),
            // Only now: an installed snapshot comes before the entries that follow it.
            None => {
                self.apply_committed();
                self.forget_overtaken_arrival();
                self.answer_ready_reads();
                self.take_snapshot();
                return !self.outputs.is_empty();
            }
        }
        true
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    /// Takes a snapshot when it is time; hands it over once the files allow it.
    fn take_snapshot(&mut self) {
        if self.snapshots.is_due(&self.config, self.now) {
            let snapshot = self.raft.snapshot_of(self.locks.encode());
            self.snapshots.take(snapshot, self.now);
        }
        if let Some(snapshot) = self.snapshots.next_ready() {
            self.event(Event::SnapshotTaken { last: snapshot.last });
            self.raft.compact(snapshot, self.config.retained_entries);
        }
    }
}
