//! Who must not get in does not, and the cluster goes on.

use std::net::UdpSocket;
use std::time::{Duration, SystemTime};

use quinn::{Connection, ConnectionError};
use quorlock::quorlock_core::checksum::Checksum;
use quorlock::quorlock_core::config::Limits;
use quorlock::quorlock_core::ids::NodeId;
use quorlock::quorlock_core::message::Reply;
use quorlock::tls::authority::{Authority, Issued};
use quorlock::tls::{ClusterId, Identity, Role, Validity};
use quorlock::wire::hello::PeerHello;
use quorlock::wire::{HelloReply, Refusal, StreamKind, write_frame};

use crate::cluster::{Cluster, PATIENCE, VALID_FOR, client, wait_for};
use crate::raw;

fn client_role() -> Role {
    Role::Client("test".to_owned())
}

fn issued(cluster: &Cluster, role: Role) -> Issued {
    cluster.authority.issue(role, VALID_FOR).expect("a good role")
}

async fn attempt(
    cluster: &Cluster,
    issued: &Issued,
    to: Option<NodeId>,
    peer: Option<PeerHello>,
) -> Result<(Connection, HelloReply), String> {
    let endpoint = raw::endpoint(&cluster.authority, issued);
    let address = cluster.servers[&NodeId::new(0)].address();
    let connected = raw::connect(&endpoint, address, to, peer);
    tokio::time::timeout(PATIENCE, connected).await.expect("an answer, whatever it is")
}

fn refusal(attempted: Result<(Connection, HelloReply), String>) -> Refusal {
    match attempted.expect("an answer").1 {
        HelloReply::Refused(refusal) => refusal,
        HelloReply::Welcome(welcome) => panic!("welcomed: {welcome:?}"),
    }
}

fn peer(limits: Checksum) -> PeerHello {
    PeerHello { incarnation: 1, starts: 1, limits }
}

/// Waits until the server closes the connection, and says with which code.
async fn closed(connection: &Connection) -> u64 {
    let closed = tokio::time::timeout(PATIENCE, connection.closed()).await.expect("it is closed");
    let ConnectionError::ApplicationClosed(close) = closed else { panic!("closed by {closed}") };
    close.error_code.into_inner()
}

async fn is_healthy(cluster: &Cluster, leader: NodeId) {
    assert_eq!(cluster.leader().await, leader, "no election");
    client(cluster).await.append("journal", b"x").await.expect("it is served");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_of_others_are_not_good() {
    let cluster = Cluster::start(1).await;
    let leader = cluster.leader().await;

    let (stranger, _) = Authority::create(VALID_FOR).expect("an authority");
    let foreign = stranger.issue(client_role(), VALID_FOR).expect("a good role");
    attempt(&cluster, &foreign, None, None).await.expect_err("another authority");

    let now = SystemTime::now();
    let day = Duration::from_hours(24);
    let validity = Validity { from: now - 2 * day, until: now - day };
    let own = cluster.authority.cluster().clone();
    let identity = Identity { cluster: own, role: client_role() };
    let expired = cluster.authority.issue_identity(&identity, validity).expect("a certificate");
    attempt(&cluster, &expired, None, None).await.expect_err("expired");

    let validity = Validity { from: now - day, until: now + day };
    let other = ClusterId::random().expect("randomness");
    let identity = Identity { cluster: other, role: client_role() };
    let other = cluster.authority.issue_identity(&identity, validity).expect("a certificate");
    let refused = refusal(attempt(&cluster, &other, None, None).await);
    assert!(matches!(refused, Refusal::OtherCluster { .. }), "{refused:?}");

    is_healthy(&cluster, leader).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hello_that_does_not_fit_is_refused() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let limits = Limits::default().digest();
    let client = issued(&cluster, client_role());
    let node = |id| issued(&cluster, Role::Node(NodeId::new(id)));
    let other_limits = Checksum::of(b"other limits");
    let cases = [
        (attempt(&cluster, &client, None, Some(peer(limits))).await, Refusal::WrongRole),
        (
            attempt(&cluster, &client, Some(NodeId::new(2)), None).await,
            Refusal::OtherNode { ours: NodeId::new(0) },
        ),
        (
            attempt(&cluster, &node(9), None, Some(peer(limits))).await,
            Refusal::NotAMember { node: NodeId::new(9) },
        ),
        (attempt(&cluster, &node(1), None, Some(peer(other_limits))).await, Refusal::OtherLimits),
        // The right certificate on another disk.
        (
            attempt(&cluster, &node(1), None, Some(peer(limits))).await,
            Refusal::OtherDisk { node: NodeId::new(1) },
        ),
    ];
    for (attempted, expected) in cases {
        assert_eq!(refusal(attempted), expected);
    }
    is_healthy(&cluster, leader).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_make_no_sense_end_the_connection() {
    const GARBAGE: u64 = 2;
    const NOT_PERMITTED: u64 = 3;
    let cluster = Cluster::start(1).await;
    let leader = cluster.leader().await;
    let client = issued(&cluster, client_role());
    let too_long = u32::MAX.to_le_bytes().to_vec();
    let cut_off = [100_u32.to_le_bytes().to_vec(), vec![0; 7]].concat();
    let no_request = [3_u32.to_le_bytes().to_vec(), vec![1, 2, 99]].concat();
    let kind = StreamKind::Requests.byte();
    let cases = [
        (vec![77], GARBAGE),
        (vec![], GARBAGE),
        ([vec![kind], too_long].concat(), GARBAGE),
        ([vec![kind], cut_off].concat(), GARBAGE),
        ([vec![kind], no_request].concat(), GARBAGE),
        (vec![StreamKind::Consensus.byte()], NOT_PERMITTED),
        (vec![StreamKind::Snapshots.byte()], NOT_PERMITTED),
        (vec![StreamKind::FileRange.byte()], NOT_PERMITTED),
    ];
    for (bytes, code) in cases {
        let (connection, reply) = attempt(&cluster, &client, None, None).await.expect("welcome");
        assert!(matches!(reply, HelloReply::Welcome(_)));
        let (mut send, _receive) = connection.open_bi().await.expect("a stream");
        send.write_all(&bytes).await.expect("it is up");
        // It may be closed already.
        drop(send.finish());
        assert_eq!(closed(&connection).await, code, "{bytes:?}");
    }
    let (connection, _) = attempt(&cluster, &client, None, None).await.expect("welcome");
    let mut one_way = connection.open_uni().await.expect("a stream");
    one_way.write_all(&[StreamKind::Consensus.byte()]).await.expect("it is up");
    assert_eq!(closed(&connection).await, NOT_PERMITTED, "a client is no peer");
    is_healthy(&cluster, leader).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_admins_break_locks() {
    use quorlock::quorlock_core::ids::FencingToken;
    use quorlock::quorlock_core::message::Op;
    use quorlock::quorlock_core::text::{LockName, Text};
    let cluster = Cluster::start(1).await;
    cluster.leader().await;
    let mut client = client(&cluster).await;
    let lock = LockName::new("deploy").expect("a good name");
    let op = Op::Break { lock, token: FencingToken::new(1), reason: Text::default() };
    assert_eq!(client.submit(op).await, None);
    assert_eq!(closed(&client.connection).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_datagrams_are_nothing() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let mut noise = 1_u32;
    for round in 0..2000_usize {
        let bytes: Vec<u8> = (0..1200)
            .map(|_| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                noise.to_le_bytes()[3]
            })
            .collect();
        let nth = NodeId::new(round as u64 % 3);
        let length = 1 + round * 7 % 1200;
        // A full buffer of the system is no concern here.
        drop(socket.send_to(&bytes[..length], cluster.servers[&nth].address()));
    }
    is_healthy(&cluster, leader).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_reads_is_dropped() {
    const TOO_SLOW: u64 = 4;
    let cluster = Cluster::start(1).await;
    let leader = cluster.leader().await;
    client(&cluster).await.append("journal", &vec![7; 1 << 20]).await.expect("it is served");
    let (connection, _) =
        attempt(&cluster, &issued(&cluster, client_role()), None, None).await.expect("welcome");
    let (mut send, _never_read) = raw::open(&connection, StreamKind::Requests).await;
    let request = raw::read_request("journal", 0, 1 << 20);
    let asked = async { while write_frame(&mut send, request.clone()).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, asked).await.expect("it is dropped");
    let closed = connection.closed().await;
    if let ConnectionError::ApplicationClosed(close) = closed {
        assert_eq!(close.error_code.into_inner(), TOO_SLOW);
    } else {
        // The words got lost in a flood that nobody read.
        assert_eq!(closed, ConnectionError::Reset);
    }
    wait_for("the end of the connection", || cluster.report(leader).connections == 0).await;
    is_healthy(&cluster, leader).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_are_not_answered_have_a_limit_and_delay_no_keep_alive() {
    let cluster = Cluster::start(1).await;
    cluster.leader().await;
    let mut client = client(&cluster).await;
    client.append("journal", &vec![7; 1 << 20]).await.expect("it is served");
    // More than may wait; what is turned away is answered, too.
    let request = raw::read_request("journal", 0, 1 << 20);
    for _ in 0..40 {
        client.say(request.clone()).await;
    }
    let kept_alive = client.keep_alive().await.expect("it is served");
    assert!(matches!(kept_alive, Reply::KeptAlive { result: Ok(_), .. }), "{kept_alive:?}");
    let (mut answered, mut turned_away) = (0, 0);
    for _ in 0..40 {
        let reply = client.reply().await.expect("every read is answered");
        if matches!(reply, Reply::Read { .. }) {
            answered += 1;
        } else {
            assert!(matches!(reply, Reply::Unavailable { .. }), "{reply:?}");
            turned_away += 1;
        }
    }
    assert!(answered >= 8, "{answered} answered, {turned_away} turned away");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_have_a_limit() {
    let mut cluster = Cluster::new(1);
    for config in cluster.configs.values_mut() {
        config.connections_max = 2;
    }
    cluster.start_node(NodeId::new(0)).await;
    let client = issued(&cluster, client_role());
    let first = attempt(&cluster, &client, None, None).await.expect("welcome");
    let second = attempt(&cluster, &client, None, None).await.expect("welcome");
    let third = refusal(attempt(&cluster, &client, None, None).await);
    assert_eq!(third, Refusal::TooManyConnections);
    // Whoever leaves makes room.
    first.0.close(0_u32.into(), b"");
    wait_for("room", || cluster.report(NodeId::new(0)).connections < 2).await;
    let fourth = attempt(&cluster, &client, None, None).await.expect("an answer");
    assert!(matches!(fourth.1, HelloReply::Welcome(_)));
    drop(second);
}
