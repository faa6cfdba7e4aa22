//! SIGKILL, at any moment: of the leader, of a follower, of all nodes at once.

use std::time::{Duration, Instant};

use quorlock_tests::native::Cluster;

use crate::workload::Workload;

/// Rounds of the long test.
const ROUNDS: u64 = 50;

/// Numbers that differ from run to run; the first one is printed, to say which run this was.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let seed = std::process::id().into();
        println!("seed {seed}");
        Self(seed)
    }

    /// A number below `end`.
    fn roll(&mut self, end: u64) -> u64 {
        // Splitmix64 (Steele et al., 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// Kills somebody, and says whom.
fn strike(cluster: &mut Cluster, leader: u64, dice: &mut Dice) -> String {
    match dice.roll(3) {
        0 => {
            cluster.node_mut(leader).kill();
            format!("leader {leader}")
        }
        1 => {
            let others: Vec<u64> = cluster.ids().into_iter().filter(|id| *id != leader).collect();
            let index = usize::try_from(dice.roll(others.len() as u64)).expect("it is small");
            cluster.node_mut(others[index]).kill();
            format!("follower {}", others[index])
        }
        _ => {
            cluster.kill_all();
            "all nodes".to_owned()
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_or_doubled_by_kills() {
    let mut dice = Dice::new();
    let mut cluster = Cluster::start(3).await;
    let workload = Workload::start(&cluster, 3).await;
    for round in 1..=ROUNDS {
        workload.progress(&cluster, 1).await;
        let leader = cluster.leader().await;
        // Long enough for the hand-overs to go on, never in step with them.
        tokio::time::sleep(Duration::from_micros(dice.roll(100_000))).await;
        let struck = Instant::now();
        let victim = strike(&mut cluster, leader, &mut dice);
        if !cluster.ids().iter().any(|id| cluster.node(*id).is_running()) {
            cluster.restart_all();
        }
        // A cycle that was completed just before the strike may be counted just after it.
        workload.progress(&cluster, 4).await;
        println!("round {round}: {victim} killed, gap {} ms", struck.elapsed().as_millis());
        cluster.restart_all();
    }
    workload.finish(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_without_a_majority_waits_and_goes_on() {
    let mut cluster = Cluster::start(5).await;
    let workload = Workload::start(&cluster, 3).await;
    workload.progress(&cluster, 20).await;
    let leader = cluster.leader().await;
    let victims: Vec<u64> = [leader].into_iter().chain((0..5).filter(|id| *id != leader)).collect();
    for id in &victims[..3] {
        cluster.node_mut(*id).kill();
    }
    let output = cluster.run(&["status"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    cluster.restart(victims[0]);
    workload.progress(&cluster, 20).await;
    cluster.restart_all();
    workload.finish(&cluster).await;
}
