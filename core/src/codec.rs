//! The bytes of everything that leaves a process: a version byte, a kind byte, then the value in
//! postcard's format.
//!
//! Decoding trusts nothing. The length is checked before anything is allocated, the version and
//! the kind before anything is read, identifiers and texts by their own rules, the length of every
//! list by its cap; bytes that are left over are an error, since they would give one value two
//! encodings. No type on the wire recurses, and none is a list of elements without bytes, so input
//! of n bytes costs work in proportion to n.

use alloc::vec::Vec;
use core::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::checksum::Checksum;
use crate::config::{FRAME_BYTES_MAX, Limits, REQUEST_BYTES_MAX};
use crate::message::{Entry, HardState, Message, Reply, Request, Snapshot};

/// The version of the format that this crate writes, and the only one that it reads.
pub const VERSION: u8 = 1;

/// A type that has an encoding of its own.
///
/// Implemented for what crosses a network or lies on a disk, and for nothing else.
pub trait Encodable: Serialize + DeserializeOwned + sealed::Sealed {
    /// Tells the encodings of different types apart.
    const KIND: u8;
    /// The most bytes of an encoding that is decoded.
    const BYTES_MAX: usize;
}

pub(crate) mod sealed {
    /// Keeps the kinds of encodings within this crate.
    #[expect(unnameable_types, reason = "that nobody can name it is what seals it")]
    pub trait Sealed {}
}

/// One row for each type with an encoding: its kind, its limit in bytes.
macro_rules! encodable {
    ($($kind:literal $type:ty, $bytes_max:expr;)*) => {$(
        impl $crate::codec::sealed::Sealed for $type {}
        impl $crate::codec::Encodable for $type {
            const KIND: u8 = $kind;
            const BYTES_MAX: usize = $bytes_max;
        }
    )*};
}

pub(crate) use encodable;

/// The most bytes of a snapshot's data: it lies on a disk, and travels in pieces.
pub const SNAPSHOT_BYTES_MAX: usize = 1 << 30;

/// Room for what a snapshot has beside its data.
const SNAPSHOT_OVERHEAD_BYTES: usize = 64 << 10;

encodable! {
    1 Message, FRAME_BYTES_MAX;
    2 Request, REQUEST_BYTES_MAX;
    3 Reply, FRAME_BYTES_MAX;
    4 Entry, FRAME_BYTES_MAX;
    5 HardState, 64;
    6 Snapshot, SNAPSHOT_BYTES_MAX + SNAPSHOT_OVERHEAD_BYTES;
    9 Limits, 256;
}
// Kinds 7 and 8, the commands and the state of the lock table, are in `lock`, which alone knows
// those types.

impl Limits {
    /// The checksum of all limits, by which nodes find out whether they agree on them.
    #[must_use]
    pub fn digest(&self) -> Checksum {
        Checksum::of(&encode(self))
    }
}

/// Why bytes are no value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// More bytes than a value of this type may have.
    TooLong {
        /// How many there are.
        bytes: usize,
        /// How many there may be.
        bytes_max: usize,
    },
    /// Written by another version.
    Version {
        /// The version byte; `None` when there were no bytes at all.
        found: Option<u8>,
    },
    /// An encoding of another type.
    Kind {
        /// The kind byte; `None` when the bytes end before it.
        found: Option<u8>,
    },
    /// Not what a value of this type looks like, or one that breaks its rules.
    Malformed,
    /// Bytes follow the value.
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes, bytes_max } => {
                write!(f, "{bytes} bytes are too many: the limit is {bytes_max}")
            }
            Self::Version { found: Some(found) } => {
                write!(f, "format version {found}; this program reads version {VERSION}")
            }
            Self::Version { found: None } => f.write_str("no bytes"),
            Self::Kind { found: Some(found) } => write!(f, "unexpected kind of value: {found}"),
            Self::Kind { found: None } => f.write_str("the bytes end after the version"),
            Self::Malformed => f.write_str("malformed value"),
            Self::TrailingBytes { bytes } => write!(f, "{bytes} bytes too many after the value"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// Encodes a value.
///
/// # Panics
/// Never for the types of this crate: their encoding fails only for lack of memory.
#[must_use]
pub fn encode<T: Encodable>(value: &T) -> Vec<u8> {
    let header = alloc::vec![VERSION, T::KIND];
    postcard::to_extend(value, header).expect("encoding into a growing buffer cannot fail")
}

/// Decodes what [`encode`] wrote.
///
/// # Errors
/// [`DecodeError`], whatever the bytes are; never a panic.
pub fn decode<T: Encodable>(bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() > T::BYTES_MAX {
        return Err(DecodeError::TooLong { bytes: bytes.len(), bytes_max: T::BYTES_MAX });
    }
    let Some((&version, bytes)) = bytes.split_first() else {
        return Err(DecodeError::Version { found: None });
    };
    if version != VERSION {
        return Err(DecodeError::Version { found: Some(version) });
    }
    let Some((&kind, bytes)) = bytes.split_first() else {
        return Err(DecodeError::Kind { found: None });
    };
    if kind != T::KIND {
        return Err(DecodeError::Kind { found: Some(kind) });
    }
    let (value, rest) =
        postcard::take_from_bytes::<T>(bytes).map_err(|_error| DecodeError::Malformed)?;
    if !rest.is_empty() {
        return Err(DecodeError::TrailingBytes { bytes: rest.len() });
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{EntryId, LogIndex, NodeId, Term};
    use crate::membership::{Membership, VOTERS_MAX};
    use crate::time::LeaseTime;

    /// What is around the data of a snapshot does not count against the data.
    #[test]
    fn a_snapshot_with_the_most_data_can_be_decoded() {
        let nodes = || (0..VOTERS_MAX as u64).map(|nth| NodeId::new(NodeId::MAX.value() - nth));
        let snapshot = Snapshot {
            last: EntryId::new(Term::MAX, LogIndex::MAX),
            stamp: LeaseTime::MAX,
            membership: Membership::joint(nodes(), nodes()).expect("as many as there may be"),
            data: bytes::Bytes::new(),
        };
        let length_bytes = 5;
        let around = encode(&snapshot).len() + length_bytes;
        assert!(around + SNAPSHOT_BYTES_MAX <= Snapshot::BYTES_MAX);
    }
}
