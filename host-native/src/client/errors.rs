//! What can go wrong, each with what to do next.

use std::fmt;
use std::time::Duration;

use quorlock_core::client::{self as core, Ending};
use quorlock_core::config::ConfigError;
use quorlock_core::ids::NodeId;
use quorlock_core::message::{EndCause, Rejection};
use quorlock_core::text::{FileName, LockName, TextError};

use super::Endpoint;
use super::dial_error::DialError;
use super::lock::Lock;
use crate::endpoint::EndpointError;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A setting is out of its range.
    #[error("the client's settings do not work: {0}")]
    Settings(#[from] ConfigError),
    /// There is nobody to ask.
    #[error("no endpoint is given: name at least one node as host:port, better all of them")]
    NoEndpoints,
    /// The credentials do not go together, or there is no socket.
    #[error(transparent)]
    Local(#[from] EndpointError),
    /// The system gives no randomness.
    #[error("the system gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    /// The thread that keeps sessions alive could not be started.
    #[error("cannot start the thread that keeps sessions alive: {0}")]
    Thread(#[source] std::io::Error),
    /// No node let us in.
    #[error("no node could be reached{}{}", Within(*timeout), Failures(failures))]
    Unreachable {
        /// Each endpoint, and why it is of no use.
        failures: Vec<(Endpoint, DialError)>,
        /// How long was tried; `None` when there was no point in trying longer.
        timeout: Option<Duration>,
    },
    /// Nodes were reached, but none of them leads, or none could commit anything: too few are up,
    /// or they do not reach each other.
    #[error(
        "the cluster has no quorum: nodes were reached, but no session could be opened within \
         {timeout:?}; more than half of the nodes must be up and reach each other{}",
        Standings(nodes)
    )]
    NoQuorum {
        /// Each node, and how it stood last.
        nodes: Vec<NodeStanding>,
        /// How long was tried.
        timeout: Duration,
    },
    /// The cluster refused the session.
    #[error("the cluster refused to open a session: {0}")]
    Refused(Rejection),
}

impl ConnectError {
    /// Whether certificates are to blame, ours or theirs, and not the network.
    pub fn is_about_certificates(&self) -> bool {
        match self {
            Self::Local(error) => matches!(error, EndpointError::Credentials(_)),
            Self::Unreachable { failures, .. } => {
                failures.iter().all(|(_, error)| error.is_about_certificates())
            }
            Self::Settings(_)
            | Self::NoEndpoints
            | Self::Random(_)
            | Self::Thread(_)
            | Self::NoQuorum { .. }
            | Self::Refused(_) => false,
        }
    }
}

/// How one node stood when opening a session was given up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeStanding {
    /// The node.
    pub node: NodeId,
    /// Where it was looked for.
    pub address: String,
    /// What was learned of it last.
    pub standing: Standing,
}

/// What was learned of one node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It was not asked.
    NotTried,
    /// It was not reached.
    Unreachable(DialError),
    /// It was reached, and did not say who leads.
    NoAnswer,
    /// It was reached, and does not lead.
    NotLeader {
        /// Who does, as far as it knows.
        leader: Option<NodeId>,
    },
    /// It was reached, and had too much to do.
    Overloaded,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTried => f.write_str("not tried"),
            Self::Unreachable(error) => error.fmt(f),
            Self::NoAnswer => f.write_str("reached, but it did not answer"),
            Self::NotLeader { leader: None } => f.write_str("reached, and it knows no leader"),
            Self::NotLeader { leader: Some(leader) } => {
                write!(f, "reached, and it takes node {leader} for the leader")
            }
            Self::Overloaded => f.write_str("reached, but it is overloaded"),
        }
    }
}

struct Within(Option<Duration>);

impl fmt::Display for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |timeout| write!(f, " within {timeout:?}"))
    }
}

struct Failures<'a>(&'a [(Endpoint, DialError)]);

impl fmt::Display for Failures<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(endpoint, error)| write!(f, "\n  {endpoint}: {error}"))
    }
}

struct Standings<'a>(&'a [NodeStanding]);

impl fmt::Display for Standings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|NodeStanding { node, address, standing }| {
            write!(f, "\n  {node}={address}: {standing}")
        })
    }
}

/// Why a call did not do what it was asked to; or, in the one case of [`CallError::Unknown`], may
/// have.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CallError {
    /// The cluster decided so. It changed nothing.
    #[error("rejected: {0}")]
    Rejected(Rejection),
    /// The session is over, and with it all that it held. The call did nothing. Connect again for a
    /// new session.
    #[error("not done: {0}; connect again for a new session")]
    SessionEnded(Ending),
    /// The call was sent, and the session ended before an answer came. It took effect once, or not
    /// at all, or it still will. Look (read the file, inspect the lock) before doing it again; never
    /// report it as a failure.
    #[error(
        "unknown: it was sent, but the session ended before an answer came; it may or may not have \
         taken effect: look before doing it again"
    )]
    Unknown,
    /// Too many calls, or bytes of them, are open. This one was not sent. Wait until some are
    /// finished.
    #[error("not sent: too many calls are open; wait until some of them are finished")]
    TooManyCalls,
    /// A name or reason breaks the rules for it.
    #[error("{text:?} cannot be used: {error}")]
    Name {
        /// What was given.
        text: String,
        /// The rule.
        error: TextError,
    },
    /// Only an administrator's certificate may do this.
    #[error(
        "not permitted: the certificate is that of {role}, not an admin certificate; make one \
             with `quorlock certs client --admin`"
    )]
    NotAdmin {
        /// Whose certificate it is.
        role: String,
    },
    /// There is no such file.
    #[error("there is no file {0:?}; it is made by the first append to it")]
    NoSuchFile(FileName),
}

impl CallError {
    /// Whether a hold that was to be released is over in any case.
    pub(super) fn ends_hold(&self) -> bool {
        match self {
            Self::SessionEnded(_) | Self::Unknown => true,
            Self::Rejected(rejection) => matches!(rejection, Rejection::NotHolder { .. }),
            Self::TooManyCalls
            | Self::Name { .. }
            | Self::NotAdmin { .. }
            | Self::NoSuchFile(_) => false,
        }
    }

    pub(super) fn name(text: &str) -> impl FnOnce(TextError) -> Self {
        |error| Self::Name { text: text.to_owned(), error }
    }
}

impl From<Rejection> for CallError {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<core::CallError> for CallError {
    fn from(error: core::CallError) -> Self {
        match error {
            core::CallError::Rejected(rejection) => Self::Rejected(rejection),
            core::CallError::SessionEnded(ending) => Self::SessionEnded(ending),
            core::CallError::Unknown => Self::Unknown,
            core::CallError::TooManyCalls => Self::TooManyCalls,
        }
    }
}

/// Why a lock was not acquired. In every case the caller does not hold it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AcquireError {
    /// Somebody else holds it, and the request was not to wait.
    #[error("{lock} is held by somebody else; wait for it, or look who holds it")]
    NotObtained {
        /// The lock.
        lock: LockName,
    },
    /// The wait took as long as it was allowed to.
    #[error("{lock} did not come free in time; wait longer, or look who holds it")]
    TimedOut {
        /// The lock.
        lock: LockName,
    },
    /// The wait was cancelled.
    #[error("the wait for {lock} was cancelled")]
    Cancelled {
        /// The lock.
        lock: LockName,
    },
    /// This very client holds it. A session is one holder: tasks that compete for a lock use one
    /// client each, or settle it among themselves.
    #[error(
        "{lock} is held by this very client; release it first, or use a client of its own for \
             each task that competes for it"
    )]
    AlreadyHeld {
        /// The lock.
        lock: LockName,
    },
    /// This very client waits for it. As for [`AcquireError::AlreadyHeld`].
    #[error(
        "this very client waits for {lock} already; use a client of its own for each task that \
             competes for it"
    )]
    AlreadyWaiting {
        /// The lock.
        lock: LockName,
    },
    /// Anything else: a limit of the cluster, a bad name, the end of the session.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl AcquireError {
    /// What the end of an acquire means.
    pub(super) fn of(lock: &LockName, error: core::CallError) -> Self {
        let lock = lock.clone();
        match error {
            core::CallError::Rejected(Rejection::NotObtained) => Self::NotObtained { lock },
            core::CallError::Rejected(Rejection::TimedOut) => Self::TimedOut { lock },
            core::CallError::Rejected(Rejection::Cancelled) => Self::Cancelled { lock },
            core::CallError::Rejected(Rejection::AlreadyWaiting) => Self::AlreadyWaiting { lock },
            other @ (core::CallError::Rejected(_)
            | core::CallError::SessionEnded(_)
            | core::CallError::Unknown
            | core::CallError::TooManyCalls) => Self::Call(other.into()),
        }
    }
}

/// A release that did not happen, most often because of what was to be appended with it.
#[derive(Debug, thiserror::Error)]
#[error("not released: {error}")]
pub struct ReleaseError {
    /// Why.
    #[source]
    pub error: CallError,
    /// The lock, if it is still held: nothing was appended and nothing released. Dropped, it is
    /// released without appends.
    pub lock: Option<Lock>,
}

/// Why a lock is not held any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LossCause {
    /// The cluster took it, and the session lives on.
    Taken(EndCause),
    /// The session is over.
    SessionEnded(Ending),
    /// It was given back through another handle.
    Released,
}

impl fmt::Display for LossCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(cause) => cause.fmt(f),
            Self::SessionEnded(ending) => ending.fmt(f),
            Self::Released => f.write_str("it was released"),
        }
    }
}
