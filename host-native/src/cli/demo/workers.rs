//! Clients that go through cycles on one lock, and the record of what they were told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::Failure;
use crate::client::{AcquireError, CallError, Client, ClientOptions, Wait};

/// The file that everybody appends to, and the lock that guards it.
pub(super) const JOURNAL: &str = "journal";

/// Long enough that a session survives a fail-over.
const LEASE: Duration = Duration::from_secs(5);

/// What the workers were told.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// When each cycle was completed, in order.
    pub(super) completed: Vec<Instant>,
    /// Every line that was acknowledged, and those of which nobody can say.
    pub(super) lines: Vec<Line>,
    /// Sessions that ended while they were needed.
    pub(super) sessions_lost: usize,
    /// What should not have happened.
    pub(super) problems: Vec<String>,
    /// Told once, at the next moment at which a lock is handed on.
    pub(super) hand_off: Option<oneshot::Sender<()>>,
}

/// A line that was to be appended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Line {
    pub(super) text: String,
    /// Where it is; `None` if the answer was lost, so that it may be there or not.
    pub(super) offset: Option<u64>,
}

/// Clients at work.
#[derive(Debug)]
pub(super) struct Workers {
    record: Arc<Mutex<Record>>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Workers {
    pub(super) fn start(count: u64, options: &ClientOptions) -> Self {
        let mut workers =
            Self { record: Arc::default(), stop: Arc::default(), tasks: JoinSet::new() };
        for number in 0..count {
            let worker = Worker {
                number,
                options: options.clone().lease(LEASE),
                record: Arc::clone(&workers.record),
                stop: Arc::clone(&workers.stop),
            };
            workers.tasks.spawn(worker.run());
        }
        workers
    }

    /// How many cycles are completed.
    pub(super) fn cycles(&self) -> usize {
        lock(&self.record).completed.len()
    }

    /// Waits until so many cycles are completed; `false` if that takes too long.
    pub(super) async fn reach(&self, cycles: usize, patience: Duration) -> bool {
        let reached = async {
            while self.cycles() < cycles {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(patience, reached).await.is_ok()
    }

    /// Resolves at the next moment at which a worker has sent off its release, and the next one waits
    /// for its grant.
    pub(super) async fn hand_off(&self) {
        let (sender, receiver) = oneshot::channel();
        lock(&self.record).hand_off = Some(sender);
        // It is dropped only together with the record.
        drop(receiver.await);
    }

    /// The longest time without a completed cycle that ended after `from`.
    pub(super) fn longest_gap(&self, from: Instant) -> Duration {
        longest_gap(&lock(&self.record).completed, from)
    }

    /// Lets everybody finish the cycle that is under way, and returns the record.
    pub(super) async fn finish(mut self) -> Result<Record, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.map_err(|error| {
                Failure::internal(format!("a client of the demo failed: {error}"))
            })?;
        }
        Ok(std::mem::take(&mut lock(&self.record)))
    }
}

fn longest_gap(completed: &[Instant], from: Instant) -> Duration {
    let gaps = completed.windows(2).filter(|pair| pair[1] > from);
    gaps.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().expect("nobody panics while holding it")
}

struct Worker {
    number: u64,
    options: ClientOptions,
    record: Arc<Mutex<Record>>,
    stop: Arc<AtomicBool>,
}

/// Why a worker needs another session.
#[derive(Debug)]
enum Broken {
    Session,
    /// This is no matter of sessions.
    Problem(String),
}

impl Worker {
    async fn run(self) {
        let mut cycle = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let client = match Client::connect(self.options.clone()).await {
                Ok(client) => client,
                Err(error) => {
                    self.problem(format!("client {}: {error}", self.number));
                    return;
                }
            };
            match self.work(&client, &mut cycle).await {
                Ok(()) => drop(client.close().await),
                Err(Broken::Session) => lock(&self.record).sessions_lost += 1,
                Err(Broken::Problem(problem)) => {
                    self.problem(format!("client {}: {problem}", self.number));
                    return;
                }
            }
        }
    }

    fn problem(&self, problem: String) {
        lock(&self.record).problems.push(problem);
    }

    async fn work(&self, client: &Client, cycle: &mut u64) -> Result<(), Broken> {
        while !self.stop.load(Ordering::Relaxed) {
            let held = client.acquire(JOURNAL, Wait::Forever).await.map_err(of_acquire)?;
            *cycle += 1;
            let text = format!("token {} client {} cycle {cycle}\n", held.token(), self.number);
            match held.append(JOURNAL, text.clone()).await {
                Ok(offset) => self.record_line(text, Some(offset)),
                Err(CallError::Unknown) => {
                    self.record_line(text, None);
                    return Err(Broken::Session);
                }
                Err(error) => return Err(of_call(error)),
            }
            let hand_off = lock(&self.record).hand_off.take();
            let release = held.release();
            let told = async {
                // The release is polled first: when this runs, it is on its way.
                if let Some(hand_off) = hand_off {
                    // Whoever waited may have given up.
                    hand_off.send(()).unwrap_or_default();
                }
            };
            let (released, ()) = tokio::join!(biased; release, told);
            match released {
                Ok(()) => lock(&self.record).completed.push(Instant::now()),
                Err(error) => return Err(of_call(error)),
            }
        }
        Ok(())
    }

    fn record_line(&self, text: String, offset: Option<u64>) {
        lock(&self.record).lines.push(Line { text, offset });
    }
}

fn of_acquire(error: AcquireError) -> Broken {
    match error {
        AcquireError::Call(error) => of_call(error),
        AcquireError::NotObtained { .. }
        | AcquireError::TimedOut { .. }
        | AcquireError::Cancelled { .. }
        | AcquireError::AlreadyHeld { .. }
        | AcquireError::AlreadyWaiting { .. } => Broken::Problem(error.to_string()),
    }
}

fn of_call(error: CallError) -> Broken {
    match error {
        CallError::SessionEnded(_) | CallError::Unknown => Broken::Session,
        CallError::Rejected(_)
        | CallError::TooManyCalls
        | CallError::Name { .. }
        | CallError::NotAdmin { .. }
        | CallError::NoSuchFile(_) => Broken::Problem(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_before_the_crash_do_not_count() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let completed = [at(0), at(900), at(1000), at(1010), at(1700), at(1710)];
        assert_eq!(longest_gap(&completed, at(1005)), Duration::from_millis(690));
        assert_eq!(longest_gap(&completed, at(500)), Duration::from_millis(900));
        assert_eq!(longest_gap(&completed, at(2000)), Duration::ZERO);
        assert_eq!(longest_gap(&[], at(0)), Duration::ZERO);
    }
}
