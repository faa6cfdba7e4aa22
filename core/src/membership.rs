//! Who votes, and what a quorum of them is: pure functions over a value.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::capped;
use crate::ids::{LogIndex, NodeId};

/// The most voters of a cluster.
pub const VOTERS_MAX: usize = 15;

/// The voters of the cluster.
///
/// While the membership changes there are two sets, and a decision needs a majority of each
/// (joint consensus, paper section 6). Nothing changes members yet; the quorum rules are already
/// those of a joint membership.
///
/// Invariant: `voters` is not empty, and neither set has more than [`VOTERS_MAX`] nodes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Membership {
    voters: BTreeSet<NodeId>,
    /// The set that is being left; empty unless the membership is joint.
    outgoing: BTreeSet<NodeId>,
}

/// Why a set of voters is no membership.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MembershipError {
    /// A cluster needs at least one voter.
    NoVoters,
    /// More than [`VOTERS_MAX`] voters: every one of them makes each commit slower.
    TooManyVoters,
}

impl core::fmt::Display for MembershipError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoVoters => f.write_str("a cluster needs at least one voter"),
            Self::TooManyVoters => write!(f, "a cluster has at most {VOTERS_MAX} voters"),
        }
    }
}

impl core::error::Error for MembershipError {}

/// How an election stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VoteResult {
    /// A quorum granted its vote.
    Won,
    /// So many refused that no quorum can grant its vote any more.
    Lost,
    /// Neither yet.
    Pending,
}

impl Membership {
    /// A membership of these voters.
    ///
    /// # Errors
    /// [`MembershipError`] if there are none, or more than [`VOTERS_MAX`].
    pub fn new(voters: impl IntoIterator<Item = NodeId>) -> Result<Self, MembershipError> {
        Self::checked(voters.into_iter().collect(), BTreeSet::new())
    }

    /// A joint membership: decisions need a majority of `voters` and one of `outgoing`.
    ///
    /// # Errors
    /// [`MembershipError`] if either set is empty or has more than [`VOTERS_MAX`] nodes.
    pub fn joint(
        voters: impl IntoIterator<Item = NodeId>,
        outgoing: impl IntoIterator<Item = NodeId>,
    ) -> Result<Self, MembershipError> {
        let outgoing: BTreeSet<NodeId> = outgoing.into_iter().collect();
        if outgoing.is_empty() {
            return Err(MembershipError::NoVoters);
        }
        Self::checked(voters.into_iter().collect(), outgoing)
    }

    fn checked(
        voters: BTreeSet<NodeId>,
        outgoing: BTreeSet<NodeId>,
    ) -> Result<Self, MembershipError> {
        if voters.is_empty() {
            return Err(MembershipError::NoVoters);
        }
        if voters.len() > VOTERS_MAX || outgoing.len() > VOTERS_MAX {
            return Err(MembershipError::TooManyVoters);
        }
        Ok(Self { voters, outgoing })
    }

    /// Every node that has a say, in the order of ids.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.voters.union(&self.outgoing).copied()
    }

    /// Whether `node` votes.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.outgoing.contains(&node)
    }

    /// Whether the nodes for which `agrees` holds are a quorum.
    #[must_use]
    pub fn is_quorum(&self, mut agrees: impl FnMut(NodeId) -> bool) -> bool {
        self.majorities().all(|set| {
            let count = set.iter().filter(|node| agrees(**node)).count();
            count >= majority(set)
        })
    }

    /// How an election stands, given each node's vote: `None` while it has not answered.
    #[must_use]
    pub fn vote_result(&self, mut vote: impl FnMut(NodeId) -> Option<bool>) -> VoteResult {
        if self.is_quorum(|node| vote(node) == Some(true)) {
            VoteResult::Won
        } else if self.is_quorum(|node| vote(node) != Some(false)) {
            VoteResult::Pending
        } else {
            VoteResult::Lost
        }
    }

    /// The largest log index that a quorum has reached, given how far each node has come.
    #[must_use]
    pub fn quorum_index(&self, mut reached: impl FnMut(NodeId) -> LogIndex) -> LogIndex {
        let of_set = |set: &BTreeSet<NodeId>| {
            let mut indexes: Vec<LogIndex> = set.iter().map(|node| reached(*node)).collect();
            indexes.sort_unstable();
            // With the largest last, this one and those after it are a majority.
            indexes[set.len() - majority(set)]
        };
        self.majorities().map(of_set).min().unwrap_or(LogIndex::ZERO)
    }

    /// The sets of which a majority each must agree.
    fn majorities(&self) -> impl Iterator<Item = &BTreeSet<NodeId>> {
        [&self.voters, &self.outgoing].into_iter().filter(|set| !set.is_empty())
    }
}

/// The size of the smallest majority of a set.
fn majority(set: &BTreeSet<NodeId>) -> usize {
    set.len() / 2 + 1
}

/// The two sets as lists, which a decoder can hold to their bounds before it builds anything.
#[derive(Deserialize)]
struct Encoded {
    #[serde(deserialize_with = "capped::vec::<_, _, VOTERS_MAX>")]
    voters: Vec<NodeId>,
    #[serde(deserialize_with = "capped::vec::<_, _, VOTERS_MAX>")]
    outgoing: Vec<NodeId>,
}

impl<'de> Deserialize<'de> for Membership {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Encoded { voters, outgoing } = Encoded::deserialize(deserializer)?;
        // Another order, or a node twice, would be a second encoding of the same membership.
        let is_ascending = |nodes: &[NodeId]| nodes.is_sorted_by(|a, b| a < b);
        if !is_ascending(&voters) || !is_ascending(&outgoing) {
            return Err(de::Error::custom("the nodes of a set are not in the order of their ids"));
        }
        Self::checked(voters.into_iter().collect(), outgoing.into_iter().collect())
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
