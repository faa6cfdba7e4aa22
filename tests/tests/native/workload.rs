//! Clients that do what the system is for, for as long as a test wants, and remember what they were told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use quorlock::client::{CallError, Client, FencingToken, Wait};
use quorlock_tests::native::Cluster;
use tokio::task::JoinHandle;

/// The lock that all workers want.
pub(crate) const LOCK: &str = "counter";
/// The file that it guards.
pub(crate) const FILE: &str = "journal";

/// Workers, each with a session of its own, in cycles of acquire, append, release.
pub(crate) struct Workload {
    workers: Vec<JoinHandle<Vec<Line>>>,
    stop: Arc<AtomicBool>,
    cycles: Arc<AtomicU64>,
}

/// A line that a worker appended, or may have.
#[derive(Debug)]
struct Line {
    text: String,
    /// Where the cluster said that it is; `None` if the worker was not told.
    offset: Option<u64>,
}

impl Workload {
    /// Starts so many workers.
    pub(crate) async fn start(cluster: &Cluster, workers: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let cycles = Arc::new(AtomicU64::new(0));
        let mut started = Vec::new();
        for worker in 0..workers {
            let client = cluster.client().await;
            let work = work(client, worker, Arc::clone(&stop), Arc::clone(&cycles));
            started.push(tokio::spawn(work));
        }
        Self { workers: started, stop, cycles }
    }

    /// How many cycles were completed, by all workers together.
    pub(crate) fn cycles(&self) -> u64 {
        self.cycles.load(Ordering::SeqCst)
    }

    /// Waits until `more` further cycles are completed: the cluster serves.
    pub(crate) async fn progress(&self, cluster: &Cluster, more: u64) {
        let goal = self.cycles() + more;
        cluster.wait_for("completed cycles", async || (self.cycles() >= goal).then_some(())).await;
    }

    /// Ends the workers, and checks everything that they were told against the file, on every node.
    pub(crate) async fn finish(self, cluster: &Cluster) {
        self.stop.store(true, Ordering::SeqCst);
        let mut lines = Vec::new();
        for worker in self.workers {
            lines.extend(worker.await.expect("a worker does not panic"));
        }
        let reader = cluster.client().await;
        cluster.settle().await;
        let view = reader.file(FILE).await.expect("the cluster serves").expect("it was written");
        let content = cluster.file_everywhere(&view).await;
        let content = String::from_utf8(content).expect("the workers write text");
        check(&content, &lines);
        reader.close().await.expect("the cluster serves");
    }
}

async fn work(
    client: Client,
    worker: u64,
    stop: Arc<AtomicBool>,
    cycles: Arc<AtomicU64>,
) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut round = 0_u64;
    while !stop.load(Ordering::SeqCst) {
        let lock = client.acquire(LOCK, Wait::Forever).await;
        let lock = lock.unwrap_or_else(|error| panic!("worker {worker}: {error}"));
        let text = format!("{} worker {worker} round {round}\n", lock.token());
        let offset = match lock.append(FILE, text.clone()).await {
            Ok(offset) => Some(offset),
            Err(CallError::Unknown) => None,
            Err(error) => panic!("worker {worker} holds {LOCK}: {error}"),
        };
        lines.push(Line { text, offset });
        lock.release().await.unwrap_or_else(|error| panic!("worker {worker}: {error}"));
        round += 1;
        cycles.fetch_add(1, Ordering::SeqCst);
    }
    client.close().await.expect("the cluster serves");
    lines
}

/// Every line that was acknowledged is where it was said to be; every line is there once, those that
/// were not acknowledged at most once; nothing else is; and tokens grow from line to line.
fn check(content: &str, lines: &[Line]) {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for line in content.split_inclusive('\n') {
        *counts.entry(line).or_default() += 1;
    }
    for Line { text, offset } in lines {
        let count = counts.remove(text.as_str()).unwrap_or_default();
        let expected = if offset.is_some() { 1..=1 } else { 0..=1 };
        assert!(expected.contains(&count), "{text:?} is there {count} times");
        if let Some(offset) = offset {
            let offset = usize::try_from(*offset).expect("the file fits into memory");
            assert!(content[offset..].starts_with(text), "{text:?} is not at {offset}");
        }
    }
    assert!(counts.is_empty(), "nobody wrote {counts:?}");
    let token = |line: &str| {
        let number = line.split(' ').next().and_then(|number| number.parse().ok());
        FencingToken::new(number.expect("a line begins with its token"))
    };
    let tokens: Vec<FencingToken> = content.lines().map(token).collect();
    assert!(tokens.is_sorted_by(|before, after| before < after), "tokens grow: {tokens:?}");
}
