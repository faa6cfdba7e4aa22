//! Requests of clients: into the log, or to the reads, or back with a reason.

use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use super::Node;
use super::boundary::{FileRead, Output};
use super::reads::PendingRead;
use crate::codec;
use crate::config::READ_BYTES_MAX;
use crate::config::REQUEST_BYTES_MAX;
use crate::ids::{ConnectionId, EntryId, RequestId};
use crate::lock::Command;
use crate::message::{
    Answer, Consistency, KeepAlive, Payload, Query, Reply, Request, RequestKey, Unavailable,
};
use crate::raft::Role;
use crate::time::Time;

impl Node {
    pub(super) fn handle_request(&mut self, conn: ConnectionId, request: Request) {
        let key = request.key();
        match request {
            Request::OpenSession { nonce, label, lease } => {
                self.propose(&Command::OpenSession { nonce, label, lease }, vec![(key, conn)]);
            }
            Request::Submit(submission) => {
                self.propose(&Command::Submit(submission), vec![(key, conn)]);
            }
            Request::KeepAlive { id, keep_alive } => self.collect(conn, id, keep_alive),
            Request::Read { id, query, consistency } => {
                let read = PendingRead { conn, id, query };
                match consistency {
                    Consistency::Stale => self.answer_read(read),
                    Consistency::Linearizable => self.confirm_read(read),
                }
            }
        }
    }

    /// Puts a command into the log, and remembers who asked for it; or says why not.
    fn propose(&mut self, command: &Command, requests: Vec<(RequestKey, ConnectionId)>) {
        let bytes = Bytes::from(codec::encode(command));
        let proposed = if bytes.len() > REQUEST_BYTES_MAX {
            Err(Unavailable::TooLarge)
        } else {
            self.raft.propose(self.now, Payload::Command(bytes))
        };
        self.expect(proposed, requests);
    }

    /// Remembers who asked for an entry; or tells them why there is none.
    fn expect(
        &mut self,
        proposed: Result<EntryId, Unavailable>,
        requests: Vec<(RequestKey, ConnectionId)>,
    ) {
        match proposed {
            Ok(entry) => self.routing.expect(entry, requests),
            Err(reason) => self.refuse(requests, reason),
        }
    }

    /// Says to everyone in a list that this node cannot serve the request.
    fn refuse(
        &mut self,
        requests: impl IntoIterator<Item = (RequestKey, ConnectionId)>,
        reason: Unavailable,
    ) {
        for (request, conn) in requests {
            self.reply(conn, Reply::Unavailable { request, reason });
        }
    }

    /// This node stopped leading: whoever waits for it must go elsewhere.
    pub(super) fn refuse_all(&mut self) {
        let reason = Unavailable::LeadershipLost { leader: self.raft.leader() };
        let pending = self.routing.take_all();
        self.refuse(pending, reason);
        let (_, keep_alives) = self.keep_alives.take();
        self.refuse(keep_alives, reason);
        let reads = self.reads.take_unconfirmed();
        self.refuse(reads.map(|read| (RequestKey::Read(read.id), read.conn)), reason);
    }

    pub(super) fn reply(&mut self, conn: ConnectionId, reply: Reply) {
        self.outputs.push_back(Output::Reply { conn, reply });
    }

    /// Keeps a keep-alive for the entry that it will share with others.
    fn collect(&mut self, conn: ConnectionId, id: RequestId, keep_alive: KeepAlive) {
        if self.raft.role() != Role::Leader {
            let key = RequestKey::KeepAlive(keep_alive.session, id);
            let reason = Unavailable::NotLeader { leader: self.raft.leader() };
            self.refuse([(key, conn)], reason);
            return;
        }
        let deadline = self.now.after(self.config.keep_alive_interval);
        self.keep_alives.add(conn, id, keep_alive, deadline);
        if self.keep_alives.is_full() {
            self.propose_keep_alives();
        }
    }

    /// One entry renews the leases of all sessions that asked for it lately.
    pub(super) fn propose_keep_alives(&mut self) {
        let (keep_alives, requests) = self.keep_alives.take();
        let bytes = Bytes::from(codec::encode(&Command::KeepAlive(keep_alives)));
        let proposed = self.raft.propose_lease(self.now, Payload::Command(bytes));
        self.expect(proposed, requests);
    }

    /// When lease time must be carried into the log by an entry of its own: when something in the
    /// lock table is due, and before that every now and then, so that a leader that is deposed
    /// loses little of the time that it measured.
    ///
    /// `None` when this node does not lead, when nothing will ever be due, or when an entry on its
    /// way carries the time.
    pub(super) fn lease_deadline(&self) -> Option<Time> {
        let lease_now = self.raft.lease_now(self.now)?;
        let due = self.locks.next_due()?;
        let last = self.raft.last_stamp();
        let under_way = self.raft.log_last().index > self.applied;
        if under_way && last >= due {
            return None;
        }
        let next = due.min(last.after(self.locks.limits().session_lease_min / 2));
        Some(self.now.after(next.since(lease_now)).max(self.lease_retry))
    }

    /// Carries lease time into the log by an entry that does nothing else.
    pub(super) fn propose_lease_time(&mut self) {
        if self.raft.propose_lease(self.now, Payload::Empty).is_err() {
            self.lease_retry = self.now.after(self.config.heartbeat_interval);
        }
    }

    /// Asks a quorum whether this node still leads, before the read is answered.
    fn confirm_read(&mut self, read: PendingRead) {
        let full = self.reads.count() >= self.config.pending_reads_max as usize;
        let round =
            if full { Err(Unavailable::Overloaded) } else { self.raft.request_read(self.now) };
        match round {
            Ok(round) => self.reads.add(round, read),
            Err(reason) => self.refuse([(RequestKey::Read(read.id), read.conn)], reason),
        }
    }

    pub(super) fn answer_ready_reads(&mut self) {
        while let Some(read) = self.reads.next_ready(self.applied) {
            self.answer_read(read);
        }
    }

    /// Answers from the present state; or, for the bytes of a file, has the host answer.
    fn answer_read(&mut self, read: PendingRead) {
        let PendingRead { conn, id, query } = read;
        let index = self.applied;
        if let Query::ReadFile { file, offset, length } = &query
            && let Some(file) = self.locks.file(file)
        {
            let rest = file.length.saturating_sub(*offset);
            let rest = u32::try_from(rest).unwrap_or(u32::MAX);
            let length = (*length).min(READ_BYTES_MAX).min(rest);
            if length > 0 {
                let read = FileRead { conn, id, index, file, offset: *offset, length };
                self.outputs.push_back(Output::ReadFile(read));
                return;
            }
        }
        let answer: Answer = self.locks.answer(&query);
        self.reply(conn, Reply::Read { id, index, answer });
    }
}
