//! From a committed entry to the lock table, and from there to everyone whom it concerns.

use alloc::collections::VecDeque;

use super::Node;
use super::boundary::{Event, Output};
use crate::codec;
use crate::ids::{ConnectionId, LogIndex, SessionId};
use crate::lock::{Applied, Command, Notice};
use crate::message::{Entry, Payload, Reply, RequestKey};

impl Node {
    pub(super) fn apply_committed(&mut self) {
        while let Some(entry) = self.raft.next_to_apply() {
            self.apply(&entry);
        }
    }

    fn apply(&mut self, entry: &Entry) {
        let command = match &entry.payload {
            Payload::Empty | Payload::Membership(_) => None,
            Payload::Command(bytes) => {
                let command = codec::decode::<Command>(bytes);
                Some(command.expect("a command is read once before its entry is taken"))
            }
        };
        let mut applied = core::mem::take(&mut self.buffer);
        self.locks.apply(entry.id.index, entry.stamp, command, &mut applied);
        self.applied = entry.id.index;
        self.snapshots.count(entry, &applied.effects);
        self.tell(entry, &mut applied);
        applied.clear();
        self.buffer = applied;
    }

    /// Passes on what an entry caused.
    fn tell(&mut self, entry: &Entry, applied: &mut Applied) {
        let mut asked = self.routing.take(entry.id);
        self.attach(&asked);
        let index = entry.id.index;
        self.outputs.extend(applied.effects.drain(..).map(Output::Effect));
        let events = applied.events.drain(..);
        self.outputs.extend(events.map(|event| Output::Event(Event::Lock { index, event })));
        for notice in applied.notices.drain(..) {
            self.notify(index, notice, &mut asked);
        }
    }

    /// Tells one client what happened: on the connection that asked for it with this very entry,
    /// or else on the one where its session was heard last.
    fn notify(
        &mut self,
        index: LogIndex,
        notice: Notice,
        asked: &mut VecDeque<(RequestKey, ConnectionId)>,
    ) {
        match notice {
            Notice::Opened { nonce, result } => {
                let Some((_, conn)) = take_key(asked, |key| key == RequestKey::Open(nonce)) else {
                    return;
                };
                if let Ok(opened) = &result {
                    self.routing.attach(opened.session, conn);
                }
                self.reply(conn, Reply::Opened { nonce, result });
            }
            Notice::KeptAlive { session, result } => {
                let of_session = |key| matches!(key, RequestKey::KeepAlive(of, _) if of == session);
                while let Some((RequestKey::KeepAlive(_, id), conn)) = take_key(asked, of_session) {
                    let result = result.clone();
                    self.reply(conn, Reply::KeptAlive { id, session, index, result });
                }
            }
            Notice::Submitted { session, sequence, outcome } => {
                let key = RequestKey::Submit(session, sequence);
                let asker = take_key(asked, |asked| asked == key).map(|(_, conn)| conn);
                let reply = Reply::Submitted { session, sequence, index, outcome };
                self.reply_to_session(session, asker, reply);
            }
            Notice::Lost { session, loss } => {
                self.reply_to_session(session, None, Reply::Lost { session, loss });
            }
            Notice::SessionEnded { session, cause } => {
                self.reply_to_session(session, None, Reply::SessionEnded { session, index, cause });
                self.routing.detach(session);
            }
        }
    }

    /// Whatever happens to the sessions of these requests is told on their connections from now on.
    fn attach(&mut self, asked: &VecDeque<(RequestKey, ConnectionId)>) {
        for (key, conn) in asked {
            if let RequestKey::KeepAlive(session, _) | RequestKey::Submit(session, _) = key
                && self.locks.has_session(*session)
            {
                self.routing.attach(*session, *conn);
            }
        }
    }

    fn reply_to_session(&mut self, session: SessionId, asker: Option<ConnectionId>, reply: Reply) {
        if let Some(conn) = asker.or_else(|| self.routing.connection(session)) {
            self.reply(conn, reply);
        }
    }
}

/// Whether this node can read the command of an entry, if it has one.
pub(super) fn is_readable(entry: &Entry) -> bool {
    match &entry.payload {
        Payload::Empty | Payload::Membership(_) => true,
        Payload::Command(bytes) => codec::decode::<Command>(bytes).is_ok(),
    }
}

/// Takes the first of those who asked with a key like this. It is the first of all but for a rare
/// exception, since an entry's notices come in the order of its requests.
fn take_key(
    asked: &mut VecDeque<(RequestKey, ConnectionId)>,
    is_wanted: impl Fn(RequestKey) -> bool,
) -> Option<(RequestKey, ConnectionId)> {
    let position = asked.iter().position(|(key, _)| is_wanted(*key))?;
    asked.remove(position)
}
