//! `quorlock status`: how every node is.
//!
//! It asks each node for itself, so it needs no quorum, and a node that does not answer is a row too.
//! The cluster is healthy when a majority of its nodes follow the same leader in the same term: then
//! locks are granted, whatever became of the others.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use quorlock_core::ids::{NodeId, Term};
use serde::Serialize;

use super::Context;
use super::exit::{Exit, Failure};
use super::output::{Document, Sheet, Tone};
use crate::client::{ClientOptions, DialError, report};
use crate::wire::NodeReport;
use crate::wire::report::{DiskState, ReportedRole};

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArguments {
    /// Shows it again and again, until it is interrupted.
    #[arg(short, long)]
    watch: bool,
    /// The pause between two looks, with --watch.
    #[arg(long, value_name = "TIME", default_value = "1", value_parser = super::duration::parse)]
    interval: Duration,
}

/// After this a person wants to know what is going on.
const SILENCE_MAX: Duration = Duration::from_millis(90);
/// How long a node may take to answer: whoever is up answers much faster.
const NODE_TIMEOUT: Duration = Duration::from_secs(2);

/// Shows how the cluster is.
pub(crate) fn run(arguments: StatusArguments, context: &Context) -> Result<Exit, Failure> {
    let options = context.connection.options()?;
    context.block_on(async {
        let timeout = NODE_TIMEOUT.min(context.connection.timeout);
        if !arguments.watch {
            let status = patiently(Status::ask(&options, timeout), context).await?;
            context.output.print(&status)?;
            return Ok(status.exit());
        }
        loop {
            let status = Status::ask(&options, timeout).await?;
            let text = context.output.text(&status)?;
            if context.output.is_live() {
                // To the corner, each line with what follows it cleared, and then what was below.
                let text = text.replace('\n', "\x1b[K\n");
                context.output.raw(format!("\x1b[H{text}\x1b[J").as_bytes())?;
            } else {
                context.output.raw(text.as_bytes())?;
            }
            tokio::time::sleep(arguments.interval).await;
        }
    })
}

/// Waits for a result, and says so if it does not come at once.
async fn patiently<T>(result: impl Future<Output = T>, context: &Context) -> T {
    let mut result = std::pin::pin!(result);
    tokio::select! {
        result = &mut result => return result,
        () = tokio::time::sleep(SILENCE_MAX) => {}
    }
    if std::io::stderr().is_terminal() {
        context.output.note("Asking the nodes; one that does not answer takes a moment.");
    }
    result.await
}

/// How a cluster is, for `-o json`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Status {
    /// Whether a majority follows one leader.
    pub(crate) healthy: bool,
    /// That leader.
    pub(crate) leader: Option<NodeId>,
    /// Its term.
    pub(crate) term: Option<Term>,
    /// How many nodes must follow it.
    pub(crate) quorum: usize,
    /// How many nodes answered.
    pub(crate) reachable: usize,
    pub(crate) nodes: Vec<NodeStatus>,
}

/// How a node is.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct NodeStatus {
    /// `None` if it does not answer, and nobody knows which node it is.
    pub(crate) id: Option<NodeId>,
    pub(crate) address: String,
    /// Why there is no answer.
    pub(crate) error: Option<String>,
    /// Whether it will not answer before somebody changes something.
    #[serde(skip)]
    is_misconfigured: bool,
    /// The first entries of the table.
    pub(crate) role: Option<ReportedRole>,
    pub(crate) term: Option<Term>,
    pub(crate) leader: Option<NodeId>,
    pub(crate) commit: Option<u64>,
    pub(crate) applied: Option<u64>,
    /// By how many entries it is behind the highest commit that is known.
    pub(crate) lag: Option<u64>,
    /// `ok` or `full`.
    pub(crate) disk: Option<DiskState>,
    pub(crate) sessions: Option<u64>,
    pub(crate) locks: Option<u64>,
    pub(crate) waiters: Option<u64>,
    pub(crate) files: Option<u64>,
    pub(crate) connections: Option<u64>,
    pub(crate) version: Option<String>,
    pub(crate) uptime_ms: Option<u64>,
}

impl Status {
    /// Asks all nodes: those that the user names, then those that they name.
    ///
    /// # Errors
    /// The connection cannot be used at all; that nobody answers is none.
    pub(crate) async fn ask(options: &ClientOptions, timeout: Duration) -> Result<Self, Failure> {
        let named = options.endpoints.iter().map(|endpoint| (endpoint.node, endpoint.address()));
        let mut nodes = ask_all(options, named.collect(), timeout).await?;
        let others: BTreeMap<NodeId, String> = nodes
            .iter()
            .flat_map(|(_, peers)| peers)
            .filter(|(id, address)| {
                nodes.iter().all(|(node, _)| node.id != Some(*id) && node.address != *address)
            })
            .cloned()
            .collect();
        let others = others.into_iter().map(|(id, address)| (Some(id), address));
        nodes.extend(ask_all(options, others.collect(), timeout).await?);
        let mut nodes: Vec<_> = nodes.into_iter().map(|(node, _)| node).collect();
        nodes.sort_by_key(|node| (node.id.is_none(), node.id));
        // Two endpoints may be the same node.
        nodes.dedup_by(|a, b| a.id.is_some() && a.id == b.id);
        Ok(Self::of(nodes))
    }

    /// 1 without a quorum; but if nobody answers because of how we ask, that is something else.
    fn exit(&self) -> Exit {
        if self.healthy {
            Exit::Ok
        } else if !self.nodes.is_empty() && self.nodes.iter().all(|node| node.is_misconfigured) {
            Exit::Configuration
        } else {
            Exit::Negative
        }
    }

    fn of(mut nodes: Vec<NodeStatus>) -> Self {
        let commit = nodes.iter().filter_map(|node| node.commit).max().unwrap_or_default();
        for node in &mut nodes {
            node.lag = node.applied.map(|applied| commit.saturating_sub(applied));
        }
        let quorum = nodes.len() / 2 + 1;
        let reachable = nodes.iter().filter(|node| node.error.is_none()).count();
        let mut status =
            Self { healthy: false, leader: None, term: None, quorum, reachable, nodes };
        // The leader of the latest term, by its own word; and a majority agrees.
        let leads = |node: &&NodeStatus| node.role == Some(ReportedRole::Leader);
        if let Some(leader) = status.nodes.iter().filter(leads).max_by_key(|node| node.term) {
            let follows = |node: &&NodeStatus| node.term == leader.term && node.leader == leader.id;
            status.healthy = status.nodes.iter().filter(follows).count() >= quorum;
            if status.healthy {
                (status.leader, status.term) = (leader.id, leader.term);
            }
        }
        status
    }
}

/// A node, and the others that it knows.
type Answered = (NodeStatus, Vec<(NodeId, String)>);

/// Asks nodes, all at once.
async fn ask_all(
    options: &ClientOptions,
    addresses: Vec<(Option<NodeId>, String)>,
    timeout: Duration,
) -> Result<Vec<Answered>, Failure> {
    let mut asking = tokio::task::JoinSet::new();
    for (id, address) in addresses {
        let options = options.clone();
        asking.spawn(async move {
            let answer = report(&options, &address, timeout).await;
            let peers = answer.iter().flat_map(|report| &report.peers);
            let peers = peers.map(|peer| (peer.node, peer.address.clone())).collect();
            (NodeStatus::of(id, address, answer), peers)
        });
    }
    let mut answers = Vec::new();
    while let Some(answered) = asking.join_next().await {
        answers.push(answered.map_err(Failure::internal)?);
    }
    Ok(answers)
}

impl NodeStatus {
    fn of(id: Option<NodeId>, address: String, answer: Result<NodeReport, DialError>) -> Self {
        let is_misconfigured = matches!(&answer, Err(error) if error.is_lasting());
        let (report, error) = match answer {
            Ok(report) => (Some(report), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let report = report.as_ref();
        Self {
            id: report.map(|report| report.id).or(id),
            address,
            error,
            is_misconfigured,
            role: report.map(|report| report.role),
            term: report.map(|report| report.term),
            leader: report.and_then(|report| report.leader),
            commit: report.map(|report| report.commit.value()),
            applied: report.map(|report| report.applied.value()),
            lag: None,
            disk: report.map(|report| report.disk),
            sessions: report.map(|report| report.sessions),
            locks: report.map(|report| report.locks),
            waiters: report.map(|report| report.waiters),
            files: report.map(|report| report.files),
            connections: report.map(|report| report.connections),
            version: report.map(|report| report.version.clone()),
            uptime_ms: report.map(|report| report.uptime_ms),
        }
    }

    fn cells(&self) -> Vec<(String, Tone)> {
        let plain = |text: String| (text, Tone::Plain);
        let number = |number: Option<u64>| plain(shown(number));
        let role = match self.role {
            None => ("unreachable".to_owned(), Tone::Bad),
            Some(ReportedRole::Leader) => ("leader".to_owned(), Tone::Good),
            Some(ReportedRole::Follower) => plain("follower".to_owned()),
            Some(ReportedRole::PreCandidate) => ("pre-candidate".to_owned(), Tone::Warning),
            Some(ReportedRole::Candidate) => ("candidate".to_owned(), Tone::Warning),
        };
        let disk = match self.disk {
            None => plain("-".to_owned()),
            Some(DiskState::Ok) => plain("ok".to_owned()),
            Some(DiskState::Full) => ("full".to_owned(), Tone::Bad),
        };
        vec![
            plain(shown(self.id)),
            plain(self.address.clone()),
            role,
            plain(shown(self.term)),
            number(self.commit),
            number(self.applied),
            number(self.lag),
            disk,
            number(self.sessions),
            plain(shown(self.version.as_ref())),
        ]
    }
}

fn shown(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

impl Document for Status {
    fn sheet(&self) -> Sheet {
        let mut sheet = Sheet::new(&[
            "#id",
            "address",
            "role",
            "#term",
            "#commit",
            "#applied",
            "#lag",
            "disk",
            "#sessions",
            "version",
        ]);
        for node in &self.nodes {
            sheet.toned(node.cells());
        }
        let all = self.nodes.len();
        let (reachable, quorum) = (self.reachable, self.quorum);
        if let (Some(leader), Some(term)) = (self.leader, self.term) {
            sheet.remark(format!("Leader: node {leader}, in term {term}."));
            sheet.remark(format!(
                "Healthy: {reachable} of {all} nodes answer, {quorum} must follow the leader."
            ));
        } else {
            sheet.remark("Leader: none.");
            sheet.remark(format!(
                "No quorum: {reachable} of {all} nodes answer, {quorum} must agree on a leader. Locks \
                 are neither granted nor released."
            ));
        }
        for node in &self.nodes {
            if let Some(error) = &node.error {
                let name = node.id.map_or_else(|| node.address.clone(), |id| format!("node {id}"));
                sheet.remark(format!("{name} does not answer: {error}"));
            }
        }
        sheet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64, role: ReportedRole, term: u64, leader: u64) -> NodeStatus {
        let silent = NodeStatus::of(Some(NodeId::new(id)), format!("h:{id}"), Err(nobody()));
        NodeStatus {
            error: None,
            role: Some(role),
            term: Some(Term::new(term)),
            leader: Some(NodeId::new(leader)),
            commit: Some(10 + id),
            applied: Some(10),
            ..silent
        }
    }

    fn nobody() -> DialError {
        DialError::NobodyListens
    }

    fn silent(id: u64) -> NodeStatus {
        NodeStatus::of(Some(NodeId::new(id)), format!("h:{id}"), Err(nobody()))
    }

    use ReportedRole::{Candidate, Follower, Leader};

    #[test]
    fn four_of_five_are_healthy() {
        let nodes = vec![
            silent(0),
            node(1, Leader, 3, 1),
            node(2, Follower, 3, 1),
            node(3, Follower, 3, 1),
        ];
        let nodes = [nodes, vec![node(4, Follower, 3, 1)]].concat();
        let status = Status::of(nodes);
        assert!(status.healthy);
        assert_eq!((status.leader, status.reachable), (Some(NodeId::new(1)), 4));
        assert_eq!(status.nodes[1].lag, Some(4));
        assert_eq!(status.nodes[0].lag, None);
    }

    #[test]
    fn a_leader_that_is_not_followed_is_none() {
        let split = vec![node(0, Leader, 2, 0), node(1, Candidate, 3, 1), silent(2)];
        let status = Status::of(split);
        assert!(!status.healthy);
        assert_eq!(status.leader, None);
        let old = vec![node(0, Leader, 2, 0), node(1, Leader, 3, 1), node(2, Follower, 3, 1)];
        let status = Status::of(old);
        assert_eq!((status.healthy, status.leader), (true, Some(NodeId::new(1))));
        assert!(!Status::of(vec![silent(0), silent(1), silent(2)]).healthy);
    }

    #[test]
    fn every_node_is_a_row() {
        let status = Status::of(vec![node(0, Leader, 2, 0), silent(1), node(2, Follower, 2, 0)]);
        let output =
            crate::cli::output::OutputArguments { format: crate::cli::output::Format::Plain };
        let text = output.output().text(&status).expect("it can be shown");
        assert_eq!(text.lines().count(), 3);
        assert_eq!(text.lines().nth(1), Some("1\th:1\tunreachable\t-\t-\t-\t-\t-\t-\t-"));
        let json = serde_json::to_value(&status).expect("it can be shown");
        assert_eq!(json["nodes"][0]["role"], "leader");
        assert_eq!(json["nodes"][1]["error"], nobody().to_string());
        assert_eq!(json["healthy"], true);
    }
}
