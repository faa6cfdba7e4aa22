//! Between fork and exec: a new process makes sure that it dies with its parent, then becomes the
//! command.
//!
//! A process can ask the kernel for a signal at its parent's death (Linux, `PR_SET_PDEATHSIG`), but
//! only for itself, and after a fork there is no place for it in safe code. So the child runs this
//! program first. It also stops here, before the command exists: the parent tells the guard about the
//! group and hands it the terminal meanwhile, and only then lets it go on. So there is no moment at
//! which the command runs and nobody would end it.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Pid, Signal};

use super::say;
use crate::cli::exit::Exit;

/// The command is there, but cannot be run; as shells say it.
const NOT_EXECUTABLE: u8 = 126;
/// There is no such command; as shells say it.
const NOT_FOUND: u8 = 127;

/// The hidden command that does this.
pub(crate) const COMMAND: &str = "__exec";

/// What the child is told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ExecArguments {
    /// The process that must be alive for the command to be.
    #[arg(long)]
    pub(super) parent: i32,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    pub(super) command: Vec<OsString>,
}

/// The arguments for the child of this process.
pub(super) fn arguments(command: &[OsString]) -> Vec<OsString> {
    let parent = rustix::process::getpid().as_raw_pid().to_string();
    let first = [COMMAND, "--parent", &parent, "--"];
    first.iter().map(OsString::from).chain(command.iter().cloned()).collect()
}

/// Becomes the command. Returns only when that fails.
///
/// To be called by the only thread, so that nothing else is lost with the process.
pub(crate) fn run(arguments: &ExecArguments) -> Exit {
    let [program, rest @ ..] = arguments.command.as_slice() else {
        return Exit::Usage;
    };
    die_with_the_parent();
    let is_parent_there =
        || rustix::process::getppid().map(Pid::as_raw_pid) == Some(arguments.parent);
    // It may have died before we asked to hear of that.
    if !is_parent_there() || stand_still().is_err() || !is_parent_there() {
        return Exit::Internal;
    }
    let error = Command::new(program).args(rest).exec();
    say(&format!("cannot run {}: {error}", program.display()));
    Exit::Other(if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE })
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn die_with_the_parent() {
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        // The guard would still end it.
        say(&format!("cannot ask for a signal at the parent's death: {error}"));
    }
}

/// Elsewhere it is the guard alone that ends the group.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn die_with_the_parent() {}

/// Stops until the parent says to go on. The signal is for this very thread, so that it does not get
/// beyond this line before the process is stopped.
fn stand_still() -> nix::Result<()> {
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP)
}
