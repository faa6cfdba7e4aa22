//! The clock of a host: monotone, and it goes on while the machine sleeps.
//!
//! A lease must not seem to last because a laptop was closed. So this is not
//! [`std::time::Instant`], which stands still meanwhile on Linux, but `CLOCK_BOOTTIME`. The timers of
//! tokio do stand still; [`sleep_until`] therefore looks again at least every `NAP_MAX`.

use std::time::Duration;

use quorlock_core::time::Time;
use rustix::time::{ClockId, clock_gettime};

/// The longest time that passes before a sleeper notices that the machine slept.
const NAP_MAX: Duration = Duration::from_millis(250);

#[cfg(any(target_os = "linux", target_os = "android"))]
const CLOCK: ClockId = ClockId::Boottime;
/// Where there is no such clock by name, this one counts sleep too (macOS), or is the best there is.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CLOCK: ClockId = ClockId::Monotonic;

/// The time now, in microseconds since the machine started. It never goes back, and all processes
/// of one machine agree on it.
pub fn now() -> Time {
    let now = clock_gettime(CLOCK);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanos = u64::try_from(now.tv_nsec).unwrap_or_default();
    Time::from_micros(seconds.saturating_mul(1_000_000).saturating_add(nanos / 1000))
}

/// Sleeps until `deadline`; for ever if that never comes.
pub async fn sleep_until(deadline: Time) {
    loop {
        let left = deadline.since(now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(NAP_MAX)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_goes_back() {
        let times: Vec<Time> = (0..1000).map(|_| now()).collect();
        assert!(times.is_sorted() && times[0] > Time::ZERO);
    }

    #[tokio::test]
    async fn sleeps_at_least_until_the_deadline() {
        let deadline = now().after(Duration::from_millis(20));
        sleep_until(deadline).await;
        assert!(now() >= deadline);
        sleep_until(Time::ZERO).await;
    }
}
