//! A second lock table, written from the specification alone, to compare the real one with.
//!
//! Everything is a list that is searched from its start, and every question is answered by
//! looking at all there is: nothing is counted, indexed or remembered that could be looked up. It
//! is slow, and meant to be seen to be right. It keeps the bytes of the files, which the real
//! table does not.
//!
//! Who holds a lock is one list, who waits is another, in the order of arrival; the queue of a
//! lock is what is left of the second when one looks only at that lock. A request is open while
//! something waits under its number, so that there is no third list of open requests.
//!
//! What the specification leaves open, the model decides as the real table documents it. Each of
//! these places says so, with the word "Open:".

mod locks;
mod ops;
mod pending;
mod view;

use bytes::Bytes;
use quorlock_core::config::Limits;
use quorlock_core::ids::{ClientNonce, FencingToken, LogIndex, Sequence, SessionId};
use quorlock_core::lock::{Command, Notice};
use quorlock_core::message::{
    Acked, Effect, EndCause, FileAppend, KeepAlive, Loss, Op, Opened, Outcome, PastHold, Rejection,
    SessionEnd, SessionNews, Submission,
};
use quorlock_core::text::{FileName, Label, LockName};
use quorlock_core::time::{Duration, LeaseTime};

/// The lock table of the model.
#[derive(Clone, Debug)]
pub struct Model {
    /// The limits of the cluster.
    pub limits: Limits,
    /// The last entry that was applied.
    pub index: LogIndex,
    /// The lease clock.
    pub now: LeaseTime,
    /// The highest token that was ever given.
    pub last_token: FencingToken,
    /// The sessions that live, in the order of their opening.
    pub sessions: Vec<Session>,
    /// The locks that are held, in the order of their granting.
    pub holds: Vec<Hold>,
    /// The requests that wait, in the order of their arrival.
    pub waiters: Vec<Waiter>,
    /// The files, in the order of their creation.
    pub files: Vec<File>,
    /// The holds that are over and not forgotten, in the order of their end.
    pub past: Vec<Past>,
    /// Locks that have become free during this entry, in that order.
    freed: Vec<LockName>,
    output: Output,
}

/// What one entry causes outside of the table.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Output {
    /// Writes to files.
    pub effects: Vec<Effect>,
    /// What clients are told.
    pub notices: Vec<Notice>,
}

/// A session that lives.
#[derive(Clone, Debug)]
pub struct Session {
    /// The index of the entry that opened it.
    pub id: SessionId,
    /// The nonce of its opening.
    pub nonce: ClientNonce,
    /// Whose it is.
    pub label: Label,
    /// How long a keep-alive lasts.
    pub lease: Duration,
    /// When it expires.
    pub deadline: LeaseTime,
    /// The highest number it has used.
    pub last: Sequence,
    /// What was decided and not acknowledged.
    pub outcomes: Vec<(Sequence, Outcome)>,
    /// The losses that were not acknowledged, oldest first.
    pub losses: Vec<Loss>,
}

/// A lock that is held.
#[derive(Clone, Debug)]
pub struct Hold {
    /// Which lock.
    pub lock: LockName,
    /// By whom.
    pub session: SessionId,
    /// The token.
    pub token: FencingToken,
    /// Since when.
    pub since: LeaseTime,
    /// When it is taken back.
    pub deadline: Option<LeaseTime>,
    /// The token of the hold before, if that was remembered at the time of the grant.
    pub predecessor: Option<FencingToken>,
}

/// A request that waits for a lock.
#[derive(Clone, Debug)]
pub struct Waiter {
    /// Which lock.
    pub lock: LockName,
    /// Who waits.
    pub session: SessionId,
    /// Under which number.
    pub sequence: Sequence,
    /// Since when.
    pub since: LeaseTime,
    /// Until when.
    pub deadline: Option<LeaseTime>,
    /// What happens at its turn.
    pub turn: Turn,
}

/// What a waiter wants.
#[derive(Clone, Debug)]
pub enum Turn {
    /// The lock, for at most so long.
    Hold(Option<Duration>),
    /// To append and be gone.
    Section(Vec<FileAppend>),
}

/// A file with its content.
#[derive(Clone, Debug)]
pub struct File {
    /// Its name.
    pub name: FileName,
    /// The lock that guards it.
    pub guard: LockName,
    /// All that was appended.
    pub bytes: Vec<u8>,
}

/// A hold that is over.
#[derive(Clone, Debug)]
pub struct Past {
    /// Of which lock.
    pub lock: LockName,
    /// What is remembered of it.
    pub hold: PastHold,
}

/// Something that has a deadline. Those with the same deadline pass in the order of this enum.
///
/// Open: the order among equal deadlines. A session's end comes first, since it ends its holds and
/// waits as well.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Due {
    /// A session expires.
    Session(SessionId),
    /// A hold times out.
    Hold(LockName),
    /// A wait times out.
    Wait(SessionId, Sequence),
}

/// What to do with a request, by its number.
enum Gate {
    /// It is the next one: run it.
    Run,
    /// It is the next one, but there is room for its rejection only.
    Crowded,
    /// It waits for its turn; there is nothing to say yet.
    Open,
    /// It has its answer.
    Answer(Outcome),
}

impl Session {
    /// All that the client has not acknowledged.
    pub fn news(&self) -> SessionNews {
        let mut outcomes = self.outcomes.clone();
        outcomes.sort_by_key(|(sequence, _)| *sequence);
        SessionNews { outcomes, losses: self.losses.clone() }
    }
}

impl Model {
    /// An empty table.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            index: LogIndex::ZERO,
            now: LeaseTime::ZERO,
            last_token: FencingToken::ZERO,
            sessions: Vec::new(),
            holds: Vec::new(),
            waiters: Vec::new(),
            files: Vec::new(),
            past: Vec::new(),
            freed: Vec::new(),
            output: Output::default(),
        }
    }

    /// Applies one entry: the clock, then what is due, then the command.
    ///
    /// Open: when the locks that become free are handed over. All of what is due passes before
    /// any lock is, so that nobody is granted a lock by the entry with which it expires. Likewise
    /// a command is done before the locks that it frees go to others.
    pub fn apply(&mut self, index: LogIndex, stamp: LeaseTime, command: Option<Command>) -> Output {
        assert!(index > self.index, "the test applies entries in order");
        self.index = index;
        self.now = self.now.max(stamp);
        for _ in 0..self.limits.expiries_per_entry_max {
            match self.first_due() {
                Some((deadline, due)) if deadline <= self.now => self.pass(due),
                Some(_) | None => break,
            }
        }
        self.hand_over_all();
        match command {
            None => {}
            Some(Command::OpenSession { nonce, label, lease }) => {
                self.open(nonce, label, lease);
            }
            Some(Command::KeepAlive(all)) => {
                for one in all {
                    self.keep_alive(one);
                }
            }
            Some(Command::Submit(submission)) => self.submit(submission),
        }
        self.hand_over_all();
        std::mem::take(&mut self.output)
    }

    /// When something is due next.
    pub fn next_due(&self) -> Option<LeaseTime> {
        self.first_due().map(|(deadline, _)| deadline)
    }

    fn first_due(&self) -> Option<(LeaseTime, Due)> {
        let sessions = self.sessions.iter().map(|it| (it.deadline, Due::Session(it.id)));
        let holds = self
            .holds
            .iter()
            .filter_map(|it| it.deadline.map(|deadline| (deadline, Due::Hold(it.lock.clone()))));
        let waits = self.waiters.iter().filter_map(|it| {
            it.deadline.map(|deadline| (deadline, Due::Wait(it.session, it.sequence)))
        });
        sessions.chain(holds).chain(waits).min()
    }

    fn pass(&mut self, due: Due) {
        match due {
            Due::Session(session) => self.end_session(session, SessionEnd::Expired),
            Due::Hold(lock) => self.take_away(&lock, EndCause::HoldTimedOut),
            Due::Wait(session, sequence) => {
                self.leave_queue(session, sequence, Rejection::TimedOut);
            }
        }
    }

    /// The session, if it lives.
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.iter().find(|it| it.id == id)
    }

    fn session_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|it| it.id == id)
    }

    fn tell(&mut self, notice: Notice) {
        self.output.notices.push(notice);
    }

    /// Open: a repeated opening renews the lease, and is not checked against the limits.
    fn open(&mut self, nonce: ClientNonce, label: Label, lease: Duration) {
        let result = self.open_result(nonce, label, lease);
        self.tell(Notice::Opened { nonce, result });
    }

    fn open_result(
        &mut self,
        nonce: ClientNonce,
        label: Label,
        lease: Duration,
    ) -> Result<Opened, Rejection> {
        let (now, window_max) = (self.now, self.limits.window_max);
        if let Some(session) = self.sessions.iter_mut().find(|it| it.nonce == nonce) {
            session.deadline = now.after(session.lease);
            return Ok(Opened { session: session.id, window_max });
        }
        let (min, max) = (self.limits.session_lease_min, self.limits.session_lease_max);
        if lease < min || lease > max {
            return Err(Rejection::LeaseOutOfRange { min, max });
        }
        if self.sessions.len() as u64 >= u64::from(self.limits.sessions_max) {
            return Err(Rejection::TooManySessions);
        }
        let id = SessionId::new(self.index.value());
        self.sessions.push(Session {
            id,
            nonce,
            label,
            lease,
            deadline: now.after(lease),
            last: Sequence::ZERO,
            outcomes: Vec::new(),
            losses: Vec::new(),
        });
        Ok(Opened { session: id, window_max })
    }

    fn keep_alive(&mut self, keep_alive: KeepAlive) {
        let KeepAlive { session: id, acked, losses_seen } = keep_alive;
        let now = self.now;
        let result = match self.session_mut(id) {
            None => Err(Rejection::SessionUnknown),
            Some(session) => {
                session.deadline = now.after(session.lease);
                session.outcomes.retain(|(sequence, _)| !acked.contains(*sequence));
                session.losses.retain(|loss| loss.index > losses_seen);
                Ok(session.news())
            }
        };
        self.tell(Notice::KeptAlive { session: id, result });
    }

    /// Exactly once: the number decides whether the request runs.
    fn submit(&mut self, submission: Submission) {
        let Submission { session: id, sequence, acked, op } = submission;
        match self.gate(id, sequence, &acked, &op) {
            Gate::Open => {}
            Gate::Crowded => self.decide(id, sequence, Err(Rejection::TooManyPendingBytes)),
            Gate::Answer(outcome) => {
                self.tell(Notice::Submitted { session: id, sequence, outcome });
            }
            Gate::Run => {
                if let Some(outcome) = self.run(id, sequence, op) {
                    self.decide(id, sequence, outcome);
                }
            }
        }
    }

    fn gate(&mut self, id: SessionId, sequence: Sequence, acked: &Acked, op: &Op) -> Gate {
        let Some(session) = self.session_mut(id) else {
            return Gate::Answer(Err(Rejection::SessionUnknown));
        };
        session.outcomes.retain(|(sequence, _)| !acked.contains(*sequence));
        let session = session.clone();
        let open: Vec<Sequence> =
            self.waiters.iter().filter(|it| it.session == id).map(|it| it.sequence).collect();
        if sequence <= session.last {
            let stored = session.outcomes.iter().find(|(of, _)| *of == sequence);
            return match stored {
                Some((_, outcome)) => Gate::Answer(outcome.clone()),
                None if open.contains(&sequence) => Gate::Open,
                None => Gate::Answer(Err(Rejection::ResultEvicted)),
            };
        }
        let expected = session.last.next();
        if sequence > expected {
            return Gate::Answer(Err(Rejection::OutOfOrder { expected }));
        }
        let used = session.outcomes.len() + open.len();
        if used as u64 >= u64::from(self.limits.window_max) || !self.has_room_to_decide() {
            return Gate::Answer(Err(Rejection::WindowFull));
        }
        self.session_mut(id).expect("it was found above").last = sequence;
        if self.has_room_to_run(op) { Gate::Run } else { Gate::Crowded }
    }

    /// Keeps what was decided on a request, if its session lives on, and tells it.
    fn decide(&mut self, id: SessionId, sequence: Sequence, outcome: Outcome) {
        if let Some(session) = self.session_mut(id) {
            session.outcomes.push((sequence, outcome.clone()));
        }
        self.tell(Notice::Submitted { session: id, sequence, outcome });
    }

    /// Ends a session: its waits are dropped, and its holds end in the order of the names of the
    /// locks.
    fn end_session(&mut self, id: SessionId, cause: SessionEnd) {
        let end_cause = match cause {
            SessionEnd::Closed => EndCause::SessionClosed,
            SessionEnd::Expired => EndCause::SessionExpired,
        };
        let mut held: Vec<LockName> =
            self.holds.iter().filter(|it| it.session == id).map(|it| it.lock.clone()).collect();
        held.sort();
        self.waiters.retain(|it| it.session != id);
        for lock in &held {
            self.end_hold(lock, end_cause.clone());
        }
        self.sessions.retain(|it| it.id != id);
        self.tell(Notice::SessionEnded { session: id, cause });
    }

    /// Writes to a file, creating it if it is not there, and gives the offset.
    fn write(&mut self, guard: &LockName, name: &FileName, bytes: &Bytes) -> u64 {
        if !self.files.iter().any(|it| it.name == *name) {
            let file = File { name: name.clone(), guard: guard.clone(), bytes: Vec::new() };
            self.files.push(file);
        }
        let file = self
            .files
            .iter_mut()
            .find(|it| it.name == *name)
            .expect("it was created if it was not there");
        let offset = file.bytes.len() as u64;
        file.bytes.extend_from_slice(bytes);
        self.output.effects.push(Effect {
            index: self.index,
            file: name.clone(),
            offset,
            bytes: bytes.clone(),
        });
        offset
    }
}
