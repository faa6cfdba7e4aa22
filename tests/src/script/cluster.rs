//! Commands on nodes, disks, messages and time.

use std::collections::BTreeMap;
use std::error::Error;
use std::str::FromStr;

use quorlock_core::ids::{EntryId, LogIndex, NodeId};
use quorlock_core::membership::Membership;
use quorlock_core::message::{Entry, HardState, Payload, Recovered};
use quorlock_core::time::LeaseTime;

use super::Script;
use super::settings;
use super::values::{HandMadeLog, List, Span};
use super::words::Topic;
use crate::lab::{Lab, LabOptions};

/// Commands on nodes and time.
#[derive(Debug, goldenscript::Command)]
pub(super) enum ClusterCommand {
    /// `cluster 3 seed=2 heartbeat_interval=20ms sessions_max=2`: a new cluster.
    Cluster {
        nodes: u64,
        #[arg(key)]
        seed: Option<u64>,
        #[arg(key, many, optional)]
        settings: Vec<(String, String)>,
    },
    /// `logs 1="1 1 2" 2="1 1 in 3"`: a new cluster whose nodes start with empty entries of these
    /// terms, and in this term. Settings as with `cluster`.
    Logs(#[arg(key, many)] Vec<(String, String)>),
    /// `show messages writes`: what the trace tells of from now on.
    Show(Vec<Topic>),
    /// `hide timers`: what it does not tell of any more.
    Hide(Vec<Topic>),
    /// `automatic on`: every command is followed by a `settle`.
    Automatic(Switch),
    /// `timeout 1`: the clock goes to the node's next deadline, and the node is woken.
    Timeout(u64),
    /// `campaign 1`: the same until its election time-out has passed.
    Campaign(u64),
    /// `elect 1`: campaigns and settles until the node leads.
    Elect(u64),
    /// `wake 1`: wakes a node, due or not.
    Wake(u64),
    /// `pass 1s`: time passes and nobody is woken.
    Pass(Span),
    /// `advance 1s`: time passes, whoever is due is woken, nothing is delivered.
    Advance(Span),
    /// `run 1s`: time passes, whoever is due is woken, and everything settles in between.
    Run(Span),
    /// `settle`: delivers and finishes everything that is not held.
    Settle,
    /// `crash 1 2`: these nodes stop at once.
    Crash(Vec<u64>),
    /// `restart 1 2`: these nodes start from their disks.
    Restart(Vec<u64>),
    /// `transfer 1 2`: node 1 is to hand its leadership to node 2, or to whom it likes.
    Transfer(u64, Option<u64>),
    /// Anything else.
    #[command(other)]
    Other(goldenscript::Command),
}

/// Commands on messages.
#[derive(Debug, goldenscript::Command)]
pub(super) enum MailCommand {
    /// `deliver 1 2`: the oldest message from 1 to 2; without nodes, all until none is left.
    Deliver(Option<u64>, Option<u64>),
    /// `round`: what is in the mail now, and nothing that is sent meanwhile.
    Round,
    /// `lose 1 2`: the oldest message from 1 to 2; without nodes, all.
    Lose(Option<u64>, Option<u64>),
    /// `duplicate 1 2`: the oldest message from 1 to 2 will arrive a second time.
    Duplicate(u64, u64),
    /// `reorder 1 2`: the second message from 1 to 2 overtakes the first; or a later one.
    Reorder(u64, u64, Option<usize>),
    /// `cut 1 2`: what is sent from 1 to 2 is lost.
    Cut(u64, u64),
    /// `restore 1 2`: what is sent from 1 to 2 arrives again.
    Restore(u64, u64),
    /// `heal`: every way is open.
    Heal,
    /// `isolate 1`: every way from and to 1 is cut.
    Isolate(u64),
    /// `partition "1 2" "3"`: every way between two groups is cut.
    Partition(List<u64>, List<u64>),
    /// Anything else.
    #[command(other)]
    Other(goldenscript::Command),
}

/// Commands on disks and files.
#[derive(Debug, goldenscript::Command)]
pub(super) enum DiskCommand {
    /// `hold 1 writes`: what the lab does not finish by itself any more.
    Hold(u64, What),
    /// `free 1 writes`: what it finishes again.
    Free(u64, What),
    /// `persist 1`: the oldest write is durable, and the node is told; or so many.
    Persist(u64, Option<u64>),
    /// `persist_together 1`: all writes are durable, and the node is told once.
    PersistTogether(u64),
    /// `write 1`: the oldest write is durable, and the node is not told.
    Write(u64),
    /// `sync 1`: the effects are durable, and the node is told.
    Sync(u64),
    /// `tear 1 5`: the first bytes of each file are durable, and the node is not told.
    Tear(u64, usize),
    /// `fetch 1`: the node gets what it asked for.
    Fetch(u64),
    /// `fail_fetch 1`: it does not.
    FailFetch(u64),
    /// Anything else.
    #[command(other)]
    Other(goldenscript::Command),
}

/// `on` or `off`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Switch {
    On,
    Off,
}

impl FromStr for Switch {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err("it is on or off".to_owned()),
        }
    }
}

/// What a test can finish itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum What {
    Writes,
    Effects,
    Fetches,
    Outputs,
}

impl FromStr for What {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "writes" => Ok(Self::Writes),
            "effects" => Ok(Self::Effects),
            "fetches" => Ok(Self::Fetches),
            "outputs" => Ok(Self::Outputs),
            _ => Err("it is writes, effects, fetches or outputs".to_owned()),
        }
    }
}

impl Script {
    pub(super) fn run_cluster(&mut self, command: ClusterCommand) -> Result<(), Box<dyn Error>> {
        match command {
            ClusterCommand::Cluster { nodes, seed, settings } => {
                self.begin(new_cluster(nodes, seed, &settings)?);
            }
            ClusterCommand::Logs(logs) => self.begin(from_logs(&logs)?),
            ClusterCommand::Show(topics) => self.words.topics = topics.into_iter().collect(),
            ClusterCommand::Hide(topics) => {
                self.words.topics.retain(|topic| !topics.contains(topic));
            }
            ClusterCommand::Automatic(switch) => self.automatic = switch == Switch::On,
            ClusterCommand::Timeout(n) => {
                self.lab()?.timeout(n);
            }
            ClusterCommand::Campaign(n) => self.lab()?.campaign(n),
            ClusterCommand::Elect(n) => self.lab()?.elect(n),
            ClusterCommand::Wake(n) => self.lab()?.wake(n),
            ClusterCommand::Pass(time) => self.lab()?.pass(time.0),
            ClusterCommand::Advance(time) => self.lab()?.advance(time.0),
            ClusterCommand::Run(time) => self.lab()?.run(time.0),
            ClusterCommand::Settle => self.lab()?.settle(),
            ClusterCommand::Crash(nodes) => {
                for n in nodes {
                    self.lab()?.crash(n);
                }
            }
            ClusterCommand::Restart(nodes) => {
                for n in nodes {
                    self.lab()?.restart(n);
                }
            }
            ClusterCommand::Transfer(n, to) => self.lab()?.transfer(n, to),
            ClusterCommand::Other(command) => return self.run_mail((&command).try_into()?),
        }
        Ok(())
    }

    fn run_mail(&mut self, command: MailCommand) -> Result<(), Box<dyn Error>> {
        match command {
            MailCommand::Deliver(Some(from), Some(to)) => found(self.lab()?.deliver(from, to))?,
            MailCommand::Deliver(_, _) => self.lab()?.deliver_all(),
            MailCommand::Round => self.lab()?.deliver_round(),
            MailCommand::Lose(Some(from), Some(to)) => found(self.lab()?.drop(from, to))?,
            MailCommand::Lose(_, _) => self.lab()?.drop_all(),
            MailCommand::Duplicate(from, to) => found(self.lab()?.duplicate(from, to))?,
            MailCommand::Reorder(from, to, before) => {
                found(self.lab()?.reorder(from, to, before.unwrap_or(1)))?;
            }
            MailCommand::Cut(from, to) => self.lab()?.cut(from, to),
            MailCommand::Restore(from, to) => self.lab()?.restore(from, to),
            MailCommand::Heal => self.lab()?.heal(),
            MailCommand::Isolate(n) => self.lab()?.isolate(n),
            MailCommand::Partition(one, other) => self.lab()?.partition(&one.0, &other.0),
            MailCommand::Other(command) => return self.run_disks((&command).try_into()?),
        }
        Ok(())
    }

    fn run_disks(&mut self, command: DiskCommand) -> Result<(), Box<dyn Error>> {
        match command {
            DiskCommand::Hold(n, what) => hold(self.lab()?, n, what, true),
            DiskCommand::Free(n, what) => hold(self.lab()?, n, what, false),
            DiskCommand::Persist(n, count) => {
                for _ in 0..count.unwrap_or(1) {
                    found(self.lab()?.persist(n))?;
                }
            }
            DiskCommand::PersistTogether(n) => self.lab()?.persist_together(n),
            DiskCommand::Write(n) => found(self.lab()?.write_unacknowledged(n))?,
            DiskCommand::Sync(n) => found(self.lab()?.effects_durable(n))?,
            DiskCommand::Tear(n, bytes) => self.lab()?.tear_files(n, bytes),
            DiskCommand::Fetch(n) => found(self.lab()?.fetch(n))?,
            DiskCommand::FailFetch(n) => found(self.lab()?.fail_fetch(n))?,
            DiskCommand::Other(command) => return self.run_sessions(command),
        }
        Ok(())
    }
}

/// A script that names something which is not there is wrong.
pub(super) fn found(found: bool) -> Result<(), Box<dyn Error>> {
    if found { Ok(()) } else { Err("there is no such thing under way".into()) }
}

fn hold(lab: &mut Lab, n: u64, what: What, hold: bool) {
    match what {
        What::Writes => lab.hold_writes(n, hold),
        What::Effects => lab.hold_effects(n, hold),
        What::Fetches => lab.hold_fetches(n, hold),
        What::Outputs => lab.hold_outputs(n, hold),
    }
}

fn new_cluster(
    nodes: u64,
    seed: Option<u64>,
    settings: &[(String, String)],
) -> Result<Lab, Box<dyn Error>> {
    let default = LabOptions::default();
    let mut options = LabOptions { nodes, seed: seed.unwrap_or(default.seed), ..default };
    for (name, value) in settings {
        settings::set(&mut options.config, &mut options.limits, name, value)?;
    }
    Ok(Lab::new(options))
}

/// A cluster whose nodes start with logs made by hand. The words beside them are settings.
fn from_logs(words: &[(String, String)]) -> Result<Lab, Box<dyn Error>> {
    let mut options = LabOptions::default();
    let mut logs: BTreeMap<u64, HandMadeLog> = BTreeMap::new();
    for (name, value) in words {
        match name.parse() {
            Ok(node) => {
                logs.insert(node, value.parse()?);
            }
            Err(_) => settings::set(&mut options.config, &mut options.limits, name, value)?,
        }
    }
    let members = logs.keys().copied().map(NodeId::new);
    let empty = Recovered::bootstrap(Membership::new(members)?, options.limits.clone())?;
    let disks = logs.iter().map(|(n, log)| (*n, with_log(&empty, log)));
    Ok(Lab::from_recovered(options, disks.collect()))
}

/// A disk with empty entries of these terms.
fn with_log(empty: &Recovered, log: &HandMadeLog) -> Recovered {
    let entries: Vec<Entry> = (1..)
        .zip(&log.terms)
        .map(|(index, term)| Entry {
            id: EntryId::new(*term, LogIndex::new(index)),
            stamp: LeaseTime::ZERO,
            payload: Payload::Empty,
        })
        .collect();
    let hard_state = HardState { term: log.term, vote: None };
    Recovered { hard_state, entries, ..empty.clone() }
}
