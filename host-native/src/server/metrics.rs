//! What a node counts and measures.
//!
//! The recorder belongs to the server, not to the process: handles are made from it once, and several
//! servers in one process keep apart. Without an address for metrics the handles lead nowhere.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Key, Label, Level, Metadata, NoopRecorder, Recorder, Unit,
};
use metrics_exporter_prometheus::{ExporterFuture, Matcher, PrometheusBuilder};
use quorlock_core::ids::NodeId;
use quorlock_core::lock::LockEvent;
use quorlock_core::message::{EndCause, Rejection, Reply, Unavailable};
use quorlock_core::node::Status;
use quorlock_core::raft::Role;

use super::error::StartError;

/// The upper bounds of the buckets of times, in seconds.
const TIME_BUCKETS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5,
];

/// The metrics of one node.
#[derive(Debug)]
pub(super) struct Metrics {
    role: Gauge,
    term: Gauge,
    commit: Gauge,
    applied: Gauge,
    lag: Gauge,
    sessions: Gauge,
    locks: Gauge,
    waiters: Gauge,
    files: Gauge,
    pub(super) connections: Gauge,
    pub(super) proposals: Counter,
    log_write: Histogram,
    log_batches: Counter,
    pub(super) files_sync: Histogram,
    pub(super) turn: Histogram,
    grants: Counter,
    losses: BTreeMap<&'static str, Counter>,
    rejections: BTreeMap<&'static str, Counter>,
    unavailable: BTreeMap<&'static str, Counter>,
    round_trips: BTreeMap<NodeId, Gauge>,
    dropped_messages: Counter,
}

/// A recorder that describes what it registers.
struct Register<'a>(&'a dyn Recorder);

const METADATA: Metadata<'static> = Metadata::new("quorlock", Level::INFO, None);

impl Register<'_> {
    fn gauge(&self, name: &'static str, unit: Unit, help: &'static str) -> Gauge {
        self.0.describe_gauge(name.into(), Some(unit), help.into());
        self.0.register_gauge(&Key::from_static_name(name), &METADATA)
    }

    fn counter(&self, name: &'static str, help: &'static str) -> Counter {
        self.0.describe_counter(name.into(), Some(Unit::Count), help.into());
        self.0.register_counter(&Key::from_static_name(name), &METADATA)
    }

    fn histogram(&self, name: &'static str, help: &'static str) -> Histogram {
        self.0.describe_histogram(name.into(), Some(Unit::Seconds), help.into());
        self.0.register_histogram(&Key::from_static_name(name), &METADATA)
    }

    fn counters(
        &self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: &[&'static str],
    ) -> BTreeMap<&'static str, Counter> {
        self.0.describe_counter(name.into(), Some(Unit::Count), help.into());
        let counter = |value: &&'static str| {
            let key = Key::from_parts(name, vec![Label::new(label, *value)]);
            (*value, self.0.register_counter(&key, &METADATA))
        };
        values.iter().map(counter).collect()
    }
}

impl Metrics {
    /// Handles, and what serves them, if there is an address for it.
    pub(super) fn new(
        address: Option<SocketAddr>,
        node: NodeId,
        peers: impl Iterator<Item = NodeId>,
    ) -> Result<(Self, Option<ExporterFuture>), StartError> {
        let Some(address) = address else {
            return Ok((Self::register(&NoopRecorder, peers), None));
        };
        let failed = |reason: String| StartError::Metrics { address, reason };
        if !address.ip().is_loopback() {
            // They are not for strangers, and HTTP has nobody's certificate.
            return Err(failed("it is not a loopback address; use 127.0.0.1".to_owned()));
        }
        let (recorder, exporter) = PrometheusBuilder::new()
            .with_http_listener(address)
            .add_global_label("node", node.to_string())
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), TIME_BUCKETS)
            .and_then(PrometheusBuilder::build)
            .map_err(|error| failed(error.to_string()))?;
        Ok((Self::register(&recorder, peers), Some(exporter)))
    }

    fn register(recorder: &dyn Recorder, peers: impl Iterator<Item = NodeId>) -> Self {
        let to = Register(recorder);
        let count = Unit::Count;
        Self {
            role: to.gauge("quorlock_role", count, "0 follower, 1 pre-candidate, 2 candidate, 3 leader."),
            term: to.gauge("quorlock_term", count, "The Raft term."),
            commit: to.gauge("quorlock_commit_index", count, "The last entry known to be committed."),
            applied: to.gauge("quorlock_applied_index", count, "The last entry that was applied."),
            lag: to.gauge(
                "quorlock_lag_entries",
                count,
                "On a leader, how many entries the slowest follower is behind; otherwise, how many \
                 committed entries are not applied.",
            ),
            sessions: to.gauge("quorlock_sessions", count, "Open sessions."),
            locks: to.gauge("quorlock_locks_held", count, "Locks that are held."),
            waiters: to.gauge("quorlock_waiters", count, "Requests that wait for a lock."),
            files: to.gauge("quorlock_files", count, "Guarded files."),
            connections: to.gauge("quorlock_connections", count, "Open connections from nodes and clients."),
            proposals: to.counter("quorlock_proposals_total", "Requests of clients for the log."),
            log_write: to.histogram("quorlock_log_write_seconds", "How long a synced write of the log took."),
            log_batches: to.counter(
                "quorlock_log_batches_total",
                "Batches of the log that were written; several share one synced write.",
            ),
            files_sync: to.histogram(
                "quorlock_files_sync_seconds",
                "How long it took to make writes to guarded files durable.",
            ),
            turn: to.histogram(
                "quorlock_apply_seconds",
                "How long it took to handle what waited at one time, and to apply what it committed.",
            ),
            grants: to.counter("quorlock_grants_total", "Locks that were granted."),
            losses: to.counters(
                "quorlock_holds_ended_total",
                "Holds that ended, by cause.",
                "cause",
                HOLD_ENDS,
            ),
            rejections: to.counters(
                "quorlock_rejections_total",
                "Requests that the log refused, by reason.",
                "reason",
                REJECTIONS,
            ),
            unavailable: to.counters(
                "quorlock_unavailable_total",
                "Requests that this node could not serve, by reason.",
                "reason",
                UNAVAILABLE,
            ),
            round_trips: round_trips(recorder, peers),
            dropped_messages: to.counter(
                "quorlock_dropped_messages_total",
                "Messages to or from peers that were dropped: no connection, a full queue, or no sense.",
            ),
        }
    }

    /// Takes over what the node says of itself.
    pub(super) fn observe(&self, status: &Status) {
        let role = match status.role {
            Role::Follower => 0,
            Role::PreCandidate => 1,
            Role::Candidate => 2,
            Role::Leader => 3,
        };
        self.role.set(f64::from(role));
        self.term.set(number(status.term.value()));
        self.commit.set(number(status.commit.value()));
        self.applied.set(number(status.applied.value()));
        let slowest = status.progress.iter().map(|progress| progress.matched).min();
        let lag = match slowest {
            Some(matched) => status.last.index.since(matched),
            None => status.commit.since(status.applied),
        };
        self.lag.set(number(lag));
        self.sessions.set(number(status.counts.sessions));
        self.locks.set(number(status.counts.locks));
        self.waiters.set(number(status.counts.waiters));
        self.files.set(number(status.counts.files));
    }

    pub(super) fn log_written(&self, batches: usize, took: Duration) {
        self.log_write.record(took.as_secs_f64());
        self.log_batches.increment(batches as u64);
    }

    pub(super) fn dropped(&self, total: u64) {
        self.dropped_messages.absolute(total);
    }

    pub(super) fn round_trip(&self, peer: NodeId, round_trip: Duration) {
        if let Some(gauge) = self.round_trips.get(&peer) {
            gauge.set(round_trip.as_secs_f64());
        }
    }

    pub(super) fn lock_event(&self, event: &LockEvent) {
        match event {
            LockEvent::Granted { .. } => self.grants.increment(1),
            LockEvent::Ended { cause, .. } => count(&self.losses, hold_end(cause)),
            LockEvent::Rejected { rejection, .. } => count(&self.rejections, reason(rejection)),
            LockEvent::SessionOpened { .. }
            | LockEvent::SessionEnded { .. }
            | LockEvent::Queued { .. }
            | LockEvent::WaitEnded { .. }
            | LockEvent::FileCreated { .. }
            | LockEvent::Appended { .. } => {}
        }
    }

    pub(super) fn reply(&self, reply: &Reply) {
        match reply {
            Reply::Unavailable { reason, .. } => {
                count(&self.unavailable, unavailable_reason(*reason));
            }
            Reply::Opened { .. }
            | Reply::KeptAlive { .. }
            | Reply::Submitted { .. }
            | Reply::Lost { .. }
            | Reply::SessionEnded { .. }
            | Reply::Read { .. } => {}
        }
    }
}

fn round_trips(
    recorder: &dyn Recorder,
    peers: impl Iterator<Item = NodeId>,
) -> BTreeMap<NodeId, Gauge> {
    let name = "quorlock_peer_round_trip_seconds";
    let help = "The round trip to a peer, as QUIC measures it.";
    recorder.describe_gauge(name.into(), Some(Unit::Seconds), help.into());
    let gauge = |peer: NodeId| {
        let key = Key::from_parts(name, vec![Label::new("peer", peer.to_string())]);
        (peer, recorder.register_gauge(&key, &METADATA))
    };
    peers.map(gauge).collect()
}

/// Metrics are floats; identifiers are below 2^53, and so exact.
#[expect(clippy::cast_precision_loss, reason = "identifiers and counts are below 2^53")]
fn number(value: u64) -> f64 {
    value as f64
}

fn count(counters: &BTreeMap<&'static str, Counter>, name: &str) {
    if let Some(counter) = counters.get(name) {
        counter.increment(1);
    }
}

const HOLD_ENDS: &[&str] =
    &["released", "session-closed", "session-expired", "hold-timed-out", "broken"];

fn hold_end(cause: &EndCause) -> &'static str {
    match cause {
        EndCause::Released => "released",
        EndCause::SessionClosed => "session-closed",
        EndCause::SessionExpired => "session-expired",
        EndCause::HoldTimedOut => "hold-timed-out",
        EndCause::Broken { .. } => "broken",
    }
}

const UNAVAILABLE: &[&str] =
    &["not-leader", "leadership-lost", "transferring", "overloaded", "too-large"];

fn unavailable_reason(reason: Unavailable) -> &'static str {
    match reason {
        Unavailable::NotLeader { .. } => "not-leader",
        Unavailable::LeadershipLost { .. } => "leadership-lost",
        Unavailable::Transferring { .. } => "transferring",
        Unavailable::Overloaded => "overloaded",
        Unavailable::TooLarge => "too-large",
    }
}

const REJECTIONS: &[&str] = &[
    "session-unknown",
    "out-of-order",
    "result-evicted",
    "window-full",
    "too-many-sessions",
    "lease-out-of-range",
    "not-obtained",
    "timed-out",
    "cancelled",
    "already-waiting",
    "already-held",
    "not-waiting",
    "not-holder",
    "wrong-guard",
    "append-too-large",
    "too-many-appends",
    "file-full",
    "too-many-locks",
    "too-many-waiters",
    "too-many-places",
    "too-many-files",
    "too-many-pending-bytes",
];

fn reason(rejection: &Rejection) -> &'static str {
    match rejection {
        Rejection::SessionUnknown => "session-unknown",
        Rejection::OutOfOrder { .. } => "out-of-order",
        Rejection::ResultEvicted => "result-evicted",
        Rejection::WindowFull => "window-full",
        Rejection::TooManySessions => "too-many-sessions",
        Rejection::LeaseOutOfRange { .. } => "lease-out-of-range",
        Rejection::NotObtained => "not-obtained",
        Rejection::TimedOut => "timed-out",
        Rejection::Cancelled => "cancelled",
        Rejection::AlreadyWaiting => "already-waiting",
        Rejection::AlreadyHeld { .. } => "already-held",
        Rejection::NotWaiting => "not-waiting",
        Rejection::NotHolder { .. } => "not-holder",
        Rejection::WrongGuard { .. } => "wrong-guard",
        Rejection::AppendTooLarge { .. } => "append-too-large",
        Rejection::TooManyAppends { .. } => "too-many-appends",
        Rejection::FileFull => "file-full",
        Rejection::TooManyLocks => "too-many-locks",
        Rejection::TooManyWaiters => "too-many-waiters",
        Rejection::TooManyPlaces => "too-many-places",
        Rejection::TooManyFiles => "too-many-files",
        Rejection::TooManyPendingBytes => "too-many-pending-bytes",
    }
}
