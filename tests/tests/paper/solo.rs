//! One node on its own: its disk, its network and all of its peers are the test.

use std::collections::VecDeque;

use bytes::Bytes;
use quorlock_core::codec;
use quorlock_core::config::{Config, Limits};
use quorlock_core::ids::{
    ConnectionId, EntryId, LogIndex, NodeId, ReadRound, Sequence, SessionId, Term,
};
use quorlock_core::lock::Command;
use quorlock_core::membership::Membership;
use quorlock_core::message::{
    Acked, AppendEntries, AppendEntriesReply, AppendResult, Entry, Envelope, Message, Op, Payload,
    Recovered, Reply, Request, Submission, VoteReply, VoteRequest, WriteBatch,
};
use quorlock_core::node::{Input, Node, Output, Status, Timer};
use quorlock_core::raft::{RaftTimer, Role};
use quorlock_core::time::{Duration, LeaseTime, Time};

/// A message that the node sent, and to whom.
pub(crate) type Sent = (u64, Message);

/// The settings in which all of these tests count.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(50);
pub(crate) const ELECTION_MIN: Duration = Duration::from_millis(250);
pub(crate) const ELECTION_MAX: Duration = Duration::from_millis(500);

/// Node 1 of a cluster of which nothing else exists.
///
/// What it writes is durable at once, unless the test holds the disk.
#[derive(Clone, Debug)]
pub(crate) struct Solo {
    node: Node,
    now: Time,
    disk: Recovered,
    disk_held: bool,
    /// Batches that are not durable yet.
    writes: VecDeque<WriteBatch>,
    /// All batches since they were last taken, durable or not.
    written: Vec<WriteBatch>,
    sent: Vec<Sent>,
    replies: Vec<Reply>,
}

impl Solo {
    /// A new node of a new cluster.
    pub(crate) fn new(nodes: u64) -> Self {
        Self::start(disk(nodes, 0, &[]))
    }

    /// One that stopped in `term` with a log of entries of these terms.
    pub(crate) fn with_log(nodes: u64, term: u64, log: &[u64]) -> Self {
        Self::start(disk(nodes, term, log))
    }

    /// One that starts from a disk.
    pub(crate) fn start(disk: Recovered) -> Self {
        Self::start_seeded(disk, 1)
    }

    /// The same with a seed for its time-outs.
    pub(crate) fn start_seeded(disk: Recovered, seed: u64) -> Self {
        let config = Config {
            heartbeat_interval: HEARTBEAT,
            election_timeout_min: ELECTION_MIN,
            election_timeout_max: ELECTION_MAX,
            ..Config::default()
        };
        let node = Node::new(NodeId::new(1), config, disk.clone(), seed, Time::ZERO);
        Self {
            node: node.expect("the disk of a test is sound"),
            now: Time::ZERO,
            disk,
            disk_held: false,
            writes: VecDeque::new(),
            written: Vec::new(),
            sent: Vec::new(),
            replies: Vec::new(),
        }
    }

    /// One that was just elected for `term` by everybody. The log is that from before, and then the
    /// first entry of its term, durable here and on its way to the others.
    pub(crate) fn leader(nodes: u64, term: u64, log: &[u64]) -> Self {
        let mut node = Self::with_log(nodes, term - 1, log);
        node.become_leader();
        node
    }

    /// The same, and all others have the whole log, which is committed.
    pub(crate) fn settled_leader(nodes: u64, term: u64, log: &[u64]) -> Self {
        let mut node = Self::leader(nodes, term, log);
        let last = node.status().last.index.value();
        for peer in 2..=nodes {
            node.receive(peer, matched(term, last));
        }
        // The commit index goes around.
        node.advance(HEARTBEAT);
        for peer in 2..=nodes {
            node.receive(peer, matched(term, last));
        }
        assert_eq!(node.commit(), last, "the log is committed");
        node.take_written();
        node
    }

    /// A crash, and a start from what is durable.
    pub(crate) fn restart(self) -> Self {
        Self::start(self.disk)
    }

    pub(crate) fn status(&self) -> Status {
        self.node.status()
    }

    pub(crate) fn role(&self) -> Role {
        self.status().role
    }

    pub(crate) fn term(&self) -> u64 {
        self.status().term.value()
    }

    pub(crate) fn commit(&self) -> u64 {
        self.status().commit.value()
    }

    pub(crate) fn applied(&self) -> u64 {
        self.status().applied.value()
    }

    /// What is durable.
    pub(crate) fn disk(&self) -> &Recovered {
        &self.disk
    }

    /// The terms of the entries that are durable.
    pub(crate) fn log(&self) -> Vec<u64> {
        self.disk.entries.iter().map(|entry| entry.id.term.value()).collect()
    }

    pub(crate) fn now(&self) -> Time {
        self.now
    }

    /// When it wants to be woken.
    pub(crate) fn deadline(&self) -> Time {
        self.node.poll_timeout().expect("a node always waits for something").0
    }

    /// Gives it an input, and returns what it sends upon that.
    pub(crate) fn input(&mut self, input: Input) -> Vec<Sent> {
        self.node.handle_input(self.now, input);
        self.node.check_invariants();
        self.take_outputs();
        self.take_sent()
    }

    /// Gives it a message of a peer, and returns what it sends upon that.
    pub(crate) fn receive(&mut self, from: u64, message: Message) -> Vec<Sent> {
        let (from, to) = (NodeId::new(from), NodeId::new(1));
        self.input(Input::Message(Envelope { from, to, message }))
    }

    /// Gives it a request of a client, and returns what it sends to its peers upon that.
    pub(crate) fn request(&mut self, request: Request) -> Vec<Sent> {
        self.input(Input::Request { conn: ConnectionId::new(1), request })
    }

    /// What it told clients since this was last asked.
    pub(crate) fn take_replies(&mut self) -> Vec<Reply> {
        std::mem::take(&mut self.replies)
    }

    /// What it wrote to its disk since this was last asked.
    pub(crate) fn take_written(&mut self) -> Vec<WriteBatch> {
        std::mem::take(&mut self.written)
    }

    fn take_sent(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.sent)
    }

    fn take_outputs(&mut self) {
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Persist(batch) => {
                    self.written.push(batch.clone());
                    self.writes.push_back(batch);
                }
                Output::Send(envelope) => self.sent.push((envelope.to.value(), envelope.message)),
                Output::Reply { reply, .. } => self.replies.push(reply),
                Output::Effect(_)
                | Output::ReadFile(_)
                | Output::FetchFiles { .. }
                | Output::Event(_) => (),
            }
        }
        if !self.disk_held {
            self.finish_write();
        }
    }

    /// From now on, writes wait for [`Solo::persist`].
    pub(crate) fn hold_disk(&mut self) {
        self.disk_held = true;
    }

    /// Makes the oldest write durable, and returns what the node sends upon that.
    pub(crate) fn persist(&mut self) -> Vec<Sent> {
        assert!(!self.writes.is_empty(), "there is something to write");
        self.finish_write();
        self.take_sent()
    }

    fn finish_write(&mut self) {
        if let Some(batch) = self.writes.pop_front() {
            let up_to = batch.id;
            self.disk.write(batch);
            self.node.handle_input(self.now, Input::Persisted { up_to });
            self.node.check_invariants();
            self.take_outputs();
        }
    }

    /// Time passes, and nobody wakes it.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
    }

    /// Time passes, and it is woken whenever it wants to be. Returns what it sends meanwhile.
    pub(crate) fn advance(&mut self, time: Duration) -> Vec<Sent> {
        let end = self.now.after(time);
        let mut sent = Vec::new();
        while self.deadline() <= end {
            self.now = self.now.max(self.deadline());
            sent.extend(self.wake());
        }
        self.now = end;
        sent
    }

    /// Wakes it, due or not.
    pub(crate) fn wake(&mut self) -> Vec<Sent> {
        self.input(Input::Timeout)
    }

    /// Its election time-out passes. Returns what it sends upon that.
    pub(crate) fn campaign(&mut self) -> Vec<Sent> {
        loop {
            let (deadline, timer) = self.node.poll_timeout().expect("a follower waits");
            self.now = self.now.max(deadline);
            let sent = self.wake();
            if timer == Timer::Raft(RaftTimer::Election) {
                return sent;
            }
        }
    }

    /// Its election time-out passes, and all others would vote for it. Returns what it sends upon
    /// that.
    pub(crate) fn become_candidate(&mut self) -> Vec<Sent> {
        let term = self.term() + 1;
        let mut sent = Vec::new();
        for (peer, _) in self.campaign() {
            sent.extend(self.receive(peer, pre_vote_reply(term - 1, term, true)));
        }
        assert_eq!(self.term(), term, "it campaigns");
        sent
    }

    /// Its election time-out passes, and all others vote for it. Returns what it sends as the
    /// leader.
    pub(crate) fn become_leader(&mut self) -> Vec<Sent> {
        let requests = self.become_candidate();
        let term = self.term();
        let mut sent = Vec::new();
        for (peer, _) in requests {
            sent.extend(self.receive(peer, vote(term)));
        }
        assert_eq!(self.role(), Role::Leader, "it is elected");
        sent
    }
}

/// Lets a leader and one of its followers talk until both are silent. Each takes the other for node
/// 2. Returns what the follower answered.
pub(crate) fn converse(
    leader: &mut Solo,
    said: Vec<Sent>,
    follower: &mut Solo,
) -> Vec<AppendResult> {
    let mut to_follower: VecDeque<Message> = said.into_iter().filter_map(to_second).collect();
    let mut results = Vec::new();
    while let Some(message) = to_follower.pop_front() {
        for (_, reply) in follower.receive(2, message) {
            if let Message::AppendEntriesReply(reply) = &reply {
                results.push(reply.result.clone());
            }
            to_follower.extend(leader.receive(2, reply).into_iter().filter_map(to_second));
        }
    }
    results
}

fn to_second((to, message): Sent) -> Option<Message> {
    (to == 2).then_some(message)
}

/// The `AppendEntries` among what was sent, and to whom.
pub(crate) fn appends(sent: &[Sent]) -> Vec<(u64, &AppendEntries)> {
    sent.iter().filter_map(as_append).collect()
}

fn as_append((to, message): &Sent) -> Option<(u64, &AppendEntries)> {
    if let Message::AppendEntries(append) = message { Some((*to, append)) } else { None }
}

/// The one `AppendEntries` that was sent to a node.
pub(crate) fn append_to(sent: &[Sent], node: u64) -> AppendEntries {
    let mut found: Vec<AppendEntries> = appends(sent)
        .into_iter()
        .filter(|(to, _)| *to == node)
        .map(|(_, append)| append.clone())
        .collect();
    assert_eq!(found.len(), 1, "node {node} is sent one AppendEntries: {sent:?}");
    found.remove(0)
}

/// What node 1 of `nodes` has on its disk after `term`, with a log of entries of these terms.
pub(crate) fn disk(nodes: u64, term: u64, log: &[u64]) -> Recovered {
    let membership = Membership::new((1..=nodes).map(NodeId::new)).expect("1 to 15 nodes");
    let mut disk = Recovered::bootstrap(membership, Limits::default()).expect("limits that work");
    disk.hard_state.term = Term::new(term);
    disk.entries = entries(1, log);
    disk
}

/// The identity of the entry of a term at an index.
pub(crate) fn at(index: u64, term: u64) -> EntryId {
    EntryId::new(Term::new(term), LogIndex::new(index))
}

/// The entry of a term at an index. What it carries names it, and no lock table can read it.
pub(crate) fn entry(index: u64, term: u64) -> Entry {
    let id = at(index, term);
    // A request of a session that nobody opened: it tells entries apart, and changes nothing.
    let command = Command::Submit(Submission {
        session: SessionId::new(1_000_000 + index),
        sequence: Sequence::new(term),
        acked: Acked::default(),
        op: Op::CloseSession,
    });
    let payload = Payload::Command(Bytes::from(codec::encode(&command)));
    Entry { id, stamp: LeaseTime::ZERO, payload }
}

/// Entries of these terms, from an index on.
pub(crate) fn entries(first: u64, terms: &[u64]) -> Vec<Entry> {
    (first..).zip(terms).map(|(index, term)| entry(index, *term)).collect()
}

/// The identities of entries.
pub(crate) fn ids(entries: &[Entry]) -> Vec<EntryId> {
    entries.iter().map(|entry| entry.id).collect()
}

/// `AppendEntries` with entries of these terms after `previous`.
pub(crate) fn append_entries(term: u64, previous: EntryId, terms: &[u64], commit: u64) -> Message {
    Message::AppendEntries(AppendEntries {
        term: Term::new(term),
        previous,
        entries: entries(previous.index.value() + 1, terms),
        commit: LogIndex::new(commit),
        round: ReadRound::ZERO,
    })
}

/// `AppendEntries` without entries.
pub(crate) fn heartbeat(term: u64, previous: EntryId, commit: u64) -> Message {
    append_entries(term, previous, &[], commit)
}

/// The answer to an `AppendEntries` in no round.
pub(crate) fn append_reply(term: u64, result: AppendResult) -> Message {
    let round = ReadRound::ZERO;
    Message::AppendEntriesReply(AppendEntriesReply { term: Term::new(term), round, result })
}

/// The answer that the log matches up to an index.
pub(crate) fn matched(term: u64, index: u64) -> Message {
    append_reply(term, AppendResult::Matched(LogIndex::new(index)))
}

/// The answer that the log has no such entry at `previous`.
pub(crate) fn conflict(term: u64, previous: u64, hint: EntryId) -> Message {
    append_reply(term, AppendResult::Conflict { previous: LogIndex::new(previous), hint })
}

fn vote_request(term: u64, last: EntryId) -> VoteRequest {
    VoteRequest { term: Term::new(term), last, transfer: false }
}

/// `RequestVote` of a candidate of a term, with the end of its log.
pub(crate) fn request_vote(term: u64, last: EntryId) -> Message {
    Message::RequestVote(vote_request(term, last))
}

/// The same of one that the leader told to campaign.
pub(crate) fn request_vote_for_transfer(term: u64, last: EntryId) -> Message {
    Message::RequestVote(VoteRequest { transfer: true, ..vote_request(term, last) })
}

/// `PreVote` of a node that would campaign in a term.
pub(crate) fn pre_vote(term: u64, last: EntryId) -> Message {
    Message::PreVote(vote_request(term, last))
}

fn vote_reply(term: u64, campaign: u64, granted: bool) -> VoteReply {
    VoteReply { term: Term::new(term), campaign: Term::new(campaign), granted }
}

/// A vote in a term.
pub(crate) fn vote(term: u64) -> Message {
    Message::RequestVoteReply(vote_reply(term, term, true))
}

/// The refusal, by a node in `term`, of a vote in the term of `campaign`.
pub(crate) fn no_vote(term: u64, campaign: u64) -> Message {
    Message::RequestVoteReply(vote_reply(term, campaign, false))
}

/// What a node in `term` says to a `PreVote` for `campaign`.
pub(crate) fn pre_vote_reply(term: u64, campaign: u64, granted: bool) -> Message {
    Message::PreVoteReply(vote_reply(term, campaign, granted))
}

/// The same message to each of these nodes.
pub(crate) fn to_each(nodes: impl IntoIterator<Item = u64>, message: &Message) -> Vec<Sent> {
    nodes.into_iter().map(|node| (node, message.clone())).collect()
}
