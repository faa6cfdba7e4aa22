//! What each request does.

use quorlock_core::ids::{FencingToken, ID_MAX, Sequence, SessionId};
use quorlock_core::message::{
    Done, EndCause, FileAppend, Op, Outcome, Rejection, SessionEnd, Wait,
};
use quorlock_core::text::{FileName, LockName, Text};
use quorlock_core::time::Duration;

use super::{Model, Turn, Waiter};

impl Model {
    /// Runs a request that has its turn in its session; `None` when it waits.
    pub(super) fn run(&mut self, id: SessionId, sequence: Sequence, op: Op) -> Option<Outcome> {
        match op {
            Op::Acquire { lock, wait, max_hold } => {
                self.acquire(id, sequence, lock, wait, max_hold)
            }
            Op::Cancel { waiting } => Some(self.cancel(id, waiting)),
            Op::Release { lock, token, appends } => {
                self.release(id, sequence, &lock, token, &appends);
                None
            }
            Op::Append { lock, token, append } => Some(self.append(id, &lock, token, append)),
            Op::Section { lock, wait, appends } => {
                self.ask_section(id, sequence, lock, wait, appends)
            }
            Op::Break { lock, token, reason } => {
                self.break_hold(id, sequence, &lock, token, reason);
                None
            }
            Op::CreateFile { file, guard } => Some(self.create_file(&file, &guard)),
            Op::CloseSession => {
                self.decide(id, sequence, Ok(Done::SessionClosed));
                self.end_session(id, SessionEnd::Closed);
                None
            }
        }
    }

    fn holds_it(&self, id: SessionId, lock: &LockName) -> Option<FencingToken> {
        self.hold(lock).filter(|it| it.session == id).map(|it| it.token)
    }

    fn waits_for(&self, id: SessionId, lock: &LockName) -> bool {
        self.waiters.iter().any(|it| it.session == id && it.lock == *lock)
    }

    fn acquire(
        &mut self,
        id: SessionId,
        sequence: Sequence,
        lock: LockName,
        wait: Wait,
        max_hold: Option<Duration>,
    ) -> Option<Outcome> {
        if let Some(hold) = self.hold(&lock).filter(|it| it.session == id) {
            let (token, predecessor) = (hold.token, hold.predecessor);
            return Some(Ok(Done::Granted { token, predecessor }));
        }
        if self.hold(&lock).is_some() {
            return self.queue(id, sequence, lock, wait, Turn::Hold(max_hold));
        }
        if self.holds.len() as u64 >= u64::from(self.limits.locks_max) {
            return Some(Err(Rejection::TooManyLocks));
        }
        if self.places_full(id) {
            return Some(Err(Rejection::TooManyPlaces));
        }
        Some(Ok(self.grant(&lock, id, max_hold)))
    }

    fn ask_section(
        &mut self,
        id: SessionId,
        sequence: Sequence,
        lock: LockName,
        wait: Wait,
        appends: Vec<FileAppend>,
    ) -> Option<Outcome> {
        if let Err(rejection) = self.check_sizes(&appends) {
            return Some(Err(rejection));
        }
        if let Some(token) = self.holds_it(id, &lock) {
            return Some(Err(Rejection::AlreadyHeld { token }));
        }
        if self.hold(&lock).is_some() {
            return self.queue(id, sequence, lock, wait, Turn::Section(appends));
        }
        Some(self.section(&lock, id, &appends))
    }

    fn places_full(&self, id: SessionId) -> bool {
        self.places(id) as u64 >= u64::from(self.limits.places_per_session_max)
    }

    /// Takes a place in the queue of a lock that somebody else holds.
    ///
    /// Open: the order of the checks.
    fn queue(
        &mut self,
        session: SessionId,
        sequence: Sequence,
        lock: LockName,
        wait: Wait,
        turn: Turn,
    ) -> Option<Outcome> {
        if self.waits_for(session, &lock) {
            return Some(Err(Rejection::AlreadyWaiting));
        }
        if wait != Wait::Try && !self.has_room_to_wait(&turn) {
            return Some(Err(Rejection::TooManyPendingBytes));
        }
        let deadline = match wait {
            Wait::Try => return Some(Err(Rejection::NotObtained)),
            // The lease clock counts microseconds.
            Wait::For(duration) if duration.as_micros() == 0 => {
                return Some(Err(Rejection::NotObtained));
            }
            Wait::For(duration) => Some(self.now.after(duration)),
            Wait::Forever => None,
        };
        if self.queue_length(&lock) as u64 >= u64::from(self.limits.waiters_per_lock_max) {
            return Some(Err(Rejection::TooManyWaiters));
        }
        if self.places_full(session) {
            return Some(Err(Rejection::TooManyPlaces));
        }
        let since = self.now;
        self.waiters.push(Waiter { lock, session, sequence, since, deadline, turn });
        None
    }

    fn cancel(&mut self, id: SessionId, waiting: Sequence) -> Outcome {
        if !self.waiters.iter().any(|it| it.session == id && it.sequence == waiting) {
            return Err(Rejection::NotWaiting);
        }
        self.leave_queue(id, waiting, Rejection::Cancelled);
        Ok(Done::Cancelled)
    }

    fn check_holder(
        &self,
        id: SessionId,
        lock: &LockName,
        token: FencingToken,
    ) -> Result<(), Rejection> {
        if self.holds_it(id, lock) == Some(token) {
            return Ok(());
        }
        Err(Rejection::NotHolder { current: self.token(lock) })
    }

    fn release(
        &mut self,
        id: SessionId,
        sequence: Sequence,
        lock: &LockName,
        token: FencingToken,
        appends: &[FileAppend],
    ) {
        let allowed = self
            .check_holder(id, lock, token)
            .and_then(|()| self.check_sizes(appends))
            .and_then(|()| self.check_appends(lock, appends));
        if let Err(rejection) = allowed {
            self.decide(id, sequence, Err(rejection));
            return;
        }
        let offsets = self.append_all(lock, appends);
        self.decide(id, sequence, Ok(Done::Released { offsets }));
        self.end_hold(lock, EndCause::Released);
    }

    fn append(
        &mut self,
        id: SessionId,
        lock: &LockName,
        token: FencingToken,
        append: FileAppend,
    ) -> Outcome {
        self.check_holder(id, lock, token)?;
        self.check_sizes(std::slice::from_ref(&append))?;
        self.check_appends(lock, std::slice::from_ref(&append))?;
        let offset = self.write(lock, &append.file, &append.bytes);
        Ok(Done::Appended { offset })
    }

    /// Open: one who breaks its own hold hears of the loss first.
    fn break_hold(
        &mut self,
        id: SessionId,
        sequence: Sequence,
        lock: &LockName,
        token: FencingToken,
        reason: Text,
    ) {
        if self.token(lock) != Some(token) {
            let current = self.token(lock);
            self.decide(id, sequence, Err(Rejection::NotHolder { current }));
            return;
        }
        let by = self.label(id);
        self.take_away(lock, EndCause::Broken { by, reason });
        self.decide(id, sequence, Ok(Done::Broken));
    }

    fn create_file(&mut self, file: &FileName, guard: &LockName) -> Outcome {
        if let Some(found) = self.files.iter().find(|it| it.name == *file) {
            if found.guard != *guard {
                return Err(Rejection::WrongGuard { guard: found.guard.clone() });
            }
            return Ok(Done::FileCreated);
        }
        if self.files.len() as u64 >= u64::from(self.limits.files_max) {
            return Err(Rejection::TooManyFiles);
        }
        self.write(guard, file, &bytes::Bytes::new());
        Ok(Done::FileCreated)
    }

    /// What can be said of appends without looking at any file.
    ///
    /// Open: the order of the checks.
    fn check_sizes(&self, appends: &[FileAppend]) -> Result<(), Rejection> {
        let appends_max = self.limits.appends_per_request_max;
        if appends.len() as u64 > u64::from(appends_max) {
            return Err(Rejection::TooManyAppends { appends_max });
        }
        let bytes_max = self.limits.append_bytes_max;
        let bytes: u64 = appends.iter().map(|it| it.bytes.len() as u64).sum();
        if bytes > u64::from(bytes_max) {
            return Err(Rejection::AppendTooLarge { bytes_max });
        }
        Ok(())
    }

    /// Whether all of the appends can be made; the first that cannot says why.
    pub(super) fn check_appends(
        &self,
        guard: &LockName,
        appends: &[FileAppend],
    ) -> Result<(), Rejection> {
        let mut created: Vec<&FileName> = Vec::new();
        let mut lengths: Vec<(&FileName, u64)> =
            self.files.iter().map(|it| (&it.name, it.bytes.len() as u64)).collect();
        for append in appends {
            let found = self.files.iter().find(|it| it.name == append.file);
            if let Some(file) = found
                && file.guard != *guard
            {
                return Err(Rejection::WrongGuard { guard: file.guard.clone() });
            }
            if found.is_none() && !created.contains(&&append.file) {
                created.push(&append.file);
                lengths.push((&append.file, 0));
                let files = self.files.len() + created.len();
                if files as u64 > u64::from(self.limits.files_max) {
                    return Err(Rejection::TooManyFiles);
                }
            }
            let length = lengths
                .iter_mut()
                .find(|(name, _)| **name == append.file)
                .expect("every file is in the list by now");
            length.1 += append.bytes.len() as u64;
            if length.1 > ID_MAX {
                return Err(Rejection::FileFull);
            }
        }
        Ok(())
    }

    /// Makes all of the appends and gives their offsets.
    pub(super) fn append_all(&mut self, guard: &LockName, appends: &[FileAppend]) -> Vec<u64> {
        appends.iter().map(|it| self.write(guard, &it.file, &it.bytes)).collect()
    }
}
