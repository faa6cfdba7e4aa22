//! One node, and a test that plays everybody else.
//!
//! A [`Lab`](quorlock_tests::lab::Lab) is a whole cluster that follows the rules. Some failures need
//! a peer that does not, or one message at one moment; then the test itself is the other nodes. It
//! hands the node envelopes, and decides when a write is durable.
//!
//! Whatever the test does, every promise is checked against the disk as it leaves: a vote, a request
//! for votes, an acknowledgement of entries or of a snapshot. That is one half of Raft's safety,
//! and the half that most of the public bugs broke.

use std::collections::VecDeque;

use quorlock_core::config::{Config, Limits};
use quorlock_core::ids::{ConnectionId, EntryId, LogIndex, NodeId, ReadRound, Term, WriteId};
use quorlock_core::membership::Membership;
use quorlock_core::message::{
    AppendEntries, AppendEntriesReply, AppendResult, Entry, Envelope, InstallSnapshot,
    InstallSnapshotReply, Message, Payload, Recovered, Reply, Request, Snapshot, SnapshotResult,
    VoteReply, VoteRequest, WriteBatch,
};
use quorlock_core::node::{Input, Node, Output, Status};
use quorlock_core::raft::Role;
use quorlock_core::time::{Duration, LeaseTime, Time};

/// One node with its disk. See the [module](self).
#[derive(Clone, Debug)]
pub(crate) struct Solo {
    id: u64,
    config: Config,
    pub(crate) now: Time,
    pub(crate) node: Node,
    /// What a crash would leave.
    pub(crate) disk: Recovered,
    /// Batches that are not durable, in order.
    pub(crate) writes: VecDeque<WriteBatch>,
    sent: Vec<Envelope>,
    replies: Vec<Reply>,
    /// Everything that is neither a message, nor a write, nor a reply.
    pub(crate) others: Vec<Output>,
}

impl Solo {
    /// Node 1 of a new cluster of so many voters.
    pub(crate) fn new(voters: u64) -> Self {
        Self::with(voters, Config::default())
    }

    /// The same with other settings.
    pub(crate) fn with(voters: u64, config: Config) -> Self {
        Self::from_disk(1, config, bootstrap(voters))
    }

    /// A node that starts from this disk.
    pub(crate) fn from_disk(id: u64, config: Config, disk: Recovered) -> Self {
        let now = Time::from_micros(1_000_000);
        let node = Node::new(NodeId::new(id), config.clone(), disk.clone(), id, now);
        let node = node.expect("the disk of a test is in order");
        let (writes, others) = (VecDeque::new(), Vec::new());
        let mut solo = Self {
            id,
            config,
            now,
            node,
            disk,
            writes,
            sent: Vec::new(),
            replies: Vec::new(),
            others,
        };
        solo.take_outputs();
        solo
    }

    pub(crate) fn status(&self) -> Status {
        self.node.status()
    }

    /// Gives the node any input, and takes what it says.
    pub(crate) fn input(&mut self, input: Input) {
        self.node.handle_input(self.now, input);
        self.node.check_invariants();
        self.take_outputs();
    }

    fn take_outputs(&mut self) {
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Persist(batch) => self.writes.push_back(batch),
                Output::Send(envelope) => {
                    self.check_promise(&envelope);
                    self.sent.push(envelope);
                }
                Output::Reply { reply, .. } => self.replies.push(reply),
                Output::Effect(_)
                | Output::ReadFile(_)
                | Output::FetchFiles { .. }
                | Output::Event(_) => self.others.push(output),
            }
        }
    }

    /// A message from a peer.
    pub(crate) fn receive(&mut self, from: u64, message: Message) {
        let (from, to) = (NodeId::new(from), NodeId::new(self.id));
        self.input(Input::Message(Envelope { from, to, message }));
    }

    pub(crate) fn request(&mut self, request: Request) {
        self.input(Input::Request { conn: ConnectionId::new(1), request });
    }

    /// Everything that was sent since this was last asked.
    pub(crate) fn sent(&mut self) -> Vec<Envelope> {
        std::mem::take(&mut self.sent)
    }

    /// What was sent to one peer since anything was last asked for.
    pub(crate) fn sent_to(&mut self, peer: u64) -> Vec<Message> {
        let to_peer = self.sent().into_iter().filter(|it| it.to == NodeId::new(peer));
        to_peer.map(|envelope| envelope.message).collect()
    }

    /// How entries were answered since anything was last asked for.
    pub(crate) fn results(&mut self) -> Vec<AppendResult> {
        let results = self.sent().into_iter().filter_map(|envelope| match envelope.message {
            Message::AppendEntriesReply(reply) => Some(reply.result),
            Message::PreVote(_)
            | Message::PreVoteReply(_)
            | Message::RequestVote(_)
            | Message::RequestVoteReply(_)
            | Message::AppendEntries(_)
            | Message::InstallSnapshot(_)
            | Message::InstallSnapshotReply(_)
            | Message::TimeoutNow { .. } => None,
        });
        results.collect()
    }

    /// How votes were answered since anything was last asked for, real ones and others.
    pub(crate) fn votes(&mut self) -> Vec<VoteReply> {
        let votes = self.sent().into_iter().filter_map(|envelope| match envelope.message {
            Message::PreVoteReply(reply) | Message::RequestVoteReply(reply) => Some(reply),
            Message::PreVote(_)
            | Message::RequestVote(_)
            | Message::AppendEntries(_)
            | Message::AppendEntriesReply(_)
            | Message::InstallSnapshot(_)
            | Message::InstallSnapshotReply(_)
            | Message::TimeoutNow { .. } => None,
        });
        votes.collect()
    }

    pub(crate) fn replies(&mut self) -> Vec<Reply> {
        std::mem::take(&mut self.replies)
    }

    /// Makes the oldest write durable, without telling the node; says which it was.
    pub(crate) fn write(&mut self) -> Option<WriteId> {
        let batch = self.writes.pop_front()?;
        let id = batch.id;
        self.disk.write(batch);
        Some(id)
    }

    /// Tells the node that its writes up to this one are durable.
    pub(crate) fn acknowledge(&mut self, up_to: WriteId) {
        self.input(Input::Persisted { up_to });
    }

    /// Makes the oldest write durable, and tells the node.
    pub(crate) fn persist(&mut self) -> bool {
        self.write().map(|id| self.acknowledge(id)).is_some()
    }

    pub(crate) fn persist_all(&mut self) {
        while self.persist() {}
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
    }

    /// Wakes the node when it wants to be woken next.
    pub(crate) fn wake(&mut self) {
        let (deadline, _) = self.node.poll_timeout().expect("a node waits for something");
        self.now = self.now.max(deadline);
        self.input(Input::Timeout);
    }

    /// Stops at once, and starts from what is durable.
    pub(crate) fn crash(&mut self) {
        let (id, config) = (NodeId::new(self.id), self.config.clone());
        let node = Node::new(id, config, self.disk.clone(), self.id, self.now);
        self.node = node.expect("a node starts from what it made durable");
        self.writes.clear();
        self.sent.clear();
        self.replies.clear();
        self.others.clear();
    }

    /// The disk as it will be once all writes are done.
    pub(crate) fn latest(&self) -> Recovered {
        let mut latest = self.disk.clone();
        for batch in &self.writes {
            latest.write(batch.clone());
        }
        latest
    }

    /// Wakes the node as often as it takes.
    pub(crate) fn wake_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..10_000 {
            if is_so(self) {
                return;
            }
            self.wake();
        }
        panic!("it never comes to this: {what}. {:?}", self.status());
    }

    /// A cluster of one that leads, with its first entry committed.
    pub(crate) fn alone(config: Config) -> Self {
        let mut node = Self::with(1, config);
        node.wake_until("a vote for itself", |node| !node.writes.is_empty());
        node.persist_all();
        node
    }

    /// Becomes a pre-candidate, and says nothing more about it.
    pub(crate) fn pre_campaign(&mut self) {
        self.wake_until("a campaign", |node| node.status().role == Role::PreCandidate);
    }

    /// Becomes the leader with the votes of these peers. Its first entry is not even durable.
    pub(crate) fn elect(&mut self, voters: &[u64]) {
        self.pre_campaign();
        let campaign = self.status().term.next();
        let vote = |term| VoteReply { term, campaign, granted: true };
        for peer in voters {
            self.receive(*peer, Message::PreVoteReply(vote(campaign.previous())));
        }
        self.persist_all();
        for peer in voters {
            self.receive(*peer, Message::RequestVoteReply(vote(campaign)));
        }
        assert_eq!(self.status().role, Role::Leader, "{:?}", self.status());
    }

    /// A peer says that its log equals this one's up to here.
    pub(crate) fn matched(&mut self, peer: u64, index: u64) {
        let result = AppendResult::Matched(LogIndex::new(index));
        self.append_reply(peer, result);
    }

    pub(crate) fn append_reply(&mut self, peer: u64, result: AppendResult) {
        let (term, round) = (self.status().term, ReadRound::ZERO);
        let reply = AppendEntriesReply { term, round, result };
        self.receive(peer, Message::AppendEntriesReply(reply));
    }

    /// Asserts that a promise is kept by the disk as it is now.
    fn check_promise(&self, envelope: &Envelope) {
        let Envelope { from, to, message } = envelope;
        let state = self.disk.hard_state;
        match message {
            Message::RequestVote(request) => {
                assert_eq!((state.term, state.vote), (request.term, Some(*from)), "{envelope:?}");
            }
            Message::RequestVoteReply(VoteReply { term, granted: true, .. }) => {
                assert_eq!((state.term, state.vote), (*term, Some(*to)), "{envelope:?}");
            }
            Message::AppendEntries(append) => assert!(state.term >= append.term, "{envelope:?}"),
            Message::AppendEntriesReply(reply) => {
                assert!(state.term >= reply.term, "the term is not durable: {envelope:?}");
                if let AppendResult::Matched(index) = reply.result {
                    self.check_durable(index);
                }
            }
            Message::InstallSnapshotReply(InstallSnapshotReply { last, result, .. }) => {
                if *result == SnapshotResult::Installed {
                    self.check_durable(last.index);
                }
            }
            Message::PreVote(_)
            | Message::PreVoteReply(_)
            | Message::RequestVoteReply(_)
            | Message::InstallSnapshot(_)
            | Message::TimeoutNow { .. } => {}
        }
    }

    /// Asserts that the disk has the node's own log up to an index, whatever is still to be written.
    fn check_durable(&self, index: LogIndex) {
        let latest = self.latest();
        let through = |disk: &Recovered| -> Vec<EntryId> {
            let ids = disk.entries.iter().map(|entry| entry.id);
            ids.filter(|id| id.index <= index && id.index > latest.snapshot.last.index).collect()
        };
        let covers = |disk: &Recovered| disk.snapshot.last.index >= index;
        let end = latest.entries.last().map_or(latest.snapshot.last, |entry| entry.id);
        assert!(covers(&latest) || end.index >= index, "it promises {index} and has {end}");
        assert!(
            covers(&self.disk) || through(&self.disk) == through(&latest),
            "it promises {index}, and a crash would take some of it: {:?}",
            self.disk
        );
    }
}

/// What nodes 1 to `voters` begin with.
pub(crate) fn bootstrap(voters: u64) -> Recovered {
    let membership = Membership::new((1..=voters).map(NodeId::new)).expect("1 to 15 voters");
    Recovered::bootstrap(membership, Limits::default()).expect("the default limits are right")
}

pub(crate) fn id(term: u64, index: u64) -> EntryId {
    EntryId::new(Term::new(term), LogIndex::new(index))
}

/// The entry of a term at an index, with nothing in it. Its stamp grows with its index.
pub(crate) fn entry(term: u64, index: u64) -> Entry {
    let stamp = LeaseTime::from_micros(index * 1000);
    Entry { id: id(term, index), stamp, payload: Payload::Empty }
}

/// The entries of a term at these indexes.
pub(crate) fn entries(term: u64, indexes: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
    indexes.map(|index| entry(term, index)).collect()
}

/// New entries, or a sign of life, from the leader of a term.
pub(crate) fn append(term: u64, previous: EntryId, entries: Vec<Entry>, commit: u64) -> Message {
    Message::AppendEntries(AppendEntries {
        term: Term::new(term),
        previous,
        entries,
        commit: LogIndex::new(commit),
        round: ReadRound::ZERO,
    })
}

pub(crate) fn vote_request(term: u64, last: EntryId) -> VoteRequest {
    VoteRequest { term: Term::new(term), last, transfer: false }
}

/// A whole snapshot in one piece.
pub(crate) fn install(term: u64, snapshot: &Snapshot) -> Message {
    install_piece(term, snapshot, 0, snapshot.data.len())
}

/// A piece of a snapshot.
pub(crate) fn install_piece(term: u64, snapshot: &Snapshot, from: usize, to: usize) -> Message {
    Message::InstallSnapshot(InstallSnapshot {
        term: Term::new(term),
        meta: snapshot.meta(),
        offset: from as u64,
        piece: snapshot.data.slice(from..to),
    })
}

pub(crate) fn matched(index: u64) -> AppendResult {
    AppendResult::Matched(LogIndex::new(index))
}
