//! A cluster of one node, with a disk and files of memory, on a real socket.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream};
use quorlock_core::checksum::Checksum;
use quorlock_core::codec;
use quorlock_core::config::{Config, FRAME_BYTES_MAX, Limits};
use quorlock_core::ids::{ConnectionId, NodeId};
use quorlock_core::membership::Membership;
use quorlock_core::message::{Answer, Recovered, Reply, Request, RequestKey, Unavailable};
use quorlock_core::node::{Input, Node, Output};
use quorlock_core::text::FileName;
use quorlock_core::time::Time;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::client::ClientOptions;
use crate::client::background::Aborting;
use crate::tls::authority::{Authority, Issued};
use crate::tls::{Credentials, Role};
use crate::wire::hello::{self, HelloReply, PeerHello, Welcome};
use crate::wire::{FrameReader, StreamKind, write_frame};
use crate::{clock, endpoint};

/// The node, and the authority of its cluster.
pub(super) struct Fake {
    pub(super) address: SocketAddr,
    pub(super) faults: Arc<Faults>,
    authority: Authority,
    endpoint: quinn::Endpoint,
    _node: Aborting<()>,
    _acceptor: Aborting<()>,
}

/// What it does wrong.
#[derive(Default)]
pub(super) struct Faults {
    /// Requests are read and thrown away.
    pub(super) is_silent: AtomicBool,
    /// Requests are answered by saying that somebody else leads.
    pub(super) is_follower: AtomicBool,
    /// The stream of requests is not read.
    pub(super) is_stalled: AtomicBool,
    /// How many keep-alives came.
    pub(super) keep_alives: AtomicU64,
    connections: Mutex<Vec<Connection>>,
}

impl Faults {
    pub(super) fn set(flag: &AtomicBool, value: bool) {
        flag.store(value, Ordering::Relaxed);
    }

    /// Closes all connections.
    pub(super) fn disconnect(&self) {
        for connection in self.connections.lock().expect("nobody panics with it").drain(..) {
            connection.close(quinn::VarInt::from_u32(9), b"a fault");
        }
    }
}

const DAY: Duration = Duration::from_hours(24);

fn credentials(authority: &Authority, issued: &Issued) -> Credentials {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    };
    let ca = write("ca.pem", authority.certificate());
    let certificate = write("certificate.pem", &issued.certificate);
    let key = write("key.pem", &issued.key);
    Credentials::from_files(&ca, &certificate, &key).expect("they were just made")
}

pub(super) fn issue(authority: &Authority, role: Role) -> Credentials {
    credentials(authority, &authority.issue(role, DAY).expect("a good name"))
}

impl Fake {
    pub(super) fn start() -> Self {
        Self::start_with(Limits::default())
    }

    pub(super) fn start_with(limits: Limits) -> Self {
        let (authority, _) = Authority::create(DAY).expect("an authority");
        let id = NodeId::new(0);
        let own = issue(&authority, Role::Node(id));
        let endpoint = endpoint::accepting(&own, ([127, 0, 0, 1], 0).into()).expect("a socket");
        let address = endpoint.local_addr().expect("it is bound");
        let membership = Membership::new([id]).expect("one voter");
        let disk = Recovered::bootstrap(membership, limits).expect("good limits");
        let node = Node::new(id, Config::default(), disk, 7, clock::now()).expect("a good disk");
        let (inputs, queue) = mpsc::unbounded_channel();
        let faults = Arc::new(Faults::default());
        let acceptor = accept(endpoint.clone(), address, inputs, Arc::clone(&faults));
        Self {
            address,
            faults,
            authority,
            endpoint,
            _node: Aborting(tokio::spawn(run(node, queue))),
            _acceptor: Aborting(tokio::spawn(acceptor)),
        }
    }

    pub(super) fn options(&self, name: &str) -> ClientOptions {
        self.options_as(Role::Client(name.into()))
    }

    pub(super) fn options_as(&self, role: Role) -> ClientOptions {
        let endpoint = self.address.to_string().parse().expect("an endpoint");
        ClientOptions::new(vec![endpoint], issue(&self.authority, role))
    }

    /// Closes the socket.
    pub(super) async fn stop(self) {
        let Self { endpoint, _acceptor: acceptor, .. } = self;
        drop(acceptor);
        endpoint.close(quinn::VarInt::from_u32(6), b"the node stops");
        endpoint.wait_idle().await;
    }
}

/// What the node hears.
enum Heard {
    Connected(ConnectionId, [mpsc::UnboundedSender<Bytes>; 2]),
    Input(Input),
}

async fn accept(
    endpoint: quinn::Endpoint,
    address: SocketAddr,
    inputs: mpsc::UnboundedSender<Heard>,
    faults: Arc<Faults>,
) {
    let mut tasks = JoinSet::new();
    let mut last = ConnectionId::ZERO;
    while let Some(incoming) = endpoint.accept().await {
        last = last.next();
        let (conn, inputs, faults) = (last, inputs.clone(), Arc::clone(&faults));
        tasks.spawn(async move {
            let Ok(connection) = incoming.await else { return };
            let welcome = Welcome {
                node: NodeId::new(0),
                version: "0".into(),
                members: vec![(NodeId::new(0), address.to_string())],
                peer: PeerHello { incarnation: 1, starts: 1, limits: Checksum::of(b"") },
            };
            let decide = async |_request| HelloReply::Welcome(welcome);
            if hello::answer(&connection, decide).await.is_ok() {
                faults.connections.lock().expect("nobody panics").push(connection.clone());
                serve(connection, conn, &inputs, &faults).await;
                drop(inputs.send(Heard::Input(Input::Disconnected { conn })));
            }
        });
    }
}

async fn serve(
    connection: Connection,
    conn: ConnectionId,
    inputs: &mpsc::UnboundedSender<Heard>,
    faults: &Arc<Faults>,
) {
    let (keep_alives, keep_alives_queue) = mpsc::unbounded_channel();
    let (requests, requests_queue) = mpsc::unbounded_channel();
    let outboxes = [keep_alives, requests];
    drop(inputs.send(Heard::Connected(conn, outboxes.clone())));
    let mut queues = [Some(keep_alives_queue), Some(requests_queue)];
    let mut tasks = JoinSet::new();
    while let Ok((send, mut receive)) = connection.accept_bi().await {
        let mut kind = [0];
        if receive.read_exact(&mut kind).await.is_err() {
            return;
        }
        let kind = StreamKind::of_byte(kind[0]).expect("our own client knows the kinds");
        let number = usize::from(kind == StreamKind::Requests);
        let queue = queues[number].take().expect("each kind has one stream");
        tasks.spawn(write(send, queue));
        let (inputs, faults, outbox) =
            (inputs.clone(), Arc::clone(faults), outboxes[number].clone());
        tasks.spawn(read(receive, kind, conn, inputs, faults, outbox));
    }
}

async fn write(mut stream: SendStream, mut queue: mpsc::UnboundedReceiver<Bytes>) {
    while let Some(frame) = queue.recv().await {
        if write_frame(&mut stream, frame).await.is_err() {
            return;
        }
    }
}

async fn read(
    stream: RecvStream,
    kind: StreamKind,
    conn: ConnectionId,
    inputs: mpsc::UnboundedSender<Heard>,
    faults: Arc<Faults>,
    outbox: mpsc::UnboundedSender<Bytes>,
) {
    let mut reader = FrameReader::new(stream, FRAME_BYTES_MAX);
    while let Ok(Some(frame)) = reader.next().await {
        while kind == StreamKind::Requests && faults.is_stalled.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let request = codec::decode::<Request>(&frame).expect("our own client's");
        if matches!(request, Request::KeepAlive { .. }) {
            faults.keep_alives.fetch_add(1, Ordering::Relaxed);
        }
        if faults.is_silent.load(Ordering::Relaxed) {
            continue;
        }
        if faults.is_follower.load(Ordering::Relaxed) {
            let reason = Unavailable::NotLeader { leader: None };
            let reply = Reply::Unavailable { request: request.key(), reason };
            drop(outbox.send(codec::encode(&reply).into()));
            continue;
        }
        drop(inputs.send(Heard::Input(Input::Request { conn, request })));
    }
}

async fn run(mut node: Node, mut queue: mpsc::UnboundedReceiver<Heard>) {
    let mut host = Host::default();
    loop {
        let deadline = node.poll_timeout().map_or(Time::MAX, |(time, _)| time);
        let input = tokio::select! {
            heard = queue.recv() => match heard {
                Some(Heard::Connected(conn, outboxes)) => {
                    host.outboxes.insert(conn, outboxes);
                    continue;
                }
                Some(Heard::Input(input)) => input,
                None => return,
            },
            () = clock::sleep_until(deadline) => Input::Timeout,
        };
        node.handle_input(clock::now(), input);
        loop {
            let done = host.perform(&mut node);
            if done.is_empty() {
                break;
            }
            for input in done {
                node.handle_input(clock::now(), input);
            }
        }
    }
}

#[derive(Default)]
struct Host {
    outboxes: BTreeMap<ConnectionId, [mpsc::UnboundedSender<Bytes>; 2]>,
    files: BTreeMap<FileName, Vec<u8>>,
}

impl Host {
    /// Does what the node wants, and returns what the node is to hear of it.
    fn perform(&mut self, node: &mut Node) -> Vec<Input> {
        let (mut written, mut durable) = (None, None);
        while let Some(output) = node.poll_output() {
            match output {
                Output::Persist(batch) => written = Some(Input::Persisted { up_to: batch.id }),
                Output::Effect(effect) => {
                    let content = self.files.entry(effect.file).or_default();
                    assert_eq!(content.len() as u64, effect.offset, "files only grow");
                    content.extend_from_slice(&effect.bytes);
                    durable = Some(Input::EffectsDurable { up_to: effect.index });
                }
                Output::Reply { conn, reply } => self.reply(conn, &reply),
                Output::ReadFile(read) => {
                    let content = self.files.get(&read.file.file).cloned().unwrap_or_default();
                    let start = usize::try_from(read.offset).expect("in memory");
                    let bytes = content[start..start + read.length as usize].to_vec().into();
                    let answer = Answer::Bytes { file: Some(read.file), bytes };
                    let reply = Reply::Read { id: read.id, index: read.index, answer };
                    self.reply(read.conn, &reply);
                }
                Output::Send(_) | Output::FetchFiles { .. } => unreachable!("it is alone"),
                Output::Event(_) => {}
            }
        }
        written.into_iter().chain(durable).collect()
    }

    fn reply(&self, conn: ConnectionId, reply: &Reply) {
        let is_urgent = match reply {
            Reply::Opened { .. } | Reply::KeptAlive { .. } | Reply::SessionEnded { .. } => true,
            Reply::Unavailable { request, .. } => {
                matches!(request, RequestKey::Open(_) | RequestKey::KeepAlive(..))
            }
            Reply::Submitted { .. } | Reply::Lost { .. } | Reply::Read { .. } => false,
        };
        if let Some(outboxes) = self.outboxes.get(&conn) {
            drop(outboxes[usize::from(!is_urgent)].send(codec::encode(reply).into()));
        }
    }
}
