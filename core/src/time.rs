//! Two kinds of time, which must not be mixed.
//!
//! [`Time`] is what the host's monotone clock says; every host has its own. [`LeaseTime`] is the
//! replicated clock of the lock table: it advances only by the stamps of log entries, so all nodes
//! see the same lease time at the same log index. Both count microseconds.

use core::fmt;
pub use core::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment on the host's monotone clock, in microseconds since an origin of the host's choice.
///
/// The clock should go on while the machine is suspended (`CLOCK_BOOTTIME`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

/// A moment on the replicated clock, in microseconds since the cluster began.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaseTime(u64);

macro_rules! moment {
    ($name:ident) => {
        impl $name {
            /// The origin.
            pub const ZERO: Self = Self(0);
            /// A moment that never comes.
            pub const MAX: Self = Self(u64::MAX);

            /// The moment `micros` microseconds after the origin.
            #[must_use]
            pub const fn from_micros(micros: u64) -> Self {
                Self(micros)
            }

            /// Microseconds since the origin.
            #[must_use]
            pub const fn as_micros(self) -> u64 {
                self.0
            }

            /// The moment `duration` later; at most [`Self::MAX`]. Parts of a microsecond are
            /// dropped.
            #[must_use]
            pub const fn after(self, duration: Duration) -> Self {
                Self(self.0.saturating_add(micros(duration)))
            }

            /// How long this moment is after `earlier`; zero if it is not after it.
            #[must_use]
            pub const fn since(self, earlier: Self) -> Duration {
                Duration::from_micros(self.0.saturating_sub(earlier.0))
            }
        }

        impl fmt::Debug for $name {
            /// Seconds with six decimals, as in `1.250000s`.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}.{:06}s", self.0 / 1_000_000, self.0 % 1_000_000)
            }
        }
    };
}

moment!(Time);
moment!(LeaseTime);

/// Whole microseconds of a duration; one that is too long for that counts as the longest.
const fn micros(duration: Duration) -> u64 {
    let whole = duration.as_secs().saturating_mul(1_000_000);
    whole.saturating_add(duration.subsec_micros() as u64)
}
