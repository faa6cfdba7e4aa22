//! Sessions: leases over failover, retries, and what is remembered for how long.

use quorlock_core::config::{Config, Limits};
use quorlock_core::ids::{LogIndex, Sequence, SessionId};
use quorlock_core::lock::Command;
use quorlock_core::message::{
    Acked, Done, KeepAlive, Op, Rejection, Reply, Request, RequestKey, Submission, Unavailable,
};
use quorlock_core::time::{Duration, LeaseTime};
use quorlock_tests::lab::{Lab, LabOptions};

use crate::locks::{Table, renew};
use crate::solo::{Solo, append, entry};
use crate::tools::{
    acquire, append_to, file, granted, hold, holder, lab, lab_limited, lab_with, lock, section,
    snapshots_every, text, view,
};

const SECOND: Duration = Duration::from_secs(1);

/// What a connection was told of a numbered request, refusals of the number included.
fn rejection(replies: Vec<Reply>, sequence: u64) -> Option<Rejection> {
    replies.into_iter().find_map(|reply| {
        let Reply::Submitted { sequence: of, outcome: Err(rejection), .. } = reply else {
            return None;
        };
        (of == Sequence::new(sequence)).then_some(rejection)
    })
}

/// Submits a request with any number, and says how it was refused.
fn refused(lab: &mut Lab, n: u64, session: SessionId, sequence: u64, op: Op) -> Option<Rejection> {
    let conn = lab.connection(n, session);
    lab.replies(conn);
    lab.submit(n, session, sequence, op);
    lab.settle();
    rejection(lab.replies(conn), sequence)
}

/// Hazards L5 and 57 (etcd #15247, #12528): a leader that was stuck went on expiring leases, and
/// what it decided took effect under the next leader.
#[test]
fn a_deposed_leader_expires_nothing() {
    let mut lab = lab(3);
    lab.elect(1);
    let session = lab.open_for(1, "a", SECOND * 2).expect("the shortest").session;
    hold(&mut lab, 1, session, "l");
    lab.run(Duration::from_millis(1900));
    lab.partition(&[1], &[2, 3]);
    lab.run(Duration::from_millis(150));
    let expires = lab.log_of(1).len() > lab.log_of(2).len();
    assert!(expires, "the old leader has an entry that would end the session");
    lab.elect(2);
    renew(&mut lab, 2, &[session]);
    lab.heal();
    for _ in 0..5 {
        lab.run(SECOND);
        renew(&mut lab, 2, &[session]);
    }
    for n in 1..=3 {
        assert_eq!(holder(&lab, n, "l"), Some(session), "on node {n}");
    }
}

/// Hazard L5: a renewal and an expiry of one session. What comes first in the log counts.
#[test]
fn of_renewal_and_expiry_the_first_in_the_log_counts() {
    let second = 1_000_000;
    let keep_alive = |session| {
        let acked = Acked::default();
        Command::KeepAlive(vec![KeepAlive { session, acked, losses_seen: LogIndex::ZERO }])
    };
    for (renewed_at, lives) in
        [(2 * second - 1, true), (2 * second, false), (2 * second + 1, false)]
    {
        let mut table = Table::new(Limits::default());
        let session = table.open(0, "a", SECOND * 2);
        table.apply(renewed_at, Some(keep_alive(session)));
        table.apply(3 * second, None);
        assert_eq!(table.table.has_session(session), lives, "renewed at {renewed_at}");
    }
}

/// Hazard L6 (etcd #9888, #13491, #17132): a change of leaders shortened leases. Here the leader is
/// killed every half lease, for twenty leases: who renews keeps the lock, who does not loses it.
#[test]
fn leases_outlive_leaders_and_dead_clients_do_not() {
    let lease = SECOND * 4;
    let mut lab = lab(3);
    lab.elect(1);
    let live = lab.open_for(1, "live", lease).expect("a lease within the limits").session;
    let dead = lab.open_for(1, "dead", lease).expect("a lease within the limits").session;
    hold(&mut lab, 1, live, "of-live");
    hold(&mut lab, 1, dead, "of-dead");
    let mut ended_after = None;
    for round in 0..40 {
        for _ in 0..2 {
            lab.run(lease / 4);
            let leader = lab.leader().expect("an election takes less than a quarter of a lease");
            renew(&mut lab, leader, &[live]);
        }
        let leader = lab.leader().expect("it was there just now");
        assert_eq!(holder(&lab, leader, "of-live"), Some(live), "in round {round}");
        if holder(&lab, leader, "of-dead").is_none() {
            ended_after.get_or_insert(round);
        }
        lab.crash(leader);
        lab.run(lease / 4);
        lab.restart(leader);
    }
    assert!(ended_after.is_some_and(|round| round < 10), "{ended_after:?}");
}

/// Hazard L6, the other side: with no traffic at all, no entry carries lease time over the change of
/// leaders. Endless elections must not keep the lock of a dead client for ever.
#[test]
fn endless_elections_do_not_keep_a_dead_clients_lock() {
    let lease = SECOND * 4;
    let mut lab = lab(3);
    lab.elect(1);
    let dead = lab.open_for(1, "dead", lease).expect("a lease within the limits").session;
    hold(&mut lab, 1, dead, "l");
    for _ in 0..40 {
        lab.run(lease / 2);
        let leader = lab.leader().expect("an election takes less than half a lease");
        if holder(&lab, leader, "l").is_none() {
            return;
        }
        lab.crash(leader);
        lab.run(lease / 4);
        lab.restart(leader);
    }
    panic!("thirty leases later the lock is still held");
}

/// Hazard L7: the machine of the leader slept. What it stamps after that is far ahead of its time,
/// and is never committed, since the others have another leader by then.
#[test]
fn a_leader_that_slept_expires_nobody() {
    let mut node = Solo::new(3);
    node.elect(&[2, 3]);
    node.persist_all();
    node.matched(2, 1);
    node.request(crate::log::some_request(1));
    node.persist_all();
    node.matched(2, 2);
    assert_eq!(node.status().counts.sessions, 1);
    node.pass(SECOND * 288);
    node.request(crate::log::some_request(2));
    node.persist_all();
    let ahead = node.latest().entries.last().map(|entry| entry.stamp);
    assert!(ahead >= Some(LeaseTime::from_micros(288_000_000)), "{ahead:?}");
    let term = node.status().term.next();
    let mut theirs = entry(term.value(), 3);
    theirs.stamp = node.latest().entries[1].stamp;
    let before = node.latest().entries[1].id;
    node.receive(2, append(term.value(), before, vec![theirs], 3));
    node.persist_all();
    assert_eq!(node.status().commit, LogIndex::new(3));
    assert_eq!(node.status().counts.sessions, 1, "the session has its lease");
}

/// Hazard 58 (TiKV #964, etcd #6005, nebula #2723, cockroach #133764): leases went by the clock of
/// whoever led. Here two nodes whose clocks have nothing in common apply the same log.
#[test]
fn the_clock_of_a_node_has_no_part_in_its_state() {
    let mut early = Solo::new(3);
    let mut late = Solo::new(3);
    late.now = quorlock_core::time::Time::from_micros(1 << 50);
    let opening = |index: u64| {
        let (nonce, label) = (quorlock_tests::lab::nonce("a"), quorlock_tests::lab::label("a"));
        let command = Command::OpenSession { nonce, label, lease: SECOND * 2 };
        let bytes = quorlock_core::codec::encode(&command).into();
        let payload = quorlock_core::message::Payload::Command(bytes);
        quorlock_core::message::Entry { payload, ..entry(1, index) }
    };
    let mut log = vec![opening(1)];
    for (index, millis) in [(2, 1999), (3, 2000), (4, 2001), (5, 2002)] {
        let stamp = LeaseTime::from_micros(millis * 1000);
        log.push(quorlock_core::message::Entry { stamp, ..entry(1, index) });
    }
    let mut before = quorlock_core::ids::EntryId::ZERO;
    for entry in log {
        let id = entry.id;
        for node in [&mut early, &mut late] {
            node.receive(2, append(1, before, vec![entry.clone()], id.index.value()));
            node.persist_all();
        }
        // One of the clocks jumps by an hour with every entry.
        late.pass(SECOND * 3600);
        before = id;
        assert_eq!(early.node.digest(), late.node.digest(), "at {id}");
    }
    assert_eq!(early.status().counts.sessions, 0, "by the stamps, the lease is over");
}

/// Hazard 58, for stamps: a leader goes on from the last stamp in its log, whatever its clock says.
#[test]
fn lease_time_goes_on_where_the_log_ends() {
    let mut node = Solo::new(3);
    node.now = quorlock_core::time::Time::from_micros(1 << 50);
    let hour = LeaseTime::from_micros(3_600_000_000);
    let last = quorlock_core::message::Entry { stamp: hour, ..entry(1, 1) };
    node.receive(2, append(1, quorlock_core::ids::EntryId::ZERO, vec![last], 0));
    node.persist_all();
    node.elect(&[2, 3]);
    node.pass(SECOND);
    node.request(crate::log::some_request(1));
    let stamps: Vec<LeaseTime> = node.latest().entries.iter().map(|entry| entry.stamp).collect();
    assert_eq!(stamps, [hour, hour, hour.after(SECOND)]);
}

/// Hazards L9 and 63 (Curvine #676, RATIS-1873, Ra #145, openraft PR 2096): the reply got lost, the
/// client asked the next leader again, and it was done twice. Here for every op.
#[test]
fn a_request_repeated_to_the_next_leader_is_done_once() {
    for (name, op) in ops() {
        // With a snapshot between the two, and without.
        for config in [Config::default(), snapshots_every(1)] {
            let mut lab = lab_with(3, config);
            lab.elect(1);
            let (a, b) = (lab.open(1, "a"), lab.open(1, "b"));
            let token = hold(&mut lab, 1, a, "held");
            hold(&mut lab, 1, b, "busy");
            assert_eq!(lab.perform(1, a, acquire("busy")), None);
            let op = op(token);
            let first = lab.perform(1, a, op.clone());
            let seen = |lab: &Lab, n: u64| {
                let files = lab.lab_node(n).files().map(|(_, bytes)| bytes.to_vec());
                let files: Vec<Vec<u8>> = files.collect();
                (lab.status(n).counts, files, ["free", "held", "busy"].map(|it| holder(lab, n, it)))
            };
            let before = seen(&lab, 1);
            lab.crash(1);
            lab.elect(2);
            let number = lab.next_sequence(a) - 1;
            for _ in 0..3 {
                lab.submit(2, a, number, op.clone());
                lab.settle();
            }
            // The lab itself compares the outcomes.
            assert_eq!(lab.outcome(a, number), first, "{name}");
            assert_eq!(seen(&lab, 2), before, "{name}");
            let busy: Vec<SessionId> =
                view(&lab, 2, "busy").queue.iter().map(|waiter| waiter.session).collect();
            assert!(busy.len() <= 1, "{name}: one place in the queue: {busy:?}");
        }
    }
}

type MakeOp = fn(quorlock_core::ids::FencingToken) -> Op;

/// One of each op, given the token with which `held` is held; request 2 waits for `busy`.
fn ops() -> [(&'static str, MakeOp); 8] {
    [
        ("acquire", |_| acquire("free")),
        ("acquire again", |_| acquire("held")),
        ("cancel", |_| Op::Cancel { waiting: Sequence::new(2) }),
        ("append", |token| append_to("held", token, "f", "line\n")),
        ("release", |token| Op::Release {
            lock: lock("held"),
            token,
            appends: vec![crate::tools::file_append("f", "last\n")],
        }),
        ("section", |_| section("free", "g", "line\n")),
        ("create", |_| Op::CreateFile { file: file("h"), guard: lock("free") }),
        ("break", |token| Op::Break { lock: lock("held"), token, reason: text("why") }),
    ]
}

/// Hazard L9, when the first leader had not committed it: it is done once by whichever entry comes
/// first, also when both of them are in the log.
#[test]
fn a_request_that_is_in_the_log_twice_is_done_once() {
    let mut lab = lab(3);
    lab.elect(1);
    let session = lab.open(1, "a");
    let token = hold(&mut lab, 1, session, "l");
    let op = append_to("l", token, "f", "line\n");
    lab.hold_writes(1, true);
    lab.cut(2, 1);
    lab.cut(3, 1);
    for _ in 0..3 {
        lab.submit(1, session, 2, op.clone());
    }
    lab.settle();
    assert_eq!(lab.outcome(session, 2), None, "the others have it, and could not say so");
    lab.crash(1);
    lab.elect(2);
    lab.submit(2, session, 2, op);
    lab.settle();
    assert_eq!(lab.outcome(session, 2), Some(Ok(Done::Appended { offset: 0 })));
    assert_eq!(lab.lab_node(2).file("f"), Some(&b"line\n"[..]));
}

/// Hazard L20 (RATIS-1873): a request outside of the window, or repeated later than it is
/// remembered, was done again. Here each case has its own refusal, and changes nothing.
#[test]
fn numbers_outside_of_the_window_are_refused_by_name() {
    let mut lab = lab_limited(3, Limits { window_max: 3, ..Limits::default() });
    lab.elect(1);
    let session = lab.open(1, "a");
    let token = hold(&mut lab, 1, session, "l");
    let op = || append_to("l", token, "f", "line\n");
    let expected = Sequence::new(2);
    let gap = Some(Rejection::OutOfOrder { expected });
    for number in [3, 4, 100, Sequence::MAX.value()] {
        assert_eq!(refused(&mut lab, 1, session, number, op()), gap);
        assert_eq!(lab.status(1).counts.files, 0, "and nothing is done");
    }
    assert_eq!(refused(&mut lab, 1, session, 2, op()), None);
    assert_eq!(refused(&mut lab, 1, session, 3, op()), None);
    assert_eq!(refused(&mut lab, 1, session, 4, op()), Some(Rejection::WindowFull));
    // Acknowledged, and so forgotten.
    let acked = Acked { through: Sequence::new(2), except: Vec::new() };
    lab.submit_acked(1, session, 4, acked, op());
    lab.settle();
    assert_eq!(refused(&mut lab, 1, session, 2, op()), Some(Rejection::ResultEvicted));
    assert_eq!(refused(&mut lab, 1, session, 0, op()), Some(Rejection::ResultEvicted));
    lab.run(SECOND * 11);
    assert_eq!(refused(&mut lab, 1, session, 5, op()), Some(Rejection::SessionUnknown));
    assert_eq!(refused(&mut lab, 1, session, 2, op()), Some(Rejection::SessionUnknown));
    assert_eq!(lab.lab_node(1).file("f"), Some(&b"line\nline\nline\n"[..]), "three were done");
}

/// Hazard L20, after a snapshot was restored: what is remembered is in it.
#[test]
fn a_snapshot_remembers_outcomes() {
    let mut lab = lab_with(3, snapshots_every(1));
    lab.elect(1);
    lab.isolate(3);
    let session = lab.open(1, "a");
    let token = hold(&mut lab, 1, session, "l");
    lab.perform(1, session, append_to("l", token, "f", "line\n"));
    lab.heal();
    lab.run(SECOND * 2);
    lab.elect(3);
    assert_eq!(lab.log_of(3).iter().filter(|id| id.index < LogIndex::new(5)).count(), 0);
    lab.submit(3, session, 2, append_to("l", token, "f", "line\n"));
    lab.settle();
    assert_eq!(lab.outcome(session, 2), Some(Ok(Done::Appended { offset: 0 })));
    assert_eq!(lab.lab_node(3).file("f"), Some(&b"line\n"[..]));
}

/// Hazard L21: a session that comes after another, of the same client, is another session; what was
/// sent in the name of the old one does nothing.
#[test]
fn a_request_of_an_earlier_session_does_nothing() {
    let mut lab = lab(3);
    lab.elect(1);
    let old = lab.open(1, "a");
    let token = hold(&mut lab, 1, old, "l");
    let recorded = Request::Submit(Submission {
        session: old,
        sequence: Sequence::new(2),
        acked: Acked::default(),
        op: append_to("l", token, "f", "late\n"),
    });
    lab.run(SECOND * 11);
    let new = lab.open(1, "a");
    assert!(new > old, "an id is never used again");
    hold(&mut lab, 1, new, "l");
    let conn = lab.new_connection();
    lab.request(1, conn, recorded);
    lab.settle();
    assert_eq!(rejection(lab.replies(conn), 2), Some(Rejection::SessionUnknown));
    assert_eq!(lab.lab_node(1).file("f"), None);
}

/// Hazards L22 and N21: what is remembered of sessions grew with every client that came and went.
#[test]
fn sessions_that_are_over_take_no_memory() {
    let mut table = Table::new(Limits { history_max: 100, ..Limits::default() });
    let mut size = None;
    for number in 0..100_000_u64 {
        let session = table.open(number, &format!("{}", number % 7), SECOND * 2);
        table.submit(number, session, section("l", "f", ""));
        table.submit(number, session, Op::CloseSession);
        if number % 10_000 == 9_999 {
            let bytes = table.table.encode().len();
            let before = *size.get_or_insert(bytes);
            assert!(bytes <= before + 200, "{bytes} bytes after {before}");
        }
    }
    assert_eq!(table.table.counts().sessions, 0);
}

/// Hazard L23: keep-alives wait behind bulk appends until their sessions expire. When the log takes
/// no more requests, it still takes the one entry that renews everybody.
#[test]
fn keep_alives_have_room_when_requests_have_none() {
    let few = Config { uncommitted_entries_max: 8, ..Config::default() };
    let mut lab = lab_with(3, few);
    lab.elect(1);
    let (busy, quiet) = (lab.open(1, "busy"), lab.open(1, "quiet"));
    let token = hold(&mut lab, 1, busy, "l");
    for n in 1..=3 {
        lab.hold_writes(n, true);
    }
    for number in 2..30 {
        lab.submit(1, busy, number, append_to("l", token, "f", "bulk\n"));
    }
    let conn = lab.connection(1, quiet);
    lab.replies(conn);
    lab.keep_alive(1, quiet, Acked::default(), LogIndex::ZERO);
    lab.advance(Duration::from_millis(50));
    let refused = lab.replies(conn);
    assert_eq!(refused, [], "it is not turned away for the load of others");
    for n in 1..=3 {
        lab.hold_writes(n, false);
    }
    lab.settle();
    assert!(matches!(lab.replies(conn)[..], [Reply::KeptAlive { result: Ok(_), .. }]));
}

/// Hazard L23, for the bytes of the shared entry: one client with large keep-alives has those of all
/// others refused.
#[test]
fn large_keep_alives_do_not_crowd_out_others() {
    let mut lab = lab(1);
    lab.elect(1);
    let (greedy, quiet) = (lab.open(1, "greedy"), lab.open(1, "quiet"));
    let conn = lab.connection(1, quiet);
    lab.replies(conn);
    let numbers = (1..=1024).map(|number| Sequence::new(Sequence::MAX.value() - 2000 + number));
    let acked = Acked { through: Sequence::MAX, except: numbers.collect() };
    for _ in 0..1300 {
        lab.keep_alive(1, greedy, acked.clone(), LogIndex::ZERO);
    }
    lab.keep_alive(1, quiet, Acked::default(), LogIndex::ZERO);
    lab.run(Duration::from_millis(100));
    let replies = lab.replies(conn);
    let kept = matches!(replies[..], [Reply::KeptAlive { result: Ok(_), .. }]);
    assert!(kept, "the keep-alive of a client with nothing to say: {replies:?}");
}

/// Hazard L24: after an hour without a quorum, all sessions were expired at once by the first leader.
/// Time passes only while somebody leads; then what is due passes in parts.
#[test]
fn after_a_long_outage_sessions_have_their_lease_and_then_end_in_parts() {
    let limits = Limits { expiries_per_entry_max: 10, ..Limits::default() };
    let mut lab = Lab::new(LabOptions { limits, ..LabOptions::default() });
    lab.elect(1);
    for number in 0..60 {
        lab.open(1, &format!("client-{number}"));
    }
    lab.crash(2);
    lab.crash(3);
    lab.run(SECOND * 3600);
    lab.restart(2);
    lab.restart(3);
    lab.elect(2);
    assert_eq!(lab.status(2).counts.sessions, 60, "nobody could renew: nobody is late");
    let mut before = 60;
    lab.run(SECOND * 9);
    assert_eq!(lab.status(2).counts.sessions, 60);
    for _ in 0..1000 {
        lab.timeout(2);
        lab.settle();
        let left = lab.status(2).counts.sessions;
        assert!(before - left <= 10, "{before} sessions became {left} by one entry");
        before = left;
        if left == 0 {
            return;
        }
    }
    panic!("{before} sessions never end");
}

/// Hazard L21 and 63: an opening that is repeated finds the session of the first.
#[test]
fn a_repeated_opening_opens_one_session() {
    let mut lab = lab(3);
    lab.elect(1);
    let first = lab.open(1, "a");
    assert_eq!(lab.open(1, "a"), first);
    lab.elect(2);
    assert_eq!(lab.open(2, "a"), first);
    assert_eq!(lab.status(2).counts.sessions, 1);
    granted(lab.perform(2, first, acquire("l")));
    lab.perform(2, first, Op::CloseSession);
    assert!(lab.open(2, "a") > first, "once it is over, the nonce opens another");
}

/// Hazard 62, for requests: none is dropped without a word when the leader changes.
#[test]
fn every_request_under_way_is_answered_when_leadership_is_lost() {
    let mut lab = lab(3);
    lab.elect(1);
    let session = lab.open(1, "a");
    lab.partition(&[1], &[2, 3]);
    let conn = lab.connection(1, session);
    lab.replies(conn);
    for number in 1..=5 {
        lab.submit(1, session, number, acquire(&format!("l{number}")));
    }
    lab.keep_alive(1, session, Acked::default(), LogIndex::ZERO);
    lab.run(SECOND);
    let replies = lab.replies(conn);
    assert_eq!(replies.len(), 6, "{replies:?}");
    for (reply, number) in replies.iter().zip(1..=5) {
        let Reply::Unavailable { request, reason } = reply else { panic!("{reply:?}") };
        assert_eq!(*request, RequestKey::Submit(session, Sequence::new(number)));
        assert!(matches!(reason, Unavailable::LeadershipLost { .. }));
    }
}
