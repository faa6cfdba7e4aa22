//! Short words for what the tests say often.

use bytes::Bytes;
use quorlock_core::config::{Config, Limits};
use quorlock_core::ids::{FencingToken, SessionId};
use quorlock_core::message::{Answer, Done, FileAppend, LockView, Op, Outcome, Query, Wait};
use quorlock_core::text::{FileName, LockName, Text};
use quorlock_core::time::Duration;
use quorlock_tests::lab::{Lab, LabOptions};

pub(crate) fn lab(nodes: u64) -> Lab {
    Lab::new(LabOptions { nodes, ..LabOptions::default() })
}

pub(crate) fn lab_with(nodes: u64, config: Config) -> Lab {
    Lab::new(LabOptions { nodes, config, ..LabOptions::default() })
}

pub(crate) fn lab_limited(nodes: u64, limits: Limits) -> Lab {
    Lab::new(LabOptions { nodes, limits, ..LabOptions::default() })
}

/// A snapshot after so many entries, and nothing kept of the log.
pub(crate) fn snapshots_every(entries: u64) -> Config {
    Config { snapshot_entries: entries, retained_entries: 0, ..Config::default() }
}

pub(crate) fn lock(name: &str) -> LockName {
    LockName::new(name).expect("a name in a test is right")
}

pub(crate) fn file(name: &str) -> FileName {
    FileName::new(name).expect("a name in a test is right")
}

pub(crate) fn text(text: &str) -> Text {
    Text::new(text).expect("a text in a test is short")
}

pub(crate) fn acquire(name: &str) -> Op {
    Op::Acquire { lock: lock(name), wait: Wait::Forever, max_hold: None }
}

pub(crate) fn try_acquire(name: &str) -> Op {
    Op::Acquire { lock: lock(name), wait: Wait::Try, max_hold: None }
}

pub(crate) fn acquire_at_most(name: &str, max_hold: Duration) -> Op {
    Op::Acquire { lock: lock(name), wait: Wait::Forever, max_hold: Some(max_hold) }
}

pub(crate) fn release(name: &str, token: FencingToken) -> Op {
    Op::Release { lock: lock(name), token, appends: Vec::new() }
}

pub(crate) fn append_to(name: &str, token: FencingToken, to: &str, bytes: &str) -> Op {
    Op::Append { lock: lock(name), token, append: file_append(to, bytes) }
}

pub(crate) fn section(name: &str, to: &str, bytes: &str) -> Op {
    Op::Section { lock: lock(name), wait: Wait::Forever, appends: vec![file_append(to, bytes)] }
}

pub(crate) fn file_append(to: &str, bytes: &str) -> FileAppend {
    FileAppend { file: file(to), bytes: Bytes::copy_from_slice(bytes.as_bytes()) }
}

/// The token of an acquire that was granted.
pub(crate) fn granted(outcome: Option<Outcome>) -> FencingToken {
    match outcome {
        Some(Ok(Done::Granted { token, .. })) => token,
        other => panic!("it was not granted: {other:?}"),
    }
}

/// Has a session acquire a lock that is free.
pub(crate) fn hold(lab: &mut Lab, n: u64, session: SessionId, name: &str) -> FencingToken {
    granted(lab.perform(n, session, acquire(name)))
}

/// A lock as a node sees it.
pub(crate) fn view(lab: &Lab, n: u64, name: &str) -> LockView {
    let Answer::Lock(view) = lab.node(n).answer(&Query::Lock { lock: lock(name) }) else {
        panic!("an answer to another question");
    };
    view
}

/// Who holds a lock, as a node sees it.
pub(crate) fn holder(lab: &Lab, n: u64, name: &str) -> Option<SessionId> {
    view(lab, n, name).holder.map(|holder| holder.session)
}
