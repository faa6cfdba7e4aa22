//! Whether what a node says fits what it was asked, and whether what an application asks fits any
//! cluster. Behind these checks nobody has to think of an append that was answered by a grant.

use crate::config::{APPEND_BYTES_CEILING, REQUEST_BYTES_MAX};
use crate::config::{APPENDS_CEILING, WINDOW_CEILING};
use crate::message::{Answer, Done, FileAppend, Op, Query, Rejection, Wait};
use crate::text::TEXT_BYTES_MAX;

/// More than the encoding of any number or length takes.
const NUMBER_BYTES_MAX: usize = 16;

// What passes `check_size` fits into a request: the bytes, the name and lengths of each append, the
// list of outcomes that are not acknowledged, and a fixed part with at most two more texts.
const _: () = assert!(
    APPEND_BYTES_CEILING as usize
        + APPENDS_CEILING * (TEXT_BYTES_MAX + 2 * NUMBER_BYTES_MAX)
        + WINDOW_CEILING * NUMBER_BYTES_MAX
        + 2 * TEXT_BYTES_MAX
        + 16 * NUMBER_BYTES_MAX
        <= REQUEST_BYTES_MAX
);

/// What an op appends.
pub(super) fn appends(op: &Op) -> &[FileAppend] {
    match op {
        Op::Release { appends, .. } | Op::Section { appends, .. } => appends,
        Op::Append { append, .. } => core::slice::from_ref(append),
        Op::Acquire { .. }
        | Op::Cancel { .. }
        | Op::Break { .. }
        | Op::CreateFile { .. }
        | Op::CloseSession => &[],
    }
}

/// How many bytes an op appends.
pub(super) fn append_bytes(op: &Op) -> u64 {
    appends(op).iter().map(|append| append.bytes.len() as u64).sum()
}

/// Whether the cluster may take its time to answer, because the op waits for a lock.
pub(super) fn may_wait(op: &Op) -> bool {
    match op {
        Op::Acquire { wait, .. } | Op::Section { wait, .. } => match wait {
            Wait::Try => false,
            Wait::For(_) | Wait::Forever => true,
        },
        Op::Cancel { .. }
        | Op::Release { .. }
        | Op::Append { .. }
        | Op::Break { .. }
        | Op::CreateFile { .. }
        | Op::CloseSession => false,
    }
}

/// Refuses an op that is too large for every cluster, whatever its limits. Sent, it would be turned
/// away by every node and keep its number, and nothing after it could ever be done.
pub(super) fn check_size(op: &Op) -> Result<(), Rejection> {
    if appends(op).len() > APPENDS_CEILING {
        let appends_max = u32::try_from(APPENDS_CEILING).expect("a small constant");
        return Err(Rejection::TooManyAppends { appends_max });
    }
    if append_bytes(op) > u64::from(APPEND_BYTES_CEILING) {
        return Err(Rejection::AppendTooLarge { bytes_max: APPEND_BYTES_CEILING });
    }
    Ok(())
}

/// Whether `done` can be the outcome of `op`.
pub(super) fn done_fits(op: &Op, done: &Done) -> bool {
    match done {
        Done::Granted { .. } => matches!(op, Op::Acquire { .. }),
        Done::Cancelled => matches!(op, Op::Cancel { .. }),
        Done::Released { offsets } => {
            matches!(op, Op::Release { appends, .. } if appends.len() == offsets.len())
        }
        Done::Appended { .. } => matches!(op, Op::Append { .. }),
        Done::Sectioned { offsets, .. } => {
            matches!(op, Op::Section { appends, .. } if appends.len() == offsets.len())
        }
        Done::Broken => matches!(op, Op::Break { .. }),
        Done::FileCreated => matches!(op, Op::CreateFile { .. }),
        Done::SessionClosed => matches!(op, Op::CloseSession),
    }
}

/// Whether `answer` can be the answer to `query`.
pub(super) fn answer_fits(query: &Query, answer: &Answer) -> bool {
    match answer {
        Answer::Lock(_) => matches!(query, Query::Lock { .. }),
        Answer::Locks(_) => matches!(query, Query::Locks { .. }),
        Answer::History(_) => matches!(query, Query::History { .. }),
        Answer::File(_) => matches!(query, Query::File { .. }),
        Answer::Files(_) => matches!(query, Query::Files { .. }),
        Answer::Bytes { .. } => matches!(query, Query::ReadFile { .. }),
    }
}
