//! The session and its lease, as the client sees them.
//!
//! The cluster counts a lease from when it *applies* an open or a keep-alive. The client counts
//! from when it *sent* that request, which was earlier, and takes off margins for clocks that
//! disagree. So the client's lease ends first (Gray and Cheriton, "Leases", 1989; Chubby, 2.8),
//! whatever the network did meanwhile.

use super::config::ClientConfig;
use crate::config::WINDOW_CEILING;
use crate::ids::SessionId;
use crate::time::Time;

/// The client's session, as far as it has got.
#[derive(Clone, Debug)]
pub(super) enum Session {
    /// The cluster has not said yet which session it is.
    Unopened {
        /// When the first request to open it was sent. An answer to a later one may be about the
        /// session that the first one opened, with a lease that old.
        first_sent: Option<Time>,
        /// A session that the nonce named before, and that ended before it was ever used: ids grow,
        /// so an answer with this id or a lower one is old.
        above: SessionId,
    },
    /// The session is known.
    Opened {
        /// Its id.
        id: SessionId,
        /// The most requests without an outcome. 1 to [`WINDOW_CEILING`].
        window_max: usize,
        /// The latest lease that the cluster has confirmed.
        lease: Lease,
    },
}

impl Session {
    pub(super) const NEW: Self = Self::Unopened { first_sent: None, above: SessionId::ZERO };

    /// Takes note that the cluster opened it. A window outside of what any cluster may be set to is
    /// brought inside.
    pub(super) fn opened(id: SessionId, window_max: u32, lease: Lease) -> Self {
        let window_max = usize::try_from(window_max).unwrap_or(usize::MAX).clamp(1, WINDOW_CEILING);
        Self::Opened { id, window_max, lease }
    }

    pub(super) fn id(&self) -> Option<SessionId> {
        match self {
            Self::Unopened { .. } => None,
            Self::Opened { id, .. } => Some(*id),
        }
    }

    pub(super) fn lease(&self) -> Option<&Lease> {
        match self {
            Self::Unopened { .. } => None,
            Self::Opened { lease, .. } => Some(lease),
        }
    }
}

/// How a lease stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Far from its end.
    Safe,
    /// Near its end.
    Jeopardy,
    /// Over.
    Over,
}

/// One lease.
///
/// Invariant: `started < jeopardy_at < ends_at`, up to the end of time.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    /// When the request that it was granted for was sent.
    started: Time,
    jeopardy_at: Time,
    ends_at: Time,
}

impl Lease {
    /// The lease that the cluster granted for a request sent at `sent`.
    pub(super) fn new(config: &ClientConfig, sent: Time) -> Self {
        Self {
            started: sent,
            jeopardy_at: sent.after(config.jeopardy_after),
            ends_at: sent.after(config.own_lease()),
        }
    }

    pub(super) fn phase(&self, now: Time) -> Phase {
        if now >= self.ends_at {
            Phase::Over
        } else if now >= self.jeopardy_at {
            Phase::Jeopardy
        } else {
            Phase::Safe
        }
    }

    pub(super) fn renewal_at(&self, config: &ClientConfig) -> Time {
        self.started.after(config.keep_alive_interval)
    }

    pub(super) fn jeopardy_at(&self) -> Time {
        self.jeopardy_at
    }

    pub(super) fn ends_at(&self) -> Time {
        self.ends_at
    }

    pub(super) fn check_invariants(&self) {
        assert!(
            self.started < self.jeopardy_at && self.jeopardy_at < self.ends_at,
            "a lease warns before it ends: {self:?}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease_counts_from_the_send_and_passes_through_every_phase() {
        let config = ClientConfig::default();
        let sent = Time::from_micros(1_000_000);
        let lease = Lease::new(&config, sent);
        lease.check_invariants();
        let before = |time: Time| Time::from_micros(time.as_micros() - 1);
        let (warning, end) = (sent.after(config.jeopardy_after), sent.after(config.own_lease()));
        assert_eq!(lease.phase(sent), Phase::Safe);
        assert_eq!(lease.phase(before(warning)), Phase::Safe);
        assert_eq!(lease.phase(warning), Phase::Jeopardy);
        assert_eq!(lease.phase(before(end)), Phase::Jeopardy);
        assert_eq!(lease.phase(end), Phase::Over);
        assert!(lease.ends_at() < sent.after(config.lease));
    }

    #[test]
    fn window_is_kept_within_what_the_protocol_carries() {
        let lease = Lease::new(&ClientConfig::default(), Time::ZERO);
        for (said, used) in [(0, 1), (256, 256), (u32::MAX, WINDOW_CEILING)] {
            let session = Session::opened(SessionId::new(1), said, lease.clone());
            assert!(matches!(session, Session::Opened { window_max, .. } if window_max == used));
        }
    }
}
