//! The clients that are connected, and how many there may be.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quinn::Connection;
use quorlock_core::ids::ConnectionId;

use super::client_outbox::{Outbox, Outgoing};
use super::close::Close;
use crate::tls::Role;

/// The most reads of files of all clients whose answers are not on their way.
const READS_MAX: u32 = 128;

/// The clients that are connected.
#[derive(Debug)]
pub(super) struct Clients {
    open: Mutex<Open>,
    /// Numbers are never used again.
    next: AtomicU64,
    connections_max: usize,
    connections_per_client_max: usize,
    reads: AtomicU32,
}

#[derive(Debug, Default)]
struct Open {
    outboxes: BTreeMap<ConnectionId, (Arc<Outbox>, String)>,
    /// How many there are with each certificate's name.
    by_name: BTreeMap<String, usize>,
}

impl Clients {
    pub(super) fn new(connections_max: u32, connections_per_client_max: u32) -> Self {
        let limit = |max: u32| usize::try_from(max).unwrap_or(usize::MAX);
        Self {
            open: Mutex::default(),
            next: AtomicU64::new(1),
            connections_max: limit(connections_max),
            connections_per_client_max: limit(connections_per_client_max),
            reads: AtomicU32::new(0),
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a connection a number and queues, if there is room for it.
    pub(super) fn admit(
        &self,
        role: &Role,
        connection: &Connection,
    ) -> Option<(Arc<Outbox>, Outgoing)> {
        let mut open = self.open();
        let name = role.to_string();
        let same = open.by_name.get(&name).copied().unwrap_or_default();
        if open.outboxes.len() >= self.connections_max || same >= self.connections_per_client_max {
            return None;
        }
        let id = ConnectionId::new(self.next.fetch_add(1, Ordering::Relaxed));
        let (outbox, outgoing) = Outbox::new(id, connection.clone());
        let outbox = Arc::new(outbox);
        open.by_name.insert(name.clone(), same + 1);
        open.outboxes.insert(id, (Arc::clone(&outbox), name));
        Some((outbox, outgoing))
    }

    pub(super) fn remove(&self, id: ConnectionId) {
        let mut open = self.open();
        let Some((_, name)) = open.outboxes.remove(&id) else { return };
        if let Some(same) = open.by_name.get_mut(&name) {
            *same -= 1;
            if *same == 0 {
                open.by_name.remove(&name);
            }
        }
    }

    pub(super) fn count(&self) -> usize {
        self.open().outboxes.len()
    }

    /// Whether every reply was handed to its stream.
    pub(super) fn are_told(&self) -> bool {
        self.open().outboxes.values().all(|(outbox, _)| outbox.is_closed() || outbox.is_empty())
    }

    pub(super) fn close_all(&self, why: Close) {
        for (outbox, _) in self.open().outboxes.values() {
            outbox.close(why);
        }
    }

    /// Takes a place among the reads that are not answered, of this client and of all; `false` if there
    /// is none.
    pub(super) fn begin_read(&self, outbox: &Outbox) -> bool {
        let place = |reads: u32| (reads < READS_MAX).then_some(reads + 1);
        let order = Ordering::Relaxed;
        if self.reads.fetch_update(order, order, place).is_err() {
            return false;
        }
        let has_place = outbox.begin_read();
        if !has_place {
            self.reads.fetch_sub(1, order);
        }
        has_place
    }

    pub(super) fn end_read(&self, outbox: &Outbox) {
        outbox.end_read();
        self.reads.fetch_sub(1, Ordering::Relaxed);
    }
}
