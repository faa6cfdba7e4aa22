//! Random steps: loss, repetition and reordering of messages, one-way cuts, crashes, disks that
//! take their time, snapshots at any moment. The checker of the cluster looks at every step; when
//! the faults end, the cluster must come to one state.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::cluster::{Cluster, Seen, node};
use crate::ids::LogIndex;
use crate::message::Envelope;
use crate::prng::Prng;
use crate::time::Duration;

/// How often each thing happens, in parts of their sum.
struct Weights {
    deliver: u64,
    lose: u64,
    repeat: u64,
    write: u64,
    time: u64,
    propose: u64,
    read: u64,
    cut: u64,
    crash: u64,
    compact: u64,
    transfer: u64,
    judge: u64,
}

const CALM: Weights = Weights {
    deliver: 60,
    lose: 2,
    repeat: 2,
    write: 30,
    time: 8,
    propose: 15,
    read: 5,
    cut: 0,
    crash: 1,
    compact: 5,
    transfer: 1,
    judge: 3,
};

const STORM: Weights = Weights {
    deliver: 50,
    lose: 12,
    repeat: 10,
    write: 20,
    time: 20,
    propose: 14,
    read: 4,
    cut: 2,
    crash: 3,
    compact: 6,
    transfer: 2,
    judge: 4,
};

struct Run {
    cluster: Cluster,
    prng: Prng,
}

impl Run {
    fn new(size: u64, seed: u64) -> Self {
        let mut cluster = Cluster::new(size);
        for number in cluster.numbers() {
            cluster.host(number).writes_at_once = false;
        }
        Self { cluster, prng: Prng::new(seed) }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.prng.below(bound)
    }

    /// Any node, or one that is up.
    fn any(&mut self) -> u64 {
        let size = self.cluster.hosts.len() as u64;
        1 + self.below(size)
    }

    fn any_up(&mut self) -> Option<u64> {
        let number = self.any();
        self.cluster.is_up(number).then_some(number)
    }

    fn step(&mut self, weights: &Weights) {
        let Weights { deliver, lose, repeat, write, time, propose, .. } = *weights;
        let Weights { read, cut, crash, compact, transfer, judge, .. } = *weights;
        let all = [
            deliver, lose, repeat, write, time, propose, read, cut, crash, compact, transfer, judge,
        ];
        let mut left = self.below(all.iter().sum());
        let mut choice = 0;
        while left >= all[choice] {
            left -= all[choice];
            choice += 1;
        }
        match choice {
            0 => self.deliver(false),
            1 => drop(self.take()),
            2 => self.deliver(true),
            3 => self.write(),
            4 => self.pass_time(),
            8 => self.crash_or_start(),
            7 => self.cut_or_heal(),
            _ => self.ask(choice),
        }
    }

    /// Something that only a node that is up can be asked for.
    fn ask(&mut self, choice: usize) {
        let Some(number) = self.any_up() else { return };
        match choice {
            5 => drop(self.cluster.propose(number)),
            6 => drop(self.cluster.read(number)),
            9 => {
                let retained = self.below(4);
                self.cluster.compact(number, retained);
            }
            10 => {
                let to = Some(node(self.any())).filter(|_| self.below(2) == 0);
                let _refused =
                    self.cluster.act(number, |raft, now| raft.transfer_leadership(now, to));
            }
            _ => {
                let ok = self.below(4) > 0;
                self.cluster.judge(number, ok);
            }
        }
    }

    /// One of the oldest messages: the network reorders a little.
    fn take(&mut self) -> Option<Envelope> {
        let near = (self.cluster.network.len() as u64).min(6);
        let far = self.cluster.network.len() as u64;
        let reach = if self.below(10) == 0 { far } else { near };
        let position = usize::try_from(self.below(reach)).expect("a small number");
        self.cluster.network.remove(position)
    }

    fn deliver(&mut self, repeat: bool) {
        let Some(envelope) = self.take() else { return };
        if repeat {
            self.cluster.network.push_back(envelope.clone());
        }
        self.cluster.deliver(envelope);
    }

    fn write(&mut self) {
        let Some(number) = self.any_up() else { return };
        let batches = usize::try_from(1 + self.below(3)).expect("a small number");
        self.cluster.write(number, batches);
    }

    fn pass_time(&mut self) {
        let millis = self.below(40);
        self.cluster.sleep(Duration::from_millis(millis));
        self.cluster.fire();
    }

    fn crash_or_start(&mut self) {
        let down = self.cluster.numbers().into_iter().find(|number| !self.cluster.is_up(*number));
        let number = self.any();
        if let Some(down) = down
            && self.below(4) > 0
        {
            self.cluster.start(down);
        } else if self.cluster.is_up(number) {
            // A crash can come after the write and before anybody hears of it.
            if self.below(3) == 0 {
                self.cluster.write(number, 1);
            }
            self.cluster.crash(number);
        } else {
            self.cluster.start(number);
        }
    }

    fn cut_or_heal(&mut self) {
        let (a, b) = (node(self.any()), node(self.any()));
        if self.below(2) == 0 {
            self.cluster.cut.clear();
        } else {
            self.cluster.cut.insert((a, b));
        }
    }

    /// No more faults: a leader is found, and everyone applies the same.
    fn heal(&mut self) {
        self.cluster.cut = BTreeSet::new();
        for number in self.cluster.numbers() {
            self.cluster.host(number).writes_at_once = true;
            if self.cluster.is_up(number) {
                self.cluster.write(number, usize::MAX);
            } else {
                self.cluster.start(number);
            }
        }
        let leader = self.cluster.leader();
        let last = self.cluster.propose(leader).expect("a leader takes proposals");
        self.cluster.run(Duration::from_secs(2));
        let applied: Vec<LogIndex> = self
            .cluster
            .numbers()
            .into_iter()
            .map(|number| self.cluster.raft(number).applied().index)
            .collect();
        assert!(applied.iter().all(|index| *index >= last.index), "someone lags: {applied:?}");
        let round = self.cluster.read(leader);
        self.cluster.settle();
        let confirmed = self.cluster.host(leader).confirmed.last().map(|(round, _)| *round);
        assert_eq!(confirmed, round);
    }
}

/// Runs a cluster through faults and out of them; what happened is added to `seen`.
fn run(size: u64, seed: u64, steps: u64, weights: &Weights, seen: &mut Seen) {
    let mut run = Run::new(size, seed);
    for step in 0..steps {
        run.step(weights);
        if step % 16 == 0 {
            run.cluster.check_log_matching();
        }
    }
    run.heal();
    for (event, count) in run.cluster.seen {
        *seen.entry(event).or_insert(0) += count;
    }
}

/// Everything that the runs are there to see happened, and often.
fn assert_seen(seen: &Seen, runs: u64) {
    let events = ["leader", "read", "snapshot installed", "truncated", "conflict", "transfer"];
    for event in events {
        let count = seen.get(event).copied().unwrap_or(0);
        assert!(count >= runs / 2, "{event} happened hardly ever: {seen:?}");
    }
}

#[test]
fn safe_and_live_in_calm_weather() {
    let mut seen = Seen::new();
    (0..200).for_each(|seed| run(1 + seed % 5, seed, 2500, &CALM, &mut seen));
    assert_seen(&seen, 200);
}

#[test]
fn safe_and_live_in_a_storm() {
    let mut seen = Seen::new();
    (0..400).for_each(|seed| run(2 + seed % 4, seed, 2500, &STORM, &mut seen));
    assert_seen(&seen, 400);
}

#[test]
fn a_run_depends_on_its_seed_alone() {
    let states = [0, 1].map(|_| {
        let mut run = Run::new(3, 7);
        (0..1000).for_each(|_| run.step(&STORM));
        std::format!("{:?}", run.cluster.raft_states())
    });
    assert_eq!(states[0], states[1]);
}
