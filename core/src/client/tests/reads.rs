//! Reads: numbered for their answer's sake only, and free to be repeated.

use super::*;
use crate::message::{Answer, LockView};

fn answer() -> Answer {
    Answer::Lock(LockView { lock: lock("a"), holder: None, waiters: 0, queue: vec![] })
}

fn answer_to(request: &Request, answer: Answer) -> Reply {
    match request.key() {
        RequestKey::Read(id) => Reply::Read { id, index: LogIndex::new(9), answer },
        other => panic!("no read: {other:?}"),
    }
}

fn completed() -> Completed {
    Completed::Read { index: LogIndex::new(9), answer: answer() }
}

#[test]
fn read_is_answered() {
    let mut host = Host::safe();
    let call = host.read(Consistency::Linearizable);
    let request = host.take().request();
    host.reply(answer_to(&request, answer()));
    assert_eq!(host.take().finished(), [(call, Ok(completed()))]);
    host.reply(answer_to(&request, answer()));
    assert_eq!(host.ignored(), 1, "once");
}

#[test]
fn read_is_sent_again_on_the_next_connection() {
    let mut host = Host::safe();
    let call = host.read(Consistency::Linearizable);
    let request = host.take().request();
    host.reconnect(news());
    assert_eq!(host.take().request(), request);
    host.reply(answer_to(&request, answer()));
    assert_eq!(host.take().finished(), [(call, Ok(completed()))]);
}

#[test]
fn stale_read_needs_no_leader() {
    let mut host = Host::new(&[1, 2], ClientConfig::default());
    let stale = host.read(Consistency::Stale);
    let linearizable = host.read(Consistency::Linearizable);
    host.connected();
    let sent = host.take().sent();
    assert_eq!(sent.len(), 2, "{sent:?}");
    assert!(matches!(sent[1], Request::Read { consistency: Consistency::Stale, .. }));
    host.reply(not_leader(&sent[0], None));
    assert_eq!(host.take(), Outputs::default(), "it stays, for the answer");
    host.reply(answer_to(&sent[1], answer()));
    assert_eq!(host.take().finished(), [(stale, Ok(completed()))]);
    let late = host.read(Consistency::Stale);
    let request = host.take().request();
    host.reply(answer_to(&request, answer()));
    assert_eq!(host.take().finished(), [(late, Ok(completed()))]);
    assert_eq!(host.client.open_calls(), 1, "{linearizable} waits for a leader");
}

#[test]
fn answer_to_another_query_is_ignored() {
    let mut host = Host::safe();
    host.read(Consistency::Stale);
    let request = host.take().request();
    host.reply(answer_to(&request, Answer::File(None)));
    assert_eq!(host.ignored(), 1);
    assert_eq!(host.client.open_calls(), 1);
}

#[test]
fn busy_node_gets_only_the_refused_read_again() {
    let mut host = Host::safe();
    host.read(Consistency::Linearizable);
    host.read(Consistency::Linearizable);
    let sent = host.take().sent();
    host.reply(overloaded(&sent[0]));
    assert_eq!(host.take().sent(), []);
    host.wait(ClientConfig::default().backoff_min);
    assert_eq!(host.take().request(), sent[0]);
}

#[test]
fn unanswered_read_shows_a_dead_node() {
    let mut host = Host::safe();
    host.read(Consistency::Stale);
    host.take();
    host.wait(ClientConfig::default().reply_timeout);
    assert_eq!(host.take().disconnects(), 1);
}

#[test]
fn read_of_a_node_that_does_not_lead_leads_on() {
    let mut host = Host::safe();
    host.read(Consistency::Linearizable);
    let request = host.take().request();
    let leader = host.node.value() % 3 + 1;
    host.reply(not_leader(&request, Some(leader)));
    assert_eq!(host.take().connects(), [leader]);
}

#[test]
fn reads_end_with_the_session() {
    let mut host = Host::safe();
    let call = host.read(Consistency::Stale);
    host.take();
    host.pause(ClientConfig::default().lease).input(ClientInput::Timeout);
    assert_eq!(host.take().finished(), [(call, ended(Ending::LeaseRanOut))]);
}

#[test]
fn every_query_knows_its_answer() {
    let file = || FileName::new("f").expect("a valid name");
    let prefix = Text::default();
    let bytes = Answer::Bytes { file: None, bytes: Bytes::new() };
    let pairs = [
        (Query::Lock { lock: lock("a") }, answer()),
        (Query::Locks { prefix, after: None }, Answer::Locks(vec![])),
        (Query::History { lock: lock("a") }, Answer::History(vec![])),
        (Query::File { file: file() }, Answer::File(None)),
        (Query::Files { after: None }, Answer::Files(vec![])),
        (Query::ReadFile { file: file(), offset: 0, length: 1 }, bytes),
    ];
    for (at, (query, _)) in pairs.iter().enumerate() {
        for (other, (_, answer)) in pairs.iter().enumerate() {
            assert_eq!(fit::answer_fits(query, answer), at == other, "{query:?} {answer:?}");
        }
    }
}
