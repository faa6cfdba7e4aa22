//! Terms, votes and changes of role (paper, 5.2 and 5.4.1; thesis, 4.2.3, 6.2 and 9.6).
//!
//! Two rules keep a node that cannot win from disturbing a leader that can lead. *Pre-vote*: before
//! it raises its term, a node asks whether it would be voted for. *Stickiness*: who heard from a
//! leader a moment ago helps nobody to depose it. And *check-quorum* keeps a leader that is cut off
//! from holding on: it steps down when no quorum answers.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::ids::{NodeId, Term};
use crate::membership::VoteResult;
use crate::message::{HardState, Message, Payload, VoteReply, VoteRequest};
use crate::time::Time;

use super::Raft;
use super::action::{RaftAction, Role};
use super::progress::Progress;
use super::role::{Campaign, Follower, Following, Leader, RoleState};

impl Raft {
    /// No leader was heard for too long. A node without a vote, or whose disk does not answer,
    /// would make no better leader.
    pub(super) fn election_timed_out(&mut self) {
        if self.can_campaign() {
            self.pre_campaign();
        } else {
            self.become_follower(self.hard_state.term, None);
            self.reset_election_timer();
        }
    }

    /// Whether this node could lead if it were elected.
    pub(super) fn can_campaign(&self) -> bool {
        self.membership().contains(self.id)
            && !self.is_write_stalled(self.now)
            && !self.is_log_stalled()
            && self.hard_state.term.next() < Term::MAX
    }

    /// Asks all others whether they would vote for this node. Neither the term nor the vote
    /// changes, so there is nothing to wait for.
    fn pre_campaign(&mut self) {
        self.reset_election_timer();
        self.set_role(RoleState::PreCandidate(Campaign::default()));
        let request = self.vote_request(self.hard_state.term.next(), false);
        for node in self.others() {
            self.send_unheld(node, Message::PreVote(request.clone()));
        }
        self.count_vote(self.id, true);
    }

    /// Enters a new term and asks all others for their vote, at once if the leader asked for it
    /// (`transfer`). The requests leave once the vote for itself is durable.
    pub(super) fn campaign(&mut self, transfer: bool) {
        self.reset_election_timer();
        let term = self.hard_state.term.next();
        self.enter_term(HardState { term, vote: Some(self.id) });
        self.set_role(RoleState::Candidate(Campaign::default()));
        let request = self.vote_request(term, transfer);
        for node in self.others() {
            self.send_held(node, Message::RequestVote(request.clone()));
        }
        self.count_own_vote();
    }

    fn vote_request(&self, term: Term, transfer: bool) -> VoteRequest {
        VoteRequest { term, last: self.log.last(), transfer }
    }

    /// The other nodes of the membership, in the order of their ids.
    fn others(&self) -> Vec<NodeId> {
        self.membership().nodes().filter(|node| *node != self.id).collect()
    }

    /// Counts a candidate's vote for itself, if it is durable: one that a crash could take back is
    /// none.
    pub(super) fn count_own_vote(&mut self) {
        if matches!(self.role, RoleState::Candidate(_)) && self.persistence.is_hard_state_durable()
        {
            self.count_vote(self.id, true);
        }
    }

    /// Would this node vote for the sender? The answer changes nothing here: neither the term nor
    /// the vote, and above all not the time-out, or nodes could keep each other from campaigning.
    pub(super) fn handle_pre_vote(&mut self, from: NodeId, request: VoteRequest) {
        let granted = request.term > self.hard_state.term
            && request.last >= self.log.last()
            && !self.is_loyal_against(from);
        let reply = VoteReply { term: self.hard_state.term, campaign: request.term, granted };
        self.send_unheld(from, Message::PreVoteReply(reply));
    }

    /// Gives the vote of the term to the first who asks for it with a log that has all that this
    /// one has (paper, 5.4.1).
    pub(super) fn handle_request_vote(&mut self, from: NodeId, request: VoteRequest) {
        let campaign = request.term;
        // The term of a candidate that is not welcome is not adopted either: it learns of that
        // from the refusal, and the leader from the candidate's own answers.
        if !request.transfer && self.is_loyal_against(from) {
            return self.answer_vote(from, campaign, false);
        }
        if request.term > self.hard_state.term {
            self.become_follower(request.term, None);
        }
        let vote_is_free = self.hard_state.vote.is_none_or(|vote| vote == from);
        let granted =
            request.term == self.hard_state.term && vote_is_free && request.last >= self.log.last();
        if granted {
            self.become_follower(request.term, self.leader());
            self.vote_for(from);
            self.reset_election_timer();
        }
        self.answer_vote(from, campaign, granted);
    }

    fn answer_vote(&mut self, to: NodeId, campaign: Term, granted: bool) {
        let reply = VoteReply { term: self.hard_state.term, campaign, granted };
        self.send_held(to, Message::RequestVoteReply(reply));
    }

    /// An answer to a pre-campaign counts for the one of the next term. A late one to an earlier
    /// pre-campaign for that very term counts too: it is no promise, only a hope.
    pub(super) fn handle_pre_vote_reply(&mut self, from: NodeId, reply: VoteReply) {
        let is_current = reply.campaign == self.hard_state.term.next();
        if matches!(self.role, RoleState::PreCandidate(_)) && is_current {
            self.count_vote(from, reply.granted);
        }
    }

    /// An answer to a campaign counts only in the term of that campaign.
    pub(super) fn handle_request_vote_reply(&mut self, from: NodeId, reply: VoteReply) {
        let is_current = reply.campaign == self.hard_state.term;
        if matches!(self.role, RoleState::Candidate(_)) && is_current {
            self.count_vote(from, reply.granted);
        }
    }

    /// Counts a vote, the first of each voter, and draws the conclusion.
    fn count_vote(&mut self, voter: NodeId, granted: bool) {
        let (campaign, is_real) = match &mut self.role {
            RoleState::PreCandidate(campaign) => (campaign, false),
            RoleState::Candidate(campaign) => (campaign, true),
            RoleState::Follower(_) | RoleState::Leader(_) => return,
        };
        campaign.votes.entry(voter).or_insert(granted);
        let votes = &campaign.votes;
        let result = self.memberships.latest().vote_result(|node| votes.get(&node).copied());
        match result {
            VoteResult::Won if is_real => self.become_leader(),
            VoteResult::Won => self.campaign(false),
            VoteResult::Lost => self.become_follower(self.hard_state.term, None),
            VoteResult::Pending => {}
        }
    }

    /// Whether this node has a leader, or leads, and so helps nobody else to be elected.
    ///
    /// A candidate that *is* the leader this node knows has evidently stopped leading; to refuse it
    /// can leave a cluster of which a minority is down without any leader at all.
    fn is_loyal_against(&self, candidate: NodeId) -> bool {
        let recent = |heard_at: Time| self.now.since(heard_at) < self.config.election_timeout_min;
        match &self.role {
            RoleState::Follower(Follower { following: Some(following) }) => {
                following.leader != candidate && recent(following.heard_at)
            }
            RoleState::Leader(_) => recent(self.quorum_heard_at()),
            RoleState::Follower(Follower { following: None })
            | RoleState::PreCandidate(_)
            | RoleState::Candidate(_) => false,
        }
    }

    /// The latest moment since when a leader has heard a quorum, itself included.
    pub(super) fn quorum_heard_at(&self) -> Time {
        let Some(leader) = self.role.as_leader() else { return Time::ZERO };
        let heard_at = |node| leader.peers.get(&node).map(|peer| peer.heard_at);
        let heard_since = |time| {
            self.membership().is_quorum(|node| node == self.id || heard_at(node) >= Some(time))
        };
        let heard = leader.peers.values().map(|peer| peer.heard_at);
        core::iter::once(self.now)
            .chain(heard)
            .filter(|t| heard_since(*t))
            .max()
            .unwrap_or_default()
    }

    /// Follows `leader` in `term`; steps down if need be. `None`: no leader is known.
    pub(super) fn become_follower(&mut self, term: Term, leader: Option<NodeId>) {
        assert!(term >= self.hard_state.term, "a term never goes down");
        if term > self.hard_state.term {
            self.enter_term(HardState { term, vote: None });
        } else if let RoleState::Follower(_) = self.role
            && self.leader() == leader
        {
            return;
        }
        let was_follower = matches!(self.role, RoleState::Follower(_));
        let following = leader.map(|leader| Following::new(leader, self.commit, self.now));
        self.set_role(RoleState::Follower(Follower { following }));
        // A follower's own time-out goes on: otherwise a candidate that cannot win could keep
        // those that can from campaigning, by raising the term again and again.
        if !was_follower {
            self.reset_election_timer();
        }
    }

    /// Leads: makes the first entry of the term, and begins to find out how far the others are.
    fn become_leader(&mut self) {
        let last = self.log.last_index();
        let peers = self.others().into_iter();
        let leader = Leader {
            peers: peers.map(|node| (node, Progress::new(last.next(), self.now))).collect(),
            term_start: last.next(),
            stamp_base: self.log.last_stamp(),
            stamp_from: self.now,
            heartbeat_at: self.now.after(self.config.heartbeat_interval),
            transfer: None,
        };
        self.set_role(RoleState::Leader(Box::new(leader)));
        let first = self.next_entry(Payload::Empty);
        self.append(first);
    }

    /// Enters a term with a vote, or a term without.
    fn enter_term(&mut self, hard_state: HardState) {
        assert!(hard_state.term > self.hard_state.term, "a new term is a later one");
        assert!(hard_state.term < Term::MAX, "the largest term stays unused");
        self.hard_state = hard_state;
        self.persistence.hard_state_changed();
        // What waits to be promised was meant for the old term.
        self.outbox.clear();
    }

    /// Votes in the present term. The vote stays, whatever role follows.
    fn vote_for(&mut self, candidate: NodeId) {
        let vote = Some(candidate);
        assert!(self.hard_state.vote.is_none_or(|before| before == candidate), "voted twice");
        if self.hard_state.vote != vote {
            self.hard_state.vote = vote;
            self.persistence.hard_state_changed();
        }
    }

    /// Changes the role and tells the caller. What it was not told yet is told as one change; but
    /// the beginning of a leadership is told by itself, or it could hide that an earlier one ended.
    fn set_role(&mut self, role: RoleState) {
        let led = self.role.as_leader().is_some();
        self.role = role;
        if led || self.role.as_leader().is_some() {
            self.reads.reset();
        }
        let change = RaftAction::RoleChanged {
            role: self.role(),
            term: self.hard_state.term,
            leader: self.leader(),
        };
        let leads = self.role() == Role::Leader;
        self.actions.pop_back_if(|last| matches!(last, RaftAction::RoleChanged { .. }) && !leads);
        self.actions.push_back(change);
    }

    /// A fresh random time-out, so that nodes that split a vote hardly split the next.
    pub(super) fn reset_election_timer(&mut self) {
        let (min, max) = (self.config.election_timeout_min, self.config.election_timeout_max);
        self.election_at = self.now.after(self.prng.duration_between(min, max));
    }
}
