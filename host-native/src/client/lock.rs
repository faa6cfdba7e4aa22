//! A lock that is held.

use bytes::Bytes;
use quorlock_core::client::{Ending, SessionState};
use quorlock_core::ids::FencingToken;
use quorlock_core::message::{Done, FileAppend, Op};
use quorlock_core::text::{FileName, LockName};

use super::command::Grant;
use super::errors::{CallError, LossCause, ReleaseError};
use super::{Client, appends_of};

/// A lock that this client holds, as far as anybody can know.
///
/// **Held is an opinion, the token is a fact.** Between a look at this value and what is done next
/// the process may be paused for any time, and the lock be somebody else's. [`Lock::append`] is
/// safe all the same: it carries the token, which is checked where the append is applied. Whatever
/// else the lock protects must check the token, too: a store that refuses tokens lower than the
/// highest that it has seen.
///
/// Dropped, it is given back in the background; that is best effort, as any drop: a process that
/// exits at once leaves the lock to the end of its lease. [`Lock::release`] waits until it is free.
#[derive(Debug)]
#[must_use = "dropped, the lock is given back"]
pub struct Lock {
    client: Client,
    grant: Grant,
}

/// How a lock was lost.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LossReport {
    /// The lock.
    pub lock: LockName,
    /// The token that is worth nothing any more.
    pub token: FencingToken,
    /// Why.
    pub cause: LossCause,
}

impl std::fmt::Display for LossReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { lock, token, cause } = self;
        write!(f, "{lock} (token {token}) is lost: {cause}")
    }
}

impl Lock {
    pub(super) fn new(client: Client, grant: Grant) -> Self {
        Self { client, grant }
    }

    /// Its name.
    pub fn name(&self) -> &LockName {
        &self.grant.lock
    }

    /// Proves the hold: every hold of a lock has a higher one than the holds before it.
    pub fn token(&self) -> FencingToken {
        self.grant.token
    }

    /// The token of the hold before this one, where the cluster remembers it.
    pub fn predecessor(&self) -> Option<FencingToken> {
        self.grant.predecessor
    }

    /// The client that holds it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Appends to a file that this lock guards, and returns the offset. A file that is not there is
    /// made, and guarded by this lock from then on.
    ///
    /// It is done exactly once, or, if the lock is not held at that moment, not at all
    /// ([`Rejection::NotHolder`](super::Rejection::NotHolder)). Dropping the future does not take the append back.
    ///
    /// # Errors
    /// [`CallError`]; only [`CallError::Unknown`] leaves open whether it was done.
    pub async fn append(&self, file: &str, bytes: impl Into<Bytes>) -> Result<u64, CallError> {
        let file = FileName::new(file).map_err(CallError::name(file))?;
        let append = FileAppend { file, bytes: bytes.into() };
        let op = Op::Append { lock: self.name().clone(), token: self.token(), append };
        let Done::Appended { offset } = self.client.call(op).await? else {
            unreachable!("the core checks that the outcome fits an append");
        };
        Ok(offset)
    }

    /// Gives the lock back, and waits until it is free.
    ///
    /// Dropping the future releases it in the background.
    ///
    /// # Errors
    /// [`CallError`]. The lock is not this client's any more in any case:
    /// [`Rejection::NotHolder`](super::Rejection::NotHolder) says that it was lost before.
    pub async fn release(self) -> Result<(), CallError> {
        match self.release_ops(Vec::new()).await {
            Ok(_) => Ok(()),
            Err(failed) => Err(failed.error),
        }
    }

    /// Appends to files that this lock guards, and gives it back: all of it in one step, or nothing.
    /// Returns the offset of each append, in order.
    ///
    /// # Errors
    /// [`ReleaseError`], with the lock if it is still held.
    pub async fn release_with<F: AsRef<str>, B: Into<Bytes>>(
        self,
        appends: impl IntoIterator<Item = (F, B)>,
    ) -> Result<Vec<u64>, ReleaseError> {
        match appends_of(appends) {
            Ok(appends) => self.release_ops(appends).await,
            Err(error) => Err(ReleaseError { error, lock: Some(self) }),
        }
    }

    async fn release_ops(mut self, appends: Vec<FileAppend>) -> Result<Vec<u64>, ReleaseError> {
        let op = Op::Release { lock: self.name().clone(), token: self.token(), appends };
        let error = match self.client.call(op).await {
            Ok(Done::Released { offsets }) => {
                self.grant.farewells = None;
                return Ok(offsets);
            }
            Ok(other) => unreachable!("the core checks that {other:?} fits a release"),
            Err(error) => error,
        };
        let is_over = error.ends_hold();
        if is_over {
            self.grant.farewells = None;
        }
        Err(ReleaseError { error, lock: (!is_over).then_some(self) })
    }

    /// Whether the lock is known to be lost, and why. `None` promises nothing: see [`Lock`].
    pub fn loss(&self) -> Option<LossReport> {
        let cause = self.grant.loss.borrow().clone();
        cause.map(|cause| self.report(cause))
    }

    /// Waits until the lock is lost, by itself or with its session, and says why.
    ///
    /// The news come from a thread of the library, so that they are there however busy the
    /// application's own threads are; to hear of them, one must await this in a task that gets to
    /// run.
    pub async fn lost(&self) -> LossReport {
        let mut loss = self.grant.loss.clone();
        let cause = match loss.wait_for(Option::is_some).await {
            Ok(cause) => cause.clone(),
            Err(_closed) => None,
        };
        // Nobody is left to say why: only with a session that ended.
        let cause = cause.unwrap_or_else(|| LossCause::SessionEnded(self.ending()));
        self.report(cause)
    }

    /// Waits until the session is in jeopardy, or over: the moment to finish what must not be done
    /// without the lock.
    pub async fn in_jeopardy(&self) {
        let mut state = self.client.watch();
        let worried = |state: &SessionState| match state {
            SessionState::Jeopardy | SessionState::Ended(_) => true,
            SessionState::Opening | SessionState::Safe => false,
        };
        // Closed is over, too.
        drop(state.wait_for(worried).await);
    }

    /// Lets go of the guard, and keeps the hold.
    pub(super) fn into_grant(mut self) -> (FencingToken, Option<FencingToken>) {
        self.grant.farewells = None;
        (self.grant.token, self.grant.predecessor)
    }

    fn ending(&self) -> Ending {
        self.client.ending()
    }

    fn report(&self, cause: LossCause) -> LossReport {
        LossReport { lock: self.name().clone(), token: self.token(), cause }
    }
}
