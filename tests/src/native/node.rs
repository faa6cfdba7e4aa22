//! One node, as a process.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::binary::binary;

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its id.
    pub id: u64,
    /// Where it accepts connections.
    pub address: SocketAddr,
    /// All nodes, as the option `--peers` has them.
    pub peers: String,
    /// Its data directory.
    pub data: PathBuf,
    /// Where its messages go.
    pub log: PathBuf,
    /// The certificate of the authority.
    pub ca: PathBuf,
    /// Its own.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Further arguments.
    pub arguments: Vec<String>,
}

/// A node that runs, or does not.
#[derive(Debug)]
pub struct Node {
    spec: Spec,
    process: Option<Child>,
    paused: bool,
}

impl Node {
    /// A node that does not run yet.
    pub fn new(spec: Spec) -> Self {
        Self { spec, process: None, paused: false }
    }

    /// What it is started with.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The same, to change it before the next start.
    pub fn spec_mut(&mut self) -> &mut Spec {
        &mut self.spec
    }

    /// The command that starts it. What it prints goes to its log, which grows from start to start.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let Spec { id, address, peers, data, ca, certificate, key, .. } = &self.spec;
        let mut command = Command::new(binary());
        command
            .arg("server")
            .args(["--id", &id.to_string(), "--port", &address.port().to_string()])
            .args(["--peers", peers])
            .arg("--data-dir")
            .arg(data)
            .arg("--ca")
            .arg(ca)
            .arg("--cert")
            .arg(certificate)
            .arg("--key")
            .arg(key)
            .args(["--die-with-parent", &std::process::id().to_string()])
            .args(&self.spec.arguments)
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(self.log());
        command
    }

    fn log(&self) -> File {
        let mut options = OpenOptions::new();
        options.create(true).append(true).open(&self.spec.log).expect("the log can be opened")
    }

    /// Starts it, and waits for the line by which it says that it is ready.
    ///
    /// It has to be started by a thread that stays: it ends when that thread does.
    pub fn start(&mut self, arguments: &[&str]) {
        assert!(self.process.is_none(), "node {} runs already", self.spec.id);
        let mut command = self.command(arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the program starts");
        let stdout = child.stdout.take().expect("it is piped");
        let mut ready = String::new();
        BufReader::new(stdout).read_line(&mut ready).expect("it can be read");
        self.process = Some(child);
        self.paused = false;
        assert!(!ready.is_empty(), "node {} did not start: {}", self.spec.id, self.logged());
    }

    /// Starts it, expects it to refuse, and gives its exit status and what it logged.
    pub fn start_in_vain(&self, arguments: &[&str]) -> (ExitStatus, String) {
        let before = self.logged().len();
        let mut command = self.command(arguments);
        let status = command.stdout(Stdio::null()).status().expect("the program starts");
        (status, self.logged().split_off(before))
    }

    /// Everything that it has logged.
    pub fn logged(&self) -> String {
        std::fs::read_to_string(&self.spec.log).unwrap_or_default()
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Whether it was started and not killed. It may have ended by itself.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Whether it runs and is not paused.
    pub fn is_up(&self) -> bool {
        self.is_running() && !self.paused
    }

    /// Whether it has ended, by itself or by a signal.
    pub fn has_ended(&mut self) -> bool {
        let Some(child) = &mut self.process else { return true };
        child.try_wait().expect("it is our child").is_some()
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let mut child = self.process.take().expect("it runs");
        child.wait().expect("it is our child")
    }

    fn signal(&self, signal: Signal) {
        let child = self.process.as_ref().expect("it runs");
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a child has a process id"), signal).expect("it is our child");
    }

    /// Sends the signal that cannot be caught, and does not wait.
    pub fn signal_kill(&self) {
        if self.process.is_some() {
            self.signal(Signal::KILL);
        }
    }

    /// Kills it, as a crash would. Harmless when it does not run.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.process.take() {
            child.kill().expect("it is our child");
            child.wait().expect("it is our child");
        }
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Stops its time, as a hypervisor could.
    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
        self.paused = true;
    }

    /// Lets it go on.
    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
        self.paused = false;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
