//! A cluster in memory, with disks that lose what was not written, and with a checker that looks
//! at everything that happens.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use std::format;

use bytes::Bytes;

use crate::checksum::Checksum;
use crate::codec;
use crate::config::Config;
use crate::ids::{EntryId, LogIndex, NodeId, ReadRound, Term, WriteId};
use crate::membership::Membership;
use crate::message::{
    AppendResult, Entry, Envelope, HardState, Message, Payload, Recovered, Snapshot,
    SnapshotResult, WriteBatch,
};
use crate::raft::{Raft, RaftAction, Role};
use crate::time::{Duration, LeaseTime, Time};

/// The node with this number.
pub(super) fn node(number: u64) -> NodeId {
    NodeId::new(number)
}

/// The entry `index` of `term`.
pub(super) fn id(term: u64, index: u64) -> EntryId {
    EntryId::new(Term::new(term), LogIndex::new(index))
}

/// The index with this number.
pub(super) fn index(number: u64) -> LogIndex {
    LogIndex::new(number)
}

/// An entry with a small command.
pub(super) fn entry(term: u64, index: u64) -> Entry {
    let payload = Payload::Command(Bytes::from(format!("{index}@{term}")));
    Entry { id: id(term, index), stamp: LeaseTime::from_micros(index), payload }
}

/// Small limits, so that every one of them is met.
pub(super) fn config() -> Config {
    Config {
        message_entries_max: 4,
        message_bytes_max: 1 << 10,
        in_flight_entries_max: 8,
        in_flight_bytes_max: 2 << 10,
        snapshot_piece_bytes: 20,
        uncommitted_entries_max: 20,
        pending_reads_max: 5,
        ..Config::default()
    }
}

/// What a new node starts from.
pub(super) fn bootstrap(size: u64) -> Recovered {
    Recovered {
        hard_state: HardState::default(),
        snapshot: Snapshot {
            last: EntryId::ZERO,
            stamp: LeaseTime::ZERO,
            membership: Membership::new((1..=size).map(node)).expect("a small cluster"),
            data: state_bytes(Checksum::EMPTY),
        },
        entries: Vec::new(),
    }
}

/// The applied state is the checksum of everything that was applied; a snapshot repeats it, so
/// that it takes several pieces.
fn state_bytes(state: Checksum) -> Bytes {
    Bytes::from(state.value().to_le_bytes().repeat(4))
}

fn state_of(snapshot: &Snapshot) -> Checksum {
    let bytes = snapshot.data.first_chunk::<8>().expect("a state has its length");
    let value = u64::from_le_bytes(*bytes);
    codec_checksum(value)
}

fn codec_checksum(value: u64) -> Checksum {
    let bytes = postcard::to_allocvec(&value).expect("a number can be encoded");
    postcard::from_bytes(&bytes).expect("a checksum is a number")
}

/// How often something happened.
pub(super) type Seen = BTreeMap<&'static str, u64>;

/// One node and its disk.
#[derive(Clone)]
pub(super) struct Host {
    /// `None` while it is down.
    pub(super) raft: Option<Raft>,
    pub(super) disk: Recovered,
    /// Handed out, and not written.
    pub(super) unwritten: VecDeque<WriteBatch>,
    written: WriteId,
    /// Whether it writes at once.
    pub(super) writes_at_once: bool,
    state: Checksum,
    /// Received and not judged yet.
    pub(super) received: Option<EntryId>,
    /// The rounds that were asked for: what had been committed then.
    asked: Vec<(ReadRound, LogIndex)>,
    pub(super) confirmed: Vec<(ReadRound, LogIndex)>,
    pub(super) roles: Vec<Role>,
    /// The transfers that came to nothing.
    pub(super) expired: Vec<NodeId>,
}

/// The nodes, what is on its way between them, and what must always be true of all of it.
#[derive(Clone)]
pub(super) struct Cluster {
    pub(super) now: Time,
    pub(super) config: Config,
    pub(super) hosts: BTreeMap<NodeId, Host>,
    pub(super) network: VecDeque<Envelope>,
    /// From whom to whom nothing gets through.
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    starts: u64,
    /// Election safety: the one leader of each term.
    leaders: BTreeMap<Term, NodeId>,
    /// State machine safety: what was applied at each index, and the state after it.
    applied: BTreeMap<LogIndex, (Entry, Checksum)>,
    pub(super) seen: Seen,
}

impl Cluster {
    /// A new cluster of `size` nodes, with disks that write at once.
    pub(super) fn new(size: u64) -> Self {
        Self::with(size, config())
    }

    pub(super) fn with(size: u64, config: Config) -> Self {
        let mut cluster = Self {
            now: Time::from_micros(1_000_000),
            config,
            hosts: BTreeMap::new(),
            network: VecDeque::new(),
            cut: BTreeSet::new(),
            starts: 0,
            leaders: BTreeMap::new(),
            applied: BTreeMap::new(),
            seen: Seen::new(),
        };
        for number in 1..=size {
            let disk = bootstrap(size);
            let host = Host {
                raft: None,
                state: state_of(&disk.snapshot),
                disk,
                unwritten: VecDeque::new(),
                written: WriteId::ZERO,
                writes_at_once: true,
                received: None,
                asked: Vec::new(),
                confirmed: Vec::new(),
                roles: Vec::new(),
                expired: Vec::new(),
            };
            cluster.hosts.insert(node(number), host);
            cluster.start(number);
        }
        cluster
    }

    /// Starts a node from its disk.
    pub(super) fn start(&mut self, number: u64) {
        self.starts += 1;
        let (seed, now, config) = (self.starts, self.now, self.config.clone());
        let host = self.host(number);
        let raft = Raft::new(node(number), &config, host.disk.clone(), seed, now)
            .expect("the disk has what was written to it");
        host.state = state_of(&host.disk.snapshot);
        host.raft = Some(raft);
        (host.written, host.received) = (WriteId::ZERO, None);
        host.asked.clear();
    }

    /// Stops a node. What was not written is lost.
    pub(super) fn crash(&mut self, number: u64) {
        let host = self.host(number);
        host.raft = None;
        host.unwritten.clear();
    }

    pub(super) fn host(&mut self, number: u64) -> &mut Host {
        self.hosts.get_mut(&node(number)).expect("a node of this cluster")
    }

    pub(super) fn raft(&mut self, number: u64) -> &mut Raft {
        self.host(number).raft.as_mut().expect("a node that is up")
    }

    /// Whether a node is up.
    pub(super) fn is_up(&self, number: u64) -> bool {
        self.hosts.get(&node(number)).is_some_and(|host| host.raft.is_some())
    }

    /// Does something to a node, then what it asks for.
    pub(super) fn act<T>(&mut self, number: u64, act: impl FnOnce(&mut Raft, Time) -> T) -> T {
        let now = self.now;
        let result = act(self.raft(number), now);
        self.drain(number);
        result
    }

    /// Does what a node asks for, until it asks for nothing more.
    fn drain(&mut self, number: u64) {
        loop {
            self.raft(number).check_invariants();
            let action = self.raft(number).poll_action();
            self.apply(number);
            match action {
                Some(action) => self.perform(number, action),
                None => break,
            }
        }
        self.check_leader(number);
    }

    fn perform(&mut self, number: u64, action: RaftAction) {
        let now = self.now;
        if let Some(event) = event(&action) {
            *self.seen.entry(event).or_insert(0) += 1;
        }
        match action {
            RaftAction::Persist(batch) => {
                let host = self.host(number);
                host.unwritten.push_back(batch);
                if host.writes_at_once {
                    host.write(usize::MAX);
                    let up_to = host.written;
                    self.raft(number).handle_persisted(now, up_to);
                }
            }
            RaftAction::Send(envelope) => {
                self.check_promise(&envelope);
                let bytes = codec::encode(&envelope.message);
                let decoded = codec::decode::<Message>(&bytes).expect("it was encoded");
                assert!(decoded == envelope.message, "a message has one encoding");
                self.network.push_back(envelope);
            }
            RaftAction::ReadConfirmed { round, index } => {
                let host = self.host(number);
                let (asked, rest) = host.asked.iter().partition(|(asked, _)| *asked == round);
                host.asked = rest;
                let asked: Vec<(ReadRound, LogIndex)> = asked;
                assert!(!asked.is_empty(), "a round that nobody asked for");
                assert!(asked.iter().all(|(_, seen)| *seen <= index), "a stale read");
                host.confirmed.push((round, index));
            }
            RaftAction::SnapshotReceived(snapshot) => {
                self.host(number).received = Some(snapshot.last);
            }
            RaftAction::SnapshotInstalled { last } => {
                let snapshot = self.raft(number).snapshot().clone();
                assert!(snapshot.last == last, "another snapshot was installed");
                self.host(number).state = state_of(&snapshot);
                self.check_state(number, last.index);
            }
            RaftAction::TransferExpired { to } => self.host(number).expired.push(to),
            RaftAction::RoleChanged { role, .. } => self.host(number).roles.push(role),
        }
    }

    /// Writes what was handed out, and says so.
    pub(super) fn write(&mut self, number: u64, batches: usize) {
        let host = self.host(number);
        host.write(batches);
        let up_to = host.written;
        self.act(number, |raft, now| raft.handle_persisted(now, up_to));
    }

    /// Applies everything that is committed, once the snapshot of which it follows is installed.
    fn apply(&mut self, number: u64) {
        let installing = |host: &Host| {
            let raft = host.raft.as_ref().expect("a node that is up");
            raft.applied().index == raft.snapshot().last.index
        };
        if installing(self.host(number)) {
            let snapshot = self.raft(number).snapshot().clone();
            self.host(number).state = state_of(&snapshot);
        }
        while let Some(entry) = self.raft(number).next_to_apply() {
            let host = self.host(number);
            host.state = host.state.extended(&codec::encode(&entry));
            let (index, after) = (entry.id.index, (entry, host.state));
            let known = self.applied.entry(index).or_insert_with(|| after.clone());
            assert!(*known == after, "two nodes applied different entries at {index}");
        }
    }

    fn check_state(&mut self, number: u64, at: LogIndex) {
        let state = self.host(number).state;
        let known = self.applied.get(&at).map(|(_, state)| *state);
        assert!(known == Some(state), "a snapshot of something that was never applied");
    }

    /// Election safety and leader completeness (paper, figure 3).
    fn check_leader(&mut self, number: u64) {
        let raft = self.raft(number).clone();
        if raft.role() != Role::Leader {
            return;
        }
        let leader = self.leaders.entry(raft.term()).or_insert(raft.id());
        assert!(*leader == raft.id(), "two leaders in term {}", raft.term());
        for (index, (entry, _)) in self.applied.range(raft.log_base().index.next()..) {
            let is_older = entry.id.term < raft.term();
            let own = raft.entry(*index);
            assert!(
                !is_older || own == Some(entry),
                "the leader lacks the committed {:?}",
                entry.id
            );
        }
    }

    /// Log matching (paper, figure 3): where two logs have an entry with the same identity, they
    /// are equal up to there.
    pub(super) fn check_log_matching(&self) {
        let rafts: Vec<&Raft> = self.hosts.values().filter_map(|host| host.raft.as_ref()).collect();
        for (position, a) in rafts.iter().enumerate() {
            for b in rafts.iter().skip(position + 1) {
                check_pair(a, b);
            }
        }
    }

    /// Whatever a message promises must be on the disk of its sender before it leaves.
    fn check_promise(&mut self, envelope: &Envelope) {
        let host = self.hosts.get(&envelope.from).expect("a node of this cluster");
        let (disk, raft) = (&host.disk, host.raft.as_ref().expect("a node that is up"));
        let term_on_disk = disk.hard_state.term;
        let disk_has = |index: LogIndex| {
            let last = disk.entries.last().map_or(disk.snapshot.last, |entry| entry.id);
            let on_disk = disk.entries.iter().find(|entry| entry.id.index == index);
            let is_same = on_disk.is_none_or(|entry| raft.entry(index).is_none_or(|e| e == entry));
            last.max(disk.snapshot.last).index >= index && is_same
        };
        match &envelope.message {
            Message::RequestVote(request) => {
                assert!(term_on_disk == request.term, "a campaign before its term is durable");
                assert!(disk.hard_state.vote == Some(envelope.from), "its vote is not durable");
            }
            Message::RequestVoteReply(reply) => {
                assert!(term_on_disk == reply.term, "a vote before its term is durable");
                let voted = disk.hard_state.vote == Some(envelope.to);
                assert!(!reply.granted || voted, "a vote that is not durable");
            }
            Message::AppendEntriesReply(reply) => {
                assert!(term_on_disk == reply.term, "an answer before its term is durable");
                if let AppendResult::Matched(index) = reply.result {
                    assert!(disk_has(index), "acknowledged before it is durable");
                }
            }
            Message::InstallSnapshotReply(reply) => {
                assert!(term_on_disk == reply.term, "an answer before its term is durable");
                if reply.result == SnapshotResult::Installed {
                    assert!(disk_has(reply.last.index), "installed before it is durable");
                }
            }
            Message::AppendEntries(append) => {
                assert!(term_on_disk == append.term, "a leader whose term is not durable");
            }
            Message::PreVote(_)
            | Message::PreVoteReply(_)
            | Message::InstallSnapshot(_)
            | Message::TimeoutNow { .. } => {}
        }
    }

    /// Asks for a read, and takes note of what it must see.
    pub(super) fn read(&mut self, number: u64) -> Option<ReadRound> {
        let newest = self.applied.last_key_value().map_or(LogIndex::ZERO, |(index, _)| *index);
        let now = self.now;
        let round = self.raft(number).request_read(now).ok()?;
        self.host(number).asked.push((round, newest));
        self.drain(number);
        Some(round)
    }

    /// Takes a snapshot of what was applied.
    pub(super) fn compact(&mut self, number: u64, retained: u64) {
        let data = state_bytes(self.host(number).state);
        self.act(number, |raft, _| {
            let snapshot = raft.snapshot_of(data);
            raft.compact(snapshot, retained);
        });
    }

    /// Judges a snapshot that was received.
    pub(super) fn judge(&mut self, number: u64, ok: bool) {
        if let Some(last) = self.host(number).received.take() {
            self.act(number, |raft, now| raft.snapshot_ready(now, last, ok));
        }
    }

    /// Delivers a message.
    pub(super) fn deliver(&mut self, envelope: Envelope) {
        let is_cut = self.cut.contains(&(envelope.from, envelope.to));
        let number = envelope.to.value();
        if !is_cut && self.is_up(number) {
            self.act(number, |raft, now| raft.handle_message(now, envelope));
        }
    }

    /// Delivers everything, and judges every snapshot, until all is quiet.
    pub(super) fn settle(&mut self) {
        for _ in 0..10_000 {
            let Some(envelope) = self.network.pop_front() else { return };
            self.deliver(envelope);
            for number in self.numbers() {
                if self.is_up(number) {
                    self.judge(number, true);
                }
            }
        }
        panic!("the nodes do not come to rest");
    }

    /// Everything that a node keeps, for every node.
    pub(super) fn raft_states(&self) -> Vec<Option<&Raft>> {
        self.hosts.values().map(|host| host.raft.as_ref()).collect()
    }

    pub(super) fn numbers(&self) -> Vec<u64> {
        self.hosts.keys().map(|node| node.value()).collect()
    }

    /// Lets time pass without messages.
    pub(super) fn sleep(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
    }

    /// Fires the time-outs that are due.
    pub(super) fn fire(&mut self) {
        for number in self.numbers() {
            let now = self.now;
            if self.is_up(number)
                && self.raft(number).poll_timeout().is_some_and(|(at, _)| at <= now)
            {
                self.act(number, Raft::handle_timeout);
            }
        }
    }

    /// Runs for a while: time passes, everything is delivered at once.
    pub(super) fn run(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        while self.now < end {
            self.sleep(Duration::from_millis(5));
            self.fire();
            self.settle();
        }
        self.check_log_matching();
    }

    /// The only leader that a quorum follows, after the cluster ran long enough to have one.
    pub(super) fn leader(&mut self) -> u64 {
        self.run(Duration::from_secs(3));
        let leaders: Vec<u64> = self
            .numbers()
            .into_iter()
            .filter(|number| self.is_up(*number) && self.raft(*number).role() == Role::Leader)
            .collect();
        let newest = leaders.into_iter().max_by_key(|number| self.raft(*number).term());
        newest.expect("a cluster that can talk elects a leader")
    }

    /// Makes this node the leader.
    pub(super) fn lead(&mut self, number: u64) {
        let leader = self.leader();
        if leader != number {
            self.act(leader, |raft, now| raft.transfer_leadership(now, Some(node(number))))
                .expect("leadership can be handed over");
            self.settle();
        }
        assert_eq!(self.raft(number).role(), Role::Leader);
    }

    /// Proposes a small command.
    pub(super) fn propose(&mut self, number: u64) -> Option<EntryId> {
        let bytes = Bytes::from(format!("{}/{:?}", number, self.now));
        self.act(number, |raft, now| raft.propose(now, Payload::Command(bytes)).ok())
    }

    /// Separates some nodes from all others.
    pub(super) fn isolate(&mut self, numbers: &[u64]) {
        for a in self.numbers() {
            for b in self.numbers() {
                if numbers.contains(&a) != numbers.contains(&b) {
                    self.cut.insert((node(a), node(b)));
                }
            }
        }
    }
}

impl Host {
    /// Writes at most so many of the batches that were handed out.
    fn write(&mut self, batches: usize) {
        for batch in self.unwritten.drain(..batches.min(self.unwritten.len())) {
            self.written = batch.id;
            check_batch(&self.disk, &batch);
            self.disk.write(batch);
        }
    }
}

/// A storage may rely on this.
fn check_batch(disk: &Recovered, batch: &WriteBatch) {
    let left = |entry: &&Entry| batch.truncate_from.is_none_or(|from| entry.id.index < from);
    let last = disk.entries.iter().rfind(left).map(|entry| entry.id.index);
    let last = if batch.truncate_from.is_none() && last.is_none() {
        Some(disk.snapshot.last.index)
    } else {
        last
    };
    let first = batch.entries.first().map(|entry| entry.id.index);
    if let (Some(last), Some(first)) = (last, first) {
        assert!(first == last.next(), "entries from {first} on do not follow {last}");
    }
}

fn check_pair(a: &Raft, b: &Raft) {
    let mut index = a.log_last().index.min(b.log_last().index);
    let base = a.log_base().index.max(b.log_base().index);
    let mut equal = false;
    while index > base {
        let (own, other) = (a.entry(index), b.entry(index));
        equal |= own.map(|entry| entry.id) == other.map(|entry| entry.id);
        assert!(!equal || own == other, "logs differ at {index} and agree later");
        index = index.previous();
    }
}

/// What is worth counting.
fn event(action: &RaftAction) -> Option<&'static str> {
    match action {
        RaftAction::Persist(batch) => batch.truncate_from.map(|_| "truncated"),
        RaftAction::Send(envelope) => match &envelope.message {
            Message::TimeoutNow { .. } => Some("transfer"),
            Message::AppendEntriesReply(reply) => match reply.result {
                AppendResult::Conflict { .. } => Some("conflict"),
                AppendResult::Matched(_) => None,
                AppendResult::StaleTerm => Some("stale"),
            },
            Message::PreVote(_)
            | Message::PreVoteReply(_)
            | Message::RequestVote(_)
            | Message::RequestVoteReply(_)
            | Message::AppendEntries(_)
            | Message::InstallSnapshot(_)
            | Message::InstallSnapshotReply(_) => None,
        },
        RaftAction::ReadConfirmed { .. } => Some("read"),
        RaftAction::SnapshotReceived(_) => Some("snapshot received"),
        RaftAction::SnapshotInstalled { .. } => Some("snapshot installed"),
        RaftAction::TransferExpired { .. } => Some("transfer expired"),
        RaftAction::RoleChanged { role: Role::Leader, .. } => Some("leader"),
        RaftAction::RoleChanged { .. } => None,
    }
}
