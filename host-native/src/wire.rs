//! What is said on a connection: streams, frames, the first words.
//!
//! - The side that connects opens a stream and says who it takes the other one for ([`hello`]);
//!   nothing else is read before that was answered. So a stranger cannot even tell us a term.
//! - Every further stream begins with one byte, its [`StreamKind`]. What goes over it are frames
//!   ([`frame`]): a length, then that many bytes. A value that belongs to the core is encoded by
//!   [`quorlock_core::codec`]; what belongs to this host, by `encode` here, in the same way: a
//!   version byte, postcard, and no bytes left over.
//!
//! | stream | direction | what | priority |
//! |---|---|---|---|
//! | [`Consensus`](StreamKind::Consensus) | node to node, one way | [`Message`](quorlock_core::message::Message)s but snapshots | high |
//! | [`Snapshots`](StreamKind::Snapshots) | node to node, one way | `InstallSnapshot` pieces | low |
//! | [`KeepAlives`](StreamKind::KeepAlives) | client to node, and back | keep-alives and opens, and their replies | high |
//! | [`Requests`](StreamKind::Requests) | client to node, and back | all other requests and replies | middle |
//! | [`Report`](StreamKind::Report) | anybody to node, and back | an empty frame, then a [`NodeReport`] | high |
//! | [`FileRange`](StreamKind::FileRange) | node to node, and back | a [`FileRangeRequest`], then bytes | low |
//!
//! Within one stream the order is kept; between streams it is not, and nothing needs it.

pub mod frame;
pub mod hello;
pub mod report;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use frame::{FrameError, FrameReader, write_frame};
pub use hello::{HelloReply, HelloRequest, Refusal, Welcome};
pub use report::{FileRangeReply, FileRangeRequest, NodeReport, PeerReport, ReportedRole};

/// The version of the encoding of this host's own values.
const VERSION: u8 = 1;

/// What a stream is for: its first byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamKind {
    /// Consensus messages, one way.
    Consensus,
    /// Pieces of snapshots, one way.
    Snapshots,
    /// A client's requests and their replies.
    Requests,
    /// A client's keep-alives and their replies, past all other traffic.
    KeepAlives,
    /// One question for a [`NodeReport`].
    Report,
    /// One question for bytes of a guarded file.
    FileRange,
}

impl StreamKind {
    /// As it is on the wire.
    pub const fn byte(self) -> u8 {
        match self {
            Self::Consensus => 1,
            Self::Snapshots => 2,
            Self::Requests => 3,
            Self::KeepAlives => 4,
            Self::Report => 5,
            Self::FileRange => 6,
        }
    }

    /// What a stream that begins with `byte` is for; `None` for what no version of ours sends.
    pub const fn of_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Consensus),
            2 => Some(Self::Snapshots),
            3 => Some(Self::Requests),
            4 => Some(Self::KeepAlives),
            5 => Some(Self::Report),
            6 => Some(Self::FileRange),
            _ => None,
        }
    }

    /// How urgent it is, for [`quinn::SendStream::set_priority`]: what keeps leaderships and leases
    /// alive goes before what is merely large.
    pub const fn priority(self) -> i32 {
        match self {
            Self::Consensus | Self::KeepAlives | Self::Report => 2,
            Self::Requests => 1,
            Self::Snapshots | Self::FileRange => 0,
        }
    }
}

/// Why bytes are no value of this host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// Written by another version.
    #[error("format version {found:?}; this program reads version {VERSION}")]
    Version {
        /// The version byte; `None` when there were no bytes.
        found: Option<u8>,
    },
    /// Not what a value of this type looks like.
    #[error("malformed value")]
    Malformed,
    /// Bytes follow the value.
    #[error("{bytes} bytes too many after the value")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
}

/// Encodes a value of this host.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![VERSION])
        .expect("encoding into a growing buffer cannot fail for plain values")
}

/// Decodes what [`encode`] wrote. The caller has limited the length.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    match bytes.split_first() {
        Some((&VERSION, bytes)) => {
            let (value, rest) =
                postcard::take_from_bytes(bytes).map_err(|_error| DecodeError::Malformed)?;
            if rest.is_empty() {
                Ok(value)
            } else {
                Err(DecodeError::TrailingBytes { bytes: rest.len() })
            }
        }
        Some((&found, _)) => Err(DecodeError::Version { found: Some(found) }),
        None => Err(DecodeError::Version { found: None }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_byte() {
        let kinds = (0..=u8::MAX).filter_map(StreamKind::of_byte);
        assert_eq!(kinds.clone().count(), 6);
        assert!(kinds.into_iter().all(|kind| StreamKind::of_byte(kind.byte()) == Some(kind)));
    }

    #[test]
    fn bytes_that_are_no_value_are_refused() {
        let good = encode(&7_u32);
        assert_eq!(decode::<u32>(&good), Ok(7));
        assert_eq!(decode::<u32>(&[]), Err(DecodeError::Version { found: None }));
        assert_eq!(decode::<u32>(&[9, 7]), Err(DecodeError::Version { found: Some(9) }));
        assert_eq!(decode::<u32>(&[1]), Err(DecodeError::Malformed));
        assert_eq!(decode::<u32>(&[1, 7, 7]), Err(DecodeError::TrailingBytes { bytes: 1 }));
    }
}
