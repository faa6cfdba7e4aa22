//! When the command is told to end, and when it is ended.
//!
//! ```text
//!  renewed                         jeopardy    TERM        KILL  guard  lease ends     lease ends
//!  |----------------------------------|----------|-----------|------|------| (here)     | (servers)
//!                                                 grace: 1/10  1/40   1/40 of the lease
//! ```
//!
//! Everything to the left of "lease ends (here)" is before the servers can give the lock to somebody
//! else: the client counts its lease from when it sent the renewal, and takes off a margin for clocks
//! that disagree. A longer lease (`--ttl`) gives the command more time to clean up.

use std::time::Duration;

use quorlock_core::time::Time;

/// What the lease is divided by to get the time between TERM and KILL.
const GRACE_PART: u32 = 10;
/// ... between KILL and the end of the lease.
const KILL_PART: u32 = 20;
/// ... between the guard's KILL and the end of the lease.
const GUARD_PART: u32 = 40;

/// The times of one lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Timing {
    /// Between TERM and KILL.
    pub(crate) grace: Duration,
    kill_before: Duration,
    guard_before: Duration,
    /// How often to look whether the lease was renewed.
    pub(crate) look: Duration,
}

impl Timing {
    /// Those of a lease, and of what is to happen at its end.
    pub(crate) fn new(lease: Duration, on_lost: super::OnLost) -> Self {
        let grace = match on_lost {
            super::OnLost::Term => lease / GRACE_PART,
            super::OnLost::Kill | super::OnLost::Ignore => Duration::ZERO,
        };
        let look = (lease / 50).clamp(Duration::from_millis(10), Duration::from_millis(200));
        Self { grace, kill_before: lease / KILL_PART, guard_before: lease / GUARD_PART, look }
    }

    /// When the command is told to end, if the lock is ours until `safe_until`.
    pub(crate) fn term_at(&self, safe_until: Time) -> Time {
        before(self.kill_at(safe_until), self.grace)
    }

    /// When the group is killed.
    pub(crate) fn kill_at(&self, safe_until: Time) -> Time {
        before(safe_until, self.kill_before)
    }

    /// When the guard kills the group, if nobody else has.
    pub(crate) fn guard_at(&self, safe_until: Time) -> Time {
        before(safe_until, self.guard_before)
    }
}

/// The moment `duration` earlier; zero if there is none. A moment that never comes stays one.
fn before(time: Time, duration: Duration) -> Time {
    if time == Time::MAX {
        return time;
    }
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    Time::from_micros(time.as_micros().saturating_sub(micros))
}

#[cfg(test)]
mod tests {
    use super::super::OnLost;
    use super::*;

    #[test]
    fn everything_comes_before_the_end_and_in_order() {
        for millis in [200, 2000, 10_000, 3_600_000] {
            let timing = Timing::new(Duration::from_millis(millis), OnLost::Term);
            let end = Time::from_micros(10_000_000_000);
            assert!(timing.term_at(end) < timing.kill_at(end));
            assert!(timing.kill_at(end) < timing.guard_at(end) && timing.guard_at(end) < end);
            assert!(timing.look < timing.grace);
        }
    }

    #[test]
    fn kill_gives_no_grace() {
        let timing = Timing::new(Duration::from_secs(10), OnLost::Kill);
        let end = Time::from_micros(100_000_000);
        assert_eq!(timing.term_at(end), timing.kill_at(end));
    }

    #[test]
    fn what_never_ends_and_what_has_ended() {
        let timing = Timing::new(Duration::from_secs(10), OnLost::Term);
        assert_eq!(timing.guard_at(Time::MAX), Time::MAX);
        assert_eq!(timing.term_at(Time::from_micros(5)), Time::ZERO);
    }
}
