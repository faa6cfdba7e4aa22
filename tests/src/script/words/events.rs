//! What nodes report of themselves, their files and their timers.

use quorlock_core::ids::NodeId;
use quorlock_core::lock::{LockEvent, WaitEnd};
use quorlock_core::message::EndCause;
use quorlock_core::node::{Event, Timer};
use quorlock_core::raft::{RaftTimer, Role};
use quorlock_core::time::Time;

use super::Words;
use super::clients::{rejection, session_end};
use crate::lab::MissingFiles;

impl Words {
    pub(super) fn event(&self, node: NodeId, event: &Event) -> String {
        match event {
            Event::Role { role, term, leader } => role_words(node, *role, term.value(), *leader),
            Event::TransferExpired { to } => {
                format!("{node} hands nothing over: {to} did not take it in time")
            }
            Event::TransferRefused(reason) => format!("{node} hands nothing over: {reason}"),
            Event::Lock { index, event } => format!("= {index}: {}", self.lock_event(event)),
            Event::SnapshotTaken { last } => format!("{node} took snapshot {last}"),
            Event::SnapshotInstalled { last } => format!("{node} installed snapshot {last}"),
        }
    }

    fn lock_event(&self, event: &LockEvent) -> String {
        match event {
            LockEvent::SessionOpened { session } => {
                format!("{} opened, session {session}", self.session(*session))
            }
            LockEvent::SessionEnded { session, cause } => {
                format!("{} ended: {}", self.session(*session), session_end(*cause))
            }
            LockEvent::Granted { lock, session, token, predecessor } => {
                let after = predecessor.map(|token| format!(" after {token}")).unwrap_or_default();
                format!("{lock} granted to {}, token {token}{after}", self.session(*session))
            }
            LockEvent::Ended { lock, session, token, cause } => {
                let (session, cause) = (self.session(*session), end_cause(cause));
                format!("{lock} given up by {session}, token {token}: {cause}")
            }
            LockEvent::Queued { lock, session, sequence, position } => {
                let session = self.session(*session);
                format!("{session}#{sequence} waits for {lock}, {position} before it")
            }
            LockEvent::WaitEnded { lock, session, sequence, cause } => {
                let why = match cause {
                    WaitEnd::TimedOut => "timed out",
                    WaitEnd::Cancelled => "cancelled",
                    WaitEnd::SessionEnded => "session ended",
                };
                format!("{}#{sequence} waits for {lock} no more: {why}", self.session(*session))
            }
            LockEvent::FileCreated { file, guard } => format!("{file} created, guarded by {guard}"),
            LockEvent::Appended { file, token, offset, length } => {
                format!("{file} grows by {length} at {offset}, token {token}")
            }
            LockEvent::Rejected { session, sequence, rejection: why } => {
                format!("{}#{sequence} refused: {}", self.session(*session), rejection(why))
            }
        }
    }
}

pub(super) fn end_cause(cause: &EndCause) -> String {
    match cause {
        EndCause::Released => "released".to_owned(),
        EndCause::SessionClosed => "session closed".to_owned(),
        EndCause::SessionExpired => "session expired".to_owned(),
        EndCause::HoldTimedOut => "held too long".to_owned(),
        EndCause::Broken { by, reason } => format!("broken by {}: {reason}", super::label(by)),
    }
}

fn role_words(node: NodeId, role: Role, term: u64, leader: Option<NodeId>) -> String {
    match (role, leader) {
        (Role::Follower, Some(leader)) => format!("{node} follows {leader} in term {term}"),
        (Role::Follower, None) => format!("{node} follows nobody in term {term}"),
        (Role::PreCandidate, _) => format!("{node} is pre-candidate in term {term}"),
        (Role::Candidate, _) => format!("{node} is candidate in term {term}"),
        (Role::Leader, _) => format!("{node} leads term {term}"),
    }
}

pub(super) fn woken(node: NodeId, at: Time, timer: Option<Timer>) -> String {
    let what = match timer {
        None => "nothing",
        Some(Timer::Raft(RaftTimer::Election)) => "an election",
        Some(Timer::Raft(RaftTimer::Heartbeat)) => "a heartbeat",
        Some(Timer::Raft(RaftTimer::CheckQuorum)) => "the quorum check",
        Some(Timer::Raft(RaftTimer::WriteStall)) => "a write that does not end",
        Some(Timer::Raft(RaftTimer::Transfer)) => "a transfer that does not come about",
        Some(Timer::KeepAlives) => "the keep-alives",
        Some(Timer::LeaseDue) => "a lease that is due",
        Some(Timer::Snapshot) => "a snapshot",
    };
    format!("{node} wakes at {at:?} for {what}")
}

pub(super) fn fetch(node: NodeId, missing: &MissingFiles) -> String {
    let parts = missing.files.iter().map(|file| {
        let (name, offset, length) = (&file.file, file.offset, file.length);
        format!("{name} from {offset} to {length}")
    });
    let parts: Vec<String> = parts.collect();
    let (from, snapshot) = (missing.from, missing.snapshot);
    format!("{node} fetches from {from} for snapshot {snapshot}: {}", parts.join(", "))
}

/// Bytes as text, shortened when they are many.
pub(super) fn bytes(bytes: &[u8]) -> String {
    const SHOWN: usize = 40;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]);
    if bytes.len() > SHOWN {
        format!("{text:?}... {} bytes", bytes.len())
    } else {
        format!("{text:?}")
    }
}
