//! Measurements, for people: `cargo test -p quorlock --release -- --ignored --nocapture measure`.

use std::time::Instant;

use super::*;

fn resident_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) >> 10
}

#[test]
#[ignore = "measures"]
fn measure_durable_batches() {
    for count in [1, 10, 100] {
        let mut log = Log::new();
        let mut storage = log.open();
        let mut times = Vec::new();
        let rounds = 3000;
        let mut index = LogIndex::ZERO;
        let started = Instant::now();
        for _ in 0..rounds {
            let entries = (1..=count).map(|nth| entry(index.plus(nth), 1, 100)).collect();
            index = index.plus(count);
            let batch = WriteBatch { entries, ..log.batch() };
            let before = Instant::now();
            storage.write(&[batch]).expect("there is space");
            times.push(before.elapsed());
        }
        let took = started.elapsed();
        times.sort();
        println!(
            "{count} entries: {:.0} batches/s, p50 {:?}, p99 {:?}",
            f64::from(rounds) / took.as_secs_f64(),
            times[times.len() / 2],
            times[times.len() * 99 / 100],
        );
    }
}

#[test]
#[ignore = "measures"]
fn measure_memory_and_reopening() {
    let mut log = Log::new();
    let mut storage = log.open();
    let mut index = LogIndex::ZERO;
    println!("at the start: {} MiB", resident_mib());
    let started = Instant::now();
    for round in 0..4000_u64 {
        let entries = (1..=100).map(|nth| entry(index.plus(nth), 1, 100)).collect();
        index = index.plus(100);
        let batch = WriteBatch { entries, ..log.batch() };
        storage.write(&[batch]).expect("there is space");
        if round % 1000 == 999 {
            let last = EntryId::new(Term::new(1), index);
            let data = Bytes::from(vec![1; 5 << 20]);
            let snapshot = Some(Snapshot { last, data, ..log.model.snapshot.clone() });
            let compact_through = Some(LogIndex::new(index.value() - 1000));
            let batch = WriteBatch { snapshot, compact_through, ..log.batch() };
            storage.write(&[batch]).expect("there is space");
        }
        if round % 10 == 0 {
            storage.tidy().expect("there is space");
        }
        if round % 500 == 499 {
            println!("{index} entries: {} MiB", resident_mib());
        }
    }
    println!("written in {:?}", started.elapsed());
    drop(storage);
    for _ in 0..2 {
        let started = Instant::now();
        let recovered = recover(log.path()).expect("nothing is wrong with it");
        println!(
            "opened and recovered {} entries in {:?}, {} MiB",
            recovered.entries.len(),
            started.elapsed(),
            resident_mib()
        );
    }
    let bytes: u64 = fs::read_dir(log.path().join("store"))
        .expect("it is there")
        .map(|entry| entry.expect("it can be read").metadata().expect("it is there").len())
        .sum();
    println!("journals: {} MiB", bytes >> 20);
}
