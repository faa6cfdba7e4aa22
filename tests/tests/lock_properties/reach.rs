//! The random histories reach every outcome that there is.
//!
//! A property that holds over histories in which nothing happens says nothing. This test counts
//! what happens in histories from a fixed seed.

use std::collections::BTreeMap;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use quorlock_core::lock::{Command, LockEvent, Notice, WaitEnd};
use quorlock_core::message::{Done, EndCause, Op, Outcome, Rejection, SessionEnd, Submission};

use quorlock_tests::lock_model::Model;

use crate::drive::Entry;
use crate::history::{self, Step};
use crate::pair::Pair;

/// Everything that must happen, which is everything but a full file: that takes 2^53 bytes.
const EXPECTED: [&str; 47] = [
    "opened",
    "kept alive",
    "closed",
    "expired",
    "lost",
    "Granted",
    "asked again",
    "Cancelled",
    "Released",
    "Appended",
    "Sectioned",
    "Broken",
    "FileCreated",
    "SessionClosed",
    "SessionUnknown",
    "OutOfOrder",
    "ResultEvicted",
    "WindowFull",
    "TooManySessions",
    "LeaseOutOfRange",
    "NotObtained",
    "TimedOut",
    "Cancelled wait",
    "AlreadyWaiting",
    "AlreadyHeld",
    "NotWaiting",
    "NotHolder",
    "WrongGuard",
    "AppendTooLarge",
    "TooManyAppends",
    "TooManyLocks",
    "TooManyWaiters",
    "TooManyPlaces",
    "TooManyFiles",
    "TooManyPendingBytes",
    "end: Released",
    "end: SessionClosed",
    "end: SessionExpired",
    "end: HoldTimedOut",
    "end: Broken",
    "wait end: TimedOut",
    "wait end: Cancelled",
    "wait end: SessionEnded",
    "more is due",
    "tokens ahead of the index",
    "refused at its turn",
    "granted after a wait",
];

#[test]
fn histories_reach_every_outcome() {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for _ in 0..200 {
        let (limits, steps) = (history::limits(), history::history(150))
            .new_tree(&mut runner)
            .expect("the strategies reject nothing")
            .current();
        let mut pair = Pair::new(&limits);
        for step in &steps {
            for name in names(&mut pair, step) {
                *seen.entry(name).or_default() += 1;
            }
        }
    }
    for expected in EXPECTED {
        let times = seen.get(expected).copied().unwrap_or(0);
        assert!(times >= 10, "{expected} happened {times} times; all: {seen:#?}");
    }
}

/// Takes a step, and gives a name to everything that happens.
fn names(pair: &mut Pair, step: &Step) -> Vec<&'static str> {
    let entry = pair.driver.entry(step, &pair.model);
    let again = again(&entry, &pair.model);
    let waited = pair.model.waiters.clone();
    let mut names: Vec<&str> = pair.apply(entry).notices.iter().map(notice_name).collect();
    if again {
        names.push("asked again");
    }
    if pair.model.next_due().is_some_and(|due| due <= pair.model.now) {
        names.push("more is due");
    }
    if pair.model.last_token.value() > pair.model.index.value() {
        names.push("tokens ahead of the index");
    }
    for event in &pair.applied.events {
        match event {
            LockEvent::Ended { cause, .. } => names.push(end_name(cause)),
            LockEvent::WaitEnded { cause, .. } => names.push(wait_end_name(*cause)),
            LockEvent::Rejected { session, sequence, .. }
                if waited.iter().any(|it| (it.session, it.sequence) == (*session, *sequence)) =>
            {
                names.push("refused at its turn");
            }
            LockEvent::Granted { session, .. }
                if waited.iter().any(|it| it.session == *session) =>
            {
                names.push("granted after a wait");
            }
            LockEvent::SessionOpened { .. }
            | LockEvent::SessionEnded { .. }
            | LockEvent::Granted { .. }
            | LockEvent::Queued { .. }
            | LockEvent::FileCreated { .. }
            | LockEvent::Appended { .. }
            | LockEvent::Rejected { .. } => {}
        }
    }
    names
}

/// Whether this is a new acquire by the session that holds the lock.
fn again(entry: &Entry, model: &Model) -> bool {
    let Some(Command::Submit(Submission { session, sequence, acked: _, op })) = &entry.command
    else {
        return false;
    };
    let Op::Acquire { lock, .. } = op else { return false };
    let new = model.session(*session).is_some_and(|it| *sequence == it.last.next());
    new && model.hold(lock).is_some_and(|it| it.session == *session)
}

fn end_name(cause: &EndCause) -> &'static str {
    match cause {
        EndCause::Released => "end: Released",
        EndCause::SessionClosed => "end: SessionClosed",
        EndCause::SessionExpired => "end: SessionExpired",
        EndCause::HoldTimedOut => "end: HoldTimedOut",
        EndCause::Broken { .. } => "end: Broken",
    }
}

fn wait_end_name(cause: WaitEnd) -> &'static str {
    match cause {
        WaitEnd::TimedOut => "wait end: TimedOut",
        WaitEnd::Cancelled => "wait end: Cancelled",
        WaitEnd::SessionEnded => "wait end: SessionEnded",
    }
}

fn notice_name(notice: &Notice) -> &'static str {
    match notice {
        Notice::Opened { nonce: _, result: Ok(_) } => "opened",
        Notice::Opened { nonce: _, result: Err(rejection) } => rejection_name(rejection),
        Notice::KeptAlive { session: _, result: Ok(_) } => "kept alive",
        Notice::KeptAlive { session: _, result: Err(rejection) } => rejection_name(rejection),
        Notice::Submitted { session: _, sequence: _, outcome } => outcome_name(outcome),
        Notice::Lost { .. } => "lost",
        Notice::SessionEnded { session: _, cause: SessionEnd::Closed } => "closed",
        Notice::SessionEnded { session: _, cause: SessionEnd::Expired } => "expired",
    }
}

fn outcome_name(outcome: &Outcome) -> &'static str {
    match outcome {
        Ok(Done::Granted { .. }) => "Granted",
        Ok(Done::Cancelled) => "Cancelled",
        Ok(Done::Released { .. }) => "Released",
        Ok(Done::Appended { .. }) => "Appended",
        Ok(Done::Sectioned { .. }) => "Sectioned",
        Ok(Done::Broken) => "Broken",
        Ok(Done::FileCreated) => "FileCreated",
        Ok(Done::SessionClosed) => "SessionClosed",
        Err(rejection) => rejection_name(rejection),
    }
}

fn rejection_name(rejection: &Rejection) -> &'static str {
    match rejection {
        Rejection::SessionUnknown => "SessionUnknown",
        Rejection::OutOfOrder { .. } => "OutOfOrder",
        Rejection::ResultEvicted => "ResultEvicted",
        Rejection::WindowFull => "WindowFull",
        Rejection::TooManySessions => "TooManySessions",
        Rejection::LeaseOutOfRange { .. } => "LeaseOutOfRange",
        Rejection::NotObtained => "NotObtained",
        Rejection::TimedOut => "TimedOut",
        Rejection::Cancelled => "Cancelled wait",
        Rejection::AlreadyWaiting => "AlreadyWaiting",
        Rejection::AlreadyHeld { .. } => "AlreadyHeld",
        Rejection::NotWaiting => "NotWaiting",
        Rejection::NotHolder { .. } => "NotHolder",
        Rejection::WrongGuard { .. } => "WrongGuard",
        Rejection::AppendTooLarge { .. } => "AppendTooLarge",
        Rejection::TooManyAppends { .. } => "TooManyAppends",
        Rejection::FileFull => "FileFull",
        Rejection::TooManyLocks => "TooManyLocks",
        Rejection::TooManyWaiters => "TooManyWaiters",
        Rejection::TooManyPlaces => "TooManyPlaces",
        Rejection::TooManyFiles => "TooManyFiles",
        Rejection::TooManyPendingBytes => "TooManyPendingBytes",
    }
}
