//! What the client makes of what nodes say.
//!
//! A node is believed, but only about what the client waits for: the session and nonce must be its
//! own, the request must be open, the answer must fit it. The rest is late, repeated or
//! meaningless; it is counted and changes nothing.

use alloc::vec::Vec;

use super::lease::{Lease, Phase, Session};
use super::{CallError, Client, ClientOutput, Completed, Ending, SessionState, fit};
use crate::ids::{FencingToken, LogIndex, RequestId, Sequence, SessionId};
use crate::message::{
    Answer, Done, Op, Opened, Outcome, Rejection, Reply, RequestKey, SessionEnd, SessionNews,
    Unavailable,
};
use crate::time::Time;

/// A reply that was not for the client, or not any more.
pub(super) struct Ignored;

/// What became of a reply.
type Handled = Result<(), Ignored>;

impl Client {
    /// Takes in a reply on the present connection.
    pub(super) fn handle_reply(&mut self, reply: Reply) -> Handled {
        match reply {
            Reply::Opened { nonce, result } => {
                self.take_greeting_answer(RequestKey::Open(nonce))?;
                match result {
                    Ok(opened) => self.handle_opened(opened),
                    Err(rejection) => self.handle_open_refused(rejection),
                }
            }
            Reply::KeptAlive { id, session, result, .. } => {
                let sent = self.take_greeting_answer(RequestKey::KeepAlive(session, id))?;
                match result {
                    Ok(news) => self.handle_kept_alive(sent, news),
                    Err(rejection) => self.handle_keep_alive_refused(rejection),
                }
            }
            Reply::Submitted { session, sequence, outcome, .. } => {
                self.check_session(session)?;
                self.handle_outcome(sequence, outcome)
            }
            Reply::Lost { session, loss } => {
                self.check_session(session)?;
                let fresh = self.locks.lost(loss);
                self.outputs.extend(fresh.map(ClientOutput::Lost));
                Ok(())
            }
            Reply::SessionEnded { session, cause, .. } => {
                self.check_session(session)?;
                self.handle_session_ended(cause);
                Ok(())
            }
            Reply::Read { id, index, answer } => self.handle_answer(id, index, answer),
            Reply::Unavailable { request, reason } => self.handle_unavailable(request, reason),
        }
    }

    fn check_session(&self, session: SessionId) -> Handled {
        if self.session.id() == Some(session) { Ok(()) } else { Err(Ignored) }
    }

    /// If an open or keep-alive with this key is under way, it is no more. Returns when it was
    /// sent.
    fn take_greeting_answer(&mut self, key: RequestKey) -> Result<Time, Ignored> {
        let live = self.connection.live_mut().ok_or(Ignored)?;
        let (_, sent) = live.greeting.take_if(|(open, _)| *open == key).ok_or(Ignored)?;
        live.deadlines.clear(key);
        Ok(sent)
    }

    fn handle_opened(&mut self, opened: Opened) -> Handled {
        let Session::Unopened { first_sent, above } = self.session else { return Err(Ignored) };
        if opened.session <= above {
            self.greet_later();
            return Err(Ignored);
        }
        let lease = Lease::new(&self.config, first_sent.unwrap_or(self.now));
        self.session = Session::opened(opened.session, opened.window_max, lease);
        self.confirm();
        Ok(())
    }

    fn handle_open_refused(&mut self, rejection: Rejection) -> Handled {
        match Verdict::of(&rejection) {
            Verdict::NoSession => {
                self.end(Ending::Refused(rejection));
                Ok(())
            }
            Verdict::SessionOver | Verdict::NotNow | Verdict::Evicted | Verdict::Decided => {
                self.greet_later();
                Err(Ignored)
            }
        }
    }

    /// The lease counts from when the keep-alive was sent. The news stand in for every push that
    /// was lost; outcomes come first, since a loss is told after its grant.
    fn handle_kept_alive(&mut self, sent: Time, news: SessionNews) -> Handled {
        let Session::Opened { lease, .. } = &mut self.session else { return Err(Ignored) };
        *lease = Lease::new(&self.config, sent);
        self.confirm();
        for (sequence, outcome) in news.outcomes {
            // Most often its push came first, and this is no news.
            self.handle_outcome(sequence, outcome).unwrap_or(());
        }
        if !self.is_ended() {
            let losses = self.locks.take_news(news.losses);
            self.outputs.extend(losses.into_iter().map(ClientOutput::Lost));
        }
        Ok(())
    }

    fn handle_keep_alive_refused(&mut self, rejection: Rejection) -> Handled {
        match Verdict::of(&rejection) {
            Verdict::SessionOver => {
                self.handle_session_over(Ending::Forgotten);
                Ok(())
            }
            Verdict::NoSession | Verdict::NotNow | Verdict::Evicted | Verdict::Decided => {
                self.greet_later();
                Err(Ignored)
            }
        }
    }

    /// The node has shown that it is the leader, and that the session is alive.
    fn confirm(&mut self) {
        self.connection.succeed();
        if let Some(live) = self.connection.live_mut() {
            live.greeted = true;
        }
        if self.session.lease().is_some_and(|lease| lease.phase(self.now) == Phase::Safe) {
            self.set_state(SessionState::Safe);
        }
    }

    /// The cluster does not have the session any more.
    ///
    /// If it was never used, since the answer to the open came too late for its lease, another one
    /// is as good.
    fn handle_session_over(&mut self, ending: Ending) {
        let unused = match self.state {
            SessionState::Opening => self.session.id(),
            SessionState::Safe | SessionState::Jeopardy | SessionState::Ended(_) => None,
        };
        match unused {
            Some(id) => self.open_again(id),
            None => self.end(ending),
        }
    }

    fn open_again(&mut self, above: SessionId) {
        self.session = Session::Unopened { first_sent: None, above };
        if let Some(live) = self.connection.live_mut() {
            if let Some((key, _)) = live.greeting.take() {
                live.deadlines.clear(key);
            }
            live.greeted = false;
        }
        self.greet_later();
    }

    /// Makes a pause before the next open or keep-alive: the last one came to nothing.
    fn greet_later(&mut self) {
        let greet_after = self.now.after(self.connection.pause(&self.config));
        if let Some(live) = self.connection.live_mut() {
            live.greet_after = greet_after;
        }
    }

    fn handle_session_ended(&mut self, cause: SessionEnd) {
        self.handle_session_over(match cause {
            SessionEnd::Closed => Ending::Closed,
            SessionEnd::Expired => Ending::Expired,
        });
    }

    /// What the log says of one request of this session.
    fn handle_outcome(&mut self, sequence: Sequence, outcome: Outcome) -> Handled {
        let op = self.calls.submitted(sequence).ok_or(Ignored)?;
        match outcome {
            Ok(Done::SessionClosed) if matches!(op, Op::CloseSession) => self.end(Ending::Closed),
            Ok(done) if fit::done_fits(op, &done) => self.finish_op(sequence, Ok(done)),
            // It was decided, but into what is past understanding.
            Ok(_) => self.finish_op(sequence, Err(CallError::Unknown)),
            Err(rejection) => self.handle_rejection(sequence, rejection)?,
        }
        Ok(())
    }

    fn handle_rejection(&mut self, sequence: Sequence, rejection: Rejection) -> Handled {
        match Verdict::of(&rejection) {
            Verdict::SessionOver => self.handle_session_over(Ending::Forgotten),
            Verdict::NotNow => self.submit_later(sequence),
            Verdict::Evicted => self.finish_op(sequence, Err(CallError::Unknown)),
            Verdict::Decided => self.finish_op(sequence, Err(CallError::Rejected(rejection))),
            Verdict::NoSession => return Err(Ignored),
        }
        Ok(())
    }

    /// The request was turned away undecided. It is sent again after a pause, and so is all that
    /// follows it.
    fn submit_later(&mut self, sequence: Sequence) {
        if let Some((id, live)) = self.session.id().zip(self.connection.live_mut()) {
            live.deadlines.clear(RequestKey::Submit(id, sequence));
            live.cursor = Sequence::ZERO;
        }
        self.pause();
    }

    /// An op is over: tells the application, and keeps the record of locks.
    fn finish_op(&mut self, sequence: Sequence, result: Result<Done, CallError>) {
        self.connection.succeed();
        if let Some((id, live)) = self.session.id().zip(self.connection.live_mut()) {
            live.deadlines.clear(RequestKey::Submit(id, sequence));
        }
        let call = self.calls.answer(sequence).expect("only open calls are finished");
        let early = match &call.op {
            Op::Acquire { lock, .. } => self.locks.acquire_answered(lock, granted(&result)),
            Op::Release { lock, token, .. } => {
                if result.is_ok() {
                    self.locks.released(lock, *token);
                }
                Vec::new()
            }
            Op::Cancel { .. }
            | Op::Append { .. }
            | Op::Section { .. }
            | Op::Break { .. }
            | Op::CreateFile { .. }
            | Op::CloseSession => Vec::new(),
        };
        self.finish(call.id, result.map(Completed::Done));
        self.outputs.extend(early.into_iter().map(ClientOutput::Lost));
    }

    fn handle_answer(&mut self, id: RequestId, index: LogIndex, answer: Answer) -> Handled {
        let read = self.calls.read(id).ok_or(Ignored)?;
        if !fit::answer_fits(&read.query, &answer) {
            return Err(Ignored);
        }
        self.connection.succeed();
        if let Some(live) = self.connection.live_mut() {
            live.deadlines.clear(RequestKey::Read(id));
            live.unsent_reads.remove(&id);
        }
        let read = self.calls.finish_read(id).expect("it was there a moment ago");
        self.finish(read.id, Ok(Completed::Read { index, answer }));
        Ok(())
    }

    fn handle_unavailable(&mut self, request: RequestKey, reason: Unavailable) -> Handled {
        let hint = match reason {
            Unavailable::Overloaded => return self.handle_overloaded(request),
            Unavailable::NotLeader { leader } | Unavailable::LeadershipLost { leader } => leader,
            Unavailable::Transferring { to } => Some(to),
            // Checked before it was sent, so this is not so.
            Unavailable::TooLarge => return Err(Ignored),
        };
        if let Some(live) = self.connection.live_mut() {
            live.deadlines.clear(request);
        }
        self.redirect(hint);
        Ok(())
    }

    fn handle_overloaded(&mut self, request: RequestKey) -> Handled {
        match request {
            RequestKey::Open(_) | RequestKey::KeepAlive(..) => {
                self.take_greeting_answer(request)?;
                self.greet_later();
            }
            RequestKey::Submit(session, sequence) => {
                self.check_session(session)?;
                self.calls.submitted(sequence).ok_or(Ignored)?;
                self.submit_later(sequence);
            }
            RequestKey::Read(id) => {
                self.calls.read(id).ok_or(Ignored)?;
                let live = self.connection.live_mut().ok_or(Ignored)?;
                live.deadlines.clear(request);
                live.unsent_reads.insert(id);
                self.pause();
            }
        }
        Ok(())
    }
}

/// The token of a grant.
fn granted(result: &Result<Done, CallError>) -> Option<FencingToken> {
    match result {
        Ok(Done::Granted { token, .. }) => Some(*token),
        Ok(
            Done::Cancelled
            | Done::Released { .. }
            | Done::Appended { .. }
            | Done::Sectioned { .. }
            | Done::Broken
            | Done::FileCreated
            | Done::SessionClosed,
        )
        | Err(_) => None,
    }
}

/// What a rejection means for the request that it answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// Nothing: the session that it belongs to is over.
    SessionOver,
    /// It was not decided; sent again, it may be.
    NotNow,
    /// It was decided, but nobody knows any more how.
    Evicted,
    /// A session cannot be opened.
    NoSession,
    /// It was decided, and changed nothing.
    Decided,
}

impl Verdict {
    fn of(rejection: &Rejection) -> Self {
        match rejection {
            Rejection::SessionUnknown => Self::SessionOver,
            Rejection::OutOfOrder { .. } | Rejection::WindowFull => Self::NotNow,
            Rejection::ResultEvicted => Self::Evicted,
            Rejection::TooManySessions | Rejection::LeaseOutOfRange { .. } => Self::NoSession,
            Rejection::NotObtained
            | Rejection::TimedOut
            | Rejection::Cancelled
            | Rejection::AlreadyWaiting
            | Rejection::AlreadyHeld { .. }
            | Rejection::NotWaiting
            | Rejection::NotHolder { .. }
            | Rejection::WrongGuard { .. }
            | Rejection::AppendTooLarge { .. }
            | Rejection::TooManyAppends { .. }
            | Rejection::FileFull
            | Rejection::TooManyLocks
            | Rejection::TooManyWaiters
            | Rejection::TooManyPlaces
            | Rejection::TooManyFiles
            | Rejection::TooManyPendingBytes => Self::Decided,
        }
    }
}
