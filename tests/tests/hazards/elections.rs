//! Elections: who may disturb whom, which votes count, and whether there is a leader in the end.

use quorlock_core::config::Config;
use quorlock_core::ids::{EntryId, LogIndex, NodeId, ReadRound, Term};
use quorlock_core::message::{AppendEntriesReply, AppendResult, Message, VoteReply, VoteRequest};
use quorlock_core::raft::{DropReason, Role};
use quorlock_core::time::Duration;
use quorlock_tests::lab::{Lab, LabOptions};
use std::collections::BTreeMap;

use crate::log::some_request;
use crate::solo::{Solo, append, bootstrap, entries, entry, id, matched, vote_request};
use crate::tools::{acquire, hold, lab, lab_with};

const SECOND: Duration = Duration::from_secs(1);

/// A cluster in which node 1 leads and a session is open.
fn led(nodes: u64) -> Lab {
    let mut lab = lab(nodes);
    lab.elect(1);
    lab.open(1, "a");
    lab
}

/// There is a leader that can commit.
fn assert_works(lab: &mut Lab, what: &str) {
    let leader = lab.leader().unwrap_or_else(|| panic!("{what}: there is no leader"));
    let commit = lab.status(leader).commit;
    lab.request(leader, 1, some_request(commit.value()));
    lab.run(Duration::from_millis(200));
    assert!(lab.status(leader).commit > commit, "{what}: {leader} leads and cannot commit");
}

/// Hazard 40 (Cloudflare, November 2020): a switch failed in part, and etcd had no stable leader for
/// six hours. Nodes 1, 2, 3 are linked, 4 only with 2, and 5 only with 3.
#[test]
fn a_leader_lasts_when_some_links_are_cut() {
    let cut = |lab: &mut Lab| {
        lab.partition(&[4], &[1, 3, 5]);
        lab.partition(&[5], &[1, 2, 4]);
    };
    let mut before = led(5);
    cut(&mut before);
    before.run(SECOND * 10);
    assert_eq!((before.leader(), before.status(1).term), (Some(1), Term::new(1)));
    assert_works(&mut before, "a leader from before");

    let mut from_start = lab(5);
    cut(&mut from_start);
    from_start.run(SECOND * 10);
    assert_works(&mut from_start, "a leader elected meanwhile");
    let leader = from_start.leader().expect("it works");
    let term = from_start.status(leader).term;
    from_start.run(SECOND * 20);
    assert_eq!((from_start.leader(), from_start.status(leader).term), (Some(leader), term));
}

/// Hazard 41 (TigerBeetle's liveness example, openraft's `t14_one_way_isolation`): a node that can
/// send and not receive kept everybody from agreeing.
#[test]
fn every_cut_of_one_direction_leaves_a_leader() {
    for n in 1..=3 {
        for inward in [true, false] {
            let mut lab = led(3);
            for other in (1..=3).filter(|other| *other != n) {
                let (from, to) = if inward { (other, n) } else { (n, other) };
                lab.cut(from, to);
            }
            lab.run(SECOND * 5);
            assert_works(&mut lab, &format!("node {n} is cut off, inward: {inward}"));
        }
    }
    for from in 1..=3 {
        for to in (1..=3).filter(|to| *to != from) {
            let mut lab = led(3);
            lab.cut(from, to);
            lab.run(SECOND * 5);
            assert_works(&mut lab, &format!("from {from} to {to}"));
            lab.heal();
            lab.run(SECOND * 2);
            assert_works(&mut lab, "healed");
        }
    }
}

/// Hazard 42 (hashicorp/raft #606): with pre-vote, a follower refused its own former leader. With
/// one node of three down, there was no leader any more.
#[test]
fn a_follower_helps_its_former_leader_back() {
    let mut lab = led(3);
    lab.crash(3);
    lab.partition(&[1], &[2]);
    lab.run(Duration::from_millis(700));
    assert_eq!(lab.leader(), None);
    lab.heal();
    lab.run(SECOND * 5);
    assert_works(&mut lab, "two of three are up");

    // The very moment: the follower has just heard its leader, and is asked by nobody else.
    let mut node = Solo::new(3);
    node.receive(2, append(1, EntryId::ZERO, Vec::new(), 0));
    node.persist_all();
    node.sent();
    node.receive(2, Message::PreVote(vote_request(2, EntryId::ZERO)));
    assert_eq!(node.votes().first().map(|vote| vote.granted), Some(true));
    node.receive(3, Message::PreVote(vote_request(2, id(1, 9))));
    assert_eq!(node.votes().first().map(|vote| vote.granted), Some(false));
}

/// Hazard 43 (hashicorp/raft #609): to grant a pre-vote counted as hearing from a leader, so that
/// those who asked kept each other from campaigning.
#[test]
fn a_pre_vote_changes_nothing_where_it_is_asked() {
    let mut node = Solo::new(3);
    node.receive(2, append(1, EntryId::ZERO, entries(1, 1..=2), 0));
    node.persist_all();
    node.pass(Duration::from_millis(300));
    for from in [2, 3] {
        for (term, last, granted) in [
            (2, id(1, 2), true),
            (9, id(1, 5), true),
            (2, id(1, 1), false),
            (1, EntryId::ZERO, false),
        ] {
            let before = (node.status(), node.node.poll_timeout());
            node.sent();
            node.receive(from, Message::PreVote(vote_request(term, last)));
            assert_eq!(node.votes().first().map(|vote| vote.granted), Some(granted));
            assert_eq!((node.status(), node.node.poll_timeout()), before);
            assert!(node.writes.is_empty(), "and nothing of it is written");
        }
    }
}

/// Hazard 44 (openraft #1796, raft-rs 3012d3c): the higher term in the refusal of a pre-vote was
/// ignored, and those of the lower term asked for ever.
#[test]
fn the_higher_term_of_a_refusal_is_adopted() {
    let mut node = Solo::new(3);
    node.pre_campaign();
    let (campaign, term) = (id(1, 0).term, id(7, 0).term);
    node.receive(2, Message::PreVoteReply(VoteReply { term, campaign, granted: false }));
    assert_eq!((node.status().role, node.status().term), (Role::Follower, term));

    // Two logs, and three terms far apart: each alone could not win.
    let disk = |term, last| {
        let mut disk = bootstrap(3);
        disk.hard_state.term = Term::new(term);
        disk.entries = entries(1, 1..=last);
        disk
    };
    let disks = BTreeMap::from([(1, disk(1, 3)), (2, disk(1, 3)), (3, disk(9, 1))]);
    for down in 1..=2 {
        let mut lab = Lab::from_recovered(LabOptions::default(), disks.clone());
        lab.crash(down);
        lab.run(SECOND * 10);
        assert_works(&mut lab, &format!("without node {down}"));
    }
}

/// Hazard 45 (raft-rs #83, #84): a pre-candidate kept the votes, or the leader, of before.
#[test]
fn each_campaign_counts_its_own_votes() {
    let mut node = Solo::new(5);
    node.receive(2, append(1, EntryId::ZERO, Vec::new(), 0));
    node.persist_all();
    node.pre_campaign();
    assert_eq!(node.status().leader, None);
    let campaign = id(2, 0).term;
    let granted = VoteReply { term: campaign.previous(), campaign, granted: true };
    node.receive(3, Message::PreVoteReply(granted.clone()));
    for _ in 0..5 {
        node.receive(3, Message::PreVoteReply(granted.clone()));
    }
    assert_eq!(node.status().role, Role::PreCandidate, "one vote, said six times");
    node.wake();
    assert_eq!(node.status().role, Role::PreCandidate, "a new campaign");
    node.receive(4, Message::PreVoteReply(granted.clone()));
    assert_eq!(node.status().role, Role::PreCandidate, "the votes of the other one are gone");
    node.receive(5, Message::PreVoteReply(granted));
    assert_eq!(node.status().role, Role::Candidate);
}

/// Hazard 46 (openraft 511f33c7): a pre-vote that came after the campaign was won began another.
#[test]
fn a_late_pre_vote_begins_no_second_campaign() {
    let mut node = Solo::new(5);
    node.pre_campaign();
    let campaign = id(1, 0).term;
    let pre_vote =
        |granted| Message::PreVoteReply(VoteReply { term: campaign.previous(), campaign, granted });
    node.receive(2, pre_vote(true));
    node.receive(3, pre_vote(true));
    let late = |node: &mut Solo| {
        let before = (node.status().role, node.status().term);
        for from in [3, 4, 5] {
            node.receive(from, pre_vote(true));
            node.receive(from, pre_vote(false));
        }
        assert_eq!((node.status().role, node.status().term), before);
    };
    assert_eq!(node.status().role, Role::Candidate);
    late(&mut node);
    node.persist_all();
    for from in [2, 3] {
        let vote = VoteReply { term: campaign, campaign, granted: true };
        node.receive(from, Message::RequestVoteReply(vote));
    }
    assert_eq!(node.status().role, Role::Leader);
    late(&mut node);
}

/// Hazards 45 and 46, for real votes: a grant or a refusal counts for its own campaign alone.
#[test]
fn a_vote_of_another_campaign_does_not_count() {
    let mut node = Solo::new(3);
    node.receive(2, append(3, EntryId::ZERO, Vec::new(), 0));
    node.persist_all();
    node.pre_campaign();
    let campaign = node.status().term.next();
    let before = campaign.previous();
    node.receive(2, Message::PreVoteReply(VoteReply { term: before, campaign, granted: true }));
    node.persist_all();
    for other in [before, before.previous(), campaign.next()] {
        for granted in [false, true] {
            for peer in [2, 3] {
                let vote = VoteReply { term: campaign, campaign: other, granted };
                node.receive(peer, Message::RequestVoteReply(vote));
            }
            assert_eq!((node.status().role, node.status().term), (Role::Candidate, campaign));
        }
    }
    let vote = VoteReply { term: campaign, campaign, granted: true };
    node.receive(2, Message::RequestVoteReply(vote));
    assert_eq!(node.status().role, Role::Leader);
}

/// Hazards 40 and N15 (thesis, 4.2.3): who cannot hear the leader campaigns, and those who can hear it
/// raise their terms, so that it has to step down. Only a hand-over is an exception.
#[test]
fn a_campaign_against_a_live_leader_raises_no_term() {
    let mut follower = Solo::new(3);
    follower.receive(2, append(1, EntryId::ZERO, Vec::new(), 0));
    let mut leader = Solo::new(3);
    leader.elect(&[2]);
    for mut node in [follower, leader] {
        node.persist_all();
        node.sent();
        let role = node.status().role;
        let request = vote_request(9, id(1, 9));
        node.receive(3, Message::RequestVote(request.clone()));
        assert_eq!((node.status().term, node.status().role), (Term::new(1), role));
        assert!(node.writes.is_empty());
        assert!(node.votes().iter().all(|vote| !vote.granted && vote.term == Term::new(1)));
        node.receive(3, Message::RequestVote(VoteRequest { transfer: true, ..request }));
        node.persist_all();
        assert_eq!((node.status().term, node.status().role), (Term::new(9), Role::Follower));
        assert_eq!(node.votes().last().map(|vote| vote.granted), Some(true));
    }
}

/// Hazard 47 (openraft b06cbb37): a vote was changed on merely seeing a higher one.
#[test]
fn a_vote_changes_only_with_a_grant_or_a_candidacy() {
    let vote = |node: &Solo| node.latest().hard_state.vote;
    let mut node = Solo::new(3);
    node.receive(2, append(1, EntryId::ZERO, entries(1, 1..=2), 0));
    node.persist_all();
    node.pass(SECOND);
    let term = |term| Term::new(term);
    let refusal = |at| VoteReply { term: term(at), campaign: term(at), granted: false };
    let (round, result) = (ReadRound::ZERO, AppendResult::StaleTerm);
    for (at, message) in [
        (2, Message::RequestVote(vote_request(2, id(1, 1)))),
        (3, append(3, EntryId::ZERO, Vec::new(), 0)),
        (4, Message::RequestVoteReply(refusal(4))),
        (5, Message::PreVoteReply(refusal(5))),
        (6, Message::AppendEntriesReply(AppendEntriesReply { term: term(6), round, result })),
        (7, Message::TimeoutNow { term: term(7) }),
    ] {
        node.receive(3, message);
        node.pass(SECOND);
        assert_eq!((node.status().term, vote(&node)), (term(at), None));
    }
    node.receive(2, Message::RequestVote(vote_request(7, id(1, 2))));
    assert_eq!(vote(&node), Some(NodeId::new(2)));
    node.receive(3, Message::RequestVote(vote_request(7, id(1, 9))));
    assert_eq!(vote(&node), Some(NodeId::new(2)));
}

/// Hazard 48 (hashicorp/raft 163a55f, openraft #1802): in clusters of an even size, or when
/// the acknowledgements were not in order, less than a quorum committed.
#[test]
fn exactly_a_majority_commits() {
    for voters in 1..=7 {
        let others: Vec<u64> = (2..=voters).collect();
        let mut node = if voters == 1 {
            Solo::alone(Config::default())
        } else {
            let mut node = Solo::new(voters);
            node.elect(&others);
            node
        };
        node.persist_all();
        node.request(some_request(1));
        node.persist_all();
        // Each has more than the one before it, in the one order and in the other.
        for reversed in [false, true] {
            let mut node = node.clone();
            let mut order = others.clone();
            if reversed {
                order.reverse();
            }
            for (count, peer) in order.into_iter().enumerate() {
                let have = count as u64 + 1;
                let before = if have > voters / 2 { 2 } else { 0 };
                assert_eq!(node.status().commit.value(), before, "{have} of {voters}");
                node.matched(peer, 2);
            }
            assert_eq!(node.status().commit.value(), 2, "all of {voters}");
        }
    }
}

/// Hazard 49 (CCF #5674, #6016): a leader that stepped down lost what was committed; a follower
/// acknowledged more than it had been sent, and rolled back what was committed.
#[test]
fn what_is_committed_survives_stepping_down_and_stale_messages() {
    let mut node = Solo::new(3);
    node.elect(&[2, 3]);
    node.request(some_request(1));
    node.persist_all();
    node.matched(2, 2);
    node.request(some_request(2));
    node.persist_all();
    assert_eq!(node.status().commit, LogIndex::new(2));
    node.sent();
    node.receive(3, append(2, id(1, 2), Vec::new(), 2));
    node.persist_all();
    assert_eq!(node.results(), [matched(2)], "entry 3 is not the new leader's");
    let before = node.latest().entries;
    // A message that names other entries where these are committed.
    for message in [
        append(2, id(2, 2), Vec::new(), 2),
        append(2, EntryId::ZERO, entries(2, 1..=2), 2),
        append(2, id(1, 1), entries(2, 2..=4), 4),
    ] {
        node.receive(3, message);
        assert_eq!(node.latest().entries, before);
        assert_eq!(node.status().commit, LogIndex::new(2));
    }
    assert!(node.status().dropped[&DropReason::ContradictsLog] >= 3);
    // Early and late ones: an entry far ahead, and the beginning of the log once more.
    node.receive(3, append(2, id(2, 8), vec![entry(2, 9)], 9));
    node.receive(3, append(2, EntryId::ZERO, Vec::new(), 0));
    assert_eq!(node.latest().entries, before);
}

/// Hazard 50 (CCF #2835, #3723; openraft #1500): refusals with an index that was too high, or of a
/// heartbeat, moved what the leader knew, and the follower never caught up.
#[test]
fn refusals_never_move_a_follower_the_wrong_way() {
    let mut node = Solo::new(3);
    node.elect(&[2, 3]);
    for number in 0..5 {
        node.request(some_request(number));
    }
    node.persist_all();
    node.matched(2, 4);
    let progress = |node: &Solo| {
        let found = node.status().progress.into_iter().find(|it| it.node == NodeId::new(2));
        found.map(|it| (it.matched.value(), it.next.value()))
    };
    let before = progress(&node);
    for (previous, hint) in [
        (9, id(1, 9)),
        (900, id(1, 899)),
        (6, id(1, 6)),
        (4, id(1, 3)),
        (2, EntryId::ZERO),
        (0, EntryId::ZERO),
        (3, id(9, 2)),
    ] {
        let previous = LogIndex::new(previous);
        node.append_reply(2, AppendResult::Conflict { previous, hint });
        let (matched, next) = progress(&node).expect("node 2 is a peer");
        assert_eq!(matched, 4, "what it has acknowledged, it has");
        assert!(next > 4 && Some((matched, next)) <= before, "after {previous} {hint}: {next}");
    }
    node.matched(2, 6);
    assert_eq!(progress(&node), Some((6, 7)));
    assert_eq!(node.status().commit, LogIndex::new(6));
}

/// Hazard 50, the whole way: logs that differ in several terms, and a heartbeat between all probes.
#[test]
fn logs_that_differ_in_many_terms_are_joined_despite_heartbeats() {
    let disk = |terms: &[u64]| {
        let mut disk = bootstrap(3);
        disk.hard_state.term = Term::new(9);
        let numbered = terms.iter().zip(1..);
        disk.entries = numbered.map(|(term, index)| entry(*term, index)).collect();
        disk
    };
    let disks = BTreeMap::from([
        (1, disk(&[1, 1, 1, 4, 4, 5, 5, 6, 6, 6])),
        (2, disk(&[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3])),
        (3, disk(&[1, 1, 1, 4, 4, 4, 4])),
    ]);
    let mut lab = Lab::from_recovered(LabOptions::default(), disks);
    lab.elect(1);
    for _ in 0..50 {
        lab.timeout(1);
        lab.deliver_round();
        lab.persist_all(2);
        lab.persist_all(3);
    }
    lab.settle();
    for n in 2..=3 {
        assert_eq!(lab.log_of(n), lab.log_of(1));
    }
}

/// Hazard 51 (openraft cecb5de8, fbbf37b1): acknowledgements and refusals of requests that were
/// superseded moved `matched`, and something was committed that no quorum had.
#[test]
fn answers_to_an_earlier_leadership_count_for_nothing() {
    let mut node = Solo::new(3);
    node.elect(&[2, 3]);
    for number in 0..5 {
        node.request(some_request(number));
    }
    node.persist_all();
    let old = node.status().term;
    // Another leader overwrites all of it; then this one leads again.
    let theirs = entry(2, 1);
    node.receive(3, append(2, EntryId::ZERO, vec![theirs], 0));
    node.persist_all();
    node.elect(&[2, 3]);
    node.persist_all();
    let (round, last) = (ReadRound::ZERO, node.status().last.index);
    for index in (0..=6).map(LogIndex::new) {
        let result = AppendResult::Matched(index);
        let late = AppendEntriesReply { term: old, round, result };
        node.receive(2, Message::AppendEntriesReply(late));
        assert_eq!(node.status().commit, LogIndex::ZERO, "an answer of term {old}");
    }
    // And of this one: late, repeated, or of what was never sent.
    node.matched(2, 1);
    node.matched(2, 0);
    node.matched(2, 6);
    assert_eq!(node.status().commit, LogIndex::ZERO);
    assert_eq!(node.status().dropped[&DropReason::NeverSent], 1);
    node.matched(2, last.value());
    assert_eq!(node.status().commit, last);
}

/// Hazards 59 and 4 of the files (tarantool #9399, dqlite #589, etcd #3068): a leader whose disk did
/// not answer went on with its signs of life, so that nobody else was elected.
#[test]
fn a_leader_that_cannot_write_gives_way() {
    let mut lab = led(3);
    lab.hold_writes(1, true);
    lab.request(1, 1, some_request(9));
    lab.run(Config::default().write_stall_timeout + SECOND * 2);
    let leader = lab.leader().expect("the two others elect one");
    assert_ne!(leader, 1);
    let term = lab.status(leader).term;
    lab.run(SECOND * 5);
    assert_eq!(lab.status(leader).term, term, "it does not disturb the new one");
    // Space is back: without a restart, it takes part again.
    lab.hold_writes(1, false);
    lab.settle();
    lab.run(SECOND);
    lab.crash(leader);
    lab.run(SECOND * 5);
    assert_works(&mut lab, "with the disk that recovered");
}

/// Hazard 59 in a cluster of one: nobody else can lead, and it recovers by itself.
#[test]
fn a_lone_leader_whose_disk_recovers_leads_again() {
    let mut lab = led(1);
    lab.hold_writes(1, true);
    lab.request(1, 1, some_request(9));
    lab.run(SECOND * 5);
    assert_eq!(lab.leader(), None);
    lab.hold_writes(1, false);
    lab.run(SECOND * 5);
    assert_works(&mut lab, "its disk is back");
}

/// Hazard 36, the rule behind it, and hazard 42's other half: a node that cannot win does not keep
/// those that can from campaigning, and a hand-over is no exception to the rule of the longest log.
#[test]
fn a_vote_goes_to_nobody_whose_log_is_behind() {
    let mut node = Solo::new(3);
    node.receive(2, append(1, EntryId::ZERO, entries(1, 1..=3), 0));
    node.persist_all();
    node.pass(SECOND);
    let mut term = 1;
    for (last, transfer, granted) in [
        (id(1, 2), false, false),
        (id(1, 2), true, false),
        (id(0, 0), true, false),
        (id(1, 3), false, true),
        (id(1, 3), true, true),
        (id(2, 1), false, true),
    ] {
        term += 2;
        node.sent();
        let request = VoteRequest { transfer, ..vote_request(term, last) };
        node.receive(3, Message::RequestVote(request));
        node.persist_all();
        assert_eq!(node.votes().last().map(|vote| vote.granted), Some(granted), "{last}");
    }
}

/// Hazard 56, as far as there are voters only: a hand-over waits until its target has the log.
#[test]
fn leadership_is_handed_to_nobody_who_lacks_entries() {
    let mut lab = lab_with(3, Config::default());
    lab.elect(1);
    let session = lab.open(1, "a");
    lab.cut(1, 2);
    hold(&mut lab, 1, session, "l");
    lab.transfer(1, Some(2));
    lab.settle();
    assert!(lab.is_leader(1), "node 2 was not told to campaign");
    assert_eq!(lab.perform(1, session, acquire("m")), None, "meanwhile nothing is accepted");
    lab.restore(1, 2);
    lab.run(Duration::from_millis(400));
    assert_eq!(lab.leader(), Some(2));
    assert_eq!(lab.status(2).applied, lab.status(1).applied);
}
