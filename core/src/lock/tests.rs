//! Small stories about the lock table. After every entry its invariants are checked, and that its
//! bytes are the table again.

use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use super::*;
use crate::codec::{self, DecodeError};
use crate::ids::{ClientNonce, Sequence};
use crate::message::{
    Acked, Answer, Done, EndCause, FileAppend, KeepAlive, Loss, Op, Opened, Outcome, Query,
    Rejection, SessionEnd, Submission, Wait,
};
use crate::prng::Prng;
use crate::text::{Label, LockName, Text};
use crate::time::Duration;

/// A table and the entries so far.
struct Story {
    table: LockTable,
    applied: Applied,
    /// The stamp of the next entry, in milliseconds.
    now: u64,
}

/// A session and how many requests it has made.
#[derive(Clone, Copy)]
struct Who {
    session: SessionId,
    requests: u64,
}

const TTL: Duration = Duration::from_secs(10);

fn name(text: &str) -> LockName {
    LockName::new(text).expect("a valid name")
}

fn append(file: &str, bytes: &'static str) -> FileAppend {
    let file = FileName::new(file).expect("a valid name");
    FileAppend { file, bytes: Bytes::from_static(bytes.as_bytes()) }
}

fn acquire(lock: &str) -> Op {
    Op::Acquire { lock: name(lock), wait: Wait::Forever, max_hold: None }
}

fn acquire_for(lock: &str, millis: u64) -> Op {
    let wait = Wait::For(Duration::from_millis(millis));
    Op::Acquire { lock: name(lock), wait, max_hold: None }
}

fn hold_for(lock: &str, millis: u64) -> Op {
    let max_hold = Some(Duration::from_millis(millis));
    Op::Acquire { lock: name(lock), wait: Wait::Forever, max_hold }
}

fn release(lock: &str, token: u64, appends: Vec<FileAppend>) -> Op {
    Op::Release { lock: name(lock), token: FencingToken::new(token), appends }
}

fn append_under(lock: &str, token: u64, append: FileAppend) -> Op {
    Op::Append { lock: name(lock), token: FencingToken::new(token), append }
}

fn section(lock: &str, appends: Vec<FileAppend>) -> Op {
    Op::Section { lock: name(lock), wait: Wait::Forever, appends }
}

fn break_hold(lock: &str, token: u64) -> Op {
    let reason = Text::new("stuck").expect("a valid text");
    Op::Break { lock: name(lock), token: FencingToken::new(token), reason }
}

#[expect(clippy::unnecessary_wraps, reason = "compared with outcomes")]
fn granted(token: u64, predecessor: Option<u64>) -> Outcome {
    let predecessor = predecessor.map(FencingToken::new);
    Ok(Done::Granted { token: FencingToken::new(token), predecessor })
}

fn not_holder(current: Option<u64>) -> Outcome {
    Err(Rejection::NotHolder { current: current.map(FencingToken::new) })
}

impl Story {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        Self { table: LockTable::new(limits), applied: Applied::default(), now: 0 }
    }

    /// Applies one entry; what came of it is in `applied`.
    fn apply(&mut self, command: Option<Command>) {
        self.applied.clear();
        let index = self.table.index().next();
        let stamp = LeaseTime::from_micros(self.now * 1000);
        self.table.apply(index, stamp, command, &mut self.applied);
        self.table.check_invariants();
        let bytes = self.table.encode();
        let again = LockTable::decode(&bytes).expect("a table can read its own bytes");
        assert_eq!(again, self.table);
        again.check_invariants();
        assert_eq!(again.next_due(), self.table.next_due());
        assert_eq!(again.counts(), self.table.counts());
    }

    /// Lets time pass with an empty entry.
    fn wait(&mut self, millis: u64) {
        self.now += millis;
        self.apply(None);
    }

    fn open(&mut self, nonce: u64) -> Who {
        self.open_for(nonce, TTL)
    }

    fn open_for(&mut self, nonce: u64, ttl: Duration) -> Who {
        let nonce = ClientNonce(nonce, 0);
        self.apply(Some(Command::OpenSession { nonce, label: Label::default(), ttl }));
        match self.applied.notices.last() {
            Some(Notice::Opened { result: Ok(Opened { session, .. }), .. }) => {
                Who { session: *session, requests: 0 }
            }
            other => panic!("not opened: {other:?}"),
        }
    }

    /// Submits the next request of a session; `None` when it waits.
    fn ask(&mut self, who: &mut Who, op: Op) -> Option<Outcome> {
        who.requests += 1;
        self.submit(who.session, who.requests, Acked::default(), op)
    }

    /// Submits a request by number; its outcome, unless it waits.
    fn submit(&mut self, session: SessionId, number: u64, acked: Acked, op: Op) -> Option<Outcome> {
        let sequence = Sequence::new(number);
        self.apply(Some(Command::Submit(Submission { session, sequence, acked, op })));
        self.outcome(session, number)
    }

    /// What the last entry decided on a request.
    fn outcome(&self, session: SessionId, number: u64) -> Option<Outcome> {
        let mut outcomes = self.applied.notices.iter().filter_map(|notice| match notice {
            Notice::Submitted { session: of, sequence, outcome }
                if *of == session && sequence.value() == number =>
            {
                Some(outcome.clone())
            }
            Notice::Opened { .. }
            | Notice::KeptAlive { .. }
            | Notice::Submitted { .. }
            | Notice::Lost { .. }
            | Notice::SessionEnded { .. } => None,
        });
        outcomes.next()
    }

    fn keep_alive(&mut self, session: SessionId, acked: Acked, seen: u64) -> &Notice {
        let losses_seen = LogIndex::new(seen);
        self.apply(Some(Command::KeepAlive(vec![KeepAlive { session, acked, losses_seen }])));
        self.applied.notices.last().expect("a keep-alive is answered")
    }

    fn holder(&self, lock: &str) -> Option<(SessionId, u64)> {
        let answer = self.table.answer(&Query::Lock { lock: name(lock) });
        let Answer::Lock(view) = answer else { panic!("not a lock: {answer:?}") };
        view.holder.map(|holder| (holder.session, holder.token.value()))
    }

    fn file(&self, file: &str) -> Option<FileView> {
        self.table.file(&FileName::new(file).expect("a valid name"))
    }
}

fn acked(through: u64, except: &[u64]) -> Acked {
    let except = except.iter().copied().map(Sequence::new).collect();
    Acked { through: Sequence::new(through), except }
}

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
    assert_eq!(story.ask(&mut b, acquire("o")), Some(Err(Rejection::WindowFull)));
    let released = story.ask(&mut a, release("l", 3, vec![]));
    assert_eq!(released, Some(Ok(Done::Released { offsets: vec![] })));
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
    let open = |ttl| {
        let (nonce, label) = (ClientNonce(9, 9), Label::default());
        Some(Command::OpenSession { nonce, label, ttl })
    };
    story.apply(open(TTL));
    let result = Err(Rejection::TooManySessions);
    assert_eq!(story.applied.notices, [Notice::Opened { nonce: ClientNonce(9, 9), result }]);
    story.apply(open(Duration::from_secs(1)));
    let refused = |notice: &Notice| {
        matches!(notice, Notice::Opened { result: Err(Rejection::TtlOutOfRange { .. }), .. })
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

/// One of these.
fn pick<T: Clone>(prng: &mut Prng, choices: &[T]) -> T {
    let choice = usize::try_from(prng.below(choices.len() as u64));
    choices[choice.expect("an index is below the length")].clone()
}

/// A command of one of a few sessions on a few locks and files, most of it nonsense.
fn random_command(prng: &mut Prng, story: &Story) -> Option<Command> {
    let nonce = ClientNonce(prng.below(6), 0);
    let by_nonce = story.table.sessions.find(nonce).unwrap_or(SessionId::new(prng.below(9)));
    let holder = story.holder(pick(prng, &["a", "b", "c", "d"])).map(|(session, _)| session);
    let session = pick(prng, &[by_nonce, holder.unwrap_or(by_nonce)]);
    let last =
        story.table.sessions.find_by_id(session).map_or(0, |open| open.window.last().value());
    let acked = acked(last.saturating_sub(prng.below(5)), &[prng.below(last + 1)]);
    match prng.below(12) {
        0 => None,
        1 | 2 => {
            let ttl = Duration::from_millis(1990 + prng.below(9000));
            Some(Command::OpenSession { nonce, label: Label::default(), ttl })
        }
        3 | 4 => {
            let losses_seen = LogIndex::new(prng.below(story.table.index().value() + 1));
            Some(Command::KeepAlive(vec![KeepAlive { session, acked, losses_seen }]))
        }
        _ => {
            // Mostly the next one, else one too far, or one of before.
            let number = pick(prng, &[1, 1, 1, 1, 1, 1, 2, 0]);
            let sequence = Sequence::new(last + number);
            let op = random_op(prng, story, last);
            Some(Command::Submit(Submission { session, sequence, acked, op }))
        }
    }
}

fn random_op(prng: &mut Prng, story: &Story, last: u64) -> Op {
    let lock = pick(prng, &["a", "b", "c", "d"]);
    let file = pick(prng, &["f", "g", "h"]);
    let token = story.holder(lock).map_or(prng.below(9), |(_, token)| token);
    match prng.below(16) {
        0..4 => acquire(lock),
        4 => hold_for(lock, prng.below(500)),
        5 => acquire_for(lock, prng.below(500)),
        6..9 => section(lock, vec![append(file, "bytes"); pick(prng, &[0, 1, 2])]),
        9..12 => release(lock, token, vec![append(file, "more"); pick(prng, &[0, 1])]),
        12 => append_under(lock, token, append(file, "x")),
        13 => Op::Cancel { waiting: Sequence::new(last.saturating_sub(prng.below(4))) },
        14 if prng.below(4) == 0 => Op::CloseSession,
        14 => Op::CreateFile { file: append(file, "").file, guard: name(lock) },
        15 if prng.below(4) == 0 => break_hold(lock, token),
        _ => release(lock, token, vec![]),
    }
}

#[test]
fn no_commands_break_an_invariant() {
    let mut grants = 0;
    for seed in 0..60 {
        let mut prng = Prng::new(seed);
        let limits = Limits {
            sessions_max: 5,
            window_max: 6,
            pending_bytes_max: 1200,
            append_bytes_max: 1200,
            places_per_session_max: 3,
            locks_max: 3,
            waiters_per_lock_max: 3,
            files_max: 2,
            history_per_lock_max: pick(&mut prng, &[0, 1, 2]),
            history_max: pick(&mut prng, &[0, 1, 2, 3]),
            expiries_per_entry_max: 2,
            ..Limits::default()
        };
        let mut story = Story::with(limits);
        for _ in 0..300 {
            story.now += prng.below(150) * prng.below(2);
            let command = random_command(&mut prng, &story);
            story.apply(command);
            let is_grant = |event: &&LockEvent| matches!(event, LockEvent::Granted { .. });
            grants += story.applied.events.iter().filter(is_grant).count();
        }
    }
    assert!(grants > 500, "only {grants} grants: the commands are not worth much");
}
