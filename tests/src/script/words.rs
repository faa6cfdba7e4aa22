//! What a trace says: one line for each thing that happened.
//!
//! `1 -> 2` is what arrived, `1 ~> 2` what is on its way, `1 -x 2` what was lost. A message that
//! arrives within the same command is shown once, when it arrives.

mod clients;
mod events;
mod messages;

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use quorlock_core::ids::{ConnectionId, LogIndex, SessionId};
use quorlock_core::node::Event;

pub(super) use clients::{answer, label};
pub(super) use messages::{entry, envelope, hard_state};

use crate::lab::{ClientNews, LossReason, TraceEvent};

/// What a line of the trace is about, so that a script can leave out what it does not tell of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Topic {
    /// Messages between nodes.
    Messages,
    /// Batches, and that they are durable.
    Writes,
    /// How far each node has applied its log.
    Applied,
    /// Effects, and fetching of files.
    Files,
    /// What clients ask.
    Requests,
    /// What they are told.
    Replies,
    /// Roles and leaders, crashes and restarts.
    Roles,
    /// What the lock table does.
    Locks,
    /// Snapshots taken and installed.
    Snapshots,
    /// Who is woken, and for what.
    Timers,
    /// What clients of the core do beside sending and receiving.
    Clients,
}

impl Topic {
    pub(super) const ALL: [Self; 11] = [
        Self::Messages,
        Self::Writes,
        Self::Applied,
        Self::Files,
        Self::Requests,
        Self::Replies,
        Self::Roles,
        Self::Locks,
        Self::Snapshots,
        Self::Timers,
        Self::Clients,
    ];

    fn of(event: &TraceEvent) -> Self {
        match event {
            TraceEvent::Sent(_) | TraceEvent::Delivered(_) | TraceEvent::Lost { .. } => {
                Self::Messages
            }
            TraceEvent::Writes { .. } | TraceEvent::Durable { .. } => Self::Writes,
            TraceEvent::Applied { .. } => Self::Applied,
            TraceEvent::Effect { .. }
            | TraceEvent::EffectsDurable { .. }
            | TraceEvent::FetchBegun { .. }
            | TraceEvent::Fetched { .. } => Self::Files,
            TraceEvent::Request { .. } | TraceEvent::Disconnected { .. } => Self::Requests,
            TraceEvent::Reply { .. } => Self::Replies,
            TraceEvent::Crashed { .. } | TraceEvent::Restarted { .. } => Self::Roles,
            TraceEvent::Woken { .. } => Self::Timers,
            TraceEvent::Event { event, .. } => Self::of_event(event),
            TraceEvent::Client { news, .. } => Self::of_news(news),
        }
    }

    fn of_event(event: &Event) -> Self {
        match event {
            Event::Role { .. } | Event::TransferRefused(_) | Event::TransferExpired { .. } => {
                Self::Roles
            }
            Event::Lock { .. } => Self::Locks,
            Event::SnapshotTaken { .. } | Event::SnapshotInstalled { .. } => Self::Snapshots,
        }
    }

    fn of_news(news: &ClientNews) -> Self {
        match news {
            ClientNews::Sent(..) => Self::Requests,
            ClientNews::Received(..) => Self::Replies,
            ClientNews::Woken(_) => Self::Timers,
            ClientNews::Connects(_)
            | ClientNews::Connected(_)
            | ClientNews::Disconnected(_)
            | ClientNews::GaveUp(_)
            | ClientNews::MailLost
            | ClientNews::Called(..)
            | ClientNews::Finished(..)
            | ClientNews::State(_)
            | ClientNews::Lost(_) => Self::Clients,
        }
    }
}

impl FromStr for Topic {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let topic = Self::ALL.into_iter().find(|topic| format!("{topic:?}").to_lowercase() == word);
        topic.ok_or_else(|| format!("{word} is no topic of the trace"))
    }
}

/// What sessions and connections are called in a script, and what of the trace it shows.
#[derive(Clone, Debug)]
pub(super) struct Words {
    pub(super) sessions: BTreeMap<SessionId, String>,
    pub(super) connections: BTreeMap<ConnectionId, String>,
    /// Connections of clients of the core, to which replies are carried.
    pub(super) carried: BTreeSet<ConnectionId>,
    pub(super) topics: BTreeSet<Topic>,
    /// The lock table of every node does the same at an index; it is told once.
    told: BTreeSet<LogIndex>,
}

impl Default for Words {
    fn default() -> Self {
        Self {
            sessions: BTreeMap::new(),
            connections: BTreeMap::new(),
            carried: BTreeSet::new(),
            topics: BTreeSet::from(Topic::ALL),
            told: BTreeSet::new(),
        }
    }
}

impl Words {
    /// One line for each event that the script shows.
    pub(super) fn trace(&mut self, events: &[TraceEvent]) -> String {
        let mut lines = String::new();
        let mut telling: BTreeMap<LogIndex, u64> = BTreeMap::new();
        for (position, event) in events.iter().enumerate() {
            if let TraceEvent::Event { node, event: Event::Lock { index, .. } } = event {
                let first = *telling.entry(*index).or_insert(node.value());
                if first != node.value() || self.told.contains(index) {
                    continue;
                }
            }
            let shown = self.topics.contains(&Topic::of(event));
            if shown && !arrives_later(event, &events[position + 1..]) {
                lines.push_str(&self.line(event));
                lines.push('\n');
            }
        }
        self.told.extend(telling.into_keys());
        lines
    }

    fn line(&self, event: &TraceEvent) -> String {
        match event {
            TraceEvent::Sent(envelope) => messages::envelope("~>", envelope),
            TraceEvent::Delivered(envelope) => messages::envelope("->", envelope),
            TraceEvent::Lost { envelope, reason } => {
                let why = match reason {
                    LossReason::Cut => "the way is cut",
                    LossReason::Down => "the node is down",
                    LossReason::Test => "lost",
                };
                format!("{} ({why})", messages::envelope("-x", envelope))
            }
            TraceEvent::Writes { node, batch } => format!("{node} writes {}", self.batch(batch)),
            TraceEvent::Durable { node, up_to } => format!("{node} has #{up_to} on disk"),
            TraceEvent::Applied { node, up_to } => format!("{node} has applied {up_to}"),
            TraceEvent::Effect { node, effect } => {
                let (file, offset) = (&effect.file, effect.offset);
                let bytes = events::bytes(&effect.bytes);
                format!("{node} file {file} at {offset}: {bytes} (by {})", effect.index)
            }
            TraceEvent::EffectsDurable { node, up_to } => {
                format!("{node} has its files on disk up to {up_to}")
            }
            TraceEvent::FetchBegun { node, missing } => events::fetch(*node, missing),
            TraceEvent::Fetched { node, snapshot, complete } => {
                let how = if *complete { "has what it lacked" } else { "could not fetch" };
                format!("{node} {how} for snapshot {snapshot}")
            }
            TraceEvent::Request { node, conn, request } => {
                format!("{} -> {node} {}", self.connection(*conn), self.request(request))
            }
            TraceEvent::Reply { node, conn, reply } => {
                let arrow = if self.carried.contains(conn) { "~>" } else { "->" };
                format!("{node} {arrow} {} {}", self.connection(*conn), self.reply(reply))
            }
            TraceEvent::Disconnected { node, conn } => {
                format!("{} hangs up on {node}", self.connection(*conn))
            }
            TraceEvent::Event { node, event } => self.event(*node, event),
            TraceEvent::Woken { node, at, timer } => events::woken(*node, *at, *timer),
            TraceEvent::Crashed { node } => format!("{node} crashes"),
            TraceEvent::Restarted { node } => format!("{node} starts"),
            TraceEvent::Client { name, news } => self.client_news(name, news),
        }
    }

    /// What a session is called.
    pub(super) fn session(&self, session: SessionId) -> String {
        self.sessions.get(&session).cloned().unwrap_or_else(|| format!("session {session}"))
    }

    /// Who is at the other end of a connection.
    fn connection(&self, conn: ConnectionId) -> String {
        self.connections.get(&conn).cloned().unwrap_or_else(|| format!("connection {conn}"))
    }
}

/// Whether something that was sent arrives, or is lost, in the rest of the trace.
fn arrives_later(event: &TraceEvent, rest: &[TraceEvent]) -> bool {
    rest.iter().any(|later| match (event, later) {
        (
            TraceEvent::Sent(sent),
            TraceEvent::Delivered(arrived) | TraceEvent::Lost { envelope: arrived, .. },
        ) => sent == arrived,
        (
            TraceEvent::Client { news: ClientNews::Sent(to, sent), .. },
            TraceEvent::Request { node, request, .. },
        ) => to == node && sent == request,
        (
            TraceEvent::Reply { node, reply, .. },
            TraceEvent::Client { news: ClientNews::Received(from, received), .. },
        ) => node == from && reply == received,
        _ => false,
    })
}
