//! What was encoded comes back; the header says what it is; nothing shorter or longer is accepted.

use std::fmt::Debug;

use proptest::prelude::*;
use quorlock_core::codec::{self, DecodeError, Encodable, VERSION};
use quorlock_core::config::Limits;
use quorlock_core::lock::Command;
use quorlock_core::message::{Entry, HardState, Message, Reply, Request, Snapshot};

use crate::strategies;

/// Everything that must be true of the encoding of any value.
fn check<T: Encodable + PartialEq + Debug>(value: &T) {
    let bytes = codec::encode(value);
    assert_eq!(bytes, codec::encode(value), "the same value has the same bytes");
    assert_eq!(&bytes[..2], &[VERSION, T::KIND], "the header");
    assert_eq!(codec::decode::<T>(&bytes).as_ref(), Ok(value), "the way back");
    for length in 0..bytes.len() {
        let cut = codec::decode::<T>(&bytes[..length]);
        assert!(cut.is_err(), "{length} of {} bytes are {cut:?}", bytes.len());
    }
    for extra in [0_u8, 1, 0x7f, 0xff] {
        let longer = [&bytes[..], &[extra]].concat();
        let trailing = codec::decode::<T>(&longer);
        assert_eq!(trailing, Err(DecodeError::TrailingBytes { bytes: 1 }));
    }
    check_header::<T>(&bytes);
}

/// Another version or another kind is refused by name, whatever follows.
fn check_header<T: Encodable + PartialEq + Debug>(bytes: &[u8]) {
    for other in (0..=u8::MAX).filter(|version| *version != VERSION) {
        let mut bytes = bytes.to_vec();
        bytes[0] = other;
        let found = codec::decode::<T>(&bytes);
        assert_eq!(found, Err(DecodeError::Version { found: Some(other) }));
    }
    for other in (0..=u8::MAX).filter(|kind| *kind != T::KIND) {
        let mut bytes = bytes.to_vec();
        bytes[1] = other;
        let found = codec::decode::<T>(&bytes);
        assert_eq!(found, Err(DecodeError::Kind { found: Some(other) }));
    }
}

proptest! {
    #![proptest_config(crate::cases(300))]

    #[test]
    fn messages(value in strategies::message()) {
        check(&value);
    }

    #[test]
    fn requests(value in strategies::request()) {
        check(&value);
    }

    #[test]
    fn replies(value in strategies::reply()) {
        check(&value);
    }

    #[test]
    fn entries(value in strategies::entry()) {
        check(&value);
    }

    #[test]
    fn commands(value in strategies::command()) {
        check(&value);
    }

    #[test]
    fn snapshots(value in strategies::snapshot()) {
        check(&value);
    }

    #[test]
    fn limits(value in strategies::limits()) {
        check(&value);
    }

    #[test]
    fn hard_states(value in strategies::hard_state()) {
        check(&value);
    }
}

#[test]
fn no_bytes_and_half_a_header_are_named() {
    assert_eq!(codec::decode::<Message>(&[]), Err(DecodeError::Version { found: None }));
    assert_eq!(codec::decode::<Message>(&[VERSION]), Err(DecodeError::Kind { found: None }));
}

#[test]
fn every_kind_is_another() {
    let mut kinds = vec![
        Message::KIND,
        Request::KIND,
        Reply::KIND,
        Entry::KIND,
        HardState::KIND,
        Snapshot::KIND,
        Command::KIND,
        Limits::KIND,
        // The state of a lock table, whose type is the lock table's own business.
        8,
    ];
    let count = kinds.len();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds.len(), count, "two types have the same kind: {kinds:?}");
}
