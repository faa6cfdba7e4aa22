//! What a test looks at from outside: logs, who leads, how much memory a node has used.

use std::fs;

use quorlock_core::ids::Term;
use quorlock_tests::native::Cluster;

/// Settings of nodes whose leader is expected to stay, on a machine that is busy with other things.
pub(crate) const STEADY: &[&str] = &[
    "--set",
    "election_timeout_min=1500ms",
    "--set",
    "election_timeout_max=2500ms",
    "--set",
    "write_stall_timeout=30s",
    "--limit",
    "session_lease_min=5s",
];

/// How much a node has logged.
pub(crate) fn logged(cluster: &Cluster, id: u64) -> usize {
    cluster.node(id).logged().len()
}

/// Waits until a node has logged these words, behind what it had logged before.
pub(crate) async fn says(cluster: &Cluster, id: u64, before: usize, words: &str) {
    let node = cluster.node(id);
    let what = format!("{words:?} in the log of node {id}");
    cluster
        .wait_for(&what, async || {
            node.logged().get(before..).is_some_and(|log| log.contains(words)).then_some(())
        })
        .await;
}

/// A leader and its term.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reign {
    pub(crate) leader: u64,
    term: Term,
}

impl Reign {
    /// That of now.
    pub(crate) async fn of(cluster: &Cluster) -> Self {
        let leader = cluster.leader().await;
        let report = cluster.wait_for("a report", async || cluster.report(leader).await).await;
        Self { leader, term: report.term }
    }

    /// It has not ended, and nobody was elected meanwhile.
    pub(crate) async fn goes_on(self, cluster: &Cluster) {
        assert_eq!(Self::of(cluster).await, self, "{}", cluster.logs());
    }
}

/// The most memory that a node has had since it was started, in bytes.
pub(crate) fn memory_peak(cluster: &Cluster, id: u64) -> u64 {
    let pid = cluster.node(id).pid().expect("it runs");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes: Option<u64> =
        line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
    1024 * kilobytes.expect("the system tells")
}
