//! The clients, and their connections.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;
use core::fmt;

use super::event::Event;
use super::{Action, CallResult, Cluster, Options, SessionState};
use crate::client::{Client, ClientInput, ClientOutput};
use crate::codec;
use crate::ids::{AttemptId, CallId, ClientNonce, ConnectionId, NodeId};
use crate::message::Reply;
use crate::node::Input;
use crate::text::{Label, Text};
use crate::time::Time;

/// A client of a [`Cluster`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientId(u64);

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {}", self.0)
    }
}

#[derive(Clone, Debug)]
struct Host {
    client: Client,
    calls: CallId,
    results: BTreeMap<CallId, CallResult>,
    connection: Option<Connection>,
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    attempt: AttemptId,
    node: NodeId,
    conn: ConnectionId,
}

/// All clients, by id.
#[derive(Clone, Debug, Default)]
pub(super) struct Clients {
    hosts: BTreeMap<ClientId, Host>,
    /// The clients that ever were.
    count: u64,
    /// The connections that were ever made; no number is used again.
    connections: ConnectionId,
}

impl Clients {
    pub(super) fn add(
        &mut self,
        name: &str,
        options: &Options,
        nodes: Vec<NodeId>,
        now: Time,
    ) -> ClientId {
        self.count += 1;
        let number = self.count;
        let command = Text::new(name).expect("the name of a client fits into a label");
        let label = Label { command, ..Label::default() };
        let nonce = ClientNonce(options.seed, number);
        let seed = options.seed.wrapping_mul(1000).wrapping_sub(number);
        let client = Client::new(options.client.clone(), nodes, label, nonce, seed, now);
        let client = client.expect("the cluster has nodes, and has checked the settings");
        let host = Host { client, calls: CallId::ZERO, results: BTreeMap::new(), connection: None };
        let id = ClientId(number);
        self.hosts.insert(id, host);
        id
    }

    fn host(&mut self, id: ClientId) -> &mut Host {
        self.hosts.get_mut(&id).expect("the client is one of this cluster's, and still there")
    }

    /// Removes a client; gives its connection, if it had one.
    pub(super) fn remove(&mut self, id: ClientId) -> Option<(NodeId, ConnectionId)> {
        let connection = self.hosts.remove(&id)?.connection?;
        Some((connection.node, connection.conn))
    }

    pub(super) fn call(&mut self, id: ClientId, now: Time, action: Action) -> CallId {
        let host = self.host(id);
        host.calls = host.calls.next();
        host.client.handle_input(now, ClientInput::Call { call: host.calls, action });
        host.calls
    }

    pub(super) fn result(&self, id: ClientId, call: CallId) -> Option<&CallResult> {
        self.hosts.get(&id)?.results.get(&call)
    }

    pub(super) fn state(&self, id: ClientId) -> Option<&SessionState> {
        Some(self.hosts.get(&id)?.client.state())
    }

    pub(super) fn next_deadline(&self) -> Option<(Time, ClientId)> {
        let deadline = |(id, host): (&ClientId, &Host)| Some((host.client.poll_timeout()?.0, *id));
        self.hosts.iter().filter_map(deadline).min()
    }

    /// The client at the other end of a connection.
    pub(super) fn of_connection(&self, conn: ConnectionId) -> Option<(ClientId, AttemptId)> {
        self.hosts.iter().find_map(|(id, host)| {
            let connection = host.connection.filter(|connection| connection.conn == conn)?;
            Some((*id, connection.attempt))
        })
    }

    /// Cuts all connections with a node.
    pub(super) fn cut(&mut self, node: NodeId) -> Vec<(ClientId, AttemptId)> {
        let mut cut = Vec::new();
        for (id, host) in &mut self.hosts {
            if let Some(connection) = host.connection.take_if(|connection| connection.node == node)
            {
                cut.push((*id, connection.attempt));
            }
        }
        cut
    }
}

impl Cluster {
    pub(super) fn handle(&mut self, event: Event) {
        match event {
            Event::Message { from, to, bytes } => self.deliver_message(from, to, &bytes),
            Event::Request { node, conn, bytes } => self.deliver_request(node, conn, &bytes),
            Event::Reply { client, attempt, bytes } => {
                let reply = codec::decode::<Reply>(&bytes).expect("a node's reply decodes");
                self.client_input(client, ClientInput::Reply { attempt, reply });
            }
            Event::Connect { client, attempt, node } => self.connect(client, attempt, node),
            Event::ClientDisconnected { client, attempt } => {
                self.client_input(client, ClientInput::Disconnected { attempt });
            }
            Event::NodeDisconnected { node, conn } => {
                self.input(node, Input::Disconnected { conn });
            }
            Event::Written { node, incarnation, batch } => self.written(node, incarnation, batch),
            Event::EffectDurable { node, incarnation, effect } => {
                self.effect_durable(node, incarnation, &effect);
            }
            Event::Fetched { fetch, incarnation } => self.fetched(&fetch, incarnation),
        }
    }

    pub(super) fn wake_client(&mut self, id: ClientId) {
        let before = self.clients.host(id).client.poll_timeout();
        self.client_input(id, ClientInput::Timeout);
        let after = self.clients.host(id).client.poll_timeout();
        assert!(before != after, "a deadline that passed is over: {before:?}");
    }

    /// Gives a client an input, unless it was removed.
    fn client_input(&mut self, id: ClientId, input: ClientInput) {
        if !self.clients.hosts.contains_key(&id) {
            return;
        }
        self.note(&format!("{id} {input:?}"));
        let now = self.now;
        let client = &mut self.clients.host(id).client;
        client.handle_input(now, input);
        client.check_invariants();
        self.pump_client(id);
    }

    /// Does what a client wants.
    pub(super) fn pump_client(&mut self, id: ClientId) {
        while let Some(output) = self.clients.host(id).client.poll_output() {
            self.note(&format!("{id} {output:?}"));
            self.perform_for_client(id, output);
        }
    }

    fn perform_for_client(&mut self, id: ClientId, output: ClientOutput) {
        let at = self.now.after(self.options.network_delay);
        let host = self.clients.host(id);
        match output {
            ClientOutput::Connect { attempt, node } => {
                self.queue.push(at, Event::Connect { client: id, attempt, node });
            }
            ClientOutput::Disconnect { attempt } => {
                let is_this = |connection: &mut Connection| connection.attempt == attempt;
                if let Some(Connection { node, conn, .. }) = host.connection.take_if(is_this) {
                    self.queue.push(at, Event::NodeDisconnected { node, conn });
                }
            }
            ClientOutput::Send { attempt, request } => {
                let connection = host.connection.filter(|open| open.attempt == attempt);
                if let Some(Connection { node, conn, .. }) = connection {
                    let bytes = codec::encode(&request);
                    self.queue.push(at, Event::Request { node, conn, bytes });
                }
            }
            ClientOutput::Finished { call, result } => {
                let earlier = host.results.insert(call, result);
                assert!(earlier.is_none(), "a call ends once");
            }
            ClientOutput::State(_) | ClientOutput::Lost(_) => {}
        }
    }

    fn connect(&mut self, id: ClientId, attempt: AttemptId, node: NodeId) {
        if self.node(node).is_none() {
            self.client_input(id, ClientInput::Disconnected { attempt });
            return;
        }
        self.clients.connections = self.clients.connections.next();
        let conn = self.clients.connections;
        self.clients.host(id).connection = Some(Connection { attempt, node, conn });
        self.client_input(id, ClientInput::Connected { attempt });
    }
}
