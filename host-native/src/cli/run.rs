//! `quorlock run`: a command that runs while a lock is held.
//!
//! Three processes take part:
//!
//! - `quorlock run` keeps the session, and with it the lock. It passes signals on, and ends the command
//!   before the lease can end ([`supervise`](mod@supervise), [`timing`]).
//! - The command, in a process group of its own, which begins as this program and only then becomes the
//!   command ([`group`], [`exec`](mod@exec)).
//! - The guard, which ends the command when `quorlock run` cannot ([`super::guard`]).
//!
//! # What it promises
//!
//! When the lock is given to somebody else because the lease ended, the whole process group is gone. When
//! the lock is taken away while the lease goes on (an administrator broke it, or `--max-hold` is over),
//! the command has a tenth of the lease to clean up, while somebody else may hold the lock: that is the
//! point of breaking it.
//!
//! # What it cannot
//!
//! A process that leaves the group (`setsid`, a daemon, a job of an interactive shell) is not reached. A
//! `quorlock run` inside of another one is: it passes TERM on, and its own guard ends its own group when
//! it is killed. What the command leaves running when it ends by itself runs on without the lock; that is
//! said on stderr. And whatever the lock protects should check the token, which is the only protection
//! that does not depend on time.

pub(crate) mod exec;
pub(crate) mod group;
mod hold;
pub(crate) mod ourselves;
mod signals;
mod supervise;
mod terminal;
#[cfg(test)]
mod tests;
mod timing;
pub(crate) mod waiting;

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::Context;
use super::connection::Connection;
use super::exit::{Exit, Failure};
use super::holder::{Held, Service, was_lost};
use super::session::{WaitArguments, cannot_catch};
use super::{duration, holder};
use crate::client::{AcquireError, AcquireOptions, Client, Lock, Wait};
use group::Group;
use hold::ClientHold;
use ourselves::Ourselves;
use supervise::{Report, Supervised};
use terminal::Terminal;

pub(crate) use exec::ExecArguments;
pub(crate) use signals::Signals;

/// Says under which lock a command runs.
pub(crate) const LOCK_VARIABLE: &str = "QUORLOCK_LOCK";
/// The token that proves it.
pub(crate) const TOKEN_VARIABLE: &str = "QUORLOCK_TOKEN";
/// The session that holds it.
pub(crate) const SESSION_VARIABLE: &str = "QUORLOCK_SESSION";
/// Where the process listens that keeps the session.
pub(crate) const SOCKET_VARIABLE: &str = "QUORLOCK_SOCKET";

/// What happens to the command when the lock is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum OnLost {
    /// It is told to end (TERM), and killed (KILL) a tenth of the lease later.
    Term,
    /// It is killed at once.
    Kill,
    /// It runs on. The exit code tells of the loss all the same.
    Ignore,
}

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code: that of the command, 128 and its number for a signal, 127 or 126 if it cannot be run; that of \
-E if the lock was not obtained; 75 if it was lost while the command ran; 69 if there was no quorum in \
time.

The command finds in its environment: QUORLOCK_LOCK, QUORLOCK_TOKEN, QUORLOCK_SESSION, QUORLOCK_SOCKET, \
and QUORLOCK_ENDPOINTS, QUORLOCK_CA, QUORLOCK_CERT, QUORLOCK_KEY; with these `quorlock append` appends \
under its lock.")]
pub(crate) struct RunArguments {
    /// The lock.
    name: String,
    #[command(flatten)]
    wait: WaitArguments,
    /// How long the lock is kept when the cluster is not heard from: the lease of the session.
    #[arg(long = "ttl", value_name = "TIME", default_value = "10", value_parser = duration::parse)]
    lease: Duration,
    /// After how long the lock is taken back, whatever the command does.
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    max_hold: Option<Duration>,
    /// The exit code if the lock is not obtained.
    #[arg(short = 'E', long = "conflict-exit-code", value_name = "CODE", default_value_t = 1)]
    exit_code: u8,
    /// What happens to the command when the lock is lost.
    #[arg(long, value_name = "WHAT", default_value = "term")]
    on_lost: OnLost,
    /// The command and its arguments. No shell is in between.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs a command while holding a lock.
///
/// # Errors
/// The lock was not obtained, or the command not started.
pub(crate) fn run(arguments: RunArguments, context: &Context) -> Result<Exit, Failure> {
    refuse_a_wait_for_oneself(&arguments)?;
    // On the main thread: it is the one that counts as the command's parent.
    context.block_on(acquire_and_run(arguments, context))
}

/// Inside of `quorlock run NAME`, another `quorlock run NAME` would wait for the one around it, which
/// waits for the one inside.
fn refuse_a_wait_for_oneself(arguments: &RunArguments) -> Result<(), Failure> {
    let around = std::env::var_os(LOCK_VARIABLE);
    let waits = arguments.wait.or(Wait::Forever) == Wait::Forever;
    if around.is_some_and(|around| around == *arguments.name) && waits {
        let what = format!(
            "{} is held by the `quorlock run` around this one: it would wait for itself for ever",
            arguments.name
        );
        return Err(Failure::new(Exit::Other(arguments.exit_code), what)
            .hint("leave the inner `quorlock run` out, or say how long to wait with --wait"));
    }
    Ok(())
}

async fn acquire_and_run(arguments: RunArguments, context: &Context) -> Result<Exit, Failure> {
    let mut signals = Signals::catch().map_err(cannot_catch)?;
    let connection = context.connection.find()?;
    let options = connection.options()?.open_timeout(context.connection.timeout);
    let options = options.lease(arguments.lease);
    let cluster = options.credentials.identity().cluster.clone();
    let client = tokio::select! {
        biased;
        signal = signals.next() => return Ok(ended_by(signal)),
        client = Client::connect(options) => client?,
    };
    let lock = tokio::select! {
        biased;
        signal = signals.next() => {
            finish(&client, context.connection.timeout, &mut signals).await;
            return Ok(ended_by(signal));
        }
        lock = obtain(&client, &arguments) => lock,
    };
    let lock = match lock {
        Ok(lock) => lock,
        Err(failure) => {
            finish(&client, context.connection.timeout, &mut signals).await;
            return Err(failure);
        }
    };
    let keep =
        format!("{} is held by `quorlock run`: it is released when the command ends", lock.name());
    let held = Held::new(lock, Some(keep));
    let service = Service::start(&cluster, &held).map_err(holder::cannot_listen)?;
    let environment = environment(&connection, &held, &service);
    let outcome = supervise(&arguments, &held, &environment, &mut signals).await;
    drop(service);
    let lost_at_the_end = release(&held, context.connection.timeout, &mut signals).await;
    finish(&client, context.connection.timeout, &mut signals).await;
    Ok(exit_of(outcome?, lost_at_the_end))
}

async fn obtain(client: &Client, arguments: &RunArguments) -> Result<Lock, Failure> {
    let wait = arguments.wait.or(Wait::Forever);
    let options = AcquireOptions { wait, max_hold: arguments.max_hold };
    waiting::acquire(client, &arguments.name, options).await.map_err(|error| match error {
        AcquireError::NotObtained { .. }
        | AcquireError::TimedOut { .. }
        | AcquireError::Cancelled { .. }
        | AcquireError::AlreadyHeld { .. }
        | AcquireError::AlreadyWaiting { .. } => {
            Failure::new(Exit::Other(arguments.exit_code), error)
        }
        AcquireError::Call(error) => error.into(),
    })
}

/// What the command finds. Set last, so that it is right inside of another `quorlock run`.
fn environment(
    connection: &Connection,
    held: &Held,
    service: &Service,
) -> Vec<(&'static str, OsString)> {
    let lock = &held.lock;
    let mut environment = Vec::from(connection.variables());
    environment.extend([
        (LOCK_VARIABLE, lock.name().as_str().into()),
        (TOKEN_VARIABLE, lock.token().to_string().into()),
        (SESSION_VARIABLE, lock.client().session().to_string().into()),
        (SOCKET_VARIABLE, service.path().into()),
    ]);
    environment
}

async fn supervise(
    arguments: &RunArguments,
    held: &Arc<Held>,
    environment: &[(&str, OsString)],
    signals: &mut Signals,
) -> Result<Report, Failure> {
    let cannot = |error| Failure::internal(format!("cannot watch over the command: {error}"));
    let ourselves = Ourselves::find().map_err(cannot)?;
    let terminal = Terminal::find();
    let mut hold = ClientHold::new(held);
    let group = Group::start(&ourselves, &arguments.command, environment).map_err(cannot)?;
    let lease = held.lock.client().config().lease;
    let begun =
        Supervised::begin(&mut hold, &ourselves, group, terminal, arguments.on_lost, lease).await;
    begun.map_err(cannot)?.finish(signals).await.map_err(cannot)
}

/// Gives the lock back. Returns why it was lost already, if it was.
async fn release(held: &Held, timeout: Duration, signals: &mut Signals) -> Option<String> {
    if let Some(loss) = held.lock.loss() {
        return Some(loss.cause.to_string());
    }
    let released = tokio::select! {
        biased;
        _ = signals.next() => return None,
        released = tokio::time::timeout(timeout, held.release()) => released,
    };
    match released {
        Ok(Ok(())) => None,
        Ok(Err(error)) if was_lost(&error) => Some(error.to_string()),
        Ok(Err(error)) => {
            say(&format!("the lock was not released: {error}"));
            None
        }
        Err(_elapsed) => {
            let left = duration::show(held.lock.client().lease_left().unwrap_or_default());
            say(&format!(
                "the cluster does not answer: the lock comes free when its lease ends, in about {left}"
            ));
            None
        }
    }
}

/// Closes the session, so that nothing of it is left in queues. Nothing depends on it.
async fn finish(client: &Client, timeout: Duration, signals: &mut Signals) {
    let patience = timeout.min(Duration::from_secs(1));
    tokio::select! {
        biased;
        _ = signals.next() => {}
        closed = tokio::time::timeout(patience, client.clone().close()) => {
            tracing::debug!(?closed, "session closed");
        }
    }
}

fn exit_of(report: Report, lost_at_the_end: Option<String>) -> Exit {
    if !report.left.is_empty() {
        let left: Vec<String> =
            report.left.iter().map(|pid| Pid::as_raw_pid(*pid).to_string()).collect();
        say(&format!(
            "the command has ended, but processes that it started go on without the lock: {}",
            left.join(", ")
        ));
    }
    match (report.lost, lost_at_the_end) {
        // It was said when it happened.
        (Some(_), _) => Exit::Lost,
        (None, Some(why)) => {
            say(&format!("the lock was lost while the command ran: {why}"));
            Exit::Lost
        }
        (None, None) => Exit::Other(report.exit.code()),
    }
}

fn ended_by(signal: Signal) -> Exit {
    Exit::Other(group::Exit::Signal(signal.as_raw()).code())
}

/// What a child does before it becomes the command.
#[expect(clippy::unnecessary_wraps, reason = "every command has this shape")]
pub(crate) fn exec(arguments: ExecArguments, _context: &Context) -> Result<Exit, Failure> {
    Ok(exec::run(&arguments))
}

/// Says something to people, between the lines of the command.
pub(crate) fn say(text: &str) {
    use std::io::Write as _;
    // If it cannot be written, there is nobody to tell.
    drop(std::io::stderr().write_all(format!("quorlock: {text}\n").as_bytes()));
}
