//! Sessions, limits, histories and encodings.

use super::*;

#[test]
fn an_empty_append_creates_its_file() {
    let mut story = Story::new();
    let mut a = story.open(1);
    story.ask(&mut a, acquire("l"));
    story.ask(&mut a, append_under("l", 2, append("f", "")));
    assert_eq!(story.file("f").map(|file| (file.guard, file.length)), Some((name("l"), 0)));
    assert_eq!(story.applied.effects.first().map(|effect| effect.offset), Some(0));
}

#[test]
fn a_session_is_opened_once_for_its_nonce() {
    let mut story = Story::new();
    let first = story.open(7);
    story.now = 9000;
    assert_eq!(story.open(7).session, first.session);
    story.wait(9999);
    assert!(story.table.has_session(first.session), "the repeated opening renewed the lease");
    story.wait(1);
    assert!(!story.table.has_session(first.session));
    assert!(story.open(7).session > first.session, "an id is never used again");
}

#[test]
fn only_keep_alives_renew_a_lease() {
    let mut story = Story::new();
    let mut a = story.open(1);
    story.now = 9000;
    story.ask(&mut a, acquire("l"));
    let notice = story.keep_alive(a.session, Acked::default(), 0).clone();
    let Notice::KeptAlive { result: Ok(news), .. } = notice else { panic!("kept alive") };
    assert_eq!(news.outcomes, vec![(Sequence::new(1), granted(2, None))]);
    story.ask(&mut a, acquire("m"));
    story.wait(10_000);
    assert!(!story.table.has_session(a.session));
    let unknown = Notice::KeptAlive { session: a.session, result: Err(Rejection::SessionUnknown) };
    assert_eq!(*story.keep_alive(a.session, Acked::default(), 0), unknown);
}

#[test]
fn closing_releases_in_the_order_of_names() {
    let mut story = Story::new();
    let [mut a, mut b] = [1, 2].map(|nonce| story.open(nonce));
    for lock in ["z", "m", "b"] {
        story.ask(&mut a, acquire(lock));
        story.ask(&mut b, acquire(lock));
    }
    assert_eq!(story.ask(&mut a, Op::CloseSession), Some(Ok(Done::SessionClosed)));
    let holders = ["b", "m", "z"].map(|lock| story.holder(lock));
    assert_eq!(holders, [9, 10, 11].map(|token| Some((b.session, token))));
    let mut c = story.open(3);
    assert_eq!(story.ask(&mut c, acquire("n")), Some(granted(12, None)), "tokens go on");
}

#[test]
fn mass_expiry_is_spread_over_entries() {
    let limits = Limits { expiries_per_entry_max: 2, sessions_max: 5, ..Limits::default() };
    let mut story = Story::with(limits);
    let sessions = [1, 2, 3, 4, 5].map(|nonce| story.open(nonce).session);
    story.wait(10_000);
    assert_eq!(story.table.counts().sessions, 3);
    assert!(story.table.next_due() <= Some(story.table.now()));
    story.keep_alive(sessions[4], Acked::default(), 0);
    assert_eq!(story.table.counts().sessions, 1, "a renewal before the end voids it");
}

#[test]
fn limits_refuse() {
    let limits = Limits {
        sessions_max: 3,
        locks_max: 1,
        waiters_per_lock_max: 1,
        appends_per_request_max: 1,
        ..Limits::default()
    };
    let mut story = Story::with(limits);
    let [mut a, mut b, mut c] = [1, 2, 3].map(|nonce| story.open(nonce));
    let open = |lease| {
        let (nonce, label) = (ClientNonce(9, 9), Label::default());
        Some(Command::OpenSession { nonce, label, lease })
    };
    story.apply(open(LEASE));
    let result = Err(Rejection::TooManySessions);
    assert_eq!(story.applied.notices, [Notice::Opened { nonce: ClientNonce(9, 9), result }]);
    story.apply(open(Duration::from_secs(1)));
    let refused = |notice: &Notice| {
        matches!(notice, Notice::Opened { result: Err(Rejection::LeaseOutOfRange { .. }), .. })
    };
    assert!(story.applied.notices.iter().all(refused));
    story.ask(&mut a, acquire("l"));
    assert_eq!(story.ask(&mut a, acquire("m")), Some(Err(Rejection::TooManyLocks)));
    assert_eq!(story.ask(&mut b, acquire("l")), None);
    assert_eq!(story.ask(&mut c, acquire("l")), Some(Err(Rejection::TooManyWaiters)));
    let many = vec![append("f", ""), append("f", "")];
    let refused = Err(Rejection::TooManyAppends { appends_max: 1 });
    assert_eq!(story.ask(&mut c, section("x", many)), Some(refused));
    assert_eq!(story.table.counts().locks, 1);
}

#[test]
fn history_forgets_the_oldest_ends() {
    for (per_lock, all, remembered) in [(2, 3, 2), (9, 1, 1), (0, 5, 0), (5, 0, 0)] {
        let limits =
            Limits { history_per_lock_max: per_lock, history_max: all, ..Limits::default() };
        let mut story = Story::with(limits);
        let mut a = story.open(1);
        for _ in 0..3 {
            story.ask(&mut a, section("m", vec![]));
            story.ask(&mut a, section("l", vec![]));
        }
        let answer = story.table.answer(&Query::History { lock: name("l") });
        let Answer::History(past) = answer else { panic!("not a history") };
        assert_eq!(past.len(), remembered);
        assert!(past.iter().all(|past| past.cause == EndCause::Released));
    }
}

#[test]
fn a_lock_is_forgotten_between_its_freeing_and_its_turn() {
    let mut story = Story::with(Limits { history_max: 1, ..Limits::default() });
    let [mut a, mut b, mut c] = [1, 2, 3].map(|nonce| story.open(nonce));
    story.ask(&mut a, hold_for("l", 100));
    story.ask(&mut a, hold_for("m", 100));
    story.ask(&mut b, section("l", vec![]));
    story.ask(&mut c, acquire_for("m", 100));
    // Both holds end, then the wait for m; when the section runs, the history forgets m.
    story.wait(100);
    assert_eq!(story.outcome(c.session, 1), Some(Err(Rejection::TimedOut)));
    let sectioned = Done::Sectioned { token: FencingToken::new(8), offsets: vec![] };
    assert_eq!(story.outcome(b.session, 1), Some(Ok(sectioned)));
    assert_eq!(story.ask(&mut c, acquire("m")), Some(granted(9, None)));
}

#[test]
fn nodes_agree_on_a_disordered_acknowledgement() {
    let mut story = Story::new();
    let mut a = story.open(1);
    for lock in ["l", "m", "n"] {
        story.ask(&mut a, acquire(lock));
    }
    story.keep_alive(a.session, acked(9, &[3, 2, 1]), 0);
    let news = story.table.news(a.session).map(|news| news.outcomes);
    assert_eq!(news, Some(vec![(Sequence::new(3), granted(4, None))]));
    story.keep_alive(a.session, acked(9, &[]), 0);
    assert_eq!(story.table.counts().pending_bytes, 0);
    assert_eq!(story.ask(&mut a, acquire("o")), Some(granted(7, None)), "4 is the next");
}

#[test]
fn locks_are_listed_by_prefix_and_page() {
    let mut story = Story::new();
    let mut a = story.open(1);
    for lock in ["a", "jobs/1", "jobs/2", "jobs/3", "jobsite", "z"] {
        story.ask(&mut a, acquire(lock));
    }
    let list = |prefix: &str, after: Option<&str>| {
        let prefix = Text::new(prefix).expect("a valid text");
        let answer = story.table.answer(&Query::Locks { prefix, after: after.map(name) });
        let Answer::Locks(locks) = answer else { panic!("not a list: {answer:?}") };
        locks.iter().map(|lock| lock.lock.as_str().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(list("jobs/", None), ["jobs/1", "jobs/2", "jobs/3"]);
    assert_eq!(list("jobs/", Some("a")), ["jobs/1", "jobs/2", "jobs/3"]);
    assert_eq!(list("jobs/", Some("jobs/2")), ["jobs/3"]);
    assert_eq!(list("jobs/", Some("z")), [""; 0]);
    assert_eq!(list("", Some("jobs/3")), ["jobsite", "z"]);
}

#[test]
#[should_panic(expected = "entry 1 is applied after entry 1")]
fn an_entry_is_not_applied_twice() {
    let mut story = Story::new();
    story.wait(1);
    story.table.apply(LogIndex::new(1), LeaseTime::ZERO, None, &mut story.applied);
}

#[test]
fn damaged_bytes_are_refused() {
    let mut story = Story::new();
    let [mut a, mut b] = [1, 2].map(|nonce| story.open(nonce));
    story.ask(&mut a, hold_for("l", 900));
    story.ask(&mut a, append_under("l", 3, append("f", "bytes")));
    story.ask(&mut b, section("l", vec![append("f", "more")]));
    story.ask(&mut b, section("m", vec![]));
    let bytes = story.table.encode();
    assert_eq!(LockTable::decode(&bytes[..bytes.len() - 1]), Err(DecodeError::Malformed));
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1 << bit;
            // Some damage gives another valid table; none may panic, or pass for the same one.
            if let Ok(table) = LockTable::decode(&damaged) {
                assert_ne!(table.digest(), story.table.digest());
                table.check_invariants();
            }
        }
    }
}

#[test]
fn commands_survive_their_encoding() {
    let session = SessionId::new(3);
    let sequence = Sequence::new(9);
    let op = section("l", vec![append("f", "bytes")]);
    let submit = Command::Submit(Submission { session, sequence, acked: acked(4, &[2]), op });
    let keep_alive = KeepAlive { session, acked: acked(1, &[]), losses_seen: LogIndex::new(8) };
    for command in [submit, Command::KeepAlive(vec![keep_alive])] {
        assert_eq!(codec::decode(&codec::encode(&command)), Ok(command));
    }
}
