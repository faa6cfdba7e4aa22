//! The lock state machine: who holds which lock, who waits, and what is in the guarded files.
//!
//! Every node applies the same entries in the same order to a value of [`LockTable`], and so has
//! the same locks (Schneider, "Implementing fault-tolerant services using the state machine
//! approach", 1990). Nothing but the entries decides: no clock, no disk, no other node.
//! [`LockTable::apply`] is a function of the table and one entry, and cannot fail; what it brings
//! about is put into [`Applied`]. Refusals are results as well: every node refuses alike.
//!
//! The service is Chubby's (Burrows, "The Chubby lock service for loosely-coupled distributed
//! systems", 2006): advisory locks with names, held by sessions that must be kept alive. What
//! differs is that waiting is part of the state, and that what locks protect is in here too.
//!
//! | idea | where |
//! |---|---|
//! | Time enters through the log: entries carry it, deadlines pass | `due`, `applying` |
//! | Locks are held for as long as a lease is kept (Chubby 2.8) | `session` |
//! | Exactly once: numbered requests, kept outcomes (thesis, 6.3) | `window` |
//! | One holder for each lock, the others in order of arrival | `queue`, `grant` |
//! | A fencing token grows with each grant (Chubby 2.4, sequencers) | `grant` |
//! | Only the holder appends, and each append has one offset | `request`, `file` |
//! | A whole critical section in one entry | `grant` |
//! | What happened, and who held before | `applied`, `history` |
//! | The state as canonical bytes, for snapshots and to compare nodes | `snapshot` |
//! | What must hold between two entries | `verify` |
//!
//! # One entry
//!
//! 1. The lease clock advances to the entry's stamp; it never goes back.
//! 2. Whatever is due then ends, by deadline, and where deadlines are equal sessions by id, then
//!    holds by lock, then waits by session and number. At most
//!    [`Limits::expiries_per_entry_max`] of them; the rest follows with the next entries, and
//!    until an entry ends it, a session lives, and can still be renewed.
//! 3. The locks that this has freed are handed over, in the order in which they became free. Not
//!    earlier: a waiter that expires with the same entry is not granted anything.
//! 4. The command runs, and whatever it has freed is handed over.
//!
//! The token of a grant is the index of its entry, or the number after the last token where that
//! is greater, as when one entry causes several grants. So each token is above all earlier ones,
//! of whichever lock, also after the lock was forgotten or the table restored from a snapshot.
//!
//! # What it costs
//!
//! An entry costs O(log n) in the number of sessions, locks, waiters and files; beyond that, the
//! end of a session costs its places, a hand-over the sections that run before the next hold, and
//! an append its bytes. Memory is bounded by [`Limits`]: what is counted by number, and, in
//! [`Limits::pending_bytes_max`], what has a size of its own.
//!
//! # Caveats
//!
//! - A lock alone protects nothing: a client can be paused between its check and its write. What is
//!   safe are the appends, which are checked here, at their place in the log; whatever else a lock
//!   guards must check the token by itself, and refuse all below the highest that it has seen.
//! - Locks are acquired one by one. Sessions that take several must agree on an order (that of
//!   names, say) or limit their waits: two that wait for each other for ever do just that.
//! - A session that holds a lock and acquires it again holds it once: the first release ends it.
//! - The place in a queue belongs to the session, not to the connection: a client that is gone is
//!   granted the lock when its turn comes, and the next has to wait until its lease ends.
//! - An opening that arrives after its session has ended opens another one, which nobody will keep
//!   alive: it ends by itself after its time-to-live.

use crate::config::Limits;
use crate::ids::{FencingToken, LogIndex, SessionId};
use crate::message::{FileView, SessionNews};
use crate::text::FileName;
use crate::time::LeaseTime;

mod applied;
mod applying;
mod command;
mod due;
mod file;
mod grant;
mod history;
mod queue;
mod request;
mod session;
mod snapshot;
#[cfg(test)]
mod tests;
mod verify;
mod view;
mod window;

pub use applied::{Applied, LockEvent, Notice, WaitEnd};
pub use command::{Command, KEEP_ALIVES_MAX};
pub use file::FILE_BYTES_MAX;

use applying::Applying;
use due::Deadlines;
use file::Files;
use history::History;
use queue::Locks;
use session::Sessions;

/// The replicated state: sessions, locks with their queues, and what is known of each file.
///
/// A value that changes by [`LockTable::apply`] only, and in the same way on every node.
///
/// Invariants: those of its parts, and that the parts agree. Every holder and every waiter has an
/// open session with a place at the lock, and no place is without its holder or waiter; there is a
/// deadline for each session, and for each hold and wait that has an end, and no other; all tokens
/// are distinct, and none is above `last_token`; nothing exceeds the limits.
#[derive(Clone, Debug)]
pub struct LockTable {
    limits: Limits,
    /// The last entry that was applied.
    index: LogIndex,
    /// The lease clock: the highest stamp so far.
    clock: LeaseTime,
    /// The token of the latest grant.
    last_token: FencingToken,
    sessions: Sessions,
    locks: Locks,
    files: Files,
    history: History,
    deadlines: Deadlines,
}

/// How much there is of each thing in a lock table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Open sessions.
    pub sessions: u64,
    /// Locks that are held.
    pub locks: u64,
    /// Requests that wait for a lock.
    pub waiters: u64,
    /// Files.
    pub files: u64,
    /// Past holds that are remembered.
    pub past_holds: u64,
    /// What counts towards [`Limits::pending_bytes_max`].
    pub pending_bytes: u64,
}

impl LockTable {
    /// The table before the first entry: empty, at index zero and lease time zero.
    ///
    /// # Panics
    /// If the limits do not pass [`Limits::check`].
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        assert!(limits.check() == Ok(()), "the limits of a cluster are checked before it begins");
        Self {
            limits,
            index: LogIndex::ZERO,
            clock: LeaseTime::ZERO,
            last_token: FencingToken::ZERO,
            sessions: Sessions::default(),
            locks: Locks::default(),
            files: Files::default(),
            history: History::default(),
            deadlines: Deadlines::default(),
        }
    }

    /// Applies the entry at `index`: the lease clock advances to `stamp`, what is due ends, then
    /// the command runs. `None` is an entry without one. What came of it is added to `applied`.
    ///
    /// A stamp below the lease clock leaves the clock where it is.
    ///
    /// # Panics
    /// If `index` is not above that of the entry before: applied twice, a command would count
    /// twice.
    pub fn apply(
        &mut self,
        index: LogIndex,
        stamp: LeaseTime,
        command: Option<Command>,
        applied: &mut Applied,
    ) {
        assert!(index > self.index, "entry {index} is applied after entry {}", self.index);
        self.index = index;
        self.clock = self.clock.max(stamp);
        Applying::new(self, applied).run(command);
    }

    /// The lease clock.
    #[must_use]
    pub fn now(&self) -> LeaseTime {
        self.clock
    }

    /// The index of the last entry that was applied; zero before the first.
    #[must_use]
    pub fn index(&self) -> LogIndex {
        self.index
    }

    /// The earliest deadline; `None` when there is none. When lease time reaches it and no entry
    /// comes by itself, the leader has to propose an empty one. Not above [`LockTable::now`] when
    /// the last entry left more that is due.
    #[must_use]
    pub fn next_due(&self) -> Option<LeaseTime> {
        self.deadlines.first()
    }

    /// The limits, as the cluster was bootstrapped with them.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How much there is of each thing.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            sessions: self.sessions.len(),
            locks: self.locks.held(),
            waiters: self.locks.waiters(),
            files: self.files.len(),
            past_holds: self.history.len(),
            pending_bytes: self.sessions.pending_bytes(),
        }
    }

    /// Whether the session is open.
    #[must_use]
    pub fn has_session(&self, session: SessionId) -> bool {
        self.sessions.contains(session)
    }

    /// What the client of a session has not acknowledged; `None` when the session is not open.
    #[must_use]
    pub fn news(&self, session: SessionId) -> Option<SessionNews> {
        Some(self.sessions.find_by_id(session)?.window.news())
    }

    /// One file; `None` when there is no such file.
    #[must_use]
    pub fn file(&self, file: &FileName) -> Option<FileView> {
        self.files.view(file)
    }

    /// All files, in the order of their names.
    pub fn files(&self) -> impl Iterator<Item = FileView> + '_ {
        self.files.views()
    }
}
