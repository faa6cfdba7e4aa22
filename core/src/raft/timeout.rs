//! What happens when nothing happens: a deadline is a property of the node, computed when asked.

use crate::ids::NodeId;
use crate::time::Time;

use super::Raft;
use super::action::RaftTimer;
use super::role::RoleState;

impl Raft {
    /// The next moment at which [`Raft::handle_timeout`] has something to do, and what for.
    /// Changes with every input.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Time, RaftTimer)> {
        let Some(leader) = self.role.as_leader() else {
            return Some((self.election_at, RaftTimer::Election));
        };
        let stall = self.persistence.waiting_since();
        let quorum_lost_at = self.quorum_heard_at().after(self.config.election_timeout_max);
        // Due at once, and over with it: then this node does not lead.
        let full = self.is_log_stalled().then_some((self.now, RaftTimer::WriteStall));
        let timers = [
            full,
            Some((leader.heartbeat_at, RaftTimer::Heartbeat)),
            Some((quorum_lost_at, RaftTimer::CheckQuorum)),
            stall.map(|at| (at.after(self.config.write_stall_timeout), RaftTimer::WriteStall)),
            leader.transfer.map(|transfer| (transfer.deadline, RaftTimer::Transfer)),
        ];
        timers.into_iter().flatten().min()
    }

    /// Does what is due at `now`. Too early is harmless: then nothing is due.
    pub fn handle_timeout(&mut self, now: Time) {
        self.advance_clock(now);
        match self.role {
            RoleState::Leader(_) => self.leader_timeout(),
            RoleState::Follower(_) | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                if now >= self.election_at {
                    self.election_timed_out();
                }
            }
        }
    }

    fn leader_timeout(&mut self) {
        // A leader that nobody follows, or that cannot write, keeps the cluster from having one
        // that can lead. It does not campaign again before its disk answers.
        let quorum_lost_at = self.quorum_heard_at().after(self.config.election_timeout_max);
        let is_stalled = self.is_write_stalled(self.now) || self.is_log_stalled();
        if self.now >= quorum_lost_at || is_stalled {
            return self.become_follower(self.hard_state.term, None::<NodeId>);
        }
        self.expire_transfer();
        let now = self.now;
        let next = now.after(self.config.heartbeat_interval);
        let Some(leader) = self.role.as_leader_mut() else { return };
        if now >= leader.heartbeat_at {
            leader.heartbeat_at = next;
            leader.broadcast_heartbeat();
        }
    }

    /// Whether the oldest write that is not durable has been under way for too long
    /// ([`write_stall_timeout`](crate::config::Config::write_stall_timeout)).
    #[must_use]
    pub fn is_write_stalled(&self, now: Time) -> bool {
        let waiting_since = self.persistence.waiting_since();
        waiting_since.is_some_and(|since| now.since(since) >= self.config.write_stall_timeout)
    }

    /// The caller says whether one of this node's own snapshots has waited for too long for the
    /// writes to files that it covers. Until it says that this is over, a leader whose log is more
    /// than three quarters full steps down, and a node with such a log does not campaign: soon it
    /// could take no requests, while another node may have a disk that works.
    ///
    /// Look at [`Raft::poll_timeout`] afterwards.
    pub fn set_snapshot_stalled(&mut self, stalled: bool) {
        self.snapshot_stalled = stalled;
    }

    /// Whether the log runs full since no snapshot can be finished.
    #[must_use]
    pub fn is_log_stalled(&self) -> bool {
        let most = self.config.log_bytes_max - self.config.log_bytes_max / 4;
        self.snapshot_stalled && self.kept_bytes() > most
    }
}
