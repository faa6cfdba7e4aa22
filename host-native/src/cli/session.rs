//! Sessions of commands: opened for one thing, and closed whatever comes of it.
//!
//! A session that is merely forgotten keeps its locks, and its places in queues, until its lease ends:
//! the next in the queue would wait for nothing. So a command closes its session also when it fails, and
//! when somebody presses Ctrl-C.

use std::ops::AsyncFnOnce;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::Context;
use super::duration;
use super::exit::{Exit, Failure};
use crate::client::{Client, ClientOptions, Text, Wait};

/// How long a command waits for the end of its session when nothing depends on it.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// How long to wait for a lock.
#[derive(Clone, Copy, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct WaitArguments {
    /// Do not wait: fail if somebody else holds the lock.
    #[arg(short = 'n', long = "try", conflicts_with = "wait")]
    pub(crate) once: bool,
    /// Wait at most this long for the lock, such as 10 (seconds), 500ms or 2m.
    #[arg(short = 'w', long, value_name = "TIME", value_parser = duration::parse)]
    pub(crate) wait: Option<Duration>,
}

impl WaitArguments {
    /// What was asked for, or else `otherwise`.
    pub(crate) fn or(self, otherwise: Wait) -> Wait {
        match self.wait {
            _ if self.once => Wait::Try,
            Some(wait) => Wait::For(wait),
            None => otherwise,
        }
    }
}

/// Does something in a session of its own, for as long as it takes.
///
/// # Errors
/// The cluster is not found or not reached, or what `work` says.
pub(crate) async fn in_session<T>(
    context: &Context,
    work: impl AsyncFnOnce(&Client) -> Result<T, Failure>,
) -> Result<T, Failure> {
    in_session_with(context.connection.options()?, work).await
}

/// Looks at something, or changes it, in a session of its own, within the time-out.
///
/// # Errors
/// As [`in_session`], or there is no answer in time.
pub(crate) async fn in_short_session<T>(
    context: &Context,
    work: impl AsyncFnOnce(&Client) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let timeout = context.connection.timeout;
    in_session(context, async |client| in_time(timeout, work(client)).await).await
}

/// Does something in a session with these options.
///
/// # Errors
/// As [`in_session`].
pub(crate) async fn in_session_with<T>(
    options: ClientOptions,
    work: impl AsyncFnOnce(&Client) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut interrupted = Interrupts::catch()?;
    let client = tokio::select! {
        biased;
        exit = interrupted.next() => return Err(Failure::silent(exit)),
        client = Client::connect(options) => client?,
    };
    let result = tokio::select! {
        biased;
        exit = interrupted.next() => Err(Failure::silent(exit)),
        result = work(&client) => result,
    };
    let closed = tokio::time::timeout(CLOSE_PATIENCE, client.close()).await;
    tracing::debug!(?closed, "session closed");
    result
}

/// What has an answer within a time.
///
/// # Errors
/// It has none, or what it says itself.
pub(crate) async fn in_time<T>(
    timeout: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::time::timeout(timeout, work).await.unwrap_or_else(|_elapsed| {
        let waited = duration::show(timeout);
        Err(Failure::unavailable(format!("the cluster did not answer within {waited}"))
            .hint("look at the nodes with `quorlock status`, or give it more time with --timeout"))
    })
}

/// Ctrl-C, and a request to end.
struct Interrupts {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Interrupts {
    fn catch() -> Result<Self, Failure> {
        let catch = |kind| signal(kind).map_err(cannot_catch);
        Ok(Self {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
        })
    }

    /// The exit code that a shell would give.
    async fn next(&mut self) -> Exit {
        tokio::select! {
            _ = self.interrupt.recv() => Exit::Other(130),
            _ = self.terminate.recv() => Exit::Other(143),
        }
    }
}

/// Signals that the system does not let us catch.
pub(crate) fn cannot_catch(error: std::io::Error) -> Failure {
    Failure::internal(format!("cannot catch signals: {error}"))
}

/// Who somebody is, as people say it: `host:pid (user)`.
pub(crate) fn who(label: &quorlock_core::text::Label) -> String {
    let or = |text: &Text, otherwise: &str| {
        let text = if text.as_str().is_empty() { otherwise } else { text.as_str() };
        super::output::one_line(text)
    };
    let host = or(&label.host, "unknown");
    let user = or(&label.user, "unknown");
    if label.pid == 0 {
        format!("{host} ({user})")
    } else {
        format!("{host}:{} ({user})", label.pid)
    }
}

#[cfg(test)]
mod tests {
    use quorlock_core::text::Label;

    use super::*;

    #[test]
    fn people_are_named_by_host_process_and_user() {
        let text = |text: &str| Text::new(text).expect("it is short");
        let label = Label { host: text("alpha"), pid: 7, user: text("eva"), command: text("make") };
        assert_eq!(who(&label), "alpha:7 (eva)");
        assert_eq!(who(&Label { pid: 0, ..label }), "alpha (eva)");
        assert_eq!(who(&Label::default()), "unknown (unknown)");
    }

    #[test]
    fn waits_are_as_asked_for() {
        let arguments = |once, wait| WaitArguments { once, wait };
        assert_eq!(arguments(true, None).or(Wait::Forever), Wait::Try);
        let second = Duration::from_secs(1);
        assert_eq!(arguments(false, Some(second)).or(Wait::Forever), Wait::For(second));
        assert_eq!(arguments(false, None).or(Wait::Try), Wait::Try);
    }
}
