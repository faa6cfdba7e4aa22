//! What applying an entry brings about.

use alloc::vec::Vec;

use crate::ids::{ClientNonce, FencingToken, Sequence, SessionId};
use crate::message::{Effect, EndCause, Loss, Opened, Outcome, Rejection, SessionEnd, SessionNews};
use crate::text::{FileName, LockName};

/// What applying one entry, or several in a row, brought about: a buffer that the caller owns and
/// uses again, so that applying allocates nothing for it in the long run.
///
/// Each list is in the order in which things happened.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Applied {
    /// What must be done to files, on every node.
    pub effects: Vec<Effect>,
    /// What clients should be told, by whichever node they are connected to.
    pub notices: Vec<Notice>,
    /// What happened, for observers and checkers. Nothing depends on them.
    pub events: Vec<LockEvent>,
}

impl Applied {
    /// Empties all lists, and keeps their memory.
    pub fn clear(&mut self) {
        self.effects.clear();
        self.notices.clear();
        self.events.clear();
    }
}

/// Something that a client should be told.
///
/// A notice may get lost: every fact in it, except a session's end, is told again in the
/// [`SessionNews`] of a keep-alive until the client acknowledges it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// Answers [`Command::OpenSession`](super::Command::OpenSession).
    Opened {
        /// Of the command.
        nonce: ClientNonce,
        /// The session; [`Rejection::LeaseOutOfRange`] or [`Rejection::TooManySessions`].
        result: Result<Opened, Rejection>,
    },
    /// Answers one renewal of a [`Command::KeepAlive`](super::Command::KeepAlive).
    KeptAlive {
        /// The session that was renewed.
        session: SessionId,
        /// All that the client has not acknowledged; or [`Rejection::SessionUnknown`].
        result: Result<SessionNews, Rejection>,
    },
    /// Answers a [`Command::Submit`](super::Command::Submit): at once, or when a wait ends. A
    /// repeated request whose first one still waits is answered by the one notice at the end.
    Submitted {
        /// The session.
        session: SessionId,
        /// The number of the request.
        sequence: Sequence,
        /// What was decided, now or when the number came first.
        outcome: Outcome,
    },
    /// A session that lives on lost a lock.
    ///
    /// One entry can take several locks from a session, so that several losses have one index. A
    /// client must therefore acknowledge an index only when it has seen a whole [`SessionNews`].
    Lost {
        /// The session.
        session: SessionId,
        /// Which lock, and why.
        loss: Loss,
    },
    /// A session is over, with everything that it held and waited for.
    SessionEnded {
        /// The session.
        session: SessionId,
        /// Why.
        cause: SessionEnd,
    },
}

/// Something that happened in the lock table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LockEvent {
    /// A session was opened. Finding it again by its nonce is no event.
    SessionOpened {
        /// The session.
        session: SessionId,
    },
    /// A session ended. What it held and waited for ended just before.
    SessionEnded {
        /// The session.
        session: SessionId,
        /// Why.
        cause: SessionEnd,
    },
    /// A lock was granted, for a hold or for the one moment of a section.
    Granted {
        /// The lock.
        lock: LockName,
        /// Its holder from now on.
        session: SessionId,
        /// The token of the hold.
        token: FencingToken,
        /// The token of the hold before, where it is remembered.
        predecessor: Option<FencingToken>,
    },
    /// A hold ended.
    Ended {
        /// The lock.
        lock: LockName,
        /// Who held it.
        session: SessionId,
        /// The token of the hold.
        token: FencingToken,
        /// Why it ended.
        cause: EndCause,
    },
    /// A request got a place in a queue.
    Queued {
        /// The lock.
        lock: LockName,
        /// The session that waits.
        session: SessionId,
        /// The number of its request.
        sequence: Sequence,
        /// How many wait before it.
        position: u64,
    },
    /// A request left a queue without its turn. One whose turn comes has [`LockEvent::Granted`], or
    /// [`LockEvent::Rejected`] for a section that is refused then.
    WaitEnded {
        /// The lock.
        lock: LockName,
        /// The session that waited.
        session: SessionId,
        /// The number of its request.
        sequence: Sequence,
        /// Why.
        cause: WaitEnd,
    },
    /// A file was created, by a request of its own or by its first append.
    FileCreated {
        /// The file.
        file: FileName,
        /// The lock that guards it from now on.
        guard: LockName,
    },
    /// Bytes were appended to a file.
    Appended {
        /// The file.
        file: FileName,
        /// The token under which it was done.
        token: FencingToken,
        /// Where the bytes begin.
        offset: u64,
        /// How many they are.
        length: u64,
    },
    /// A request was refused, or a section was when its turn came.
    Rejected {
        /// The session.
        session: SessionId,
        /// The number of the request.
        sequence: Sequence,
        /// Why.
        rejection: Rejection,
    },
}

/// Why a request left a queue without its turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WaitEnd {
    /// It had waited for as long as it was to wait.
    TimedOut,
    /// The session cancelled it.
    Cancelled,
    /// The session ended.
    SessionEnded,
}
