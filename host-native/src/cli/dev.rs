//! `quorlock dev`: a cluster on this machine, for as long as the command runs.
//!
//! A node that ends is not started again unless `--restart` says so: whoever kills one wants to see
//! what the others do, and `quorlock server --config .quorlock/node-2.toml` brings it back.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use serde::Serialize;

use super::Context;
use super::cluster::{Cluster, NODES_MAX, clear};
use super::connection::LOCAL_FILE;
use super::exit::{Exit, Failure};
use super::output::{Document, Sheet};
use super::server::create_files;
use super::signals::Stop;
use super::status::Status;

/// Arguments of `dev`.
#[derive(Debug, clap::Args)]
pub(crate) struct DevArguments {
    /// How many nodes a new cluster has. [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=NODES_MAX))]
    nodes: Option<u64>,
    /// The folder of the cluster: certificates, data, logs.
    #[arg(long, value_name = "DIR", default_value = ".quorlock")]
    data: PathBuf,
    /// Creates file-0 to file-(N-1), each guarded by a lock of its name, unless they are there.
    #[arg(long, value_name = "N")]
    create_files: Option<u32>,
    /// Removes the old cluster of the folder, with everything in it, and begins a new one.
    #[arg(long)]
    fresh: bool,
    /// Starts a node again that ends by itself, or is killed.
    #[arg(long)]
    restart: bool,
}

/// The first port of a cluster.
const FIRST_PORT: u16 = 7000;
/// The pause before a node is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// How long a new cluster may take to elect a leader, before somebody is told.
const LEADER_PATIENCE: Duration = Duration::from_secs(10);

/// Keeps a cluster until it is interrupted.
pub(crate) fn run(arguments: DevArguments, context: &Context) -> Result<Exit, Failure> {
    if arguments.fresh {
        clear(&arguments.data)?;
    }
    let cluster = Cluster::open(&arguments.data, arguments.nodes, FIRST_PORT)?;
    let nodes = cluster.nodes().len();
    context.output.note(format!("Starting {nodes} nodes in {}", arguments.data.display()));
    context.block_on(keep(cluster, arguments, context))
}

async fn keep(
    mut cluster: Cluster,
    arguments: DevArguments,
    context: &Context,
) -> Result<Exit, Failure> {
    let mut stop = Stop::listen()?;
    let kept = tokio::select! {
        kept = watch(&mut cluster, &arguments, context) => kept,
        _signal = stop.next() => Ok(()),
    };
    if kept.is_ok() {
        context.output.note("Stopping.");
    }
    tokio::select! {
        () = cluster.stop() => {}
        // Whoever asks twice does not want to wait.
        _signal = stop.next() => cluster.kill_all().await,
    }
    kept?;
    context.output.note(format!(
        "Stopped. `{} dev` in this folder goes on where this ended; what it keeps is in {}.",
        called_as(),
        arguments.data.display()
    ));
    Ok(Exit::Ok)
}

/// Starts the cluster, and says what becomes of its nodes. It ends only with a failure.
async fn watch(
    cluster: &mut Cluster,
    arguments: &DevArguments,
    context: &Context,
) -> Result<(), Failure> {
    cluster.start().await?;
    context.output.print(&Running::of(cluster, &arguments.data))?;
    greet(cluster, arguments, context).await?;
    loop {
        let (id, status) = cluster.ended().await;
        let node_file = cluster.node_file(id);
        let next = if arguments.restart {
            "it is started again".to_owned()
        } else {
            let file = shown(&node_file).display().to_string();
            format!("start it again with `{} server --config {file}`", called_as())
        };
        context.output.warn(format!("node {id} {}; {next}", how(status)));
        if arguments.restart {
            restart(cluster, id, context).await;
        } else if !cluster.is_running() {
            return Err(Failure::unavailable("all nodes have ended")
                .hint(format!("their logs are in {}/logs", arguments.data.display())));
        }
    }
}

async fn restart(cluster: &mut Cluster, id: u64, context: &Context) {
    tokio::time::sleep(RESTART_PAUSE).await;
    match cluster.start_node(id).await {
        Ok(()) => {
            let pid = cluster.pid(id).map_or_else(String::new, |pid| format!(" as pid {pid}"));
            context.output.note(format!("Node {id} is back{pid}."));
        }
        Err(failure) => context.output.warn(failure),
    }
}

/// What is said once there is a leader.
async fn greet(
    cluster: &Cluster,
    arguments: &DevArguments,
    context: &Context,
) -> Result<(), Failure> {
    let options = cluster.options()?;
    let elected = async {
        loop {
            let status = Status::ask(&options, Duration::from_secs(1)).await?;
            match status.leader {
                Some(leader) => return Ok::<_, Failure>(leader),
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    match tokio::time::timeout(LEADER_PATIENCE, elected).await {
        Ok(leader) => {
            let leader = leader?;
            if let Some(count) = arguments.create_files {
                create_files(options, count).await?;
                context.output.note(format!("{count} files are there: file-0 and so on."));
            }
            context.output.note(format!("Ready: node {leader} leads. Ctrl-C stops the cluster."));
        }
        Err(_elapsed) => context.output.warn(format!(
            "there is no leader yet after {LEADER_PATIENCE:?}; see the logs in {}/logs",
            arguments.data.display()
        )),
    }
    Ok(())
}

fn how(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was killed by signal {signal}"),
        (None, Some(code)) => format!("ended with code {code}"),
        (None, None) => "ended".to_owned(),
    }
}

/// How this program was called, so that what is suggested works in the same place.
fn called_as() -> String {
    std::env::args().next().unwrap_or_else(|| "quorlock".to_owned())
}

/// A path as seen from here, if that is shorter.
fn shown(path: &Path) -> PathBuf {
    let here = std::env::current_dir().ok();
    let relative = here.and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned));
    relative.unwrap_or_else(|| path.to_owned())
}

/// A cluster that runs, for `-o json`.
#[derive(Serialize)]
struct Running {
    cluster: String,
    folder: PathBuf,
    client_file: PathBuf,
    nodes: Vec<RunningNode>,
    #[serde(skip)]
    is_default: bool,
}

#[derive(Serialize)]
struct RunningNode {
    id: u64,
    address: String,
    pid: Option<u32>,
    data: PathBuf,
    log: PathBuf,
}

impl Running {
    fn of(cluster: &Cluster, folder: &Path) -> Self {
        let node = |id| RunningNode {
            id,
            address: cluster.address(id),
            pid: cluster.pid(id),
            data: cluster.data(id),
            log: cluster.log(id),
        };
        Self {
            cluster: cluster.id().to_owned(),
            folder: cluster.folder().to_owned(),
            client_file: cluster.client_file(),
            nodes: cluster.nodes().into_iter().map(node).collect(),
            is_default: Path::new(LOCAL_FILE).parent() == Some(folder),
        }
    }
}

impl Document for Running {
    fn sheet(&self) -> Sheet {
        let mut sheet = Sheet::new(&["#id", "address", "#pid", "data"]);
        for node in &self.nodes {
            sheet.row([
                node.id.to_string(),
                node.address.clone(),
                node.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
                shown(&node.data).display().to_string(),
            ]);
        }
        let program = called_as();
        sheet.remark("");
        if self.is_default {
            sheet.remark(
                "In another terminal in this folder every command finds the cluster. Elsewhere:",
            );
        } else {
            sheet.remark("So that commands find the cluster:");
        }
        sheet.remark(format!("  export QUORLOCK_CONFIG={}", self.client_file.display()));
        sheet.remark("Try:");
        sheet.remark(format!("  {program} status"));
        sheet.remark(format!("  {program} run deploy -- sh -c 'echo $QUORLOCK_TOKEN'"));
        sheet.remark(format!("  {program} append log hello; {program} cat log"));
        let pid = self.nodes.first().and_then(|node| node.pid);
        if let Some(pid) = pid.filter(|_| self.nodes.len() > 2) {
            sheet.remark(format!("  kill -9 {pid}; {program} status"));
        }
        sheet
    }
}
