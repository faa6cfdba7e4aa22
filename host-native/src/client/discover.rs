//! Who is there.

use std::collections::BTreeMap;
use std::time::Duration;

use quorlock_core::config::FRAME_BYTES_MAX;
use quorlock_core::ids::NodeId;
use quorlock_core::time::Time;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::background::Background;
use super::dial::{Dialled, Dialler, dial_error};
use super::{ClientOptions, ConnectError, DialError, Endpoint};
use crate::clock;
use crate::wire::hello::Welcome;
use crate::wire::{FrameReader, NodeReport, StreamKind, decode, write_frame};

/// How long the others may take after the first answer.
const GRACE: Duration = Duration::from_millis(50);
/// How long one attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// The pauses between attempts at one endpoint: the first, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A node of the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// Where it is, as `host:port`: as the user says, or else as the cluster says.
    pub address: String,
    /// The version of its program, if it answered just now.
    pub version: Option<String>,
}

/// Asks the endpoints for all nodes of the cluster, by id. No session is opened, and no leader
/// is needed.
///
/// # Errors
/// [`ConnectError::Unreachable`] if no endpoint answers in time.
pub async fn discover(
    options: &ClientOptions,
    timeout: Duration,
) -> Result<Vec<Member>, ConnectError> {
    let options = options.clone();
    let background = Background::start().map_err(ConnectError::Thread)?;
    let keep = background.clone();
    let search = async move {
        let dialler = Dialler::new(&options.credentials)?;
        let found = find(&dialler, &options.endpoints, clock::now().after(timeout), timeout).await;
        dialler.close_soon(keep);
        found
    };
    background.run(search).await
}

/// Asks the node at an address (`host:port`) how it is. No session is opened, and no leader is
/// needed.
///
/// # Errors
/// [`DialError`] says why there is no answer.
pub async fn report(
    options: &ClientOptions,
    address: &str,
    timeout: Duration,
) -> Result<NodeReport, DialError> {
    let endpoint: Endpoint = address.parse().map_err(|error: super::ParseEndpointError| {
        DialError::NoSuchHost { reason: error.to_string() }
    })?;
    let credentials = options.credentials.clone();
    let local = |reason: String| DialError::Local { reason };
    let background = Background::start().map_err(|error| local(error.to_string()))?;
    let keep = background.clone();
    let question = async move {
        let dialler = Dialler::new(&credentials).map_err(|error| local(error.to_string()))?;
        let asked = tokio::time::timeout(timeout, ask(&dialler, &endpoint)).await;
        dialler.close_soon(keep);
        asked.unwrap_or(Err(DialError::NoAnswer { after: timeout }))
    };
    background.run(question).await
}

async fn ask(dialler: &Dialler, endpoint: &Endpoint) -> Result<NodeReport, DialError> {
    let Dialled { connection, .. } = dialler.dial(&endpoint.address(), endpoint.node).await?;
    let broken = |error: &dyn std::error::Error| match connection.close_reason() {
        Some(reason) => dial_error(reason),
        None => DialError::Broken { reason: error.to_string() },
    };
    let (mut send, receive) = connection.open_bi().await.map_err(dial_error)?;
    send.write_all(&[StreamKind::Report.byte()]).await.map_err(|error| broken(&error))?;
    write_frame(&mut send, Vec::new()).await.map_err(|error| broken(&error))?;
    // That there is no more is all that this says.
    drop(send.finish());
    let frame = FrameReader::new(receive, FRAME_BYTES_MAX).next().await;
    let frame = frame.map_err(|error| broken(&error))?;
    let frame = frame.ok_or_else(|| DialError::Broken { reason: "it did not answer".into() })?;
    decode(&frame).map_err(|error| DialError::OtherVersion { reason: error.to_string() })
}

/// Asks all endpoints at once, again and again, until one answers or there is no point any more.
pub(super) async fn find(
    dialler: &Dialler,
    endpoints: &[Endpoint],
    deadline: Time,
    timeout: Duration,
) -> Result<Vec<Member>, ConnectError> {
    if endpoints.is_empty() {
        return Err(ConnectError::NoEndpoints);
    }
    let (sender, mut answers) = mpsc::channel(endpoints.len());
    let mut tasks = JoinSet::new();
    for (position, endpoint) in endpoints.iter().cloned().enumerate() {
        tasks.spawn(knock(dialler.clone(), endpoint, position, sender.clone()));
    }
    drop(sender);
    let mut search = Search::default();
    let mut until = deadline;
    loop {
        let answer = tokio::select! {
            biased;
            answer = answers.recv() => answer,
            () = clock::sleep_until(until) => break,
        };
        let Some((position, answer)) = answer else { break };
        if search.take(position, answer) {
            until = until.min(clock::now().after(GRACE));
        }
    }
    let in_time = clock::now() < deadline;
    search.members(endpoints).ok_or_else(|| ConnectError::Unreachable {
        failures: search.failures(endpoints, timeout),
        timeout: (!in_time).then_some(timeout),
    })
}

type Answer = (usize, Result<Welcome, DialError>);

/// Asks one endpoint until it answers, or until there is no point any more.
async fn knock(
    dialler: Dialler,
    endpoint: Endpoint,
    position: usize,
    answers: mpsc::Sender<Answer>,
) {
    let mut pause = PAUSE_MIN;
    loop {
        let address = endpoint.address();
        let attempt = dialler.dial(&address, endpoint.node);
        let answer = tokio::time::timeout(ATTEMPT_TIMEOUT, attempt).await;
        let answer = answer.unwrap_or(Err(DialError::NoAnswer { after: ATTEMPT_TIMEOUT }));
        let is_last = answer.as_ref().err().is_none_or(DialError::is_lasting);
        let answer = answer.map(|dialled| dialled.welcome);
        if answers.send((position, answer)).await.is_err() || is_last {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// The latest answer of each endpoint.
#[derive(Default)]
struct Search {
    answers: BTreeMap<usize, Result<Welcome, DialError>>,
}

impl Search {
    /// Whether it is the first welcome.
    fn take(&mut self, position: usize, answer: Result<Welcome, DialError>) -> bool {
        let is_first = answer.is_ok() && self.welcomes().next().is_none();
        self.answers.insert(position, answer);
        is_first
    }

    fn welcomes(&self) -> impl Iterator<Item = (usize, &Welcome)> {
        self.answers
            .iter()
            .filter_map(|(position, answer)| Some((*position, answer.as_ref().ok()?)))
    }

    /// All nodes that were told of; `None` without a welcome. Where the user says that a node is
    /// wins over where the cluster says.
    fn members(&self, endpoints: &[Endpoint]) -> Option<Vec<Member>> {
        let (_, first) = self.welcomes().next()?;
        let told = first.members.iter().map(|(node, address)| (*node, address.clone()));
        let named = endpoints.iter().filter_map(|endpoint| {
            let node =
                endpoint.node.filter(|node| first.members.iter().any(|(id, _)| id == node))?;
            Some((node, endpoint.address()))
        });
        let met = self
            .welcomes()
            .map(|(position, welcome)| (welcome.node, endpoints[position].address()));
        let addresses: BTreeMap<NodeId, String> = told.chain(named).chain(met).collect();
        let versions: BTreeMap<NodeId, &String> =
            self.welcomes().map(|(_, welcome)| (welcome.node, &welcome.version)).collect();
        let member = |(node, address)| {
            let version = versions.get(&node).map(|version| (*version).clone());
            Member { node, address, version }
        };
        Some(addresses.into_iter().map(member).collect())
    }

    fn failures(&self, endpoints: &[Endpoint], timeout: Duration) -> Vec<(Endpoint, DialError)> {
        let failure = |(position, endpoint): (usize, &Endpoint)| {
            let error = match self.answers.get(&position) {
                Some(Err(error)) => error.clone(),
                Some(Ok(_)) | None => DialError::NoAnswer { after: timeout },
            };
            (endpoint.clone(), error)
        };
        endpoints.iter().enumerate().map(failure).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::hello::PeerHello;
    use quorlock_core::checksum::Checksum;

    fn welcome(node: u64, members: &[(u64, &str)]) -> Welcome {
        let member = |(node, address): &(u64, &str)| (NodeId::new(*node), (*address).to_owned());
        Welcome {
            node: NodeId::new(node),
            version: "1".into(),
            members: members.iter().map(member).collect(),
            peer: PeerHello { incarnation: 1, starts: 1, limits: Checksum::of(b"") },
        }
    }

    fn endpoints(texts: &[&str]) -> Vec<Endpoint> {
        texts.iter().map(|text| text.parse().expect("an endpoint")).collect()
    }

    #[test]
    fn addresses_of_the_user_win_over_those_of_the_cluster() {
        let endpoints = endpoints(&["outside:1", "1=outside:2", "9=outside:9"]);
        let mut search = Search::default();
        assert_eq!(search.members(&endpoints), None);
        let told = [(0, "inside:1"), (1, "inside:2"), (2, "inside:3")];
        assert!(search.take(0, Ok(welcome(0, &told))));
        assert!(!search.take(2, Err(DialError::NobodyListens)));
        let members = search.members(&endpoints).expect("one answered");
        let addresses: Vec<&str> = members.iter().map(|member| member.address.as_str()).collect();
        assert_eq!(addresses, ["outside:1", "outside:2", "inside:3"]);
        assert_eq!(members[0].version.as_deref(), Some("1"));
        assert_eq!(members[1].version, None);
    }

    #[test]
    fn every_endpoint_has_a_reason() {
        let endpoints = endpoints(&["a:1", "b:2"]);
        let mut search = Search::default();
        search.take(1, Err(DialError::NobodyListens));
        let failures = search.failures(&endpoints, Duration::from_secs(7));
        let error = ConnectError::Unreachable { failures, timeout: Some(Duration::from_secs(7)) };
        assert_eq!(
            error.to_string(),
            "no node could be reached within 7s\n  \
             a:1: no answer within 7s; the machine may be down, or a firewall between (UDP)\n  \
             b:2: nobody listens there; start the node, or check host and port"
        );
    }
}
