//! Messages between nodes, entries and batches, in a few words each.

use quorlock_core::codec;
use quorlock_core::lock::Command;
use quorlock_core::message::{
    AppendEntries, AppendResult, Entry, Envelope, HardState, InstallSnapshot, Message, Payload,
    SnapshotResult, VoteReply, VoteRequest, WriteBatch,
};

use super::Words;

impl Words {
    /// What is written, in the order in which it takes effect.
    pub(super) fn batch(&self, batch: &WriteBatch) -> String {
        let mut parts = Vec::new();
        parts.extend(batch.hard_state.map(hard_state));
        parts.extend(batch.truncate_from.map(|from| format!("remove from {from} on")));
        parts.extend(batch.entries.iter().map(|one| entry(self, one)));
        parts.extend(batch.snapshot.as_ref().map(|of| format!("snapshot {}", of.last)));
        parts.extend(batch.compact_through.map(|through| format!("remove up to {through}")));
        format!("#{}: {}", batch.id, parts.join("; "))
    }
}

pub(in super::super) fn envelope(arrow: &str, envelope: &Envelope) -> String {
    let Envelope { from, to, message } = envelope;
    format!("{from} {arrow} {to} {}", message_words(message))
}

/// `term 2, vote 1`.
pub(in super::super) fn hard_state(hard_state: HardState) -> String {
    match hard_state.vote {
        Some(vote) => format!("term {}, vote for {vote}", hard_state.term),
        None => format!("term {}, no vote", hard_state.term),
    }
}

/// An entry with what it carries: `4@1 alice#1 acquire db`.
pub(in super::super) fn entry(words: &Words, entry: &Entry) -> String {
    let payload = match &entry.payload {
        Payload::Empty => "empty".to_owned(),
        Payload::Membership(membership) => {
            let nodes: Vec<String> = membership.nodes().map(|node| node.to_string()).collect();
            format!("members {}", nodes.join(" "))
        }
        Payload::Command(bytes) => match codec::decode::<Command>(bytes) {
            Ok(command) => words.command(&command),
            Err(error) => format!("unreadable command ({error})"),
        },
    };
    format!("{} {payload}", entry.id)
}

fn message_words(message: &Message) -> String {
    match message {
        Message::PreVote(request) => format!("PreVote {}", vote_request(request)),
        Message::PreVoteReply(reply) => format!("PreVoteReply {}", vote_reply(reply)),
        Message::RequestVote(request) => format!("RequestVote {}", vote_request(request)),
        Message::RequestVoteReply(reply) => format!("RequestVoteReply {}", vote_reply(reply)),
        Message::AppendEntries(append) => append_entries(append),
        Message::AppendEntriesReply(reply) => {
            let result = append_result(&reply.result);
            format!("AppendEntriesReply term {}, round {}: {result}", reply.term, reply.round)
        }
        Message::InstallSnapshot(install) => install_snapshot(install),
        Message::InstallSnapshotReply(reply) => {
            let result = snapshot_result(&reply.result);
            format!("InstallSnapshotReply term {}, snapshot {}: {result}", reply.term, reply.last)
        }
        Message::TimeoutNow { term } => format!("TimeoutNow term {term}"),
    }
}

fn vote_request(request: &VoteRequest) -> String {
    let transfer = if request.transfer { ", transfer" } else { "" };
    format!("term {}, log ends at {}{transfer}", request.term, request.last)
}

fn vote_reply(reply: &VoteReply) -> String {
    let decision = if reply.granted { "granted" } else { "refused" };
    format!("term {}: {decision} for term {}", reply.term, reply.campaign)
}

fn append_entries(append: &AppendEntries) -> String {
    let AppendEntries { term, previous, entries, commit, round } = append;
    let what = match &entries[..] {
        [] => "nothing".to_owned(),
        [one] => one.id.to_string(),
        [first, .., last] => format!("{} to {}", first.id, last.id),
    };
    format!("AppendEntries term {term}, after {previous}: {what}; commit {commit}, round {round}")
}

fn append_result(result: &AppendResult) -> String {
    match result {
        AppendResult::Matched(index) => format!("matched {index}"),
        AppendResult::Conflict { previous, hint } => {
            format!("conflict at {previous}, hint {hint}")
        }
        AppendResult::StaleTerm => "stale term".to_owned(),
    }
}

fn install_snapshot(install: &InstallSnapshot) -> String {
    let InstallSnapshot { term, meta, offset, piece } = install;
    let end = offset + piece.len() as u64;
    let of = meta.data_length;
    format!("InstallSnapshot term {term}, snapshot {}: bytes {offset} to {end} of {of}", meta.last)
}

fn snapshot_result(result: &SnapshotResult) -> String {
    match result {
        SnapshotResult::Received { length } => format!("received {length} bytes"),
        SnapshotResult::Installed => "installed".to_owned(),
        SnapshotResult::Failed => "failed".to_owned(),
        SnapshotResult::StaleTerm => "stale term".to_owned(),
    }
}
