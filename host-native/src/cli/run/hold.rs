//! A real lock, as [`super::supervise`](mod@super::supervise) sees it.

use std::sync::Arc;

use quorlock_core::time::Time;
use tokio::sync::watch;

use super::supervise::{Hold, News};
use crate::cli::holder::Held;
use crate::client::{EndCause, Ending, LossCause, SessionState};

/// A lock of a session of ours.
pub(super) struct ClientHold {
    held: Arc<Held>,
    state: watch::Receiver<SessionState>,
    /// What the command was last told of.
    in_jeopardy: bool,
    lost: bool,
    /// The end of the last lease there was.
    ends_at: std::cell::Cell<Time>,
}

impl ClientHold {
    pub(super) fn new(held: &Arc<Held>) -> Self {
        let state = held.lock.client().watch();
        let ends_at = std::cell::Cell::new(Time::ZERO);
        Self { held: Arc::clone(held), state, in_jeopardy: false, lost: false, ends_at }
    }

    /// Waits for a change that the command has not been told of.
    async fn change(state: &mut watch::Receiver<SessionState>, was_in_jeopardy: bool) -> News {
        let is_news = |state: &SessionState| match state {
            SessionState::Jeopardy => !was_in_jeopardy,
            SessionState::Safe => was_in_jeopardy,
            // That is a loss, and comes from the lock.
            SessionState::Opening | SessionState::Ended(_) => false,
        };
        let news = match state.wait_for(is_news).await {
            Ok(state) => matches!(*state, SessionState::Jeopardy),
            // The library has ended: the lock says so.
            Err(_closed) => std::future::pending().await,
        };
        if news { News::Jeopardy } else { News::Safe }
    }
}

impl Hold for ClientHold {
    fn safe_until(&self) -> Time {
        if let Some(ends_at) = self.held.lock.client().lease_ends_at() {
            self.ends_at.set(ends_at);
        }
        self.ends_at.get()
    }

    async fn news(&mut self) -> News {
        if self.lost {
            std::future::pending::<()>().await;
        }
        tokio::select! {
            biased;
            loss = self.held.lock.lost() => {
                self.lost = true;
                news_of(loss.cause)
            }
            news = Self::change(&mut self.state, self.in_jeopardy) => {
                self.in_jeopardy = news == News::Jeopardy;
                news
            }
        }
    }
}

fn news_of(cause: LossCause) -> News {
    let why = cause.to_string();
    match cause {
        LossCause::SessionEnded(
            Ending::Closed
            | Ending::Expired
            | Ending::Forgotten
            | Ending::LeaseRanOut
            | Ending::NotOpened
            | Ending::Refused(_),
        )
        | LossCause::Taken(EndCause::SessionClosed | EndCause::SessionExpired) => {
            News::Ended { why }
        }
        LossCause::Taken(EndCause::Released | EndCause::HoldTimedOut | EndCause::Broken { .. })
        | LossCause::Released => News::Taken { why },
    }
}
