//! Reads without a log entry: none is stale, and none waits for ever.

use alloc::vec::Vec;

use super::cluster::{Cluster, index, node};
use crate::ids::{NodeId, ReadRound};
use crate::message::{AppendEntriesReply, AppendResult, Envelope, Message, Unavailable};
use crate::raft::{Raft, Role};
use crate::time::Duration;

fn leading() -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.lead(1);
    cluster.run(Duration::from_millis(100));
    cluster
}

fn confirmed(cluster: &mut Cluster) -> Vec<ReadRound> {
    cluster.host(1).confirmed.drain(..).map(|(round, _)| round).collect()
}

#[test]
fn a_quorum_confirms_a_read() {
    let mut cluster = leading();
    let round = cluster.read(1).expect("a leader takes reads");
    assert_eq!(confirmed(&mut cluster), []);
    cluster.settle();
    assert_eq!(confirmed(&mut cluster), [round]);
}

#[test]
fn a_cluster_of_one_confirms_at_once_but_not_before_its_first_entry() {
    let mut cluster = Cluster::new(1);
    cluster.host(1).writes_at_once = false;
    cluster.sleep(Duration::from_secs(1));
    cluster.fire();
    cluster.write(1, 1);
    assert_eq!(cluster.raft(1).role(), Role::Leader);
    let round = cluster.read(1).expect("a leader takes reads");
    assert_eq!(confirmed(&mut cluster), []);
    cluster.write(1, 1);
    assert_eq!(confirmed(&mut cluster), [round]);
    let round = cluster.read(1).expect("a leader takes reads");
    assert_eq!(confirmed(&mut cluster), [round]);
}

/// etcd #7331: before its first entry is committed, a leader may not know what is.
#[test]
fn a_fresh_leader_confirms_nothing() {
    let mut cluster = leading();
    let last = cluster.propose(1).expect("a leader takes proposals");
    cluster.settle();
    let given = cluster.act(1, |raft, now| raft.transfer_leadership(now, Some(node(2))));
    assert_eq!(given, Ok(node(2)));
    while cluster.raft(2).role() != Role::Leader {
        let envelope = cluster.network.pop_front().expect("an election is going on");
        cluster.deliver(envelope);
    }
    // Its first entry reaches no disk but its own.
    cluster.host(1).writes_at_once = false;
    cluster.host(3).writes_at_once = false;
    assert!(cluster.raft(2).log_last().index > last.index);
    cluster.read(2).expect("a leader takes reads");
    cluster.settle();
    cluster.sleep(Duration::from_millis(60));
    cluster.fire();
    cluster.settle();
    assert!(cluster.host(2).confirmed.is_empty());
    cluster.write(1, usize::MAX);
    cluster.settle();
    assert_eq!(cluster.host(2).confirmed.len(), 1);
}

#[test]
fn reads_that_come_together_share_a_round_and_later_ones_wait_for_the_next() {
    let mut cluster = leading();
    let now = cluster.now;
    let first = cluster.raft(1).request_read(now);
    assert_eq!(cluster.raft(1).request_read(now), first);
    let round = cluster.read(1).expect("a leader takes reads");
    assert_eq!(Ok(round), first);
    let next = cluster.read(1).expect("a leader takes reads");
    assert!(next > round);
    cluster.settle();
    assert_eq!(confirmed(&mut cluster), [round, next]);
}

#[test]
fn reads_that_wait_are_bounded() {
    let mut cluster = leading();
    let now = cluster.now;
    let taken = (0..10).filter(|_| cluster.raft(1).request_read(now).is_ok()).count();
    assert_eq!(taken, 5);
    assert_eq!(cluster.raft(1).request_read(now), Err(Unavailable::Overloaded));
}

/// Xline #870, consul #54: a leader that was deposed without noticing.
#[test]
fn a_leader_that_is_cut_off_confirms_nothing() {
    let mut cluster = leading();
    cluster.isolate(&[1]);
    cluster.read(1).expect("it still takes itself for the leader");
    cluster.run(Duration::from_secs(3));
    assert_eq!(confirmed(&mut cluster), []);
    let refused = cluster.act(1, Raft::request_read);
    assert_eq!(refused, Err(Unavailable::NotLeader { leader: None }));
}

/// etcd-raft 63903dd: an answer to an earlier round, held back by the network, confirms nothing.
#[test]
fn an_answer_to_an_earlier_round_does_not_count() {
    let mut cluster = leading();
    cluster.read(1).expect("a leader takes reads");
    cluster.settle();
    assert_eq!(confirmed(&mut cluster).len(), 1);
    let earlier = cluster.raft(1).commit();
    let term = cluster.raft(1).term();
    cluster.isolate(&[1]);
    let round = cluster.read(1).expect("a leader takes reads");
    let reply = |from: u64, round| Envelope {
        from: node(from),
        to: NodeId::new(1),
        message: Message::AppendEntriesReply(AppendEntriesReply {
            term,
            round,
            result: AppendResult::Matched(earlier),
        }),
    };
    cluster.cut.clear();
    cluster.network.clear();
    for from in [2, 3, 2, 3] {
        cluster.deliver(reply(from, round.previous()));
    }
    assert_eq!(confirmed(&mut cluster), []);
    cluster.deliver(reply(2, round));
    assert_eq!(confirmed(&mut cluster), [round]);
}

/// The disk of a follower has no part in a read.
#[test]
fn a_read_does_not_wait_for_disks() {
    let mut cluster = leading();
    for number in 1..=3 {
        cluster.host(number).writes_at_once = false;
    }
    cluster.propose(1);
    let round = cluster.read(1).expect("a leader takes reads");
    cluster.settle();
    assert_eq!(confirmed(&mut cluster), [round]);
    assert!(cluster.raft(1).commit() < index(1000));
}
