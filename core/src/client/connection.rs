//! The one connection of a client: to which node, since when, and what is under way on it.
//!
//! Only the leader serves a session. The client looks for it node by node, goes where a node says
//! that the leader is, and backs off when that leads nowhere.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::config::ClientConfig;
use crate::ids::{AttemptId, NodeId, RequestId, Sequence};
use crate::message::RequestKey;
use crate::prng::Prng;
use crate::time::{Duration, Time};

/// How many times in a row the client goes where a node sends it without a pause. More means that
/// nodes send it in a circle, as they may while a leader is being elected.
pub(super) const REDIRECTS_AT_ONCE_MAX: u32 = 3;

/// Where the client is connected, or tries to be.
///
/// Invariants: `nodes` ascend and are not empty; there is at most one connection, that of the
/// latest attempt.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    nodes: Vec<NodeId>,
    /// The node of the present attempt, or of the next one while there is none.
    node: NodeId,
    /// The latest attempt.
    attempt: AttemptId,
    link: Link,
    /// Pauses since something went well.
    failures: u32,
    /// Redirects since something went well.
    redirects: u32,
    prng: Prng,
}

/// How far the latest attempt has come.
#[derive(Clone, Debug)]
pub(super) enum Link {
    /// It is over; the next one starts at this time.
    Waiting { until: Time },
    /// It is given up at this time.
    Connecting { until: Time },
    /// It is a connection.
    Connected(Live),
}

/// What is under way on a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Live {
    /// Whether the node has confirmed the session on this connection, and so is the leader.
    /// Submissions wait for that: there may be many of them, and another node has no use for them.
    pub(super) greeted: bool,
    /// The open or keep-alive that is not answered, and when it was sent.
    pub(super) greeting: Option<(RequestKey, Time)>,
    /// No open or keep-alive is sent before this time, since the node was too busy for the last.
    pub(super) greet_after: Time,
    /// Submissions from this number on are still to be sent.
    pub(super) cursor: Sequence,
    /// Reads that are still to be sent.
    pub(super) unsent_reads: BTreeSet<RequestId>,
    /// Submissions and reads are held back until this time, since the node was too busy.
    pub(super) paused_until: Option<Time>,
    /// The node is not the leader: when to go elsewhere, and where. Until then it may answer stale
    /// reads.
    pub(super) leave: Option<(Time, NodeId)>,
    /// By when the requests on this connection are to be answered.
    pub(super) deadlines: Deadlines,
}

/// The times by which requests are to be answered.
///
/// Invariant: both maps hold the same pairs.
#[derive(Clone, Debug, Default)]
pub(super) struct Deadlines {
    by_key: BTreeMap<RequestKey, Time>,
    by_time: BTreeSet<(Time, RequestKey)>,
}

impl Deadlines {
    /// A request was sent.
    pub(super) fn set(&mut self, key: RequestKey, time: Time) {
        self.clear(key);
        self.by_key.insert(key, time);
        self.by_time.insert((time, key));
    }

    /// A request needs no more attention. Harmless when there is none with this key.
    pub(super) fn clear(&mut self, key: RequestKey) {
        if let Some(time) = self.by_key.remove(&key) {
            self.by_time.remove(&(time, key));
        }
    }

    /// The earliest.
    pub(super) fn first(&self) -> Option<Time> {
        self.by_time.first().map(|(time, _)| *time)
    }
}

impl Connection {
    /// No connection yet, and a first attempt that is due at once, to a random node: clients
    /// should not all begin with the same one.
    ///
    /// `nodes` must ascend and not be empty.
    pub(super) fn new(nodes: Vec<NodeId>, seed: u64, now: Time) -> Self {
        let mut prng = Prng::new(seed);
        let position = prng.below(nodes.len() as u64);
        let position = usize::try_from(position).expect("below the number of nodes");
        Self {
            node: nodes[position],
            nodes,
            attempt: AttemptId::ZERO,
            link: Link::Waiting { until: now },
            failures: 0,
            redirects: 0,
            prng,
        }
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    pub(super) fn attempt(&self) -> AttemptId {
        self.attempt
    }

    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    /// The connection, if there is one.
    pub(super) fn live(&self) -> Option<&Live> {
        match &self.link {
            Link::Connected(live) => Some(live),
            Link::Waiting { .. } | Link::Connecting { .. } => None,
        }
    }

    /// The connection, if there is one.
    pub(super) fn live_mut(&mut self) -> Option<&mut Live> {
        match &mut self.link {
            Link::Connected(live) => Some(live),
            Link::Waiting { .. } | Link::Connecting { .. } => None,
        }
    }

    /// Whether the latest attempt is not over.
    pub(super) fn is_open(&self) -> bool {
        match self.link {
            Link::Waiting { .. } => false,
            Link::Connecting { .. } | Link::Connected(_) => true,
        }
    }

    /// Starts an attempt to reach `node`.
    pub(super) fn start(&mut self, config: &ClientConfig, node: NodeId, now: Time) -> AttemptId {
        self.node = node;
        self.attempt = self.attempt.next();
        self.link = Link::Connecting { until: now.after(config.connect_timeout) };
        self.attempt
    }

    /// The attempt has become a connection, on which all of `reads` are to be sent.
    pub(super) fn establish(&mut self, reads: impl Iterator<Item = RequestId>) {
        let live = Live { unsent_reads: reads.collect(), ..Live::default() };
        self.link = Link::Connected(live);
    }

    /// The attempt is over without success: the next node gets its turn, after a pause.
    pub(super) fn fail(&mut self, config: &ClientConfig, now: Time) {
        self.node = self.next_node();
        self.link = Link::Waiting { until: now.after(self.pause(config)) };
    }

    /// The attempt is over, and no other will follow.
    pub(super) fn stop(&mut self) {
        self.link = Link::Waiting { until: Time::MAX };
    }

    /// The node that has its turn after the present one.
    pub(super) fn next_node(&self) -> NodeId {
        let next = self.nodes.iter().find(|node| **node > self.node);
        *next.unwrap_or(&self.nodes[0])
    }

    /// Whether a node that is named as the leader is worth going to: one that we can reach, and
    /// not the one that said so.
    pub(super) fn is_other_node(&self, node: NodeId) -> bool {
        node != self.node && self.nodes.binary_search(&node).is_ok()
    }

    /// Whether a redirect may be followed without a pause; counts it.
    pub(super) fn may_redirect_at_once(&mut self) -> bool {
        self.redirects = self.redirects.saturating_add(1);
        self.redirects <= REDIRECTS_AT_ONCE_MAX
    }

    /// A request was decided: the node is of use.
    pub(super) fn succeed(&mut self) {
        self.failures = 0;
        self.redirects = 0;
    }

    /// How long to pause: twice as long after each failure in a row, and a random part of it, so
    /// that clients which failed together do not come back together.
    pub(super) fn pause(&mut self, config: &ClientConfig) -> Duration {
        let doubled = config.backoff_min.saturating_mul(1 << self.failures.min(30));
        let longest = doubled.min(config.backoff_max);
        self.failures = self.failures.saturating_add(1);
        self.prng.duration_between(longest / 2, longest)
    }

    /// Asserts the invariants.
    pub(super) fn check_invariants(&self) {
        assert!(self.nodes.is_sorted_by(|a, b| a < b), "nodes ascend");
        assert!(self.nodes.binary_search(&self.node).is_ok(), "the target is one of the nodes");
        let Some(live) = self.live() else { return };
        let keys = live.deadlines.by_time.iter().map(|(time, key)| (*key, *time));
        let pairs: BTreeMap<RequestKey, Time> = keys.collect();
        assert_eq!(pairs, live.deadlines.by_key, "both maps hold the same deadlines");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn connection(nodes: &[u64]) -> Connection {
        let nodes = nodes.iter().copied().map(NodeId::new).collect();
        Connection::new(nodes, 1, Time::ZERO)
    }

    #[test]
    fn nodes_take_turns() {
        let config = ClientConfig::default();
        let mut connection = connection(&[1, 4, 9]);
        let mut seen = vec![];
        for _ in 0..6 {
            connection.start(&config, connection.node(), Time::ZERO);
            seen.push(connection.node().value());
            connection.fail(&config, Time::ZERO);
        }
        assert_eq!(seen[..3], seen[3..]);
        seen.truncate(3);
        seen.sort_unstable();
        assert_eq!(seen, [1, 4, 9]);
    }

    #[test]
    fn seed_chooses_the_first_node() {
        let nodes = || (1..=5).map(NodeId::new).collect();
        let first = |seed| Connection::new(nodes(), seed, Time::ZERO).node();
        let seen: BTreeSet<NodeId> = (0..50).map(first).collect();
        assert_eq!(seen.len(), 5);
    }

    #[test]
    fn pauses_double_up_to_their_limit_and_start_again_after_success() {
        let config = ClientConfig::default();
        let mut connection = connection(&[1]);
        let mut longest = config.backoff_min;
        for _ in 0..40 {
            let pause = connection.pause(&config);
            assert!(pause >= longest / 2 && pause < longest, "{pause:?} {longest:?}");
            longest = (longest * 2).min(config.backoff_max);
        }
        connection.succeed();
        assert!(connection.pause(&config) < config.backoff_min);
    }

    #[test]
    fn unknown_nodes_are_no_place_to_go() {
        let connection = connection(&[1]);
        assert!(!connection.is_other_node(NodeId::new(1)));
        assert!(!connection.is_other_node(NodeId::new(7)));
    }

    #[test]
    fn deadline_that_is_set_again_is_moved() {
        let key = |id| RequestKey::Read(RequestId::new(id));
        let at = Time::from_micros;
        let mut deadlines = Deadlines::default();
        deadlines.set(key(1), at(5));
        deadlines.set(key(2), at(6));
        deadlines.set(key(1), at(9));
        assert_eq!(deadlines.first(), Some(at(6)));
        deadlines.clear(key(2));
        deadlines.clear(key(2));
        assert_eq!(deadlines.first(), Some(at(9)));
    }
}
