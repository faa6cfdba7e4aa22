//! A cluster in memory: nodes and clients, a network and disks, all of it a value.
//!
//! Nothing here is random but what the seed decides, and no time passes but what a caller asks
//! for: an hour of the cluster's life takes as long as its events take to compute. Nodes and
//! clients are the ones that production runs, and every message is encoded and decoded on its way.
//! Use it to test your own code against a real lock service, without a network or a clock.
//!
//! Three nodes, two clients, one lock:
//!
//! ```
//! use quorlock_core::message::{Op, Wait};
//! use quorlock_core::sim::{Cluster, Completed, Done};
//! use quorlock_core::text::LockName;
//!
//! let mut cluster = Cluster::new(3, 1)?;
//! let (alice, bob) = (cluster.client("alice"), cluster.client("bob"));
//! let printer = LockName::new("printer")?;
//!
//! let first = cluster.acquire(alice, &printer)?;
//! let acquire = Op::Acquire { lock: printer.clone(), wait: Wait::Forever, max_hold: None };
//! let waiting = cluster.start(bob, acquire);
//! cluster.crash(cluster.leader().ok_or("no leader")?); // Bob keeps his place in the queue.
//! cluster.release(alice, &printer, first)?;
//! let Completed::Done(Done::Granted { token, .. }) = cluster.finish(bob, waiting)? else {
//!     return Err("an acquire ends with a grant".into());
//! };
//! assert!(token > first);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The network delivers in order and loses nothing, and disks keep what they said they would. What
//! can go wrong here is a crash: [`Cluster::crash`] and [`Cluster::restart`].

mod clients;
mod event;
mod host;
pub mod runs;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

pub use crate::client::{Action, CallError, CallResult, ClientConfig, Completed, SessionState};
pub use crate::message::Done;
pub use clients::ClientId;

use crate::checksum::Checksum;
use crate::config::{Config, ConfigError, Limits};
use crate::ids::{CallId, FencingToken, NodeId};
use crate::membership::Membership;
use crate::message::{FileAppend, Op, Recovered, Wait};
use crate::node::{Node, StartError, Status};
use crate::raft::Role;
use crate::text::{FileName, LockName};
use crate::time::{Duration, Time};

use clients::Clients;
use event::{Event, Queue};
use host::Host;

/// The settings of a [`Cluster`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// How many nodes; they are numbered from 1.
    pub nodes: u64,
    /// What every random choice follows from.
    pub seed: u64,
    /// The settings of every node.
    pub config: Config,
    /// The limits of the cluster.
    pub limits: Limits,
    /// The settings of every client.
    pub client: ClientConfig,
    /// How long every message takes.
    pub network_delay: Duration,
    /// How long every write takes.
    pub disk_delay: Duration,
}

impl Default for Options {
    /// Three nodes, default settings, messages that take 1 ms and writes that take 200 us.
    fn default() -> Self {
        Self {
            nodes: 3,
            seed: 1,
            config: Config::default(),
            limits: Limits::default(),
            client: ClientConfig::default(),
            network_delay: Duration::from_millis(1),
            disk_delay: Duration::from_micros(200),
        }
    }
}

/// How much time of the cluster's a call may take before [`Cluster::finish`] gives up.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// A cluster in memory. A copy of it is a cluster of its own, with the same past.
///
/// Invariant: no event lies before `now`.
#[derive(Clone, Debug)]
pub struct Cluster {
    options: Options,
    now: Time,
    queue: Queue,
    hosts: BTreeMap<NodeId, Host>,
    clients: Clients,
    /// Of every event so far.
    trace: Checksum,
}

impl Cluster {
    /// A new cluster of `nodes` nodes with default settings.
    ///
    /// # Errors
    /// [`StartError`] if there are no nodes, or too many.
    pub fn new(nodes: u64, seed: u64) -> Result<Self, StartError> {
        Self::with(Options { nodes, seed, ..Options::default() })
    }

    /// A new cluster with these settings.
    ///
    /// # Errors
    /// [`StartError`] if the settings do not work together.
    pub fn with(options: Options) -> Result<Self, StartError> {
        let voters = (1..=options.nodes).map(NodeId::new);
        let membership = Membership::new(voters)
            .map_err(|error| StartError::Config(ConfigError::from(error)))?;
        options.client.check().map_err(StartError::Config)?;
        let disk = Recovered::bootstrap(membership.clone(), options.limits.clone())
            .map_err(StartError::Config)?;
        let mut hosts = BTreeMap::new();
        for id in membership.nodes() {
            let seed = options.seed.wrapping_mul(1000).wrapping_add(id.value());
            let host = Host::start(id, &options.config, disk.clone(), seed)?;
            hosts.insert(id, host);
        }
        Ok(Self {
            options,
            now: Time::ZERO,
            queue: Queue::default(),
            hosts,
            clients: Clients::default(),
            trace: Checksum::EMPTY,
        })
    }

    /// A new client, which begins at once to open a session. The name goes into its label.
    ///
    /// # Panics
    /// If the name is longer than a label allows or has control characters.
    pub fn client(&mut self, name: &str) -> ClientId {
        let nodes: Vec<NodeId> = self.hosts.keys().copied().collect();
        let id = self.clients.add(name, &self.options, nodes, self.now);
        self.pump_client(id);
        id
    }

    /// Starts a call, and lets no time pass.
    pub fn start(&mut self, client: ClientId, action: impl Into<Action>) -> CallId {
        let call = self.clients.call(client, self.now, action.into());
        self.pump_client(client);
        call
    }

    /// How a call ended; `None` while it has not.
    #[must_use]
    pub fn result(&self, client: ClientId, call: CallId) -> Option<&CallResult> {
        self.clients.result(client, call)
    }

    /// Lets time pass until a call has ended.
    ///
    /// # Errors
    /// Those of the call.
    ///
    /// # Panics
    /// If that takes more than [`PATIENCE`] of the cluster's time.
    pub fn finish(&mut self, client: ClientId, call: CallId) -> CallResult {
        let finished = self.run_until(PATIENCE, |cluster| cluster.result(client, call).is_some());
        assert!(finished, "call {call} of {client} has not ended after {PATIENCE:?}");
        self.result(client, call).cloned().unwrap_or(Err(CallError::Unknown))
    }

    /// Starts a call and lets time pass until it has ended.
    ///
    /// # Errors
    /// Those of the call.
    ///
    /// # Panics
    /// As [`Cluster::finish`].
    pub fn call(&mut self, client: ClientId, action: impl Into<Action>) -> CallResult {
        let call = self.start(client, action);
        self.finish(client, call)
    }

    /// Acquires a lock, however long it takes.
    ///
    /// # Errors
    /// Those of [`Op::Acquire`].
    ///
    /// # Panics
    /// As [`Cluster::finish`].
    pub fn acquire(
        &mut self,
        client: ClientId,
        lock: &LockName,
    ) -> Result<FencingToken, CallError> {
        let op = Op::Acquire { lock: lock.clone(), wait: Wait::Forever, max_hold: None };
        match self.call(client, op)? {
            Completed::Done(Done::Granted { token, .. }) => Ok(token),
            other @ (Completed::Done(_) | Completed::Read { .. }) => {
                panic!("an acquire ended as {other:?}")
            }
        }
    }

    /// Appends to a file that a lock guards; gives the offset.
    ///
    /// # Errors
    /// Those of [`Op::Append`].
    ///
    /// # Panics
    /// As [`Cluster::finish`].
    pub fn append(
        &mut self,
        client: ClientId,
        lock: &LockName,
        token: FencingToken,
        file: &FileName,
        bytes: &[u8],
    ) -> Result<u64, CallError> {
        let append = FileAppend { file: file.clone(), bytes: bytes.to_vec().into() };
        match self.call(client, Op::Append { lock: lock.clone(), token, append })? {
            Completed::Done(Done::Appended { offset }) => Ok(offset),
            other @ (Completed::Done(_) | Completed::Read { .. }) => {
                panic!("an append ended as {other:?}")
            }
        }
    }

    /// Releases a lock.
    ///
    /// # Errors
    /// Those of [`Op::Release`].
    ///
    /// # Panics
    /// As [`Cluster::finish`].
    pub fn release(
        &mut self,
        client: ClientId,
        lock: &LockName,
        token: FencingToken,
    ) -> Result<(), CallError> {
        let op = Op::Release { lock: lock.clone(), token, appends: Vec::new() };
        self.call(client, op).map(drop)
    }

    /// Stops a node without warning: what its disk had not confirmed is lost. Nothing happens to
    /// one that is down.
    pub fn crash(&mut self, node: NodeId) {
        if let Some(host) = self.hosts.get_mut(&node) {
            host.crash();
        }
        let at = self.now.after(self.options.network_delay);
        for (client, attempt) in self.clients.cut(node) {
            self.queue.push(at, Event::ClientDisconnected { client, attempt });
        }
    }

    /// Starts a node again from its disk. Nothing happens to one that is up.
    pub fn restart(&mut self, node: NodeId) {
        if let Some(host) = self.hosts.get_mut(&node) {
            host.restart(&self.options.config, self.now);
        }
    }

    /// Ends a client without a word, as if its process was killed.
    pub fn remove_client(&mut self, client: ClientId) {
        if let Some((node, conn)) = self.clients.remove(client) {
            let at = self.now.after(self.options.network_delay);
            self.queue.push(at, Event::NodeDisconnected { node, conn });
        }
    }

    /// The time that has passed.
    #[must_use]
    pub fn now(&self) -> Time {
        self.now
    }

    /// The node that leads, if one of those that are up does: that of the highest term.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        let leaders = self.statuses().filter(|status| status.role == Role::Leader);
        leaders.max_by_key(|status| status.term).map(|status| status.id)
    }

    /// What each node that is up says of itself, by id.
    pub fn statuses(&self) -> impl Iterator<Item = Status> + '_ {
        self.hosts.values().filter_map(|host| host.node().map(Node::status))
    }

    /// A node; `None` when it is down, or there is none of that id.
    #[must_use]
    pub fn node(&self, node: NodeId) -> Option<&Node> {
        self.hosts.get(&node)?.node()
    }

    /// The content of a file on a node; `None` when it is not there.
    #[must_use]
    pub fn file(&self, node: NodeId, file: &FileName) -> Option<&[u8]> {
        self.hosts.get(&node)?.file(file)
    }

    /// How a client sees its session.
    #[must_use]
    pub fn session_state(&self, client: ClientId) -> Option<&SessionState> {
        self.clients.state(client)
    }

    /// The checksum of everything that has happened. Equal for equal options and equal calls, on
    /// every platform.
    #[must_use]
    pub fn trace_digest(&self) -> Checksum {
        self.trace
    }

    /// Lets `duration` pass.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        while self.step(end) {}
        self.now = end;
    }

    /// Lets time pass until `condition` holds, but no more than `patience`. Whether it held.
    pub fn run_until(
        &mut self,
        patience: Duration,
        mut condition: impl FnMut(&Self) -> bool,
    ) -> bool {
        let end = self.now.after(patience);
        while !condition(self) {
            if !self.step(end) {
                self.now = end;
                return condition(self);
            }
        }
        true
    }

    /// Lets the next thing happen: an event, or else a deadline. `false` when there is nothing
    /// until `end`.
    fn step(&mut self, end: Time) -> bool {
        let event = self.queue.next_time();
        let node = self.hosts.iter().filter_map(|(id, host)| Some((host.deadline()?, *id))).min();
        let client = self.clients.next_deadline();
        let times = [event, node.map(|(time, _)| time), client.map(|(time, _)| time)];
        let Some(next) = times.into_iter().flatten().min().filter(|time| *time <= end) else {
            return false;
        };
        self.now = self.now.max(next);
        if event.is_some_and(|time| time <= self.now) {
            if let Some(event) = self.queue.pop() {
                self.handle(event);
            }
        } else if let Some((_, id)) = node.filter(|(time, _)| *time <= self.now) {
            self.wake_node(id);
        } else if let Some((_, id)) = client {
            self.wake_client(id);
        }
        true
    }

    /// Adds a line to the trace.
    fn note(&mut self, line: &String) {
        let time = self.now.as_micros().to_le_bytes();
        self.trace = self.trace.extended(&time).extended(line.as_bytes());
    }
}
