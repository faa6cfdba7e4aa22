//! Disks that are full, that fail, and that do things by halves.

use super::*;

/// What the disk does, call by call; then all is well.
#[derive(Debug, Default)]
pub(super) struct Script {
    writes: Vec<Outcome>,
    syncs: Vec<Outcome>,
    /// The syncs that were asked for.
    synced: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Fine,
    /// So many bytes.
    Short(usize),
    Full,
    Fails,
    Interrupted,
}

#[derive(Clone, Default)]
struct Scripted(Arc<Mutex<Script>>);

impl Scripted {
    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.0.lock().expect("no test panics while it holds it")
    }

    fn files(&self, place: &Place) -> Files {
        let disk = Box::new(self.clone());
        let mut files = Files::with_disk(place.directory.path(), disk).expect("they are there");
        assert_eq!(files.verify(place.views().into_iter()).expect("they can be read"), []);
        files
    }
}

fn next(outcomes: &mut Vec<Outcome>) -> io::Result<Option<usize>> {
    if outcomes.is_empty() {
        return Ok(None);
    }
    match outcomes.remove(0) {
        Outcome::Fine => Ok(None),
        Outcome::Short(count) => Ok(Some(count)),
        Outcome::Full => Err(rustix::io::Errno::NOSPC.into()),
        Outcome::Fails => Err(rustix::io::Errno::IO.into()),
        Outcome::Interrupted => Err(rustix::io::Errno::INTR.into()),
    }
}

impl Disk for Scripted {
    fn write_at(&mut self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let count = next(&mut self.script().writes)?.unwrap_or(bytes.len());
        SystemDisk.write_at(file, &bytes[..count.min(bytes.len())], offset)
    }

    fn read_at(&mut self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        // Reads are short, too.
        let count = bytes.len().min(1000);
        SystemDisk.read_at(file, &mut bytes[..count], offset)
    }

    fn sync(&mut self, file: &File) -> io::Result<()> {
        self.script().synced += 1;
        next(&mut self.script().syncs)?;
        SystemDisk.sync(file)
    }
}

#[test]
fn writes_by_halves() {
    let mut place = Place::new();
    let disk = Scripted::default();
    let mut files = disk.files(&place);
    disk.script().writes =
        vec![Outcome::Short(1), Outcome::Interrupted, Outcome::Short(3), Outcome::Short(2)];
    place.append(&mut files, "journal", b"0123456789");
    place.append(&mut files, "journal", &[7; 5000]);
    place.check();
    assert_eq!(files.read_at(&name("journal"), 10, 5000).expect("it is there"), vec![7; 5000]);
}

/// Part of an effect is written, then the disk is full. Nothing of it counts, and it can be done again.
#[test]
fn a_full_disk() {
    let mut place = Place::new();
    let disk = Scripted::default();
    let mut files = disk.files(&place);
    place.append(&mut files, "journal", b"before ");
    disk.script().writes = vec![Outcome::Short(3), Outcome::Full, Outcome::Full];
    for _ in 0..2 {
        let refused = files.write_at(&name("journal"), 7, b"after").expect_err("it is full");
        assert!(matches!(refused, FilesError::Full { .. }), "{refused}");
        assert_eq!(files.length(&name("journal")), Some(7));
        let refused = files.read_at(&name("journal"), 7, 1).expect_err("it does not count");
        assert!(matches!(refused, FilesError::NotThere { .. }), "{refused}");
    }
    place.append(&mut files, "journal", b"after");
    files.sync().expect("the disk is fine");
    place.check();
}

#[test]
fn a_write_that_fails_is_final() {
    let mut place = Place::new();
    let disk = Scripted::default();
    let mut files = disk.files(&place);
    place.append(&mut files, "journal", b"before ");
    disk.script().writes = vec![Outcome::Fails];
    for _ in 0..3 {
        let refused = files.write_at(&name("journal"), 7, b"after").expect_err("it failed");
        assert!(matches!(refused, FilesError::Failed { .. }), "{refused}");
        files.sync().expect_err("it failed");
    }
}

/// The second sync would succeed, and is never asked for. A full disk makes no difference.
#[test]
fn a_sync_that_fails_is_final() {
    for outcome in [Outcome::Fails, Outcome::Full] {
        let mut place = Place::new();
        let disk = Scripted::default();
        let mut files = disk.files(&place);
        place.append(&mut files, "journal", b"before ");
        files.sync().expect("the disk is fine");
        place.append(&mut files, "journal", b"after");
        let synced = disk.script().synced;
        disk.script().syncs = vec![outcome];
        for _ in 0..3 {
            let refused = files.sync().expect_err("it failed");
            assert!(matches!(refused, FilesError::Failed { .. }), "{refused}");
            files.write_at(&name("journal"), 12, b"!").expect_err("it failed");
        }
        assert_eq!(disk.script().synced, synced + 1);
    }
}

/// Every call on the disk fails once, at every place in a history with several files and a fetch.
#[test]
fn a_crash_at_every_step() {
    for nth in 0..30 {
        for is_write in [true, false] {
            let mut place = Place::new();
            let disk = Scripted::default();
            let mut files = disk.files(&place);
            place.append(&mut files, "journal", b"recorded ");
            place.append(&mut files, "other", b"recorded as well ");
            files.sync().expect("the disk is fine");
            let recorded = place.views();
            let mut outcomes = vec![Outcome::Fine; nth];
            outcomes.push(if is_write && nth % 2 == 0 {
                Outcome::Short(2)
            } else {
                Outcome::Fails
            });
            outcomes.push(Outcome::Fails);
            if is_write {
                disk.script().writes = outcomes;
            } else {
                disk.script().syncs = outcomes;
            }
            place.model.insert(name("fetched"), vec![9; 600]);
            let missing = place.missing("fetched", 0);
            let outcome = history(&mut files, &missing);
            drop(files);
            // What follows the snapshot is repeated by the log, and fetched again.
            let mut files = place.open();
            assert_eq!(files.verify(recorded.into_iter()).expect("they can be read"), []);
            history(&mut files, &missing).expect("the disk is fine");
            drop(files);
            for (file, content) in
                [("journal", &b"recorded 123"[..]), ("other", b"recorded as well 45")]
            {
                assert_eq!(place.on_disk(file), content, "{nth} {outcome:?}");
            }
            assert_eq!(place.on_disk("fetched"), vec![9; 600], "{nth} {outcome:?}");
        }
    }
}

fn history(files: &mut Files, missing: &MissingBytes) -> Result<(), FilesError> {
    files.write_at(&name("journal"), 9, b"1")?;
    files.write_at(&name("other"), 17, b"4")?;
    files.sync()?;
    let mut from = files.fetch_from(missing)?;
    while from < missing.length {
        from = files.install(missing, from, &[9; 200])?;
    }
    files.write_at(&name("journal"), 10, b"2")?;
    assert!(files.complete(missing)?, "the bytes are right");
    files.write_at(&name("journal"), 11, b"3")?;
    files.write_at(&name("other"), 18, b"5")?;
    files.sync()
}
