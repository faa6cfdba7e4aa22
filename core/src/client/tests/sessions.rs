//! Opening, keeping alive, warning, ending.

use super::*;

#[test]
fn opens_a_session_as_soon_as_it_is_connected() {
    let mut host = Host::new(&[1, 2, 3], ClientConfig::default());
    assert_eq!(host.take().connects().len(), 1);
    host.connected();
    let lease = ClientConfig::default().lease;
    let open = Request::OpenSession { nonce: NONCE, label: Label::default(), lease };
    assert_eq!(host.take().request(), open);
    assert_eq!(host.client.state(), &SessionState::Opening);
    host.reply(opened(SESSION));
    assert_eq!(host.take().states(), [SessionState::Safe]);
    assert_eq!(host.client.session(), Some(SESSION));
}

#[test]
fn opens_with_the_same_nonce_on_another_node() {
    let mut host = Host::new(&[1, 2, 3], ClientConfig::default());
    host.connected();
    let first = host.take().request();
    host.disconnected().wait_for_connect();
    host.take();
    host.connected();
    assert_eq!(host.take().request(), first);
}

#[test]
fn lease_counts_from_the_first_open_that_may_have_opened_it() {
    let mut host = Host::new(&[1, 2, 3], ClientConfig::default());
    host.connected();
    let first_sent = host.now;
    host.wait(millis(500)).disconnected().wait_for_connect().connected();
    host.reply(opened(SESSION));
    let lease = ClientConfig::default().own_lease();
    assert_eq!(host.client.lease_ends_at(), Some(first_sent.after(lease)));
}

#[test]
fn session_whose_lease_is_old_at_birth_is_not_safe_before_a_keep_alive() {
    let config = ClientConfig { reply_timeout: millis(1000), ..ClientConfig::default() };
    let mut host = Host::new(&[1], config);
    host.connected();
    for _ in 0..8 {
        host.wait(millis(900)).disconnected().wait_for_connect().connected();
    }
    let acquire = host.op(acquire("a", Wait::Forever));
    host.take();
    host.reply(opened(SESSION));
    let keep_alive = host.take().request();
    assert_eq!(host.client.state(), &SessionState::Opening);
    let sent = host.now;
    host.wait(millis(10)).reply(kept_alive(&keep_alive, news()));
    let outputs = host.take();
    assert_eq!(outputs.states(), [SessionState::Safe]);
    assert_eq!(outputs.numbers(), [acquire], "and now it is of use");
    let lease = ClientConfig::default().own_lease();
    assert_eq!(host.client.lease_ends_at(), Some(sent.after(lease)));
}

#[test]
fn session_that_ended_before_it_was_used_is_opened_again() {
    let mut host = Host::new(&[1], ClientConfig::default());
    host.connected();
    for _ in 0..8 {
        host.wait(millis(900)).disconnected().wait_for_connect().connected();
    }
    host.reply(opened(SESSION));
    let keep_alive = host.take().sent().pop().expect("a keep-alive follows");
    host.reply(session_unknown(&keep_alive));
    host.wait(millis(1000));
    let open = host.take().request();
    assert!(matches!(open, Request::OpenSession { .. }), "{open:?}");
    // The answer to the first open comes a second time.
    host.reply(opened(SESSION));
    assert_eq!(host.client.state(), &SessionState::Opening);
    host.wait(millis(1000)).reply(opened(SessionId::new(43)));
    assert_eq!(host.client.state(), &SessionState::Safe);
    assert_eq!(host.client.session(), Some(SessionId::new(43)));
}

#[test]
fn refusal_to_open_is_final() {
    for refusal in
        [Rejection::TooManySessions, Rejection::LeaseOutOfRange { min: millis(1), max: millis(2) }]
    {
        let mut host = Host::new(&[1], ClientConfig::default());
        let call = host.op(create_file());
        host.connected();
        host.take();
        host.reply(Reply::Opened { nonce: NONCE, result: Err(refusal.clone()) });
        let outputs = host.take();
        let ending = Ending::Refused(refusal);
        assert_eq!(outputs.states(), [SessionState::Ended(ending.clone())]);
        assert_eq!(outputs.finished(), [(call, ended(ending))]);
        assert_eq!(outputs.disconnects(), 1);
    }
}

#[test]
fn opening_is_given_up_in_the_end() {
    let config = ClientConfig::default();
    let open_timeout = config.open_timeout;
    let mut host = Host::new(&[1, 2], config);
    let call = host.op(create_file());
    host.wait(open_timeout);
    let outputs = host.take();
    assert_eq!(outputs.states(), [SessionState::Ended(Ending::NotOpened)]);
    assert_eq!(outputs.finished(), [(call, ended(Ending::NotOpened))]);
    assert_eq!(host.client.poll_timeout(), None);
}

#[test]
fn another_clients_answer_opens_nothing() {
    let mut host = Host::new(&[1], ClientConfig::default());
    host.connected();
    let result = Ok(Opened { session: SESSION, window_max: WINDOW });
    host.reply(Reply::Opened { nonce: ClientNonce(0, 0), result });
    assert_eq!(host.client.state(), &SessionState::Opening);
    assert_eq!(host.ignored(), 1);
}

#[test]
fn keep_alives_renew_from_their_sending() {
    let mut host = Host::safe();
    let config = ClientConfig::default();
    host.wait(config.keep_alive_interval);
    let keep_alive = host.take().request();
    let sent = host.now;
    host.wait(millis(700)).reply(kept_alive(&keep_alive, news()));
    assert_eq!(host.client.lease_ends_at(), Some(sent.after(config.own_lease())));
    assert_eq!(host.take().sent(), [], "the next one is due an interval after the last");
    host.wait(config.keep_alive_interval.saturating_sub(millis(700)));
    assert_eq!(as_keep_alive(&host.take().request()).1.session, SESSION);
}

#[test]
fn answer_to_an_earlier_keep_alive_renews_nothing() {
    let mut host = Host::safe();
    host.wait(ClientConfig::default().keep_alive_interval);
    let first = host.take().request();
    host.reply(kept_alive(&first, news()));
    let ends_at = host.client.lease_ends_at();
    host.wait(millis(10)).reply(kept_alive(&first, news()));
    assert_eq!(host.client.lease_ends_at(), ends_at);
    assert_eq!(host.ignored(), 1);
}

#[test]
fn silence_is_jeopardy_and_then_the_end() {
    let config = ClientConfig::default();
    let mut host = Host::safe();
    host.op(acquire("a", Wait::Try));
    host.reply(submitted(1, granted(5)));
    let start = host.now;
    host.disconnected();
    host.take();
    host.wait(config.jeopardy_after);
    assert_eq!(host.take().states(), [SessionState::Jeopardy]);
    assert_eq!(host.held(), [("a", 5)], "in jeopardy, but held");
    host.wait(config.own_lease());
    assert_eq!(host.take().states(), [SessionState::Ended(Ending::LeaseRanOut)]);
    assert_eq!(host.held(), []);
    assert!(start.after(config.lease) > start.after(config.own_lease()), "before the cluster");
}

#[test]
fn keep_alive_in_time_ends_the_jeopardy() {
    let config = ClientConfig::default();
    let mut host = Host::safe();
    host.disconnected();
    host.pause(config.jeopardy_after).wait(millis(1));
    assert_eq!(host.take().states(), [SessionState::Jeopardy]);
    host.connected();
    let keep_alive = host.take().request();
    host.reply(kept_alive(&keep_alive, news()));
    assert_eq!(host.take().states(), [SessionState::Safe]);
}

#[test]
fn paused_past_its_lease_it_says_so_before_anything_else() {
    let mut host = Host::safe();
    host.op(acquire("a", Wait::Try));
    host.reply(submitted(1, granted(5)));
    let append = host.op(append(1));
    host.take();
    host.pause(ClientConfig::default().lease);
    // Even if the first thing that it learns after its sleep is an outcome.
    host.reply(submitted(2, Ok(Done::Appended { offset: 0 })));
    let outputs = host.take();
    let end = SessionState::Ended(Ending::LeaseRanOut);
    assert_eq!(outputs.0[0], ClientOutput::State(SessionState::Jeopardy));
    assert_eq!(outputs.0[1], ClientOutput::State(end));
    assert_eq!(outputs.finished(), [(append, Err(CallError::Unknown))]);
    assert_eq!(outputs.sent(), []);
    assert_eq!(host.held(), []);
}

#[test]
fn paused_past_its_lease_it_sends_no_new_op() {
    let mut host = Host::safe();
    host.pause(ClientConfig::default().lease);
    let call = host.op(create_file());
    let outputs = host.take();
    assert_eq!(outputs.sent(), []);
    assert_eq!(outputs.finished(), [(call, ended(Ending::LeaseRanOut))]);
}

#[test]
fn what_the_host_has_not_sent_by_the_end_is_taken_back() {
    let mut host = Host::safe();
    let call = ClientInput::Call { call: call_id(1), action: Action::Op(create_file()) };
    host.client.handle_input(host.now, call);
    host.pause(ClientConfig::default().lease).input(ClientInput::Timeout);
    let outputs = host.take();
    assert_eq!(outputs.sent(), []);
    assert_eq!(outputs.finished(), [(1, Err(CallError::Unknown))]);
}

#[test]
fn session_that_the_cluster_ended_is_over() {
    for (cause, ending) in
        [(SessionEnd::Expired, Ending::Expired), (SessionEnd::Closed, Ending::Closed)]
    {
        let mut host = Host::safe();
        host.take();
        host.reply(Reply::SessionEnded { session: SESSION, index: LogIndex::new(9), cause });
        assert_eq!(host.take().states(), [SessionState::Ended(ending)]);
    }
}

#[test]
fn news_of_another_session_change_nothing() {
    let mut host = Host::safe();
    let session = SessionId::new(41);
    let (index, cause) = (LogIndex::new(9), SessionEnd::Expired);
    host.op(create_file());
    host.reply(Reply::SessionEnded { session, index, cause });
    host.reply(Reply::Lost { session, loss: loss("a", 5, 8) });
    let (sequence, outcome) = (Sequence::new(1), Ok(Done::FileCreated));
    host.reply(Reply::Submitted { session, sequence, index, outcome });
    assert_eq!(host.ignored(), 3);
    assert_eq!(host.client.state(), &SessionState::Safe);
    assert_eq!(host.client.open_calls(), 1);
}

#[test]
fn session_that_the_cluster_does_not_know_is_over() {
    let mut host = Host::safe();
    host.wait(ClientConfig::default().keep_alive_interval);
    let keep_alive = host.take().request();
    host.reply(session_unknown(&keep_alive));
    assert_eq!(host.take().states(), [SessionState::Ended(Ending::Forgotten)]);
}

#[test]
fn each_call_ends_with_the_session_in_its_own_way() {
    let mut host = Host::safe();
    let asked = host.op(acquire("a", Wait::Forever));
    let section = host.op(Op::Section { lock: lock("b"), wait: Wait::Forever, appends: vec![] });
    let release = host.op(release("c", 3));
    let cancel = host.cancel(asked);
    let full = host.op(create_file());
    let unsent = host.op(acquire("d", Wait::Forever));
    let read = host.read(Consistency::Linearizable);
    assert_eq!(host.take().numbers(), [1, 2, 3, 4], "the window is full");
    host.pause(ClientConfig::default().lease).input(ClientInput::Timeout);
    let over = || ended(Ending::LeaseRanOut);
    let unknown = || Err(CallError::Unknown);
    assert_eq!(
        host.take().finished(),
        [
            (asked, over()),
            (section, unknown()),
            (release, unknown()),
            (cancel, unknown()),
            (full, over()),
            (unsent, over()),
            (read, over()),
        ]
    );
    let late = host.op(create_file());
    assert_eq!(host.take().finished(), [(late, over())]);
}

#[test]
fn closing_ends_the_session() {
    let mut host = Host::safe();
    let waiting = host.op(acquire("a", Wait::Forever));
    let close = host.op(Op::CloseSession);
    let after = host.op(create_file());
    let outputs = host.take();
    assert_eq!(outputs.numbers(), [1, 2]);
    assert_eq!(outputs.finished(), [(after, ended(Ending::Closed))], "nothing follows a close");
    host.reply(submitted(2, Ok(Done::SessionClosed)));
    let outputs = host.take();
    assert_eq!(outputs.states(), [SessionState::Ended(Ending::Closed)]);
    let finished = [(waiting, ended(Ending::Closed)), (close, done(Done::SessionClosed))];
    assert_eq!(outputs.finished(), finished);
}

#[test]
fn close_whose_answer_is_lost_is_done_when_the_session_is_unknown() {
    let mut host = Host::safe();
    let close = host.op(Op::CloseSession);
    host.disconnected().wait_for_connect().connected();
    let keep_alive = host.take().sent().pop().expect("a keep-alive comes first");
    host.reply(session_unknown(&keep_alive));
    let outputs = host.take();
    assert_eq!(outputs.states(), [SessionState::Ended(Ending::Forgotten)]);
    assert_eq!(outputs.finished(), [(close, done(Done::SessionClosed))]);
}

#[test]
fn close_that_nobody_heard_of_is_unknown() {
    let mut host = Host::safe();
    let close = host.op(Op::CloseSession);
    host.disconnected().take();
    host.wait(ClientConfig::default().lease);
    assert_eq!(host.take().finished(), [(close, Err(CallError::Unknown))]);
}

#[test]
fn nothing_moves_after_the_end() {
    let mut host = Host::safe();
    host.pause(ClientConfig::default().lease).input(ClientInput::Timeout);
    host.take();
    host.connected().disconnected();
    host.reply(opened(SESSION)).reply(lost("a", 5, 8));
    host.wait(Duration::from_mins(1));
    assert_eq!(host.take(), Outputs::default());
    assert_eq!(host.client.lease_ends_at(), None);
}

#[test]
#[should_panic(expected = "clock went back")]
fn clock_must_not_go_back() {
    let mut host = Host::safe();
    host.now = Time::ZERO;
    host.input(ClientInput::Timeout);
}

#[test]
#[should_panic(expected = "does not follow")]
fn call_ids_must_ascend() {
    let mut host = Host::safe();
    host.op(create_file());
    host.calls = 0;
    host.op(create_file());
}

#[test]
#[should_panic(expected = "never asked for")]
fn attempts_must_have_been_asked_for() {
    let mut host = Host::safe();
    host.attempt = host.attempt.next();
    host.connected();
}

#[test]
fn client_is_a_value() {
    fn assert_value<T: Clone + Send + Sync + 'static>() {}
    assert_value::<Client>();
}

#[test]
fn nodes_are_required() {
    let config = ClientConfig::default();
    let error = Client::new(config, [], Label::default(), NONCE, 1, Time::ZERO)
        .expect_err("there is nowhere to go");
    assert!(matches!(error, ConfigError::OutOfRange { setting: "nodes", .. }));
}
