//! Every limit of [`Config`] is reached by something that goes on beyond it. Those of `Limits` are
//! reached in the suite `lock_properties`, where a model says what must happen.

use quorlock_core::config::{Config, Limits};
use quorlock_core::ids::{EntryId, LogIndex, RequestId, Sequence, SessionId};
use quorlock_core::lock::{Command, KEEP_ALIVES_MAX};
use quorlock_core::message::{
    Acked, AppendEntries, Consistency, Entry, InstallSnapshot, KeepAlive, Message, Op, Payload,
    Query, Reply, Request, Submission, Unavailable, Wait,
};
use quorlock_core::node::{Event, Output, Timer};
use quorlock_core::raft::{RaftTimer, Role};

use crate::log::some_request;
use crate::solo::{Solo, append, id};
use crate::tools::{file_append, lock, snapshots_every};

/// A leader of three with its first entry committed everywhere.
fn leader(config: Config) -> Solo {
    let mut node = Solo::with(3, config);
    node.elect(&[2, 3]);
    node.persist_all();
    node.matched(2, 1);
    node.matched(3, 1);
    node.sent();
    node
}

/// A request whose entry costs about this many bytes.
fn request_of(bytes: usize) -> Request {
    let append = file_append("f", &"x".repeat(bytes));
    let op = Op::Section { lock: lock("l"), wait: Wait::Try, appends: vec![append] };
    let (session, sequence) = (SessionId::MAX, Sequence::new(1));
    Request::Submit(Submission { session, sequence, acked: Acked::default(), op })
}

fn appends(messages: Vec<Message>) -> Vec<AppendEntries> {
    let of =
        |message| if let Message::AppendEntries(append) = message { Some(append) } else { None };
    let appends = messages.into_iter().filter_map(of);
    appends.filter(|append| !append.entries.is_empty()).collect()
}

fn cost(entries: &[Entry]) -> u64 {
    entries.iter().map(Entry::cost_bytes).sum()
}

/// How many of the replies turn a request away because there are too many.
fn overloaded(node: &mut Solo) -> usize {
    let is =
        |reply: &Reply| matches!(reply, Reply::Unavailable { reason: Unavailable::Overloaded, .. });
    node.replies().iter().filter(|reply| is(reply)).count()
}

#[test]
fn message_entries_max() {
    let mut node = leader(Config { message_entries_max: 3, ..Config::default() });
    // Node 2 has the first entry only, and is asked for what it has while there are many.
    for number in 0..10 {
        node.node.handle_input(
            node.now,
            quorlock_core::node::Input::Request {
                conn: quorlock_core::ids::ConnectionId::new(1),
                request: some_request(number),
            },
        );
    }
    node.wake();
    let sizes: Vec<usize> =
        appends(node.sent_to(2)).iter().map(|append| append.entries.len()).collect();
    assert_eq!(sizes, [3, 3, 3, 1]);
}

#[test]
fn message_bytes_max() {
    let mut node = leader(Config { message_bytes_max: 1024, ..Config::default() });
    for bytes in [300, 300, 300, 5000, 300] {
        let conn = quorlock_core::ids::ConnectionId::new(1);
        let request = request_of(bytes);
        node.node.handle_input(node.now, quorlock_core::node::Input::Request { conn, request });
    }
    node.wake();
    let messages = appends(node.sent_to(2));
    let sent: usize = messages.iter().map(|append| append.entries.len()).sum();
    assert_eq!(sent, 5);
    for append in messages {
        let fits = cost(&append.entries) <= 1024 || append.entries.len() == 1;
        assert!(fits, "only one that is too large by itself is sent alone: {append:?}");
    }
}

#[test]
fn in_flight_entries_max() {
    let config = Config { message_entries_max: 2, in_flight_entries_max: 5, ..Config::default() };
    let mut node = leader(config);
    for number in 0..50 {
        node.request(some_request(number));
    }
    let sent: usize = appends(node.sent_to(2)).iter().map(|append| append.entries.len()).sum();
    assert_eq!(sent, 5, "whoever does not answer is sent no more than this");
    for _ in 0..20 {
        node.wake();
    }
    let sent = appends(node.sent_to(2));
    assert!(sent.is_empty(), "nor by signs of life");
}

#[test]
fn in_flight_bytes_max() {
    let config = Config { message_bytes_max: 1024, in_flight_bytes_max: 3000, ..Config::default() };
    let mut node = leader(config);
    for _ in 0..20 {
        node.request(request_of(500));
    }
    let sent = appends(node.sent_to(2));
    let bytes: u64 = sent.iter().map(|append| cost(&append.entries)).sum();
    assert!((2000..=3000).contains(&bytes), "{bytes} bytes are on their way");
    // One that is larger than the whole window goes alone.
    let mut node =
        leader(Config { message_bytes_max: 1024, in_flight_bytes_max: 1024, ..Config::default() });
    node.request(request_of(5000));
    node.request(request_of(10));
    assert_eq!(appends(node.sent_to(2)).len(), 1);
    node.matched(2, 2);
    assert_eq!(appends(node.sent_to(2)).len(), 1, "and then the next");
}

#[test]
fn snapshot_piece_bytes() {
    let mut node = Solo::with(3, Config { snapshot_piece_bytes: 20, ..snapshots_every(2) });
    node.elect(&[2, 3]);
    for number in 0..6 {
        node.request(some_request(number));
        node.persist_all();
        node.matched(3, 2 + number);
    }
    let mut pieces = Vec::new();
    for _ in 0..200 {
        node.wake();
        for message in node.sent_to(2) {
            if let Message::InstallSnapshot(install) = message {
                let InstallSnapshot { meta, offset, piece, .. } = install;
                let length = offset + piece.len() as u64;
                pieces.push((piece.len(), length == meta.data_length));
                let reply = quorlock_core::message::InstallSnapshotReply {
                    term: node.status().term,
                    last: meta.last,
                    result: quorlock_core::message::SnapshotResult::Received { length },
                };
                node.receive(2, Message::InstallSnapshotReply(reply));
            }
        }
        if pieces.last().is_some_and(|(_, is_last)| *is_last) {
            break;
        }
    }
    assert!(pieces.len() > 2, "{pieces:?}");
    assert!(pieces.iter().all(|(length, is_last)| *length == 20 || *is_last && *length <= 20));
}

#[test]
fn uncommitted_entries_max() {
    let mut node = leader(Config { uncommitted_entries_max: 4, ..Config::default() });
    for number in 0..10 {
        node.request(some_request(number));
    }
    assert_eq!(overloaded(&mut node), 6);
    node.persist_all();
    node.matched(2, 5);
    node.request(some_request(11));
    assert_eq!(overloaded(&mut node), 0, "there is room again");
}

#[test]
fn uncommitted_bytes_max() {
    let mut node = leader(Config { uncommitted_bytes_max: 1024, ..Config::default() });
    node.request(request_of(5000));
    assert_eq!(overloaded(&mut node), 0, "a single one is taken, however large");
    node.request(some_request(1));
    assert_eq!(overloaded(&mut node), 1);
    node.persist_all();
    node.matched(2, 2);
    for _ in 0..3 {
        node.request(request_of(300));
    }
    assert_eq!(overloaded(&mut node), 1, "two of them fit");
}

#[test]
fn pending_reads_max() {
    let mut node = leader(Config { pending_reads_max: 3, ..Config::default() });
    let read = |number| Request::Read {
        id: RequestId::new(number),
        query: Query::Lock { lock: lock("l") },
        consistency: Consistency::Linearizable,
    };
    for number in 0..10 {
        node.request(read(number));
    }
    assert_eq!(overloaded(&mut node), 7);
}

#[test]
fn snapshot_entries_and_retained_entries() {
    let config = Config { snapshot_entries: 10, retained_entries: 4, ..Config::default() };
    let mut node = Solo::alone(config);
    for number in 0..25 {
        node.request(some_request(number));
        node.persist_all();
        assert!(node.disk.entries.len() <= 4 + 11, "{}", node.disk.entries.len());
    }
    let taken = node.others.iter().filter_map(|output| {
        let Output::Event(Event::SnapshotTaken { last }) = output else { return None };
        Some(last.index.value())
    });
    assert_eq!(taken.collect::<Vec<u64>>(), [10, 20]);
    assert_eq!(node.status().first, LogIndex::new(17), "four are kept below the snapshot at 20");
}

#[test]
fn heartbeat_interval_and_election_timeouts() {
    let config = Config::default();
    let (min, max) = (config.election_timeout_min, config.election_timeout_max);
    let mut node = Solo::new(3);
    let mut waits = Vec::new();
    for _ in 0..50 {
        node.receive(2, append(1, EntryId::ZERO, Vec::new(), 0));
        let (deadline, timer) = node.node.poll_timeout().expect("it waits for its leader");
        assert_eq!(timer, Timer::Raft(RaftTimer::Election));
        waits.push(deadline.since(node.now));
    }
    assert!(waits.iter().all(|wait| (min..max).contains(wait)), "{waits:?}");
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() > 40, "each is drawn anew: {waits:?}");
    let mut node = leader(config.clone());
    let before = node.now;
    node.wake();
    assert_eq!(node.now.since(before), config.heartbeat_interval);
    assert_eq!(node.sent().len(), 2, "one to each");
    // Nobody answers: so long, and no longer.
    node.wake_until("the end of its leadership", |node| node.status().role != Role::Leader);
    assert_eq!(node.now.since(before), max);
}

#[test]
fn write_stall_timeout() {
    let config = Config::default();
    let mut node = leader(config.clone());
    node.request(some_request(1));
    let before = node.now;
    // The others answer, so that it is not for want of a quorum.
    for _ in 0..100 {
        node.wake();
        for peer in [2, 3] {
            if node.status().role == Role::Leader {
                node.matched(peer, 2);
            }
        }
        if node.status().role != Role::Leader {
            break;
        }
    }
    assert_eq!(node.now.since(before), config.write_stall_timeout);
    for _ in 0..10 {
        node.wake();
        assert_eq!(node.status().role, Role::Follower, "it does not campaign");
    }
    node.persist_all();
    node.pre_campaign();
}

/// Keep-alives of one interval share an entry, and so many of them fill it.
#[test]
fn keep_alive_interval_and_keep_alives_max() {
    let mut node = leader(Config::default());
    let keep_alive = |number| {
        let (session, acked) = (SessionId::new(1 + number), Acked::default());
        let keep_alive = KeepAlive { session, acked, losses_seen: LogIndex::ZERO };
        Request::KeepAlive { id: RequestId::new(number), keep_alive }
    };
    for number in 0..10 {
        node.request(keep_alive(number));
    }
    assert_eq!(node.status().last, id(1, 1), "they are collected");
    let (deadline, timer) = node.node.poll_timeout().expect("for so long");
    assert_eq!(timer, Timer::KeepAlives);
    assert_eq!(deadline.since(node.now), Config::default().keep_alive_interval);
    node.wake();
    assert_eq!(node.status().last, id(1, 2));
    for number in 0..=KEEP_ALIVES_MAX as u64 {
        node.request(keep_alive(number));
    }
    assert_eq!(node.status().last, id(1, 3), "a full entry waits for nothing");
    let entries = node.latest().entries;
    let counts: Vec<usize> = entries
        .iter()
        .filter_map(|entry| match &entry.payload {
            Payload::Command(bytes) => match quorlock_core::codec::decode(bytes) {
                Ok(Command::KeepAlive(all)) => Some(all.len()),
                other => panic!("they are keep-alives: {other:?}"),
            },
            Payload::Empty | Payload::Membership(_) => None,
        })
        .collect();
    assert_eq!(counts, [10, KEEP_ALIVES_MAX]);
}

/// Nodes tell each other by a digest that they have the same limits.
#[test]
fn every_limit_is_in_the_digest() {
    let default = Limits::default();
    let changes: [fn(&mut Limits); 14] = [
        |limits| limits.sessions_max -= 1,
        |limits| limits.session_lease_min *= 2,
        |limits| limits.session_lease_max *= 2,
        |limits| limits.window_max -= 1,
        |limits| limits.pending_bytes_max -= 1,
        |limits| limits.places_per_session_max -= 1,
        |limits| limits.locks_max -= 1,
        |limits| limits.waiters_per_lock_max -= 1,
        |limits| limits.files_max -= 1,
        |limits| limits.append_bytes_max -= 1,
        |limits| limits.appends_per_request_max -= 1,
        |limits| limits.history_per_lock_max -= 1,
        |limits| limits.history_max -= 1,
        |limits| limits.expiries_per_entry_max -= 1,
    ];
    let mut digests = vec![default.digest()];
    for change in changes {
        let mut limits = default.clone();
        change(&mut limits);
        assert_eq!(limits.check(), Ok(()));
        digests.push(limits.digest());
    }
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), 15);
}
