//! The thesis, 10.2.1: writing to the leader's disk in parallel.

use quorlock_core::message::{Done, Reply};
use quorlock_core::time::Duration;

use crate::locking::{cluster, hold, holder, open_session, try_acquire};
use crate::solo::{HEARTBEAT, Solo, append_entries, append_to, at, ids, matched, vote};

/// "The leader can write to its disk in parallel with replicating to the followers and them writing
/// to their disks." (10.2.1)
#[test]
fn leader_replicates_before_its_own_disk_has_the_entry() {
    let mut leader = Solo::settled_leader(3, 1, &[]);
    leader.hold_disk();
    for index in 2..5 {
        let sent = leader.request(open_session(index));
        for peer in [2, 3] {
            assert_eq!(ids(&append_to(&sent, peer).entries), [at(index, 1)]);
        }
    }
    assert_eq!(leader.log(), [1], "none of it is durable here");
    assert_eq!(leader.take_written().len(), 3, "but it is on its way");
}

/// "To handle this simply, the leader uses its own match index to indicate the latest entry to have
/// been durably written to its disk." (10.2.1)
#[test]
fn leader_counts_itself_by_what_its_disk_has() {
    let mut leader = Solo::settled_leader(3, 1, &[]);
    leader.hold_disk();
    leader.request(open_session(2));
    leader.request(open_session(3));
    leader.receive(2, matched(1, 3));
    assert_eq!((leader.commit(), leader.status().durable.value()), (1, 1));
    leader.persist();
    assert_eq!((leader.commit(), leader.status().durable.value()), (2, 2));
    leader.persist();
    assert_eq!((leader.commit(), leader.status().durable.value()), (3, 3));
}

/// "Once an entry in the leader's current term is covered by a majority of match indexes, the leader
/// can advance its commit index." (10.2.1)
#[test]
fn commit_index_advances_to_what_a_majority_of_match_indexes_covers() {
    let mut leader = Solo::settled_leader(5, 1, &[]);
    for name in 0..6 {
        leader.request(open_session(name));
    }
    // The leader has 7; each acknowledgement, and the third largest match index after it.
    for (peer, index, commit) in [(2, 7, 1), (3, 4, 4), (4, 5, 5), (5, 3, 5), (3, 6, 6), (4, 7, 7)]
    {
        leader.receive(peer, matched(1, index));
        assert_eq!(leader.commit(), commit, "after node {peer} has {index}");
    }
}

/// "The leader may even commit an entry before it has been written to its own disk, if a majority of
/// followers have written it to their disks." (10.2.1)
#[test]
fn leader_may_commit_an_entry_before_its_own_disk_has_it() {
    let mut leader = Solo::settled_leader(5, 1, &[]);
    leader.hold_disk();
    leader.request(open_session(2));
    leader.receive(2, matched(1, 2));
    leader.receive(3, matched(1, 2));
    assert_eq!(leader.commit(), 1, "two of five");
    leader.receive(4, matched(1, 2));
    assert_eq!((leader.commit(), leader.log()), (2, vec![1]));
    assert!(matches!(leader.take_replies()[..], [Reply::Opened { result: Ok(_), .. }]));
}

/// "[...] this is still safe." (10.2.1): the entry survives the leader's crash.
#[test]
fn entry_that_the_leader_has_not_written_survives_its_crash() {
    let mut lab = cluster(3);
    let session = lab.open(1, "alice");
    lab.hold_writes(1, true);
    let token = hold(&mut lab, 1, session, "printer");
    let committed = lab.status(1).commit;
    lab.crash(1);
    lab.hold_writes(1, false);
    let on_disk = lab.lab_node(1).durable().entries.last().map(|entry| entry.id.index);
    assert!(on_disk < Some(committed), "the leader told a client of what it has not written");
    lab.restart(1);
    lab.run(Duration::from_secs(2));
    let leader = lab.leader().expect("one of those that have it is elected");
    assert_ne!(leader, 1);
    for n in lab.ids() {
        assert_eq!(holder(&lab, n, "printer"), Some(session), "node {n}");
    }
    let again = lab.perform(leader, session, try_acquire("printer"));
    let predecessor = None;
    assert_eq!(again, Some(Ok(Done::Granted { token, predecessor })), "it is the same hold");
}

/// "Then, the followers write the entry to their disks" (10.2.1), and say so only when they have: the
/// shortcut is the leader's alone.
#[test]
fn follower_acknowledges_only_what_its_disk_has() {
    let mut follower = Solo::with_log(3, 1, &[1]);
    follower.hold_disk();
    assert_eq!(follower.receive(2, append_entries(1, at(1, 1), &[1], 0)), []);
    assert_eq!(follower.receive(2, append_entries(1, at(2, 1), &[1], 0)), []);
    assert_eq!(follower.persist(), [(2, matched(1, 2))]);
    assert_eq!(follower.persist(), [(2, matched(1, 3))]);
}

/// A leader counts itself for the first entry of its term, too, only when that is durable (10.2.1):
/// what its disk had before the election says nothing about it.
#[test]
fn first_entry_of_a_term_counts_when_it_is_durable() {
    let mut leader = Solo::with_log(2, 3, &[1, 3]);
    leader.become_candidate();
    leader.hold_disk();
    leader.receive(2, vote(4));
    leader.receive(2, matched(4, 3));
    leader.advance(HEARTBEAT);
    assert_eq!(leader.commit(), 0);
    leader.persist();
    assert_eq!(leader.commit(), 3);
}
