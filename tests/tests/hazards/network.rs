//! What a network does to messages, as far as the core sees it. Frames, streams, certificates and
//! floods are the host's part, and wait for it.

use quorlock_core::config::Config;
use quorlock_core::ids::{EntryId, NodeId};
use quorlock_core::message::{Envelope, Message, Request, Submission};
use quorlock_core::node::Input;
use quorlock_core::prng::Prng;
use quorlock_core::raft::DropReason;
use quorlock_core::time::Duration;
use quorlock_tests::lab::TraceEvent;

use crate::log::some_request;
use crate::solo::{Solo, append};
use crate::tools::{append_to, hold, lab, lab_with, section, snapshots_every};

/// Hazard N4: a peer that never reads. What is under way to it is bounded, and the others get
/// what they are owed.
#[test]
fn a_peer_that_never_answers_is_sent_a_bounded_amount() {
    let config = Config { message_entries_max: 4, in_flight_entries_max: 8, ..snapshots_every(50) };
    let mut node = Solo::with(3, config);
    node.elect(&[2, 3]);
    node.persist_all();
    node.matched(2, 1);
    node.matched(3, 1);
    node.sent();
    let (mut to_silent, mut to_other) = (0, 0);
    for number in 0..500 {
        node.request(some_request(number));
        node.persist_all();
        node.matched(3, number + 2);
        for envelope in node.sent() {
            if let Message::AppendEntries(append) = envelope.message {
                let count = append.entries.len();
                if envelope.to == NodeId::new(2) { to_silent += count } else { to_other += count }
            }
        }
    }
    assert!(to_silent <= 8, "{to_silent} entries to the one that is silent");
    assert_eq!(to_other, 500);
    assert!(node.status().last.index.since(node.status().first) < 1100, "nor is the log kept");
}

/// Hazard N9: requests are replayed, by whom and however often. The number of the request, not the
/// connection, says that it was done.
#[test]
fn replayed_requests_are_done_once() {
    let mut lab = lab(3);
    lab.elect(1);
    lab.record(true);
    let session = lab.open(1, "a");
    let token = hold(&mut lab, 1, session, "l");
    lab.perform(1, session, append_to("l", token, "f", "line\n"));
    lab.perform(1, session, section("m", "g", "line\n"));
    let requests: Vec<Request> = lab
        .take_trace()
        .into_iter()
        .filter_map(|event| {
            if let TraceEvent::Request { request, .. } = event { Some(request) } else { None }
        })
        .collect();
    assert!(requests.len() >= 4);
    let digest = |lab: &quorlock_tests::lab::Lab| lab.status(1).counts;
    let before = digest(&lab);
    let mut prng = Prng::new(9);
    for _ in 0..100 {
        let place = usize::try_from(prng.below(requests.len() as u64)).expect("a place in memory");
        let conn = lab.new_connection();
        lab.request(1, conn, requests[place].clone());
        lab.settle();
    }
    assert_eq!(digest(&lab), before);
    assert_eq!(lab.lab_node(1).file("f"), Some(&b"line\n"[..]));
    assert_eq!(lab.lab_node(1).file("g"), Some(&b"line\n"[..]));
    let submissions = requests.iter().filter(|it| matches!(it, Request::Submit(Submission { .. })));
    assert_eq!(submissions.count(), 3);
}

/// Hazard N18: messages for another node, and messages in any order. Only what one connection
/// delivers in order is in order; the core relies on not even that.
#[test]
fn messages_in_any_order_do_no_harm() {
    let mut node = Solo::new(3);
    let (from, to) = (NodeId::new(2), NodeId::new(3));
    let message = append(9, EntryId::ZERO, Vec::new(), 0);
    node.input(Input::Message(Envelope { from, to, message }));
    assert_eq!(node.status().dropped[&DropReason::NotForThisNode], 1);
    assert_eq!(node.status().term.value(), 0);

    for seed in 0..5 {
        let mut prng = Prng::new(seed);
        let mut lab = lab_with(3, snapshots_every(20));
        lab.elect(1);
        let session = lab.open(1, "a");
        for number in 1..=40 {
            lab.submit(1, session, number, section("l", "f", &format!("{number}\n")));
            for _ in 0..6 {
                let count = lab.mail().len() as u64;
                let place = usize::try_from(prng.below(count)).expect("a place in memory");
                match prng.below(8) {
                    0 => lab.duplicate_at(place),
                    1 => lab.drop_at(place),
                    _ => lab.deliver_at(place),
                };
                let n = prng.below(3) + 1;
                lab.persist(n);
            }
        }
        lab.run(Duration::from_secs(3));
        let leader = lab.leader().expect("nobody is down");
        let number = lab.next_sequence(session);
        lab.submit(leader, session, number, section("l", "f", "end\n"));
        // Long enough for a heartbeat, too short for the next entry that carries lease time.
        lab.run(Duration::from_millis(900));
        for n in 1..=3 {
            assert_eq!(lab.node(n).digest(), lab.node(leader).digest(), "seed {seed}");
        }
    }
}
