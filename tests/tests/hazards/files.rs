//! Guarded files, as far as the core decides about them: which bytes go where, and when a snapshot
//! may rely on them. What a disk does to bytes is the host's part, and waits for it.

use quorlock_core::config::Config;
use quorlock_core::ids::LogIndex;
use quorlock_core::message::{Answer, Consistency, Done, FileView, Query, Rejection, Reply};
use quorlock_core::node::Event;
use quorlock_core::text::FileName;
use quorlock_core::time::Duration;
use quorlock_tests::lab::{Lab, TraceEvent};

use crate::tools::{
    acquire, acquire_at_most, append_to, file, granted, hold, lab, lab_with, section,
    snapshots_every,
};

const SECOND: Duration = Duration::from_secs(1);

/// The file `f` on every node that is up.
fn contents(lab: &Lab) -> Vec<String> {
    let up = lab.ids().filter(|n| lab.is_up(*n));
    let content = |n| lab.lab_node(n).file("f").unwrap_or_default().to_vec();
    up.map(|n| String::from_utf8(content(n)).expect("the tests write text")).collect()
}

/// Hazards F1 and F2: a crash after the log was durable and before the file was, and one after the
/// file and before anybody noted it. The same effects come again, at the same offsets.
#[test]
fn effects_come_again_after_a_crash_at_the_same_offsets() {
    for durable in [false, true] {
        let mut lab = lab(3);
        lab.elect(1);
        let session = lab.open(1, "a");
        let token = hold(&mut lab, 1, session, "l");
        lab.hold_effects(2, true);
        for line in ["one\n", "two\n", "three\n"] {
            lab.perform(1, session, append_to("l", token, "f", line));
        }
        if durable {
            lab.effects_durable(2);
        }
        assert_eq!(lab.lab_node(2).durable_file("f").is_some(), durable);
        lab.crash(2);
        lab.restart(2);
        lab.run(SECOND);
        assert_eq!(contents(&lab), ["one\ntwo\nthree\n"; 3], "files durable: {durable}");
    }
}

/// Hazard F3: a crash leaves a part of an append, at every length that it can have.
#[test]
fn a_torn_append_is_completed_at_every_byte() {
    let text = "one\ntwo\nthree\n";
    for length in 0..=text.len() {
        let mut lab = lab(3);
        lab.elect(1);
        let session = lab.open(1, "a");
        let token = hold(&mut lab, 1, session, "l");
        lab.hold_effects(3, true);
        for line in text.split_inclusive('\n') {
            lab.perform(1, session, append_to("l", token, "f", line));
        }
        lab.tear_files(3, length);
        lab.crash(3);
        lab.restart(3);
        lab.run(SECOND);
        assert_eq!(contents(&lab), [text; 3], "torn after {length} bytes");
    }
}

/// Hazards F1 and 14: a snapshot takes the place of the log only when every effect that it covers
/// is durable; nothing would say them again.
#[test]
fn no_snapshot_overtakes_the_files() {
    let mut lab = lab_with(1, snapshots_every(2));
    lab.elect(1);
    let session = lab.open(1, "a");
    let token = hold(&mut lab, 1, session, "l");
    lab.settle();
    lab.hold_effects(1, true);
    let before = lab.lab_node(1).durable().snapshot.last;
    for _ in 0..10 {
        lab.perform(1, session, append_to("l", token, "f", "line\n"));
    }
    let mut crashed = lab.clone();
    crashed.crash(1);
    crashed.restart(1);
    crashed.hold_effects(1, false);
    crashed.elect(1);
    assert_eq!(contents(&crashed), ["line\n".repeat(10)]);
    let held_up = lab.lab_node(1).durable().snapshot.last;
    assert!(held_up.index <= before.index.plus(2), "{held_up} has effects that are not durable");
    lab.hold_effects(1, false);
    lab.settle();
    lab.perform(1, session, append_to("l", token, "f", "line\n"));
    assert!(lab.lab_node(1).durable().snapshot.last > held_up, "now it may");
}

/// Hazard F11: files grow while a follower fetches what a snapshot says of them. It gets the bytes
/// up to the lengths of the snapshot, and the log says the rest.
#[test]
fn appends_go_on_while_a_follower_fetches_files() {
    let mut lab = lab_with(3, snapshots_every(2));
    lab.elect(1);
    let session = lab.open(1, "a");
    let token = hold(&mut lab, 1, session, "l");
    lab.perform(1, session, append_to("l", token, "f", "one\n"));
    lab.run(SECOND);
    lab.isolate(3);
    for line in ["two\n", "three\n", "four\n"] {
        lab.perform(1, session, append_to("l", token, "f", line));
    }
    lab.heal();
    lab.hold_fetches(3, true);
    lab.run(SECOND);
    let missing = lab.lab_node(3).missing().cloned().expect("a snapshot without the files");
    assert_eq!(missing.files.len(), 1);
    assert_eq!(missing.files[0].offset, 4, "only what is missing is fetched");
    for line in ["five\n", "six\n", "seven\n"] {
        lab.perform(1, session, append_to("l", token, "f", line));
    }
    // Once it fails, once the other node is gone in the middle.
    lab.fail_fetch(3);
    lab.run(SECOND);
    lab.crash(2);
    lab.hold_fetches(3, false);
    lab.run(SECOND * 2);
    lab.restart(2);
    lab.run(SECOND);
    assert_eq!(contents(&lab), ["one\ntwo\nthree\nfour\nfive\nsix\nseven\n"; 3]);
}

/// Hazard F10: a crash in the middle of an installation leaves the state of before, or that of after.
#[test]
fn a_crash_while_a_snapshot_arrives_leaves_one_state_or_the_other() {
    let mut lab = lab_with(3, Config { snapshot_piece_bytes: 40, ..snapshots_every(2) });
    lab.elect(1);
    let session = lab.open(1, "a");
    let token = hold(&mut lab, 1, session, "l");
    lab.isolate(3);
    for _ in 0..4 {
        lab.perform(1, session, append_to("l", token, "f", "line\n"));
    }
    lab.heal();
    lab.record(true);
    lab.hold_writes(3, true);
    let mut arrived = 0;
    for _ in 0..400 {
        let mut crashed = lab.clone();
        crashed.crash(3);
        crashed.restart(3);
        crashed.hold_writes(3, false);
        crashed.run(SECOND * 2);
        assert_eq!(contents(&crashed), ["line\n".repeat(4).as_str(); 3]);
        let pieces = lab.take_trace().into_iter().filter(|event| {
            matches!(event, TraceEvent::Event { event: Event::SnapshotInstalled { .. }, .. })
        });
        arrived += pieces.count();
        if arrived > 0 && lab.mail().is_empty() {
            break;
        }
        if lab.mail().is_empty() {
            lab.timeout(1);
        }
        lab.deliver_at(0);
        lab.persist(3);
        lab.fetch(3);
    }
    assert_eq!(arrived, 1, "it was installed in the end");
}

/// Hazard F13: one node's disk is full. What a request comes to does not depend on it: the state and
/// the outcomes are those of everybody.
#[test]
fn outcomes_do_not_depend_on_the_disk_of_one_node() {
    let mut lab = lab(3);
    lab.elect(1);
    let session = lab.open(1, "a");
    let token = hold(&mut lab, 1, session, "l");
    lab.hold_effects(1, true);
    let mut offset = 0;
    for line in ["one\n", "two\n"] {
        let done = lab.perform(1, session, append_to("l", token, "f", line));
        assert_eq!(done, Some(Ok(Done::Appended { offset })), "the leader's own file lags behind");
        offset += line.len() as u64;
    }
    lab.run(Duration::from_millis(100));
    assert_eq!(lab.node(1).digest(), lab.node(3).digest());
}

/// Hazard F14: an append with an old token is refused on every node alike.
#[test]
fn an_append_with_an_old_token_reaches_no_file() {
    let mut lab = lab(3);
    lab.elect(1);
    let (a, b) = (lab.open(1, "a"), lab.open(1, "b"));
    let old = granted(lab.perform(1, a, acquire_at_most("l", SECOND)));
    lab.run(SECOND * 2);
    let new = hold(&mut lab, 1, b, "l");
    let refused = Some(Err(Rejection::NotHolder { current: Some(new) }));
    assert_eq!(lab.perform(1, a, append_to("l", old, "f", "old\n")), refused);
    lab.elect(2);
    assert_eq!(lab.perform(2, a, append_to("l", old, "f", "old\n")), refused);
    assert_eq!(lab.perform(2, a, append_to("l", new, "f", "forged\n")), refused, "nor another's");
    lab.run(SECOND);
    assert_eq!(contents(&lab), [""; 3]);
}

/// Hazard F15: an append that is repeated after the next leader, after a snapshot and after it was
/// forgotten is in the file once.
#[test]
fn a_repeated_append_is_in_the_file_once() {
    let mut lab = lab_with(3, snapshots_every(1));
    lab.elect(1);
    let session = lab.open(1, "a");
    let token = hold(&mut lab, 1, session, "l");
    for number in 2..12 {
        let leader = number % 3 + 1;
        for _ in 0..2 {
            lab.elect(leader);
            let op = append_to("l", token, "f", &format!("{number}\n"));
            lab.submit(leader, session, number, op.clone());
            lab.settle();
            lab.submit(leader, session, number, op);
            lab.settle();
        }
        crate::locks::renew(&mut lab, leader, &[session]);
    }
    lab.run(SECOND);
    let expected = (2..12).map(|number| number.to_string()).collect::<Vec<_>>().join("\n") + "\n";
    assert_eq!(contents(&lab), [expected.as_str(); 3]);
}

/// Hazards F16 and N22: names that would be dangerous as paths, or in a log. A name is data: those
/// that are accepted come back as they were, and those with control characters are not accepted.
#[test]
fn names_are_data() {
    let mut lab = lab(1);
    lab.elect(1);
    let session = lab.open(1, "a");
    let names =
        ["..", "../../etc/passwd", "CON", "nul.txt", "a/../b", "~", "-rf", "a\\b", "\u{202e}x"];
    for (name, count) in names.iter().zip(1..) {
        let done = lab.perform(1, session, section("l", name, "x"));
        assert!(matches!(done, Some(Ok(Done::Sectioned { .. }))), "{name:?}: {done:?}");
        assert_eq!(lab.status(1).counts.files, count);
        assert_eq!(lab.lab_node(1).file(name), Some(&b"x"[..]));
    }
    let same = ["a/b", "A/b", "A/B", "á", "a\u{301}"];
    for name in same {
        lab.perform(1, session, section("l", name, "y"));
        assert_eq!(lab.lab_node(1).file(name), Some(&b"y"[..]), "no two of them are one file");
    }
    let long = "n".repeat(256);
    let escape = "\u{1b}[2J";
    let refused =
        ["", "/etc/passwd", "a/", "a//b", "a\nb", "a\0b", "\u{85}", escape, long.as_str()];
    for name in refused {
        assert!(FileName::new(name).is_err(), "{name:?}");
    }
}

/// Hazard F17: a reader of a file that grows sees what is committed, and never more: not what an old
/// leader has in its log, nor what the file holds beyond the index of the answer.
#[test]
fn a_read_shows_committed_bytes_only() {
    let mut lab = lab(3);
    lab.elect(1);
    let session = lab.open(1, "a");
    let token = hold(&mut lab, 1, session, "l");
    lab.perform(1, session, append_to("l", token, "f", "committed\n"));
    lab.partition(&[1], &[2, 3]);
    lab.submit(1, session, 3, append_to("l", token, "f", "not\n"));
    lab.settle();
    let query = || Query::ReadFile { file: file("f"), offset: 0, length: 100 };
    lab.read(1, 1, query(), Consistency::Stale);
    lab.settle();
    assert_bytes(lab.replies(1), "committed\n");
    lab.elect(2);
    lab.heal();
    lab.run(SECOND);
    lab.submit(2, session, 3, append_to("l", token, "f", "other\n"));
    lab.settle();
    for offset in [0, 10, 11, 16, 17, u64::MAX] {
        let query = Query::ReadFile { file: file("f"), offset, length: u32::MAX };
        lab.read(2, 2, query, Consistency::Linearizable);
        lab.settle();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(16);
        assert_bytes(lab.replies(2), &"committed\nother\n"[start..]);
    }
}

fn assert_bytes(replies: Vec<Reply>, expected: &str) {
    let [Reply::Read { answer: Answer::Bytes { file: Some(file), bytes }, index, .. }] =
        &replies[..]
    else {
        panic!("one answer: {replies:?}");
    };
    let FileView { length, .. } = file;
    assert!(bytes.len() as u64 <= *length && *index > LogIndex::ZERO);
    assert_eq!(std::str::from_utf8(bytes), Ok(expected));
}

/// Hazard F1, with a snapshot: a node has asked for an effect, and before it is durable, a snapshot
/// takes the place of the log that could repeat it. It counts only when the effect is durable, too.
#[test]
fn a_snapshot_is_not_installed_over_effects_that_a_crash_could_take() {
    let config = Config { snapshot_entries: 5, retained_entries: 0, ..Config::default() };
    let mut lab = lab_with(3, config);
    lab.elect(1);
    let session = lab.open(1, "a");
    let token = hold(&mut lab, 1, session, "l");
    lab.hold_effects(3, true);
    lab.perform(1, session, append_to("l", token, "f", "a line\n"));
    lab.run(Duration::from_millis(100));
    assert_eq!(lab.lab_node(3).file("f"), Some(&b"a line\n"[..]), "it is there, not durably");
    lab.isolate(3);
    for _ in 0..10 {
        lab.perform(1, session, acquire("m"));
    }
    let before = lab.status(3).applied;
    lab.heal();
    lab.run(Duration::from_millis(300));
    assert_eq!(lab.status(3).applied, before, "what it got has no files to stand on");
    lab.hold_effects(3, false);
    lab.run(Duration::from_secs(1));
    assert!(lab.status(3).applied > before);
    lab.crash(3);
    lab.restart(3);
    assert_eq!(lab.lab_node(3).file("f"), Some(&b"a line\n"[..]));
}
