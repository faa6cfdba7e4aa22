//! What crosses the boundary between a client and its host.

use core::fmt;

use crate::ids::{AttemptId, CallId, FencingToken, LogIndex, NodeId};
use crate::message::{Answer, Consistency, Done, Loss, Op, Query, Rejection, Reply, Request};
use crate::text::LockName;

/// What the host tells a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientInput {
    /// The application asks for something. It hears of it once, by [`ClientOutput::Finished`].
    Call {
        /// Larger than that of every call before.
        call: CallId,
        /// What to do.
        action: Action,
    },
    /// A connection is there.
    Connected {
        /// The one of [`ClientOutput::Connect`].
        attempt: AttemptId,
    },
    /// A connection could not be made, or broke. Nothing is told of this attempt after it.
    Disconnected {
        /// The one of [`ClientOutput::Connect`].
        attempt: AttemptId,
    },
    /// A node said something.
    Reply {
        /// On which connection.
        attempt: AttemptId,
        /// What.
        reply: Reply,
    },
    /// Time has passed. Harmless when nothing is due.
    Timeout,
}

/// What an application can ask of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Do something, exactly once. To leave a queue, use [`Action::Cancel`]: an application does
    /// not know the number that [`Op::Cancel`] wants.
    Op(Op),
    /// Take an earlier call back. One that was not sent yet is taken back here; one that waits at
    /// the cluster is taken back there, where a grant may come first. For anything else this is
    /// rejected as [`Rejection::NotWaiting`].
    Cancel {
        /// The earlier call.
        call: CallId,
    },
    /// Look at something.
    Read {
        /// At what.
        query: Query,
        /// How fresh the answer must be. A stale read is answered by any node, and goes on
        /// working where there is no leader.
        consistency: Consistency,
    },
}

impl From<Op> for Action {
    fn from(op: Op) -> Self {
        Self::Op(op)
    }
}

/// What a client wants from its host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientOutput {
    /// Connect to a node, then say [`ClientInput::Connected`] or [`ClientInput::Disconnected`].
    Connect {
        /// One more than that of the attempt before.
        attempt: AttemptId,
        /// To which node.
        node: NodeId,
    },
    /// Forget an attempt, or close its connection. There is no need to say
    /// [`ClientInput::Disconnected`].
    Disconnect {
        /// Which.
        attempt: AttemptId,
    },
    /// Send a request on a connection, in the order of these outputs. When the connection is gone,
    /// drop it.
    Send {
        /// Which connection.
        attempt: AttemptId,
        /// What to send.
        request: Request,
    },
    /// A call is over. Comes exactly once for each.
    Finished {
        /// Which.
        call: CallId,
        /// How it ended.
        result: CallResult,
    },
    /// The session's state has changed.
    State(SessionState),
    /// A lock was taken from this session, which lives on. Comes once for each token, and after
    /// the [`ClientOutput::Finished`] that told of the grant. Compare the token: the session may
    /// have got the lock again meanwhile.
    Lost(Loss),
}

/// How a call ended.
pub type CallResult = Result<Completed, CallError>;

/// A call that did what it was asked to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Completed {
    /// An [`Action::Op`] or [`Action::Cancel`] took effect, exactly once. It is the variant that
    /// fits the op, with one offset for each append.
    Done(Done),
    /// The answer to an [`Action::Read`]: the variant that fits the query.
    Read {
        /// The log index as of which it is true.
        index: LogIndex,
        /// The answer.
        answer: Answer,
    },
}

/// A call that did not do what it was asked to; or, in the one case of [`CallError::Unknown`],
/// may have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CallError {
    /// Decided by the log, or such that every log would decide it so. It changed nothing.
    Rejected(Rejection),
    /// The session is over. The call was not sent, or it was a read, or an acquire; if the
    /// acquire was granted after all, the lock comes free with the session.
    SessionEnded(Ending),
    /// The call was sent, and nothing more can be learned of it. It took effect once or not at
    /// all, or it still will, once, before the cluster ends the session. Never report this as a
    /// failure.
    Unknown,
    /// As many calls are open as [`calls_max`](super::ClientConfig::calls_max), or as many bytes
    /// as [`call_bytes_max`](super::ClientConfig::call_bytes_max), allow. It was not sent.
    TooManyCalls,
}

/// How a session stands, as its client must see it.
///
/// `Opening` comes first; from then on the session is `Safe` or in `Jeopardy`, until it is
/// `Ended` for good.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SessionState {
    /// Not open yet. Calls are collected, and none is sent but stale reads.
    Opening,
    /// The cluster keeps the session, and its locks, for a good while.
    Safe,
    /// The cluster has not confirmed the session for a while. What it holds is still its own, but
    /// will not be for long unless the cluster is heard from again. (Chubby, 2.8)
    Jeopardy,
    /// Over: nothing is held any more, and no call can be made.
    Ended(Ending),
}

/// Why a session is over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ending {
    /// The application closed it.
    Closed,
    /// The cluster says that it expired.
    Expired,
    /// The cluster does not know it any more, so it has ended there some time ago.
    Forgotten,
    /// The client did not hear from the cluster in time. By its own clock the lease is over; the
    /// cluster may keep the session a little longer, but that is nothing to build on.
    LeaseRanOut,
    /// It could not be opened within [`open_timeout`](super::ClientConfig::open_timeout).
    NotOpened,
    /// The cluster refused to open it.
    Refused(Rejection),
}

/// What a client will do when its time-out comes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ClientTimer {
    /// End the session, because its lease runs out.
    Expiry,
    /// Warn that the lease runs short.
    Jeopardy,
    /// Give up opening a session.
    Open,
    /// Give up an attempt to connect.
    Connect,
    /// Start the next attempt to connect.
    Reconnect,
    /// Give up a connection, because a request was not answered.
    Reply,
    /// Renew the lease.
    KeepAlive,
    /// Send again what a node was too busy for.
    Resend,
}

/// A lock that the session holds, as far as its client knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeldLock<'a> {
    /// The lock.
    pub lock: &'a LockName,
    /// Proves the hold.
    pub token: FencingToken,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(rejection) => write!(f, "rejected: {rejection}"),
            Self::SessionEnded(ending) => write!(f, "not done: {ending}"),
            Self::Unknown => f.write_str(
                "unknown: it was sent, but the session ended before an \
                 answer came; it may or may not have taken effect",
            ),
            Self::TooManyCalls => f.write_str("not sent: too many calls are open"),
        }
    }
}

impl core::error::Error for CallError {}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the session was closed"),
            Self::Expired => f.write_str("the session expired"),
            Self::Forgotten => f.write_str("the cluster does not know the session any more"),
            Self::LeaseRanOut => f.write_str("the cluster was not heard from in time"),
            Self::NotOpened => f.write_str("the session could not be opened in time"),
            Self::Refused(rejection) => write!(f, "the session was refused: {rejection}"),
        }
    }
}
