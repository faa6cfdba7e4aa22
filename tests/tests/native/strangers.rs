//! Those who must not get in, and guests that do not behave: each is turned away, and the cluster goes on.

use std::net::UdpSocket;
use std::time::{Duration, Instant, SystemTime};

use quorlock::client::{Consistency, FileName, NodeId, Query, Wait};
use quorlock::tls::authority::{Authority, Issued};
use quorlock::tls::{ClusterId, Identity, Role, Validity};
use quorlock::wire::hello::PeerHello;
use quorlock::wire::{HelloReply, StreamKind, write_frame};
use quorlock_core::codec;
use quorlock_core::config::{Limits, READ_BYTES_MAX};
use quorlock_core::ids::RequestId;
use quorlock_core::message::Request;
use quorlock_tests::native::{Cluster, DAY, PATIENCE};

use crate::observer::{Reign, STEADY, logged, memory_peak, says};
use crate::raw;
use crate::workload::Workload;

/// More than a node has ever needed for this, and less than anybody could have made it take without
/// limits.
const MEMORY_MAX: u64 = 200 << 20;

/// A cluster at work, with a leader that has to stay.
struct Scene {
    cluster: Cluster,
    workload: Workload,
    reign: Reign,
}

impl Scene {
    async fn new() -> Self {
        let cluster = Cluster::with_arguments(3, STEADY).await;
        let workload = Workload::start(&cluster, 2).await;
        workload.progress(&cluster, 10).await;
        let reign = Reign::of(&cluster).await;
        Self { cluster, workload, reign }
    }

    fn issue(&self, role: Role) -> Issued {
        self.cluster.authority().issue(role, DAY).expect("a good role")
    }

    /// Connects to the leader.
    async fn attempt(
        &self,
        issued: &Issued,
        peer: Option<PeerHello>,
    ) -> Result<(quinn::Connection, HelloReply), String> {
        let endpoint = raw::endpoint(&self.cluster, issued);
        let address = self.cluster.node(self.reign.leader).spec().address;
        let attempt = raw::connect(&endpoint, address, peer);
        tokio::time::timeout(PATIENCE, attempt).await.expect("it is answered")
    }

    /// Connects to the leader, which has to refuse, and to say why in its log.
    async fn is_refused(&self, issued: &Issued, peer: Option<PeerHello>, reason: &str) {
        let before = logged(&self.cluster, self.reign.leader);
        if let Ok((_, HelloReply::Welcome(welcome))) = self.attempt(issued, peer).await {
            panic!("instead of {reason:?}: {welcome:?}");
        }
        says(&self.cluster, self.reign.leader, before, "connection refused").await;
        says(&self.cluster, self.reign.leader, before, reason).await;
    }

    /// Connects to the leader as a client.
    async fn welcomed(&self) -> quinn::Connection {
        let issued = self.issue(guest());
        let (connection, reply) = self.attempt(&issued, None).await.expect("the node answers");
        assert!(matches!(reply, HelloReply::Welcome(_)), "{reply:?}");
        connection
    }

    /// All was in vain: clients are served as ever, by the same leader, and no node grew out of bounds.
    async fn goes_on(self) {
        let Self { cluster, workload, reign } = self;
        workload.progress(&cluster, 20).await;
        reign.goes_on(&cluster).await;
        for id in cluster.ids() {
            let peak = memory_peak(&cluster, id);
            println!("node {id}: at most {} MiB", peak >> 20);
            assert!(peak < MEMORY_MAX, "node {id} had {peak} bytes");
        }
        workload.finish(&cluster).await;
    }
}

fn guest() -> Role {
    Role::Client("guest".to_owned())
}

fn peer() -> PeerHello {
    PeerHello { incarnation: 1, starts: 1, limits: Limits::default().digest() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_certificates_are_refused_with_a_reason() {
    let scene = Scene::new().await;
    let own = scene.cluster.authority().cluster().clone();
    let now = SystemTime::now();
    let dated = |cluster: &ClusterId, role: Role, from, until| {
        let identity = Identity { cluster: cluster.clone(), role };
        let issued = scene.cluster.authority().issue_identity(&identity, Validity { from, until });
        issued.expect("a good role")
    };

    let (stranger, _key) = Authority::create(DAY).expect("there is randomness");
    for role in [guest(), Role::Node(NodeId::new(1))] {
        let foreign = stranger.issue(role, DAY).expect("a good role");
        scene.is_refused(&foreign, None, "UnknownIssuer").await;
    }
    let expired = dated(&own, guest(), now - 2 * DAY, now - DAY);
    scene.is_refused(&expired, None, "expired").await;
    let early = dated(&own, guest(), now + DAY, now + 2 * DAY);
    scene.is_refused(&early, None, "not valid yet").await;
    let other = ClusterId::random().expect("there is randomness");
    let elsewhere = dated(&other, Role::Node(NodeId::new(1)), now - DAY, now + DAY);
    scene.is_refused(&elsewhere, Some(peer()), "the certificate is of another one").await;
    let client = scene.issue(guest());
    scene.is_refused(&client, Some(peer()), "nodes talk to nodes, clients do not").await;
    let node = scene.issue(Role::Node(NodeId::new(9)));
    scene.is_refused(&node, Some(peer()), "node 9 is no member of this cluster").await;
    scene.goes_on().await;
}

/// Bytes that are different every time.
fn noise(seed: &mut u32, length: usize) -> Vec<u8> {
    let mut next = || {
        *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_datagrams_are_nothing_to_a_cluster_at_work() {
    let scene = Scene::new().await;
    let addresses: Vec<_> =
        scene.cluster.ids().iter().map(|id| scene.cluster.node(*id).spec().address).collect();
    let flood = tokio::task::spawn_blocking(move || {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("there are ports");
        let (start, mut seed, mut sent) = (Instant::now(), 1, 0_usize);
        while start.elapsed() < Duration::from_secs(1) {
            let mut bytes = noise(&mut seed, 1 + sent * 7 % 1300);
            if sent.is_multiple_of(3) && bytes.len() > 5 {
                // The first bytes of a connection, in QUIC version 1.
                bytes[..5].copy_from_slice(&[0xc3, 0, 0, 0, 1]);
            }
            // A full buffer of the system is no concern here.
            drop(socket.send_to(&bytes, addresses[sent % addresses.len()]));
            sent += 1;
        }
        sent
    });
    let sent = flood.await.expect("it does not panic");
    println!("{sent} datagrams of garbage");
    scene.goes_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_break_the_rules_end_their_connection() {
    let scene = Scene::new().await;
    let kind = StreamKind::Requests.byte();
    let frame = |length: u32, bytes: &[u8]| [&[kind], &length.to_le_bytes()[..], bytes].concat();
    let cases = [
        (frame(u32::MAX, &[]), "a frame of 4294967295 bytes"),
        (frame(100, &[0; 7]), "the stream ended in the middle of a frame"),
        (frame(3, &[1, 2, 99]), "the client's connection is closed"),
        (vec![77], "the client's connection is closed"),
        (vec![StreamKind::Consensus.byte()], "the client's connection is closed"),
        (vec![StreamKind::FileRange.byte()], "the client's connection is closed"),
    ];
    for (bytes, reason) in cases {
        let before = logged(&scene.cluster, scene.reign.leader);
        let connection = scene.welcomed().await;
        let (mut send, _receive) = connection.open_bi().await.expect("a stream");
        send.write_all(&bytes).await.expect("the connection is up");
        // It may be closed already.
        drop(send.finish());
        let closed = tokio::time::timeout(PATIENCE, connection.closed()).await;
        let closed = closed.expect("the node closes it");
        assert!(matches!(closed, quinn::ConnectionError::ApplicationClosed(_)), "{closed}");
        says(&scene.cluster, scene.reign.leader, before, reason).await;
    }
    scene.goes_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_reads_is_dropped_and_takes_no_memory() {
    const CLIENTS: usize = 4;
    let scene = Scene::new().await;
    let writer = scene.cluster.client().await;
    let bytes = vec![7; 1 << 20];
    let written = writer.section("big", Wait::Forever, [("big", bytes)]).await;
    written.expect("the cluster serves");
    scene.cluster.settle().await;
    let file = FileName::new("big").expect("a good name");
    let query = Query::ReadFile { file, offset: 0, length: READ_BYTES_MAX };
    let consistency = Consistency::Stale;
    let read = Request::Read { id: RequestId::new(1), query, consistency };
    let read = bytes::Bytes::from(codec::encode(&read));

    let before = logged(&scene.cluster, scene.reign.leader);
    let mut greedy = Vec::new();
    for _ in 0..CLIENTS {
        let connection = scene.welcomed().await;
        let read = read.clone();
        greedy.push(tokio::spawn(async move {
            let (mut send, _never_read) = raw::open(&connection, StreamKind::Requests).await;
            while write_frame(&mut send, read.clone()).await.is_ok() {}
            connection.closed().await
        }));
    }
    for asking in greedy {
        let dropped = tokio::time::timeout(PATIENCE, asking).await.expect("it is dropped");
        println!("{}", dropped.expect("it does not panic"));
    }
    says(&scene.cluster, scene.reign.leader, before, "does not read its replies").await;
    scene.goes_on().await;
}
