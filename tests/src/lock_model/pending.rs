//! What all sessions together keep of what waits or is not acknowledged.
//!
//! Open: what each thing counts for, and for which requests how much room there is. All of this
//! file is an agreement on numbers, which the real table keeps as running sums.

use quorlock_core::message::{Done, EndCause, FileAppend, Loss, Op, Outcome, Rejection};

use super::{Model, Turn};

/// What a request or a loss counts for beside what is in it.
const EACH: u64 = 64;

impl Model {
    /// The sum of what waits.
    pub fn waiting_bytes(&self) -> u64 {
        self.waiters.iter().map(|it| EACH + turn(&it.turn)).sum()
    }

    /// The sum of everything.
    pub fn pending_bytes(&self) -> u64 {
        let sessions = self.sessions.iter();
        let outcomes = sessions
            .clone()
            .flat_map(|it| it.outcomes.iter().map(|(_, decided)| EACH + outcome(decided)));
        let losses = sessions.flat_map(|it| it.losses.iter().map(|lost| EACH + loss(lost)));
        self.waiting_bytes() + outcomes.chain(losses).sum::<u64>()
    }

    /// Whether there is room for an outcome: below twice the limit.
    pub(super) fn has_room_to_decide(&self) -> bool {
        self.pending_bytes() < 2 * u64::from(self.limits.pending_bytes_max)
    }

    /// Whether a request may run where there is room for its outcome: one that can wait only
    /// below the limit.
    pub(super) fn has_room_to_run(&self, op: &Op) -> bool {
        match op {
            Op::Acquire { .. } | Op::Section { .. } => {
                self.pending_bytes() < u64::from(self.limits.pending_bytes_max)
            }
            Op::Cancel { .. }
            | Op::Release { .. }
            | Op::Append { .. }
            | Op::Break { .. }
            | Op::CreateFile { .. }
            | Op::CloseSession => true,
        }
    }

    /// Whether one more may wait, up to the limit.
    pub(super) fn has_room_to_wait(&self, wanted: &Turn) -> bool {
        let pending = self.pending_bytes() + EACH + turn(wanted);
        pending <= u64::from(self.limits.pending_bytes_max)
    }
}

fn turn(turn: &Turn) -> u64 {
    match turn {
        Turn::Hold(_) => 0,
        Turn::Section(appends) => appends.iter().map(append).sum(),
    }
}

/// The bytes, the name, and the offset that will be in the outcome.
fn append(append: &FileAppend) -> u64 {
    append.bytes.len() as u64 + append.file.as_str().len() as u64 + 8
}

/// Only outcomes with a list or a name in them count for more than each does.
fn outcome(outcome: &Outcome) -> u64 {
    if let Ok(Done::Released { offsets } | Done::Sectioned { offsets, .. }) = outcome {
        return 8 * offsets.len() as u64;
    }
    if let Err(Rejection::WrongGuard { guard }) = outcome {
        return guard.as_str().len() as u64;
    }
    0
}

fn loss(loss: &Loss) -> u64 {
    let mut texts = vec![loss.lock.as_str()];
    if let EndCause::Broken { by, reason } = &loss.cause {
        texts.extend([by.host.as_str(), by.user.as_str(), by.command.as_str(), reason.as_str()]);
    }
    texts.iter().map(|it| it.len() as u64).sum()
}
