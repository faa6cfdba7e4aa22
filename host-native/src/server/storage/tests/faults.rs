//! Disks that are full, and disks that fail.

use super::*;

fn failed() -> StorageError {
    StorageError::Failed { reason: "a test".to_owned() }
}

/// Once a sync has failed, nothing is written any more, though the disk would take it.
#[test]
fn a_failure_is_final() {
    for step in [Step::Snapshot, Step::Commit, Step::Committed] {
        let mut log = Log::new();
        let mut storage = log.open();
        let batch = log.append(3, 40);
        log.write(&mut storage, vec![batch]);
        storage.faults.push_back(Fault { step, error: failed() });
        let batch = log.append(3, 40);
        for _ in 0..3 {
            let refused = storage.write(std::slice::from_ref(&batch)).expect_err("it failed");
            assert!(matches!(refused, StorageError::Failed { .. }), "{refused}");
            storage.tidy().expect_err("it failed");
        }
        drop(storage);
        if step == Step::Committed {
            // It was on the disk, though nobody could know.
            log.model.write(batch);
        }
        log.check();
    }
}

/// A crash at every step of a write with a snapshot leaves the state before, or the one after.
#[test]
fn a_crash_between_the_steps_of_a_snapshot() {
    for step in [Step::Snapshot, Step::Commit, Step::Committed] {
        let mut log = Log::new();
        let mut storage = log.open();
        let batch = log.append(3, 40);
        log.write(&mut storage, vec![batch]);
        let batch = log.snapshot(10_000);
        log.write(&mut storage, vec![batch]);
        let batch = log.append(3, 40);
        log.write(&mut storage, vec![batch]);
        storage.faults.push_back(Fault { step, error: failed() });
        let batch = log.snapshot(20_000);
        storage.write(std::slice::from_ref(&batch)).expect_err("it crashed");
        drop(storage);
        // What the crash would leave as well.
        fs::write(log.path().join("snapshot-9-9.tmp"), b"half").expect("there is space");
        if step == Step::Committed {
            log.model.write(batch);
        }
        log.check();
        let names: Vec<_> = fs::read_dir(log.path())
            .expect("it is there")
            .map(|entry| entry.expect("it can be read").file_name())
            .filter(|name| name.to_string_lossy().starts_with("snapshot-"))
            .collect();
        assert_eq!(names.len(), 1, "{names:?}");
        let mut storage = log.open();
        let batch = log.append(1, 40);
        log.write(&mut storage, vec![batch]);
        drop(storage);
        log.check();
    }
}

/// On a file system of its own, which is really full: `QUORLOCK_SMALL_DISK` names its directory.
///
/// ```sh
/// mount -t tmpfs -o size=200m none /mnt/small
/// ```
#[test]
#[ignore = "needs a small file system"]
fn a_disk_that_is_really_full() {
    let Ok(disk) = std::env::var("QUORLOCK_SMALL_DISK") else { return };
    let mut log = Log::new();
    log.directory = tempfile::tempdir_in(&disk).expect("there is space");
    FjallStorage::create(log.path(), &log.model).expect("there is space");
    for round in 0..6_usize {
        let filler = Path::new(&disk).join("filler");
        let mut storage = log.open();
        let space = rustix::fs::statvfs(&disk).expect("it is there");
        let left = usize::try_from(space.f_bavail * space.f_frsize).expect("a small disk");
        // Another amount in each round, so that another call meets the end.
        let filler_bytes = left.saturating_sub((50 + round) << 20);
        fs::write(&filler, vec![1; filler_bytes]).expect("there is space");
        let mut written = 0;
        let refused = loop {
            let batch = log.append(1, 200_000 + round);
            match storage.write(std::slice::from_ref(&batch)) {
                Ok(()) => log.model.write(batch),
                Err(error) => break (error, batch),
            }
            if written % 40 == 39 {
                let batch = log.snapshot(100_000);
                match storage.write(std::slice::from_ref(&batch)) {
                    Ok(()) => log.model.write(batch),
                    Err(error) => break (error, batch),
                }
                // It has to become full all the same.
                let more = Path::new(&disk).join(format!("filler{written}"));
                drop(fs::write(more, vec![1; 4 << 20]));
            }
            written += 1;
        };
        let (error, batch) = refused;
        println!("round {round}: full after {written} writes: {error}");
        assert!(matches!(error, StorageError::Full { .. }), "{error}");
        // Closing the store may have made a little room: what is taken is durable, too.
        let retries = (0..3).map(|_| storage.write(std::slice::from_ref(&batch)));
        let is_written = retries.collect::<Vec<_>>().iter().any(|retry| match retry {
            Ok(()) => true,
            Err(StorageError::Full { .. }) => false,
            Err(error) => panic!("{error}"),
        });
        if is_written {
            log.model.write(batch.clone());
        }
        for entry in fs::read_dir(&disk).expect("it is there") {
            let path = entry.expect("it can be read").path();
            if path.is_file() {
                fs::remove_file(path).expect("it is there");
            }
        }
        if !is_written {
            log.write(&mut storage, vec![batch]);
        }
        let batch = log.append(5, 100);
        log.write(&mut storage, vec![batch]);
        drop(storage);
        log.check();
    }
}
