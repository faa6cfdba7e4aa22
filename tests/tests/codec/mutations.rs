//! Bytes that nobody encoded: flipped, cut, spliced, invented, and with lengths that promise too
//! much. Decoding says no, or gives a value that is as good as any other; it never panics.
//!
//! # One value, several encodings
//! The encoding is not canonical in three places, and nothing depends on it: a number may be written
//! with more bytes than it needs, the voters of a membership may come in any order and more than
//! once, and the nanoseconds of a duration may be a second or more. Whatever is accepted is written
//! again in its one proper form, which is never longer. Only the state of a lock table, which is
//! compared by its bytes, is refused in any other form.

use std::fmt::Debug;

use proptest::collection::vec;
use proptest::prelude::*;
use quorlock_core::codec::{self, Encodable, VERSION};
use quorlock_core::config::Limits;
use quorlock_core::lock::Command;
use quorlock_core::message::{Entry, HardState, Message, Payload, Reply, Request, Snapshot};
use quorlock_core::time::Duration;

use crate::strategies;

/// Changes to some bytes.
#[derive(Clone, Debug)]
enum Mutation {
    Flip { place: u16, bit: u8 },
    Set { place: u16, value: u8 },
    Remove { place: u16, count: u8 },
    Insert { place: u16, bytes: Vec<u8> },
    Copy { from: u16, to: u16, count: u8 },
    Cut { place: u16 },
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let place = || any::<u16>();
    let number = prop_oneof![
        Just(huge(u64::from(u32::MAX))),
        Just(huge(u64::MAX)),
        Just(huge(1 << 53)),
        Just(vec![0x80; 12]),
        vec(any::<u8>(), 1..12),
    ];
    prop_oneof![
        (place(), 0..8_u8).prop_map(|(place, bit)| Mutation::Flip { place, bit }),
        (place(), any::<u8>()).prop_map(|(place, value)| Mutation::Set { place, value }),
        (place(), 1..9_u8).prop_map(|(place, count)| Mutation::Remove { place, count }),
        (place(), number).prop_map(|(place, bytes)| Mutation::Insert { place, bytes }),
        (place(), place(), 1..20_u8).prop_map(|(from, to, count)| Mutation::Copy {
            from,
            to,
            count
        }),
        place().prop_map(|place| Mutation::Cut { place }),
    ]
}

/// A number as a varint of full length.
fn huge(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).expect("seven bits") | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).expect("seven bits"));
    bytes
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    let at = |place: u16| usize::from(place) % (bytes.len() + 1);
    let within = |place: u16, count: u8| {
        let start = at(place);
        start..(start + usize::from(count)).min(bytes.len())
    };
    match mutation {
        Mutation::Flip { place, bit } => {
            let place = at(*place);
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= 1 << bit;
            }
        }
        Mutation::Set { place, value } => {
            let place = at(*place);
            if let Some(byte) = bytes.get_mut(place) {
                *byte = *value;
            }
        }
        Mutation::Remove { place, count } => {
            let range = within(*place, *count);
            bytes.drain(range);
        }
        Mutation::Insert { place, bytes: new } => {
            let place = at(*place);
            bytes.splice(place..place, new.iter().copied());
        }
        Mutation::Copy { from, to, count } => {
            let (copied, to) = (bytes[within(*from, *count)].to_vec(), at(*to));
            bytes.splice(to..to, copied);
        }
        Mutation::Cut { place } => {
            let place = at(*place);
            bytes.truncate(place);
        }
    }
}

/// Decodes whatever these bytes are. A value that comes of it has a proper encoding, which is no
/// longer than what was given: a value never takes more than its bytes paid for.
fn harmless<T: Encodable + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let value = codec::decode::<T>(bytes).ok()?;
    let proper = codec::encode(&value);
    assert!(proper.len() <= bytes.len(), "{} bytes became {}", bytes.len(), proper.len());
    assert_eq!(codec::decode::<T>(&proper).as_ref(), Ok(&value), "its proper form");
    Some(value)
}

fn harmless_as_anything(bytes: &[u8]) {
    harmless::<Message>(bytes);
    harmless::<Request>(bytes);
    harmless::<Reply>(bytes);
    harmless::<Entry>(bytes);
    harmless::<HardState>(bytes);
    harmless::<Snapshot>(bytes);
    harmless::<Command>(bytes);
    harmless::<Limits>(bytes);
}

fn mutated<T: Encodable + PartialEq + Debug>(value: &T, mutations: &[Vec<Mutation>]) {
    let bytes = codec::encode(value);
    for of_one in mutations {
        let mut bytes = bytes.clone();
        for mutation in of_one {
            mutate(&mut bytes, mutation);
        }
        harmless::<T>(&bytes);
    }
}

/// At every place of an encoding, a length or number that promises more than there is: put in, or
/// in place of a byte.
fn bombs<T: Encodable + PartialEq + Debug>(value: &T) {
    let bytes = codec::encode(value);
    for number in [1 << 20, u64::from(u32::MAX), (1 << 53) - 1, 1 << 53, u64::MAX] {
        let bomb = huge(number);
        for place in 2..=bytes.len() {
            for replaced in [0, 1] {
                let end = (place + replaced).min(bytes.len());
                harmless::<T>(&[&bytes[..place], &bomb, &bytes[end..]].concat());
            }
        }
    }
}

fn mutations() -> impl Strategy<Value = Vec<Vec<Mutation>>> {
    vec(vec(mutation(), 1..4), 30)
}

proptest! {
    #![proptest_config(crate::cases(200))]

    #[test]
    fn messages(value in strategies::message(), mutations in mutations()) {
        mutated(&value, &mutations);
        bombs(&value);
    }

    #[test]
    fn requests(value in strategies::request(), mutations in mutations()) {
        mutated(&value, &mutations);
        bombs(&value);
    }

    #[test]
    fn replies(value in strategies::reply(), mutations in mutations()) {
        mutated(&value, &mutations);
        bombs(&value);
    }

    #[test]
    fn entries(value in strategies::entry(), mutations in mutations()) {
        mutated(&value, &mutations);
        bombs(&value);
    }

    #[test]
    fn commands(value in strategies::command(), mutations in mutations()) {
        mutated(&value, &mutations);
        bombs(&value);
    }

    #[test]
    fn limits(value in strategies::limits(), mutations in mutations()) {
        mutated(&value, &mutations);
        bombs(&value);
    }

    #[test]
    fn snapshots(value in strategies::snapshot(), mutations in mutations()) {
        mutated(&value, &mutations);
        bombs(&value);
    }

    /// Bytes that never were an encoding, with a header that lets them in.
    #[test]
    fn noise(noise in vec(any::<u8>(), 0..200), kind in 0..10_u8) {
        harmless_as_anything(&noise);
        harmless_as_anything(&[&[VERSION, kind], &noise[..]].concat());
    }

    /// Every single bit matters to somebody, and none of them to the decoder's health.
    #[test]
    fn every_single_bit(value in strategies::request()) {
        let bytes = codec::encode(&value);
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[place] ^= 1 << bit;
                harmless::<Request>(&bytes);
            }
        }
    }
}

#[test]
fn a_number_may_be_written_longer_than_it_needs() {
    let proper = [VERSION, HardState::KIND, 5, 0];
    let longer = [VERSION, HardState::KIND, 0x85, 0x80, 0x00, 0];
    let value = harmless::<HardState>(&longer).expect("an over-long number is a number");
    assert_eq!(codec::encode(&value), proper);
    // Not without end: ten bytes are what the largest number takes.
    let endless = [&[VERSION, HardState::KIND][..], &[0x80; 10], &[0, 0]].concat();
    assert_eq!(harmless::<HardState>(&endless), None);
}

#[test]
fn voters_come_in_order_and_once() {
    let bytes = |voters: &[u8]| {
        let count = u8::try_from(voters.len()).expect("a short list");
        [&[VERSION, Entry::KIND, 1, 1, 0, 1, count], voters, &[0]].concat()
    };
    let proper = harmless::<Entry>(&bytes(&[1, 2, 3])).expect("three voters");
    assert!(matches!(proper.payload, Payload::Membership(_)));
    assert_eq!(harmless::<Entry>(&bytes(&[3, 1, 2])), None);
    assert_eq!(harmless::<Entry>(&bytes(&[1, 2, 2, 3])), None);
}

#[test]
fn nanoseconds_may_be_more_than_a_second() {
    // Of an opening without a label: the nonce, host, process, user, command; then the duration.
    let head = [VERSION, Request::KIND, 0, 1, 1, 0, 0, 0, 0];
    let time = |bytes: &[u8]| {
        harmless::<Request>(&[&head[..], bytes].concat()).map(|request| match request {
            Request::OpenSession { lease, .. } => lease,
            Request::KeepAlive { .. } | Request::Submit(_) | Request::Read { .. } => {
                panic!("it is an opening")
            }
        })
    };
    let nanos = |nanos: u64| huge(nanos);
    let of = |secs: u64, part: u64| [nanos(secs), nanos(part)].concat();
    assert_eq!(time(&of(1, 5)), Some(Duration::new(1, 5)));
    assert_eq!(time(&of(1, 2_000_000_005)), Some(Duration::new(3, 5)));
    assert_eq!(time(&of(u64::MAX, 999_999_999)), Some(Duration::MAX));
    assert_eq!(time(&of(u64::MAX, 1_000_000_000)), None, "more than there are seconds");
}
