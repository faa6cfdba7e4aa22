//! The checksum of guarded files and of the applied state: CRC-64/XZ.
//!
//! It finds accidents (a torn write, a flipped bit), not forgery: whoever can forge a file has the
//! node. It can be continued, which is what a running checksum of an append-only file needs.

use core::fmt;

use crc::{CRC_64_XZ, Crc, Table};
use serde::{Deserialize, Serialize};

const CRC64: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_XZ);

/// The CRC-64/XZ of all bytes so far, as `xz --check=crc64` computes it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Checksum(u64);

impl Checksum {
    /// The checksum of no bytes.
    pub const EMPTY: Self = Self(0);

    /// The checksum of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::EMPTY.extended(bytes)
    }

    /// The checksum of what was there, followed by `bytes`.
    #[must_use]
    pub fn extended(self, bytes: &[u8]) -> Self {
        // The crate takes the state of the register before its bits are reflected, and gives the
        // state after the final inversion.
        let register = (self.0 ^ CRC_64_XZ.xorout).reverse_bits();
        let mut digest = CRC64.digest_with_initial(register);
        digest.update(bytes);
        Self(digest.finalize())
    }

    /// The checksum as a number.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Checksum {
    /// Sixteen hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_catalogue() {
        assert_eq!(Checksum::of(b"123456789").value(), 0x995d_c9bb_df19_39fa);
    }

    #[test]
    fn continues_where_it_stopped() {
        let whole = Checksum::of(b"every line once");
        let parts = Checksum::of(b"every").extended(b"").extended(b" line once");
        assert_eq!(parts, whole);
    }
}
