//! What handles say to the driver.

use quorlock_core::client::{Action, CallResult, SessionState};
use quorlock_core::ids::{FencingToken, NodeId};
use quorlock_core::message::Wait;
use quorlock_core::text::LockName;
use quorlock_core::time::{Duration, Time};
use tokio::sync::{mpsc, oneshot, watch};

use super::errors::{AcquireError, LossCause};

/// The most commands that wait for the driver. A caller beyond that waits for its turn.
pub(super) const COMMANDS_MAX: usize = 64;

/// By what a handle names a call that it gave up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Ticket(pub(super) u64);

/// What a handle asks for.
#[derive(Debug)]
pub(super) enum Command {
    Call { ticket: Ticket, action: Action, answer: oneshot::Sender<CallResult> },
    Acquire(Acquire),
}

/// An acquire.
#[derive(Debug)]
pub(super) struct Acquire {
    pub(super) ticket: Ticket,
    pub(super) lock: LockName,
    pub(super) wait: Wait,
    pub(super) max_hold: Option<Duration>,
    pub(super) answer: oneshot::Sender<Result<Grant, AcquireError>>,
}

/// What a handle says when it goes. There is at most one for each call and each hold, so that those
/// bound the queue.
#[derive(Debug)]
pub(super) enum Farewell {
    /// Nobody waits for this call any more.
    Abandoned(Ticket),
    /// Nobody uses this hold any more.
    Released { lock: LockName, token: FencingToken },
}

/// A hold. Dropped, it is given back; also if it is dropped on its way to whoever asked for it.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) lock: LockName,
    pub(super) token: FencingToken,
    pub(super) predecessor: Option<FencingToken>,
    pub(super) loss: watch::Receiver<Option<LossCause>>,
    /// `None` when there is nothing to give back any more.
    pub(super) farewells: Option<mpsc::UnboundedSender<Farewell>>,
}

impl Drop for Grant {
    fn drop(&mut self) {
        if let Some(farewells) = self.farewells.take() {
            let farewell = Farewell::Released { lock: self.lock.clone(), token: self.token };
            // Without a driver there is no session, and so no hold.
            drop(farewells.send(farewell));
        }
    }
}

/// How things stand, for whoever looks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Posture {
    pub(super) lease_ends_at: Option<Time>,
    pub(super) node: Option<NodeId>,
}

/// The driver's end of all channels.
#[derive(Debug)]
pub(super) struct DriverEnds {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) farewells: mpsc::UnboundedReceiver<Farewell>,
    /// For grants.
    pub(super) farewell_sender: mpsc::UnboundedSender<Farewell>,
    pub(super) state: watch::Sender<SessionState>,
    pub(super) posture: watch::Sender<Posture>,
}

/// The handles' ends of the same channels.
#[derive(Clone, Debug)]
pub(super) struct HandleEnds {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) farewells: mpsc::UnboundedSender<Farewell>,
    pub(super) state: watch::Receiver<SessionState>,
    pub(super) posture: watch::Receiver<Posture>,
}

pub(super) fn channels() -> (HandleEnds, DriverEnds) {
    let (commands, commands_end) = mpsc::channel(COMMANDS_MAX);
    let (farewells, farewells_end) = mpsc::unbounded_channel();
    let (state_end, state) = watch::channel(SessionState::Opening);
    let (posture_end, posture) = watch::channel(Posture { lease_ends_at: None, node: None });
    let driver = DriverEnds {
        commands: commands_end,
        farewells: farewells_end,
        farewell_sender: farewells.clone(),
        state: state_end,
        posture: posture_end,
    };
    (HandleEnds { commands, farewells, state, posture }, driver)
}
