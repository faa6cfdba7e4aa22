//! `quorlock server`: one node.
//!
//! It says one line on stdout when it is ready, logs to stderr, and runs until it is told to stop: by
//! SIGTERM or SIGINT, upon which it hands its leadership over and ends with 0. A second signal ends it
//! at once; nothing that was acknowledged is lost by that.

mod files;
mod settings;

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use quorlock_core::ids::ID_MAX;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use serde::Serialize;

use super::Context;
use super::certs::check_validity;
use super::exit::{Exit, Failure};
use super::output::{Document, Format, Sheet};
use super::signals::Stop;
use crate::server::{Server, ServerError, StartError};
use settings::Settings;

pub(crate) use files::create_files;

/// Arguments of `server`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct ServerArguments {
    /// The id of this node.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..ID_MAX))]
    id: Option<u64>,
    /// The UDP port to listen on; without it, that of this node in --peers.
    #[arg(long, value_name = "P")]
    port: Option<u16>,
    /// The address to listen on. Other machines reach this node only if it is not the default.
    /// [default: 127.0.0.1]
    #[arg(long, value_name = "IP")]
    listen: Option<IpAddr>,
    /// Where the node keeps its log and the files.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// All nodes of the cluster, this one included. Without it, the cluster has one node.
    #[arg(long, value_name = "ID=HOST:PORT,...", value_delimiter = ',')]
    peers: Vec<String>,

    /// The first start of a node of a new cluster: makes the data directory.
    #[arg(long, help_heading = "State", conflicts_with = "load_state")]
    bootstrap: bool,
    /// Says that there is state to load. This is so for every start without --bootstrap.
    #[arg(long, help_heading = "State")]
    load_state: bool,
    /// Creates file-0 to file-(N-1), each guarded by a lock of its name, unless they are there.
    #[arg(long, value_name = "N", help_heading = "State")]
    create_files: Option<u32>,
    /// A limit of the cluster, for --bootstrap, such as files_max=100. May be repeated.
    #[arg(long, value_name = "NAME=VALUE", help_heading = "State")]
    limit: Vec<String>,

    /// The certificate of the cluster's authority.
    #[arg(id = "ca", long, value_name = "FILE", help_heading = "Certificates")]
    ca: Option<PathBuf>,
    /// The certificate of this node.
    #[arg(id = "cert", long, value_name = "FILE", help_heading = "Certificates")]
    cert: Option<PathBuf>,
    /// Its private key.
    #[arg(id = "key", long, value_name = "FILE", help_heading = "Certificates")]
    key: Option<PathBuf>,

    /// A file with these options; the command line goes before it.
    #[arg(id = "config", long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Serves metrics over HTTP at this loopback address.
    #[arg(long, value_name = "IP:PORT")]
    metrics_addr: Option<SocketAddr>,
    /// The most connections of clients. [default: 4096]
    #[arg(long, value_name = "N")]
    connections_max: Option<u32>,
    /// A setting of this node, such as heartbeat_interval=100ms. May be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,

    // A server has no use for these, which are everywhere else.
    #[arg(id = "endpoints", long, hide = true, value_delimiter = ',')]
    endpoints: Vec<String>,
    /// Ends with the process of this id, which must be the parent.
    #[arg(long, hide = true, value_name = "PID")]
    die_with_parent: Option<u32>,
}

const AFTER_HELP: &str = "\
The node file of --config has the same names, with _ for -, and paths relative to itself:
  id = 0
  port = 7000
  listen = \"127.0.0.1\"
  data_dir = \"node-0\"
  peers = [\"0=127.0.0.1:7000\", \"1=127.0.0.1:7001\", \"2=127.0.0.1:7002\"]
  ca = \"certs/ca.pem\"
  cert = \"certs/node-0.pem\"
  key = \"certs/node-0.key\"
  metrics_addr = \"127.0.0.1:9100\"
  [limits]             # as --limit; they count for --bootstrap
  files_max = 100
  [set]                # as --set
  heartbeat_interval = \"50ms\"";

/// Runs a node until it is told to stop.
pub(crate) fn run(arguments: ServerArguments, context: &Context) -> Result<Exit, Failure> {
    if let Some(parent) = arguments.die_with_parent {
        die_with_parent(parent)?;
    }
    let settings = Settings::of(arguments)?;
    abort_on_panic();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::internal(format!("cannot start the runtime: {error}")))?;
    let result = runtime.block_on(serve(settings, context));
    runtime.shutdown_background();
    result
}

/// From now on this process ends when the one that started it does.
fn die_with_parent(parent: u32) -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| {
        Failure::internal(format!("cannot ask to end with the parent process: {error}"))
    })?;
    // It may have ended before we asked.
    let is_there = getppid().map(Pid::as_raw_nonzero).map(|pid| pid.get().cast_unsigned());
    if is_there == Some(parent) { Ok(()) } else { Err(Failure::silent(Exit::Internal)) }
}

/// A node that lost track of itself must not go on, whichever thread it was.
fn abort_on_panic() {
    let inherited = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!(%panic, "the server lost track of itself, and ends");
        inherited(panic);
        std::process::abort();
    }));
}

async fn serve(settings: Settings, context: &Context) -> Result<Exit, Failure> {
    // Before anything is started, so that no signal is missed.
    let mut stop = Stop::listen()?;
    let config = settings.config;
    if let Some(warning) = check_validity(&config.credentials)? {
        tracing::warn!("{warning}");
    }
    let cluster = config.credentials.identity().cluster.to_string();
    let (id, credentials, members) =
        (config.id, config.credentials.clone(), config.members.clone());
    let mut server = tokio::select! {
        started = Server::start(config) => started?,
        signal = stop.next() => return Ok(Exit::Other(128 + signal)),
    };
    let ready = Ready {
        id: id.value(),
        address: server.address(),
        cluster,
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
    };
    // Whoever started us may not listen; the node does not depend on it.
    drop(ready.say(context));
    let creating = settings
        .create_files
        .map(|count| tokio::spawn(files::create_when_possible(count, members, credentials)));
    let failed = tokio::select! {
        error = server.failed() => Some(error),
        _signal = stop.next() => None,
    };
    if let Some(creating) = creating {
        creating.abort();
    }
    if let Some(error) = failed {
        return Err(error.into());
    }
    tracing::info!("stopping; a second signal ends this at once");
    tokio::select! {
        stopped = server.stop() => stopped.map(|()| Exit::Ok).map_err(Failure::from),
        signal = stop.next() => std::process::exit(i32::from(128 + signal)),
    }
}

/// What a node says when it is ready.
#[derive(Serialize)]
struct Ready {
    id: u64,
    address: SocketAddr,
    cluster: String,
    version: &'static str,
    pid: u32,
}

impl Ready {
    fn say(&self, context: &Context) -> Result<(), Failure> {
        if context.output.format == Format::Table {
            let Self { id, address, cluster, version, pid } = self;
            context.output.line(format!(
                "ready: node {id} at {address}, cluster {cluster}, version {version}, pid {pid}"
            ))?;
        } else {
            context.output.print(self)?;
        }
        Ok(())
    }
}

impl Document for Ready {
    fn sheet(&self) -> Sheet {
        let mut sheet = Sheet::new(&["#id", "address", "cluster", "version", "#pid"]);
        let Self { id, address, cluster, version, pid } = self;
        sheet.row([
            id.to_string(),
            address.to_string(),
            cluster.clone(),
            (*version).to_owned(),
            pid.to_string(),
        ]);
        sheet
    }
}

/// A server that does not start.
impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match &error {
            StartError::Random(_) | StartError::Internal(_) => Self::internal(error),
            StartError::OtherIdentity { .. }
            | StartError::NotAMember { .. }
            | StartError::OtherMembers { .. }
            | StartError::Config(_)
            | StartError::Directory(_)
            | StartError::Log(_)
            | StartError::Files(_)
            | StartError::State(_)
            | StartError::Snapshot(_)
            | StartError::NobodyToFetchFrom { .. }
            | StartError::Endpoint(_)
            | StartError::Metrics { .. } => Self::configuration(error),
        }
    }
}

/// A server that ended by itself.
impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        Self::internal(error).hint("look at its log, then start it again")
    }
}

/// The arguments with which a node file is used by a process that ends with this one.
pub(crate) fn child_arguments(config: &std::path::Path, bootstrap: bool) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = ["-o", "json", "server", "--config"].map(Into::into).into();
    arguments.push(config.into());
    arguments.push("--die-with-parent".into());
    arguments.push(std::process::id().to_string().into());
    if bootstrap {
        arguments.push("--bootstrap".into());
    }
    arguments
}
