//! What clients ask of the cluster, and what they are told.
//!
//! Three types keep three kinds of bad news apart. A [`Rejection`] was decided by the log: it is
//! as final as a success, and every node agrees on it. [`Unavailable`] is one node's own answer:
//! it decides nothing, and the request may go to another node. That an outcome is unknown is
//! something only the client can say ([`CallError`](crate::client::CallError)).

use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::view::{Answer, Consistency, Query};
use crate::capped;
use crate::config::{APPENDS_CEILING, PLACES_CEILING, WINDOW_CEILING};
use crate::ids::{ClientNonce, FencingToken, LogIndex, NodeId, RequestId, Sequence, SessionId};
use crate::text::{FileName, Label, LockName, Text};
use crate::time::Duration;

/// What a client asks of a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Open a session.
    OpenSession {
        /// Finds the session that an earlier attempt opened.
        nonce: ClientNonce,
        /// Who asks.
        label: Label,
        /// How long the session lives without a keep-alive.
        lease: Duration,
    },
    /// Keep a session alive.
    KeepAlive {
        /// Comes back in the reply.
        id: RequestId,
        /// What goes through the log.
        keep_alive: KeepAlive,
    },
    /// Do something, exactly once.
    Submit(Submission),
    /// Look at something.
    Read {
        /// Comes back in the reply.
        id: RequestId,
        /// At what.
        query: Query,
        /// How fresh the answer must be.
        consistency: Consistency,
    },
}

/// Which request an answer is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum RequestKey {
    /// [`Request::OpenSession`].
    Open(ClientNonce),
    /// [`Request::KeepAlive`].
    KeepAlive(SessionId, RequestId),
    /// [`Request::Submit`].
    Submit(SessionId, Sequence),
    /// [`Request::Read`].
    Read(RequestId),
}

impl Request {
    /// What the reply will name.
    #[must_use]
    pub fn key(&self) -> RequestKey {
        match self {
            Self::OpenSession { nonce, .. } => RequestKey::Open(*nonce),
            Self::KeepAlive { id, keep_alive } => RequestKey::KeepAlive(keep_alive.session, *id),
            Self::Submit(submission) => RequestKey::Submit(submission.session, submission.sequence),
            Self::Read { id, .. } => RequestKey::Read(*id),
        }
    }
}

/// One renewal of a session's lease.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeepAlive {
    /// The session.
    pub session: SessionId,
    /// The outcomes that the client has.
    pub acked: Acked,
    /// The losses that the client knows of: those decided at this index or before. One entry can
    /// cause several, so it goes by the [`SessionNews`] that it received, which have all of them,
    /// and not by the single [`Reply::Lost`].
    pub losses_seen: LogIndex,
}

/// The outcomes that a client has received, so that the cluster may forget them: all up to
/// `through`, except those listed.
///
/// The exceptions are calls that are still open, such as an acquire that waits while later calls
/// go on. An acknowledgement cannot be taken back: one that arrives late changes nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Acked {
    /// The highest number whose outcome the client has.
    pub through: Sequence,
    /// The numbers below `through` whose outcome it does not have, in ascending order.
    #[serde(deserialize_with = "capped::vec::<_, _, WINDOW_CEILING>")]
    pub except: Vec<Sequence>,
}

impl Acked {
    /// Whether the client has the outcome of `sequence`.
    #[must_use]
    pub fn contains(&self, sequence: Sequence) -> bool {
        sequence <= self.through && self.except.binary_search(&sequence).is_err()
    }
}

/// One numbered request of a session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Submission {
    /// The session.
    pub session: SessionId,
    /// Its number: 1 for the first of the session, then without gaps.
    pub sequence: Sequence,
    /// The outcomes that the client has.
    pub acked: Acked,
    /// What to do.
    pub op: Op,
}

/// How long an acquire waits for its turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Wait {
    /// Not at all: it is rejected when the lock is not free.
    Try,
    /// At most this long, on the replicated clock.
    For(Duration),
    /// Until it is granted, cancelled, or the session ends.
    Forever,
}

/// What a session can do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Op {
    /// Get a lock, or a place in its queue. A session that already holds it gets the same token.
    Acquire {
        /// The lock.
        lock: LockName,
        /// For how long to queue.
        wait: Wait,
        /// After how long the lock is taken back; `None` for never.
        max_hold: Option<Duration>,
    },
    /// Leave the queue.
    Cancel {
        /// The number of the acquire, or section, that waits.
        waiting: Sequence,
    },
    /// Give a lock back, after some last appends: all of it or nothing.
    Release {
        /// The lock.
        lock: LockName,
        /// The token it was granted with.
        token: FencingToken,
        /// What to append before.
        #[serde(deserialize_with = "capped::vec::<_, _, APPENDS_CEILING>")]
        appends: Vec<FileAppend>,
    },
    /// Append to a file that the lock guards.
    Append {
        /// The lock.
        lock: LockName,
        /// The token it was granted with.
        token: FencingToken,
        /// What to append, and where.
        append: FileAppend,
    },
    /// A whole critical section in one log entry: when it is this session's turn, append and
    /// release, all of it or nothing.
    Section {
        /// The lock.
        lock: LockName,
        /// For how long to queue.
        wait: Wait,
        /// What to append.
        #[serde(deserialize_with = "capped::vec::<_, _, APPENDS_CEILING>")]
        appends: Vec<FileAppend>,
    },
    /// Take a lock from its holder: the administrator's unlock.
    Break {
        /// The lock.
        lock: LockName,
        /// The token of the hold to end, so that no other one can be hit.
        token: FencingToken,
        /// Why, for the holder and the history.
        reason: Text,
    },
    /// Create an empty file and say which lock guards it. The same again changes nothing.
    CreateFile {
        /// The file.
        file: FileName,
        /// The lock that guards it from now on.
        guard: LockName,
    },
    /// End the session: release what it holds, leave every queue.
    CloseSession,
}

/// One append to one file. A file that is not there is created, guarded by the lock under which
/// this append is made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileAppend {
    /// The file.
    pub file: FileName,
    /// What to append.
    pub bytes: Bytes,
}

/// What the log decided on a request.
pub type Outcome = Result<Done, Rejection>;

/// A request that took effect.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Done {
    /// The session holds the lock.
    Granted {
        /// Proves it.
        token: FencingToken,
        /// The token of the hold before this one, where it is still remembered.
        predecessor: Option<FencingToken>,
    },
    /// The wait is over; the waiting request was rejected as [`Rejection::Cancelled`].
    Cancelled,
    /// The lock was given back.
    Released {
        /// The offset of each append, in the order of the request.
        #[serde(deserialize_with = "capped::vec::<_, _, APPENDS_CEILING>")]
        offsets: Vec<u64>,
    },
    /// The bytes are in the file.
    Appended {
        /// Where they begin.
        offset: u64,
    },
    /// The section is over.
    Sectioned {
        /// The token under which it ran.
        token: FencingToken,
        /// The offset of each append, in the order of the request.
        #[serde(deserialize_with = "capped::vec::<_, _, APPENDS_CEILING>")]
        offsets: Vec<u64>,
    },
    /// The hold was ended.
    Broken,
    /// The file is there, with the guard that was asked for.
    FileCreated,
    /// The session is over.
    SessionClosed,
}

/// A request that the log refused. It changed nothing.
///
/// The first group does not even use up the request's number, since it is about that number.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Rejection {
    /// The session was never opened, or has ended.
    SessionUnknown,
    /// The number is not the one that follows the session's last.
    OutOfOrder {
        /// The number that is due.
        expected: Sequence,
    },
    /// The request was decided before, and the client said that it has the outcome.
    ResultEvicted,
    /// As many requests of this session are open or not acknowledged as the limit allows; or twice
    /// as many bytes of all sessions as
    /// [`Limits::pending_bytes_max`](crate::config::Limits::pending_bytes_max), so that there is
    /// not even room for an outcome. What the request acknowledges is freed all the same, and
    /// keep-alives always get through: sent again, it finds room.
    WindowFull,

    /// As many sessions are open as the limit allows.
    TooManySessions,
    /// The time-to-live is outside of the limits.
    LeaseOutOfRange {
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },

    /// Somebody else holds the lock, and the request was not to wait.
    NotObtained,
    /// The wait took as long as the request allowed.
    TimedOut,
    /// The session itself cancelled the wait.
    Cancelled,
    /// The session already has a place in this lock's queue.
    AlreadyWaiting,
    /// A section was asked for by the session that holds the lock.
    AlreadyHeld {
        /// The token it holds it with.
        token: FencingToken,
    },
    /// Nothing waits under the number that a cancel named: it was never a wait, or is decided.
    NotWaiting,
    /// The session does not hold the lock with the token that it named; or, for a break, nobody
    /// does.
    NotHolder {
        /// The token of the present hold, by whomever.
        current: Option<FencingToken>,
    },

    /// Another lock guards the file.
    WrongGuard {
        /// The lock that does.
        guard: LockName,
    },
    /// More bytes than one request may append.
    AppendTooLarge {
        /// How many it may.
        bytes_max: u32,
    },
    /// More appends than one request may carry.
    TooManyAppends {
        /// How many it may.
        appends_max: u32,
    },
    /// The file cannot become any longer.
    FileFull,

    /// As many locks are held or waited for as the limit allows.
    TooManyLocks,
    /// As many sessions wait for this lock as the limit allows.
    TooManyWaiters,
    /// The session holds, waits for, and has not yet acknowledged the loss of, as many locks as
    /// the limit allows.
    TooManyPlaces,
    /// As many files exist as the limit allows.
    TooManyFiles,
    /// As many bytes wait for their turn or for an acknowledgement as the limit allows; nothing
    /// changed.
    TooManyPendingBytes,
}

/// For people: what happened, and what to do about it.
impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SessionUnknown => f.write_str("the cluster knows no such session: it has ended"),
            Self::OutOfOrder { expected } => write!(f, "request {expected} is due first"),
            Self::ResultEvicted => {
                f.write_str("it was decided before, and the outcome is no longer kept")
            }
            Self::WindowFull => {
                f.write_str("too many requests are open: wait until some are answered")
            }
            Self::TooManySessions => {
                f.write_str("the cluster has as many sessions as its limits allow: try again later")
            }
            Self::LeaseOutOfRange { min, max } => {
                write!(f, "the cluster takes leases from {min:?} to {max:?}: ask for one of those")
            }
            Self::NotObtained => f.write_str("somebody else holds the lock"),
            Self::TimedOut => f.write_str("the wait for the lock took too long"),
            Self::Cancelled => f.write_str("the wait for the lock was cancelled"),
            Self::AlreadyWaiting => f.write_str("this session waits for the lock already"),
            Self::AlreadyHeld { token } => {
                write!(f, "this session holds the lock itself, with token {token}: release it first")
            }
            Self::NotWaiting => f.write_str("it does not wait, or not any more"),
            Self::NotHolder { current: Some(token) } => {
                write!(f, "the lock is not held with this token: the present one is {token}")
            }
            Self::NotHolder { current: None } => f.write_str("nobody holds the lock"),
            Self::WrongGuard { guard } => {
                write!(f, "lock {guard:?} guards the file: append under that one")
            }
            Self::AppendTooLarge { bytes_max } => {
                write!(f, "one request appends at most {bytes_max} bytes: split it")
            }
            Self::TooManyAppends { appends_max } => {
                write!(f, "one request carries at most {appends_max} appends: split it")
            }
            Self::FileFull => f.write_str("the file cannot become any longer: begin another one"),
            Self::TooManyLocks => f.write_str(
                "as many locks are held or waited for as the cluster's limits allow: try again later",
            ),
            Self::TooManyWaiters => f.write_str(
                "as many sessions wait for the lock as the cluster's limits allow: try again later",
            ),
            Self::TooManyPlaces => f.write_str(
                "the session holds or waits for as many locks as the cluster's limits allow: \
                 release some first",
            ),
            Self::TooManyFiles => {
                f.write_str("the cluster has as many files as its limits allow")
            }
            Self::TooManyPendingBytes => f.write_str(
                "as many bytes wait for their turn as the cluster's limits allow: try again later",
            ),
        }
    }
}

/// What a node tells a client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Answers [`Request::OpenSession`].
    Opened {
        /// Of the request.
        nonce: ClientNonce,
        /// The session, or why there is none.
        result: Result<Opened, Rejection>,
    },
    /// Answers [`Request::KeepAlive`].
    KeptAlive {
        /// Of the request.
        id: RequestId,
        /// Of the request.
        session: SessionId,
        /// The log index at which the lease was renewed.
        index: LogIndex,
        /// What the client may have missed; or [`Rejection::SessionUnknown`].
        result: Result<SessionNews, Rejection>,
    },
    /// Answers [`Request::Submit`], at once or when a wait ends.
    Submitted {
        /// Of the request.
        session: SessionId,
        /// Of the request.
        sequence: Sequence,
        /// The log index at which it was decided, or looked up again.
        index: LogIndex,
        /// What was decided.
        outcome: Outcome,
    },
    /// A lock was taken from a session that lives on.
    Lost {
        /// The session.
        session: SessionId,
        /// Which lock, and why.
        loss: Loss,
    },
    /// A session is over, with all that it held and waited for.
    SessionEnded {
        /// The session.
        session: SessionId,
        /// Where in the log it ended.
        index: LogIndex,
        /// Why.
        cause: SessionEnd,
    },
    /// Answers [`Request::Read`].
    Read {
        /// Of the request.
        id: RequestId,
        /// The log index as of which the answer is true.
        index: LogIndex,
        /// What was asked for.
        answer: Answer,
    },
    /// This node cannot say. Nothing was decided by it; the request may or may not be in the log.
    Unavailable {
        /// Which request.
        request: RequestKey,
        /// Why, and where to go.
        reason: Unavailable,
    },
}

/// A session that is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Opened {
    /// The session.
    pub session: SessionId,
    /// How many requests it may have open or not acknowledged.
    pub window_max: u32,
}

/// What a session may have missed, in every reply to a keep-alive, so that no lost push can leave
/// a client waiting for ever.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SessionNews {
    /// The decided requests that the client has not acknowledged.
    #[serde(deserialize_with = "capped::vec::<_, _, WINDOW_CEILING>")]
    pub outcomes: Vec<(Sequence, Outcome)>,
    /// The losses that it has not acknowledged, oldest first.
    #[serde(deserialize_with = "capped::vec::<_, _, PLACES_CEILING>")]
    pub losses: Vec<Loss>,
}

/// A lock taken from a session that lives on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Loss {
    /// The lock.
    pub lock: LockName,
    /// The token that is worth nothing any more.
    pub token: FencingToken,
    /// Where in the log that was decided.
    pub index: LogIndex,
    /// Why.
    pub cause: EndCause,
}

/// Why a session is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SessionEnd {
    /// The client closed it.
    Closed,
    /// No keep-alive came in time.
    Expired,
}

/// Why a hold is over.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum EndCause {
    /// The holder gave it back.
    Released,
    /// The holder closed its session.
    SessionClosed,
    /// The holder's session expired.
    SessionExpired,
    /// It took longer than the `max_hold` that the acquire named.
    HoldTimedOut,
    /// Somebody broke it.
    Broken {
        /// Who.
        by: Label,
        /// Why.
        reason: Text,
    },
}

/// For people, as in "the hold is over: ...".
impl fmt::Display for EndCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Released => f.write_str("it was released"),
            Self::SessionClosed => f.write_str("the holder closed its session"),
            Self::SessionExpired => f.write_str("the holder's session expired"),
            Self::HoldTimedOut => f.write_str("it was held for longer than was asked for"),
            Self::Broken { by, reason } => {
                let Label { host, pid, user, .. } = by;
                write!(f, "broken by {user}@{host} (process {pid}): {reason}")
            }
        }
    }
}

/// Why a node cannot serve a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Unavailable {
    /// It is not the leader.
    NotLeader {
        /// Who is, as far as it knows.
        leader: Option<NodeId>,
    },
    /// It lost its leadership while the request was under way. The request may still take effect.
    LeadershipLost {
        /// Who is the leader now, as far as it knows.
        leader: Option<NodeId>,
    },
    /// It is handing its leadership over.
    Transferring {
        /// To whom.
        to: NodeId,
    },
    /// As many requests are under way as it can take.
    Overloaded,
    /// The request is larger than any log entry may be
    /// ([`REQUEST_BYTES_MAX`](crate::config::REQUEST_BYTES_MAX)), for this node and every other.
    TooLarge,
}
