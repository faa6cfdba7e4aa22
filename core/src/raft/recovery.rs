//! What a node starts from: whether it fits together.

use alloc::vec::Vec;
use core::fmt;

use crate::ids::{EntryId, LogIndex, NodeId, Term};
use crate::message::{Entry, HardState, Snapshot};
use crate::time::LeaseTime;

use super::checks::{PLAUSIBLE_MAX, is_plausible_stamp};
use super::log::Log;
use super::memberships::Memberships;

/// Why what was recovered is no state of a node. Its storage is corrupted, or was put together by
/// hand: the node must not start, since it could break promises that it no longer knows of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecoveredError {
    /// The node id is the largest there is.
    NodeId {
        /// The id.
        id: NodeId,
    },
    /// A term, an index or a stamp is larger than any cluster reaches.
    Implausible,
    /// Two entries that follow each other on disk do not in the log.
    Gap {
        /// The one before.
        before: EntryId,
        /// The one after.
        after: EntryId,
    },
    /// A term or a stamp of an entry is below that of the entry before.
    GoesDown {
        /// The entry.
        at: EntryId,
    },
    /// The entries begin or end where they do not join the snapshot, or one of them contradicts
    /// it.
    DoesNotJoin {
        /// The entry.
        entry: EntryId,
        /// The last entry that the snapshot covers.
        snapshot: EntryId,
    },
    /// An entry is of a later term than the node has ever seen.
    TermUnknown {
        /// The entry.
        entry: EntryId,
        /// The term of the hard state.
        term: Term,
    },
}

impl fmt::Display for RecoveredError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodeId { id } => write!(f, "{id} is no node id"),
            Self::Implausible => {
                f.write_str("a term, an index or a stamp is larger than any cluster reaches")
            }
            Self::Gap { before, after } => {
                write!(f, "a gap in the log: entry {after} follows {before}")
            }
            Self::GoesDown { at } => {
                write!(f, "the term or the stamp of entry {at} is below that of the one before")
            }
            Self::DoesNotJoin { entry, snapshot } => {
                write!(f, "entry {entry} does not fit the snapshot that ends at {snapshot}")
            }
            Self::TermUnknown { entry, term } => {
                write!(f, "entry {entry} is of a later term than the node's, which is {term}")
            }
        }
    }
}

impl core::error::Error for RecoveredError {}

/// The log and the memberships of a node, if what was recovered fits together.
pub(super) fn recover(
    id: NodeId,
    hard_state: HardState,
    snapshot: &Snapshot,
    entries: Vec<Entry>,
) -> Result<(Log, Memberships), RecoveredError> {
    if id == NodeId::MAX {
        return Err(RecoveredError::NodeId { id });
    }
    let numbers = [hard_state.term.value(), snapshot.last.index.value()];
    if numbers.into_iter().any(|number| number > PLAUSIBLE_MAX)
        || !is_plausible_stamp(snapshot.stamp)
    {
        return Err(RecoveredError::Implausible);
    }
    check_term(snapshot.last, hard_state.term)?;
    let mut log = empty_log(snapshot, entries.first())?;
    let mut memberships = Memberships::new(snapshot.last.index, snapshot.membership.clone());
    for entry in entries {
        if entry.id == log.base() {
            continue;
        }
        check_next(&log, &entry)?;
        check_term(entry.id, hard_state.term)?;
        memberships.note(&entry);
        log.push(entry);
    }
    let (last, stamp) = (snapshot.last, log.stamp(snapshot.last.index));
    if !log.contains(last) || stamp != Some(snapshot.stamp) {
        return Err(RecoveredError::DoesNotJoin { entry: log.last(), snapshot: last });
    }
    Ok((log, memberships))
}

/// The log before its entries. When older entries were retained, the first of them serves as the
/// base: what comes before it is not known.
fn empty_log(snapshot: &Snapshot, first: Option<&Entry>) -> Result<Log, RecoveredError> {
    let last = snapshot.last;
    match first {
        None => Ok(Log::new(last, snapshot.stamp)),
        Some(first) if first.id.index == last.index.next() => Ok(Log::new(last, snapshot.stamp)),
        Some(first) if first.id.index == LogIndex::ZERO || first.id.index > last.index => {
            Err(RecoveredError::DoesNotJoin { entry: first.id, snapshot: last })
        }
        Some(first) if first.id.index == LogIndex::ZERO.next() => {
            Ok(Log::new(EntryId::ZERO, LeaseTime::ZERO))
        }
        Some(first) => Ok(Log::new(first.id, first.stamp)),
    }
}

/// Whether an entry can follow the end of the log.
fn check_next(log: &Log, entry: &Entry) -> Result<(), RecoveredError> {
    let (before, at) = (log.last(), entry.id);
    if at.index != before.index.next() {
        Err(RecoveredError::Gap { before, after: at })
    } else if at.index.value() > PLAUSIBLE_MAX || !is_plausible_stamp(entry.stamp) {
        Err(RecoveredError::Implausible)
    } else if at.term < before.term || at.term == Term::ZERO || entry.stamp < log.last_stamp() {
        Err(RecoveredError::GoesDown { at })
    } else {
        Ok(())
    }
}

/// Whether the node can have seen the term of an entry.
fn check_term(entry: EntryId, term: Term) -> Result<(), RecoveredError> {
    if entry.term > term {
        return Err(RecoveredError::TermUnknown { entry, term });
    }
    Ok(())
}
