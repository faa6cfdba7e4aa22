//! The terminal, and who is in its foreground.
//!
//! A terminal has one foreground process group: it may read, and Ctrl-C and Ctrl-Z are sent to it. The
//! command has a group of its own, so it must be lent the foreground, as a shell does for a job:
//!
//! - at once, when our standard input and output are the terminal and we are in its foreground;
//! - else when the command asks for it: it was stopped because it read from the terminal, or wrote to it,
//!   from the background, while we are in the foreground. At the start of a pipeline that ends in a pager
//!   the terminal is the pager's, and must not be taken from it.
//!
//! Ctrl-Z stops the command's group. We see that, take the terminal back and stop as well, so that the
//! shell has its prompt again; `fg` makes both go on. Nobody renews the lease meanwhile: when it is about
//! to end, the guard ends the command. That is what a lock with a lease means, and we say so.

use std::io::{IsTerminal as _, Stdin};

use nix::sys::signal::SigSet;
use rustix::process::{Pid, Signal};
use rustix::termios::{OptionalActions, Termios};

/// The terminal at our standard input, if there is one.
#[derive(Debug)]
pub(crate) struct Terminal {
    input: Option<Stdin>,
    /// As it was when we lent it, to be put right after a command that was killed.
    settings: Option<Termios>,
    lent: bool,
}

impl Terminal {
    /// Looks for one. From here on, this thread may write to it from the background, and take the
    /// foreground back, without being stopped for it. A new process does not inherit that.
    pub(crate) fn find() -> Self {
        let input = Some(std::io::stdin()).filter(Stdin::is_terminal);
        if input.is_some() {
            let mut background = SigSet::empty();
            background.add(nix::sys::signal::Signal::SIGTTOU);
            if let Err(error) = background.thread_block() {
                tracing::debug!(%error, "cannot block the signal for output from the background");
            }
        }
        Self { input, settings: None, lent: false }
    }

    /// None: nothing is lent, and nothing taken back.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self { input: None, settings: None, lent: false }
    }

    /// Whether the command's group has the foreground from us.
    pub(crate) fn is_lent(&self) -> bool {
        self.lent
    }

    /// Lends the foreground at the start, if it is clearly meant for the command.
    pub(crate) fn lend_at_start(&mut self, group: Pid) {
        if std::io::stdout().is_terminal() {
            self.lend(group);
        }
    }

    /// Lends the foreground if it is ours. Says whether the group has it now.
    pub(crate) fn lend(&mut self, group: Pid) -> bool {
        let Some(input) = &self.input else { return false };
        let foreground = rustix::termios::tcgetpgrp(input).ok();
        if foreground == Some(rustix::process::getpgrp()) {
            self.settings = rustix::termios::tcgetattr(input).ok();
            match rustix::termios::tcsetpgrp(input, group) {
                Ok(()) => self.lent = true,
                Err(error) => tracing::debug!(%error, "cannot lend the terminal"),
            }
        }
        self.lent
    }

    /// Takes the foreground back, if it was lent.
    pub(crate) fn take_back(&mut self) {
        let Some(input) = self.input.as_ref().filter(|_| self.lent) else { return };
        self.lent = false;
        if let Err(error) = rustix::termios::tcsetpgrp(input, rustix::process::getpgrp()) {
            tracing::debug!(%error, "cannot take the terminal back");
        }
    }

    /// Puts the settings right that a command which was killed could not put right itself.
    pub(crate) fn restore_settings(&mut self) {
        let (Some(input), Some(settings)) = (&self.input, self.settings.take()) else { return };
        if let Err(error) = rustix::termios::tcsetattr(input, OptionalActions::Drain, &settings) {
            tracing::debug!(%error, "cannot restore the settings of the terminal");
        }
    }
}

/// Stops this process, as Ctrl-Z would have. Returns when it is told to go on.
pub(super) fn stop_ourselves() {
    if let Err(error) = rustix::process::kill_process(rustix::process::getpid(), Signal::STOP) {
        tracing::debug!(%error, "cannot stop");
    }
}

/// Whether a process that was stopped by this signal wants the foreground.
pub(super) fn wants_the_terminal(signal: i32) -> bool {
    signal == Signal::TTIN.as_raw() || signal == Signal::TTOU.as_raw()
}

/// Whether this signal is a person's Ctrl-Z.
pub(super) fn is_ctrl_z(signal: i32) -> bool {
    signal == Signal::TSTP.as_raw()
}
