//! The paper, 5.5: follower and candidate crashes.

use quorlock_core::ids::{EntryId, NodeId};
use quorlock_core::message::HardState;
use quorlock_core::time::Duration;

use crate::locking::{cluster, hold};
use crate::solo::{Solo, append_entries, at, heartbeat, matched, request_vote, vote};

/// "If the crashed server restarts, then the RPC will complete successfully." (5.5)
#[test]
fn request_to_a_crashed_server_completes_when_it_restarts() {
    let mut lab = cluster(3);
    let session = lab.open(1, "alice");
    lab.crash(3);
    hold(&mut lab, 1, session, "printer");
    lab.run(Duration::from_secs(30));
    lab.restart(3);
    lab.run(Duration::from_millis(200));
    assert_eq!(lab.log_of(3), lab.log_of(1));
    assert_eq!(lab.status(3).leader, Some(NodeId::new(1)), "nothing was disturbed");
}

/// "If a server crashes after completing an RPC but before responding, then it will receive the same
/// RPC again after it restarts. Raft RPCs are idempotent, so this causes no harm." (5.5)
#[test]
fn request_that_comes_again_after_a_crash_causes_no_harm() {
    let append = append_entries(4, at(1, 1), &[4, 4], 2);
    let mut follower = Solo::with_log(3, 3, &[1, 3]);
    follower.receive(2, append.clone());
    let disk = follower.disk().clone();
    let mut follower = follower.restart();
    assert_eq!(follower.receive(2, append), [(2, matched(4, 3))]);
    assert_eq!(*follower.disk(), disk);

    let mut voter = Solo::new(3);
    voter.receive(2, request_vote(1, EntryId::ZERO));
    let mut voter = voter.restart();
    assert_eq!(voter.receive(2, request_vote(1, EntryId::ZERO)), [(2, vote(1))]);
    let hard_state = HardState { vote: Some(NodeId::new(2)), ..voter.disk().hard_state };
    assert_eq!(voter.disk().hard_state, hard_state);
}

/// "If a follower receives an AppendEntries request that includes log entries already present in its
/// log, it ignores those entries in the new request." (5.5)
#[test]
fn entries_that_are_present_already_are_ignored() {
    let mut follower = Solo::new(3);
    follower.receive(2, append_entries(2, EntryId::ZERO, &[1, 1, 2, 2], 1));
    follower.take_written();
    let requests = [
        append_entries(2, EntryId::ZERO, &[1, 1, 2, 2], 1),
        append_entries(2, at(1, 1), &[1], 1),
        append_entries(2, EntryId::ZERO, &[1], 1),
        heartbeat(2, at(2, 1), 1),
    ];
    for request in requests {
        follower.receive(2, request);
        assert_eq!(follower.log(), [1, 1, 2, 2], "what follows them stays");
    }
    assert_eq!(follower.take_written(), [], "and nothing is written again");
    let answer = follower.receive(2, append_entries(2, at(3, 2), &[2, 2], 1));
    assert_eq!(answer, [(2, matched(2, 5))]);
    assert_eq!(follower.log(), [1, 1, 2, 2, 2], "only what is new is added");
}
