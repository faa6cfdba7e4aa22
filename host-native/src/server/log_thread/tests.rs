//! Tests of the thread that writes the log, with a disk made of memory.

use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};

use quorlock_core::message::Recovered;

use super::*;

/// How long a test waits for what must happen.
const DEADLINE: Duration = Duration::from_mins(1);

/// What the disk does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mood {
    Fine,
    Full,
    Fails,
    Panics,
}

#[derive(Debug)]
struct State {
    mood: Mood,
    /// The groups that were written, by the ids of their batches.
    groups: Vec<Vec<u64>>,
    attempts: usize,
    /// How often it was tidied up since the last write.
    tidied: usize,
}

/// A disk that a test looks into. While the test holds it, the thread waits.
#[derive(Clone, Debug)]
struct Memory(Arc<Mutex<State>>);

impl Memory {
    fn new(mood: Mood) -> Self {
        let state = State { mood, groups: Vec::new(), attempts: 0, tidied: 0 };
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while it holds it")
    }

    /// Waits until something is true of it.
    fn wait_for(&self, is_so: impl Fn(&State) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !is_so(&self.state()) {
            assert!(Instant::now() < deadline, "it did not happen: {:?}", self.state());
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Storage for Memory {
    fn recover(&mut self) -> Result<Option<Recovered>, StorageError> {
        Ok(None)
    }

    fn write(&mut self, batches: &[WriteBatch]) -> Result<(), StorageError> {
        let mut state = self.state();
        state.attempts += 1;
        state.tidied = 0;
        let reason = "a test".to_owned();
        match state.mood {
            Mood::Fine => state.groups.push(batches.iter().map(|batch| batch.id.value()).collect()),
            Mood::Full => return Err(StorageError::Full { reason }),
            Mood::Panics => {
                drop(state);
                panic!("a test");
            }
            Mood::Fails => {
                // The next attempt would succeed.
                state.mood = Mood::Fine;
                return Err(StorageError::Failed { reason });
            }
        }
        Ok(())
    }

    fn tidy(&mut self) -> Result<bool, StorageError> {
        self.state().tidied += 1;
        Ok(false)
    }
}

fn start(memory: &Memory) -> (LogThread, Receiver<LogEvent>) {
    let (sender, events) = mpsc::channel();
    let on_event = move |event| drop(sender.send(event));
    let thread = LogThread::start(Box::new(memory.clone()), on_event).expect("a thread");
    (thread, events)
}

fn batch(id: u64) -> WriteBatch {
    WriteBatch {
        id: WriteId::new(id),
        hard_state: None,
        truncate_from: None,
        entries: Vec::new(),
        snapshot: None,
        compact_through: None,
    }
}

fn next(events: &Receiver<LogEvent>) -> LogEvent {
    events.recv_timeout(DEADLINE).expect("something is said")
}

/// Waits until everything up to a batch is durable.
fn persisted(events: &Receiver<LogEvent>, id: u64) {
    loop {
        match next(events) {
            LogEvent::Persisted { up_to, batches, .. } => {
                assert!(batches > 0);
                if up_to == WriteId::new(id) {
                    return;
                }
            }
            other @ (LogEvent::Full { .. } | LogEvent::SpaceAgain | LogEvent::Failed(_)) => {
                panic!("{other:?}")
            }
        }
    }
}

#[test]
fn writes_in_order_what_waits_together() {
    let memory = Memory::new(Mood::Fine);
    let (thread, events) = start(&memory);
    {
        let held = memory.state();
        for id in 1..=100 {
            thread.submit(batch(id));
        }
        drop(held);
    }
    persisted(&events, 100);
    thread.stop();
    let groups = memory.state().groups.clone();
    assert_eq!(groups.concat(), (1..=100).collect::<Vec<_>>());
    assert!(groups.len() < 100, "some of them were written together");
}

#[test]
fn a_group_has_a_limit() {
    let memory = Memory::new(Mood::Fine);
    let (thread, events) = start(&memory);
    {
        let held = memory.state();
        for id in 1..=20 {
            let entry = quorlock_core::message::Entry {
                id: quorlock_core::ids::EntryId::ZERO,
                stamp: quorlock_core::time::LeaseTime::ZERO,
                payload: quorlock_core::message::Payload::Command(vec![0; 1 << 20].into()),
            };
            thread.submit(WriteBatch { entries: vec![entry], ..batch(id) });
        }
        drop(held);
    }
    persisted(&events, 20);
    assert!(memory.state().groups.iter().all(|group| group.len() <= 4));
}

#[test]
fn finishes_before_it_stops() {
    let memory = Memory::new(Mood::Fine);
    let (thread, events) = start(&memory);
    for id in 1..=50 {
        thread.submit(batch(id));
    }
    thread.stop();
    assert_eq!(memory.state().groups.concat().len(), 50);
    persisted(&events, 50);
    assert!(events.recv().is_err(), "the thread is gone");
    assert!(memory.state().tidied > 0, "the mark is exact after a stop");
}

#[test]
fn tidies_up_when_it_is_quiet() {
    let memory = Memory::new(Mood::Fine);
    let (thread, events) = start(&memory);
    thread.submit(batch(1));
    persisted(&events, 1);
    memory.wait_for(|state| state.tidied > 0);
    drop(thread);
}

#[test]
fn waits_for_space_and_goes_on() {
    let memory = Memory::new(Mood::Full);
    let (thread, events) = start(&memory);
    thread.submit(batch(1));
    assert!(matches!(next(&events), LogEvent::Full { .. }));
    thread.submit(batch(2));
    memory.wait_for(|state| state.attempts >= 3);
    assert!(events.try_recv().is_err(), "nothing is acknowledged, and it is said once");
    memory.state().mood = Mood::Fine;
    let first = next(&events);
    assert!(matches!(first, LogEvent::Persisted { up_to, .. } if up_to == WriteId::new(1)));
    assert!(matches!(next(&events), LogEvent::SpaceAgain));
    persisted(&events, 2);
    thread.stop();
    assert_eq!(memory.state().groups.concat(), [1, 2]);
}

#[test]
fn stops_on_a_full_disk() {
    let memory = Memory::new(Mood::Full);
    let (thread, events) = start(&memory);
    thread.submit(batch(1));
    assert!(matches!(next(&events), LogEvent::Full { .. }));
    thread.stop();
    assert!(events.recv().is_err(), "nothing is acknowledged");
}

/// A broken invariant stops the node, too.
#[test]
fn a_panic_is_told() {
    let memory = Memory::new(Mood::Panics);
    let (thread, events) = start(&memory);
    thread.submit(batch(1));
    assert!(matches!(next(&events), LogEvent::Failed(StorageError::Failed { .. })));
    assert!(events.recv().is_err(), "the thread is gone");
    thread.stop();
}

/// An error that is no lack of space: the disk would take the next write, and is not asked.
#[test]
fn a_failure_is_final() {
    let memory = Memory::new(Mood::Fails);
    let (thread, events) = start(&memory);
    thread.submit(batch(1));
    assert!(matches!(next(&events), LogEvent::Failed(StorageError::Failed { .. })));
    assert!(events.recv().is_err(), "the thread is gone");
    thread.submit(batch(2));
    thread.stop();
    assert_eq!(memory.state().attempts, 1);
}
