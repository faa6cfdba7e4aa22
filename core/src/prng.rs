//! The one source of randomness of a value: seeded, and with a fixed algorithm.

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg32;

use crate::time::Duration;

/// A small pseudo-random number generator (PCG XSH RR 64/32, which its crate keeps stable).
///
/// The same seed gives the same numbers on every platform. Not for secrets.
#[derive(Clone, Debug)]
pub struct Prng(Pcg32);

impl Prng {
    /// A generator that depends on `seed` alone.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Pcg32::seed_from_u64(seed))
    }

    /// Sixty-four random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`; zero when `bound` is zero.
    ///
    /// The multiply-shift method: its bias is below `bound` / 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.next_u64()) * u128::from(bound);
        (wide >> 64) as u64
    }

    /// A duration of whole microseconds in `low..high`; `low` when the range is empty.
    pub fn duration_between(&mut self, low: Duration, high: Duration) -> Duration {
        let width = high.saturating_sub(low).as_micros();
        let width = u64::try_from(width).unwrap_or(u64::MAX);
        low.saturating_add(Duration::from_micros(self.below(width)))
    }
}
