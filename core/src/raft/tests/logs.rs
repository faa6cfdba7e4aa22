//! Logs that differ, and how they come to agree.

use super::cluster::{Cluster, entry, id, index, node};
use crate::ids::Term;
use crate::raft::Role;
use crate::time::Duration;

/// Gives a node a log whose entries have these terms, and starts it anew, in `term`.
fn restart_with(cluster: &mut Cluster, number: u64, terms: &[u64], term: u64) {
    cluster.crash(number);
    let disk = &mut cluster.host(number).disk;
    disk.entries = terms.iter().zip(1..).map(|(term, at)| entry(*term, at)).collect();
    disk.hard_state.term = Term::new(term);
    cluster.start(number);
}

/// Paper, figure 7: the logs that a new leader can find.
#[test]
fn every_follower_of_figure_7_comes_to_the_leaders_log() {
    let leader = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
    let followers: [&[u64]; 6] = [
        &[1, 1, 1, 4, 4, 5, 5, 6, 6],
        &[1, 1, 1, 4],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        &[1, 1, 1, 4, 4, 4, 4],
        &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ];
    for follower in followers {
        let mut cluster = Cluster::new(3);
        restart_with(&mut cluster, 1, &leader, 7);
        restart_with(&mut cluster, 2, &leader, 7);
        restart_with(&mut cluster, 3, follower, 7);
        cluster.run(Duration::from_secs(3));
        let newest = cluster.leader();
        cluster.propose(newest);
        cluster.run(Duration::from_secs(1));
        let last = cluster.raft(newest).log_last();
        for number in 1..=3 {
            assert_eq!(cluster.raft(number).log_last(), last, "{follower:?}");
            assert_eq!(cluster.raft(number).applied(), last, "{follower:?}");
        }
    }
}

/// Paper, figure 8: an entry of an earlier term is on a majority, and still not committed, since a
/// log with a later term could win.
#[test]
fn an_entry_of_an_earlier_term_is_not_committed_by_counting() {
    let mut cluster = Cluster::new(3);
    restart_with(&mut cluster, 1, &[1, 2], 3);
    restart_with(&mut cluster, 2, &[1, 2], 3);
    restart_with(&mut cluster, 3, &[1, 3], 3);
    cluster.crash(3);
    // Node 1 or 2 leads; its own first entry reaches no disk but its own.
    for number in [1, 2] {
        cluster.host(number).writes_at_once = false;
    }
    for _ in 0..400 {
        cluster.sleep(Duration::from_millis(10));
        cluster.fire();
        for number in [1, 2] {
            let elected = [1, 2].iter().any(|n| cluster.raft(*n).role() == Role::Leader);
            if !elected {
                cluster.write(number, usize::MAX);
            }
        }
        cluster.settle();
        if [1, 2].iter().any(|n| cluster.raft(*n).role() == Role::Leader) {
            break;
        }
    }
    let leader = [1, 2].into_iter().find(|n| cluster.raft(*n).role() == Role::Leader);
    let leader = leader.expect("one of the two is elected");
    // Its heartbeat is answered at once, with what is durable.
    cluster.sleep(Duration::from_millis(60));
    cluster.fire();
    cluster.settle();
    let matched = cluster.raft(leader).progress().map(|view| view.matched).max();
    assert_eq!(matched, Some(index(2)), "both have the entry of term 2");
    assert_eq!(cluster.raft(leader).commit(), index(0));
    // It commits together with an entry of the leader's own term.
    for number in [1, 2] {
        cluster.write(number, usize::MAX);
    }
    cluster.settle();
    assert_eq!(cluster.raft(leader).commit(), index(3));
}

#[test]
fn a_lost_tail_of_the_pipeline_is_sent_again() {
    let mut cluster = Cluster::new(3);
    cluster.lead(1);
    cluster.run(Duration::from_millis(100));
    for _ in 0..3 {
        cluster.propose(1);
        cluster.network.clear();
    }
    let last = cluster.raft(1).log_last();
    cluster.run(Duration::from_millis(200));
    assert_eq!(cluster.raft(2).durable(), last.index);
    assert_eq!(cluster.raft(1).commit(), last.index);
}

#[test]
fn the_first_entry_of_a_term_is_committed_in_one_round_trip() {
    let mut cluster = Cluster::new(3);
    cluster.lead(1);
    cluster.run(Duration::from_millis(100));
    let given = cluster.act(1, |raft, now| raft.transfer_leadership(now, Some(node(2))));
    assert_eq!(given, Ok(node(2)));
    while cluster.raft(2).role() != Role::Leader {
        let envelope = cluster.network.pop_front().expect("an election is going on");
        cluster.deliver(envelope);
    }
    let round_trip = cluster.network.len() + 2;
    for _ in 0..round_trip {
        let envelope = cluster.network.pop_front().expect("replication is going on");
        cluster.deliver(envelope);
    }
    let first = cluster.raft(2).log_last();
    assert_eq!(cluster.raft(2).commit(), first.index);
}

#[test]
fn stamps_go_on_where_the_log_left_off() {
    let mut cluster = Cluster::new(3);
    cluster.lead(1);
    cluster.run(Duration::from_secs(2));
    cluster.propose(1);
    cluster.settle();
    let before = cluster.raft(1).last_stamp();
    cluster.crash(1);
    let leader = cluster.leader();
    let (now, first) = (cluster.now, cluster.raft(leader).log_last());
    let stamp = cluster.raft(leader).entry(first.index).map(|entry| entry.stamp);
    assert_eq!(stamp, Some(before), "no time passed that nobody led");
    let lease = cluster.raft(leader).lease_now(now).expect("it leads");
    assert!(lease > before && lease <= before.after(Duration::from_secs(3)));
    assert_eq!(cluster.raft(if leader == 2 { 3 } else { 2 }).lease_now(now), None);
}

#[test]
fn entries_are_handed_out_once_and_in_order() {
    let mut cluster = Cluster::new(1);
    cluster.leader();
    let now = cluster.now;
    for _ in 0..3 {
        assert!(cluster.raft(1).propose(now, crate::message::Payload::Empty).is_ok());
    }
    let batch = cluster.raft(1).poll_action();
    let Some(crate::raft::RaftAction::Persist(batch)) = batch else { panic!("a batch") };
    cluster.raft(1).handle_persisted(now, batch.id);
    let applied: [Option<u64>; 4] = core::array::from_fn(|_| {
        cluster.raft(1).next_to_apply().map(|entry| entry.id.index.value())
    });
    assert_eq!(applied, [Some(2), Some(3), Some(4), None]);
    assert_eq!(cluster.raft(1).applied(), id(1, 4));
}
