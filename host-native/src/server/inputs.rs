//! What waits for the driver, and how much of it may.
//!
//! Each kind of input has a queue of its own, so that bulk delays no vote and no keep-alive. A queue
//! that is full makes its readers wait, and that makes the other side of the connection wait. What
//! is in a queue is limited in bytes, too: a reader needs [`Room`] before it puts something in.

use std::sync::Arc;

use bytes::Bytes;
use quorlock_core::ids::{ConnectionId, EntryId, NodeId};
use quorlock_core::message::{Message, Request};
use quorlock_core::time::Time;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::client_outbox::Outbox;
use super::disk::DiskEvent;
use crate::clock;

/// The most messages of peers that wait, and that one turn takes.
const PEER_INPUTS_MAX: usize = 1024;
/// The most keep-alives and openings that wait, and that one turn takes.
const KEEP_ALIVES_MAX: usize = 4096;
/// The most other requests that wait, and that one turn takes.
const REQUESTS_MAX: usize = 1024;
/// The most events of the disk that one turn takes.
const DISK_EVENTS_MAX: usize = 1024;
/// The most bytes that wait in each queue; a multiple of the unit.
const ROOM_UNITS: usize = (64 << 20) / ROOM_UNIT_BYTES;
const ROOM_UNIT_BYTES: usize = 1024;

/// Permits for bytes that wait.
#[derive(Clone, Debug)]
pub(super) struct Room(Arc<Semaphore>);

impl Room {
    fn new() -> Self {
        Self(Arc::new(Semaphore::new(ROOM_UNITS)))
    }

    /// Waits until there is room for so many bytes.
    pub(super) async fn take(&self, bytes: &Bytes) -> OwnedSemaphorePermit {
        let units = bytes.len().div_ceil(ROOM_UNIT_BYTES).clamp(1, ROOM_UNITS);
        let units = u32::try_from(units).expect("there are fewer units than that");
        let semaphore = Arc::clone(&self.0);
        semaphore.acquire_many_owned(units).await.expect("nobody closes the semaphore")
    }
}

/// A message from a peer.
#[derive(Debug)]
pub(super) struct PeerInput {
    pub(super) from: NodeId,
    pub(super) message: Message,
    pub(super) room: OwnedSemaphorePermit,
}

/// A request of a client.
#[derive(Debug)]
pub(super) struct ClientInput {
    pub(super) outbox: Arc<Outbox>,
    pub(super) request: Request,
    pub(super) room: OwnedSemaphorePermit,
}

/// What else a driver is told.
#[derive(Debug)]
pub(super) enum Control {
    /// A client's connection is gone.
    Disconnected(ConnectionId),
    /// How fetching files went.
    Fetched {
        /// For this snapshot.
        snapshot: EntryId,
        /// Whether everything is there now.
        complete: bool,
        /// Whether it seems that what was there before is wrong.
        is_damaged: bool,
    },
    /// Hand leadership over, to whomever.
    #[cfg(test)]
    Transfer,
    /// Hand leadership over, then end.
    Stop,
}

/// Where connections put what they read.
#[derive(Clone, Debug)]
pub(super) struct Inboxes {
    pub(super) peers: mpsc::Sender<PeerInput>,
    keep_alives: mpsc::Sender<ClientInput>,
    requests: mpsc::Sender<ClientInput>,
    /// Without a limit of its own: there is one input for each connection, whose number is limited, and
    /// a few others.
    pub(super) control: mpsc::UnboundedSender<Control>,
    pub(super) peer_room: Room,
    keep_alive_room: Room,
    request_room: Room,
}

impl Inboxes {
    /// Where the requests of a stream go, and the room that they need there. Keep-alives have room of
    /// their own, so that appends of other clients do not make them wait.
    pub(super) fn of_client(&self, is_keep_alive: bool) -> (&mpsc::Sender<ClientInput>, &Room) {
        if is_keep_alive {
            (&self.keep_alives, &self.keep_alive_room)
        } else {
            (&self.requests, &self.request_room)
        }
    }
}

/// Where the driver takes it from.
#[derive(Debug)]
pub(super) struct Inputs {
    peers: mpsc::Receiver<PeerInput>,
    keep_alives: mpsc::Receiver<ClientInput>,
    requests: mpsc::Receiver<ClientInput>,
    control: mpsc::UnboundedReceiver<Control>,
}

/// What one turn of the driver takes.
#[derive(Debug, Default)]
pub(super) struct Turn {
    pub(super) disk: Vec<DiskEvent>,
    pub(super) control: Vec<Control>,
    pub(super) peers: Vec<PeerInput>,
    pub(super) keep_alives: Vec<ClientInput>,
    pub(super) requests: Vec<ClientInput>,
}

pub(super) fn channels() -> (Inboxes, Inputs) {
    let (peers, peers_out) = mpsc::channel(PEER_INPUTS_MAX);
    let (keep_alives, keep_alives_out) = mpsc::channel(KEEP_ALIVES_MAX);
    let (requests, requests_out) = mpsc::channel(REQUESTS_MAX);
    let (control, control_out) = mpsc::unbounded_channel();
    let inboxes = Inboxes {
        peers,
        keep_alives,
        requests,
        control,
        peer_room: Room::new(),
        keep_alive_room: Room::new(),
        request_room: Room::new(),
    };
    let inputs = Inputs {
        peers: peers_out,
        keep_alives: keep_alives_out,
        requests: requests_out,
        control: control_out,
    };
    (inboxes, inputs)
}

impl Inputs {
    /// Waits until there is something, or the deadline has come, and takes all that is there by then.
    pub(super) async fn gather(
        &mut self,
        disk: &mut mpsc::UnboundedReceiver<DiskEvent>,
        deadline: Time,
    ) -> Turn {
        let mut turn = Turn::default();
        // `inputs` and `disk` always have a sender, so that `None` is nothing to look for.
        tokio::select! {
            Some(event) = disk.recv() => turn.disk.push(event),
            Some(input) = self.control.recv() => turn.control.push(input),
            Some(input) = self.peers.recv() => turn.peers.push(input),
            Some(input) = self.keep_alives.recv() => turn.keep_alives.push(input),
            Some(input) = self.requests.recv() => turn.requests.push(input),
            () = clock::sleep_until(deadline) => {}
        }
        while turn.disk.len() < DISK_EVENTS_MAX
            && let Ok(event) = disk.try_recv()
        {
            turn.disk.push(event);
        }
        while let Ok(input) = self.control.try_recv() {
            turn.control.push(input);
        }
        take(&mut self.peers, &mut turn.peers, PEER_INPUTS_MAX);
        take(&mut self.keep_alives, &mut turn.keep_alives, KEEP_ALIVES_MAX);
        take(&mut self.requests, &mut turn.requests, REQUESTS_MAX);
        turn
    }
}

fn take<T>(queue: &mut mpsc::Receiver<T>, taken: &mut Vec<T>, max: usize) {
    while taken.len() < max
        && let Ok(input) = queue.try_recv()
    {
        taken.push(input);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_that_wait_have_a_limit() {
        let room = Room::new();
        let quarter = Bytes::from(vec![0; ROOM_UNITS * ROOM_UNIT_BYTES / 4]);
        let mut taken = Vec::new();
        for _ in 0..4 {
            taken.push(room.take(&quarter).await);
        }
        assert_eq!(room.0.available_permits(), 0);
        assert!(at_once(room.take(&quarter)).is_none(), "it has to wait");
        taken.clear();
        drop(room.take(&Bytes::from(vec![0; 2 * ROOM_UNITS * ROOM_UNIT_BYTES])).await);
    }

    #[tokio::test]
    async fn appends_leave_room_for_keep_alives() {
        let (inboxes, _inputs) = channels();
        let bytes = Bytes::from(vec![0; ROOM_UNITS * ROOM_UNIT_BYTES]);
        let (_, requests) = inboxes.of_client(false);
        let _all = requests.take(&bytes).await;
        let (_, keep_alives) = inboxes.of_client(true);
        assert!(at_once(keep_alives.take(&bytes)).is_some());
    }

    /// What a future comes to without waiting.
    fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
        let mut future = std::pin::pin!(future);
        let waker = std::task::Waker::noop();
        match future.as_mut().poll(&mut std::task::Context::from_waker(waker)) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        }
    }
}
