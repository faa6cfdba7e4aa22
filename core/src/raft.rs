//! Consensus: a log that a majority of nodes agrees on, whatever else fails.
//!
//! This is Raft, as in the paper (Ongaro and Ousterhout, *In Search of an Understandable Consensus
//! Algorithm*, extended version, 2014) and in Ongaro's thesis (*Consensus: Bridging Theory and
//! Practice*, 2014). One node at a time is the *leader* of a numbered *term*. It alone adds entries
//! to the log, and sends them to its followers. An entry that a majority has on disk is
//! *committed*: every later leader has it, and every node applies it, at the same place.
//!
//! Consensus looks into no command, and does no IO. [`Raft`] is a value with three verbs: it
//! handles what happens ([`Raft::handle_message`], [`Raft::handle_persisted`],
//! [`Raft::handle_timeout`], and what its own node asks), it says what to do
//! ([`Raft::poll_action`]), and when to wake it ([`Raft::poll_timeout`]).
//!
//! # Where to find what
//!
//! | idea | source | here |
//! |---|---|---|
//! | roles, and what ends with them | paper, figure 4 | `role` |
//! | terms, votes, pre-vote, stickiness | paper 5.2, 5.4.1; thesis 4.2.3, 9.6 | `election` |
//! | the leader sends, and commits | paper 5.3, 5.4.2; thesis 10.2 | `replication`, `progress` |
//! | the follower takes, and answers | paper 5.3 | `follower` |
//! | nothing is promised before it is durable | paper, figure 2 | `persistence`, `outbox` |
//! | snapshots | paper 7 | `snapshot` |
//! | reads without an entry | thesis 6.4 | `read` |
//! | leadership handed over | thesis 3.10 | `transfer` |
//! | who votes | paper 6; thesis 4 | `memberships`, [`membership`](crate::membership) |
//! | nothing a peer says can panic | | `checks` |
//!
//! # What is not as in the paper
//!
//! * Writing is not a call but a numbered [`WriteBatch`](crate::message::WriteBatch), acknowledged
//!   later. Every promise waits for its own batch, and a truncation takes back what earlier
//!   batches would have covered: nobody outside can get the order wrong.
//! * A follower acknowledges what it *has*, not the message that it got: the part of its log that
//!   is verified against the leader of this term and durable. Replies may be lost, repeated,
//!   overtaken or joined without harm.
//! * What is committed may be applied before it is durable on this node's own disk: a majority
//!   has it. Only a promise to others waits for the disk.
//! * A leader steps down when it heard no quorum for
//!   [`election_timeout_max`](crate::config::Config::election_timeout_max), when its disk does not
//!   answer, or when its log runs full since no snapshot can be finished.
//!
//! # Caveats
//!
//! * A node that lost what it had acknowledged breaks everything: the host must refuse to start it
//!   under its old id.
//! * The quorum rules are those of a joint membership, and the membership is in the log; but the
//!   steps of a membership change are not here yet.
//! * A follower that is slower than the leader takes snapshots gets one snapshot after the other,
//!   until it has caught up with [`retained_entries`](crate::config::Config::retained_entries).
//! * Leases for reads (thesis, 6.4.1) are left out on purpose: they trust the clocks of others.

mod action;
mod checks;
mod election;
mod follower;
mod log;
mod memberships;
mod outbox;
mod persistence;
mod progress;
mod read;
mod recovery;
mod replication;
mod role;
mod snapshot;
mod timeout;
mod transfer;

use alloc::collections::{BTreeMap, VecDeque};

use crate::config::Config;
use crate::ids::{EntryId, LogIndex, NodeId, ReadRound, Term, WriteId};
use crate::membership::Membership;
use crate::message::{
    AppendEntriesReply, AppendResult, Entry, Envelope, HardState, InstallSnapshotReply, Message,
    Recovered, Snapshot, SnapshotResult, Unavailable,
};
use crate::prng::Prng;
use crate::time::{LeaseTime, Time};

use log::Log;
use memberships::Memberships;
use outbox::{Outbox, envelope};
use persistence::Persistence;
use read::Reads;
use role::{Follower, Leader, RoleState};
use snapshot::Receiving;

pub use action::{DropReason, RaftAction, RaftTimer, Role, TransferRefused};
pub use progress::{ProgressState, ProgressView};
pub use recovery::RecoveredError;

/// One node's part in the consensus.
///
/// Invariants, beside those of its parts:
/// `log.base <= snapshot.last <= applied <= commit <= log.last`, by index;
/// no entry is of a later term than `hard_state`;
/// a candidate and a leader have their own vote;
/// a leader's peers are the others of its membership, and none has matched more than its log.
#[derive(Clone, Debug)]
pub struct Raft {
    id: NodeId,
    config: Config,
    prng: Prng,
    /// The latest time that it was told.
    now: Time,

    hard_state: HardState,
    role: RoleState,
    /// When to campaign; of no meaning to a leader.
    election_at: Time,

    log: Log,
    memberships: Memberships,
    snapshot: Snapshot,
    commit: LogIndex,
    applied: EntryId,
    applied_stamp: LeaseTime,
    /// A snapshot on its way to this node.
    receiving: Option<Receiving>,
    /// Whether its own snapshots are held up ([`Raft::set_snapshot_stalled`]).
    snapshot_stalled: bool,

    persistence: Persistence,
    reads: Reads,
    outbox: Outbox,
    /// What the caller is to know or do, but for messages and writes.
    actions: VecDeque<RaftAction>,
    drops: BTreeMap<DropReason, u64>,
}

impl Raft {
    /// A node as it was when it stopped, or a new one. It follows no leader yet, and has applied
    /// what its snapshot covers.
    ///
    /// `config` must have passed [`Config::check`]. `seed` decides its random time-outs, and
    /// should differ from node to node.
    ///
    /// # Errors
    /// [`RecoveredError`] if what was recovered does not fit together.
    pub fn new(
        id: NodeId,
        config: &Config,
        recovered: Recovered,
        seed: u64,
        now: Time,
    ) -> Result<Self, RecoveredError> {
        let Recovered { hard_state, snapshot, entries } = recovered;
        let (log, memberships) = recovery::recover(id, hard_state, &snapshot, entries)?;
        let mut raft = Self {
            id,
            config: config.clone(),
            prng: Prng::new(seed),
            now,
            hard_state,
            role: RoleState::Follower(Follower::default()),
            election_at: now,
            persistence: Persistence::new(log.last_index()),
            log,
            memberships,
            commit: snapshot.last.index,
            applied: snapshot.last,
            applied_stamp: snapshot.stamp,
            snapshot,
            receiving: None,
            snapshot_stalled: false,
            reads: Reads::new(),
            outbox: Outbox::default(),
            actions: VecDeque::new(),
            drops: BTreeMap::new(),
        };
        raft.trim_recovered();
        raft.reset_election_timer();
        Ok(raft)
    }

    /// Takes a message from another node. One that breaks the rules is dropped and counted
    /// ([`Raft::drops`]); one that comes late, or twice, is harmless.
    pub fn handle_message(&mut self, now: Time, envelope: Envelope) {
        self.advance_clock(now);
        if let Err(reason) = self.check_envelope(&envelope) {
            return self.drop_message(reason);
        }
        let Envelope { from, message, .. } = envelope;
        match message {
            // The term of these is one that the sender would enter: nobody else needs to yet.
            Message::PreVote(request) => self.handle_pre_vote(from, request),
            Message::RequestVote(request) => self.handle_request_vote(from, request),
            // They name the campaign that they answer; their own term can be an older one.
            Message::PreVoteReply(reply) => {
                self.adopt_term(reply.term);
                self.handle_pre_vote_reply(from, reply);
            }
            Message::RequestVoteReply(reply) => {
                self.adopt_term(reply.term);
                self.handle_request_vote_reply(from, reply);
            }
            Message::AppendEntries(append) if self.is_current(append.term) => {
                self.handle_append(from, append);
            }
            Message::AppendEntries(append) => self.refuse_append(from, append.round),
            Message::InstallSnapshot(install) if self.is_current(install.term) => {
                self.handle_install(from, install);
            }
            Message::InstallSnapshot(install) => self.refuse_install(from, install.meta.last),
            Message::AppendEntriesReply(reply) => {
                if self.is_current(reply.term) {
                    self.handle_append_reply(from, reply);
                }
            }
            Message::InstallSnapshotReply(reply) => {
                if self.is_current(reply.term) {
                    self.handle_install_reply(from, reply);
                }
            }
            Message::TimeoutNow { term } => {
                if self.is_current(term) {
                    self.handle_timeout_now(from, term);
                }
            }
        }
    }

    /// All batches through `up_to` are durable. An acknowledgement that comes late, after a
    /// higher one, changes nothing.
    ///
    /// # Panics
    /// If `up_to` was never issued.
    pub fn handle_persisted(&mut self, now: Time, up_to: WriteId) {
        self.advance_clock(now);
        self.persistence.acknowledge(up_to);
        self.acknowledge_durable();
        self.count_own_vote();
        self.advance_commit();
    }

    /// What to do next; `None` when there is nothing until the next input. Everything that changed
    /// since the last batch becomes one batch, and everything that a peer may get one message.
    pub fn poll_action(&mut self) -> Option<RaftAction> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        let (now, hard_state) = (self.now, self.hard_state);
        if let Some(batch) = self.persistence.take_batch(now, hard_state, &self.log, &self.snapshot)
        {
            return Some(RaftAction::Persist(batch));
        }
        if let Some(envelope) = self.pop_envelope() {
            return Some(RaftAction::Send(envelope));
        }
        self.drive_reads();
        self.drive_transfer();
        self.make_messages();
        self.answer_leader();
        self.actions.pop_front().or_else(|| self.pop_envelope().map(RaftAction::Send))
    }

    /// The next committed entry that was not handed out yet; `applied` is there from now on.
    pub fn next_to_apply(&mut self) -> Option<Entry> {
        if self.applied.index >= self.commit {
            return None;
        }
        let entry = self
            .log
            .entry(self.applied.index.next())
            .expect("the log holds everything between what is applied and what is committed")
            .clone();
        (self.applied, self.applied_stamp) = (entry.id, entry.stamp);
        Some(entry)
    }

    /// What the stamp of an entry would be at `now`: the last stamp that this leader inherited,
    /// plus what its own clock measured since. `None` if it does not lead.
    #[must_use]
    pub fn lease_now(&self, now: Time) -> Option<LeaseTime> {
        let leader = self.role.as_leader()?;
        Some(leader.stamp_base.after(now.since(leader.stamp_from)))
    }
}

/// What can be seen from outside.
impl Raft {
    /// This node.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Its term, and whom it voted for in it; not necessarily durable yet.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// Its term.
    #[must_use]
    pub fn term(&self) -> Term {
        self.hard_state.term
    }

    /// Its role.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role.role()
    }

    /// The leader of the term; `None` if it is not known.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        match &self.role {
            RoleState::Leader(_) => Some(self.id),
            RoleState::Follower(follower) => follower.following.as_ref().map(|f| f.leader),
            RoleState::PreCandidate(_) | RoleState::Candidate(_) => None,
        }
    }

    /// To whom this leader is handing its leadership; `None` if it is not.
    #[must_use]
    pub fn transferee(&self) -> Option<NodeId> {
        self.role.as_leader()?.transfer.map(|transfer| transfer.to)
    }

    /// The highest index known to be committed.
    #[must_use]
    pub fn commit(&self) -> LogIndex {
        self.commit
    }

    /// The last entry that was handed out by [`Raft::next_to_apply`], or that the snapshot covers.
    #[must_use]
    pub fn applied(&self) -> EntryId {
        self.applied
    }

    /// The stamp of that entry.
    #[must_use]
    pub fn applied_stamp(&self) -> LeaseTime {
        self.applied_stamp
    }

    /// The entry before the first one in memory.
    #[must_use]
    pub fn log_base(&self) -> EntryId {
        self.log.base()
    }

    /// The end of the log.
    #[must_use]
    pub fn log_last(&self) -> EntryId {
        self.log.last()
    }

    /// The stamp of the last entry of the log.
    #[must_use]
    pub fn last_stamp(&self) -> LeaseTime {
        self.log.last_stamp()
    }

    /// The entry at `index`; `None` if it is not in memory, or beyond the end.
    #[must_use]
    pub fn entry(&self, index: LogIndex) -> Option<&Entry> {
        self.log.entry(index)
    }

    /// What the entries after `after`, up to and including `through`, cost in memory, in bytes
    /// ([`Entry::cost_bytes`]).
    #[must_use]
    pub fn bytes_between(&self, after: LogIndex, through: LogIndex) -> u64 {
        self.log.bytes_between(after, through)
    }

    /// Up to where this node's disk is known to have its log.
    #[must_use]
    pub fn durable(&self) -> LogIndex {
        self.persistence.durable()
    }

    /// The latest snapshot.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The membership in force: the latest in the log, committed or not.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        self.memberships.latest()
    }

    /// What a leader knows of the others, by node id; nothing if this node does not lead.
    pub fn progress(&self) -> impl Iterator<Item = ProgressView> {
        let peers = self.role.as_leader().map(|leader| leader.peers.iter());
        peers.into_iter().flatten().map(|(node, peer)| peer.view(*node))
    }

    /// How many messages were dropped, by reason.
    #[must_use]
    pub fn drops(&self) -> &BTreeMap<DropReason, u64> {
        &self.drops
    }

    /// Asserts the invariants of the struct and of its parts. It takes time in proportion to the
    /// log: for tests and simulations.
    pub fn check_invariants(&self) {
        let (base, last) = (self.log.base(), self.log.last());
        assert!(base.index <= self.snapshot.last.index, "a gap between the snapshot and the log");
        assert!(self.log.contains(self.snapshot.last), "the log contradicts its snapshot");
        assert!(self.snapshot.last.index <= self.applied.index, "applied is below the snapshot");
        assert!(self.log.contains(self.applied), "what is applied is not in the log");
        assert!(self.applied.index <= self.commit, "applied before it was committed");
        assert!(self.commit <= last.index, "committed beyond the end of the log");
        assert!(last.term <= self.hard_state.term, "an entry of a term that has not begun");
        self.log.check_invariants();
        self.memberships.check_invariants();
        self.persistence.check_invariants(&self.log);
        self.reads.check_invariants();
        self.outbox.check_invariants();
        if let Some(receiving) = &self.receiving {
            receiving.check_invariants();
        }
        self.check_role();
    }

    fn check_role(&self) {
        let own_vote = self.hard_state.vote == Some(self.id);
        match &self.role {
            RoleState::Follower(Follower { following: None }) | RoleState::PreCandidate(_) => {}
            RoleState::Follower(Follower { following: Some(following) }) => {
                assert!(following.leader != self.id, "a node follows itself");
                assert!(following.verified >= self.commit, "committed before it was verified");
                assert!(following.verified <= self.log.last_index(), "verified what is not there");
            }
            RoleState::Candidate(_) => assert!(own_vote, "a candidate without its own vote"),
            RoleState::Leader(leader) => {
                assert!(own_vote, "a leader without its own vote");
                self.check_leader(leader);
            }
        }
    }

    fn check_leader(&self, leader: &Leader) {
        let first = self.log.term(leader.term_start);
        assert!(first.is_none_or(|term| term == self.hard_state.term), "a term starts elsewhere");
        let others = self.membership().nodes().filter(|node| *node != self.id);
        assert!(leader.peers.keys().copied().eq(others), "the peers are not the other members");
        for peer in leader.peers.values() {
            peer.check_invariants(&self.log);
        }
    }
}

/// Small steps that the parts share.
impl Raft {
    /// Time is what the host says, and never goes back.
    fn advance_clock(&mut self, now: Time) {
        assert!(now >= self.now, "the host's clock went back from {:?} to {now:?}", self.now);
        self.now = now;
    }

    /// Enters the term of a message if it is a later one.
    fn adopt_term(&mut self, term: Term) {
        if term > self.hard_state.term {
            self.become_follower(term, None);
        }
    }

    /// Whether a message is of the present term, after a later one was adopted.
    fn is_current(&mut self, term: Term) -> bool {
        self.adopt_term(term);
        term == self.hard_state.term
    }

    /// The refusal of a node that does not lead.
    fn not_leader(&self) -> Unavailable {
        Unavailable::NotLeader { leader: self.leader() }
    }

    fn drop_message(&mut self, reason: DropReason) {
        *self.drops.entry(reason).or_insert(0) += 1;
    }

    /// Tells the leader of a term that is over so. It is how a node whose term is ahead of all
    /// others gets a leader again.
    fn refuse_append(&mut self, to: NodeId, round: ReadRound) {
        let (term, result) = (self.hard_state.term, AppendResult::StaleTerm);
        let reply = AppendEntriesReply { term, round, result };
        self.send_held(to, Message::AppendEntriesReply(reply));
    }

    /// As [`Raft::refuse_append`], for a snapshot.
    fn refuse_install(&mut self, to: NodeId, last: EntryId) {
        let (term, result) = (self.hard_state.term, SnapshotResult::StaleTerm);
        let reply = InstallSnapshotReply { term, last, result };
        self.send_held(to, Message::InstallSnapshotReply(reply));
    }

    /// Queues a message that promises to be in this term, and to have cast its vote: it leaves
    /// when both are durable.
    fn send_held(&mut self, to: NodeId, message: Message) {
        let needs = self.persistence.hard_state_write();
        self.outbox.push(needs, envelope(self.id, to, message));
    }

    /// Queues a message that promises nothing.
    fn send_unheld(&mut self, to: NodeId, message: Message) {
        self.outbox.push(WriteId::ZERO, envelope(self.id, to, message));
    }

    fn pop_envelope(&mut self) -> Option<Envelope> {
        let persistence = &self.persistence;
        self.outbox.pop(|write| persistence.is_acked(write))
    }
}

#[cfg(test)]
mod tests;
