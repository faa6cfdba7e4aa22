//! Each rule, broken.

use quorlock_core::ids::{FencingToken, LogIndex, Sequence, SessionId};
use quorlock_core::lock::LockEvent;
use quorlock_core::message::EndCause;
use quorlock_core::text::{FileName, LockName};

use super::LockCheck;

fn lock() -> LockName {
    LockName::new("db").expect("a name in a test is a name")
}

fn file() -> FileName {
    FileName::new("journal").expect("a name in a test is a name")
}

fn granted(session: u64, token: u64) -> LockEvent {
    let (session, token) = (SessionId::new(session), FencingToken::new(token));
    LockEvent::Granted { lock: lock(), session, token, predecessor: None }
}

fn ended(session: u64, token: u64) -> LockEvent {
    let (session, token) = (SessionId::new(session), FencingToken::new(token));
    LockEvent::Ended { lock: lock(), session, token, cause: EndCause::Released }
}

fn queued(session: u64, position: u64) -> LockEvent {
    let (session, sequence) = (SessionId::new(session), Sequence::new(1));
    LockEvent::Queued { lock: lock(), session, sequence, position }
}

fn appended(token: u64, offset: u64) -> LockEvent {
    LockEvent::Appended { file: file(), token: FencingToken::new(token), offset, length: 5 }
}

fn check(events: &[LockEvent]) {
    LockCheck::default().happened(LogIndex::new(3), events);
}

#[test]
fn a_life_of_a_lock() {
    let created = LockEvent::FileCreated { file: file(), guard: lock() };
    let written = [granted(1, 3), created, appended(3, 0), appended(3, 5), queued(2, 0)];
    check(&[&written[..], &[ended(1, 3), granted(2, 4), ended(2, 4)]].concat());
}

#[test]
#[should_panic(expected = "while it is held")]
fn two_holders() {
    check(&[granted(1, 3), granted(2, 4)]);
}

#[test]
#[should_panic(expected = "token 3 comes after 4")]
fn a_token_that_falls() {
    check(&[granted(1, 4), ended(1, 4), granted(2, 3)]);
}

#[test]
#[should_panic(expected = "granted to 3 before")]
fn a_waiter_that_pushes_in() {
    check(&[granted(1, 3), queued(2, 0), queued(3, 1), ended(1, 3), granted(3, 4)]);
}

#[test]
#[should_panic(expected = "is free after 3")]
fn a_waiter_that_is_forgotten() {
    check(&[granted(1, 3), queued(2, 0), ended(1, 3)]);
}

#[test]
#[should_panic(expected = "by the holder of db alone")]
fn an_append_with_an_old_token() {
    let created = LockEvent::FileCreated { file: file(), guard: lock() };
    check(&[granted(1, 3), created, ended(1, 3), granted(2, 4), appended(3, 0)]);
}

#[test]
#[should_panic(expected = "has no gaps")]
fn an_append_after_a_gap() {
    let created = LockEvent::FileCreated { file: file(), guard: lock() };
    check(&[granted(1, 3), created, appended(3, 0), appended(3, 6)]);
}
