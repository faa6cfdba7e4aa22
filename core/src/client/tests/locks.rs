//! What the session holds, and how its application hears of losses.

use super::*;

fn lost_outputs(outputs: &Outputs) -> Vec<u64> {
    let lost = outputs.0.iter().filter_map(|output| match output {
        ClientOutput::Lost(loss) => Some(loss.token.value()),
        _ => None,
    });
    lost.collect()
}

#[test]
fn grants_are_held_until_released() {
    let mut host = Host::safe();
    host.op(acquire("a", Wait::Try));
    host.op(acquire("b", Wait::Forever));
    host.reply(submitted(2, granted(6)));
    host.reply(submitted(1, granted(5)));
    assert_eq!(host.held(), [("a", 5), ("b", 6)]);
    host.op(release("a", 5));
    host.reply(submitted(3, Ok(Done::Released { offsets: vec![] })));
    assert_eq!(host.held(), [("b", 6)]);
}

#[test]
fn refused_release_ends_nothing() {
    let mut host = Host::safe();
    host.op(acquire("a", Wait::Try));
    host.reply(submitted(1, granted(5)));
    host.op(release("a", 4));
    let current = Some(FencingToken::new(5));
    host.reply(submitted(2, Err(Rejection::NotHolder { current })));
    assert_eq!(host.held(), [("a", 5)]);
}

#[test]
fn loss_is_told_once_and_acknowledged_when_complete() {
    let mut host = Host::safe();
    host.op(acquire("a", Wait::Try));
    host.reply(submitted(1, granted(5)));
    host.take();
    host.reply(lost("a", 5, 8));
    assert_eq!(lost_outputs(&host.take()), [5]);
    assert_eq!(host.held(), []);
    host.reply(lost("a", 5, 8));
    host.wait(ClientConfig::default().keep_alive_interval);
    let keep_alive = host.take().request();
    assert_eq!(as_keep_alive(&keep_alive).1.losses_seen, LogIndex::ZERO);
    let losses = vec![loss("a", 5, 8)];
    host.reply(kept_alive(&keep_alive, SessionNews { outcomes: vec![], losses }));
    assert_eq!(lost_outputs(&host.take()), []);
    host.wait(ClientConfig::default().keep_alive_interval);
    let keep_alive = host.take().request();
    assert_eq!(as_keep_alive(&keep_alive).1.losses_seen, LogIndex::new(8));
}

#[test]
fn loss_that_overtakes_its_grant_is_told_after_it() {
    let mut host = Host::safe();
    let call = host.op(acquire("a", Wait::Forever));
    host.take();
    host.reply(lost("a", 5, 8));
    assert_eq!(host.take(), Outputs::default());
    host.reply(submitted(1, granted(5)));
    let outputs = host.take();
    let granted = Done::Granted { token: FencingToken::new(5), predecessor: None };
    assert_eq!(
        outputs.0,
        [
            ClientOutput::Finished { call: call_id(call), result: done(granted) },
            ClientOutput::Lost(loss("a", 5, 8)),
        ]
    );
    assert_eq!(host.held(), []);
}

#[test]
fn grant_and_its_loss_in_the_same_news_come_in_order() {
    let mut host = Host::safe();
    host.op(acquire("a", Wait::Forever));
    host.take();
    let news = SessionNews {
        outcomes: vec![(Sequence::new(1), granted(5))],
        losses: vec![loss("a", 5, 8)],
    };
    host.reconnect(news);
    let outputs = host.take();
    assert_eq!(outputs.finished().len(), 1);
    assert_eq!(lost_outputs(&outputs), [5]);
    assert_eq!(host.held(), []);
}

#[test]
fn late_loss_leaves_the_later_hold() {
    let mut host = Host::safe();
    host.op(acquire("a", Wait::Try));
    host.reply(submitted(1, granted(5)));
    host.op(acquire("a", Wait::Try));
    host.reply(submitted(2, granted(9)));
    host.take();
    host.reply(lost("a", 5, 8));
    assert_eq!(lost_outputs(&host.take()), [5]);
    assert_eq!(host.held(), [("a", 9)]);
}

#[test]
fn late_grant_of_a_released_hold_is_no_hold() {
    let mut host = Host::safe();
    host.op(acquire("a", Wait::Try));
    host.op(acquire("a", Wait::Try));
    host.reply(submitted(1, granted(5)));
    host.op(release("a", 5));
    host.reply(submitted(3, Ok(Done::Released { offsets: vec![] })));
    let second = host.take();
    assert_eq!(second.finished().len(), 2);
    host.reply(submitted(2, granted(5)));
    assert_eq!(host.take().finished().len(), 1, "its call is over all the same");
    assert_eq!(host.held(), []);
}

#[test]
fn news_that_end_the_session_tell_of_no_loss_after_it() {
    let mut host = Host::safe();
    host.op(acquire("a", Wait::Try));
    host.reply(submitted(1, granted(5)));
    host.op(Op::CloseSession);
    host.take();
    let outcomes = vec![(Sequence::new(2), Ok(Done::SessionClosed))];
    host.reconnect(SessionNews { outcomes, losses: vec![loss("a", 5, 8)] });
    let outputs = host.take();
    assert_eq!(outputs.states(), [SessionState::Ended(Ending::Closed)]);
    assert!(lost_outputs(&outputs).is_empty());
}
