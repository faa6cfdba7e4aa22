//! Which locks this client holds, waits for, or is about to leave.
//!
//! A session is one holder: asked again for a lock that it holds, the cluster gives it the same
//! token once more. Two guards with one token would exclude nobody, and the first to be dropped
//! would take the lock from the other. So a lock has one guard at a time here, and the second one
//! is refused. A guard that was dropped, or a wait that was given up, takes a moment until the
//! cluster has heard of it; who asks meanwhile waits for that.

use std::collections::BTreeMap;
use std::mem;

use quorlock_core::client::Ending;
use quorlock_core::ids::FencingToken;
use quorlock_core::message::Loss;
use quorlock_core::text::LockName;
use tokio::sync::watch;

use super::command::Acquire;
use super::errors::LossCause;

/// What hears of the loss of a hold.
type LossSender = watch::Sender<Option<LossCause>>;

/// All locks that somebody here has to do with.
///
/// Invariant: somebody is next only where a guard or a wait is going.
#[derive(Debug, Default)]
pub(super) struct Holds(BTreeMap<LockName, Hold>);

#[derive(Debug)]
struct Hold {
    phase: Phase,
    /// Who acquires it when it is free of us.
    next: Option<Acquire>,
}

#[derive(Debug)]
enum Phase {
    /// An acquire is under way.
    Waiting,
    /// It is given up.
    Leaving,
    /// There is a guard.
    Held { token: FencingToken, loss: LossSender },
    /// It is being given back.
    Releasing { token: FencingToken },
}

/// What becomes of somebody who asks for a lock.
#[derive(Debug)]
pub(super) enum Admission {
    /// Ask the cluster.
    Ask(Acquire),
    /// Comes later.
    Later,
    /// This client holds it.
    AlreadyHeld(Acquire),
    /// This client waits for it.
    AlreadyWaiting(Acquire),
}

impl Holds {
    pub(super) fn admit(&mut self, acquire: Acquire) -> Admission {
        let Some(hold) = self.0.get_mut(&acquire.lock) else {
            let hold = Hold { phase: Phase::Waiting, next: None };
            self.0.insert(acquire.lock.clone(), hold);
            return Admission::Ask(acquire);
        };
        match hold.phase {
            Phase::Waiting => Admission::AlreadyWaiting(acquire),
            Phase::Held { .. } => Admission::AlreadyHeld(acquire),
            Phase::Leaving | Phase::Releasing { .. } => {
                if hold.next.as_ref().is_some_and(|next| !next.answer.is_closed()) {
                    return Admission::AlreadyWaiting(acquire);
                }
                hold.next = Some(acquire);
                Admission::Later
            }
        }
    }

    /// The acquire under way was granted. Returns what hears of the loss.
    pub(super) fn granted(
        &mut self,
        lock: &LockName,
        token: FencingToken,
    ) -> watch::Receiver<Option<LossCause>> {
        let (sender, loss) = watch::channel(None);
        if let Some(hold) = self.0.get_mut(lock) {
            hold.phase = Phase::Held { token, loss: sender };
        }
        loss
    }

    /// The acquire under way was not granted. Returns who is next.
    #[must_use]
    pub(super) fn not_granted(&mut self, lock: &LockName) -> Option<Acquire> {
        self.free(lock)
    }

    /// The acquire under way is given up.
    pub(super) fn leave(&mut self, lock: &LockName) {
        if let Some(hold) = self.0.get_mut(lock) {
            match hold.phase {
                Phase::Waiting => hold.phase = Phase::Leaving,
                Phase::Leaving | Phase::Held { .. } | Phase::Releasing { .. } => {}
            }
        }
    }

    /// The guard is gone. Returns whether there is something to give back.
    pub(super) fn release(&mut self, lock: &LockName, token: FencingToken) -> bool {
        let Some(hold) = self.0.get_mut(lock) else { return false };
        match &hold.phase {
            Phase::Held { token: held, .. } if *held == token => {
                hold.phase = Phase::Releasing { token };
                true
            }
            Phase::Held { .. } | Phase::Waiting | Phase::Leaving | Phase::Releasing { .. } => false,
        }
    }

    /// The hold with this token was given back. Returns who is next.
    #[must_use]
    pub(super) fn released(&mut self, lock: &LockName, token: FencingToken) -> Option<Acquire> {
        self.over(lock, token, &LossCause::Released)
    }

    /// The cluster took a hold. Returns who is next.
    #[must_use]
    pub(super) fn lost(&mut self, loss: Loss) -> Option<Acquire> {
        self.over(&loss.lock, loss.token, &LossCause::Taken(loss.cause))
    }

    fn over(&mut self, lock: &LockName, token: FencingToken, cause: &LossCause) -> Option<Acquire> {
        match &self.0.get(lock)?.phase {
            Phase::Held { token: held, loss } if *held == token => {
                loss.send_replace(Some(cause.clone()));
            }
            Phase::Releasing { token: held } if *held == token => {}
            Phase::Held { .. } | Phase::Releasing { .. } | Phase::Waiting | Phase::Leaving => {
                return None;
            }
        }
        self.free(lock)
    }

    /// We have nothing to do with the lock any more. Returns who is next, and then we have.
    fn free(&mut self, lock: &LockName) -> Option<Acquire> {
        let hold = self.0.remove(lock)?;
        let next = hold.next.filter(|next| !next.answer.is_closed())?;
        self.0.insert(lock.clone(), Hold { phase: Phase::Waiting, next: None });
        Some(next)
    }

    /// The session is over. Returns those who were next.
    pub(super) fn end(&mut self, ending: &Ending) -> Vec<Acquire> {
        let holds = mem::take(&mut self.0).into_values();
        let end = |hold: Hold| {
            if let Phase::Held { loss, .. } = &hold.phase {
                loss.send_replace(Some(LossCause::SessionEnded(ending.clone())));
            }
            hold.next
        };
        holds.filter_map(end).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::command::{Grant, Ticket};
    use crate::client::errors::AcquireError;
    use quorlock_core::ids::LogIndex;
    use quorlock_core::message::{EndCause, Wait};
    use tokio::sync::oneshot;

    type Answer = oneshot::Receiver<Result<Grant, AcquireError>>;

    fn lock() -> LockName {
        LockName::new("a").expect("a valid name")
    }

    fn token(value: u64) -> FencingToken {
        FencingToken::new(value)
    }

    fn acquire(number: u64) -> (Acquire, Answer) {
        let (answer, receiver) = oneshot::channel();
        let (ticket, wait) = (Ticket(number), Wait::Forever);
        (Acquire { ticket, lock: lock(), wait, max_hold: None, answer }, receiver)
    }

    fn admit(holds: &mut Holds, number: u64) -> (&'static str, Answer) {
        let (acquire, answer) = acquire(number);
        let admission = match holds.admit(acquire) {
            Admission::Ask(_) => "ask",
            Admission::Later => "later",
            Admission::AlreadyHeld(_) => "held",
            Admission::AlreadyWaiting(_) => "waiting",
        };
        (admission, answer)
    }

    #[test]
    fn a_lock_has_one_guard() {
        let mut holds = Holds::default();
        assert_eq!(admit(&mut holds, 1).0, "ask");
        assert_eq!(admit(&mut holds, 2).0, "waiting");
        let loss = holds.granted(&lock(), token(5));
        assert_eq!(admit(&mut holds, 3).0, "held");
        assert!(holds.released(&lock(), token(5)).is_none());
        assert_eq!(*loss.borrow(), Some(LossCause::Released));
        assert_eq!(admit(&mut holds, 4).0, "ask");
    }

    #[test]
    fn whoever_asks_while_it_is_given_back_comes_next() {
        let mut holds = Holds::default();
        assert_eq!(admit(&mut holds, 1).0, "ask");
        let _loss = holds.granted(&lock(), token(5));
        assert!(!holds.release(&lock(), token(4)), "an older one is none");
        assert!(holds.release(&lock(), token(5)));
        assert!(!holds.release(&lock(), token(5)), "once");
        let (admission, gone) = admit(&mut holds, 2);
        assert_eq!(admission, "later");
        drop(gone);
        let (admission, _answer) = admit(&mut holds, 3);
        assert_eq!(admission, "later", "the one before does not wait any more");
        assert_eq!(admit(&mut holds, 4).0, "waiting");
        let next = holds.released(&lock(), token(5)).expect("somebody waits");
        assert_eq!(next.ticket, Ticket(3));
        assert_eq!(admit(&mut holds, 5).0, "waiting", "for the one that was next");
    }

    #[test]
    fn a_wait_that_is_given_up_is_followed_by_the_next() {
        let mut holds = Holds::default();
        assert_eq!(admit(&mut holds, 1).0, "ask");
        holds.leave(&lock());
        let (admission, _answer) = admit(&mut holds, 2);
        assert_eq!(admission, "later");
        assert!(holds.not_granted(&lock()).is_some());
    }

    #[test]
    fn losses_are_told_to_the_hold_that_they_name() {
        let mut holds = Holds::default();
        assert_eq!(admit(&mut holds, 1).0, "ask");
        let told = holds.granted(&lock(), token(5));
        let (index, cause) = (LogIndex::new(9), EndCause::HoldTimedOut);
        let loss =
            |number| Loss { lock: lock(), token: token(number), index, cause: cause.clone() };
        assert!(holds.lost(loss(4)).is_none());
        assert_eq!(*told.borrow(), None);
        assert!(holds.lost(loss(5)).is_none());
        assert_eq!(*told.borrow(), Some(LossCause::Taken(cause.clone())));
        assert!(!holds.release(&lock(), token(5)), "there is nothing to give back");
    }

    #[test]
    fn the_end_of_the_session_is_the_end_of_all() {
        let mut holds = Holds::default();
        assert_eq!(admit(&mut holds, 1).0, "ask");
        let told = holds.granted(&lock(), token(5));
        assert!(holds.end(&Ending::Expired).is_empty());
        assert_eq!(*told.borrow(), Some(LossCause::SessionEnded(Ending::Expired)));
    }
}
