//! A command in a process group of its own.
//!
//! The group has the number of its first process, the leader, and the number stays taken as long as the
//! leader is not reaped, even when it has ended. So we look at how it ended without reaping it
//! ([`Group::poll`]), signal the group as often as we like meanwhile, and reap it last
//! ([`Group::reap`]): a signal can never hit a stranger that got the number next.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus};

use super::exec;
use super::ourselves::Ourselves;

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// By itself, with this code.
    Code(u8),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// As a shell would say it: 128 and the signal's number.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        }
    }
}

/// What became of the leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LeaderState {
    /// It runs, as far as we know.
    Running,
    /// It was stopped by this signal, since we last looked.
    Stopped(i32),
    /// It has ended. Its number is still taken.
    Ended(Exit),
}

/// A command and whatever it started, as far as that did not leave its process group.
#[derive(Debug)]
pub(crate) struct Group {
    leader: Pid,
}

impl Group {
    /// Starts a command, and holds it just before it becomes that command: [`Group::go_on`].
    ///
    /// To be called by a thread that lasts as long as the process: it counts as the parent.
    ///
    /// # Errors
    /// If there can be no new process. A command that is not there shows later, in its exit code.
    pub(crate) fn start(
        ourselves: &Ourselves,
        command: &[OsString],
        environment: &[(&str, OsString)],
    ) -> io::Result<Self> {
        let child = ourselves
            .command(&exec::arguments(command))
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .process_group(0)
            .spawn()?;
        // `Child` neither waits nor kills when it is dropped: from here on we do that by number.
        let group = Self { leader: Pid::from_child(&child) };
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::Pid(group.leader), stopped))?;
        // Takes note of the stop, so that it is not reported again.
        group.stop_signal()?;
        Ok(group)
    }

    /// Its number.
    pub(crate) fn id(&self) -> Pid {
        self.leader
    }

    /// Lets it run, after the start or after a stop.
    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// Sends a signal to every process of the group.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Err(error) = rustix::process::kill_process_group(self.leader, signal) {
            // There may be none but the leader, which has ended: then there is nobody to tell.
            tracing::debug!(group = %self.leader.as_raw_pid(), ?signal, %error, "signal not sent");
        }
    }

    /// What became of the leader. An end is reported again and again, a stop once.
    ///
    /// # Errors
    /// If the system does not know the process: it is a broken invariant of ours.
    pub(crate) fn poll(&self) -> io::Result<LeaderState> {
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if let Some(status) = rustix::process::waitid(WaitId::Pid(self.leader), ended)? {
            return Ok(LeaderState::Ended(exit_of(&status)));
        }
        Ok(self.stop_signal()?.map_or(LeaderState::Running, LeaderState::Stopped))
    }

    fn stop_signal(&self) -> io::Result<Option<i32>> {
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        match rustix::process::waitid(WaitId::Pid(self.leader), stopped) {
            Ok(status) => Ok(status.and_then(|status| status.stopping_signal())),
            // It has ended since we looked; what has ended is no child that could stop.
            Err(rustix::io::Errno::CHILD) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the leader's number free, after its end. Says which processes of the group still run.
    pub(crate) fn reap(self) -> Vec<Pid> {
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        if let Err(error) = rustix::process::waitid(WaitId::Pid(self.leader), ended) {
            tracing::debug!(%error, "the command was reaped by somebody else");
        }
        living(self.leader)
    }
}

fn exit_of(status: &WaitIdStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
        (None, Some(signal)) => Exit::Signal(signal),
        // Neither: no system says that of a process that ended.
        (None, None) => Exit::Code(u8::MAX),
    }
}

/// The processes of a group that have not ended.
///
/// Those that have ended, and that nobody has reaped yet, do no harm any more, but the system call
/// that asks for a group counts them. So we look where the system lists its processes; where there is
/// no such list, the group is alive or not as a whole, and is named by its number.
pub(crate) fn living(group: Pid) -> Vec<Pid> {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        let is_there = rustix::process::test_kill_process_group(group).is_ok();
        return if is_there { vec![group] } else { Vec::new() };
    };
    let mut living = Vec::new();
    for process in processes.flatten() {
        let pid = process.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else { continue };
        // Gone since it was listed: then it is not living.
        let Ok(stat) = std::fs::read_to_string(process.path().join("stat")) else { continue };
        if is_living_member(&stat, group) {
            living.push(pid);
        }
    }
    living
}

/// Whether a line of `/proc/PID/stat` is about a member that has not ended. After the name, which is in
/// brackets and may contain anything: state, parent, group.
fn is_living_member(stat: &str, group: Pid) -> bool {
    let Some((_, fields)) = stat.rsplit_once(')') else { return false };
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next();
    let number = fields.nth(1).and_then(|field| field.parse().ok());
    number == Some(group.as_raw_pid()) && !matches!(state, Some("Z" | "X" | "x") | None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_shells() {
        assert_eq!(Exit::Code(3).code(), 3);
        assert_eq!(Exit::Signal(15).code(), 143);
        assert_eq!(Exit::Signal(9).code(), 137);
    }

    #[test]
    fn members_are_found_by_their_group_and_state() {
        let group = Pid::from_raw(42).expect("a number");
        assert!(is_living_member("43 (sh) S 1 42 7 0 -1", group));
        assert!(is_living_member("43 (a) R 9 9 (b) T 1 42 7 0", group));
        assert!(!is_living_member("43 (sh) Z 1 42 7 0 -1", group));
        assert!(!is_living_member("42 (sh) S 1 41 7 0 -1", group));
        assert!(!is_living_member("42 (sh", group));
        assert!(!is_living_member("", group));
    }

    #[test]
    fn this_test_is_alive() {
        let us = rustix::process::getpgrp();
        assert!(living(us).contains(&rustix::process::getpid()) || living(us) == vec![us]);
    }
}
