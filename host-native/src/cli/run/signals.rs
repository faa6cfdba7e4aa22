//! The signals that `quorlock run` passes on.
//!
//! A signal that was ignored when we started stays ignored: that is how `nohup` and shells without job
//! control protect what they start, and the command inherits it.

use std::io;

use rustix::process::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// Those that end a program, unless it decides otherwise.
const PASSED_ON: [Signal; 4] = [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT];

/// The signals that are passed on, caught from here on.
#[derive(Debug)]
pub(crate) struct Signals {
    streams: Vec<(Signal, Stream)>,
}

impl Signals {
    /// Begins to catch them.
    ///
    /// # Errors
    /// If the system does not let us.
    pub(crate) fn catch() -> io::Result<Self> {
        let ignored = ignored();
        let mut streams = Vec::new();
        for passed_on in PASSED_ON {
            let number = passed_on.as_raw();
            if !is_in(ignored, number) {
                streams.push((passed_on, signal(SignalKind::from_raw(number))?));
            }
        }
        Ok(Self { streams })
    }

    /// The next one. To drop the future loses none.
    pub(crate) async fn next(&mut self) -> Signal {
        std::future::poll_fn(|context| {
            for (caught, stream) in &mut self.streams {
                if stream.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*caught);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

/// The set of signals that this process ignores; none where the system does not say.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    parse_ignored(&status)
}

fn parse_ignored(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or_default()
}

fn is_in(set: u64, number: i32) -> bool {
    let bit = u32::try_from(number - 1).ok().and_then(|shift| 1_u64.checked_shl(shift));
    bit.is_some_and(|bit| set & bit != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_status() {
        let set = parse_ignored("Name:\tx\nSigIgn:\t0000000000001003\nSigCgt:\t0\n");
        assert!(is_in(set, Signal::HUP.as_raw()) && is_in(set, Signal::INT.as_raw()));
        assert!(!is_in(set, Signal::TERM.as_raw()));
        assert_eq!(parse_ignored("SigIgn:\tzz"), 0);
        assert_eq!(parse_ignored(""), 0);
    }
}
