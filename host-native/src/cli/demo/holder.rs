//! A process that holds a lock, is stopped, and wakes up too late: both its sides.
//!
//! The process tells what it sees as JSON lines ([`Told`]), and reads from stdin when to go on.

use std::process::Stdio;
use std::time::Duration;

use quorlock_core::ids::FencingToken;
use quorlock_core::message::{FileAppend, Op, Rejection};
use quorlock_core::text::{FileName, LockName};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::super::Context;
use super::super::cluster::program;
use super::super::connection::Connection;
use super::super::exit::{Exit, Failure};
use crate::client::{CallError, Client, Wait};

/// The file of this part, and the lock that guards it.
pub(super) const PAUSED: &str = "paused";
/// What the holder appends in time.
pub(super) const EARLY: &str = "the first holder, before it was stopped\n";
/// What it appends too late.
const LATE: &str = "the first holder, after it was stopped\n";

/// As short as the cluster allows, so that nobody has to wait for long.
pub(super) const LEASE: Duration = Duration::from_secs(2);
/// How long the other process may take to say the next thing.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the process tells.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(super) enum Told {
    /// It holds the lock, and has appended.
    Held { token: u64 },
    /// What became of its append after the pause.
    Late {
        /// The library refused it, or the cluster did.
        refused: bool,
        /// The library had told that the lock is lost, and why.
        told: Option<String>,
        /// What the append ended with.
        outcome: String,
    },
    /// What became of the same append with the same token, sent in a new session.
    Again {
        /// The token that the cluster named as the current one when it refused.
        current: Option<u64>,
        outcome: String,
    },
}

/// The other process: holds, waits, wakes up too late. It finds the cluster in its environment.
pub(crate) fn hold(context: &Context) -> Result<Exit, Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| {
        Failure::internal(format!("cannot ask to end with the parent: {error}"))
    })?;
    context.block_on(async {
        let options = context.connection.options()?.lease(LEASE);
        let client = Client::connect(options.clone()).await?;
        let lock = client.acquire(PAUSED, Wait::Try).await?;
        lock.append(PAUSED, EARLY).await?;
        tell(context, &Told::Held { token: lock.token().value() })?;

        // Here the process is stopped. It does not know of that, and goes on when it can.
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        lines.next_line().await.map_err(Failure::internal)?;

        let late = lock.append(PAUSED, LATE).await;
        tell(
            context,
            &Told::Late {
                refused: late.is_err(),
                told: lock.loss().map(|loss| loss.to_string()),
                outcome: outcome(&late),
            },
        )?;
        // A program that ignores what the library tells it, and sends its token by other ways.
        let other = Client::connect(options).await?;
        let again = other.call(append(lock.token())?).await;
        let current = match &again {
            Err(CallError::Rejected(Rejection::NotHolder { current })) => *current,
            Ok(_) | Err(_) => None,
        };
        let current = current.map(FencingToken::value);
        tell(context, &Told::Again { current, outcome: outcome(&again) })?;
        Ok(Exit::Ok)
    })
}

fn append(token: FencingToken) -> Result<Op, Failure> {
    let append =
        FileAppend { file: FileName::new(PAUSED).map_err(Failure::internal)?, bytes: LATE.into() };
    Ok(Op::Append { lock: LockName::new(PAUSED).map_err(Failure::internal)?, token, append })
}

fn outcome<T>(result: &Result<T, CallError>) -> String {
    match result {
        Ok(_) => "it took effect".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn tell(context: &Context, told: &Told) -> Result<(), Failure> {
    let line = serde_json::to_string(told).map_err(Failure::internal)?;
    context.output.line(line)?;
    Ok(())
}

/// The process, as the demo sees it.
#[derive(Debug)]
pub(super) struct Holder {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Holder {
    /// Starts it.
    pub(super) fn start(connection: &Connection) -> Result<Self, Failure> {
        let mut child = Command::new(program()?)
            .arg("__demo-holder")
            .envs(connection.variables())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Failure::internal(format!("cannot start a process: {error}")))?;
        let stdin = child.stdin.take().expect("it was asked for");
        let stdout = child.stdout.take().expect("it was asked for");
        Ok(Self { child, stdin, lines: BufReader::new(stdout).lines() })
    }

    /// Its process.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// The next that it tells.
    pub(super) async fn next(&mut self) -> Result<Told, Failure> {
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await;
        let line = match line {
            Ok(Ok(Some(line))) => line,
            Ok(Ok(None)) => return Err(Failure::internal("the process that holds a lock ended")),
            Ok(Err(error)) => return Err(Failure::internal(error)),
            Err(_elapsed) => {
                return Err(Failure::internal("the process that holds a lock says nothing"));
            }
        };
        serde_json::from_str(&line).map_err(|error| {
            Failure::internal(format!("{line:?} is not what was expected: {error}"))
        })
    }

    /// Stops it, as Ctrl-Z or a machine that swaps would.
    pub(super) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it run again, and do what it was about to do.
    pub(super) async fn wake(&mut self) -> Result<(), Failure> {
        self.signal(Signal::CONT);
        self.stdin.write_all(b"go\n").await.map_err(Failure::internal)
    }

    fn signal(&self, signal: Signal) {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid
            && let Err(error) = kill_process(pid, signal)
        {
            tracing::debug!(%error, ?signal, "a signal did not arrive");
        }
    }
}
