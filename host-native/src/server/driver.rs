//! The driver: one task that owns the node.
//!
//! A turn: wait for anything, take all that is there, tell the node, do what it wants, sleep. All that
//! came together goes into one batch of the log, so that groups form by themselves under load. The
//! node is behind no lock, and nothing in a turn waits: whatever takes time is handed to the thread of
//! the log, to the thread of the files, or to the queue of a connection.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorlock_core::ids::{ConnectionId, EntryId, NodeId};
use quorlock_core::message::{Answer, Envelope, Reply, Request, RequestKey, Unavailable};
use quorlock_core::node::{Event, FileRead, Input, MissingBytes, Node, Output};
use quorlock_core::raft::Role;
use quorlock_core::time::Time;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::Instrument;

use super::client_outbox::{Outbox, ReadPlace};
use super::disk::{Disk, DiskEvent};
use super::error::ServerError;
use super::fetch;
use super::inputs::{ClientInput, Control, Inputs, Turn};
use super::shared::Shared;
use crate::clock;

/// How long what the node says of itself may be old.
const STATUS_INTERVAL: Duration = Duration::from_millis(5);

/// Why a driver ends.
#[derive(Debug)]
pub(super) enum End {
    /// It was asked to, and leads no more, or nobody else can.
    Stopped,
    /// A guarded file is not what it was: the node has to start again, which repairs it.
    Damaged,
    /// For good.
    Failed(ServerError),
}

/// The task that owns the node.
pub(super) struct Driver {
    node: Node,
    shared: Arc<Shared>,
    disk: Disk,
    /// The clients that asked for something.
    outboxes: BTreeMap<ConnectionId, Arc<Outbox>>,
    fetching: Option<AbortHandle>,
    status_at: Time,
    is_status_due: bool,
    /// While leadership is handed over: until when.
    leaving: Option<Time>,
    /// How long handing over may take.
    leaving_max: Duration,
    end: Option<End>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(fetching) = self.fetching.take() {
            fetching.abort();
        }
    }
}

impl Driver {
    pub(super) fn new(node: Node, shared: Arc<Shared>, disk: Disk, leaving_max: Duration) -> Self {
        Self {
            node,
            shared,
            disk,
            outboxes: BTreeMap::new(),
            fetching: None,
            status_at: Time::ZERO,
            is_status_due: true,
            leaving: None,
            leaving_max,
            end: None,
        }
    }

    /// Runs until there is a reason to end. Gives back the disk.
    pub(super) async fn run(
        mut self,
        inputs: &mut Inputs,
        disk_events: &mut mpsc::UnboundedReceiver<DiskEvent>,
    ) -> End {
        loop {
            let turn = inputs.gather(disk_events, self.deadline()).await;
            let now = clock::now();
            self.take(now, turn);
            if self.end.is_none() {
                self.perform_all();
                self.publish(now);
                self.leave(now);
            }
            let took = clock::now().since(now);
            self.shared.metrics.turn.record(took.as_secs_f64());
            if let Some(end) = self.end.take() {
                return end;
            }
        }
    }

    fn deadline(&self) -> Time {
        let node = self.node.poll_timeout().map(|(time, _)| time);
        let status = self.is_status_due.then(|| self.status_at.after(STATUS_INTERVAL));
        [node, status, self.leaving].into_iter().flatten().min().unwrap_or(Time::MAX)
    }

    /// Tells the node everything that came.
    fn take(&mut self, now: Time, turn: Turn) {
        for event in turn.disk {
            self.take_disk_event(now, event);
        }
        for control in turn.control {
            self.take_control(now, control);
        }
        for input in turn.peers {
            let envelope =
                Envelope { from: input.from, to: self.shared.id, message: input.message };
            self.node.handle_input(now, Input::Message(envelope));
            drop(input.room);
        }
        for input in turn.keep_alives {
            self.take_request(now, input);
        }
        for input in turn.requests {
            self.take_request(now, input);
        }
        if self.node.poll_timeout().is_some_and(|(time, _)| time <= now) {
            self.node.handle_input(now, Input::Timeout);
        }
    }

    fn take_disk_event(&mut self, now: Time, event: DiskEvent) {
        self.shared.space.note(&event);
        match event {
            DiskEvent::Persisted { up_to, batches, took } => {
                self.shared.metrics.log_written(batches, took);
                self.node.handle_input(now, Input::Persisted { up_to });
            }
            DiskEvent::EffectsDurable { up_to, took } => {
                self.shared.metrics.files_sync.record(took.as_secs_f64());
                self.node.handle_input(now, Input::EffectsDurable { up_to });
            }
            // The node hears nothing of it: a write that is not acknowledged ends a leadership by time.
            DiskEvent::LogFull { .. }
            | DiskEvent::LogSpaceAgain
            | DiskEvent::FilesFull { .. }
            | DiskEvent::FilesSpaceAgain => {}
            DiskEvent::LogFailed { reason } => {
                tracing::error!(reason, "the log cannot be written: this node stops");
                self.end = Some(End::Failed(ServerError::Log(reason)));
            }
            DiskEvent::Damaged { file, reason } => {
                tracing::error!(
                    ?file,
                    reason,
                    "a guarded file is not what it was: it will be repaired"
                );
                self.end.get_or_insert(End::Damaged);
            }
            DiskEvent::FilesFailed { reason } => {
                tracing::error!(reason, "guarded files cannot be written: this node stops");
                self.end = Some(End::Failed(ServerError::Files(reason)));
            }
        }
    }

    fn take_control(&mut self, now: Time, control: Control) {
        match control {
            Control::Disconnected(conn) => {
                self.outboxes.remove(&conn);
                self.node.handle_input(now, Input::Disconnected { conn });
            }
            Control::Fetched { snapshot, complete, is_damaged } => {
                if is_damaged {
                    // Several nodes sent what does not fit: it is our own part that is wrong.
                    tracing::error!("what this node has of a file is wrong: it will be repaired");
                    self.end.get_or_insert(End::Damaged);
                }
                self.node.handle_input(now, Input::FilesFetched { snapshot, complete });
            }
            #[cfg(test)]
            Control::Transfer => {
                self.node.handle_input(now, Input::TransferLeadership { to: None });
            }
            Control::Stop => {
                tracing::info!("stopping");
                self.leaving = Some(now.after(self.leaving_max));
                if self.node.status().role == Role::Leader {
                    self.node.handle_input(now, Input::TransferLeadership { to: None });
                } else {
                    self.leaving = Some(now);
                }
            }
        }
    }

    fn take_request(&mut self, now: Time, input: ClientInput) {
        let ClientInput { outbox, request, room } = input;
        // What it asked for last is of no interest to a client that is gone.
        if outbox.is_closed() {
            return;
        }
        match &request {
            Request::OpenSession { .. } | Request::KeepAlive { .. } | Request::Submit(_) => {
                self.shared.metrics.proposals.increment(1);
            }
            Request::Read { .. } => {}
        }
        let conn = outbox.id();
        self.outboxes.entry(conn).or_insert(outbox);
        self.node.handle_input(now, Input::Request { conn, request });
        drop(room);
    }

    /// Does everything that the node wants.
    fn perform_all(&mut self) {
        let mut has_effects = false;
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Persist(batch) => self.disk.persist(batch),
                Output::Send(envelope) => self.send(envelope),
                Output::Effect(effect) => {
                    has_effects = true;
                    self.disk.effect(effect);
                }
                Output::Reply { conn, reply } => {
                    self.shared.metrics.reply(&reply);
                    if let Some(outbox) = self.outboxes.get(&conn) {
                        outbox.send(&reply);
                    }
                }
                Output::ReadFile(read) => self.read_file(read),
                Output::FetchFiles { snapshot, from, files } => self.fetch(snapshot, from, files),
                Output::Event(event) => self.note(&event),
            }
        }
        if has_effects {
            // All effects of what was applied so far are handed over.
            self.disk.applied(self.node.status().applied);
        }
        self.is_status_due = true;
    }

    fn send(&self, envelope: Envelope) {
        if let Some(link) = self.shared.links.get(&envelope.to) {
            link.send(envelope.message);
        }
    }

    fn read_file(&self, read: FileRead) {
        let Some(outbox) = self.outboxes.get(&read.conn) else { return };
        let refusal = Reply::Unavailable {
            request: RequestKey::Read(read.id),
            reason: Unavailable::Overloaded,
        };
        if !self.shared.clients.begin_read(outbox) {
            outbox.send(&refusal);
            return;
        }
        let place = ReadPlace { shared: Arc::clone(&self.shared), outbox: Arc::clone(outbox) };
        let outbox = Arc::clone(outbox);
        let (id, index, file) = (read.id, read.index, read.file.clone());
        self.disk.read(
            read,
            Box::new(move |bytes| {
                let answer = bytes.map(|bytes| Answer::Bytes { file: Some(file), bytes });
                let reply = answer.map(|answer| Reply::Read { id, index, answer });
                // What went wrong, the thread of the files tells the driver.
                outbox.answer_read(&reply.unwrap_or(refusal), place);
            }),
        );
    }

    fn fetch(&mut self, snapshot: EntryId, from: NodeId, missing: Vec<MissingBytes>) {
        if let Some(earlier) = self.fetching.take() {
            earlier.abort();
        }
        tracing::info!(%snapshot, peer = %from, files = missing.len(), "fetching files");
        let shared = Arc::clone(&self.shared);
        let files = self.disk.files();
        let task = async move {
            let fetched = fetch::fetch(&shared, &files, Some(from), missing).await;
            let (complete, is_damaged) = (fetched.left.is_empty(), fetched.is_damaged);
            let fetched = Control::Fetched { snapshot, complete, is_damaged };
            // It fails only when the server is gone.
            drop(shared.inboxes.control.send(fetched));
        };
        self.fetching = Some(tokio::spawn(task.in_current_span()).abort_handle());
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::Role { role, term, leader } => {
                tracing::info!(?role, %term, ?leader, "role");
                if *role != Role::Leader && leader.is_some() {
                    self.left();
                }
            }
            Event::TransferRefused(reason) => {
                tracing::info!(%reason, "leadership is not handed over");
                self.left();
            }
            Event::TransferExpired { to } => {
                tracing::warn!(peer = %to, "leadership was not taken over in time");
                self.left();
            }
            Event::Lock { index, event } => {
                tracing::trace!(%index, ?event, "lock table");
                self.shared.metrics.lock_event(event);
            }
            Event::SnapshotTaken { last } => tracing::debug!(%last, "snapshot taken"),
            Event::SnapshotInstalled { last } => tracing::info!(%last, "snapshot installed"),
        }
    }

    /// Nothing more is to be waited for before the end, if that was asked for.
    fn left(&mut self) {
        if self.leaving.is_some() {
            self.leaving = Some(Time::ZERO);
        }
    }

    fn leave(&mut self, now: Time) {
        if self.leaving.is_some_and(|deadline| deadline <= now) {
            self.end.get_or_insert(End::Stopped);
        }
    }

    /// Says how the node is, every now and then.
    fn publish(&mut self, now: Time) {
        if self.is_status_due && now.since(self.status_at) >= STATUS_INTERVAL {
            let status = self.node.status();
            self.shared.metrics.observe(&status);
            self.shared.status.send_replace(status);
            self.shared.metrics.dropped(self.shared.dropped_messages());
            let connections = u32::try_from(self.shared.connections()).unwrap_or(u32::MAX);
            self.shared.metrics.connections.set(f64::from(connections));
            self.is_status_due = false;
            self.status_at = now;
        }
    }
}
