//! Membership, as far as nodes hear of it through the log and snapshots. Nothing changes members
//! yet; what is here is what a change must be able to rely on.

use quorlock_core::ids::{EntryId, LogIndex, NodeId, Term};
use quorlock_core::membership::Membership;
use quorlock_core::message::{AppendEntries, Entry, Message, Payload, VoteReply};
use quorlock_core::raft::{DropReason, Role};
use quorlock_core::time::Duration;

use crate::solo::{Solo, append, bootstrap, entries, entry, id, vote_request};
use quorlock_core::config::Config;

fn voters(last: u64) -> Membership {
    Membership::new((1..=last).map(NodeId::new)).expect("1 to 15 voters")
}

fn change(term: u64, index: u64, membership: &Membership) -> Entry {
    Entry { payload: Payload::Membership(membership.clone()), ..entry(term, index) }
}

/// Hazards 21 and 22 (canonical/raft #323, scylladb PR 30984): after the entry with a membership
/// was truncated, the one before was forgotten too.
#[test]
fn a_truncated_membership_gives_way_to_the_one_before() {
    let mut node = Solo::new(3);
    let log = vec![entry(1, 1), change(1, 2, &voters(4)), entry(1, 3), change(1, 4, &voters(5))];
    node.receive(2, append(1, EntryId::ZERO, log, 0));
    assert_eq!(node.status().membership, voters(5));
    node.receive(3, append(2, id(1, 3), entries(2, 4..=4), 0));
    assert_eq!(node.status().membership, voters(4), "one of two is gone");
    node.receive(2, append(3, id(1, 1), entries(3, 2..=2), 0));
    assert_eq!(node.status().membership, voters(3), "both are: that of the snapshot counts");
    node.persist_all();
    node.crash();
    assert_eq!(node.status().membership, voters(3));
}

/// Hazard 55 (etcd-raft bd3c759, 477ebd8, e515a67): a joint membership was dropped when a node
/// started from its snapshot.
#[test]
fn a_joint_membership_survives_a_restart_and_needs_both_majorities() {
    let ids = |ids: &[u64]| ids.iter().copied().map(NodeId::new).collect::<Vec<_>>();
    let joint = Membership::joint(ids(&[1, 2, 3]), ids(&[1, 4, 5])).expect("three each");
    let mut disk = bootstrap(3);
    disk.snapshot.membership = joint.clone();
    let mut node = Solo::from_disk(1, Config::default(), disk);
    node.crash();
    assert_eq!(node.status().membership, joint);
    let campaign = Term::new(1);
    let won_with = |peers: &[u64]| {
        let mut node = node.clone();
        node.pre_campaign();
        for peer in peers {
            let vote = VoteReply { term: Term::ZERO, campaign, granted: true };
            node.receive(*peer, Message::PreVoteReply(vote));
        }
        node.status().role == Role::Candidate
    };
    assert!(!won_with(&[2, 3]), "all of the one set");
    assert!(!won_with(&[4, 5]), "all of the other");
    assert!(won_with(&[2, 4]), "two of each");
}

/// Hazard 55, for the log: a joint membership is in force from its entry on, and commits need both
/// majorities.
#[test]
fn a_joint_membership_of_the_log_counts_for_commits() {
    let ids = |ids: &[u64]| ids.iter().copied().map(NodeId::new).collect::<Vec<_>>();
    let joint = Membership::joint(ids(&[1, 2, 3]), ids(&[1, 4, 5])).expect("three each");
    let mut node = Solo::new(3);
    node.receive(2, append(1, EntryId::ZERO, vec![entry(1, 1), change(1, 2, &joint)], 1));
    node.persist_all();
    node.elect(&[2, 4]);
    node.persist_all();
    let peers: Vec<u64> = node.status().progress.iter().map(|it| it.node.value()).collect();
    assert_eq!(peers, [2, 3, 4, 5]);
    node.matched(2, 3);
    node.matched(3, 3);
    assert_eq!(node.status().commit, LogIndex::new(1), "only the one set has it");
    node.matched(5, 3);
    assert_eq!(node.status().commit, LogIndex::new(3));
}

/// Hazard N15 (a removed node returns), with the term of a node that was alone for long.
#[test]
fn a_node_that_is_no_member_is_not_heard() {
    let mut node = Solo::new(3);
    node.elect(&[2, 3]);
    node.persist_all();
    let before = node.status();
    node.sent();
    for term in [1, 2, 1_000_000] {
        for message in [
            Message::PreVote(vote_request(term, id(term - 1, 99))),
            Message::RequestVote(vote_request(term, id(term - 1, 99))),
            append(term, EntryId::ZERO, Vec::new(), 0),
            Message::TimeoutNow { term: Term::new(term) },
        ] {
            node.receive(7, message);
        }
    }
    assert_eq!(node.sent(), [], "not even answered");
    let after = node.status();
    assert_eq!(after.dropped[&DropReason::NotAMember], 12);
    assert_eq!((after.term, after.role, after.commit), (before.term, before.role, before.commit));
}

/// Hazard 38, as far as there are voters only: a node that is no member never campaigns, however
/// much of the log it is sent.
#[test]
fn a_node_without_a_vote_never_campaigns() {
    let mut node = Solo::from_disk(9, Config::default(), bootstrap(3));
    node.receive(2, append(1, EntryId::ZERO, entries(1, 1..=3), 3));
    node.persist_all();
    assert_eq!(node.status().applied, LogIndex::new(3), "it may follow");
    node.sent();
    for _ in 0..20 {
        node.pass(Duration::from_secs(1));
        node.wake();
        assert_eq!(node.status().role, Role::Follower);
    }
    node.receive(2, Message::TimeoutNow { term: Term::new(1) });
    assert_eq!((node.status().role, node.sent()), (Role::Follower, Vec::new()));
}

/// Hazard 52's first half (raft-dev, 2015): the first entry of a term is not a membership, but empty;
/// and a leader begins with it.
#[test]
fn a_leader_begins_its_term_with_an_empty_entry() {
    let mut node = Solo::new(3);
    node.elect(&[2, 3]);
    let first = node.latest().entries.first().cloned().expect("the first of its term");
    assert_eq!((first.id, first.payload), (id(1, 1), Payload::Empty));
    let sent = node.sent_to(2).into_iter().any(|message| {
        matches!(message, Message::AppendEntries(AppendEntries { entries, .. })
            if entries.first().is_some_and(|entry| entry.id == id(1, 1)))
    });
    assert!(sent, "at once");
}
