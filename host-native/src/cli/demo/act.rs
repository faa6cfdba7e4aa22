//! The tour, part by part.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use quorlock_core::text::FileName;

use super::holder::{EARLY, Holder, LEASE, PAUSED, Told};
use super::workers::{JOURNAL, Record, Workers};
use super::{DemoArguments, Failure, Report, Teller, check, stale};
use crate::cli::cluster::{Cluster, node_id};
use crate::cli::duration::show;
use crate::cli::status::Status;
use crate::client::{Client, ClientOptions, Consistency, Wait};

/// How long anything may take that takes moments as a rule: this may be a slow machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long a node may take to say how it is.
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);
/// With fewer nodes none can be missing.
const FAILOVER_NODES_MIN: u64 = 3;

const NEXT: &str = "the next holder, while the first one was stopped\n";

/// Plays all parts.
pub(super) async fn play(
    cluster: &mut Cluster,
    arguments: &DemoArguments,
    teller: Teller<'_>,
) -> Result<Report, Failure> {
    let mut report =
        Report { nodes: arguments.nodes, clients: arguments.clients, ..Report::default() };
    report.paint(teller.context);
    let started = Instant::now();
    cluster.start().await?;
    let options = cluster.options()?;
    let leader = wait_for_leader(&options).await?;
    teller.say(format!("Node {leader} leads, after {}.", show(started.elapsed())))?;

    let workers = Workers::start(arguments.clients, &options);
    undisturbed(&workers, arguments, teller, &mut report).await?;
    if arguments.nodes >= FAILOVER_NODES_MIN {
        kill_leader(cluster, &workers, arguments, teller, &mut report).await?;
    } else {
        teller.part("The leader is not killed: with fewer than 3 nodes, none can be missing.")?;
    }
    pause_holder(cluster, &options, teller, &mut report).await?;
    let record = workers.finish().await?;
    compare(cluster, &options, &record, teller, &mut report).await?;
    Ok(report)
}

async fn undisturbed(
    workers: &Workers,
    arguments: &DemoArguments,
    teller: Teller<'_>,
    report: &mut Report,
) -> Result<(), Failure> {
    let clients = arguments.clients;
    teller.part(&format!("{clients} clients acquire the lock `{JOURNAL}`, append a line to the file that it guards, and release it."))?;
    // Until they are at it: connecting does not count.
    if !workers.reach(10, PATIENCE).await {
        return Err(Failure::unavailable("the clients get nowhere"));
    }
    let (before, started) = (workers.cycles(), Instant::now());
    tokio::time::sleep(arguments.period).await;
    let cycles = u32::try_from(workers.cycles() - before).unwrap_or(u32::MAX);
    report.cycles_per_second = f64::from(cycles) / started.elapsed().as_secs_f64();
    teller.say(format!("{:.0} cycles a second.", report.cycles_per_second))
}

async fn kill_leader(
    cluster: &mut Cluster,
    workers: &Workers,
    arguments: &DemoArguments,
    teller: Teller<'_>,
    report: &mut Report,
) -> Result<(), Failure> {
    let options = cluster.options()?;
    let leader = wait_for_leader(&options).await?;
    workers.hand_off().await;
    cluster.kill(leader).await;
    let (killed, before) = (Instant::now(), workers.cycles());
    teller.part(&format!(
        "Node {leader}, the leader, is killed (SIGKILL) while a client hands the lock on."
    ))?;
    // The first of these may have been decided before the kill, and told after it.
    let enough = before + 2 * usize::try_from(arguments.clients).unwrap_or(usize::MAX / 2);
    if !workers.reach(enough, PATIENCE).await {
        return Err(Failure::unavailable("the clients get nowhere since the leader was killed"));
    }
    let next = wait_for_leader(&options).await?;
    let gap = workers.longest_gap(killed);
    report.failover_gap_ms = Some(gap.as_millis());
    teller.say(format!(
        "Node {next} leads now. The clients noticed {} without progress.",
        show(gap)
    ))?;
    tokio::time::sleep(arguments.period).await;

    teller.part(&format!("Node {leader} is started again."))?;
    let started = Instant::now();
    cluster.start_node(leader).await?;
    let caught_up = wait_until(&options, |status| {
        let is_back = |node: &crate::cli::status::NodeStatus| {
            node.id == Some(node_id(leader)) && node.lag.is_some_and(|lag| lag < 100)
        };
        status.healthy && status.nodes.iter().any(is_back)
    });
    caught_up.await?;
    let took = show(started.elapsed());
    teller.say(format!("It has its state, and what it missed, after {took}."))
}

async fn pause_holder(
    cluster: &Cluster,
    options: &ClientOptions,
    teller: Teller<'_>,
    report: &mut Report,
) -> Result<(), Failure> {
    let mut holder = Holder::start(&cluster.connection())?;
    let Told::Held { token } = holder.next().await? else {
        return Err(Failure::internal("the process did not say that it holds the lock"));
    };
    let client = Client::connect(options.clone()).await?;
    holder.pause();
    let paused = Instant::now();
    teller.part(&format!(
        "A process that holds the lock `{PAUSED}` with token {token} is stopped (SIGSTOP), for longer \
         than its lease of {}.",
        show(LEASE)
    ))?;
    let lock = client.acquire(PAUSED, Wait::For(PATIENCE)).await?;
    let waited = paused.elapsed();
    report.pause_wait_ms = Some(waited.as_millis());
    teller.say(format!(
        "After {} the next client has the lock, with token {}, and appends.",
        show(waited),
        lock.token()
    ))?;
    lock.append(PAUSED, NEXT).await?;
    holder.wake().await?;
    teller.say("The process runs again (SIGCONT), and appends as if nothing had happened.")?;
    let problems = &mut report.problems;
    let Told::Late { refused, told, outcome } = holder.next().await? else {
        return Err(Failure::internal("the process did not say what became of its append"));
    };
    teller.say(format!("  Its library: {outcome}."))?;
    match told {
        Some(told) => teller.say(format!("  It was told: {told}."))?,
        None => problems.push("the stopped process was not told that it lost the lock".to_owned()),
    }
    if !refused {
        problems.push("the append of the stopped process was not refused".to_owned());
    }
    let Told::Again { current, outcome } = holder.next().await? else {
        return Err(Failure::internal("the process did not say what became of its second append"));
    };
    teller.say(format!("  With its old token, past its library: {outcome}."))?;
    if current != Some(lock.token().value()) {
        problems
            .push(format!("an append with an old token was not refused as it should: {outcome}"));
    }
    lock.release().await?;
    let found = client.read_file(PAUSED, .., Consistency::Linearizable)?.read_to_end().await?;
    if found != format!("{EARLY}{NEXT}").as_bytes() {
        let found = String::from_utf8_lossy(&found).into_owned();
        problems.push(format!("the file {PAUSED} should have two lines, and has {found:?}"));
    }
    client.close().await?;
    Ok(())
}

/// Compares what the clients were told with what is there, on every node.
async fn compare(
    cluster: &Cluster,
    options: &ClientOptions,
    record: &Record,
    teller: Teller<'_>,
    report: &mut Report,
) -> Result<(), Failure> {
    teller.part("The clients have stopped. Now every file is compared with what they were told, and on all nodes.")?;
    report.cycles = record.completed.len();
    if record.sessions_lost > 0 {
        teller.say(format!(
            "{} sessions ended, since this machine was too busy to keep them alive; their clients \
             opened new ones.",
            record.sessions_lost
        ))?;
    }
    let client = Client::connect(options.clone()).await?;
    let journal = client.read_file(JOURNAL, .., Consistency::Linearizable)?.read_to_end().await?;
    let paused = client.read_file(PAUSED, .., Consistency::Linearizable)?.read_to_end().await?;
    client.close().await?;
    let (lines, problems) = check::journal(&journal, record);
    report.lines = lines;
    report.problems.extend(problems);

    wait_until(options, |status| {
        let applied: BTreeSet<_> = status.nodes.iter().map(|node| node.applied).collect();
        status.reachable == status.nodes.len() && applied.len() == 1
    })
    .await?;
    let mut differences = Vec::new();
    for (name, expected) in [(JOURNAL, &journal), (PAUSED, &paused)] {
        report.files += 1;
        let file = FileName::new(name).map_err(Failure::internal)?;
        for id in cluster.nodes() {
            let address = cluster.address(id);
            let told = stale::read(&options.credentials, node_id(id), &address, &file).await?;
            if &told != expected {
                differences.push(format!("node {id} says something else of {file}"));
            }
            let path = cluster.data(id).join("files").join(name);
            let on_disk = std::fs::read(&path).map_err(|error| {
                Failure::internal(format!("cannot read {}: {error}", path.display()))
            })?;
            if &on_disk != expected {
                differences.push(format!("{} has something else in it", path.display()));
            }
        }
    }
    report.files_equal = differences.is_empty();
    report.problems.extend(differences);
    Ok(())
}

/// The leader that a majority follows.
async fn wait_for_leader(options: &ClientOptions) -> Result<u64, Failure> {
    let status = wait_until(options, |status| status.healthy).await?;
    let leader = status.leader.expect("a healthy cluster has a leader");
    Ok(leader.value())
}

async fn wait_until(
    options: &ClientOptions,
    mut holds: impl FnMut(&Status) -> bool,
) -> Result<Status, Failure> {
    let waiting = async {
        loop {
            let status = Status::ask(options, STATUS_TIMEOUT).await?;
            if holds(&status) {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.map_err(|_elapsed| {
        Failure::unavailable(format!("the cluster takes longer than {PATIENCE:?}"))
    })?
}
