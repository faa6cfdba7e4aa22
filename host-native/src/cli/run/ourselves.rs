//! Starts this very program again, in another role.
//!
//! `quorlock run` needs two helpers that are processes of their own: the guard, and the step between
//! fork and exec ([`super::exec`](mod@super::exec)). Both are this program with a hidden command, so there is nothing
//! else to install, and their version is always ours.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

/// Between the arguments of a role that travels in the environment.
#[cfg(test)]
pub(super) const SEPARATOR: &str = "\u{1f}";

/// How to start this program again.
#[derive(Clone, Debug)]
pub(crate) struct Ourselves {
    program: PathBuf,
    /// What comes before the arguments of the role.
    first: Vec<OsString>,
    /// Set where the role travels in the environment, because the arguments are somebody else's: a
    /// test runs as a test's program.
    #[cfg(test)]
    role_variable: Option<&'static str>,
}

impl Ourselves {
    /// The running program.
    ///
    /// # Errors
    /// If the system does not say which it is.
    pub(crate) fn find() -> std::io::Result<Self> {
        // The link works also when the file was replaced by a newer version meanwhile.
        let link = PathBuf::from("/proc/self/exe");
        let program = if link.exists() { link } else { std::env::current_exe()? };
        Ok(Self {
            program,
            first: Vec::new(),
            #[cfg(test)]
            role_variable: None,
        })
    }

    /// A test's program, which runs the test `name` when the role is to be played; that finds the
    /// arguments in the environment, separated by [`SEPARATOR`].
    #[cfg(test)]
    pub(crate) fn as_test(name: &str, role_variable: &'static str) -> Self {
        // One thread, so that it is the main one that plays: the others would not have its mask.
        let first = ["--exact", name, "--nocapture", "--quiet", "--test-threads=1"];
        Self {
            program: std::env::current_exe().expect("a test has a program"),
            first: first.iter().map(OsString::from).collect(),
            role_variable: Some(role_variable),
        }
    }

    /// The command that plays a role.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.first);
        #[cfg(test)]
        if let Some(variable) = self.role_variable {
            let arguments: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
            command.env(variable, arguments.join(OsStr::new(SEPARATOR)));
            return command;
        }
        command.arg0("quorlock").args(arguments);
        command
    }
}
