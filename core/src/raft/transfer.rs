//! Handing leadership over without waiting for a time-out (thesis, 3.10).

use crate::ids::{LogIndex, NodeId, Term};
use crate::message::Message;
use crate::time::Time;

use super::Raft;
use super::action::{RaftAction, TransferRefused};
use super::role::Transfer;

impl Raft {
    /// Hands leadership over to `to`; `None` for the voter that has most of the log among those
    /// that answer. Returns to whom.
    ///
    /// Until it is done, proposals are refused, so that the target can catch up. If it is not the
    /// leader after [`election_timeout_max`](crate::config::Config::election_timeout_max), this
    /// node goes on as before, and says so ([`RaftAction::TransferExpired`]).
    ///
    /// # Errors
    /// [`TransferRefused`]; nothing changed then.
    pub fn transfer_leadership(
        &mut self,
        now: Time,
        to: Option<NodeId>,
    ) -> Result<NodeId, TransferRefused> {
        self.advance_clock(now);
        let Some(leader) = self.role.as_leader() else {
            return Err(TransferRefused::NotLeader);
        };
        if let Some(transfer) = leader.transfer {
            return Err(TransferRefused::Transferring { to: transfer.to });
        }
        let to = match to {
            Some(to) => Some(to).filter(|to| leader.peers.contains_key(to)),
            None => self.most_up_to_date_peer(),
        };
        let to = to.ok_or(TransferRefused::NoTarget)?;
        let deadline = now.after(self.config.election_timeout_max);
        if let Some(leader) = self.role.as_leader_mut() {
            leader.transfer = Some(Transfer { to, deadline, told: false });
        }
        Ok(to)
    }

    /// Of the peers heard lately, the one that has most of the log; the first of several.
    fn most_up_to_date_peer(&self) -> Option<NodeId> {
        let leader = self.role.as_leader()?;
        let patience = self.config.election_timeout_min;
        let mut best: Option<(LogIndex, NodeId)> = None;
        for (node, peer) in &leader.peers {
            let answers = self.now.since(peer.heard_at) < patience;
            if answers && best.is_none_or(|(matched, _)| peer.matched() > matched) {
                best = Some((peer.matched(), *node));
            }
        }
        best.map(|(_, node)| node)
    }

    /// Tells the target to campaign, once it has the whole log.
    pub(super) fn drive_transfer(&mut self) {
        let (term, last) = (self.hard_state.term, self.log.last_index());
        let Some(leader) = self.role.as_leader_mut() else { return };
        let Some(transfer) = &mut leader.transfer else { return };
        let is_ready = leader.peers.get(&transfer.to).is_some_and(|peer| peer.matched() == last);
        if is_ready && !transfer.told {
            transfer.told = true;
            let to = transfer.to;
            self.send_unheld(to, Message::TimeoutNow { term });
        }
    }

    /// Gives up a transfer that takes too long, or whose target left the cluster.
    pub(super) fn expire_transfer(&mut self) {
        let now = self.now;
        let Some(leader) = self.role.as_leader_mut() else { return };
        let peers = &leader.peers;
        let expired = leader
            .transfer
            .take_if(|transfer| now >= transfer.deadline || !peers.contains_key(&transfer.to));
        if let Some(Transfer { to, .. }) = expired {
            self.actions.push_back(RaftAction::TransferExpired { to });
        }
    }

    /// The leader asks this node to campaign at once. Anyone else has no say in that.
    pub(super) fn handle_timeout_now(&mut self, from: NodeId, term: Term) {
        let is_leader = term == self.hard_state.term && self.leader() == Some(from);
        if is_leader && self.can_campaign() {
            self.campaign(true);
        }
    }
}
