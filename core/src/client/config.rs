//! The settings of a client.

use crate::config::{ConfigError, at_least, within};
use crate::time::Duration;

/// One million: what [`ClientConfig::drift_ppm`] is a part of.
const MILLION: u32 = 1_000_000;

/// The settings of one client. Every duration is measured on the host's monotone clock.
///
/// The defaults of the durations follow from that of the lease: see [`ClientConfig::for_lease`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientConfig {
    /// How long the cluster keeps the session without a keep-alive. Default 10 s; the cluster's
    /// limits say what it accepts. The longer, the longer an outage a holder survives, and the
    /// longer others wait for the locks of one that died.
    pub lease: Duration,
    /// How often the lease is renewed. Default a third of `lease`; at least 1 ms.
    pub keep_alive_interval: Duration,
    /// The session is in jeopardy when the last renewal that was acknowledged is so old. Default
    /// two thirds of `lease`; at least `keep_alive_interval` and `reply_timeout` together, so that
    /// an answer that is merely late raises no alarm.
    pub jeopardy_after: Duration,
    /// By how much the client's clock and the cluster's may differ in rate, in millionths of
    /// `lease`. Default 20,000: each may be off by one part in a hundred. At most 500,000.
    pub drift_ppm: u32,
    /// What the lease ends early beside the drift, for what happens between the look at the clock
    /// and the act. Default a hundredth of `lease`.
    pub lease_margin: Duration,
    /// An attempt to connect is given up after so long. Default a sixth of `lease`, at most 2 s; at
    /// least 1 ms.
    pub connect_timeout: Duration,
    /// A connection is given up when a request is not answered for so long. What may wait for a
    /// lock is exempt. Default a sixth of `lease`, at most 2 s; at least 1 ms.
    pub reply_timeout: Duration,
    /// A session that is not open after so long ends as
    /// [`NotOpened`](super::Ending::NotOpened). Default 30 s; at least 1 ms.
    pub open_timeout: Duration,
    /// The first pause after a failure; each further one is twice as long, and a random part of
    /// up to a half is taken off. Default 20 ms; at least 1 ms.
    pub backoff_min: Duration,
    /// The longest pause. Default a tenth of `lease`, at most 1 s; at least `backoff_min`.
    pub backoff_max: Duration,
    /// The most calls that are open at once; the last place is not for one that waits for a lock.
    /// Default 10,000; at least 1.
    pub calls_max: u32,
    /// The most bytes to append, of all open calls together; a single larger call is taken when no
    /// other has bytes. Default 64 MiB.
    pub call_bytes_max: u64,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self::for_lease(Duration::from_secs(10))
    }
}

impl ClientConfig {
    /// The default settings for a time-to-live, which should be at least 200 ms.
    #[must_use]
    pub fn for_lease(lease: Duration) -> Self {
        let patience = (lease / 6).min(Duration::from_secs(2));
        let backoff_min = Duration::from_millis(20);
        Self {
            lease,
            keep_alive_interval: lease / 3,
            jeopardy_after: lease / 3 * 2,
            drift_ppm: 20_000,
            lease_margin: lease / 100,
            connect_timeout: patience,
            reply_timeout: patience,
            open_timeout: Duration::from_secs(30),
            backoff_min,
            backoff_max: (lease / 10).min(Duration::from_secs(1)).max(backoff_min),
            calls_max: 10_000,
            call_bytes_max: 64 << 20,
        }
    }

    /// How long a lease lasts by the client's own clock: `lease` without its margins.
    #[must_use]
    pub fn own_lease(&self) -> Duration {
        let drift = self.lease.saturating_mul(self.drift_ppm) / MILLION;
        self.lease.saturating_sub(drift).saturating_sub(self.lease_margin)
    }

    /// Checks every setting by itself and against those it depends on.
    ///
    /// # Errors
    /// The first setting that is out of its range, with the range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let least = Duration::from_millis(1);
        at_least("keep_alive_interval", self.keep_alive_interval, least)?;
        at_least("connect_timeout", self.connect_timeout, least)?;
        at_least("reply_timeout", self.reply_timeout, least)?;
        at_least("open_timeout", self.open_timeout, least)?;
        at_least("backoff_min", self.backoff_min, least)?;
        at_least("backoff_max", self.backoff_max, self.backoff_min)?;
        within("calls_max", u64::from(self.calls_max), 1, u64::from(u32::MAX))?;
        within("drift_ppm", u64::from(self.drift_ppm), 0, u64::from(MILLION / 2))?;
        at_least(
            "jeopardy_after",
            self.jeopardy_after,
            self.keep_alive_interval.saturating_add(self.reply_timeout),
        )?;
        // The warning comes before the loss: what the client's own lease lacks, the whole one lacks.
        let missing = self.jeopardy_after.saturating_add(least).saturating_sub(self.own_lease());
        at_least("lease", self.lease, self.lease.saturating_add(missing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_for_every_lease() {
        for millis in [200, 2000, 10_000, 3_600_000] {
            let config = ClientConfig::for_lease(Duration::from_millis(millis));
            assert_eq!(config.check(), Ok(()), "{config:?}");
        }
    }

    #[test]
    fn lease_ends_before_the_clusters_does_with_clocks_one_percent_off() {
        let config = ClientConfig::default();
        // The client's clock loses one part in a hundred, the cluster's gains one.
        let real = config.own_lease() * 100 / 99;
        let cluster = config.lease * 100 / 101;
        assert!(real < cluster, "{real:?} {cluster:?}");
    }

    #[test]
    fn warning_must_come_before_the_loss() {
        let mut config = ClientConfig::default();
        config.jeopardy_after = config.own_lease();
        assert!(matches!(config.check(), Err(ConfigError::TooShort { setting: "lease", .. })));
    }

    #[test]
    fn one_late_answer_must_not_be_jeopardy() {
        let mut config = ClientConfig::default();
        config.jeopardy_after = config.keep_alive_interval;
        let error = config.check().expect_err("jeopardy would come with every keep-alive");
        assert!(matches!(error, ConfigError::TooShort { setting: "jeopardy_after", .. }));
    }
}
