//! Numbers, the window, outcomes, limits, cancels.

use super::*;
use crate::config::APPEND_BYTES_CEILING;
use crate::config::APPENDS_CEILING;

fn acked(through: u64, except: &[u64]) -> crate::message::Acked {
    crate::message::Acked {
        through: Sequence::new(through),
        except: except.iter().copied().map(Sequence::new).collect(),
    }
}

#[test]
fn ops_are_numbered_in_the_order_of_calls_and_pipelined() {
    let mut host = Host::safe();
    host.op(create_file());
    host.op(acquire("a", Wait::Forever));
    host.op(create_file());
    assert_eq!(host.take().numbers(), [1, 2, 3]);
}

#[test]
fn outcome_finishes_its_call_once() {
    let mut host = Host::safe();
    let call = host.op(create_file());
    host.take();
    host.reply(submitted(1, Ok(Done::FileCreated)));
    assert_eq!(host.take().finished(), [(call, done(Done::FileCreated))]);
    host.reply(submitted(1, Ok(Done::FileCreated)));
    assert_eq!(host.take().finished(), []);
    assert_eq!(host.ignored(), 1);
}

#[test]
fn rejection_by_the_log_is_final() {
    let mut host = Host::safe();
    let call = host.op(acquire("a", Wait::Try));
    host.take();
    host.reply(submitted(1, Err(Rejection::NotObtained)));
    let outputs = host.take();
    assert_eq!(outputs.finished(), [(call, rejected(Rejection::NotObtained))]);
    assert_eq!(outputs.sent(), []);
}

#[test]
fn every_kind_of_op_gets_its_outcome() {
    let append_one = || vec![file_append(1)];
    let token = FencingToken::new(5);
    let section =
        Op::Section { lock: lock("a"), wait: Wait::Try, appends: vec![file_append(1); 2] };
    let broken = Op::Break { lock: lock("a"), token, reason: Text::default() };
    let released = Op::Release { lock: lock("a"), token, appends: append_one() };
    let cases = [
        (append(3), Done::Appended { offset: 7 }),
        (released, Done::Released { offsets: vec![3] }),
        (section, Done::Sectioned { token, offsets: vec![0, 1] }),
        (broken, Done::Broken),
        (create_file(), Done::FileCreated),
        (Op::Cancel { waiting: Sequence::new(1) }, Done::Cancelled),
    ];
    for (op, outcome) in cases {
        let mut host = Host::safe();
        let call = host.op(op);
        host.take();
        host.reply(submitted(1, Ok(outcome.clone())));
        assert_eq!(host.take().finished(), [(call, done(outcome))]);
    }
}

#[test]
fn outcome_that_does_not_fit_is_unknown() {
    let unfit = [
        granted(9).expect("a grant"),
        Done::SessionClosed,
        Done::Released { offsets: vec![] },
        Done::Sectioned { token: FencingToken::new(5), offsets: vec![] },
    ];
    for outcome in unfit {
        let mut host = Host::safe();
        let call = host.op(append(3));
        host.take();
        host.reply(submitted(1, Ok(outcome)));
        assert_eq!(host.take().finished(), [(call, Err(CallError::Unknown))]);
        assert_eq!(host.client.state(), &SessionState::Safe);
    }
}

#[test]
fn release_needs_an_offset_for_each_append() {
    let mut host = Host::safe();
    let call = host.op(release("a", 5));
    host.take();
    host.reply(submitted(1, Ok(Done::Released { offsets: vec![1] })));
    assert_eq!(host.take().finished(), [(call, Err(CallError::Unknown))]);
}

#[test]
fn evicted_result_is_unknown() {
    let mut host = Host::safe();
    let call = host.op(append(3));
    host.take();
    host.reply(submitted(1, Err(Rejection::ResultEvicted)));
    assert_eq!(host.take().finished(), [(call, Err(CallError::Unknown))]);
}

#[test]
fn submissions_acknowledge_what_is_here_and_nothing_else() {
    let mut host = Host::safe();
    host.op(acquire("a", Wait::Forever));
    host.op(create_file());
    let sent = host.take().submissions();
    assert_eq!(sent[1].acked, acked(0, &[]));
    host.reply(submitted(2, Ok(Done::FileCreated)));
    host.op(create_file());
    assert_eq!(host.take().submissions()[0].acked, acked(2, &[1]));
    host.reply(submitted(1, granted(5)));
    host.op(create_file());
    assert_eq!(host.take().submissions()[0].acked, acked(2, &[]), "3 is still open");
}

#[test]
fn keep_alives_acknowledge_too() {
    let mut host = Host::safe();
    host.op(create_file());
    host.reply(submitted(1, Ok(Done::FileCreated)));
    host.take();
    host.wait(ClientConfig::default().keep_alive_interval);
    let request = host.take().request();
    assert_eq!(as_keep_alive(&request).1.acked, acked(1, &[]));
}

#[test]
fn window_holds_the_rest_back() {
    let mut host = Host::safe();
    for _ in 0..6 {
        host.op(create_file());
    }
    assert_eq!(host.take().numbers(), [1, 2, 3, 4]);
    host.reply(submitted(3, Ok(Done::FileCreated)));
    assert_eq!(host.take().numbers(), [5]);
    host.reply(submitted(1, Ok(Done::FileCreated)));
    assert_eq!(host.take().numbers(), [6]);
}

#[test]
fn waits_leave_a_place_for_what_could_end_them() {
    let mut host = Host::safe();
    for name in ["a", "b", "c", "d", "e"] {
        host.op(acquire(name, Wait::Forever));
    }
    assert_eq!(host.take().numbers(), [1, 2, 3], "of a window of four");
    let cancel = host.cancel(2);
    let outputs = host.take();
    assert_eq!(outputs.submissions()[0].op, Op::Cancel { waiting: Sequence::new(2) });
    host.reply(submitted(4, Ok(Done::Cancelled)));
    host.reply(submitted(2, Err(Rejection::Cancelled)));
    let outputs = host.take();
    let finished = [(cancel, done(Done::Cancelled)), (2, rejected(Rejection::Cancelled))];
    assert_eq!(outputs.finished(), finished);
    assert_eq!(outputs.numbers(), [5], "now the next may wait");
}

#[test]
fn window_of_one_works() {
    let mut host = Host::new(&[1], ClientConfig::default());
    host.connected();
    let result = Ok(Opened { session: SESSION, window_max: 1 });
    host.reply(Reply::Opened { nonce: NONCE, result });
    host.take();
    host.op(acquire("a", Wait::Forever));
    host.op(create_file());
    assert_eq!(host.take().numbers(), [1]);
    host.reply(submitted(1, granted(5)));
    assert_eq!(host.take().numbers(), [2]);
}

#[test]
fn cancel_of_what_was_not_sent_needs_nobody() {
    let mut host = Host::new(&[1], ClientConfig::default());
    let waiting = host.op(acquire("a", Wait::Forever));
    let prompt = host.op(append(1));
    host.take();
    let cancels = [host.cancel(waiting), host.cancel(prompt)];
    assert_eq!(
        host.take().finished(),
        [
            (waiting, rejected(Rejection::Cancelled)),
            (cancels[0], done(Done::Cancelled)),
            (prompt, rejected(Rejection::Cancelled)),
            (cancels[1], done(Done::Cancelled)),
        ]
    );
    assert_eq!(host.client.open_calls(), 0);
}

#[test]
fn cancel_of_what_does_not_wait_is_rejected() {
    let mut host = Host::safe();
    let sent = host.op(create_file());
    let read = host.read(Consistency::Stale);
    let finished = host.op(create_file());
    host.reply(submitted(2, Ok(Done::FileCreated)));
    host.take();
    for target in [sent, read, finished, 1000] {
        let cancel = host.cancel(target);
        let outputs = host.take();
        assert_eq!(outputs.finished(), [(cancel, rejected(Rejection::NotWaiting))]);
        assert_eq!(outputs.sent(), []);
    }
}

#[test]
fn grant_may_come_before_the_cancel() {
    let mut host = Host::safe();
    let waiting = host.op(acquire("a", Wait::Forever));
    let cancel = host.cancel(waiting);
    host.take();
    host.reply(submitted(2, Err(Rejection::NotWaiting)));
    host.reply(submitted(1, granted(5)));
    let finished = host.take().finished();
    assert_eq!(finished[0], (cancel, rejected(Rejection::NotWaiting)));
    assert_eq!(finished[1].0, waiting);
    assert_eq!(host.held(), [("a", 5)], "the application is told, and has to release");
}

#[test]
fn calls_are_limited_in_number() {
    let config = ClientConfig { calls_max: 3, ..ClientConfig::default() };
    let mut host = Host::safe_with(config);
    for name in ["a", "b"] {
        host.op(acquire(name, Wait::Forever));
    }
    let too_many = |call| (call, Err(CallError::TooManyCalls));
    let third = host.op(acquire("c", Wait::Forever));
    assert_eq!(host.take().finished(), [too_many(third)], "the last place is for another");
    host.read(Consistency::Stale);
    let calls =
        [host.op(create_file()), host.read(Consistency::Stale), host.cancel(1)].map(too_many);
    assert_eq!(host.take().finished(), calls);
    host.reply(submitted(1, granted(5)));
    host.take();
    host.op(create_file());
    assert_eq!(host.take().finished(), []);
}

#[test]
fn calls_are_limited_in_bytes() {
    let config = ClientConfig { call_bytes_max: 100, ..ClientConfig::default() };
    let mut host = Host::safe_with(config);
    host.op(append(150));
    assert_eq!(host.take().finished(), [], "one alone may be larger");
    let more = host.op(append(1));
    assert_eq!(host.take().finished(), [(more, Err(CallError::TooManyCalls))]);
    host.op(create_file());
    host.reply(submitted(1, Ok(Done::Appended { offset: 0 })));
    host.take();
    host.op(append(50));
    host.op(append(50));
    assert_eq!(host.take().finished(), []);
}

#[test]
fn what_no_cluster_would_take_is_not_sent() {
    let mut host = Host::safe();
    let bytes_max = APPEND_BYTES_CEILING;
    let large = host.op(append(bytes_max as usize + 1));
    let appends = vec![file_append(0); APPENDS_CEILING + 1];
    let many = host.op(Op::Section { lock: lock("a"), wait: Wait::Try, appends });
    let appends_max = u32::try_from(APPENDS_CEILING).expect("a small constant");
    let outputs = host.take();
    assert_eq!(
        outputs.finished(),
        [
            (large, rejected(Rejection::AppendTooLarge { bytes_max })),
            (many, rejected(Rejection::TooManyAppends { appends_max })),
        ]
    );
    assert_eq!(outputs.sent(), []);
}

#[test]
fn largest_op_fits_into_a_request() {
    let long = "n".repeat(crate::text::TEXT_BYTES_MAX);
    let file = FileName::new(long.clone()).expect("the longest name");
    let bytes = Bytes::from(vec![0; APPEND_BYTES_CEILING as usize / APPENDS_CEILING]);
    let appends = vec![FileAppend { file, bytes }; APPENDS_CEILING];
    let op = Op::Section { lock: lock(&long), wait: Wait::For(Duration::MAX), appends };
    assert_eq!(fit::check_size(&op), Ok(()));
    let except = vec![Sequence::MAX; crate::config::WINDOW_CEILING];
    let acked = crate::message::Acked { through: Sequence::MAX, except };
    let (session, sequence) = (SessionId::MAX, Sequence::MAX);
    let request = Request::Submit(Submission { session, sequence, acked, op });
    assert!(crate::codec::encode(&request).len() <= crate::config::REQUEST_BYTES_MAX);
}

#[test]
fn node_that_is_too_busy_gets_everything_again_in_order() {
    let mut host = Host::safe();
    for _ in 0..4 {
        host.op(create_file());
    }
    let sent = host.take().sent();
    host.reply(submitted(1, Ok(Done::FileCreated)));
    host.reply(overloaded(&sent[1]));
    // What came after it could not be taken either.
    let expected = Sequence::new(2);
    host.reply(submitted(3, Err(Rejection::OutOfOrder { expected })));
    host.reply(submitted(4, Err(Rejection::OutOfOrder { expected })));
    host.op(create_file());
    let outputs = host.take();
    assert_eq!(outputs.sent(), [], "not at once");
    assert_eq!(outputs.finished().len(), 1);
    let config = ClientConfig::default();
    assert_eq!(host.client.poll_timeout().map(|(_, timer)| timer), Some(ClientTimer::Resend));
    host.wait(config.backoff_min);
    assert_eq!(host.take().numbers(), [2, 3, 4, 5]);
}

#[test]
fn window_that_is_full_at_the_cluster_is_tried_again() {
    let mut host = Host::safe();
    let call = host.op(create_file());
    host.take();
    host.reply(submitted(1, Err(Rejection::WindowFull)));
    assert_eq!(host.take(), Outputs::default());
    host.wait(ClientConfig::default().backoff_min);
    assert_eq!(host.take().numbers(), [1]);
    host.reply(submitted(1, Ok(Done::FileCreated)));
    assert_eq!(host.take().finished(), [(call, done(Done::FileCreated))]);
}

#[test]
fn pauses_grow_while_a_node_stays_busy() {
    let mut host = Host::safe();
    host.op(create_file());
    let request = host.take().request();
    let mut pauses = vec![];
    for _ in 0..4 {
        host.reply(overloaded(&request));
        let (time, _) = host.client.poll_timeout().expect("a pause ends");
        pauses.push(time.since(host.now));
        host.wait(pauses[pauses.len() - 1]);
    }
    assert!(pauses.is_sorted(), "{pauses:?}");
    assert!(pauses[3] >= pauses[0] * 4, "{pauses:?}");
}

#[test]
fn busy_node_does_not_hold_keep_alives_back() {
    let mut host = Host::safe();
    host.wait(ClientConfig::default().keep_alive_interval.saturating_sub(millis(1)));
    host.op(create_file());
    let request = host.take().request();
    host.reply(overloaded(&request));
    host.wait(millis(1));
    as_keep_alive(&host.take().request());
}

#[test]
fn calls_before_the_session_is_open_wait_for_it() {
    let mut host = Host::new(&[1], ClientConfig::default());
    host.op(create_file());
    host.op(acquire("a", Wait::Forever));
    host.connected();
    assert_eq!(host.take().numbers(), []);
    host.reply(opened(SESSION));
    assert_eq!(host.take().numbers(), [1, 2]);
}

#[test]
fn session_unknown_for_a_submission_ends_all_and_is_not_tried_again() {
    let mut host = Host::safe();
    let call = host.op(append(1));
    host.take();
    host.reply(submitted(1, Err(Rejection::SessionUnknown)));
    let outputs = host.take();
    assert_eq!(outputs.states(), [SessionState::Ended(Ending::Forgotten)]);
    assert_eq!(outputs.finished(), [(call, Err(CallError::Unknown))]);
    assert!(outputs.connects().is_empty());
}

#[test]
fn errors_say_what_happened() {
    let texts = [
        CallError::Rejected(Rejection::NotObtained),
        CallError::SessionEnded(Ending::LeaseRanOut),
        CallError::Unknown,
        CallError::TooManyCalls,
    ]
    .map(|error| std::string::ToString::to_string(&error));
    assert_eq!(texts[0], "rejected: somebody else holds the lock");
    assert_eq!(texts[1], "not done: the cluster was not heard from in time");
    assert!(texts[2].contains("may or may not"));
    assert!(texts[3].starts_with("not sent"));
}
