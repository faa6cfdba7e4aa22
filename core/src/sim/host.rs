//! The host of one node: its disk, its files, and everything that goes in and out.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;

use super::Cluster;
use super::event::{Event, Fetch, Incarnation};
use crate::checksum::Checksum;
use crate::codec;
use crate::config::Config;
use crate::ids::{ConnectionId, LogIndex, NodeId};
use crate::message::{Answer, Effect, Envelope, Message, Recovered, Reply, Request, WriteBatch};
use crate::node::{FileRead, Input, Node, Output, StartError};
use crate::text::FileName;
use crate::time::Time;

type Files = BTreeMap<FileName, Vec<u8>>;

/// A node with a disk and files.
#[derive(Clone, Debug)]
pub(super) struct Host {
    id: NodeId,
    seed: u64,
    incarnation: Incarnation,
    /// `None` while it is down.
    node: Option<Node>,
    /// What is durable of the log.
    disk: Recovered,
    /// The files as a reader sees them, and what is durable of them.
    files: Files,
    durable_files: Files,
    /// The entries whose effects are in `files` and not yet durable, one for each effect.
    effects: VecDeque<LogIndex>,
}

impl Host {
    pub(super) fn start(
        id: NodeId,
        config: &Config,
        disk: Recovered,
        seed: u64,
    ) -> Result<Self, StartError> {
        let node = Node::new(id, config.clone(), disk.clone(), seed, Time::ZERO)?;
        Ok(Self {
            id,
            seed,
            incarnation: 0,
            node: Some(node),
            disk,
            files: Files::new(),
            durable_files: Files::new(),
            effects: VecDeque::new(),
        })
    }

    pub(super) fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    pub(super) fn file(&self, file: &FileName) -> Option<&[u8]> {
        self.files.get(file).map(Vec::as_slice)
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.node.as_ref()?.poll_timeout().map(|(time, _)| time)
    }

    pub(super) fn crash(&mut self) {
        self.node = None;
        self.incarnation += 1;
        self.files.clone_from(&self.durable_files);
        self.effects.clear();
    }

    pub(super) fn restart(&mut self, config: &Config, now: Time) {
        if self.node.is_none() {
            // Another seed for each start: a node that draws the same time-outs again and again
            // can lose every election in the same way.
            let seed = self.seed.wrapping_add(self.incarnation << 32);
            let node = Node::new(self.id, config.clone(), self.disk.clone(), seed, now);
            self.node = Some(node.expect("a disk that keeps its word holds a state to start from"));
        }
    }

    /// The node, if it is up and was not started again since.
    fn node_of(&mut self, incarnation: Incarnation) -> Option<&mut Node> {
        if self.incarnation == incarnation { self.node.as_mut() } else { None }
    }

    /// Takes bytes that were fetched, if they are all there and right; otherwise changes nothing.
    /// What a file has beyond them stays.
    fn fetched(&mut self, fetch: &Fetch, ranges: Vec<Option<Vec<u8>>>) -> bool {
        let mut whole = Files::new();
        for (missing, range) in fetch.files.iter().zip(ranges) {
            let known = self.files.get(&missing.file).map(Vec::as_slice).unwrap_or_default();
            let Some(prefix) = known.get(..position(missing.offset)) else { return false };
            let content = [prefix, &range.unwrap_or_default()].concat();
            let is_right = content.len() as u64 == missing.length
                && Checksum::of(&content) == missing.checksum;
            if !is_right {
                return false;
            }
            whole.insert(missing.file.clone(), content);
        }
        for (file, content) in whole {
            for files in [&mut self.files, &mut self.durable_files] {
                let known = files.entry(file.clone()).or_default();
                if known.len() < content.len() {
                    known.clone_from(&content);
                }
            }
        }
        true
    }
}

/// A place in a file that is in memory.
fn position(offset: u64) -> usize {
    usize::try_from(offset).expect("a file that is in memory has places that are usize")
}

/// Writes an effect into files.
fn write(files: &mut Files, effect: &Effect) {
    let content = files.entry(effect.file.clone()).or_default();
    let offset = position(effect.offset);
    let end = offset + effect.bytes.len();
    assert!(offset <= content.len(), "an effect leaves no gap in {}", effect.file);
    content.resize(content.len().max(end), 0);
    content[offset..end].copy_from_slice(&effect.bytes);
}

impl Cluster {
    /// Gives a node that is up an input, then does what it wants.
    pub(super) fn input(&mut self, id: NodeId, input: Input) {
        self.note(&format!("{id} {input:?}"));
        let now = self.now;
        let Some(node) = self.hosts.get_mut(&id).and_then(|host| host.node.as_mut()) else {
            return;
        };
        node.handle_input(now, input);
        node.check_invariants();
        while let Some(output) =
            self.hosts.get_mut(&id).and_then(|host| host.node.as_mut()?.poll_output())
        {
            self.perform(id, output);
        }
    }

    pub(super) fn wake_node(&mut self, id: NodeId) {
        let before = self.hosts.get(&id).and_then(|host| host.node()?.poll_timeout());
        self.input(id, Input::Timeout);
        let after = self.hosts.get(&id).and_then(|host| host.node()?.poll_timeout());
        assert!(before.is_none() || before != after, "a deadline that passed is over: {before:?}");
    }

    fn perform(&mut self, id: NodeId, output: Output) {
        let network = self.now.after(self.options.network_delay);
        let disk = self.now.after(self.options.disk_delay);
        let host = self.hosts.get_mut(&id).expect("outputs come from a node that is there");
        let incarnation = host.incarnation;
        match output {
            Output::Persist(batch) => {
                self.queue.push(disk, Event::Written { node: id, incarnation, batch });
            }
            Output::Send(Envelope { from, to, message }) => {
                let bytes = codec::encode(&message);
                self.queue.push(network, Event::Message { from, to, bytes });
            }
            Output::Effect(effect) => {
                write(&mut host.files, &effect);
                host.effects.push_back(effect.index);
                self.queue.push(disk, Event::EffectDurable { node: id, incarnation, effect });
            }
            Output::Reply { conn, reply } => self.send_reply(conn, &reply),
            Output::ReadFile(read) => {
                let reply = read_file(&host.files, read.clone());
                self.send_reply(read.conn, &reply);
            }
            Output::FetchFiles { snapshot, from, files } => {
                let fetch = Fetch { node: id, from, snapshot, files };
                self.queue.push(network, Event::Fetched { fetch, incarnation });
            }
            Output::Event(event) => self.note(&format!("{id} {event:?}")),
        }
    }

    fn send_reply(&mut self, conn: ConnectionId, reply: &Reply) {
        if let Some((client, attempt)) = self.clients.of_connection(conn) {
            let at = self.now.after(self.options.network_delay);
            self.queue.push(at, Event::Reply { client, attempt, bytes: codec::encode(reply) });
        }
    }

    pub(super) fn deliver_message(&mut self, from: NodeId, to: NodeId, bytes: &[u8]) {
        let message = codec::decode::<Message>(bytes).expect("a node's message decodes");
        self.input(to, Input::Message(Envelope { from, to, message }));
    }

    pub(super) fn deliver_request(&mut self, node: NodeId, conn: ConnectionId, bytes: &[u8]) {
        let request = codec::decode::<Request>(bytes).expect("a client's request decodes");
        self.input(node, Input::Request { conn, request });
    }

    pub(super) fn written(&mut self, id: NodeId, incarnation: Incarnation, batch: WriteBatch) {
        let up_to = batch.id;
        let Some(host) = self.hosts.get_mut(&id) else { return };
        if host.node_of(incarnation).is_some() {
            host.disk.write(batch);
            self.input(id, Input::Persisted { up_to });
        }
    }

    pub(super) fn effect_durable(&mut self, id: NodeId, incarnation: Incarnation, effect: &Effect) {
        let up_to: LogIndex = effect.index;
        let Some(host) = self.hosts.get_mut(&id) else { return };
        if host.node_of(incarnation).is_some() {
            write(&mut host.durable_files, effect);
            host.effects.pop_front();
            // An entry is done when the last of its effects is.
            if host.effects.front() != Some(&up_to) {
                self.input(id, Input::EffectsDurable { up_to });
            }
        }
    }

    pub(super) fn fetched(&mut self, fetch: &Fetch, incarnation: Incarnation) {
        let source = self.hosts.get(&fetch.from).filter(|host| host.node.is_some());
        let range = |file: &FileName, from: u64, to: u64| {
            let content = source?.durable_files.get(file)?;
            content.get(position(from)..position(to)).map(<[u8]>::to_vec)
        };
        let ranges = fetch.files.iter().map(|file| range(&file.file, file.offset, file.length));
        let ranges: Vec<Option<Vec<u8>>> = ranges.collect();
        let Some(host) = self.hosts.get_mut(&fetch.node) else { return };
        if host.node_of(incarnation).is_some() {
            let complete = host.fetched(fetch, ranges);
            let snapshot = fetch.snapshot;
            self.input(fetch.node, Input::FilesFetched { snapshot, complete });
        }
    }
}

/// Answers a read of a file, as every host does.
fn read_file(files: &Files, read: FileRead) -> Reply {
    let content = files.get(&read.file.file).map(Vec::as_slice).unwrap_or_default();
    let start = position(read.offset);
    let bytes = content.get(start..start + read.length as usize);
    let bytes = bytes.expect("the files hold what the lock table says").to_vec();
    let answer = Answer::Bytes { file: Some(read.file), bytes: Bytes::from(bytes) };
    Reply::Read { id: read.id, index: read.index, answer }
}
