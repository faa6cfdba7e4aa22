//! Messages that no node wrote: `forge_append 2 1 term=3 previous=4@2 entries="5@3" commit=4`.

use std::error::Error;

use quorlock_core::ids::{EntryId, LogIndex, NodeId, ReadRound, Term};
use quorlock_core::message::{
    AppendEntries, AppendEntriesReply, AppendResult, Entry, Envelope, Message, Payload, VoteReply,
    VoteRequest,
};
use quorlock_core::time::{Duration, LeaseTime};

use super::Script;
use super::values::{Id, List, Number, Span};

/// Messages that no node wrote. Each names the two ends first.
#[derive(Debug, goldenscript::Command)]
pub(super) enum ForgeCommand {
    /// `forge_pre_vote 2 1 term=3 last=4@2`.
    #[command(name = "forge_pre_vote")]
    PreVote {
        from: u64,
        to: u64,
        #[arg(key)]
        term: Number,
        #[arg(key, optional)]
        last: Id,
        #[arg(key, optional)]
        transfer: bool,
    },
    /// `forge_vote 2 1 term=3 last=4@2`.
    #[command(name = "forge_vote")]
    Vote {
        from: u64,
        to: u64,
        #[arg(key)]
        term: Number,
        #[arg(key, optional)]
        last: Id,
        #[arg(key, optional)]
        transfer: bool,
    },
    /// `forge_vote_reply 2 1 term=3 campaign=3 granted=true`.
    #[command(name = "forge_vote_reply")]
    VoteReply {
        from: u64,
        to: u64,
        #[arg(key)]
        term: Number,
        #[arg(key)]
        campaign: Number,
        #[arg(key, optional)]
        granted: bool,
    },
    /// `forge_append 2 1 term=3 previous=4@2 entries="5@3 6@3" stamp=2s commit=4`.
    #[command(name = "forge_append")]
    Append {
        from: u64,
        to: u64,
        #[arg(key)]
        term: Number,
        #[arg(key, optional)]
        previous: Id,
        #[arg(key, optional)]
        entries: List<Id>,
        #[arg(key)]
        stamp: Option<Span>,
        #[arg(key, optional)]
        commit: Number,
        #[arg(key, optional)]
        round: Number,
    },
    /// `forge_matched 2 1 term=3 index=4`.
    #[command(name = "forge_matched")]
    Matched {
        from: u64,
        to: u64,
        #[arg(key)]
        term: Number,
        #[arg(key)]
        index: Number,
        #[arg(key, optional)]
        round: Number,
    },
    /// `forge_conflict 2 1 term=3 previous=4 hint=2@1`.
    #[command(name = "forge_conflict")]
    Conflict {
        from: u64,
        to: u64,
        #[arg(key)]
        term: Number,
        #[arg(key)]
        previous: Number,
        #[arg(key, optional)]
        hint: Id,
        #[arg(key, optional)]
        round: Number,
    },
    /// `forge_timeout_now 2 1 term=3`.
    #[command(name = "forge_timeout_now")]
    TimeoutNow {
        from: u64,
        to: u64,
        #[arg(key)]
        term: Number,
    },
}

/// Whether a command is one of those here.
pub(super) fn is_forged(command: &goldenscript::Command) -> bool {
    command.name.starts_with("forge_")
}

impl Script {
    pub(super) fn run_forge(&mut self, command: ForgeCommand) -> Result<(), Box<dyn Error>> {
        let (from, to, message) = forged(command);
        let (from, to) = (NodeId::new(from), NodeId::new(to));
        self.lab()?.send(Envelope { from, to, message });
        Ok(())
    }
}

fn forged(command: ForgeCommand) -> (u64, u64, Message) {
    match command {
        ForgeCommand::PreVote { from, to, term, last, transfer } => {
            (from, to, Message::PreVote(vote(term, last, transfer)))
        }
        ForgeCommand::Vote { from, to, term, last, transfer } => {
            (from, to, Message::RequestVote(vote(term, last, transfer)))
        }
        ForgeCommand::VoteReply { from, to, term, campaign, granted } => {
            let (term, campaign) = (Term::new(term.0), Term::new(campaign.0));
            (from, to, Message::RequestVoteReply(VoteReply { term, campaign, granted }))
        }
        ForgeCommand::Append { from, to, term, previous, entries, stamp, commit, round } => {
            let append = AppendEntries {
                term: Term::new(term.0),
                previous: previous.0,
                entries: entries.0.iter().map(|id| empty_entry(id.0, stamp)).collect(),
                commit: LogIndex::new(commit.0),
                round: ReadRound::new(round.0),
            };
            (from, to, Message::AppendEntries(append))
        }
        ForgeCommand::Matched { from, to, term, index, round } => {
            let result = AppendResult::Matched(LogIndex::new(index.0));
            (from, to, append_reply(term, round, result))
        }
        ForgeCommand::Conflict { from, to, term, previous, hint, round } => {
            let previous = LogIndex::new(previous.0);
            let result = AppendResult::Conflict { previous, hint: hint.0 };
            (from, to, append_reply(term, round, result))
        }
        ForgeCommand::TimeoutNow { from, to, term } => {
            (from, to, Message::TimeoutNow { term: Term::new(term.0) })
        }
    }
}

fn vote(term: Number, last: Id, transfer: bool) -> VoteRequest {
    VoteRequest { term: Term::new(term.0), last: last.0, transfer }
}

fn append_reply(term: Number, round: Number, result: AppendResult) -> Message {
    let (term, round) = (Term::new(term.0), ReadRound::new(round.0));
    Message::AppendEntriesReply(AppendEntriesReply { term, round, result })
}

fn empty_entry(id: EntryId, stamp: Option<Span>) -> Entry {
    let stamp = LeaseTime::ZERO.after(stamp.map_or(Duration::ZERO, |span| span.0));
    Entry { id, stamp, payload: Payload::Empty }
}
