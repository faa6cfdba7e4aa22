//! How a command ends: a number for scripts, and for people what happened, why, and what to do next.

use std::fmt;
use std::process::ExitCode;

use super::output::Output;
use crate::client::{AcquireError, CallError, ConnectError, Ending, Rejection};

/// How a command ended. The numbers are those of `sysexits.h`, where it has one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// Done.
    Ok,
    /// The answer is no: a lock not obtained, no quorum, no such thing.
    Negative,
    /// The command line is wrong (`EX_USAGE`).
    Usage,
    /// No quorum, or the cluster was not reached in time (`EX_UNAVAILABLE`).
    Unavailable,
    /// A fault of our own (`EX_SOFTWARE`).
    Internal,
    /// The lock was lost (`EX_TEMPFAIL`).
    Lost,
    /// Not permitted to this certificate (`EX_NOPERM`).
    NotPermitted,
    /// Certificates, files or folders are not as they should be (`EX_CONFIG`).
    Configuration,
    /// What a child process ended with, or what the user asked for.
    Other(u8),
}

impl Exit {
    /// The number.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Negative => 1,
            Self::Usage => 64,
            Self::Unavailable => 69,
            Self::Internal => 70,
            Self::Lost => 75,
            Self::NotPermitted => 77,
            Self::Configuration => 78,
            Self::Other(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    /// What happened, and why.
    what: String,
    /// What to do next.
    next: Option<String>,
    /// Nothing to tell: nobody reads our output any more.
    silent: bool,
}

impl Failure {
    /// What happened and why, as one sentence without a full stop.
    pub(crate) fn new(exit: Exit, what: impl fmt::Display) -> Self {
        Self { exit, what: what.to_string(), next: None, silent: false }
    }

    /// The command line is wrong in a way that its grammar cannot say.
    pub(crate) fn usage(what: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, what)
    }

    /// The configuration is wrong.
    pub(crate) fn configuration(what: impl fmt::Display) -> Self {
        Self::new(Exit::Configuration, what)
    }

    /// The cluster cannot be used now.
    pub(crate) fn unavailable(what: impl fmt::Display) -> Self {
        Self::new(Exit::Unavailable, what)
    }

    /// Something that should not happen.
    pub(crate) fn internal(what: impl fmt::Display) -> Self {
        Self::new(Exit::Internal, what)
    }

    /// Ends the command with `exit` without a word: all is said already.
    pub(crate) fn silent(exit: Exit) -> Self {
        Self { exit, what: String::new(), next: None, silent: true }
    }

    /// Adds what to do next.
    #[must_use]
    pub(crate) fn hint(mut self, next: impl fmt::Display) -> Self {
        self.next = Some(next.to_string());
        self
    }

    /// Adds what to do next, unless that is said already.
    #[must_use]
    pub(crate) fn or_hint(self, next: impl fmt::Display) -> Self {
        if self.next.is_some() { self } else { self.hint(next) }
    }

    /// The exit code that goes with it.
    pub(crate) const fn exit(&self) -> Exit {
        self.exit
    }

    /// Says it on stderr, and returns the exit code.
    pub(crate) fn report(&self, output: &Output) -> Exit {
        if !self.silent {
            output.message(&output.paint_error("error:"), &self.what);
            if let Some(next) = &self.next {
                output.message("  next:", next);
            }
        }
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.next {
            Some(next) => write!(f, "; {next}"),
            None => Ok(()),
        }
    }
}

/// A result that cannot be printed. A reader that is gone is no failure of ours, so that
/// `quorlock cat log | head` ends well.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::silent(Exit::Ok)
        } else {
            Self::internal(format!("cannot write the result: {error}"))
        }
    }
}

/// No session.
impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        match &error {
            ConnectError::Settings(_) | ConnectError::NoEndpoints => Self::usage(error),
            ConnectError::Local(_) => Self::configuration(error),
            ConnectError::Random(_) | ConnectError::Thread(_) => Self::internal(error),
            ConnectError::Unreachable { failures, .. }
                if !failures.is_empty() && failures.iter().all(|(_, error)| error.is_lasting()) =>
            {
                Self::configuration(error)
            }
            ConnectError::Unreachable { .. } | ConnectError::NoQuorum { .. } => {
                Self::unavailable(error).hint("look at the nodes with `quorlock status`")
            }
            ConnectError::Refused(Rejection::LeaseOutOfRange { .. }) => Self::usage(error),
            ConnectError::Refused(_) => Self::new(Exit::Negative, error),
        }
    }
}

/// A call that did not do what it was asked to.
impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match &error {
            CallError::Rejected(Rejection::NotHolder { .. }) => Self::new(Exit::Lost, error),
            CallError::Rejected(_) | CallError::NoSuchFile(_) => Self::new(Exit::Negative, error),
            CallError::SessionEnded(Ending::NotOpened | Ending::LeaseRanOut)
            | CallError::Unknown => {
                Self::unavailable(error).hint("look at the nodes with `quorlock status`")
            }
            CallError::SessionEnded(_) => Self::new(Exit::Lost, error),
            CallError::TooManyCalls => Self::internal(error),
            CallError::Name { .. } => Self::usage(error),
            CallError::NotAdmin { .. } => Self::new(Exit::NotPermitted, error),
        }
    }
}

/// A lock that was not obtained.
impl From<AcquireError> for Failure {
    fn from(error: AcquireError) -> Self {
        match error {
            AcquireError::NotObtained { .. }
            | AcquireError::TimedOut { .. }
            | AcquireError::Cancelled { .. }
            | AcquireError::AlreadyHeld { .. }
            | AcquireError::AlreadyWaiting { .. } => Self::new(Exit::Negative, error),
            AcquireError::Call(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_is_gone_is_no_failure() {
        let gone = Failure::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!(gone.exit(), Exit::Ok);
        assert!(gone.silent);
        let full = Failure::from(std::io::Error::from(std::io::ErrorKind::StorageFull));
        assert_eq!(full.exit(), Exit::Internal);
        assert!(!full.silent);
    }

    #[test]
    fn says_what_to_do_next() {
        let failure = Failure::usage("no").hint("try yes").or_hint("try no");
        assert_eq!(failure.to_string(), "no; try yes");
        assert_eq!(failure.exit().code(), 64);
    }
}
