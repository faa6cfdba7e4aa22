//! How a server comes up.
//!
//! First everything that can fail without leaving a trace: certificate, settings, address. Then the data
//! directory, then the node, and only then does anybody hear of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics_exporter_prometheus::ExporterFuture;
use quinn::Endpoint;
use quorlock_core::config::Limits;
use quorlock_core::ids::NodeId;
use quorlock_core::membership::Membership;
use quorlock_core::message::Recovered;
use quorlock_core::node::Node;
use tokio::task::JoinSet;
use tracing::Instrument;

use super::clients::Clients;
use super::config::{ServerConfig, Start};
use super::data_dir::{DataDir, DataDirError, Identity, NewIdentity};
use super::directory::Directory;
use super::disk::{OpenDisk, Opened};
use super::error::StartError;
use super::life::Life;
use super::metrics::Metrics;
use super::peer_link::{Link, Outgoing};
use super::shared::{Parts, Shared};
use super::{Server, accept, give_up, inputs, peers};
use crate::tls::{ClusterId, Role};
use crate::wire::hello::PeerHello;
use crate::{clock, endpoint};

/// Who the node is, by its certificate; and whether the settings go with that.
fn check(config: &ServerConfig) -> Result<ClusterId, StartError> {
    let identity = config.credentials.identity();
    if identity.role != Role::Node(config.id) {
        let role = identity.role.clone();
        return Err(StartError::OtherIdentity { node: config.id, role });
    }
    if !config.members.contains_key(&config.id) {
        return Err(StartError::NotAMember { node: config.id });
    }
    if let Start::Bootstrap(limits) = &config.start {
        config.node.check(limits)?;
    }
    Ok(identity.cluster.clone())
}

/// Makes or opens the data directory. It blocks.
fn open_directory(
    config: &ServerConfig,
    cluster: ClusterId,
) -> Result<(DataDir, Identity), StartError> {
    let directory = |error: DataDirError| StartError::Directory(error.to_string());
    match &config.start {
        Start::Bootstrap(limits) => {
            let state = bootstrap_state(config, limits.clone())?;
            let new = NewIdentity { cluster, node: config.id };
            DataDir::bootstrap(&config.data_dir, &new, &state).map_err(directory)
        }
        Start::Load => DataDir::open(&config.data_dir, &cluster, config.id).map_err(directory),
    }
}

fn bootstrap_state(config: &ServerConfig, limits: Limits) -> Result<Recovered, StartError> {
    let membership = Membership::new(config.members.keys().copied());
    let membership = membership.map_err(quorlock_core::config::ConfigError::from)?;
    Ok(Recovered::bootstrap(membership, limits)?)
}

/// Runs something that blocks.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StartError> + Send + 'static,
) -> Result<T, StartError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(StartError::Internal(error.to_string())))
}

/// That the node can start is to be known before anybody hears of it.
fn try_node(config: &ServerConfig, opened: &Opened) -> Result<Node, StartError> {
    let seed = getrandom::u64()?;
    let recovered = opened.recovered.clone();
    let node = Node::new(config.id, config.node.clone(), recovered, seed, clock::now())?;
    let members: Vec<NodeId> = node.status().membership.nodes().collect();
    if !config.members.keys().eq(&members) {
        let named = config.members.keys().copied().collect();
        return Err(StartError::OtherMembers { named, members });
    }
    opened.check_sources(members.len())?;
    Ok(node)
}

type Links = BTreeMap<NodeId, Arc<Link>>;

fn links(config: &ServerConfig) -> (Links, Vec<(Arc<Link>, Outgoing)>) {
    let mut links = BTreeMap::new();
    let mut outgoings = Vec::new();
    for (node, address) in config.members.iter().filter(|(node, _)| **node != config.id) {
        let (link, outgoing) = Link::new(*node, address.clone());
        let link = Arc::new(link);
        links.insert(*node, Arc::clone(&link));
        outgoings.push((link, outgoing));
    }
    (links, outgoings)
}

pub(super) async fn start(config: ServerConfig, open: OpenDisk) -> Result<Server, StartError> {
    let span = tracing::info_span!("node", node = %config.id);
    start_in(config, open, span.clone()).instrument(span).await
}

async fn start_in(
    config: ServerConfig,
    open: OpenDisk,
    span: tracing::Span,
) -> Result<Server, StartError> {
    let cluster = check(&config)?;
    let others = config.members.keys().copied().filter(|node| *node != config.id);
    let (metrics, exporter) = Metrics::new(config.metrics, config.id, others)?;
    let endpoint = endpoint::accepting(&config.credentials, config.listen)?;
    let started = start_at(config, cluster, metrics, exporter, endpoint.clone(), open, span).await;
    if started.is_err() {
        give_up(endpoint).await;
    }
    started
}

async fn start_at(
    config: ServerConfig,
    cluster: ClusterId,
    metrics: Metrics,
    exporter: Option<ExporterFuture>,
    endpoint: Endpoint,
    open: OpenDisk,
    span: tracing::Span,
) -> Result<Server, StartError> {
    let config = Arc::new(config);
    let opening = (Arc::clone(&config), cluster.clone(), Arc::clone(&open));
    let (directory, identity, opened) = blocking(move || {
        let (config, cluster, open) = opening;
        let (directory, identity) = open_directory(&config, cluster)?;
        let opened = open(&directory)?;
        Ok((directory, identity, opened))
    })
    .await?;
    let first = try_node(&config, &opened)?;
    let (inboxes, inputs) = inputs::channels();
    let (links, outgoings) = links(&config);
    let own = PeerHello {
        incarnation: identity.incarnation,
        starts: identity.starts,
        limits: opened.locks.limits().digest(),
    };
    let shared = Arc::new(Shared::new(Parts {
        id: config.id,
        cluster,
        address: endpoint.local_addr().unwrap_or(config.listen),
        members: config.members.clone(),
        own,
        directory: Directory::new(directory),
        metrics,
        inboxes,
        links,
        clients: Clients::new(config.connections_max, config.connections_per_client_max),
        status: first.status(),
    }));
    drop(first);
    let tasks = spawn_network(&endpoint, &shared, outgoings, exporter, &span);
    let life = Life { shared: Arc::clone(&shared), inputs, config: config.node.clone(), open };
    let life = tokio::spawn(life.run(opened).instrument(span.clone()));
    tracing::info!(address = %shared.address, starts = shared.own.starts, "started");
    Ok(Server { shared, endpoint: Some(endpoint), life, outcome: None, tasks, span })
}

fn spawn_network(
    endpoint: &Endpoint,
    shared: &Arc<Shared>,
    outgoings: Vec<(Arc<Link>, Outgoing)>,
    exporter: Option<ExporterFuture>,
    span: &tracing::Span,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for (link, outgoing) in outgoings {
        let kept = peers::keep_up(endpoint.clone(), Arc::clone(shared), link, outgoing);
        tasks.spawn(kept.instrument(span.clone()));
    }
    tasks.spawn(accept::run(endpoint.clone(), Arc::clone(shared)).instrument(span.clone()));
    if let Some(exporter) = exporter {
        let served = async move {
            if let Err(error) = exporter.await {
                tracing::error!(?error, "metrics are not served any more");
            }
        };
        tasks.spawn(served.instrument(span.clone()));
    }
    tasks
}
