//! Two endpoints on loopback.

use std::net::Ipv4Addr;

use quinn::Connection;
use quorlock_core::ids::NodeId;

use super::*;
use crate::tls::authority::{Authority, Issued};
use crate::tls::{ClusterId, Identity, IdentityError, NODE_NAME, Role, Validity, peer_identity};
use crate::wire::{FrameError, FrameReader, write_frame};

const DAY: Duration = Duration::from_hours(24);

fn authority() -> Authority {
    Authority::create(DAY).expect("there is randomness").0
}

fn believing(authority: &Authority, issued: &Issued) -> Credentials {
    Credentials::from_pem(authority.certificate(), &issued.certificate, &issued.key)
        .expect("what was issued can be used")
}

fn credentials(authority: &Authority, role: Role) -> Credentials {
    believing(authority, &authority.issue(role, DAY).expect("the role is good"))
}

fn node(authority: &Authority) -> Credentials {
    credentials(authority, Role::Node(NodeId::new(1)))
}

fn accept(credentials: &Credentials) -> Endpoint {
    accepting(credentials, (Ipv4Addr::LOCALHOST, 0).into()).expect("loopback is there")
}

/// Connects, and gives both ends.
async fn meet(
    client: &Endpoint,
    server: &Endpoint,
) -> Result<(Connection, Connection), quinn::ConnectionError> {
    let address = server.local_addr().expect("it is bound");
    let connecting = client.connect(address, NODE_NAME).expect("the name is good");
    let accepted = async { server.accept().await.expect("it is open").await };
    // TLS 1.3: the side that connects may think that all is well before its certificate is refused.
    let (connected, accepted) = tokio::join!(connecting, accepted);
    Ok((connected?, accepted?))
}

async fn is_refused(client: &Credentials, server: &Credentials) -> bool {
    let client = connecting(client).expect("credentials of one piece");
    meet(&client, &accept(server)).await.is_err()
}

#[tokio::test]
async fn both_sides_know_who_the_other_one_is() {
    let authority = authority();
    let server = accept(&node(&authority));
    let role = Role::Client("ci".to_owned());
    let client = connecting(&credentials(&authority, role.clone())).expect("it is usable");
    let (ours, theirs) = meet(&client, &server).await.expect("all certificates are good");
    let cluster = authority.cluster().clone();
    assert_eq!(peer_identity(&theirs), Ok(Identity { cluster: cluster.clone(), role }));
    let role = Role::Node(NodeId::new(1));
    assert_eq!(peer_identity(&ours), Ok(Identity { cluster, role }));
}

#[tokio::test]
async fn certificates_of_others_are_refused() {
    let (ours, others) = (authority(), authority());
    let client = || credentials(&ours, Role::Client("a".to_owned()));
    assert!(!is_refused(&client(), &node(&ours)).await);
    assert!(is_refused(&client(), &node(&others)).await, "a server of another authority");
    // It believes our authority, but ours does not know it.
    let stranger = others.issue(Role::Client("a".to_owned()), DAY).expect("the name is good");
    assert!(is_refused(&believing(&ours, &stranger), &node(&ours)).await);
    // A client's certificate is not good for accepting connections.
    assert!(is_refused(&client(), &client()).await);
}

#[tokio::test]
async fn certificates_count_only_in_their_time() {
    let authority = authority();
    let now = std::time::SystemTime::now();
    let dated = |role: Role, from, until| {
        let identity = Identity { cluster: authority.cluster().clone(), role };
        let issued = authority.issue_identity(&identity, Validity { from, until });
        believing(&authority, &issued.expect("the role is good"))
    };
    let client = || Role::Client("a".to_owned());
    let expired = dated(client(), now - 2 * DAY, now - DAY);
    assert!(is_refused(&expired, &node(&authority)).await);
    let early = dated(client(), now + DAY, now + 2 * DAY);
    assert!(is_refused(&early, &node(&authority)).await);
    let expired = dated(Role::Node(NodeId::new(1)), now - 2 * DAY, now - DAY);
    assert!(is_refused(&credentials(&authority, client()), &expired).await);
    assert_eq!(expired.validity().map(|validity| validity.until < now), Some(true));
}

#[tokio::test]
async fn a_restarted_node_resets_the_connections_of_its_former_process() {
    let authority = authority();
    let credentials = node(&authority);
    let (former, latter) = (accept(&credentials), accept(&credentials));
    let bound = |server: &Endpoint| server.local_addr().expect("it is bound");
    let (target, targets) = tokio::sync::watch::channel(bound(&former));
    let relay = Relay::new(targets).await;
    let address = relay.address();
    let relaying = tokio::spawn(relay.run());

    let client = connecting(&credentials).expect("it is usable");
    let connecting = client.connect(address, NODE_NAME).expect("the name is good");
    let accepting = async { former.accept().await.expect("it is open").await };
    let (ours, theirs) = tokio::join!(connecting, accepting);
    let (ours, _theirs) = (ours.expect("it is good"), theirs.expect("it is good"));
    // From now on another process has the address. The former one says nothing more.
    target.send_replace(bound(&latter));
    let (mut send, _receive) = ours.open_bi().await.expect("nobody said that it is over");
    write_frame(&mut send, &b"are you there?"[..]).await.expect("it goes into a buffer");
    assert!(matches!(ours.closed().await, quinn::ConnectionError::Reset));
    relaying.abort();
}

/// Passes datagrams between one client and the server of the moment.
struct Relay {
    front: tokio::net::UdpSocket,
    back: tokio::net::UdpSocket,
    targets: tokio::sync::watch::Receiver<SocketAddr>,
}

impl Relay {
    async fn new(targets: tokio::sync::watch::Receiver<SocketAddr>) -> Self {
        let bind = || tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
        let front = bind().await.expect("loopback is there");
        let back = bind().await.expect("loopback is there");
        Self { front, back, targets }
    }

    fn address(&self) -> SocketAddr {
        self.front.local_addr().expect("it is bound")
    }

    async fn run(self) -> std::io::Result<()> {
        let (mut from_client, mut from_server) = (vec![0; 2048], vec![0; 2048]);
        let mut client = None;
        loop {
            tokio::select! {
                received = self.front.recv_from(&mut from_client) => {
                    let (length, address) = received?;
                    client = Some(address);
                    let target = *self.targets.borrow();
                    self.back.send_to(&from_client[..length], target).await?;
                }
                received = self.back.recv_from(&mut from_server) => {
                    let (length, address) = received?;
                    if let Some(client) = client && address == *self.targets.borrow() {
                        self.front.send_to(&from_server[..length], client).await?;
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn frames_arrive_or_are_refused_by_name() {
    let authority = authority();
    let credentials = node(&authority);
    let server = accept(&credentials);
    let client = connecting(&credentials).expect("it is usable");
    let (ours, theirs) = meet(&client, &server).await.expect("all certificates are good");
    let stream = async |bytes: Vec<u8>| {
        let mut send = ours.open_uni().await.expect("it is open");
        send.write_all(&bytes).await.expect("it is open");
        send.finish().expect("it was not finished");
        FrameReader::new(theirs.accept_uni().await.expect("it is open"), 8)
    };
    let mut reader =
        stream(vec![2, 0, 0, 0, 7, 8, 0, 0, 0, 0, 8, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]).await;
    for expected in [&[7, 8][..], &[], &[1, 2, 3, 4, 5, 6, 7, 8]] {
        let frame = reader.next().await.expect("it is whole").expect("it is there");
        assert_eq!(frame, expected);
    }
    assert!(matches!(reader.next().await, Ok(None)));
    let mut reader = stream(vec![9, 0, 0, 0]).await;
    assert!(matches!(reader.next().await, Err(FrameError::TooLong { bytes: 9, bytes_max: 8 })));
    let mut reader = stream(vec![0xff; 4]).await;
    assert!(matches!(reader.next().await, Err(FrameError::TooLong { bytes: u32::MAX, .. })));
    for cut in [vec![2, 0], vec![2, 0, 0, 0, 7]] {
        let mut reader = stream(cut).await;
        assert!(matches!(reader.next().await, Err(FrameError::CutOff)));
    }
}

#[test]
fn a_certificate_without_a_name_of_ours_is_nobodys() {
    let (authority, issued) = Authority::create(DAY).expect("there is randomness");
    let error = Credentials::from_pem(authority.certificate(), &issued.certificate, &issued.key);
    let error = error.expect_err("the authority's own certificate names a cluster, and no role");
    assert!(matches!(error, CredentialsError::Identity(IdentityError::NoName)), "{error}");
    let other = ClusterId::random().expect("there is randomness");
    assert_ne!(authority.cluster(), &other);
}
