//! Looking for the leader, losing connections, and sending again.

use super::super::connection::REDIRECTS_AT_ONCE_MAX;
use super::*;

fn unavailable(request: &Request, reason: Unavailable) -> Reply {
    Reply::Unavailable { request: request.key(), reason }
}

/// A node that is not the one that the client is connected to.
fn another_node(host: &Host) -> u64 {
    host.node.value() % 3 + 1
}

#[test]
fn attempt_that_takes_too_long_is_given_up() {
    let mut host = Host::new(&[1, 2], ClientConfig::default());
    let first = host.node;
    host.take();
    host.wait(ClientConfig::default().connect_timeout);
    let outputs = host.take();
    assert_eq!(outputs.disconnects(), 1);
    assert!(outputs.connects().is_empty(), "not without a pause");
    host.wait_for_connect();
    assert_ne!(host.node, first, "the other one gets its turn");
}

#[test]
fn failed_attempts_go_around_with_growing_pauses() {
    let mut host = Host::new(&[1, 2, 3], ClientConfig::default());
    let mut nodes = vec![];
    let mut pauses = vec![];
    for _ in 0..6 {
        nodes.push(host.node.value());
        let failed = host.now;
        host.disconnected().wait_for_connect();
        pauses.push(host.now.since(failed));
    }
    assert_eq!(nodes[..3], nodes[3..]);
    assert!(pauses[5] > pauses[0] * 8, "{pauses:?}");
}

#[test]
fn news_of_an_earlier_attempt_change_nothing() {
    let mut host = Host::safe();
    let earlier = host.attempt;
    host.disconnected().wait_for_connect();
    host.take();
    host.input(ClientInput::Connected { attempt: earlier });
    host.input(ClientInput::Disconnected { attempt: earlier });
    host.input(ClientInput::Reply { attempt: earlier, reply: lost("a", 5, 8) });
    assert_eq!(host.take(), Outputs::default());
    assert_eq!(host.client.node(), None);
    host.connected();
    assert_eq!(host.client.node(), Some(host.node));
}

#[test]
fn reply_before_the_connection_is_ignored() {
    let mut host = Host::new(&[1], ClientConfig::default());
    host.reply(opened(SESSION));
    assert_eq!(host.ignored(), 1);
    assert_eq!(host.client.state(), &SessionState::Opening);
}

#[test]
fn hint_is_followed_at_once() {
    let mut host = Host::safe();
    host.op(create_file());
    let request = host.take().request();
    let leader = another_node(&host);
    for reason in [
        Unavailable::NotLeader { leader: Some(NodeId::new(leader)) },
        Unavailable::LeadershipLost { leader: Some(NodeId::new(leader)) },
        Unavailable::Transferring { to: NodeId::new(leader) },
    ] {
        let mut host = Host { client: host.client.clone(), outputs: Outputs::default(), ..host };
        host.reply(unavailable(&request, reason));
        let outputs = host.take();
        assert_eq!(outputs.disconnects(), 1);
        assert_eq!(outputs.connects(), [leader]);
    }
}

#[test]
fn nodes_that_send_it_in_a_circle_are_left_with_a_pause() {
    let mut host = Host::new(&[1, 2, 3], ClientConfig::default());
    for redirects in 1..=REDIRECTS_AT_ONCE_MAX + 1 {
        host.connected();
        let open = host.take().request();
        let next = another_node(&host);
        host.reply(not_leader(&open, Some(next)));
        let at_once = !host.take().connects().is_empty();
        assert_eq!(at_once, redirects <= REDIRECTS_AT_ONCE_MAX);
        if !at_once {
            host.wait_for_connect();
        }
        assert_eq!(host.node.value(), next, "the hint is still the best that there is");
    }
}

#[test]
fn senseless_hints_are_no_hints() {
    for hint in [Some(99), None] {
        let mut host = Host::new(&[1, 2, 3], ClientConfig::default());
        host.connected();
        let open = host.take().request();
        let first = host.node;
        let hint = hint.or(Some(first.value()));
        host.reply(not_leader(&open, hint));
        assert_eq!(host.take(), Outputs::default());
        host.wait_for_connect();
        assert_ne!(host.node, first);
        assert_eq!(host.take().disconnects(), 1);
    }
}

#[test]
fn later_hint_ends_the_stay_on_a_node_that_does_not_lead() {
    let mut host = Host::safe();
    host.op(create_file());
    let request = host.take().request();
    host.reply(not_leader(&request, None));
    host.reply(not_leader(&request, None));
    assert_eq!(host.take(), Outputs::default());
    let leader = another_node(&host);
    host.reply(not_leader(&request, Some(leader)));
    assert_eq!(host.take().connects(), [leader]);
}

#[test]
fn node_that_does_not_lead_gets_no_submissions() {
    let mut host = Host::safe();
    host.op(create_file());
    let request = host.take().request();
    host.reply(not_leader(&request, None));
    host.op(create_file());
    assert_eq!(host.take().sent(), []);
}

#[test]
fn keep_alive_comes_first_on_a_new_connection() {
    let mut host = Host::safe();
    host.op(create_file());
    host.op(acquire("a", Wait::Forever));
    host.op(create_file());
    host.reply(submitted(1, Ok(Done::FileCreated)));
    host.disconnected().wait_for_connect();
    host.take();
    host.connected();
    let keep_alive = host.take().request();
    host.op(create_file());
    assert_eq!(host.take().sent(), [], "nothing before its answer");
    host.reply(kept_alive(&keep_alive, news()));
    assert_eq!(host.take().numbers(), [2, 3, 4]);
}

#[test]
fn same_number_carries_the_same_op_again() {
    let mut host = Host::safe();
    host.op(append(3));
    let first = host.take().submissions();
    host.reconnect(news());
    assert_eq!(host.take().submissions(), first);
}

#[test]
fn news_replace_what_was_lost_with_the_connection() {
    let mut host = Host::safe();
    let waiting = host.op(acquire("a", Wait::Forever));
    let created = host.op(create_file());
    host.op(create_file());
    host.take();
    let outcomes = vec![(Sequence::new(1), granted(5)), (Sequence::new(2), Ok(Done::FileCreated))];
    host.reconnect(SessionNews { outcomes, losses: vec![] });
    let outputs = host.take();
    let finished: Vec<u64> = outputs.finished().iter().map(|(call, _)| *call).collect();
    assert_eq!(finished, [waiting, created]);
    assert_eq!(outputs.numbers(), [3]);
    assert_eq!(host.held(), [("a", 5)]);
}

#[test]
fn news_of_a_keep_alive_wake_a_waiter_whose_push_was_lost() {
    let mut host = Host::safe();
    let waiting = host.op(acquire("a", Wait::Forever));
    host.take();
    host.wait(ClientConfig::default().keep_alive_interval);
    let keep_alive = host.take().request();
    let outcomes = vec![(Sequence::new(1), granted(5))];
    host.reply(kept_alive(&keep_alive, SessionNews { outcomes, losses: vec![] }));
    assert_eq!(host.take().finished()[0].0, waiting);
}

#[test]
fn release_is_sent_until_it_is_answered() {
    let mut host = Host::safe();
    host.op(acquire("a", Wait::Try));
    host.reply(submitted(1, granted(5)));
    let call = host.op(release("a", 5));
    host.take();
    for _ in 0..3 {
        host.reconnect(news());
        assert_eq!(host.take().numbers(), [2]);
        assert_eq!(host.held(), [("a", 5)], "held until the cluster has let go");
    }
    host.reply(submitted(2, Ok(Done::Released { offsets: vec![] })));
    assert_eq!(host.take().finished(), [(call, done(Done::Released { offsets: vec![] }))]);
    assert_eq!(host.held(), []);
}

#[test]
fn unanswered_keep_alive_shows_a_dead_node() {
    let config = ClientConfig::default();
    let mut host = Host::safe();
    host.wait(config.keep_alive_interval);
    host.take();
    host.wait(config.reply_timeout);
    let outputs = host.take();
    assert_eq!(outputs.disconnects(), 1);
    assert_eq!(host.client.node(), None);
    host.wait_for_connect();
    assert_eq!(host.client.state(), &SessionState::Safe, "in time");
}

#[test]
fn unanswered_submission_shows_a_dead_node() {
    let mut host = Host::safe();
    host.op(create_file());
    host.take();
    host.wait(ClientConfig::default().reply_timeout);
    assert_eq!(host.take().disconnects(), 1);
}

#[test]
fn answered_submission_does_not() {
    let mut host = Host::safe();
    host.op(create_file());
    host.reply(submitted(1, Ok(Done::FileCreated)));
    host.take();
    host.wait(ClientConfig::default().reply_timeout);
    assert_eq!(host.take().disconnects(), 0);
}

#[test]
fn wait_may_take_as_long_as_it_likes() {
    let config = ClientConfig::default();
    let mut host = Host::safe();
    host.op(acquire("a", Wait::Forever));
    host.take();
    for _ in 0..20 {
        host.wait(config.keep_alive_interval);
        let keep_alive = host.take().request();
        host.reply(kept_alive(&keep_alive, news()));
    }
    assert_eq!(host.take().disconnects(), 0);
    assert_eq!(host.client.open_calls(), 1);
}

#[test]
fn unanswered_open_shows_a_dead_node() {
    let mut host = Host::new(&[1, 2], ClientConfig::default());
    host.connected();
    host.take();
    host.wait(ClientConfig::default().reply_timeout);
    assert_eq!(host.take().disconnects(), 1);
}

#[test]
fn busy_node_is_asked_again_to_open_and_to_renew() {
    let config = ClientConfig::default();
    let mut host = Host::new(&[1], config.clone());
    host.connected();
    let open = host.take().request();
    host.reply(overloaded(&open));
    assert_eq!(host.take().sent(), []);
    host.wait(config.backoff_min);
    assert_eq!(host.take().request(), open);
    host.reply(opened(SESSION));
    host.wait(config.keep_alive_interval);
    let keep_alive = host.take().request();
    host.reply(overloaded(&keep_alive));
    assert_eq!(host.take().sent(), []);
    host.wait(config.backoff_min * 2);
    let again = host.take().request();
    assert_ne!(as_keep_alive(&again).0, as_keep_alive(&keep_alive).0, "under a number of its own");
}

#[test]
fn senseless_refusals_are_ignored_but_not_for_ever() {
    let config = ClientConfig::default();
    let mut host = Host::new(&[1], config.clone());
    host.connected();
    host.take();
    host.reply(Reply::Opened { nonce: NONCE, result: Err(Rejection::NotObtained) });
    assert_eq!(host.ignored(), 1);
    assert_eq!(host.take().sent(), []);
    host.wait(config.backoff_min);
    assert_eq!(host.take().sent().len(), 1, "it asks again");
}

#[test]
fn refusal_as_too_large_is_not_believed() {
    let mut host = Host::safe();
    host.op(create_file());
    let request = host.take().request();
    host.reply(unavailable(&request, Unavailable::TooLarge));
    assert_eq!(host.ignored(), 1);
    assert_eq!(host.client.open_calls(), 1);
}

#[test]
fn requests_that_are_not_polled_are_dropped_with_their_connection() {
    let mut host = Host::safe();
    let call = ClientInput::Call { call: call_id(1), action: Action::Op(create_file()) };
    host.client.handle_input(host.now, call);
    host.disconnected();
    assert_eq!(host.take().sent(), []);
}
