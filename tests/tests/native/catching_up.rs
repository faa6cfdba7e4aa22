//! A node that was away while the others wrote more than they keep.

use std::fs;

use quorlock::client::{Client, Wait};
use quorlock_tests::native::Cluster;

use crate::observer::{Reign, STEADY};
use crate::workload::Workload;

/// Files that are written at the same time.
const FILES: usize = 4;
/// Pieces of each.
const PIECES: usize = 50;
/// The most that one request appends, by the cluster's limits.
const PIECE_BYTES: usize = 1 << 20;

fn piece(file: usize, number: usize) -> Vec<u8> {
    let line = format!("piece {number} of file {file}\n");
    line.bytes().cycle().take(PIECE_BYTES).collect()
}

/// Writes a file, piece by piece.
async fn write(client: Client, file: usize) {
    let name = format!("large-{file}");
    for number in 0..PIECES {
        let written = client.section(&name, Wait::Forever, [(&name, piece(file, number))]).await;
        let written = written.expect("two of three serve");
        assert_eq!(written.offsets, [(number * PIECE_BYTES) as u64]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_missed_200_megabytes_catches_up_without_an_election() {
    let settings = ["--set", "snapshot_bytes=4194304", "--set", "retained_entries=0"];
    let arguments = [STEADY, &settings].concat();
    let mut cluster = Cluster::with_arguments(3, &arguments).await;
    let reign = Reign::of(&cluster).await;
    let away = (reign.leader + 1) % 3;
    cluster.settle().await;
    let last = cluster.wait_for("a report", async || cluster.report(away).await).await.last;
    cluster.node_mut(away).kill();

    let client = cluster.client().await;
    let writing = (0..FILES).map(|file| tokio::spawn(write(client.clone(), file)));
    for written in writing.collect::<Vec<_>>() {
        written.await.expect("it does not panic");
    }
    // What it lacks is in nobody's log any more.
    cluster
        .wait_for("a snapshot", async || {
            (cluster.report(reign.leader).await?.first > last.next()).then_some(())
        })
        .await;

    let workload = Workload::start(&cluster, 1).await;
    cluster.restart(away);
    let before = workload.cycles();
    let files = cluster.node(away).spec().data.join("files");
    cluster
        .wait_for("a node that caught up", async || {
            let path = |file| files.join(format!("large-{file}"));
            let length = |file| fs::metadata(path(file)).map_or(0, |metadata| metadata.len());
            let is_whole = |file| length(file) == (PIECES * PIECE_BYTES) as u64;
            (0..FILES).all(is_whole).then_some(())
        })
        .await;
    let meanwhile = workload.cycles() - before;
    println!("{meanwhile} cycles while the node caught up");
    assert!(meanwhile > 0, "others were served meanwhile");
    workload.progress(&cluster, 20).await;
    workload.finish(&cluster).await;
    for file in 0..FILES {
        let name = format!("large-{file}");
        let view = client.file(&name).await.expect("the cluster serves").expect("it was written");
        let content = cluster.file_everywhere(&view).await;
        assert_eq!(content.len(), PIECES * PIECE_BYTES);
        for (number, found) in content.chunks(PIECE_BYTES).enumerate() {
            assert!(found == piece(file, number), "piece {number} of {name} is another one");
        }
    }
    reign.goes_on(&cluster).await;
}
