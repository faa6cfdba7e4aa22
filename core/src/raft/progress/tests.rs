//! One follower, as the leader sees it.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::checksum::Checksum;
use crate::ids::Term;
use crate::membership::Membership;
use crate::message::Payload;
use crate::time::LeaseTime;

fn index(value: u64) -> LogIndex {
    LogIndex::new(value)
}

/// A log whose entries have these terms.
fn log(terms: &[u64]) -> Log {
    let mut log = Log::new(EntryId::ZERO, LeaseTime::ZERO);
    for term in terms {
        let id = EntryId::new(Term::new(*term), log.last_index().next());
        log.push(Entry { id, stamp: LeaseTime::ZERO, payload: Payload::Empty });
    }
    log
}

fn config() -> Config {
    Config { message_entries_max: 4, in_flight_entries_max: 8, ..Config::default() }
}

fn new(log: &Log) -> Progress {
    Progress::new(log.last_index().next(), Time::ZERO)
}

/// How many entries the next message has; `None` for no message.
fn take(progress: &mut Progress, log: &Log) -> Option<usize> {
    let taken = progress.take_entries(log, &config()).map(|(_, entries)| entries.len());
    progress.check_invariants(log);
    taken
}

fn snapshot(data: &'static [u8]) -> Snapshot {
    let membership = Membership::new([NodeId::new(1)]).expect("one voter");
    let last = EntryId::new(Term::new(1), index(5));
    Snapshot { last, stamp: LeaseTime::ZERO, membership, data: Bytes::from_static(data) }
}

#[test]
fn one_probe_at_a_time() {
    let log = log(&[1, 1]);
    let mut progress = new(&log);
    assert_eq!(take(&mut progress, &log), Some(0));
    assert_eq!(take(&mut progress, &log), None);
}

#[test]
fn a_match_starts_the_pipeline_and_the_window_stops_it() {
    let log = log(&[1; 20]);
    let mut progress = new(&log);
    progress.next = index(1);
    assert_eq!(take(&mut progress, &log), Some(4));
    progress.acknowledge(index(4), &log);
    let sent: [Option<usize>; 3] = core::array::from_fn(|_| take(&mut progress, &log));
    assert_eq!(sent, [Some(4), Some(4), None]);
    progress.acknowledge(index(6), &log);
    assert_eq!(take(&mut progress, &log), Some(2));
}

/// In etcd a counter of bytes in flight survived the change of state, and the stream stalled.
#[test]
fn the_window_is_empty_again_after_a_probe() {
    let log = log(&[1; 20]);
    let mut progress = new(&log);
    progress.next = index(1);
    progress.state = State::Replicate;
    for _ in 0..10 {
        while take(&mut progress, &log).is_some() {}
        let previous = progress.previous();
        assert!(progress.refute(previous, EntryId::ZERO, &log));
        assert_eq!(progress.next, index(1));
        assert_eq!(take(&mut progress, &log), Some(4));
        progress.state = State::Replicate;
    }
}

#[test]
fn a_probe_without_entries_needs_no_more_than_a_match() {
    let mut log = log(&[1; 9]);
    let mut progress = new(&log);
    assert_eq!(take(&mut progress, &log), Some(0));
    // Something is proposed while the probe is on its way.
    let id = EntryId::new(Term::new(1), index(10));
    log.push(Entry { id, stamp: LeaseTime::ZERO, payload: Payload::Empty });
    progress.acknowledge(index(9), &log);
    assert!(matches!(progress.state, State::Replicate));
}

/// The logs agree before the entries of the probe, and none of them arrived.
#[test]
fn a_probe_whose_entries_are_not_taken_is_sent_again_alone() {
    let log = log(&[1; 20]);
    let mut progress = new(&log);
    progress.next = index(6);
    for _ in 0..3 {
        assert_eq!(take(&mut progress, &log), Some(4));
        assert_eq!(take(&mut progress, &log), None);
        progress.acknowledge(index(5), &log);
        assert!(matches!(progress.state, State::Probe { .. }));
    }
    progress.acknowledge(index(6), &log);
    assert!(matches!(progress.state, State::Replicate));
    assert_eq!(progress.next, index(7));
}

#[test]
fn a_conflict_from_before_the_probe_changes_nothing() {
    let log = log(&[1; 9]);
    let mut progress = new(&log);
    assert!(progress.refute(index(7), EntryId::new(Term::new(1), index(2)), &log));
    assert_eq!(progress.previous(), index(9));
    assert!(progress.refute(index(9), EntryId::new(Term::new(1), index(2)), &log));
    assert_eq!(progress.previous(), index(2));
}

#[test]
fn a_late_conflict_does_not_undo_what_matched() {
    let log = log(&[1; 9]);
    let mut progress = new(&log);
    assert_eq!(take(&mut progress, &log), Some(0));
    progress.acknowledge(index(9), &log);
    assert!(progress.refute(index(8), EntryId::ZERO, &log));
    assert!(progress.refute(index(9), EntryId::ZERO, &log));
    assert_eq!((progress.matched(), progress.previous()), (index(9), index(9)));
    assert!(matches!(progress.state, State::Replicate));
}

#[test]
fn an_acknowledgement_from_before_the_probe_does_not_answer_it() {
    let log = log(&[1; 9]);
    let mut progress = new(&log);
    progress.acknowledge(index(3), &log);
    assert!(matches!(progress.state, State::Probe { .. }));
    assert_eq!((progress.matched(), progress.previous()), (index(3), index(9)));
}

/// A follower that answers a probe with the very entry that it refuses would be asked for ever.
#[test]
fn a_conflict_without_progress_is_refused() {
    let log = log(&[1; 9]);
    let mut progress = new(&log);
    assert!(!progress.refute(index(9), EntryId::new(Term::new(1), index(9)), &log));
}

#[test]
fn a_compacted_entry_needs_a_snapshot() {
    let mut log = log(&[1; 9]);
    let mut progress = new(&log);
    assert!(!progress.needs_snapshot(&log));
    log.compact_through(index(5));
    assert!(progress.refute(index(9), EntryId::new(Term::new(1), index(2)), &log));
    assert!(progress.needs_snapshot(&log));
    assert_eq!(take(&mut progress, &log), None);
}

#[test]
fn an_older_snapshot_that_reaches_the_log_is_enough() {
    let mut log = log(&[1; 9]);
    log.compact_through(index(5));
    let mut progress = new(&log);
    progress.send_snapshot(&snapshot(b"data"), true, Time::ZERO);
    progress.acknowledge(index(4), &log);
    assert!(matches!(progress.state, State::Snapshot(_)));
    progress.acknowledge(index(5), &log);
    assert!(matches!(progress.state, State::Probe { .. }));
    assert_eq!(progress.previous(), index(5));
}

fn sending(progress: &mut Progress) -> &mut Sending {
    match &mut progress.state {
        State::Snapshot(sending) => sending,
        State::Probe { .. } | State::Replicate => panic!("no snapshot is being sent"),
    }
}

fn piece(progress: &mut Progress, now: Time) -> Option<(u64, usize)> {
    let install = sending(progress).take_piece(Term::new(1), now, 4);
    install.map(|install| (install.offset, install.piece.len()))
}

#[test]
fn pieces_go_one_by_one() {
    let log = log(&[1; 9]);
    let mut progress = new(&log);
    progress.send_snapshot(&snapshot(b"ten bytes!"), true, Time::ZERO);
    assert_eq!(piece(&mut progress, Time::ZERO), Some((0, 4)));
    assert_eq!(piece(&mut progress, Time::ZERO), None);
    assert!(sending(&mut progress).received(4));
    assert_eq!(piece(&mut progress, Time::ZERO), Some((4, 4)));
    assert!(sending(&mut progress).received(8));
    assert_eq!(piece(&mut progress, Time::ZERO), Some((8, 2)));
    assert!(sending(&mut progress).received(10));
    assert_eq!(piece(&mut progress, Time::ZERO), Some((10, 0)));
    assert!(!sending(&mut progress).received(11));
}

/// Else every duplicate of an answer would be answered with a piece, and that with a duplicate.
#[test]
fn an_answer_that_brings_nothing_new_triggers_nothing() {
    let log = log(&[1; 9]);
    let mut progress = new(&log);
    progress.send_snapshot(&snapshot(b"ten bytes!"), true, Time::ZERO);
    assert_eq!(piece(&mut progress, Time::ZERO), Some((0, 4)));
    assert!(sending(&mut progress).received(0));
    assert_eq!(piece(&mut progress, Time::ZERO), None);
    let patience = Duration::from_secs(1);
    sending(&mut progress).repeat(Time::from_micros(999_999), patience);
    assert_eq!(piece(&mut progress, Time::ZERO), None);
    sending(&mut progress).repeat(Time::from_micros(1_000_000), patience);
    assert_eq!(piece(&mut progress, Time::ZERO), Some((0, 4)));
}

#[test]
fn the_description_has_the_checksum_of_the_data() {
    let log = log(&[1; 9]);
    let mut progress = new(&log);
    progress.send_snapshot(&snapshot(b"data"), true, Time::ZERO);
    assert_eq!(sending(&mut progress).meta.checksum, Checksum::of(b"data"));
}

/// What a follower answers to a probe at `previous`, given its whole log.
fn hint(follower: &Log, previous: EntryId) -> Option<EntryId> {
    if follower.contains(previous) {
        return None;
    }
    follower.last_within(previous)
}

fn terms() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(0..3u64, 0..12).prop_map(|steps| {
        let mut term = 1;
        steps
            .iter()
            .map(|step| {
                term += step;
                term
            })
            .collect()
    })
}

proptest! {
    /// A search for the common part of two logs takes at most one probe for each term in which
    /// they differ, and one more.
    #[test]
    fn one_probe_for_each_differing_term(common in terms(), own in terms(), other in terms()) {
        // Two logs with a common beginning and then entries of different leaders: odd and even.
        let start = common.last().copied().unwrap_or(0);
        let tail = |terms: &[u64], parity: u64| {
            terms.iter().map(|term| 2 * (start + term) + parity).collect::<Vec<u64>>()
        };
        let common: Vec<u64> = common.iter().map(|term| 2 * term).collect();
        let leader = log(&[&common[..], &tail(&own, 1)[..]].concat());
        let follower = log(&[&common[..], &tail(&other, 2)[..]].concat());
        let mut differing = [tail(&own, 1), tail(&other, 2)].concat();
        differing.sort_unstable();
        differing.dedup();

        let mut progress = new(&leader);
        let mut probes = 1;
        while let Some(hint) = hint(&follower, leader.id(progress.previous()).expect("its own")) {
            prop_assert!(progress.refute(progress.previous(), hint, &leader));
            progress.check_invariants(&leader);
            probes += 1;
        }
        prop_assert_eq!(progress.previous().value(), common.len() as u64);
        prop_assert!(probes <= differing.len() + 1, "{} probes for {:?}", probes, differing);
    }

    /// Whatever the answers are, true or not, the view stays within the log and its window.
    #[test]
    fn no_answer_breaks_the_view(
        answers in prop::collection::vec((0..4u8, 0..25u64, 0..5u64, 0..25u64), 0..60),
    ) {
        let mut log = log(&[1, 1, 1, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4]);
        log.compact_through(index(3));
        let mut progress = new(&log);
        for (kind, at, term, hint) in answers {
            let at = index(at).min(log.last_index());
            match kind {
                0 => progress.acknowledge(at, &log),
                1 => drop(progress.refute(at, EntryId::new(Term::new(term), index(hint)), &log)),
                _ => while take(&mut progress, &log).is_some() {},
            }
            progress.check_invariants(&log);
            let in_flight = progress.previous().since(progress.matched().max(log.base().index));
            let is_stream = matches!(progress.state, State::Replicate);
            prop_assert!(!is_stream || in_flight <= 8, "{} entries in flight", in_flight);
        }
    }
}
