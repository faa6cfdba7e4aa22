//! The core's exactly-once client, at the other end of connections that the test holds in its hand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use quorlock_core::client::{
    Action, CallResult, Client, ClientConfig, ClientInput, ClientOutput, SessionState,
};
use quorlock_core::ids::{AttemptId, CallId, ConnectionId, NodeId};
use quorlock_core::message::{Loss, Reply, Request};
use quorlock_core::time::Time;

use super::sessions::{label, nonce};
use super::trace::TraceEvent;
use super::{Lab, on_the_wire};

/// Something that a client did or learned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientNews {
    /// It wants a connection to a node.
    Connects(NodeId),
    /// It has the connection.
    Connected(NodeId),
    /// It has a connection no more, or did not get it.
    Disconnected(NodeId),
    /// It gave a connection up.
    GaveUp(NodeId),
    /// It sent a request. It is on its way.
    Sent(NodeId, Request),
    /// A reply arrived.
    Received(NodeId, Reply),
    /// A request or a reply will never arrive.
    MailLost,
    /// It was woken.
    Woken(Time),
    /// The application made a call.
    Called(CallId, Action),
    /// A call is over.
    Finished(CallId, CallResult),
    /// Its session changed its state.
    State(SessionState),
    /// It lost a lock.
    Lost(Loss),
}

/// A client with its connections and what is on its way on them.
///
/// Invariant: `connections` has the connections of `attempts` that are made, and every earlier one.
#[derive(Clone, Debug)]
pub(super) struct LabClient {
    client: Client,
    /// Attempts that the client has not given up, and their connection once it is there.
    attempts: BTreeMap<AttemptId, (NodeId, Option<ConnectionId>)>,
    connections: BTreeSet<ConnectionId>,
    /// What is on its way to nodes.
    outbox: VecDeque<ToNode>,
    /// What is on its way to the client.
    inbox: VecDeque<(ConnectionId, Reply)>,
    /// Nodes to and from which everything is lost.
    cuts: BTreeSet<NodeId>,
    /// Its mail waits for the test.
    held: bool,
    /// Its process is stopped: it is not woken, and nothing arrives.
    paused: bool,
    calls: u64,
    results: BTreeMap<CallId, CallResult>,
    news: Vec<ClientNews>,
}

/// Something on its way from a client to a node.
#[derive(Clone, Debug)]
enum ToNode {
    Connect(AttemptId, NodeId),
    Disconnect(NodeId, ConnectionId),
    Request(NodeId, ConnectionId, Request),
}

impl LabClient {
    /// Whether a connection is, or was, this client's.
    pub(super) fn owns(&self, conn: ConnectionId) -> bool {
        self.connections.contains(&conn)
    }

    /// A reply is on its way.
    pub(super) fn receive(&mut self, conn: ConnectionId, reply: Reply) {
        self.inbox.push_back((conn, reply));
    }

    fn attempt(&self, conn: ConnectionId) -> Option<(AttemptId, NodeId)> {
        let attempt = self.attempts.iter().find(|(_, (_, of))| *of == Some(conn));
        attempt.map(|(attempt, (node, _))| (*attempt, *node))
    }
}

impl Lab {
    /// A client that knows these nodes, and begins at once to open its session.
    ///
    /// # Panics
    /// If its settings do not work together, or there is a client with this name.
    pub fn add_client(&mut self, name: &str, config: ClientConfig, nodes: &[u64]) {
        let nodes = nodes.iter().copied().map(NodeId::new);
        let seed = nonce(name).0 ^ self.options.seed;
        let client = Client::new(config, nodes, label(name), nonce(name), seed, self.now);
        let client = LabClient {
            client: client.expect("the settings of a client in a test are right"),
            attempts: BTreeMap::new(),
            connections: BTreeSet::new(),
            outbox: VecDeque::new(),
            inbox: VecDeque::new(),
            cuts: BTreeSet::new(),
            held: false,
            paused: false,
            calls: 0,
            results: BTreeMap::new(),
            news: Vec::new(),
        };
        let earlier = self.clients.insert(name.to_owned(), client);
        assert!(earlier.is_none(), "there is a client {name} already");
        self.take_client_outputs(name);
    }

    /// A client of the core.
    #[must_use]
    pub fn client(&self, name: &str) -> &Client {
        &self.clients.get(name).expect("the test names a client of the lab").client
    }

    /// The client that has, or had, a connection; `None` when the test itself has it.
    #[must_use]
    pub fn client_of(&self, conn: ConnectionId) -> Option<&str> {
        let end = self.clients.iter().find(|(_, client)| client.owns(conn));
        end.map(|(name, _)| name.as_str())
    }

    fn lab_client(&mut self, name: &str) -> &mut LabClient {
        self.clients.get_mut(name).expect("the test names a client of the lab")
    }

    /// What a client did and learned since this was last asked.
    pub fn client_news(&mut self, name: &str) -> Vec<ClientNews> {
        std::mem::take(&mut self.lab_client(name).news)
    }

    /// Makes a call. Its result comes with [`Lab::result`].
    pub fn call(&mut self, name: &str, action: Action) -> CallId {
        let client = self.lab_client(name);
        client.calls += 1;
        let call = CallId::new(client.calls);
        self.news(name, ClientNews::Called(call, action.clone()));
        self.client_input(name, ClientInput::Call { call, action });
        call
    }

    /// How a call ended; `None` while it has not.
    #[must_use]
    pub fn result(&self, name: &str, call: CallId) -> Option<&CallResult> {
        self.clients.get(name).and_then(|client| client.results.get(&call))
    }

    /// Everything between a client and a node is lost from now on, without either being told.
    pub fn cut_client(&mut self, name: &str, n: u64) {
        self.lab_client(name).cuts.insert(NodeId::new(n));
    }

    /// What [`Lab::cut_client`] did is over.
    pub fn restore_client(&mut self, name: &str, n: u64) {
        self.lab_client(name).cuts.remove(&NodeId::new(n));
    }

    /// What a client sends and is sent waits from now on until the test carries it.
    pub fn hold_client(&mut self, name: &str, hold: bool) {
        self.lab_client(name).held = hold;
    }

    /// Stops a client's process, or lets it go on. Meanwhile it is not woken, and what it is sent
    /// waits.
    pub fn pause_client(&mut self, name: &str, pause: bool) {
        self.lab_client(name).paused = pause;
    }

    /// Breaks the connection of a client. Both ends are told.
    pub fn break_client(&mut self, name: &str) {
        for (attempt, (node, conn)) in self.lab_client(name).attempts.clone() {
            if let Some(conn) = conn {
                self.disconnect(node.value(), conn.value());
            }
            self.disconnected(name, attempt);
        }
    }

    /// Carries the oldest thing that a client has sent; false when there is none.
    pub fn carry_to_node(&mut self, name: &str) -> bool {
        let client = self.lab_client(name);
        let Some(mail) = client.outbox.pop_front() else {
            return false;
        };
        match mail {
            ToNode::Connect(attempt, node) => self.connect(name, attempt, node),
            ToNode::Disconnect(node, conn) => self.disconnect(node.value(), conn.value()),
            ToNode::Request(node, _, _) if client.cuts.contains(&node) => {
                self.news(name, ClientNews::MailLost);
            }
            ToNode::Request(node, conn, request) => {
                self.request(node.value(), conn.value(), request);
            }
        }
        true
    }

    /// Carries the oldest thing that was sent to a client; false when there is none.
    pub fn carry_to_client(&mut self, name: &str) -> bool {
        let client = self.lab_client(name);
        let Some((conn, reply)) = client.inbox.pop_front() else {
            return false;
        };
        let Some((attempt, node)) = client.attempt(conn) else {
            return true;
        };
        if client.cuts.contains(&node) {
            self.news(name, ClientNews::MailLost);
        } else {
            self.news(name, ClientNews::Received(node, reply.clone()));
            self.client_input(name, ClientInput::Reply { attempt, reply });
        }
        true
    }

    /// Loses the oldest thing that was sent to a client; false when there is none.
    pub fn drop_to_client(&mut self, name: &str) -> bool {
        let lost = self.lab_client(name).inbox.pop_front().is_some();
        if lost {
            self.news(name, ClientNews::MailLost);
        }
        lost
    }

    /// Loses the oldest thing that a client has sent; false when there is none.
    pub fn drop_to_node(&mut self, name: &str) -> bool {
        let lost = self.lab_client(name).outbox.pop_front().is_some();
        if lost {
            self.news(name, ClientNews::MailLost);
        }
        lost
    }

    /// What is on its way to a client, oldest first.
    pub fn client_inbox(&self, name: &str) -> impl Iterator<Item = &Reply> {
        let inbox = self.clients.get(name).map(|client| client.inbox.iter());
        inbox.into_iter().flatten().map(|(_, reply)| reply)
    }

    /// Carries one thing of any client whose mail is not held.
    pub(super) fn carry_client_mail(&mut self) -> bool {
        let names: Vec<String> = self.clients.keys().cloned().collect();
        names.iter().any(|name| {
            let client = &self.clients[name];
            let (held, paused) = (client.held, client.paused);
            !held && (self.carry_to_node(name) || (!paused && self.carry_to_client(name)))
        })
    }

    /// Makes a connection if it can be made. Where everything is lost, nobody is told.
    fn connect(&mut self, name: &str, attempt: AttemptId, node: NodeId) {
        if self.lab_client(name).cuts.contains(&node) {
            self.news(name, ClientNews::MailLost);
            return;
        }
        if !self.is_up(node.value()) {
            self.disconnected(name, attempt);
            return;
        }
        let conn = ConnectionId::new(self.new_connection());
        let client = self.lab_client(name);
        let Some((_, made)) = client.attempts.get_mut(&attempt) else {
            return;
        };
        *made = Some(conn);
        client.connections.insert(conn);
        self.news(name, ClientNews::Connected(node));
        self.client_input(name, ClientInput::Connected { attempt });
    }

    fn disconnected(&mut self, name: &str, attempt: AttemptId) {
        if let Some((node, _)) = self.lab_client(name).attempts.remove(&attempt) {
            self.news(name, ClientNews::Disconnected(node));
            self.client_input(name, ClientInput::Disconnected { attempt });
        }
    }

    /// A node has stopped: its connections break.
    pub(super) fn break_connections(&mut self, node: NodeId) {
        let broken: Vec<(String, AttemptId)> = self
            .clients
            .iter()
            .flat_map(|(name, client)| {
                let made = client.attempts.iter().filter(|(_, (to, conn))| {
                    *to == node && conn.is_some() && !client.cuts.contains(to)
                });
                made.map(|(attempt, _)| (name.clone(), *attempt)).collect::<Vec<_>>()
            })
            .collect();
        for (name, attempt) in broken {
            self.disconnected(&name, attempt);
        }
    }

    /// When the first of the clients that are not paused wants to be woken.
    pub(super) fn client_deadline(&self) -> Option<Time> {
        let running = self.clients.values().filter(|client| !client.paused);
        running.filter_map(|client| client.client.poll_timeout().map(|(at, _)| at)).min()
    }

    /// Wakes the clients that are due.
    pub(super) fn wake_clients(&mut self) {
        let now = self.now;
        let due = |client: &LabClient| {
            !client.paused && client.client.poll_timeout().is_some_and(|(at, _)| at <= now)
        };
        let names = self.clients.iter().filter(|(_, client)| due(client));
        let names: Vec<String> = names.map(|(name, _)| name.clone()).collect();
        for name in names {
            self.wake_client(&name);
        }
    }

    /// Wakes a client, due or not.
    pub fn wake_client(&mut self, name: &str) {
        self.news(name, ClientNews::Woken(self.now));
        self.client_input(name, ClientInput::Timeout);
        let next = self.client(name).poll_timeout();
        let moved = next.is_none_or(|(at, _)| at > self.now);
        assert!(moved, "client {name} would be woken for {next:?} without end");
    }

    fn client_input(&mut self, name: &str, input: ClientInput) {
        let now = self.now;
        let client = self.lab_client(name);
        client.client.handle_input(now, input);
        client.client.check_invariants();
        self.take_client_outputs(name);
    }

    fn take_client_outputs(&mut self, name: &str) {
        while let Some(output) = self.lab_client(name).client.poll_output() {
            self.handle_client_output(name, output);
        }
    }

    fn handle_client_output(&mut self, name: &str, output: ClientOutput) {
        let client = self.lab_client(name);
        match output {
            ClientOutput::Connect { attempt, node } => {
                client.attempts.insert(attempt, (node, None));
                client.outbox.push_back(ToNode::Connect(attempt, node));
                self.news(name, ClientNews::Connects(node));
            }
            ClientOutput::Disconnect { attempt } => {
                let Some((node, conn)) = client.attempts.remove(&attempt) else {
                    return;
                };
                let bye = conn.map(|conn| ToNode::Disconnect(node, conn));
                client.outbox.extend(bye);
                self.news(name, ClientNews::GaveUp(node));
            }
            ClientOutput::Send { attempt, request } => {
                let request = on_the_wire(&request);
                let Some((node, Some(conn))) = client.attempts.get(&attempt).copied() else {
                    return;
                };
                client.outbox.push_back(ToNode::Request(node, conn, request.clone()));
                self.news(name, ClientNews::Sent(node, request));
            }
            ClientOutput::Finished { call, result } => {
                let earlier = client.results.insert(call, result.clone());
                assert!(earlier.is_none(), "call {call} of {name} ends once");
                self.news(name, ClientNews::Finished(call, result));
            }
            ClientOutput::State(state) => self.news(name, ClientNews::State(state)),
            ClientOutput::Lost(loss) => self.news(name, ClientNews::Lost(loss)),
        }
    }

    fn news(&mut self, name: &str, news: ClientNews) {
        self.trace(|| TraceEvent::Client { name: name.to_owned(), news: news.clone() });
        self.lab_client(name).news.push(news);
    }
}
