//! The state survives its encoding, and bad bytes do no harm.

use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::collection::vec;
use proptest::prelude::*;
use quorlock_core::config::Limits;
use quorlock_core::ids::LogIndex;
use quorlock_core::lock::LockTable;
use quorlock_core::time::LeaseTime;

use crate::drive::Entry;
use crate::history::{self, Step};
use crate::pair::{Pair, apply, compare_states};

/// A change to one place in some bytes.
#[derive(Clone, Debug)]
enum Mutation {
    Set(u8),
    Flip(u8),
    Insert(u8),
    Remove,
    /// The bytes end here.
    Cut,
    /// A few bytes from here are written over those at another place.
    Copy {
        to: u16,
        count: u8,
    },
}

fn mutations() -> impl Strategy<Value = Vec<(u16, Mutation)>> {
    let mutation = prop_oneof![
        any::<u8>().prop_map(Mutation::Set),
        (0..8_u8).prop_map(Mutation::Flip),
        any::<u8>().prop_map(Mutation::Insert),
        Just(Mutation::Remove),
        Just(Mutation::Cut),
        (any::<u16>(), 1..9_u8).prop_map(|(to, count)| Mutation::Copy { to, count }),
    ];
    vec((any::<u16>(), mutation), 1..4)
}

fn mutate(bytes: &mut Vec<u8>, place: u16, mutation: &Mutation) {
    if bytes.is_empty() {
        return;
    }
    let place = usize::from(place) % bytes.len();
    match mutation {
        Mutation::Set(value) => bytes[place] = *value,
        Mutation::Flip(bit) => bytes[place] ^= 1 << bit,
        Mutation::Insert(value) => bytes.insert(place, *value),
        Mutation::Remove => {
            bytes.remove(place);
        }
        Mutation::Cut => bytes.truncate(place),
        Mutation::Copy { to, count } => {
            let to = usize::from(*to) % bytes.len();
            let count = usize::from(*count).min(bytes.len() - place.max(to));
            bytes.copy_within(place..place + count, to);
        }
    }
}

fn run(pair: &mut Pair, steps: &[Step]) {
    for step in steps {
        pair.step(step);
    }
}

fn decoded(table: &LockTable) -> LockTable {
    let bytes = table.encode();
    assert_eq!(bytes, table.encode(), "two encodings of one state");
    let copy = LockTable::decode(&bytes).expect("what was encoded can be decoded");
    copy.check_invariants();
    assert_eq!(copy, *table, "the copy is equal");
    assert_eq!(copy.encode(), bytes, "the copy is encoded as the original was");
    assert_eq!(copy.digest(), table.digest(), "the digest of the copy");
    copy
}

/// Bytes that may be bad are refused, or are the one encoding of a state that can be used.
fn harmless(bytes: &[u8], entries: &[Entry]) {
    if let Ok(table) = LockTable::decode(bytes) {
        table.check_invariants();
        assert_eq!(table.encode(), bytes, "two encodings of one state");
        use_up(table, entries);
    }
}

/// A state that came out of bad bytes must be usable: requests are decided, and time goes on until
/// all that is due has passed.
fn use_up(mut table: LockTable, entries: &[Entry]) {
    let end = Entry { index: LogIndex::ZERO, stamp: LeaseTime::MAX, command: None };
    for entry in entries.iter().chain([&end, &end]) {
        let index = table.index().next();
        if index == table.index() {
            return;
        }
        apply(&mut table, &Entry { index, ..entry.clone() });
        table.check_invariants();
    }
}

proptest! {
    #![proptest_config(crate::cases(300))]

    /// A copy goes on as the original does.
    #[test]
    fn a_copy_goes_on_as_the_original(
        limits in history::limits(),
        before in history::history(80),
        after in history::history(40),
    ) {
        let mut pair = Pair::new(&limits);
        run(&mut pair, &before);
        let mut copy = decoded(&pair.table);
        compare_states(&copy, &pair.model);
        for step in &after {
            let mut original = pair.table.clone();
            let entry = pair.step(step);
            let output = apply(&mut copy, &entry);
            assert_eq!(output, apply(&mut original, &entry), "the copy says something else");
            assert_eq!(copy.digest(), pair.table.digest(), "the copy is in another state");
            copy.check_invariants();
        }
    }

    /// A copy is made after every single entry.
    #[test]
    fn copies_of_copies_go_on(limits in history::limits(), steps in history::history(60)) {
        let mut pair = Pair::new(&limits);
        for step in &steps {
            pair.table = decoded(&pair.table);
            pair.step(step);
        }
    }

    /// No part of an encoding is an encoding.
    #[test]
    fn what_is_cut_off_is_refused(limits in history::limits(), steps in history::history(60)) {
        let mut pair = Pair::new(&limits);
        run(&mut pair, &steps);
        let bytes = pair.table.encode();
        for length in 0..bytes.len() {
            assert!(LockTable::decode(&bytes[..length]).is_err(), "{length} of {}", bytes.len());
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(LockTable::decode(&longer).is_err(), "a byte too many");
    }

    /// Bad bytes are refused, or are a state in which nothing is broken.
    #[test]
    fn bad_bytes_do_no_harm(
        limits in history::limits(),
        before in history::history(60),
        after in history::history(12),
        changes in vec(mutations(), 200),
    ) {
        let mut pair = Pair::new(&limits);
        run(&mut pair, &before);
        let bytes = pair.table.encode();
        let entries: Vec<Entry> = after.iter().map(|step| pair.step(step)).collect();
        for change in changes {
            let mut bytes = bytes.to_vec();
            for (place, mutation) in &change {
                mutate(&mut bytes, *place, mutation);
            }
            let harmless = AssertUnwindSafe(|| harmless(&bytes, &entries));
            prop_assert!(catch_unwind(harmless).is_ok(), "{change:?} gives {bytes:x?}, then {entries:?}");
        }
    }

    /// So are bytes that were never a state.
    #[test]
    fn noise_does_no_harm(noise in vec(any::<u8>(), 0..400)) {
        for header in [&[][..], &[quorlock_core::codec::VERSION, 8][..]] {
            let bytes = [header, &noise[..]].concat();
            if let Ok(table) = LockTable::decode(&bytes) {
                table.check_invariants();
            }
        }
    }
}

/// An entry that is applied twice would count twice: the table stops.
#[test]
#[should_panic(expected = "applied after")]
fn an_entry_is_not_applied_twice() {
    let mut table = LockTable::new(Limits::default());
    let entry = Entry { index: LogIndex::new(7), stamp: LeaseTime::ZERO, command: None };
    apply(&mut table, &entry);
    apply(&mut table, &entry);
}
