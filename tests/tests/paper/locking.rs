//! What clients ask for, in few words, and clusters that are ready to be asked.

use bytes::Bytes;
use quorlock_core::ids::{ClientNonce, FencingToken, LogIndex, RequestId, Sequence, SessionId};
use quorlock_core::message::{
    Acked, Answer, Consistency, Done, FileAppend, KeepAlive, LockView, Op, Outcome, Query, Reply,
    Request, Submission, Wait,
};
use quorlock_core::text::{FileName, Label, LockName};
use quorlock_core::time::Duration;
use quorlock_tests::lab::{Lab, LabOptions};

/// A cluster whose node 1 leads.
pub(crate) fn cluster(nodes: u64) -> Lab {
    let mut lab = Lab::new(LabOptions { nodes, ..LabOptions::default() });
    lab.elect(1);
    lab
}

pub(crate) fn lock_name(name: &str) -> LockName {
    LockName::new(name).expect("a name of a lock")
}

pub(crate) fn file_name(name: &str) -> FileName {
    FileName::new(name).expect("a name of a file")
}

pub(crate) fn file_append(file: &str, bytes: &'static str) -> FileAppend {
    FileAppend { file: file_name(file), bytes: Bytes::from_static(bytes.as_bytes()) }
}

/// Acquires a lock, waiting for it if need be.
pub(crate) fn acquire(lock: &str) -> Op {
    Op::Acquire { lock: lock_name(lock), wait: Wait::Forever, max_hold: None }
}

/// Acquires a lock if it is free.
pub(crate) fn try_acquire(lock: &str) -> Op {
    Op::Acquire { lock: lock_name(lock), wait: Wait::Try, max_hold: None }
}

pub(crate) fn release(lock: &str, token: FencingToken) -> Op {
    Op::Release { lock: lock_name(lock), token, appends: Vec::new() }
}

pub(crate) fn append(lock: &str, token: FencingToken, file: &str, bytes: &'static str) -> Op {
    Op::Append { lock: lock_name(lock), token, append: file_append(file, bytes) }
}

/// The token of a grant.
pub(crate) fn token(outcome: Option<Outcome>) -> FencingToken {
    if let Some(Ok(Done::Granted { token, .. })) = outcome {
        return token;
    }
    panic!("the lock is granted: {outcome:?}")
}

/// Opens a session that needs no keep-alive for as long as a test takes.
pub(crate) fn open_long(lab: &mut Lab, n: u64, name: &str) -> SessionId {
    lab.open_for(n, name, Duration::from_hours(1)).expect("a session").session
}

/// Has a session acquire a lock that is free, through node `n`.
pub(crate) fn hold(lab: &mut Lab, n: u64, session: SessionId, lock: &str) -> FencingToken {
    token(lab.perform(n, session, try_acquire(lock)))
}

/// That the client has all outcomes up to this one.
pub(crate) fn acked(through: u64) -> Acked {
    Acked { through: Sequence::new(through), except: Vec::new() }
}

/// A lock as of what a node has applied.
pub(crate) fn lock_view(lab: &Lab, n: u64, lock: &str) -> LockView {
    let answer = lab.node(n).answer(&Query::Lock { lock: lock_name(lock) });
    if let Answer::Lock(view) = answer {
        return view;
    }
    panic!("a lock is what was asked for: {answer:?}")
}

/// Who holds a lock, as of what a node has applied.
pub(crate) fn holder(lab: &Lab, n: u64, lock: &str) -> Option<SessionId> {
    lock_view(lab, n, lock).holder.map(|holder| holder.session)
}

/// Renews the lease of a session, and settles. Returns what came back.
pub(crate) fn keep_alive(lab: &mut Lab, n: u64, session: SessionId) -> Vec<Reply> {
    let conn = lab.connection(n, session);
    lab.keep_alive(n, session, Acked::default(), LogIndex::ZERO);
    // Keep-alives are collected for a while.
    lab.run(Duration::from_millis(20));
    lab.replies(conn)
}

pub(crate) fn open_session(name: u64) -> Request {
    let nonce = ClientNonce(name, 0);
    Request::OpenSession { nonce, label: Label::default(), lease: Duration::from_secs(10) }
}

pub(crate) fn submission(session: SessionId, sequence: u64, op: Op) -> Request {
    let sequence = Sequence::new(sequence);
    Request::Submit(Submission { session, sequence, acked: Acked::default(), op })
}

/// A read of a lock that must be true of a moment after it was asked for.
pub(crate) fn read(id: u64, lock: &str) -> Request {
    let query = Query::Lock { lock: lock_name(lock) };
    Request::Read { id: RequestId::new(id), query, consistency: Consistency::Linearizable }
}

/// A request of each kind that only the leader serves.
pub(crate) fn one_request_of_each_kind() -> Vec<Request> {
    let session = SessionId::new(2);
    let keep_alive = KeepAlive { session, acked: Acked::default(), losses_seen: LogIndex::ZERO };
    vec![
        open_session(1),
        Request::KeepAlive { id: RequestId::new(1), keep_alive },
        submission(session, 1, acquire("printer")),
        read(2, "printer"),
    ]
}
