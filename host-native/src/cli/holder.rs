//! A process that keeps a session, and with it a lock, for `quorlock acquire`.
//!
//! A lock is held by a session, and a session lives as long as somebody renews its lease. `quorlock
//! acquire` ends at once, so it leaves a process behind that does: this one, in a session of its own
//! (of the system's), with its input and output closed. It ends
//!
//! - when `quorlock release` says so, through the socket ([`service`]), or at a TERM or INT; then the
//!   lock is released;
//! - when the lock is lost: `--max-hold` is over, somebody broke it, or the cluster was not heard from in
//!   time;
//! - before it holds the lock, when the process that started it is gone.
//!
//! Between the two there is a pipe each way: the holder says once how it went, and sees by the end of its
//! input that nobody waits for that any more.

mod ask;
mod protocol;
mod service;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;

use super::exit::{Exit, Failure};
use super::run::waiting;
use super::session::{WaitArguments, cannot_catch};
use super::{Context, duration};
use crate::client::{AcquireOptions, Client, Text, Wait};

pub(crate) use ask::Holder;
pub(crate) use protocol::{Question, Reply, failure};
pub(crate) use service::{Held, Service, find, was_lost};

/// The hidden command that is the holder.
pub(crate) const COMMAND: &str = "__hold";

/// What `acquire` and its holder are told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct HoldArguments {
    /// The lock.
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) wait: WaitArguments,
    /// How long the lock is kept when the cluster is not heard from: the lease of the session.
    #[arg(long = "ttl", value_name = "TIME", default_value = "10", value_parser = duration::parse)]
    pub(crate) lease: Duration,
    /// After how long the lock is taken back; 0 for never.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration::parse)]
    pub(crate) max_hold: Duration,
}

impl HoldArguments {
    /// `None` for never.
    pub(crate) fn max_hold(&self) -> Option<Duration> {
        Some(self.max_hold).filter(|hold| !hold.is_zero())
    }
}

/// What the holder tells the process that started it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Beginning {
    /// The lock is held.
    Held {
        /// The session that holds it.
        session: u64,
        /// Its token.
        token: u64,
        /// Where the holder listens.
        socket: String,
    },
    /// It is not.
    Failed {
        /// The exit code that says why.
        exit: u8,
        /// What happened, and why.
        what: String,
    },
}

/// Is the holder.
///
/// # Errors
/// The lock is not held, which the process that started it was told; or it was lost.
pub(crate) fn run(arguments: HoldArguments, context: &Context) -> Result<Exit, Failure> {
    // A hang-up of the terminal, or Ctrl-C, is not for us.
    if let Err(error) = rustix::process::setsid() {
        tracing::debug!(%error, "no session of our own");
    }
    if let Err(error) = std::env::set_current_dir("/") {
        tracing::debug!(%error, "cannot leave the folder");
    }
    context.block_on(hold(arguments, context))
}

async fn hold(arguments: HoldArguments, context: &Context) -> Result<Exit, Failure> {
    let mut signals = super::run::Signals::catch().map_err(cannot_catch)?;
    let begun = tokio::select! {
        biased;
        _ = signals.next() => return Ok(Exit::Negative),
        () = end_of_input() => return Ok(Exit::Negative),
        begun = begin(&arguments, context) => begun,
    };
    let (client, held, service) = match begun {
        Ok(begun) => begun,
        Err(failure) => {
            let (exit, what) = (failure.exit().code(), failure.to_string());
            tell(&Beginning::Failed { exit, what });
            return Err(Failure::silent(failure.exit()));
        }
    };
    let told = tell(&Beginning::Held {
        session: client.session().value(),
        token: held.lock.token().value(),
        socket: service.path().to_string_lossy().into_owned(),
    });
    let exit = if told {
        leave_the_terminal();
        tokio::select! {
            _ = signals.next() => Exit::Ok,
            () = held.released() => Exit::Ok,
            loss = held.lock.lost() => {
                tracing::info!(%loss, "the lock is lost");
                Exit::Lost
            }
        }
    } else {
        Exit::Negative
    };
    // The reply to whoever released it is still on its way.
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(service);
    let closed = tokio::time::timeout(context.connection.timeout, client.close()).await;
    tracing::debug!(?closed, "session closed");
    Ok(exit)
}

async fn begin(
    arguments: &HoldArguments,
    context: &Context,
) -> Result<(Client, std::sync::Arc<Held>, Service), Failure> {
    let mut options = context.connection.options()?.lease(arguments.lease);
    // What the person typed, not how we were started for it.
    if let Ok(command) = Text::new(format!("quorlock acquire {}", arguments.name)) {
        options.label.command = command;
    }
    let cluster = options.credentials.identity().cluster.clone();
    let client = Client::connect(options).await?;
    let wait = arguments.wait.or(Wait::Forever);
    let options = AcquireOptions { wait, max_hold: arguments.max_hold() };
    let lock = match waiting::acquire(&client, &arguments.name, options).await {
        Ok(lock) => lock,
        Err(error) => {
            let closed = tokio::time::timeout(context.connection.timeout, client.close()).await;
            tracing::debug!(?closed, "session closed");
            return Err(error.into());
        }
    };
    let held = Held::new(lock, None);
    let service = Service::start(&cluster, &held).map_err(cannot_listen)?;
    Ok((client, held, service))
}

/// An answer to another question.
pub(crate) fn senseless() -> Failure {
    Failure::internal("the process that keeps the lock answers to something else")
}

/// Nobody could ask for anything.
pub(crate) fn cannot_listen(error: std::io::Error) -> Failure {
    Failure::configuration(format!("cannot make the socket of the lock's holder: {error}"))
        .hint("set XDG_RUNTIME_DIR to a folder that is yours alone")
}

/// Says how it went. Whether somebody took note.
fn tell(beginning: &Beginning) -> bool {
    use std::io::Write as _;
    let Ok(mut line) = serde_json::to_vec(beginning) else { return false };
    line.push(b'\n');
    let mut output = std::io::stdout().lock();
    output.write_all(&line).and_then(|()| output.flush()).is_ok()
}

/// Resolves when the process that started us is gone.
async fn end_of_input() {
    let mut input = tokio::io::stdin();
    let mut bytes = [0; 16];
    while let Ok(1..) = input.read(&mut bytes).await {}
}

/// From here on, nobody hears us, and no pipe or terminal stays open because of us.
fn leave_the_terminal() {
    let null = match std::fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
        Ok(null) => null,
        Err(error) => {
            tracing::debug!(%error, "cannot open /dev/null");
            return;
        }
    };
    let left = rustix::stdio::dup2_stdin(&null)
        .and_then(|()| rustix::stdio::dup2_stdout(&null))
        .and_then(|()| rustix::stdio::dup2_stderr(&null));
    tracing::debug!(?left, "input and output closed");
}
