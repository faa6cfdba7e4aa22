//! Which locks the session holds, as far as the client can know.
//!
//! News of a lock come on several ways, and not always in the order in which they happened: a
//! grant as the outcome of an acquire, a loss as a push or with a keep-alive, and all of it again
//! after a reconnect. What puts them in order is the token: tokens of one lock only grow, so
//! whatever is said of a lower one is older (the mistake of Curator-498 and Curator-604 was to
//! believe news of a past session).
//!
//! While an acquire is on its way, its lock remembers up to which token holds are known to be
//! over. A grant at or below that is still the outcome of its call, but no hold any more. A loss
//! that overtakes the grant is kept back until the application has been told of the grant.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::config::PLACES_CEILING;
use crate::ids::{FencingToken, LogIndex};
use crate::message::Loss;
use crate::text::LockName;

/// The locks of a session.
///
/// Invariants: a lock is in `acquiring` exactly while acquires of it are sent and unanswered; a
/// hold is above what is known to be over; what is in `reported` is above `losses_seen`.
#[derive(Clone, Debug, Default)]
pub(super) struct Locks {
    held: BTreeMap<LockName, FencingToken>,
    acquiring: BTreeMap<LockName, Acquiring>,
    /// All losses up to here are known: they came in the complete list of a keep-alive.
    losses_seen: LogIndex,
    /// Losses after that, which came as pushes. Bounded by what a session can lose without
    /// acknowledging it.
    reported: BTreeSet<(LogIndex, FencingToken)>,
}

/// A lock with unanswered acquires.
#[derive(Clone, Debug, Default)]
struct Acquiring {
    /// How many; at least 1.
    calls: usize,
    /// The highest token that the application was told of, if it can matter; zero for none.
    granted: FencingToken,
    /// Holds with this token, and with lower ones, are over.
    over: FencingToken,
    /// Losses of which the application has not been told the grant. At most `calls`.
    early: Vec<Loss>,
}

impl Locks {
    /// The holds, by name of the lock.
    pub(super) fn held(&self) -> impl Iterator<Item = (&LockName, FencingToken)> {
        self.held.iter().map(|(lock, token)| (lock, *token))
    }

    /// The index up to which all losses are known, for the next keep-alive.
    pub(super) fn losses_seen(&self) -> LogIndex {
        self.losses_seen
    }

    /// An acquire is sent for the first time.
    pub(super) fn acquire_sent(&mut self, lock: &LockName) {
        if let Some(acquiring) = self.acquiring.get_mut(lock) {
            acquiring.calls += 1;
            return;
        }
        let granted = self.held.get(lock).copied().unwrap_or(FencingToken::ZERO);
        let acquiring = Acquiring { calls: 1, granted, ..Acquiring::default() };
        self.acquiring.insert(lock.clone(), acquiring);
    }

    /// An acquire is answered: with a token, or without. Returns the losses that the application
    /// can be told of, after it was told of this outcome.
    pub(super) fn acquire_answered(
        &mut self,
        lock: &LockName,
        token: Option<FencingToken>,
    ) -> Vec<Loss> {
        let acquiring = self.acquiring.get_mut(lock).expect("every acquire is noted when sent");
        acquiring.calls -= 1;
        if let Some(token) = token {
            if token > acquiring.over {
                acquiring.over = token.previous();
                self.held.insert(lock.clone(), token);
            }
            acquiring.granted = acquiring.granted.max(token);
        }
        let mut told: Vec<Loss> =
            acquiring.early.extract_if(.., |loss| Some(loss.token) == token).collect();
        // What no open acquire can be granted any more was lost by a node's mistake, if at all.
        let surplus = acquiring.early.len().saturating_sub(acquiring.calls);
        told.extend(acquiring.early.drain(..surplus));
        if acquiring.calls == 0 {
            self.acquiring.remove(lock);
        }
        told
    }

    /// A release of this hold took effect.
    pub(super) fn released(&mut self, lock: &LockName, token: FencingToken) {
        self.end_hold(lock, token);
    }

    /// Takes in a loss that was pushed. Returns it when the application is to be told now.
    ///
    /// One too many to remember is dropped: the next keep-alive brings it again.
    pub(super) fn lost(&mut self, loss: Loss) -> Option<Loss> {
        if self.reported.len() >= PLACES_CEILING { None } else { self.take_loss(loss) }
    }

    /// Takes in the complete list of the losses that were not acknowledged. Returns those that the
    /// application is to be told of.
    pub(super) fn take_news(&mut self, losses: Vec<Loss>) -> Vec<Loss> {
        let seen = losses.iter().map(|loss| loss.index).max();
        let fresh = losses.into_iter().filter_map(|loss| self.take_loss(loss)).collect();
        if let Some(seen) = seen {
            self.losses_seen = self.losses_seen.max(seen);
            self.reported.retain(|(index, _)| *index > seen);
        }
        fresh
    }

    fn take_loss(&mut self, loss: Loss) -> Option<Loss> {
        let known = loss.index <= self.losses_seen;
        if known || !self.reported.insert((loss.index, loss.token)) {
            return None;
        }
        self.end_hold(&loss.lock, loss.token);
        match self.acquiring.get_mut(&loss.lock) {
            Some(acquiring)
                if loss.token > acquiring.granted && acquiring.early.len() < acquiring.calls =>
            {
                acquiring.early.push(loss);
                None
            }
            Some(_) | None => Some(loss),
        }
    }

    /// Holds of `lock` up to `token` are over.
    fn end_hold(&mut self, lock: &LockName, token: FencingToken) {
        if self.held.get(lock).is_some_and(|held| *held <= token) {
            self.held.remove(lock);
        }
        if let Some(acquiring) = self.acquiring.get_mut(lock) {
            acquiring.over = acquiring.over.max(token);
        }
    }

    /// Asserts the invariants, given how many acquires of each lock are unanswered.
    pub(super) fn check_invariants(&self, acquires: &BTreeMap<&LockName, usize>) {
        assert!(
            self.acquiring.keys().eq(acquires.keys().copied()),
            "unanswered acquires are noted"
        );
        for (lock, acquiring) in &self.acquiring {
            assert_eq!(Some(&acquiring.calls), acquires.get(lock), "each of them");
            assert!(acquiring.early.len() <= acquiring.calls, "a loss waits for a grant");
            let held = self.held.get(lock);
            assert!(held.is_none_or(|held| *held > acquiring.over), "what is over is not held");
        }
        let first = self.reported.first();
        assert!(first.is_none_or(|(index, _)| *index > self.losses_seen), "old losses are dropped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::EndCause;
    use alloc::vec;

    fn lock() -> LockName {
        LockName::new("a").expect("a valid name")
    }

    fn token(value: u64) -> FencingToken {
        FencingToken::new(value)
    }

    fn loss(value: u64, index: u64) -> Loss {
        let index = LogIndex::new(index);
        Loss { lock: lock(), token: token(value), index, cause: EndCause::HoldTimedOut }
    }

    fn granted(values: &[u64]) -> Locks {
        let mut locks = Locks::default();
        for value in values {
            locks.acquire_sent(&lock());
            assert_eq!(locks.acquire_answered(&lock(), Some(token(*value))), []);
        }
        locks
    }

    fn holds(locks: &Locks) -> Vec<u64> {
        locks.held().map(|(_, token)| token.value()).collect()
    }

    #[test]
    fn release_ends_only_the_hold_that_it_names() {
        let mut locks = granted(&[5, 9]);
        locks.released(&lock(), token(5));
        assert_eq!(holds(&locks), [9]);
        locks.released(&lock(), token(9));
        assert_eq!(holds(&locks), []);
    }

    #[test]
    fn loss_is_reported_once_however_it_comes() {
        let mut locks = granted(&[5]);
        assert_eq!(locks.lost(loss(5, 8)), Some(loss(5, 8)));
        assert_eq!(holds(&locks), []);
        assert_eq!(locks.lost(loss(5, 8)), None);
        assert_eq!(locks.take_news(vec![loss(5, 8)]), []);
        assert_eq!(locks.losses_seen(), LogIndex::new(8));
        assert_eq!(locks.lost(loss(5, 8)), None);
    }

    #[test]
    fn push_alone_acknowledges_nothing() {
        // One with a lower index may have been lost on its way.
        let mut locks = granted(&[5]);
        assert!(locks.lost(loss(5, 8)).is_some());
        assert_eq!(locks.losses_seen(), LogIndex::ZERO);
    }

    #[test]
    fn late_loss_leaves_a_later_hold_alone() {
        let mut locks = granted(&[5, 9]);
        assert_eq!(locks.lost(loss(5, 8)), Some(loss(5, 8)), "still told: the application had it");
        assert_eq!(holds(&locks), [9]);
    }

    #[test]
    fn loss_before_its_grant_waits_for_it() {
        let mut locks = Locks::default();
        locks.acquire_sent(&lock());
        assert_eq!(locks.lost(loss(5, 8)), None);
        assert_eq!(locks.acquire_answered(&lock(), Some(token(5))), [loss(5, 8)]);
        assert_eq!(holds(&locks), []);
    }

    #[test]
    fn early_losses_wait_each_for_its_own_grant() {
        let mut locks = Locks::default();
        locks.acquire_sent(&lock());
        locks.acquire_sent(&lock());
        locks.acquire_sent(&lock());
        assert_eq!(locks.lost(loss(5, 6)), None);
        assert_eq!(locks.lost(loss(7, 8)), None);
        assert_eq!(locks.acquire_answered(&lock(), Some(token(7))), [loss(7, 8)]);
        assert_eq!(locks.acquire_answered(&lock(), None), []);
        assert_eq!(locks.acquire_answered(&lock(), Some(token(5))), [loss(5, 6)]);
        assert_eq!(holds(&locks), []);
    }

    #[test]
    fn loss_without_a_grant_is_told_when_no_grant_can_come() {
        let mut locks = Locks::default();
        locks.acquire_sent(&lock());
        locks.acquire_sent(&lock());
        assert_eq!(locks.lost(loss(5, 6)), None);
        assert_eq!(locks.lost(loss(7, 8)), None);
        assert_eq!(locks.lost(loss(9, 10)), Some(loss(9, 10)), "a third grant cannot be open");
        assert_eq!(locks.acquire_answered(&lock(), None), [loss(5, 6)]);
        assert_eq!(locks.acquire_answered(&lock(), None), [loss(7, 8)]);
    }

    #[test]
    fn repeated_grant_does_not_bring_back_a_released_hold() {
        // Two acquires of one hold and its release: the second acquire's answer comes last.
        let mut locks = granted(&[5]);
        locks.acquire_sent(&lock());
        locks.released(&lock(), token(5));
        assert_eq!(locks.acquire_answered(&lock(), Some(token(5))), []);
        assert_eq!(holds(&locks), []);
    }

    #[test]
    fn repeated_grant_does_not_bring_back_a_lost_hold() {
        let mut locks = granted(&[5]);
        locks.acquire_sent(&lock());
        assert_eq!(
            locks.lost(loss(5, 8)),
            Some(loss(5, 8)),
            "the grant was told: nothing to await"
        );
        assert_eq!(locks.acquire_answered(&lock(), Some(token(5))), []);
        assert_eq!(holds(&locks), []);
    }

    #[test]
    fn lower_grant_after_a_higher_one_is_no_hold() {
        let mut locks = Locks::default();
        locks.acquire_sent(&lock());
        locks.acquire_sent(&lock());
        assert_eq!(locks.acquire_answered(&lock(), Some(token(9))), []);
        assert_eq!(locks.acquire_answered(&lock(), Some(token(5))), []);
        assert_eq!(holds(&locks), [9]);
    }

    #[test]
    fn pushes_without_end_are_not_remembered_without_end() {
        let mut locks = Locks::default();
        for index in 1..=PLACES_CEILING as u64 {
            assert!(locks.lost(loss(index, index)).is_some());
        }
        let one_more = PLACES_CEILING as u64 + 1;
        assert_eq!(locks.lost(loss(one_more, one_more)), None);
        let news = vec![loss(one_more, one_more)];
        assert_eq!(locks.take_news(news.clone()), news, "it comes with the keep-alive");
        assert!(locks.reported.is_empty());
    }
}
