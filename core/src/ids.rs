//! Identifiers: small copyable numbers, each with a type of its own.
//!
//! All of them are bounded by [`ID_MAX`], so that adding one can never overflow, and so that a
//! number read by JavaScript is the number that was written. The bound is checked where bytes
//! become values: decoding refuses anything larger. Inside a process the constructors assert it.

use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

/// The largest value of any identifier: 2^53 − 1.
///
/// At a million log entries a second, the log reaches it after 285 years.
pub const ID_MAX: u64 = (1 << 53) - 1;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Zero: the value before the first one.
            pub const ZERO: Self = Self(0);
            /// The largest value, [`ID_MAX`].
            pub const MAX: Self = Self(ID_MAX);

            /// Makes an identifier of a number.
            ///
            /// # Panics
            /// If `value` is above [`ID_MAX`].
            #[must_use]
            pub const fn new(value: u64) -> Self {
                assert!(value <= ID_MAX, "an identifier is at most 2^53 - 1");
                Self(value)
            }

            /// The number itself.
            #[must_use]
            pub const fn value(self) -> u64 {
                self.0
            }

            /// The identifier that follows this one; [`Self::MAX`] is followed by itself.
            #[must_use]
            pub const fn next(self) -> Self {
                if self.0 < ID_MAX { Self(self.0 + 1) } else { self }
            }

            /// The identifier before this one; zero stays zero.
            #[must_use]
            pub const fn previous(self) -> Self {
                Self(self.0.saturating_sub(1))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                bounded(deserializer).map(Self)
            }
        }
    };
}

/// Reads a number and refuses one above [`ID_MAX`].
fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let value = u64::deserialize(deserializer)?;
    if value > ID_MAX {
        return Err(de::Error::custom("an identifier is at most 2^53 - 1"));
    }
    Ok(value)
}

id! {
    /// A node of the cluster. Chosen by whoever sets the cluster up; part of its certificate.
    NodeId
}
id! {
    /// A Raft term (paper, 5.1). Zero is the term before the first election.
    Term
}
id! {
    /// A position in the replicated log, starting at 1. Zero is the position before the first
    /// entry.
    LogIndex
}
id! {
    /// A session. Its value is the log index of the entry that opened it, so it never repeats.
    SessionId
}
id! {
    /// The number of a request within its session: 1, 2, 3, ... without gaps.
    Sequence
}
id! {
    /// A fencing token (Chubby's lock generation number): it grows with every grant of any lock,
    /// and never repeats.
    ///
    /// It is the log index of the entry that granted the lock. When one entry causes several
    /// grants, the later ones take the numbers that follow, and no later grant goes below them.
    FencingToken
}
id! {
    /// The number of a [`WriteBatch`](crate::message::WriteBatch), dense from 1 for each start
    /// of a node. Zero means that nothing was written yet.
    WriteId
}
id! {
    /// A client connection of a node. The host numbers them and never uses a number again while
    /// the node runs.
    ConnectionId
}
id! {
    /// The number that a client gives to a read or a keep-alive, to recognise the reply.
    RequestId
}
id! {
    /// A call on a [`Client`](crate::client::Client). The host numbers its calls upwards; gaps are
    /// fine.
    CallId
}
id! {
    /// An attempt of a [`Client`](crate::client::Client) to be connected to a node, dense from 1.
    /// Names the connection too, if one comes of it.
    AttemptId
}
id! {
    /// A round of leadership confirmation for reads (thesis, 6.4). Distinct for every round of
    /// a leader's term.
    ReadRound
}

impl LogIndex {
    /// The index `count` positions later, at most [`LogIndex::MAX`].
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        let sum = self.0.saturating_add(count);
        if sum < ID_MAX { Self(sum) } else { Self::MAX }
    }

    /// How many positions this index is after `earlier`; zero if it is not after it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The identity of a log entry: two logs that hold an entry with the same identity are equal up
/// to it (log matching, paper 5.3).
///
/// Ordered by term, then index: the order in which the election restriction (5.4.1) compares the
/// ends of two logs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct EntryId {
    /// The term of the leader that created the entry.
    pub term: Term,
    /// Its position in the log.
    pub index: LogIndex,
}

impl EntryId {
    /// Before the first entry of every log.
    pub const ZERO: Self = Self { term: Term::ZERO, index: LogIndex::ZERO };

    /// The entry of `term` at `index`.
    #[must_use]
    pub const fn new(term: Term, index: LogIndex) -> Self {
        Self { term, index }
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for EntryId {
    /// `index@term`, as in `7@2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

/// A random number by which a client recognises the reply to its opening of a session, and by
/// which a repeated opening finds the session that the first one made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ClientNonce(pub u64, pub u64);
