//! What clients may get wrong. Each mistake has the refusal that the documentation names, and leaves
//! the state as if the request had been an empty entry; or, where the request was well numbered, as
//! it was but for the number.

use bytes::Bytes;
use quorlock_core::config::{APPEND_BYTES_CEILING, Limits, WINDOW_CEILING};
use quorlock_core::ids::{FencingToken, LogIndex, NodeId, RequestId, Sequence, SessionId};
use quorlock_core::lock::{Applied, Command, Counts, LockTable, Notice};
use quorlock_core::message::{
    Acked, Answer, Consistency, Done, FileAppend, KeepAlive, Op, Query, Rejection, Reply, Request,
    RequestKey, Submission, Unavailable, Wait,
};
use quorlock_core::text::TextError;
use quorlock_core::time::Duration;
use quorlock_tests::lab::{Lab, label, nonce};

use crate::locks::Table;
use crate::solo::Solo;
use crate::tools::{
    acquire, append_to, file, file_append, hold, lab, lock, release, section, text, try_acquire,
};

const SECOND: Duration = Duration::from_secs(1);

/// A table where session `a` holds `l` under a token and has the file `f`, and `b` waits for `l`.
fn table() -> (Table, SessionId, SessionId, FencingToken) {
    let limits = Limits { append_bytes_max: 100, appends_per_request_max: 3, ..Limits::default() };
    let mut table = Table::new(limits);
    let (a, b) = (table.open(0, "a", SECOND * 60), table.open(0, "b", SECOND * 60));
    table.submit(0, a, acquire("l"));
    let token = FencingToken::new(table.table.index().value());
    table.submit(0, a, append_to("l", token, "f", "line\n"));
    table.submit(0, a, Op::CreateFile { file: file("g"), guard: lock("other") });
    table.submit(0, b, acquire("l"));
    (table, a, b, token)
}

/// The refusal of the one request in an entry.
fn refusal(applied: &Applied) -> Rejection {
    match &applied.notices[..] {
        [Notice::Submitted { outcome: Err(rejection), .. }] => rejection.clone(),
        [Notice::Opened { result: Err(rejection), .. }] => rejection.clone(),
        [Notice::KeptAlive { result: Err(rejection), .. }] => rejection.clone(),
        other => panic!("it is refused, and nothing else happens: {other:?}"),
    }
}

fn submission(session: SessionId, sequence: u64, op: Op) -> Command {
    let (sequence, acked) = (Sequence::new(sequence), Acked::default());
    Command::Submit(Submission { session, sequence, acked, op })
}

/// What anybody can see of a table.
fn visible(table: &LockTable) -> (Counts, Vec<Answer>) {
    let counts = Counts { pending_bytes: 0, ..table.counts() };
    let prefix = text("");
    let mut answers = vec![
        table.answer(&Query::Locks { prefix, after: None }),
        table.answer(&Query::Files { after: None }),
    ];
    for name in ["l", "other", "free"] {
        answers.push(table.answer(&Query::Lock { lock: lock(name) }));
        answers.push(table.answer(&Query::History { lock: lock(name) }));
    }
    (counts, answers)
}

/// A session that never was or is over, and numbers that are not due: as if the entry were empty.
#[test]
fn requests_of_nobody_and_out_of_order_leave_the_state_as_it_was() {
    let (table, a, _, token) = table();
    let unknown = || Rejection::SessionUnknown;
    let gap = || Rejection::OutOfOrder { expected: Sequence::new(4) };
    let op = || append_to("l", token, "f", "more\n");
    let keep_alive = |session| {
        let (acked, losses_seen) = (Acked::default(), LogIndex::MAX);
        Command::KeepAlive(vec![KeepAlive { session, acked, losses_seen }])
    };
    let too_long = Rejection::LeaseOutOfRange { min: SECOND * 2, max: SECOND * 3600 };
    let open = |lease| Command::OpenSession { nonce: nonce("c"), label: label("c"), lease };
    for (command, expected) in [
        (submission(SessionId::ZERO, 1, op()), unknown()),
        (submission(SessionId::new(99), 1, op()), unknown()),
        (submission(SessionId::MAX, Sequence::MAX.value(), op()), unknown()),
        (submission(SessionId::MAX, 0, Op::CloseSession), unknown()),
        (keep_alive(SessionId::new(99)), unknown()),
        (keep_alive(SessionId::MAX), unknown()),
        (submission(a, 5, op()), gap()),
        (submission(a, 5, Op::CloseSession), gap()),
        (submission(a, 1000, acquire("free")), gap()),
        (submission(a, Sequence::MAX.value(), op()), gap()),
        (submission(a, 0, op()), Rejection::ResultEvicted),
        (open(Duration::ZERO), too_long.clone()),
        (open(Duration::MAX), too_long),
    ] {
        let (mut with, mut without) = (table.clone(), table.clone());
        let applied = with.apply(0, Some(command.clone()));
        without.apply(0, None);
        assert_eq!(refusal(&applied), expected, "{command:?}");
        assert_eq!(applied.effects, []);
        assert_eq!(with.table.digest(), without.table.digest(), "{command:?}");
    }
}

/// Ops that the log refuses: each by its name, and nothing that anybody could see has changed.
#[test]
fn refused_ops_change_nothing() {
    let (table, a, b, token) = table();
    let other = FencingToken::new(token.value() + 1);
    let held = || Rejection::NotHolder { current: Some(token) };
    let free = || Rejection::NotHolder { current: None };
    let guard = || Rejection::WrongGuard { guard: lock("other") };
    let bytes =
        |count: usize| FileAppend { file: file("f"), bytes: Bytes::from(vec![b'x'; count]) };
    let appends = |appends: Vec<FileAppend>| Op::Release { lock: lock("l"), token, appends };
    let large = || Rejection::AppendTooLarge { bytes_max: 100 };
    let many = || Rejection::TooManyAppends { appends_max: 3 };
    let in_section = |appends| Op::Section { lock: lock("free"), wait: Wait::Try, appends };
    let wait_zero =
        Op::Acquire { lock: lock("l"), wait: Wait::For(Duration::ZERO), max_hold: None };
    let break_with = |name, token| Op::Break { lock: lock(name), token, reason: text("") };
    let cancel = |waiting| Op::Cancel { waiting: Sequence::new(waiting) };
    for (session, op, expected) in [
        // Old, other and extreme tokens.
        (a, append_to("l", other, "f", "x"), held()),
        (a, append_to("l", FencingToken::ZERO, "f", "x"), held()),
        (a, append_to("l", FencingToken::MAX, "f", "x"), held()),
        (b, append_to("l", token, "f", "x"), held()),
        (a, append_to("free", token, "f", "x"), free()),
        (a, release("l", other), held()),
        (b, release("l", token), held()),
        (a, release("free", token), free()),
        (b, break_with("l", FencingToken::MAX), held()),
        (b, break_with("free", token), free()),
        // Files of another lock, alone and after one that would do.
        (a, append_to("l", token, "g", "x"), guard()),
        (a, appends(vec![file_append("f", "x"), file_append("g", "x")]), guard()),
        (b, section("free", "g", "x"), guard()),
        (a, Op::CreateFile { file: file("g"), guard: lock("l") }, guard()),
        // Payloads over a limit.
        (a, Op::Append { lock: lock("l"), token, append: bytes(101) }, large()),
        (a, appends(vec![bytes(60), bytes(41)]), large()),
        (b, in_section(vec![bytes(101)]), large()),
        (a, appends(vec![bytes(1); 4]), many()),
        (b, in_section(vec![bytes(1); 4]), many()),
        // What is not to be had.
        (b, try_acquire("l"), Rejection::AlreadyWaiting),
        (b, wait_zero, Rejection::AlreadyWaiting),
        (a, section("l", "f", "x"), Rejection::AlreadyHeld { token }),
        (a, cancel(1), Rejection::NotWaiting),
        (a, cancel(0), Rejection::NotWaiting),
        (b, cancel(Sequence::MAX.value()), Rejection::NotWaiting),
    ] {
        let mut with = table.clone();
        let applied = with.submit(0, session, op.clone());
        assert_eq!(refusal(&applied), expected, "{op:?}");
        assert_eq!(applied.effects, [], "{op:?}");
        assert_eq!(visible(&with.table), visible(&table.table), "{op:?}");
    }
}

/// An acknowledgement in disorder, of what was never decided or still waits, does no harm.
#[test]
fn a_senseless_acknowledgement_forgets_nothing_that_is_open() {
    let (table, a, b, _) = table();
    let number = |number| Sequence::new(number);
    for acked in [
        Acked { through: Sequence::MAX, except: Vec::new() },
        Acked { through: Sequence::MAX, except: vec![number(9), number(1), number(5), number(1)] },
        Acked { through: Sequence::ZERO, except: vec![Sequence::MAX; WINDOW_CEILING] },
        Acked { through: number(1), except: vec![number(0); 3] },
    ] {
        for session in [a, b] {
            let mut table = table.clone();
            let losses_seen = LogIndex::MAX;
            let keep_alive = KeepAlive { session, acked: acked.clone(), losses_seen };
            table.apply(0, Some(Command::KeepAlive(vec![keep_alive.clone(), keep_alive])));
            assert_eq!(table.table.counts().waiters, 1, "{acked:?}");
            table.submit(0, a, Op::CloseSession);
            let Answer::Lock(view) = table.table.answer(&Query::Lock { lock: lock("l") }) else {
                panic!("an answer to another question");
            };
            let holder = view.holder.map(|holder| holder.session);
            assert_eq!(holder, Some(b), "whoever waited is granted");
        }
    }
}

/// The replies to a connection.
fn replies(lab: &mut Lab, request: Request) -> Vec<Reply> {
    let conn = lab.new_connection();
    lab.request(1, conn, request);
    lab.run(Duration::from_millis(50));
    lab.replies(conn)
}

/// From end to end, through a node: the same refusals reach the client that asked.
#[test]
fn a_node_answers_bad_requests_on_the_connection_they_came_on() {
    let mut lab = lab(3);
    lab.elect(1);
    let session = lab.open(1, "a");
    let (sequence, acked) = (Sequence::new(7), Acked::default());
    let op = acquire("l");
    let submit = |session, op| Submission { session, sequence, acked: acked.clone(), op };
    let of_nobody = SessionId::MAX;
    let told = replies(&mut lab, Request::Submit(submit(of_nobody, op.clone())));
    let [Reply::Submitted { session: of, outcome: Err(Rejection::SessionUnknown), .. }] = &told[..]
    else {
        panic!("{told:?}");
    };
    assert_eq!(*of, of_nobody);
    let told = replies(&mut lab, Request::Submit(submit(session, op)));
    let expected = Rejection::OutOfOrder { expected: Sequence::new(1) };
    let [Reply::Submitted { outcome: Err(rejection), .. }] = &told[..] else { panic!("{told:?}") };
    assert_eq!(*rejection, expected);
    let (id, losses_seen) = (RequestId::MAX, LogIndex::MAX);
    let keep_alive = KeepAlive { session: of_nobody, acked: acked.clone(), losses_seen };
    let told = replies(&mut lab, Request::KeepAlive { id, keep_alive });
    let [Reply::KeptAlive { id: of, result: Err(Rejection::SessionUnknown), .. }] = &told[..]
    else {
        panic!("{told:?}");
    };
    assert_eq!(*of, id);
    let lease = Duration::MAX;
    let told =
        replies(&mut lab, Request::OpenSession { nonce: nonce("b"), label: label("b"), lease });
    assert!(
        matches!(told[..], [Reply::Opened { result: Err(Rejection::LeaseOutOfRange { .. }), .. }]),
        "{told:?}"
    );
}

/// A request that no entry can carry is refused by the node itself, whatever role it has.
#[test]
fn a_request_larger_than_any_entry_is_refused_at_once() {
    let bytes = Bytes::from(vec![0; APPEND_BYTES_CEILING as usize]);
    let appends = vec![FileAppend { file: file("f"), bytes }; 2];
    let op = Op::Section { lock: lock("l"), wait: Wait::Try, appends };
    let (session, sequence) = (SessionId::new(1), Sequence::new(1));
    let request = Request::Submit(Submission { session, sequence, acked: Acked::default(), op });
    let mut node = Solo::new(3);
    for leads in [false, true] {
        if leads {
            node.elect(&[2, 3]);
            node.persist_all();
        }
        let before = node.latest();
        node.request(request.clone());
        let replies = node.replies();
        let [Reply::Unavailable { request: of, reason: Unavailable::TooLarge }] = &replies[..]
        else {
            panic!("{replies:?}");
        };
        assert_eq!(*of, RequestKey::Submit(session, sequence));
        assert_eq!(node.latest(), before);
    }
}

/// A node that does not lead says so, and where to go; it decides nothing.
#[test]
fn a_follower_refuses_what_only_a_leader_can_do() {
    let mut lab = lab(3);
    lab.elect(1);
    let session = lab.open(1, "a");
    let query = Query::Lock { lock: lock("l") };
    let read = Request::Read {
        id: RequestId::new(1),
        query: query.clone(),
        consistency: Consistency::Linearizable,
    };
    let (acked, losses_seen) = (Acked::default(), LogIndex::ZERO);
    let keep_alive = KeepAlive { session, acked: acked.clone(), losses_seen };
    let open = Request::OpenSession { nonce: nonce("b"), label: label("b"), lease: SECOND * 9 };
    let sequence = Sequence::new(1);
    for request in [
        read,
        Request::KeepAlive { id: RequestId::new(1), keep_alive },
        Request::Submit(Submission { session, sequence, acked, op: acquire("l") }),
        open,
    ] {
        let before = lab.log_of(2);
        lab.request(2, 5, request.clone());
        let told = lab.replies(5);
        let leader = Some(NodeId::new(1));
        let reason = Unavailable::NotLeader { leader };
        assert_eq!(told, [Reply::Unavailable { request: request.key(), reason }]);
        assert_eq!(lab.log_of(2), before);
    }
    lab.read(2, 5, query, Consistency::Stale);
    assert!(matches!(lab.replies(5)[..], [Reply::Read { .. }]), "a stale read is anybody's");
}

/// A connection that breaks takes nothing with it but the way to its client.
#[test]
fn a_broken_connection_takes_no_request_with_it() {
    let mut lab = lab(3);
    lab.elect(1);
    let session = lab.open(1, "a");
    let conn = lab.connection(1, session);
    lab.submit(1, session, 1, acquire("l"));
    lab.keep_alive(1, session, Acked::default(), LogIndex::ZERO);
    lab.read(1, conn, Query::Lock { lock: lock("l") }, Consistency::Linearizable);
    lab.disconnect_session(1, session);
    lab.disconnect(1, conn);
    lab.disconnect(1, 4242);
    lab.run(SECOND);
    lab.submit(1, session, 1, acquire("l"));
    lab.settle();
    assert!(matches!(lab.outcome(session, 1), Some(Ok(Done::Granted { .. }))));
    hold(&mut lab, 1, session, "m");
}

/// Names and texts that break the rules are no values: no request can carry them.
#[test]
fn names_that_break_the_rules_are_no_names() {
    use quorlock_core::text::{FileName, LockName, Text};
    let long = "é".repeat(128);
    for (name, error) in [
        ("", TextError::Empty),
        ("/", TextError::EmptySegment),
        ("a/", TextError::EmptySegment),
        ("/a", TextError::EmptySegment),
        ("a//b", TextError::EmptySegment),
        ("a\n", TextError::ControlCharacter),
        ("\u{0}", TextError::ControlCharacter),
        ("\u{9f}", TextError::ControlCharacter),
        (long.as_str(), TextError::TooLong { bytes: 256 }),
    ] {
        assert_eq!(LockName::new(name), Err(error), "{name:?}");
        assert_eq!(FileName::new(name), Err(error), "{name:?}");
        assert!(!error.to_string().is_empty());
    }
    assert_eq!(Text::new(long), Err(TextError::TooLong { bytes: 256 }));
    assert_eq!(Text::new("a\tb"), Err(TextError::ControlCharacter));
    let longest = "é".repeat(127) + "x";
    assert_eq!(LockName::new(longest.clone()).map(|name| name.as_str().len()), Ok(255));
    assert!(Text::new(longest).is_ok() && Text::new("").is_ok() && Text::new("//").is_ok());
}
