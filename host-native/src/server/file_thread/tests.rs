//! Tests of the thread of the files.

use std::fs::{self, File};
use std::sync::Mutex;
use std::sync::mpsc::Receiver as Events;

use quorlock_core::checksum::Checksum;
use quorlock_core::ids::{ConnectionId, RequestId};
use quorlock_core::message::FileView;
use quorlock_core::text::LockName;

use super::*;
use crate::server::files::{Disk, SystemDisk};

/// How long a test waits for what must happen.
const DEADLINE: Duration = Duration::from_mins(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mood {
    Fine,
    Full,
    SyncFails,
    Panics,
}

/// A disk that a test looks into.
#[derive(Clone)]
struct Moody(Arc<Mutex<(Mood, usize)>>);

impl Moody {
    fn new(mood: Mood) -> Self {
        Self(Arc::new(Mutex::new((mood, 0))))
    }

    fn set(&self, mood: Mood) {
        self.0.lock().expect("nobody panics while it holds it").0 = mood;
    }

    fn syncs(&self) -> usize {
        self.0.lock().expect("nobody panics while it holds it").1
    }
}

impl Disk for Moody {
    fn write_at(&mut self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mood = self.0.lock().expect("nobody panics while it holds it").0;
        if mood == Mood::Full {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        assert!(mood != Mood::Panics, "a test");
        SystemDisk.write_at(file, bytes, offset)
    }

    fn read_at(&mut self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        SystemDisk.read_at(file, bytes, offset)
    }

    fn sync(&mut self, file: &File) -> io::Result<()> {
        let mut state = self.0.lock().expect("nobody panics while it holds it");
        state.1 += 1;
        if state.0 == Mood::SyncFails {
            // The next sync would succeed.
            state.0 = Mood::Fine;
            return Err(rustix::io::Errno::IO.into());
        }
        SystemDisk.sync(file)
    }
}

struct Run {
    directory: tempfile::TempDir,
    disk: Moody,
    thread: FileThread,
    events: Events<FileEvent>,
}

impl Run {
    fn new(mood: Mood) -> Self {
        let directory = tempfile::tempdir().expect("there is space");
        for name in ["files", "fetched", "quarantine"] {
            fs::create_dir(directory.path().join(name)).expect("there is space");
        }
        let disk = Moody::new(mood);
        let files = Files::with_disk(directory.path(), Box::new(disk.clone()));
        let (sender, events) = mpsc::channel();
        let on_event = move |event| drop(sender.send(event));
        let files = files.expect("the directories are there");
        let thread = FileThread::start(files, on_event).expect("a thread");
        Self { directory, disk, thread, events }
    }

    fn effect(&self, index: u64, offset: u64, bytes: &'static [u8]) {
        self.thread.submit(FileTask::Effect(Effect {
            index: LogIndex::new(index),
            file: file(),
            offset,
            bytes: Bytes::from_static(bytes),
        }));
    }

    fn applied(&self, index: u64) {
        self.thread.submit(FileTask::Applied(LogIndex::new(index)));
    }

    /// Reads for a peer.
    fn read(&self, offset: u64, length: u32) -> Result<Bytes, FilesError> {
        let (done, outcome) = answer();
        self.thread.submit(FileTask::ReadRange { file: file(), offset, length, done });
        outcome.recv_timeout(DEADLINE).expect("every task is answered")
    }

    fn next(&self) -> FileEvent {
        self.events.recv_timeout(DEADLINE).expect("something is said")
    }

    /// Waits until an entry is said to be durable, and nothing beyond it is.
    fn durable(&self, index: u64) {
        loop {
            match self.next() {
                FileEvent::Durable { up_to, .. } => {
                    assert!(up_to <= LogIndex::new(index), "{up_to} is too far");
                    if up_to == LogIndex::new(index) {
                        return;
                    }
                }
                other @ (FileEvent::Damaged { .. }
                | FileEvent::Full { .. }
                | FileEvent::SpaceAgain
                | FileEvent::Failed(_)) => panic!("{other:?}"),
            }
        }
    }

    fn content(&self) -> Vec<u8> {
        fs::read(self.directory.path().join("files").join("journal")).unwrap_or_default()
    }
}

fn file() -> FileName {
    FileName::new("journal").expect("a name")
}

fn answer<T: Send + 'static>() -> (Done<T>, Events<Result<T, FilesError>>) {
    let (sender, outcome) = mpsc::channel();
    (Box::new(move |result| drop(sender.send(result))), outcome)
}

#[test]
fn an_entry_is_durable_with_the_last_of_its_effects() {
    let run = Run::new(Mood::Fine);
    run.effect(3, 0, b"one ");
    run.effect(3, 4, b"two ");
    run.effect(7, 8, b"three");
    run.durable(6);
    run.applied(9);
    run.durable(9);
    run.applied(10);
    run.effect(11, 13, b"");
    run.applied(11);
    run.durable(11);
    run.thread.stop();
    assert!(run.events.recv().is_err(), "an entry without effects is no news");
}

#[test]
fn many_effects_share_a_sync() {
    let run = Run::new(Mood::Fine);
    for index in 1..=2000 {
        run.effect(index, index - 1, b"x");
    }
    run.applied(2000);
    run.durable(2000);
    assert!(run.disk.syncs() < 200, "{} syncs", run.disk.syncs());
    assert_eq!(run.content().len(), 2000);
}

#[test]
fn finishes_before_it_stops() {
    let run = Run::new(Mood::Fine);
    run.effect(1, 0, b"line");
    run.applied(1);
    run.thread.stop();
    let event = run.events.recv().expect("it is durable");
    assert!(matches!(event, FileEvent::Durable { up_to, .. } if up_to == LogIndex::new(1)));
    assert_eq!(fs::read(run.directory.path().join("files/journal")).expect("it is there"), b"line");
}

#[test]
fn reads_follow_effects() {
    let run = Run::new(Mood::Fine);
    run.effect(1, 0, b"0123456789");
    assert_eq!(run.read(2, 3).expect("it was written before"), "234");
    let (done, outcome) = answer();
    let read = FileRead {
        conn: ConnectionId::new(1),
        id: RequestId::new(1),
        index: LogIndex::new(1),
        file: FileView {
            file: file(),
            guard: LockName::new("guard").expect("a name"),
            length: 10,
            checksum: Checksum::of(b"0123456789"),
        },
        offset: 5,
        length: 5,
    };
    run.thread.submit(FileTask::Read { read, done });
    assert_eq!(outcome.recv_timeout(DEADLINE).expect("answered").expect("it is there"), "56789");
    let refused = run.read(5, 6).expect_err("there is less");
    assert!(matches!(refused, FilesError::NotThere { .. }), "{refused}");
    assert_eq!(run.read(5, 5).expect("that was no harm"), "56789");
}

#[test]
fn fetches_what_is_missing() {
    let run = Run::new(Mood::Fine);
    run.effect(1, 0, b"01234");
    let (length, checksum) = (10, Checksum::of(b"0123456789"));
    let missing = MissingBytes { file: file(), offset: 5, length, checksum };
    let (done, outcome) = answer();
    run.thread.submit(FileTask::FetchFrom { missing: missing.clone(), done });
    assert_eq!(outcome.recv_timeout(DEADLINE).expect("answered").expect("it can be read"), 5);
    for (offset, bytes, next) in [(5, "567", 8), (8, "89", 10)] {
        let (done, outcome) = answer();
        let bytes = Bytes::from(bytes);
        let missing = missing.clone();
        run.thread.submit(FileTask::Install { missing, offset, bytes, done });
        assert_eq!(
            outcome.recv_timeout(DEADLINE).expect("answered").expect("there is space"),
            next
        );
    }
    let (done, outcome) = answer();
    run.thread.submit(FileTask::Complete { missing, done });
    assert!(outcome.recv_timeout(DEADLINE).expect("answered").expect("there is space"));
    assert_eq!(run.content(), b"0123456789");
}

#[test]
fn a_range_has_a_limit() {
    let run = Run::new(Mood::Fine);
    let content: &'static [u8] = vec![7; FILE_RANGE_BYTES_MAX as usize + 10].leak();
    run.effect(1, 0, content);
    let read = run.read(4, FILE_RANGE_BYTES_MAX + 1).expect("it is there");
    assert_eq!(read.len(), FILE_RANGE_BYTES_MAX as usize);
}

#[test]
fn too_many_reads_are_refused() {
    let run = Run::new(Mood::Fine);
    // The thread is held up by an answer that waits for the test.
    let (hold, held) = mpsc::channel::<()>();
    let (started, is_started) = mpsc::channel();
    let done: Done<Bytes> = Box::new(move |_| {
        started.send(()).expect("the test waits for it");
        assert!(held.recv().is_err(), "it ends when the test lets go");
    });
    run.thread.submit(FileTask::ReadRange { file: file(), offset: 0, length: 0, done });
    is_started.recv_timeout(DEADLINE).expect("it is on the way");
    let (sender, outcomes) = mpsc::channel();
    for _ in 0..READS_MAX + 10 {
        let sender = sender.clone();
        let done: Done<Bytes> = Box::new(move |outcome| drop(sender.send(outcome)));
        run.thread.submit(FileTask::ReadRange { file: file(), offset: 0, length: 0, done });
    }
    for _ in 0..10 {
        let refused = outcomes.recv_timeout(DEADLINE).expect("at once").expect_err("too many");
        assert!(matches!(refused, FilesError::TooManyReads), "{refused}");
    }
    drop(hold);
    for _ in 0..READS_MAX {
        let refused = outcomes.recv_timeout(DEADLINE).expect("later").expect_err("no such file");
        assert!(matches!(refused, FilesError::NotThere { .. }), "{refused}");
    }
    assert!(matches!(run.read(0, 0), Err(FilesError::NotThere { .. })), "there is room again");
}

#[test]
fn waits_for_space_and_goes_on() {
    let run = Run::new(Mood::Full);
    run.effect(1, 0, b"line");
    run.applied(1);
    assert!(matches!(run.next(), FileEvent::Full { .. }));
    thread::sleep(RETRY_INTERVAL);
    assert!(run.events.try_recv().is_err(), "nothing is acknowledged, and it is said once");
    run.disk.set(Mood::Fine);
    assert!(matches!(run.next(), FileEvent::SpaceAgain));
    run.durable(1);
    assert_eq!(run.content(), b"line");
}

#[test]
fn stops_on_a_full_disk() {
    let run = Run::new(Mood::Full);
    run.effect(1, 0, b"line");
    run.applied(1);
    assert!(matches!(run.next(), FileEvent::Full { .. }));
    run.thread.stop();
    assert!(run.events.recv().is_err(), "nothing is acknowledged");
}

/// The second sync would succeed, and is not asked for.
#[test]
fn a_failure_is_final() {
    let run = Run::new(Mood::SyncFails);
    run.effect(1, 0, b"line");
    run.applied(1);
    assert!(matches!(run.next(), FileEvent::Failed(FilesError::Failed { .. })));
    run.effect(2, 4, b"line");
    run.applied(2);
    assert!(matches!(run.read(0, 1), Err(FilesError::Closed)));
    run.thread.stop();
    assert!(run.events.recv().is_err(), "nothing is acknowledged");
    assert_eq!(run.disk.syncs(), 1);
}

/// A broken invariant stops the node, too.
#[test]
fn a_panic_is_told() {
    let run = Run::new(Mood::Panics);
    run.effect(1, 0, b"line");
    run.applied(1);
    assert!(matches!(run.next(), FileEvent::Failed(FilesError::Failed { .. })));
    assert!(matches!(run.read(0, 1), Err(FilesError::Closed)));
    run.thread.stop();
}

#[test]
fn a_damaged_file_is_final() {
    let run = Run::new(Mood::Fine);
    run.effect(1, 0, b"line");
    run.applied(1);
    run.durable(1);
    fs::write(run.directory.path().join("files/journal"), b"li").expect("there is space");
    run.effect(2, 4, b"line");
    run.applied(2);
    let event = run.next();
    assert!(matches!(&event, FileEvent::Damaged { file: damaged, .. } if *damaged == file()));
    run.effect(3, 8, b"line");
    run.applied(3);
    assert!(matches!(run.read(0, 1), Err(FilesError::Closed)));
    run.thread.stop();
    assert!(run.events.recv().is_err(), "nothing is acknowledged");
}
