//! Grants, queues, losses and sections.

use super::*;

#[test]
fn a_token_is_the_index_of_its_grant() {
    let mut story = Story::new();
    let mut a = story.open(1);
    assert_eq!(story.ask(&mut a, acquire("l")), Some(granted(2, None)));
    assert_eq!(story.ask(&mut a, acquire("l")), Some(granted(2, None)), "held already");
    let released = Ok(Done::Released { offsets: vec![] });
    assert_eq!(story.ask(&mut a, release("l", 2, vec![])), Some(released));
    assert_eq!(story.table.counts().locks, 0);
    assert_eq!(story.ask(&mut a, acquire("l")), Some(granted(5, Some(2))));
}

#[test]
fn a_paused_holder_cannot_write() {
    let mut story = Story::new();
    let mut a = story.open(1);
    story.now = 8000;
    let mut b = story.open(2);
    assert_eq!(story.ask(&mut a, acquire("l")), Some(granted(3, None)));
    assert_eq!(story.ask(&mut b, acquire("l")), None);
    story.wait(3000);
    assert_eq!(story.outcome(b.session, 1), Some(granted(5, Some(3))));
    let late = story.ask(&mut a, append_under("l", 3, append("f", "late")));
    assert_eq!(late, Some(Err(Rejection::SessionUnknown)));
    let stale = story.ask(&mut b, append_under("l", 3, append("f", "stale")));
    assert_eq!(stale, Some(not_holder(Some(5))));
    assert_eq!(story.file("f"), None);
    let fresh = story.ask(&mut b, append_under("l", 5, append("f", "fresh")));
    assert_eq!(fresh, Some(Ok(Done::Appended { offset: 0 })));
    assert_eq!(story.applied.effects.len(), 1);
}

#[test]
fn waiters_are_granted_in_the_order_of_arrival() {
    let mut story = Story::new();
    let [mut a, mut b, mut c] = [1, 2, 3].map(|nonce| story.open(nonce));
    story.ask(&mut a, acquire("l"));
    story.ask(&mut c, acquire("l"));
    story.ask(&mut b, acquire("l"));
    assert_eq!(story.ask(&mut b, acquire("l")), Some(Err(Rejection::AlreadyWaiting)));
    story.ask(&mut a, release("l", 4, vec![]));
    assert_eq!(story.outcome(c.session, 1), Some(granted(8, Some(4))));
    story.ask(&mut c, release("l", 8, vec![]));
    assert_eq!(story.outcome(b.session, 1), Some(granted(9, Some(8))));
}

#[test]
fn a_late_release_does_not_hit_the_next_holder() {
    let mut story = Story::new();
    let [mut a, mut b] = [1, 2].map(|nonce| story.open(nonce));
    story.ask(&mut a, acquire("l"));
    story.ask(&mut b, acquire("l"));
    story.ask(&mut a, release("l", 3, vec![]));
    assert_eq!(story.ask(&mut a, release("l", 3, vec![])), Some(not_holder(Some(5))));
    assert_eq!(story.ask(&mut a, release("l", 5, vec![])), Some(not_holder(Some(5))));
    assert_eq!(story.holder("l"), Some((b.session, 5)));
}

#[test]
fn a_dead_session_is_never_granted() {
    let mut story = Story::new();
    let mut b = story.open(2);
    story.now = 5000;
    let [mut a, mut c] = [1, 3].map(|nonce| story.open(nonce));
    story.ask(&mut a, acquire("l"));
    story.ask(&mut b, acquire("l"));
    story.ask(&mut c, acquire("l"));
    story.wait(5000);
    let ended = Notice::SessionEnded { session: b.session, cause: SessionEnd::Expired };
    assert_eq!(story.applied.notices, vec![ended], "told while the holder stays");
    story.ask(&mut a, release("l", 4, vec![]));
    assert_eq!(story.holder("l"), Some((c.session, 8)));
}

#[test]
fn who_expires_with_the_same_entry_is_not_granted_either() {
    let mut story = Story::new();
    let [mut a, mut b] = [1, 2].map(|nonce| story.open(nonce));
    story.ask(&mut a, hold_for("l", 1000));
    story.ask(&mut b, acquire("l"));
    story.wait(60_000);
    let grants = |event: &LockEvent| matches!(event, LockEvent::Granted { .. });
    assert!(!story.applied.events.iter().any(grants));
    assert_eq!(story.table.counts().sessions, 0);
    assert_eq!(story.table.next_due(), None);
}

#[test]
fn a_repeated_request_gets_its_first_outcome() {
    let mut story = Story::new();
    let mut a = story.open(1);
    story.ask(&mut a, acquire("l"));
    let op = append_under("l", 2, append("f", "once"));
    let first = story.ask(&mut a, op.clone());
    let digest = story.file("f");
    assert_eq!(story.submit(a.session, 2, Acked::default(), op.clone()), first);
    assert_eq!((story.file("f"), story.applied.effects.len()), (digest, 0));
    let evicted = story.submit(a.session, 2, acked(2, &[]), op.clone());
    assert_eq!(evicted, Some(Err(Rejection::ResultEvicted)));
    let expected = Rejection::OutOfOrder { expected: Sequence::new(3) };
    assert_eq!(story.submit(a.session, 4, Acked::default(), op), Some(Err(expected)));
    let zero = story.submit(a.session, 0, Acked::default(), Op::CloseSession);
    assert_eq!(zero, Some(Err(Rejection::ResultEvicted)));
}

#[test]
fn a_repeated_waiting_request_keeps_its_one_place() {
    let mut story = Story::new();
    let [mut a, mut b] = [1, 2].map(|nonce| story.open(nonce));
    story.ask(&mut a, acquire("l"));
    assert_eq!(story.ask(&mut b, acquire("l")), None);
    assert_eq!(story.submit(b.session, 1, acked(9, &[]), acquire("l")), None);
    assert_eq!(story.table.counts().waiters, 1);
    story.ask(&mut a, release("l", 3, vec![]));
    let outcome = story.outcome(b.session, 1);
    assert_eq!(outcome, Some(granted(6, Some(3))));
    assert_eq!(story.submit(b.session, 1, Acked::default(), acquire("l")), outcome);
}

#[test]
fn a_full_window_does_not_use_up_the_number() {
    let mut story = Story::with(Limits { window_max: 2, ..Limits::default() });
    let mut a = story.open(1);
    story.ask(&mut a, acquire("l"));
    story.ask(&mut a, acquire("m"));
    let third = story.submit(a.session, 3, Acked::default(), acquire("n"));
    assert_eq!(third, Some(Err(Rejection::WindowFull)));
    let third = story.submit(a.session, 3, acked(2, &[1]), acquire("n"));
    assert_eq!(third, Some(granted(5, None)));
    let first = story.submit(a.session, 1, Acked::default(), acquire("l"));
    assert_eq!(first, Some(granted(2, None)), "excepted from the acknowledgement");
}

#[test]
fn pending_bytes_leave_room_for_those_who_end_waits() {
    let limits = Limits { pending_bytes_max: 290, append_bytes_max: 290, ..Limits::default() };
    let mut story = Story::with(limits);
    let [mut a, mut b] = [1, 2].map(|nonce| story.open(nonce));
    story.ask(&mut a, acquire("l"));
    story.ask(&mut b, section("l", vec![append("f", "0123456789"), append("g", "0123456789")]));
    story.ask(&mut b, acquire("m"));
    story.ask(&mut b, acquire("n"));
    assert_eq!(story.ask(&mut b, acquire("o")), Some(Err(Rejection::TooManyPendingBytes)));
    let released = story.ask(&mut a, release("l", 3, vec![]));
    assert_eq!(released, Some(Ok(Done::Released { offsets: vec![] })));
}

#[test]
fn lack_of_room_does_not_hold_up_the_release_behind_it() {
    let limits = Limits { pending_bytes_max: 147, append_bytes_max: 147, ..Limits::default() };
    let mut story = Story::with(limits);
    let [mut a, mut b] = [1, 2].map(|nonce| story.open(nonce));
    story.ask(&mut a, acquire("l"));
    assert_eq!(story.ask(&mut b, section("l", vec![append("f", "0123456789")])), None);
    assert_eq!(story.table.counts().pending_bytes, 147, "the section fills what there is");
    // Both are on their way before either is answered.
    let no_room = Some(Err(Rejection::TooManyPendingBytes));
    let attempt = Op::Acquire { lock: name("m"), wait: Wait::Try, max_hold: None };
    assert_eq!(story.ask(&mut a, attempt.clone()), no_room);
    let released = story.ask(&mut a, release("l", 3, vec![]));
    assert_eq!(released, Some(Ok(Done::Released { offsets: vec![] })));
    let sectioned = Done::Sectioned { token: FencingToken::new(6), offsets: vec![0] };
    assert_eq!(story.outcome(b.session, 1), Some(Ok(sectioned)));
    assert_eq!(story.submit(a.session, 2, Acked::default(), attempt), no_room, "as was decided");
}

#[test]
fn what_waits_leaves_room_for_the_outcomes_that_end_it() {
    let limits = Limits { pending_bytes_max: 200, append_bytes_max: 200, ..Limits::default() };
    let mut story = Story::with(limits);
    let [mut a, mut b, mut c] = [1, 2, 3].map(|nonce| story.open(nonce));
    story.ask(&mut a, acquire("l"));
    story.keep_alive(a.session, acked(1, &[]), 0);
    let large = || section("l", vec![append("f", "0123456789"), append("f", "0123456789")]);
    assert_eq!(story.ask(&mut b, large()), None);
    let second = story.ask(&mut c, large());
    assert_eq!(second, Some(Err(Rejection::TooManyPendingBytes)), "two are above the limit");
    let attempt = Op::Section { lock: name("l"), wait: Wait::Try, appends: vec![] };
    assert_eq!(story.ask(&mut c, attempt), Some(Err(Rejection::NotObtained)));
    // Now all is used up, but for what may be acknowledged.
    while story.table.counts().pending_bytes < 400 {
        story.ask(&mut c, release("l", 1, vec![]));
    }
    let full = story.submit(a.session, 2, Acked::default(), release("l", 4, vec![]));
    assert_eq!(full, Some(Err(Rejection::WindowFull)));
    story.keep_alive(c.session, acked(c.requests, &[]), 0);
    let released = story.submit(a.session, 2, Acked::default(), release("l", 4, vec![]));
    assert_eq!(released, Some(Ok(Done::Released { offsets: vec![] })));
    assert!(matches!(story.outcome(b.session, 1), Some(Ok(Done::Sectioned { .. }))));
}

#[test]
fn grant_and_cancel_have_one_winner() {
    let mut story = Story::new();
    let [mut a, mut b] = [1, 2].map(|nonce| story.open(nonce));
    story.ask(&mut a, acquire("l"));
    story.ask(&mut b, acquire("l"));
    let cancel = Op::Cancel { waiting: Sequence::new(1) };
    assert_eq!(story.ask(&mut b, cancel.clone()), Some(Ok(Done::Cancelled)));
    assert_eq!(story.outcome(b.session, 1), Some(Err(Rejection::Cancelled)));
    assert_eq!(story.ask(&mut b, cancel), Some(Err(Rejection::NotWaiting)));
    story.ask(&mut b, acquire("l"));
    story.ask(&mut a, release("l", 3, vec![]));
    assert_eq!(story.holder("l"), Some((b.session, 8)));
    let cancel = Op::Cancel { waiting: Sequence::new(4) };
    assert_eq!(story.ask(&mut b, cancel), Some(Err(Rejection::NotWaiting)));
    assert_eq!(story.holder("l"), Some((b.session, 8)));
}

#[test]
fn a_wait_ends_on_the_replicated_clock() {
    let mut story = Story::new();
    let [mut a, mut b] = [1, 2].map(|nonce| story.open(nonce));
    story.ask(&mut a, acquire("l"));
    assert_eq!(story.ask(&mut b, acquire_for("l", 0)), Some(Err(Rejection::NotObtained)));
    assert_eq!(story.ask(&mut b, acquire_for("l", 500)), None);
    assert_eq!(story.table.next_due(), Some(LeaseTime::from_micros(500_000)));
    story.wait(499);
    assert_eq!(story.outcome(b.session, 2), None);
    story.wait(1);
    assert_eq!(story.outcome(b.session, 2), Some(Err(Rejection::TimedOut)));
    assert_eq!(story.table.counts().waiters, 0);
    story.now = 0;
    story.apply(None);
    assert_eq!(story.table.now(), LeaseTime::from_micros(500_000), "time does not go back");
}

#[test]
fn a_lock_that_is_held_too_long_is_taken_back() {
    let mut story = Story::new();
    let [mut a, mut b] = [1, 2].map(|nonce| story.open(nonce));
    story.ask(&mut a, hold_for("l", 100));
    story.ask(&mut a, hold_for("m", 100));
    story.ask(&mut b, acquire("l"));
    story.wait(100);
    let loss = |lock, token| Loss {
        lock: name(lock),
        token: FencingToken::new(token),
        index: LogIndex::new(6),
        cause: EndCause::HoldTimedOut,
    };
    let losses = vec![loss("l", 3), loss("m", 4)];
    let lost = |loss: &Loss| Notice::Lost { session: a.session, loss: loss.clone() };
    assert!(losses.iter().all(|loss| story.applied.notices.contains(&lost(loss))));
    assert_eq!(story.holder("l"), Some((b.session, 6)));
    assert_eq!(story.ask(&mut a, release("l", 3, vec![])), Some(not_holder(Some(6))));
    let news = story.table.news(a.session).map(|news| news.losses);
    assert_eq!(news, Some(losses));
    story.keep_alive(a.session, Acked::default(), 6);
    assert_eq!(story.table.news(a.session).map(|news| news.losses), Some(vec![]));
}

#[test]
fn a_break_names_the_hold_that_it_ends() {
    let mut story = Story::new();
    let [mut a, mut admin] = [1, 2].map(|nonce| story.open(nonce));
    story.ask(&mut a, acquire("l"));
    assert_eq!(story.ask(&mut admin, break_hold("l", 2)), Some(not_holder(Some(3))));
    assert_eq!(story.ask(&mut admin, break_hold("l", 3)), Some(Ok(Done::Broken)));
    assert_eq!(story.ask(&mut admin, break_hold("l", 3)), Some(not_holder(None)));
    let Some(news) = story.table.news(a.session) else { panic!("the session lives on") };
    let causes: Vec<_> = news.losses.into_iter().map(|loss| loss.cause).collect();
    assert!(matches!(causes.as_slice(), [EndCause::Broken { .. }]));
    assert_eq!(story.ask(&mut a, acquire("l")), Some(granted(7, Some(3))));
}

#[test]
fn a_loss_counts_as_a_place_until_it_is_acknowledged() {
    let mut story = Story::with(Limits { places_per_session_max: 1, ..Limits::default() });
    let [mut a, mut admin] = [1, 2].map(|nonce| story.open(nonce));
    story.ask(&mut a, acquire("l"));
    story.ask(&mut admin, break_hold("l", 3));
    assert_eq!(story.ask(&mut a, acquire("l")), Some(Err(Rejection::TooManyPlaces)));
    story.keep_alive(a.session, Acked::default(), 4);
    assert_eq!(story.ask(&mut a, acquire("l")), Some(granted(7, Some(3))));
}

#[test]
fn sections_take_their_turn_one_after_the_other() {
    let mut story = Story::new();
    let [mut a, mut b, mut c, mut d] = [1, 2, 3, 4].map(|nonce| story.open(nonce));
    let create =
        Op::CreateFile { file: FileName::new("g").expect("a valid name"), guard: name("other") };
    assert_eq!(story.ask(&mut a, create), Some(Ok(Done::FileCreated)));
    story.ask(&mut a, acquire("l"));
    assert_eq!(story.ask(&mut b, section("l", vec![append("f", "one")])), None);
    story.ask(&mut c, section("l", vec![append("f", "two"), append("g", "no")]));
    story.ask(&mut b, section("m", vec![append("h", "at once")]));
    story.ask(&mut d, acquire("l"));
    let again = story.ask(&mut a, section("l", vec![]));
    assert_eq!(again, Some(Err(Rejection::AlreadyHeld { token: FencingToken::new(6) })));
    story.ask(&mut a, release("l", 6, vec![append("f", "zero")]));
    let sectioned = Done::Sectioned { token: FencingToken::new(12), offsets: vec![4] };
    assert_eq!(story.outcome(b.session, 1), Some(Ok(sectioned)));
    let wrong = Rejection::WrongGuard { guard: name("other") };
    assert_eq!(story.outcome(c.session, 1), Some(Err(wrong)), "refused as a whole");
    assert_eq!(story.outcome(d.session, 1), Some(granted(13, Some(12))));
    assert_eq!(story.file("f").map(|file| file.length), Some(7));
}

#[test]
fn a_release_with_a_bad_append_changes_nothing() {
    let limits = Limits { files_max: 2, append_bytes_max: 8, ..Limits::default() };
    let mut story = Story::with(limits);
    let mut a = story.open(1);
    story.ask(&mut a, acquire("l"));
    let files = vec![append("f", "1"), append("g", "2"), append("f", "3"), append("h", "4")];
    let refused = story.ask(&mut a, release("l", 2, files));
    assert_eq!(refused, Some(Err(Rejection::TooManyFiles)));
    assert_eq!((story.table.counts().files, story.applied.effects.len()), (0, 0));
    let large = story.ask(&mut a, release("l", 2, vec![append("f", "12345"), append("f", "6789")]));
    assert_eq!(large, Some(Err(Rejection::AppendTooLarge { bytes_max: 8 })));
    assert_eq!(story.holder("l"), Some((a.session, 2)));
    let files = vec![append("f", "1"), append("g", "2"), append("f", "3")];
    let released = story.ask(&mut a, release("l", 2, files));
    assert_eq!(released, Some(Ok(Done::Released { offsets: vec![0, 0, 1] })));
    assert_eq!(story.applied.effects.len(), 3);
}
