//! The lab: a cluster in memory that does only what it is told to.
//!
//! A simulator draws everything at random and finds what nobody thought of. A lab is for what
//! somebody did think of: "the vote is written, but not yet durable, and now the leader's message
//! arrives". A test, or a golden script, moves every message, every write and every time-out by
//! hand, or asks for a stretch of the ordinary ([`Lab::settle`], [`Lab::run`], [`Lab::elect`]).
//!
//! A lab is a value. Its clone is the same cluster at the same moment, which is what exploring every
//! interleaving needs.
//!
//! # Its parts
//! - [`LabNode`]: the node (none while crashed), its disk (a [`Recovered`], changed only by
//!   [`Recovered::write`]), the batches and effects that are under way, and its files, with what
//!   would survive a crash kept apart.
//! - the mail: envelopes on their way, delivered in whatever order the test says. Every message,
//!   request and reply is encoded and decoded on the way.
//! - connections of clients, raw ([`Lab::request`], [`Lab::open`], [`Lab::submit`]) or with the
//!   core's client at the other end ([`Lab::add_client`]).
//! - one clock for everybody, which moves only by [`Lab::pass`], [`Lab::advance`], [`Lab::run`]
//!   and [`Lab::timeout`].
//! - the checks (`lab/checks.rs`): after every input, the node's own invariants and what must hold between
//!   nodes. They look at disks, which no node can do.
//!
//! # Words
//! A *held* node is one whose writes ([`Lab::hold_writes`]), effects ([`Lab::hold_effects`]) or
//! fetches ([`Lab::hold_fetches`]) wait until the test itself finishes them; everybody else's are
//! finished whenever the lab settles, or at once with [`Lab::auto_persist`].
//!
//! Nodes are named by small numbers, as in `lab.timeout(1)`.

mod checks;
mod clients;
mod disk;
mod files;
mod network;
mod node;
mod recovery;
mod sessions;
#[cfg(test)]
mod tests;
mod trace;

use std::collections::BTreeMap;

use quorlock_core::checksum::Checksum;
use quorlock_core::codec::{self, Encodable};
use quorlock_core::config::{Config, Limits};
use quorlock_core::ids::{ConnectionId, EntryId, NodeId};
use quorlock_core::membership::Membership;
use quorlock_core::message::{Recovered, Reply, Request};
use quorlock_core::node::{Input, Node, Output, Status, Timer};
use quorlock_core::raft::{RaftTimer, Role};
use quorlock_core::time::{Duration, Time};

use checks::Checks;
pub use clients::ClientNews;
use clients::LabClient;
use network::Network;
use node::Work;
pub use node::{LabNode, MissingFiles};
use recovery::RecoveryPoint;
use sessions::Sessions;
pub use sessions::{label, nonce};
pub use trace::{LossReason, TraceEvent};

/// How many things may happen before a lab that settles is taken to go round in circles.
const STEPS_MAX: u32 = 100_000;

/// What a lab starts with.
#[derive(Clone, Debug)]
pub struct LabOptions {
    /// How many nodes, numbered from 1. All of them vote.
    pub nodes: u64,
    /// The settings of every node.
    pub config: Config,
    /// The limits that the cluster is bootstrapped with.
    pub limits: Limits,
    /// What all random time-outs come from.
    pub seed: u64,
}

impl Default for LabOptions {
    /// Three nodes with the settings that every node has by default.
    fn default() -> Self {
        Self { nodes: 3, config: Config::default(), limits: Limits::default(), seed: 1 }
    }
}

/// A cluster that does only what it is told to. See the [module](self).
#[derive(Clone, Debug)]
pub struct Lab {
    options: LabOptions,
    now: Time,
    nodes: BTreeMap<NodeId, LabNode>,
    network: Network,
    /// What raw connections were answered and nobody has taken yet.
    replies: BTreeMap<ConnectionId, Vec<Reply>>,
    sessions: Sessions,
    clients: BTreeMap<String, LabClient>,
    auto_persist: bool,
    auto_effects: bool,
    checks: Checks,
    recovery_points: Option<Vec<RecoveryPoint>>,
    trace: Option<Vec<TraceEvent>>,
}

impl Lab {
    /// A new cluster of followers, at time zero.
    ///
    /// # Panics
    /// If the options do not work together.
    #[must_use]
    pub fn new(options: LabOptions) -> Self {
        let members = (1..=options.nodes).map(NodeId::new);
        let membership = Membership::new(members).expect("a lab has 1 to 15 nodes");
        let recovered = Recovered::bootstrap(membership, options.limits.clone());
        let recovered = recovered.expect("the limits of a lab work");
        let disks = (1..=options.nodes).map(|n| (n, recovered.clone())).collect();
        Self::from_recovered(options, disks)
    }

    /// A cluster whose nodes start from these disks, as after a crash of all of them. There is one
    /// node for each disk; `options.nodes` and `options.limits` decide nothing.
    ///
    /// # Panics
    /// If a disk is damaged, or the settings do not work with it.
    #[must_use]
    pub fn from_recovered(options: LabOptions, disks: BTreeMap<u64, Recovered>) -> Self {
        let checks = Checks::new(&disks);
        let mut lab = Self {
            options,
            now: Time::ZERO,
            nodes: BTreeMap::new(),
            network: Network::default(),
            replies: BTreeMap::new(),
            sessions: Sessions::default(),
            clients: BTreeMap::new(),
            auto_persist: false,
            auto_effects: false,
            checks,
            recovery_points: None,
            trace: None,
        };
        for (n, disk) in disks {
            lab.nodes.insert(NodeId::new(n), LabNode::down(disk));
            lab.start(NodeId::new(n));
        }
        lab
    }

    /// The settings it was made with.
    #[must_use]
    pub fn options(&self) -> &LabOptions {
        &self.options
    }

    /// What every clock shows.
    #[must_use]
    pub fn now(&self) -> Time {
        self.now
    }

    /// The numbers of all nodes.
    pub fn ids(&self) -> impl Iterator<Item = u64> + use<> {
        let ids: Vec<u64> = self.nodes.keys().map(|id| id.value()).collect();
        ids.into_iter()
    }

    /// A node with its disk and its files.
    ///
    /// # Panics
    /// If there is no node with this number.
    #[must_use]
    pub fn lab_node(&self, n: u64) -> &LabNode {
        self.nodes.get(&NodeId::new(n)).expect("the test names a node of the lab")
    }

    fn lab_node_mut(&mut self, n: u64) -> &mut LabNode {
        self.nodes.get_mut(&NodeId::new(n)).expect("the test names a node of the lab")
    }

    /// A node that runs.
    ///
    /// # Panics
    /// If it is down.
    #[must_use]
    pub fn node(&self, n: u64) -> &Node {
        self.lab_node(n).node().expect("the test names a node that runs")
    }

    /// Whether a node runs.
    #[must_use]
    pub fn is_up(&self, n: u64) -> bool {
        self.lab_node(n).node().is_some()
    }

    /// What a node that runs says of itself.
    ///
    /// # Panics
    /// If it is down.
    #[must_use]
    pub fn status(&self, n: u64) -> Status {
        self.node(n).status()
    }

    /// Whether a node runs and leads.
    #[must_use]
    pub fn is_leader(&self, n: u64) -> bool {
        self.lab_node(n).node().is_some_and(|node| node.status().role == Role::Leader)
    }

    /// Of the nodes that run and lead, the one of the latest term.
    #[must_use]
    pub fn leader(&self) -> Option<u64> {
        let leaders = self.ids().filter(|n| self.is_leader(*n));
        leaders.max_by_key(|n| self.status(*n).term)
    }

    /// The entries that a node has in its log, durable or on their way to the disk, without those
    /// that a snapshot has replaced.
    #[must_use]
    pub fn log_of(&self, n: u64) -> Vec<EntryId> {
        self.lab_node(n).latest().entries.iter().map(|entry| entry.id).collect()
    }

    /// Gives a node any input. Nothing happens when it is down.
    pub fn input(&mut self, n: u64, input: Input) {
        let now = self.now;
        let Some(node) = self.lab_node_mut(n).node_mut() else {
            return;
        };
        node.handle_input(now, input);
        node.check_invariants();
        self.take_outputs(NodeId::new(n));
    }

    /// From now on, batches are durable as soon as they are written.
    pub fn auto_persist(&mut self, on: bool) {
        self.auto_persist = on;
        for n in self.ids() {
            self.finish_automatically(NodeId::new(n));
        }
    }

    /// From now on, effects are durable as soon as they are output.
    pub fn auto_effects(&mut self, on: bool) {
        self.auto_effects = on;
        for n in self.ids() {
            self.finish_automatically(NodeId::new(n));
        }
    }

    /// Does everything that needs no time, until nothing is left: delivers what is in the mail,
    /// finishes writes, effects and fetches that are not held, carries requests and replies.
    ///
    /// # Panics
    /// If there is no end to it.
    pub fn settle(&mut self) {
        for _ in 0..STEPS_MAX {
            if !self.settle_step() {
                return;
            }
        }
        panic!("the lab does not come to rest");
    }

    fn settle_step(&mut self) -> bool {
        self.deliver_at(0)
            || self.carry_client_mail()
            || self.ids().any(|n| !self.lab_node(n).holds(Work::Writes) && self.persist(n))
            || self.ids().any(|n| !self.lab_node(n).holds(Work::Effects) && self.effects_durable(n))
            || self.ids().any(|n| !self.lab_node(n).holds(Work::Fetches) && self.fetch(n))
    }

    /// Takes what a node says, does what can be done at once, and checks the whole.
    fn take_outputs(&mut self, id: NodeId) {
        if self.nodes[&id].holds(Work::Outputs) {
            return;
        }
        while let Some(output) = self.poll(id) {
            self.handle_output(id, output);
        }
        self.check(id);
        self.finish_automatically(id);
    }

    fn poll(&mut self, id: NodeId) -> Option<Output> {
        self.nodes.get_mut(&id)?.node_mut()?.poll_output()
    }

    fn handle_output(&mut self, id: NodeId, output: Output) {
        match output {
            Output::Persist(batch) => self.begin_write(id, batch),
            Output::Send(envelope) => self.send(envelope),
            Output::Effect(effect) => self.begin_effect(id, effect),
            Output::Reply { conn, reply } => self.reply(id, conn, reply),
            Output::ReadFile(read) => self.read_file(id, read),
            Output::FetchFiles { snapshot, from, files } => {
                self.begin_fetch(id, MissingFiles { snapshot, from, files });
            }
            Output::Event(event) => {
                self.trace(|| TraceEvent::Event { node: id, event: event.clone() });
                self.checks.event(id, event);
            }
        }
    }

    fn finish_automatically(&mut self, id: NodeId) {
        while self.auto_persist && !self.nodes[&id].holds(Work::Writes) && self.persist(id.value())
        {
        }
        if self.auto_effects && !self.nodes[&id].holds(Work::Effects) {
            self.effects_durable(id.value());
        }
    }

    /// What must hold between nodes, after each input of one of them.
    fn check(&mut self, id: NodeId) {
        let mut checks = std::mem::take(&mut self.checks);
        let before = checks.applied_by(id);
        checks.observe(id, &self.nodes);
        let up_to = checks.applied_by(id);
        self.checks = checks;
        if up_to > before {
            self.trace(|| TraceEvent::Applied { node: id, up_to });
        }
        self.lab_node_mut(id.value()).compact_latest();
    }

    /// Sends a request of a client to a node. Nothing happens when it is down.
    pub fn request(&mut self, n: u64, conn: u64, request: Request) {
        let (node, conn) = (NodeId::new(n), ConnectionId::new(conn));
        let request = on_the_wire(&request);
        self.trace(|| TraceEvent::Request { node, conn, request: request.clone() });
        self.input(n, Input::Request { conn, request });
    }

    /// What a connection was told since this was last asked.
    pub fn replies(&mut self, conn: u64) -> Vec<Reply> {
        self.replies.remove(&ConnectionId::new(conn)).unwrap_or_default()
    }

    /// Tells a node that a connection is gone.
    pub fn disconnect(&mut self, n: u64, conn: u64) {
        let (node, conn) = (NodeId::new(n), ConnectionId::new(conn));
        self.trace(|| TraceEvent::Disconnected { node, conn });
        self.input(n, Input::Disconnected { conn });
    }

    /// Passes a reply on to whoever is at the other end of the connection.
    fn reply(&mut self, node: NodeId, conn: ConnectionId, reply: Reply) {
        let reply = on_the_wire(&reply);
        self.checks.reply(&reply);
        self.trace(|| TraceEvent::Reply { node, conn, reply: reply.clone() });
        match self.clients.values_mut().find(|client| client.owns(conn)) {
            Some(client) => client.receive(conn, reply),
            None => self.replies.entry(conn).or_default().push(reply),
        }
    }

    /// Asks a node to hand its leadership over; `None` leaves it the choice to whom.
    pub fn transfer(&mut self, n: u64, to: Option<u64>) {
        self.input(n, Input::TransferLeadership { to: to.map(NodeId::new) });
    }

    /// Moves the clock to a node's next deadline, and wakes that node alone.
    ///
    /// # Panics
    /// If the node is down, or has no deadline.
    pub fn timeout(&mut self, n: u64) -> Timer {
        let (deadline, timer) = self.node(n).poll_timeout().expect("the node waits for something");
        self.now = self.now.max(deadline);
        self.wake(n);
        timer
    }

    /// Moves the clock to where a node's election time-out passes, and wakes it on the way as often
    /// as it asks for.
    ///
    /// # Panics
    /// If that never happens, as with a leader.
    pub fn campaign(&mut self, n: u64) {
        for _ in 0..STEPS_MAX {
            if self.timeout(n) == Timer::Raft(RaftTimer::Election) {
                return;
            }
        }
        panic!("node {n} does not wait for an election");
    }

    /// Has a node campaign, and everything delivered and made durable, until it leads.
    ///
    /// # Panics
    /// If it does not come to lead.
    pub fn elect(&mut self, n: u64) {
        for _ in 0..20 {
            if self.is_leader(n) {
                return;
            }
            self.campaign(n);
            self.settle();
        }
        panic!("node {n} is not elected: {:#?}", self.status(n));
    }

    /// Wakes a node, due or not.
    pub fn wake(&mut self, n: u64) {
        let timer = self.lab_node(n).node().and_then(Node::poll_timeout);
        let (node, at) = (NodeId::new(n), self.now);
        self.trace(|| TraceEvent::Woken { node, at, timer: timer.map(|(_, timer)| timer) });
        self.input(n, Input::Timeout);
        let next = self.lab_node(n).node().and_then(Node::poll_timeout);
        if let Some((deadline, timer)) = next {
            let outputs_taken = !self.lab_node(n).holds(Work::Outputs);
            assert!(
                deadline > self.now || !outputs_taken,
                "node {n} would be woken for {timer:?} without end"
            );
        }
    }

    /// Time passes, and nobody is woken.
    pub fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
    }

    /// Time passes, and whoever is due is woken in time. Nothing is delivered or made durable.
    pub fn advance(&mut self, time: Duration) {
        self.advance_with(time, |_| ());
    }

    /// Time passes as it does in a cluster where messages and disks take no time.
    pub fn run(&mut self, time: Duration) {
        self.settle();
        self.advance_with(time, Self::settle);
    }

    fn advance_with(&mut self, time: Duration, mut after_each: impl FnMut(&mut Self)) {
        let end = self.now.after(time);
        for _ in 0..STEPS_MAX {
            let node = self.ids().filter_map(|n| Some((self.deadline(n)?, n))).min();
            let client = self.client_deadline();
            let earliest = node.map(|(at, _)| at).into_iter().chain(client).min();
            let Some(at) = earliest.filter(|at| *at <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(at);
            match node {
                Some((due, n)) if due == at => self.wake(n),
                Some(_) | None => self.wake_clients(),
            }
            after_each(self);
        }
        panic!("time does not get on");
    }

    /// When a node wants to be woken; `None` when it is down.
    #[must_use]
    pub fn deadline(&self, n: u64) -> Option<Time> {
        self.lab_node(n).node()?.poll_timeout().map(|(deadline, _)| deadline)
    }

    /// A checksum of everything that decides what happens next, to recognise a state that was
    /// reached before. The clock is part of it.
    #[must_use]
    pub fn fingerprint(&self) -> Checksum {
        let state = format!(
            "{:?}{:?}{:?}{:?}{:?}",
            self.now, self.nodes, self.network, self.replies, self.clients
        );
        Checksum::of(state.as_bytes())
    }
}

/// What arrives when this value is sent: encoded and decoded.
fn on_the_wire<T: Encodable + PartialEq + std::fmt::Debug>(value: &T) -> T {
    let decoded = codec::decode(&codec::encode(value)).expect("what is encoded can be decoded");
    assert_eq!(decoded, *value, "encoding loses nothing");
    decoded
}
