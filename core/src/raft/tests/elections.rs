//! Elections: who becomes the leader, who stays it, and who must not disturb.

use alloc::vec::Vec;

use super::cluster::{Cluster, config, id, index, node};
use crate::config::Config;
use crate::ids::Term;
use crate::membership::Membership;
use crate::message::{Envelope, HardState, Message, VoteReply, VoteRequest};
use crate::raft::{Raft, RaftAction, RaftTimer, Role, TransferRefused};
use crate::time::Duration;

fn envelope(from: u64, to: u64, message: Message) -> Envelope {
    Envelope { from: node(from), to: node(to), message }
}

fn request(term: u64, last: crate::ids::EntryId) -> VoteRequest {
    VoteRequest { term: Term::new(term), last, transfer: false }
}

/// The only message on its way to a node; it is taken.
fn answer(cluster: &mut Cluster, to: u64) -> Message {
    let position = cluster.network.iter().position(|envelope| envelope.to == node(to));
    let position = position.expect("an answer is on its way");
    cluster.network.remove(position).expect("it was found there").message
}

#[test]
fn a_cluster_of_any_size_elects_a_leader() {
    for size in 1..=7 {
        let mut cluster = Cluster::new(size);
        let leader = cluster.leader();
        for number in cluster.numbers() {
            assert_eq!(cluster.raft(number).leader(), Some(node(leader)));
        }
    }
}

#[test]
fn a_minority_elects_nobody() {
    let mut cluster = Cluster::new(5);
    cluster.isolate(&[1, 2]);
    cluster.leader();
    assert_ne!(cluster.raft(1).role(), Role::Leader);
    assert_ne!(cluster.raft(2).role(), Role::Leader);
    assert_eq!(cluster.raft(1).term(), Term::ZERO, "a pre-candidate does not raise its term");
}

/// A vote that a crash can take back is none (etcd's raft once counted it).
#[test]
fn a_candidate_counts_its_own_vote_once_it_is_durable() {
    let mut cluster = Cluster::new(1);
    cluster.host(1).writes_at_once = false;
    cluster.sleep(Duration::from_secs(1));
    cluster.fire();
    assert_eq!(cluster.raft(1).role(), Role::Candidate);
    cluster.write(1, 1);
    assert_eq!(cluster.raft(1).role(), Role::Leader);
    assert_eq!(cluster.raft(1).commit(), index(0));
    cluster.write(1, 1);
    assert_eq!(cluster.raft(1).commit(), index(1), "the first entry is durable, and a quorum");
}

#[test]
fn a_vote_is_asked_for_and_given_once_it_is_durable() {
    let mut cluster = Cluster::new(3);
    cluster.host(2).writes_at_once = false;
    cluster.deliver(envelope(1, 2, Message::RequestVote(request(1, id(0, 0)))));
    assert!(cluster.network.is_empty());
    cluster.write(2, 1);
    let reply = VoteReply { term: Term::new(1), campaign: Term::new(1), granted: true };
    assert_eq!(answer(&mut cluster, 1), Message::RequestVoteReply(reply));
}

/// Redpanda #14: a vote that is forgotten on the way down elects two leaders.
#[test]
fn the_vote_of_a_term_stays() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let hard_state = cluster.raft(leader).hard_state();
    cluster.isolate(&[leader]);
    cluster.run(Duration::from_secs(1));
    assert_ne!(cluster.raft(leader).role(), Role::Leader);
    assert_eq!(cluster.raft(leader).hard_state(), hard_state);
    cluster.crash(leader);
    cluster.start(leader);
    assert_eq!(cluster.raft(leader).hard_state(), hard_state);
}

#[test]
fn one_vote_a_term_for_the_first_that_asks() {
    let mut cluster = Cluster::new(3);
    for (candidate, granted) in [(1, true), (2, false), (1, true)] {
        cluster.deliver(envelope(candidate, 3, Message::RequestVote(request(1, id(0, 0)))));
        let reply = VoteReply { term: Term::new(1), campaign: Term::new(1), granted };
        assert_eq!(answer(&mut cluster, candidate), Message::RequestVoteReply(reply));
    }
}

#[test]
fn a_log_that_is_behind_gets_no_vote() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let other = if leader == 1 { 2 } else { 1 };
    cluster.propose(leader);
    cluster.run(Duration::from_millis(100));
    cluster.crash(other);
    cluster.start(other);
    let last = cluster.raft(other).log_last();
    for (behind, granted) in [(id(last.term.value(), 1), false), (id(0, 9), false), (last, true)] {
        let term = cluster.raft(other).term().value() + 1;
        cluster.deliver(envelope(3, other, Message::PreVote(request(term, behind))));
        let Message::PreVoteReply(reply) = answer(&mut cluster, 3) else { panic!("no reply") };
        assert_eq!(reply.granted, granted, "to one whose log ends at {behind}");
        // Nor does a real vote rely on the pre-vote; a hand-over comes without one.
        let request = VoteRequest { transfer: true, ..request(term, behind) };
        cluster.deliver(envelope(3, other, Message::RequestVote(request)));
        let Message::RequestVoteReply(reply) = answer(&mut cluster, 3) else { panic!("no reply") };
        assert_eq!(reply.granted, granted, "to one whose log ends at {behind}");
    }
}

/// hashicorp/raft #609: a node that grants pre-votes must go on as if nobody had asked.
#[test]
fn a_pre_vote_has_no_effect_on_who_answers() {
    let mut cluster = Cluster::new(3);
    let before = cluster.raft(2).poll_timeout();
    let hard_state = cluster.raft(2).hard_state();
    cluster.deliver(envelope(1, 2, Message::PreVote(request(9, id(0, 0)))));
    let Message::PreVoteReply(reply) = answer(&mut cluster, 1) else { panic!("no reply") };
    assert!(reply.granted);
    assert_eq!(cluster.raft(2).poll_timeout(), before);
    assert_eq!(cluster.raft(2).hard_state(), hard_state);
    assert!(cluster.host(2).unwritten.is_empty());
}

#[test]
fn who_hears_a_leader_deposes_it_for_nobody_else() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let [follower, other] = others(leader);
    let term = cluster.raft(follower).term();
    let last = id(99, 99);
    for message in [Message::PreVote(request(100, last)), Message::RequestVote(request(100, last))]
    {
        cluster.deliver(envelope(other, follower, message.clone()));
        cluster.deliver(envelope(other, leader, message));
    }
    assert_eq!(cluster.raft(follower).term(), term);
    assert_eq!(cluster.raft(leader).role(), Role::Leader);
    // But for the leader itself, which evidently does not lead any more (hashicorp/raft #606).
    cluster.network.clear();
    cluster.deliver(envelope(leader, follower, Message::PreVote(request(100, last))));
    let Message::PreVoteReply(reply) = answer(&mut cluster, leader) else { panic!("no reply") };
    assert!(reply.granted);
}

fn others(leader: u64) -> [u64; 2] {
    match leader {
        1 => [2, 3],
        2 => [1, 3],
        _ => [1, 2],
    }
}

/// A leader and its only follower, which lose sight of each other for a moment while the third node
/// is down: they find together again.
#[test]
fn two_of_three_recover_after_they_lost_each_other() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let [_, down] = others(leader);
    cluster.crash(down);
    cluster.isolate(&[leader]);
    cluster.run(Duration::from_secs(1));
    cluster.cut.clear();
    cluster.leader();
}

/// The switch failure of November 2020 at Cloudflare: some links are down, a quorum is not.
#[test]
fn a_leader_with_a_quorum_stays_though_others_do_not_hear_it() {
    let mut cluster = Cluster::new(5);
    cluster.lead(1);
    let term = cluster.raft(1).term();
    for (a, b) in [(1, 4), (1, 5), (2, 5), (3, 4), (4, 5)] {
        cluster.cut.insert((node(a), node(b)));
        cluster.cut.insert((node(b), node(a)));
    }
    cluster.run(Duration::from_secs(20));
    assert_eq!(cluster.raft(1).role(), Role::Leader);
    assert_eq!(cluster.raft(1).term(), term);
}

#[test]
fn the_cluster_survives_each_one_way_cut_of_each_node() {
    for number in 1..=3 {
        for outgoing in [false, true] {
            let mut cluster = Cluster::new(3);
            cluster.lead(1);
            for other in (1..=3).filter(|other| *other != number) {
                let (from, to) = if outgoing { (number, other) } else { (other, number) };
                cluster.cut.insert((node(from), node(to)));
            }
            let leader = cluster.leader();
            let term = cluster.raft(leader).term();
            assert!(cluster.propose(leader).is_some());
            cluster.run(Duration::from_secs(5));
            assert_eq!(cluster.leader(), leader, "a stable leader");
            assert_eq!(cluster.raft(leader).term(), term);
        }
    }
}

/// A node that was elected nowhere, but whose term is ahead, must be heard, or it hears nobody.
#[test]
fn a_node_with_a_higher_term_is_taken_back() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let [ahead, _] = others(leader);
    cluster.crash(ahead);
    cluster.host(ahead).disk.hard_state = HardState { term: Term::new(50), vote: None };
    cluster.start(ahead);
    let leader = cluster.leader();
    assert!(cluster.raft(leader).term() > Term::new(50));
    assert_eq!(cluster.raft(ahead).leader(), Some(node(leader)));
}

/// openraft #1796: who asks with a term that is over must learn of the new one.
#[test]
fn a_refused_pre_candidate_adopts_a_higher_term() {
    let mut cluster = Cluster::new(3);
    cluster.crash(2);
    cluster.host(2).disk.hard_state.term = Term::new(7);
    cluster.start(2);
    cluster.deliver(envelope(1, 2, Message::PreVote(request(1, id(0, 0)))));
    cluster.settle();
    assert_eq!(cluster.raft(1).term(), Term::new(7));
    assert_eq!(cluster.raft(1).role(), Role::Follower);
}

/// openraft 511f33c7: pre-votes that arrive when the campaign is won start no other.
#[test]
fn late_replies_to_a_campaign_do_nothing() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let (term, [other, _]) = (cluster.raft(leader).term(), others(leader));
    let pre = VoteReply { term: Term::ZERO, campaign: term, granted: true };
    let real = VoteReply { term, campaign: term, granted: true };
    cluster.deliver(envelope(other, leader, Message::PreVoteReply(pre)));
    cluster.deliver(envelope(other, leader, Message::RequestVoteReply(real)));
    assert_eq!(cluster.raft(leader).role(), Role::Leader);
    assert_eq!(cluster.raft(leader).term(), term);
}

#[test]
fn a_leader_without_a_quorum_steps_down() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    cluster.isolate(&[leader]);
    cluster.run(config().election_timeout_max.saturating_add(Duration::from_millis(60)));
    assert_ne!(cluster.raft(leader).role(), Role::Leader);
    assert_eq!(cluster.raft(leader).leader(), None);
}

#[test]
fn a_node_without_a_vote_never_campaigns() {
    let mut cluster = Cluster::new(3);
    cluster.crash(1);
    let others = Membership::new([node(2), node(3)]).expect("two voters");
    cluster.host(1).disk.snapshot.membership = others;
    cluster.start(1);
    cluster.isolate(&[1]);
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.raft(1).role(), Role::Follower);
    assert_eq!(cluster.raft(1).term(), Term::ZERO);
}

#[test]
fn time_outs_are_random_and_within_their_range() {
    let Config { election_timeout_min, election_timeout_max, .. } = config();
    let mut cluster = Cluster::new(7);
    let now = cluster.now;
    let mut waits: Vec<Duration> = Vec::new();
    for number in cluster.numbers() {
        let (at, timer) = cluster.raft(number).poll_timeout().expect("there always is one");
        assert_eq!(timer, RaftTimer::Election);
        waits.push(at.since(now));
    }
    assert!(waits.iter().all(|wait| (election_timeout_min..election_timeout_max).contains(wait)));
    waits.sort();
    waits.dedup();
    assert_eq!(waits.len(), 7);
}

#[test]
fn leadership_is_handed_over_at_once() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let [to, other] = others(leader);
    let now = cluster.now;
    let refused = |cluster: &mut Cluster, to| {
        cluster.act(leader, |raft, now| raft.transfer_leadership(now, Some(node(to))))
    };
    assert_eq!(refused(&mut cluster, leader), Err(TransferRefused::NoTarget));
    assert_eq!(refused(&mut cluster, 9), Err(TransferRefused::NoTarget));
    assert_eq!(refused(&mut cluster, to), Ok(node(to)));
    let transferring = TransferRefused::Transferring { to: node(to) };
    assert_eq!(refused(&mut cluster, other), Err(transferring));
    assert_eq!(cluster.propose(leader), None, "proposals wait until it is done");
    cluster.settle();
    assert_eq!(cluster.raft(to).role(), Role::Leader);
    assert_eq!(cluster.now, now, "no time-out was needed");
}

#[test]
fn a_transfer_that_comes_to_nothing_is_given_up() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let [to, _] = others(leader);
    cluster.crash(to);
    let given = cluster.act(leader, |raft, now| raft.transfer_leadership(now, Some(node(to))));
    assert_eq!(given, Ok(node(to)));
    cluster.run(Duration::from_secs(1));
    assert_eq!(cluster.raft(leader).transferee(), None);
    assert_eq!(cluster.host(leader).expired, [node(to)], "it says so, once");
    assert!(cluster.propose(leader).is_some());
}

#[test]
fn only_the_leader_can_ask_for_a_campaign() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let [a, b] = others(leader);
    let term = cluster.raft(a).term();
    cluster.deliver(envelope(b, a, Message::TimeoutNow { term }));
    assert_eq!(cluster.raft(a).role(), Role::Follower);
    assert_eq!(cluster.raft(a).term(), term);
}

/// A caller that takes no actions for a while must still learn that it lost what it led with.
#[test]
fn a_new_leadership_does_not_hide_the_end_of_the_one_before() {
    let mut cluster = Cluster::new(3);
    cluster.lead(1);
    let (before, mut now) = (cluster.raft(1).term(), cluster.now);
    let (higher, campaign) = (before.next(), before.next().next());
    let raft = cluster.raft(1);
    let give = |raft: &mut Raft, now, from, message| {
        raft.handle_message(now, envelope(from, 1, message));
    };
    let refusal = VoteReply { term: higher, campaign: higher, granted: false };
    give(raft, now, 2, Message::RequestVoteReply(refusal));
    assert_eq!(raft.role(), Role::Follower);
    now = now.after(Duration::from_secs(1));
    raft.handle_timeout(now);
    let hope = VoteReply { term: higher, campaign, granted: true };
    give(raft, now, 2, Message::PreVoteReply(hope));
    for from in [2, 3] {
        let vote = VoteReply { term: campaign, campaign, granted: true };
        give(raft, now, from, Message::RequestVoteReply(vote));
    }
    assert_eq!((raft.role(), raft.term()), (Role::Leader, campaign));
    let mut roles = Vec::new();
    while let Some(RaftAction::RoleChanged { role, .. }) = raft.poll_action() {
        roles.push(role);
    }
    assert_eq!(roles, [Role::Candidate, Role::Leader]);
}
