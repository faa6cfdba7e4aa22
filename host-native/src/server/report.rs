//! How a node is, for whoever asks.

use quinn::{RecvStream, SendStream};
use quorlock_core::node::Status;

use super::shared::Shared;
use super::streams::Fault;
use crate::wire::report::DiskState;
use crate::wire::{FrameReader, NodeReport, PeerReport, StreamKind, encode, write_frame};

/// The question is an empty frame.
const QUESTION_BYTES_MAX: usize = 64;

/// Answers one question.
pub(super) async fn answer(
    shared: &Shared,
    mut send: SendStream,
    receive: RecvStream,
) -> Result<(), Fault> {
    send.set_priority(StreamKind::Report.priority())
        .map_err(|_closed| quinn::WriteError::ClosedStream)?;
    if FrameReader::new(receive, QUESTION_BYTES_MAX).next().await?.is_some() {
        write_frame(&mut send, encode(&report(shared))).await?;
    }
    // That the stream is over is all that this says.
    drop(send.finish());
    Ok(())
}

/// How the node is now.
pub(super) fn report(shared: &Shared) -> NodeReport {
    let status = shared.status.borrow().clone();
    let uptime = shared.started.elapsed().as_millis();
    NodeReport {
        id: shared.id,
        address: shared.address.to_string(),
        cluster: shared.cluster.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_ms: u64::try_from(uptime).unwrap_or(u64::MAX),
        starts: shared.own.starts,
        role: status.role.into(),
        term: status.term,
        leader: status.leader,
        commit: status.commit,
        applied: status.applied,
        first: status.first,
        last: status.last.index,
        durable: status.durable,
        disk: if shared.space.is_full() { DiskState::Full } else { DiskState::Ok },
        sessions: status.counts.sessions,
        locks: status.counts.locks,
        waiters: status.counts.waiters,
        files: status.counts.files,
        connections: shared.connections(),
        dropped_messages: shared.dropped_messages(),
        peers: peers(shared, &status),
    }
}

fn peers(shared: &Shared, status: &Status) -> Vec<PeerReport> {
    let peer = |link: &std::sync::Arc<super::peer_link::Link>| {
        let progress = status.progress.iter().find(|progress| progress.node == link.node);
        let connection = link.connection();
        let round_trip = connection.as_ref().map(|connection| connection.rtt().as_micros());
        PeerReport {
            node: link.node,
            address: link.address.clone(),
            connected: connection.is_some(),
            matched: progress.map(|progress| progress.matched),
            state: progress.map(|progress| progress.state.into()),
            round_trip_us: round_trip.map(|micros| u64::try_from(micros).unwrap_or(u64::MAX)),
        }
    };
    shared.links.values().map(peer).collect()
}
