//! Quorums against counting, for every set of up to seven voters, joint or not.

use alloc::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const NODES: u64 = 7;

/// The nodes whose bit is set.
fn set(bits: u32) -> BTreeSet<NodeId> {
    (1..=NODES).filter(|number| bits & (1 << (number - 1)) != 0).map(NodeId::new).collect()
}

/// Whether more than half of a set agrees; nobody need agree for an empty one.
fn has_majority(of: u32, agrees: u32) -> bool {
    of == 0 || (of & agrees).count_ones() * 2 > of.count_ones()
}

/// The membership with these voters, and with these outgoing ones unless there are none.
fn membership(voters: u32, outgoing: u32) -> Membership {
    let membership = match outgoing {
        0 => Membership::new(set(voters)),
        outgoing => Membership::joint(set(voters), set(outgoing)),
    };
    membership.expect("there are voters, and not many")
}

fn bit(node: NodeId) -> u32 {
    1 << (node.value() - 1)
}

#[test]
fn a_quorum_is_a_majority_of_each_set() {
    for voters in 1..1 << NODES {
        for outgoing in 0..1 << NODES {
            let membership = membership(voters, outgoing);
            for agrees in 0..1 << NODES {
                let expected = has_majority(voters, agrees) && has_majority(outgoing, agrees);
                assert_eq!(membership.is_quorum(|node| agrees & bit(node) != 0), expected);
            }
        }
    }
}

#[test]
fn two_quorums_of_one_membership_always_meet() {
    for size in 1..=NODES {
        let all = (1 << size) - 1;
        let membership = membership(all, 0);
        let is_quorum = |agrees: u32| membership.is_quorum(|node| agrees & bit(node) != 0);
        for one in (0..=all).filter(|one| is_quorum(*one)) {
            assert!(!is_quorum(all & !one), "of {size} nodes {one:b} and the others");
        }
    }
}

/// Quorums of a set and of a joint one that contains it meet, and so nothing is decided twice
/// while the one becomes the other (paper, section 6).
#[test]
fn a_quorum_of_a_joint_membership_meets_those_of_both_its_sets() {
    for voters in 1..1 << 5 {
        for outgoing in 1..1 << 5 {
            let joint = membership(voters, outgoing);
            for agrees in 0..1 << 5 {
                let others = !agrees;
                let is_joint = joint.is_quorum(|node| agrees & bit(node) != 0);
                let either = has_majority(voters, others) || has_majority(outgoing, others);
                assert!(!(is_joint && either));
            }
        }
    }
}

#[test]
fn sets_that_are_no_membership_are_refused() {
    let none: [NodeId; 0] = [];
    let many = || (1..=VOTERS_MAX as u64 + 1).map(NodeId::new);
    let one = [NodeId::new(1)];
    assert_eq!(Membership::new(none), Err(MembershipError::NoVoters));
    assert_eq!(Membership::joint(one, none), Err(MembershipError::NoVoters));
    assert_eq!(Membership::joint(none, one), Err(MembershipError::NoVoters));
    assert_eq!(Membership::new(many()), Err(MembershipError::TooManyVoters));
    assert_eq!(Membership::joint(one, many()), Err(MembershipError::TooManyVoters));
    assert!(Membership::new((1..=VOTERS_MAX as u64).map(NodeId::new)).is_ok());
}

#[test]
fn decoding_refuses_what_constructing_refuses() {
    let none: (BTreeSet<NodeId>, BTreeSet<NodeId>) = Default::default();
    let bytes = postcard::to_allocvec(&none).expect("sets can be encoded");
    assert!(postcard::from_bytes::<Membership>(&bytes).is_err());
}

/// Lists as they would be on the wire.
fn decoded(voters: &[u64], outgoing: &[u64]) -> Option<Membership> {
    let bytes = postcard::to_allocvec(&(voters, outgoing)).expect("lists can be encoded");
    postcard::from_bytes(&bytes).ok()
}

#[test]
fn a_membership_has_one_encoding() {
    for (voters, outgoing) in [(0b111, 0), (0b101, 0b110), (0b111_1111, 0b1)] {
        let membership = membership(voters, outgoing);
        let bytes = postcard::to_allocvec(&membership).expect("sets can be encoded");
        assert_eq!(postcard::from_bytes(&bytes), Ok(membership));
    }
    assert_eq!(decoded(&[1, 2, 3], &[]), Some(membership(0b111, 0)));
    for (voters, outgoing) in
        [([1, 3, 2], [4, 5]), ([1, 2, 2], [4, 5]), ([1, 2, 3], [5, 4]), ([1, 2, 3], [4, 4])]
    {
        assert_eq!(decoded(&voters, &outgoing), None);
    }
}

#[test]
fn a_list_that_is_too_long_is_not_read_to_its_end() {
    let nodes: Vec<u64> = (1..=VOTERS_MAX as u64).collect();
    assert!(decoded(&nodes, &nodes).is_some());
    // The same node again and again is a small set, but not a short list.
    assert_eq!(decoded(&[1; VOTERS_MAX + 1], &[]), None);
    // One more is announced than may be, and only as many follow.
    let mut bytes = postcard::to_allocvec(&nodes).expect("a list can be encoded");
    bytes[0] += 1;
    bytes.extend([16, 0]);
    assert!(postcard::from_bytes::<Membership>(&bytes).is_err());
}

/// A set of one to seven nodes, or of none.
fn bits(least: u32) -> impl Strategy<Value = u32> {
    least..1 << NODES
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    #[test]
    fn the_quorum_index_is_the_highest_that_a_quorum_has(
        voters in bits(1),
        outgoing in bits(0),
        reached in prop::collection::vec(0..6u64, 7),
    ) {
        let membership = membership(voters, outgoing);
        let has = |index: u64| {
            let agrees = set(u32::MAX).into_iter().zip(&reached);
            agrees.filter(|(_, reached)| **reached >= index).map(|(node, _)| bit(node)).sum::<u32>()
        };
        let is_quorum = |index| {
            has_majority(voters, has(index)) && has_majority(outgoing, has(index))
        };
        let expected = (0..6).rev().find(|index| is_quorum(*index)).expect("all have zero");
        let by_node: BTreeMap<NodeId, u64> = set(u32::MAX).into_iter().zip(reached.clone()).collect();
        let found = membership.quorum_index(|node| LogIndex::new(by_node[&node]));
        prop_assert_eq!(found, LogIndex::new(expected));
    }

    #[test]
    fn an_election_is_pending_as_long_as_it_can_still_go_both_ways(
        voters in bits(1),
        outgoing in bits(0),
        granted in bits(0),
        refused in bits(0),
    ) {
        let membership = membership(voters, outgoing);
        let refused = refused & !granted;
        let vote = |node| match (granted & bit(node) != 0, refused & bit(node) != 0) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        };
        let wins = |votes| has_majority(voters, votes) && has_majority(outgoing, votes);
        let expected = match (wins(granted), wins(!refused)) {
            (true, _) => VoteResult::Won,
            (false, true) => VoteResult::Pending,
            (false, false) => VoteResult::Lost,
        };
        prop_assert_eq!(membership.vote_result(vote), expected);
    }

    #[test]
    fn nodes_are_listed_once_and_in_order(voters in bits(1), outgoing in bits(0)) {
        let membership = membership(voters, outgoing);
        prop_assert!(membership.nodes().eq(set(voters | outgoing)));
        for node in set(u32::MAX) {
            let contained = (voters | outgoing) & bit(node) != 0;
            prop_assert_eq!(membership.contains(node), contained);
        }
    }
}
