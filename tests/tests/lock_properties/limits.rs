//! Every limit is reached, refused by its name, and takes no more than the one request.

use bytes::Bytes;
use quorlock_core::config::Limits;
use quorlock_core::ids::{ClientNonce, FencingToken, LogIndex, Sequence, SessionId};
use quorlock_core::lock::{Command, FILE_BYTES_MAX, LockTable, Notice};
use quorlock_core::message::{
    Acked, Answer, Done, FileAppend, KeepAlive, Op, Outcome, Query, Rejection, Submission, Wait,
};
use quorlock_core::text::{FileName, LockName};
use quorlock_core::time::Duration;

use crate::drive::{Entry, label, text};
use crate::pair::{Pair, apply};

const LEASE: Duration = Duration::from_secs(10);

/// A pair, and some clients that number their requests properly and acknowledge nothing.
struct Script {
    pair: Pair,
}

impl Script {
    fn new(limits: Limits) -> Self {
        Self { pair: Pair::new(&limits) }
    }

    fn run(&mut self, command: Option<Command>) -> Vec<Notice> {
        let entry = self.pair.now(command);
        self.pair.apply(entry).notices
    }

    /// An empty entry, so much later.
    fn pass(&mut self, duration: Duration) -> Vec<Notice> {
        let entry = self.pair.at(self.pair.model.now.after(duration), None);
        self.pair.apply(entry).notices
    }

    fn try_open(&mut self, client: u8, lease: Duration) -> Result<SessionId, Rejection> {
        let nonce = ClientNonce(client.into(), 0);
        let open = Command::OpenSession { nonce, label: label(client), lease };
        let notices = self.run(Some(open));
        match &notices[..] {
            [Notice::Opened { nonce: of, result }] if *of == nonce => {
                result.clone().map(|it| it.session)
            }
            other => panic!("an opening is answered by {other:?}"),
        }
    }

    fn open(&mut self, client: u8) -> SessionId {
        self.try_open(client, LEASE).expect("there is room for this session")
    }

    fn submit(&mut self, session: SessionId, op: Op) -> Option<Outcome> {
        self.submit_acked(session, Acked::default(), op)
    }

    /// The outcome; `None` while the request waits.
    fn submit_acked(&mut self, session: SessionId, acked: Acked, op: Op) -> Option<Outcome> {
        let sequence = self.pair.model.session(session).expect("it is open").last.next();
        let submission = Submission { session, sequence, acked, op };
        let notices = self.run(Some(Command::Submit(submission)));
        notices.into_iter().find_map(|it| match it {
            Notice::Submitted { session: of, sequence: number, outcome }
                if (of, number) == (session, sequence) =>
            {
                Some(outcome)
            }
            Notice::Opened { .. }
            | Notice::KeptAlive { .. }
            | Notice::Submitted { .. }
            | Notice::Lost { .. }
            | Notice::SessionEnded { .. } => None,
        })
    }

    fn keep_alive(&mut self, session: SessionId, losses_seen: LogIndex) {
        let keep_alive = KeepAlive { session, acked: Acked::default(), losses_seen };
        self.run(Some(Command::KeepAlive(vec![keep_alive])));
    }

    /// A keep-alive that acknowledges every outcome so far.
    fn acknowledge(&mut self, session: SessionId) {
        let through = self.pair.model.session(session).expect("it is open").last;
        let acked = Acked { through, except: Vec::new() };
        let keep_alive = KeepAlive { session, acked, losses_seen: LogIndex::ZERO };
        self.run(Some(Command::KeepAlive(vec![keep_alive])));
    }

    fn acquire(&mut self, session: SessionId, lock: &str) -> FencingToken {
        match self.submit(session, acquire(lock)) {
            Some(Ok(Done::Granted { token, .. })) => token,
            other => panic!("{lock} was not granted: {other:?}"),
        }
    }

    fn waits(&mut self, session: SessionId, op: Op) {
        assert_eq!(self.submit(session, op), None, "it is to wait");
    }

    fn history(&self, name: &str) -> usize {
        let Answer::History(past) = self.pair.table.answer(&Query::History { lock: lock(name) })
        else {
            panic!("an answer to another question")
        };
        past.len()
    }
}

fn lock(name: &str) -> LockName {
    LockName::new(name).expect("a proper name")
}

fn append(file: &str, bytes: &[u8]) -> FileAppend {
    let file = FileName::new(file).expect("a proper name");
    FileAppend { file, bytes: Bytes::copy_from_slice(bytes) }
}

fn acquire(name: &str) -> Op {
    Op::Acquire { lock: lock(name), wait: Wait::Forever, max_hold: None }
}

fn section(name: &str, appends: Vec<FileAppend>) -> Op {
    Op::Section { lock: lock(name), wait: Wait::Forever, appends }
}

fn release(name: &str, token: FencingToken, appends: Vec<FileAppend>) -> Op {
    Op::Release { lock: lock(name), token, appends }
}

#[expect(clippy::unnecessary_wraps, reason = "it is compared with what may be `None`")]
fn refused(rejection: Rejection) -> Option<Outcome> {
    Some(Err(rejection))
}

#[test]
fn sessions_max_and_room_again_once_one_is_over() {
    let mut script = Script::new(Limits { sessions_max: 2, ..Limits::default() });
    let first = script.open(0);
    script.open(1);
    assert_eq!(script.try_open(2, LEASE), Err(Rejection::TooManySessions));
    assert_eq!(script.try_open(0, LEASE), Ok(first), "finding one again opens none");
    assert_eq!(script.submit(first, Op::CloseSession), Some(Ok(Done::SessionClosed)));
    script.open(2);
}

#[test]
fn the_shortest_and_the_longest_lease() {
    let limits = Limits::default();
    let (min, max) = (limits.session_lease_min, limits.session_lease_max);
    let mut script = Script::new(limits);
    let microsecond = Duration::from_micros(1);
    let out_of_range = Err(Rejection::LeaseOutOfRange { min, max });
    assert_eq!(script.try_open(0, min.saturating_sub(microsecond)), out_of_range);
    assert_eq!(script.try_open(0, max.saturating_add(microsecond)), out_of_range);
    assert_eq!(script.try_open(0, Duration::ZERO), out_of_range);
    assert_eq!(script.try_open(0, Duration::MAX), out_of_range);
    script.try_open(0, min).expect("the shortest");
    script.try_open(1, max).expect("the longest");
}

#[test]
fn window_max_counts_what_is_open_and_what_is_not_acknowledged() {
    let mut script = Script::new(Limits { window_max: 3, ..Limits::default() });
    let (holder, session) = (script.open(0), script.open(1));
    script.acquire(holder, "a");
    script.waits(session, acquire("a"));
    let nothing = || Op::Cancel { waiting: Sequence::ZERO };
    assert_eq!(script.submit(session, nothing()), refused(Rejection::NotWaiting));
    assert_eq!(script.submit(session, nothing()), refused(Rejection::NotWaiting));
    for _ in 0..2 {
        assert_eq!(script.submit(session, nothing()), refused(Rejection::WindowFull));
    }
    // All is acknowledged, but what is open stays open.
    let acked = Acked { through: Sequence::new(3), except: Vec::new() };
    let outcome = script.submit_acked(session, acked, nothing());
    assert_eq!(outcome, refused(Rejection::NotWaiting));
    assert_eq!(script.submit(session, nothing()), refused(Rejection::NotWaiting));
    assert_eq!(script.submit(session, nothing()), refused(Rejection::WindowFull));
}

/// Requests that cannot wait have twice the room, since it is they that end the waits; and so have
/// rejections for lack of room, which use up their numbers.
#[test]
fn pending_bytes_max_counts_what_all_sessions_keep() {
    let limits = Limits { pending_bytes_max: 128, append_bytes_max: 16, ..Limits::default() };
    let mut script = Script::new(limits);
    let (holder, session, other) = (script.open(0), script.open(1), script.open(2));
    let token = script.acquire(holder, "a");
    script.waits(session, acquire("a"));
    let no_room = || refused(Rejection::TooManyPendingBytes);
    assert_eq!(script.submit(other, acquire("b")), no_room());
    assert_eq!(script.submit(other, section("b", Vec::new())), no_room());
    assert_eq!(script.pair.table.counts().pending_bytes, 256);
    let full = || refused(Rejection::WindowFull);
    assert_eq!(script.submit(other, acquire("b")), full());
    let cancel = Op::Cancel { waiting: Sequence::new(1) };
    assert_eq!(script.submit(session, cancel.clone()), full());
    script.acknowledge(other);
    assert_eq!(script.submit(session, cancel.clone()), Some(Ok(Done::Cancelled)));
    let outcome = script.submit(holder, release("a", token, Vec::new()));
    assert_eq!(outcome, Some(Ok(Done::Released { offsets: Vec::new() })));
    assert_eq!(script.pair.table.counts().pending_bytes, 256);
    assert_eq!(script.submit(session, cancel), full());
    assert_eq!(script.submit(session, Op::CloseSession), full());
}

/// What a request acknowledges makes room for the request itself, as it does in the window.
#[test]
fn pending_bytes_max_counts_what_is_left_after_the_acknowledgements() {
    let limits = Limits { pending_bytes_max: 64, append_bytes_max: 16, ..Limits::default() };
    let mut script = Script::new(limits);
    let session = script.open(0);
    script.acquire(session, "a");
    assert_eq!(script.submit(session, acquire("b")), refused(Rejection::TooManyPendingBytes));
    assert_eq!(script.submit(session, acquire("b")), refused(Rejection::WindowFull));
    let acked = Acked { through: Sequence::new(2), except: Vec::new() };
    let outcome = script.submit_acked(session, acked, acquire("b"));
    assert!(matches!(outcome, Some(Ok(Done::Granted { .. }))), "{outcome:?}");
}

#[test]
fn places_per_session_max_counts_holds_waits_and_losses() {
    let mut script = Script::new(Limits { places_per_session_max: 3, ..Limits::default() });
    let (session, other) = (script.open(0), script.open(1));
    script.acquire(session, "held");
    let lost = script.acquire(session, "lost");
    script.acquire(other, "busy");
    script.waits(session, acquire("busy"));
    let full = || refused(Rejection::TooManyPlaces);
    assert_eq!(script.submit(session, acquire("free")), full());
    let broken = Op::Break { lock: lock("lost"), token: lost, reason: text("") };
    assert_eq!(script.submit(other, broken), Some(Ok(Done::Broken)));
    assert_eq!(script.submit(session, acquire("free")), full(), "the loss takes its place");
    script.acquire(other, "lost");
    assert_eq!(script.submit(session, section("lost", Vec::new())), full());
    script.keep_alive(session, script.pair.model.index);
    script.acquire(session, "free");
    assert_eq!(script.submit(session, acquire("lost")), full());
}

#[test]
fn locks_max_counts_locks_that_are_held() {
    let mut script = Script::new(Limits { locks_max: 2, ..Limits::default() });
    let (session, other) = (script.open(0), script.open(1));
    let token = script.acquire(session, "a");
    script.acquire(session, "b");
    assert_eq!(script.submit(other, acquire("c")), refused(Rejection::TooManyLocks));
    script.waits(other, acquire("a"));
    let outcome = script.submit(session, release("a", token, Vec::new()));
    assert_eq!(outcome, Some(Ok(Done::Released { offsets: Vec::new() })));
    assert_eq!(script.submit(session, acquire("c")), refused(Rejection::TooManyLocks));
    assert_eq!(script.submit(other, Op::CloseSession), Some(Ok(Done::SessionClosed)));
    script.acquire(session, "c");
}

#[test]
fn waiters_per_lock_max() {
    let mut script = Script::new(Limits { waiters_per_lock_max: 2, ..Limits::default() });
    let sessions: Vec<SessionId> = (0..4).map(|it| script.open(it)).collect();
    script.acquire(sessions[0], "a");
    script.acquire(sessions[0], "b");
    script.waits(sessions[1], acquire("a"));
    script.waits(sessions[2], section("a", Vec::new()));
    let full = || refused(Rejection::TooManyWaiters);
    assert_eq!(script.submit(sessions[3], acquire("a")), full());
    assert_eq!(script.submit(sessions[3], section("a", Vec::new())), full());
    script.waits(sessions[3], acquire("b"));
    assert_eq!(script.submit(sessions[1], Op::CloseSession), Some(Ok(Done::SessionClosed)));
    script.waits(sessions[3], acquire("a"));
}

#[test]
fn files_max_counts_what_a_request_would_create() {
    let mut script = Script::new(Limits { files_max: 2, ..Limits::default() });
    let session = script.open(0);
    let token = script.acquire(session, "a");
    let full = || refused(Rejection::TooManyFiles);
    let three = vec![append("x", b"1"), append("y", b"2"), append("z", b"3")];
    assert_eq!(script.submit(session, release("a", token, three.clone())), full());
    assert_eq!(script.submit(session, section("b", three)), full());
    let twice = vec![append("x", b"1"), append("y", b"2"), append("x", b"3")];
    let outcome = script.submit(session, release("a", token, twice));
    assert_eq!(outcome, Some(Ok(Done::Released { offsets: vec![0, 0, 1] })));
    let create = |file: &str| Op::CreateFile {
        file: FileName::new(file).expect("a proper name"),
        guard: lock("a"),
    };
    assert_eq!(script.submit(session, create("z")), full());
    assert_eq!(script.submit(session, create("x")), Some(Ok(Done::FileCreated)));
    let token = script.acquire(session, "a");
    let op = Op::Append { lock: lock("a"), token, append: append("z", b"") };
    assert_eq!(script.submit(session, op), full());
}

/// A section may be accepted while there is room for its file, and find none at its turn.
#[test]
fn files_max_is_reached_while_a_section_waits() {
    let mut script = Script::new(Limits { files_max: 1, ..Limits::default() });
    let (holder, waiting, last) = (script.open(0), script.open(1), script.open(2));
    let token = script.acquire(holder, "a");
    script.waits(waiting, section("a", vec![append("x", b"1")]));
    script.waits(last, acquire("a"));
    script.submit(holder, release("a", token, vec![append("y", b"2")]));
    let decided = &script.pair.model.session(waiting).expect("it is open").outcomes;
    assert_eq!(decided[..], [(Sequence::new(1), Err(Rejection::TooManyFiles))]);
    let holder = script.pair.model.hold(&lock("a")).expect("the last one has it");
    assert_eq!(holder.session, last);
}

#[test]
fn append_bytes_max_counts_a_whole_request() {
    let bytes_max = 4;
    let mut script = Script::new(Limits { append_bytes_max: bytes_max, ..Limits::default() });
    let session = script.open(0);
    let token = script.acquire(session, "a");
    let full = || refused(Rejection::AppendTooLarge { bytes_max });
    let of =
        |bytes: &'static [u8]| Op::Append { lock: lock("a"), token, append: append("x", bytes) };
    assert_eq!(script.submit(session, of(b"12345")), full());
    assert_eq!(script.submit(session, of(b"1234")), Some(Ok(Done::Appended { offset: 0 })));
    let many = || vec![append("x", b"123"), append("y", b"45")];
    assert_eq!(script.submit(session, release("a", token, many())), full());
    assert_eq!(script.submit(session, section("b", many())), full());
    let exactly = vec![append("x", b"123"), append("y", b"4")];
    let outcome = script.submit(session, release("a", token, exactly));
    assert_eq!(outcome, Some(Ok(Done::Released { offsets: vec![4, 0] })));
}

#[test]
fn appends_per_request_max() {
    let appends_max = 2;
    let mut script =
        Script::new(Limits { appends_per_request_max: appends_max, ..Limits::default() });
    let (session, other) = (script.open(0), script.open(1));
    let token = script.acquire(session, "a");
    let of = |count: usize| vec![append("x", b""); count];
    let full = || refused(Rejection::TooManyAppends { appends_max });
    assert_eq!(script.submit(session, release("a", token, of(3))), full());
    assert_eq!(script.submit(other, section("a", of(3))), full());
    assert_eq!(script.submit(other, section("b", of(3))), full());
    let outcome = script.submit(session, release("a", token, of(2)));
    assert_eq!(outcome, Some(Ok(Done::Released { offsets: vec![0, 0] })));
}

#[test]
fn history_max_and_history_per_lock_max() {
    let limits = Limits { history_per_lock_max: 2, history_max: 3, ..Limits::default() };
    let mut script = Script::new(limits);
    let session = script.open(0);
    for name in ["a", "a", "a", "b", "b"] {
        let token = script.acquire(session, name);
        script.submit(session, release(name, token, Vec::new()));
    }
    assert_eq!((script.history("a"), script.history("b")), (1, 2));
    script.submit(session, section("c", Vec::new()));
    assert_eq!((script.history("a"), script.history("b"), script.history("c")), (0, 2, 1));
}

#[test]
fn no_history_at_all() {
    for (history_per_lock_max, history_max) in [(0, 3), (3, 0), (0, 0)] {
        let limits = Limits { history_per_lock_max, history_max, ..Limits::default() };
        let mut script = Script::new(limits);
        let session = script.open(0);
        let token = script.acquire(session, "a");
        script.submit(session, release("a", token, Vec::new()));
        assert_eq!(script.history("a"), 0);
        let again = script.submit(session, acquire("a"));
        assert!(matches!(again, Some(Ok(Done::Granted { predecessor: None, .. }))), "{again:?}");
    }
}

#[test]
fn expiries_per_entry_max_leaves_the_rest_for_the_next_entry() {
    let limits = Limits { expiries_per_entry_max: 2, ..Limits::default() };
    let mut script = Script::new(limits);
    for client in 0..5 {
        script.open(client);
    }
    assert_eq!(script.pass(LEASE).len(), 2);
    assert!(script.pair.table.next_due() <= Some(script.pair.table.now()), "some are left");
    assert_eq!(script.pass(Duration::ZERO).len(), 2);
    assert_eq!(script.pass(Duration::ZERO).len(), 1);
    assert_eq!(script.pair.table.next_due(), None);
}

/// A session that was not expired yet only because of the limit is alive: its keep-alive comes
/// before its expiry in the log.
#[test]
fn what_is_left_to_expire_can_be_kept_alive() {
    let limits = Limits { expiries_per_entry_max: 1, ..Limits::default() };
    let mut script = Script::new(limits);
    let sessions: Vec<SessionId> = (0..3).map(|it| script.open(it)).collect();
    assert_eq!(script.pass(LEASE).len(), 1);
    script.keep_alive(sessions[2], LogIndex::ZERO);
    assert!(script.pair.table.has_session(sessions[2]));
    assert_eq!(script.pass(Duration::ZERO).len(), 0);
    assert!(script.pair.table.has_session(sessions[2]));
}

/// Nobody can fill a file in a test. Its length is made up, by changing the one byte of an
/// encoding that is the length: the right one is the one that gives such a file.
#[test]
fn a_file_becomes_no_longer_than_its_length_can_be_counted() {
    let mut script = Script::new(Limits::default());
    let session = script.open(0);
    let token = script.acquire(session, "a");
    script.submit(session, of_file(token, b"12345"));
    let mut table = with_length(&script.pair.table, 5, FILE_BYTES_MAX - 1);
    let mut index = script.pair.model.index;
    let mut append = |sequence: u64, bytes: &'static [u8]| {
        index = index.next();
        let op = of_file(token, bytes);
        let sequence = Sequence::new(sequence);
        let submission = Submission { session, sequence, acked: Acked::default(), op };
        let stamp = script.pair.model.now;
        let entry = Entry { index, stamp, command: Some(Command::Submit(submission)) };
        let notices = apply(&mut table, &entry).notices;
        table.check_invariants();
        match &notices[..] {
            [Notice::Submitted { session: _, sequence: _, outcome }] => outcome.clone(),
            other => panic!("an append is answered by {other:?}"),
        }
    };
    assert_eq!(append(3, b"12"), Err(Rejection::FileFull));
    assert_eq!(append(4, b""), Ok(Done::Appended { offset: FILE_BYTES_MAX - 1 }));
    assert_eq!(append(5, b"1"), Ok(Done::Appended { offset: FILE_BYTES_MAX - 1 }));
    assert_eq!(append(6, b""), Ok(Done::Appended { offset: FILE_BYTES_MAX }));
    assert_eq!(append(7, b"1"), Err(Rejection::FileFull));
}

fn of_file(token: FencingToken, bytes: &'static [u8]) -> Op {
    Op::Append { lock: lock("a"), token, append: append("x", bytes) }
}

/// The table, with another length of its only file.
fn with_length(table: &LockTable, length: u8, instead: u64) -> LockTable {
    // In postcard's variable format: seven bits a byte, lowest first.
    let digits = 8;
    let varint: Vec<u8> = (0..digits)
        .map(|digit| {
            let bits = u8::try_from(instead >> (7 * digit) & 0x7f).expect("seven bits");
            if digit + 1 < digits { bits | 0x80 } else { bits }
        })
        .collect();
    let bytes = table.encode();
    let places = (0..bytes.len()).filter(|place| bytes[*place] == length);
    let tables = places.filter_map(|place| {
        let changed = [&bytes[..place], &varint[..], &bytes[place + 1..]].concat();
        LockTable::decode(&changed).ok()
    });
    let mut found: Vec<LockTable> =
        tables.filter(|table| table.files().map(|it| it.length).eq([instead])).collect();
    assert_eq!(found.len(), 1, "one place is the length");
    found.remove(0)
}

/// A lock that becomes free loses, in the same entry, all who wait for it, and then the memory of
/// its last hold: there is nothing left of it to hand over.
#[test]
fn a_lock_is_forgotten_by_the_entry_that_frees_it() {
    let mut script = Script::new(Limits { history_max: 1, ..Limits::default() });
    let (holder, waiting) = (script.open(0), script.open(1));
    let max_hold = Some(LEASE / 2);
    let briefly = Op::Acquire { lock: lock("a"), wait: Wait::Try, max_hold };
    assert!(matches!(script.submit(holder, briefly), Some(Ok(Done::Granted { .. }))));
    script.waits(waiting, acquire("a"));
    script.acquire(waiting, "b");
    script.pass(LEASE);
    assert_eq!((script.history("a"), script.history("b")), (0, 1));
}
