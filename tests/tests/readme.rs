//! The README says what is true: its commands run, and print what it shows.
//!
//! Its Rust code is a doc test of this package (`tests/src/lib.rs`).

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use quorlock_tests::native::{PATIENCE, binary, free_ports};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The content of each fenced block of one language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    let blocks = text.split(&fence).skip(1);
    blocks.map(|block| block.split("```").next().unwrap_or_default()).collect()
}

/// The one block of shell commands that begins like this.
fn block<'a>(readme: &'a str, beginning: &str) -> &'a str {
    let found = blocks(readme, "sh").into_iter().find(|block| block.starts_with(beginning));
    found.unwrap_or_else(|| panic!("the README has no block that begins with {beginning:?}"))
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).expect("there is a README")
}

/// A shell that does what a person would have typed, in a folder where nothing else is.
fn shell(folder: &Path, text: &str) -> Command {
    let program = binary().parent().expect("a program is in a folder");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("sh");
    command
        .args(["-e", "-c", text])
        .current_dir(folder)
        .env_clear()
        .env("PATH", format!("{}:{path}", program.display()))
        .env("HOME", folder)
        .env("XDG_RUNTIME_DIR", folder)
        .stdin(Stdio::null());
    command
}

fn output(folder: &Path, text: &str) -> Output {
    shell(folder, text).output().expect("there is a shell")
}

/// Runs commands that must succeed, and gives what they print.
fn succeed(folder: &Path, text: &str) -> String {
    let output = output(folder, text);
    assert!(output.status.success(), "{text}: {output:?}");
    String::from_utf8(output.stdout).expect("they print text")
}

/// Runs a command again and again until it succeeds: a new cluster has no leader at first.
fn succeed_soon(folder: &Path, text: &str) -> String {
    let start = Instant::now();
    loop {
        let output = output(folder, text);
        if output.status.success() {
            return String::from_utf8(output.stdout).expect("they print text");
        }
        assert!(start.elapsed() < PATIENCE, "{text}: {output:?}");
        sleep(Duration::from_millis(50));
    }
}

/// A command that runs until it is stopped.
struct Process(Child);

impl Process {
    /// Starts it; what it says to people goes to a file.
    fn start(folder: &Path, text: &str, log: &str) -> Self {
        let log = fs::File::create(folder.join(log)).expect("the folder is ours");
        // In the place of the shell, so that signals reach it.
        let mut command = shell(folder, &format!("exec {text}"));
        Self(command.stdout(Stdio::piped()).stderr(log).spawn().expect("there is a shell"))
    }

    /// Waits until it has printed something.
    fn first_line(&mut self) -> String {
        let mut line = String::new();
        let output = self.0.stdout.as_mut().expect("it is piped");
        BufReader::new(output).read_line(&mut line).expect("it prints text");
        line
    }

    fn stop(&mut self, signal: Signal) -> ExitStatus {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a child has a process id"), signal).expect("it is our child");
        self.0.wait().expect("it is our child")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().expect("it is our child");
        self.0.wait().expect("it is our child");
    }
}

#[test]
fn the_first_example_prints_what_the_readme_shows() {
    let readme = readme();
    let commands = blocks(&readme, "sh").into_iter().map(str::trim);
    let command = commands.into_iter().find(|command| command.ends_with("--example first_lock"));
    let arguments = command.and_then(|command| command.strip_prefix("cargo "));
    let arguments = arguments.expect("the README runs the example with cargo");
    let output = Command::new(env!("CARGO"))
        .current_dir(root())
        // The outer cargo may hold the lock of the usual folder.
        .env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("readme"))
        .args(arguments.split_whitespace())
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(blocks(&readme, "text").contains(&printed.as_ref()), "it prints\n{printed}");
}

#[test]
fn a_held_lock_in_a_minute() {
    let readme = readme();
    let folder = TempDir::with_prefix("quorlock-readme-").expect("there is room");
    let folder = folder.path();
    let mut cluster = Process::start(folder, block(&readme, "quorlock dev"), "dev.log");
    cluster.first_line();
    let printed = succeed_soon(folder, block(&readme, "quorlock run"));
    let mut lines = printed.lines();
    let token = lines.next().and_then(|line| line.strip_prefix("my token is "));
    assert!(token.is_some_and(|token| token.parse::<u64>().is_ok()), "{printed}");
    assert!(printed.contains("\nhello\n") && printed.contains("Healthy"), "{printed}");

    assert_eq!(cluster.stop(Signal::INT).code(), Some(0));
    let mut again = Process::start(folder, block(&readme, "quorlock dev"), "dev.log");
    again.first_line();
    assert_eq!(succeed_soon(folder, "quorlock cat log"), "hello\n");
    assert_eq!(again.stop(Signal::INT).code(), Some(0));
}

#[test]
fn five_servers_by_hand() {
    let readme = readme();
    let folder = TempDir::with_prefix("quorlock-readme-").expect("there is room");
    let folder = folder.path();
    succeed(folder, block(&readme, "quorlock certs"));
    let ports = free_ports(5);
    // First to what is no number: a free port may have the digits of another one.
    let free = |text: &str| {
        let name = |place: usize| format!("<port {place}>");
        let places = 0..ports.len();
        let named = places.clone().fold(text.to_owned(), |text, place| {
            text.replace(&(7000 + place).to_string(), &name(place))
        });
        places.fold(named, |text, place| text.replace(&name(place), &ports[place].to_string()))
    };
    let written = block(&readme, "quorlock server").trim_end();
    let as_written = [0, 1, 2, 3, 4].map(|id| {
        let node = written
            .replace("--id 0 --port 7000", &format!("--id {id} --port 700{id}"))
            .replace("data-0", &format!("data-{id}"))
            .replace("node-0", &format!("node-{id}"));
        // So that nothing is left behind when this test is killed.
        free(&node) + &format!(" --die-with-parent {}", std::process::id())
    });
    let start = |again: bool| {
        let each = |(id, text): (usize, &String)| {
            let text = if again { text.replace(" --bootstrap", "") } else { text.clone() };
            Process::start(folder, &text, &format!("node-{id}.log"))
        };
        let mut nodes: Vec<Process> = as_written.iter().enumerate().map(each).collect();
        for (id, node) in nodes.iter_mut().enumerate() {
            let log = || fs::read_to_string(folder.join(format!("node-{id}.log")));
            assert!(!node.first_line().is_empty(), "node {id} does not start: {:?}", log());
        }
        nodes
    };
    let status = free(block(&readme, "quorlock status"));
    for again in [false, true] {
        let mut nodes = start(again);
        let healthy = succeed_soon(folder, &status);
        assert!(healthy.contains("5 of 5 nodes answer"), "{healthy}");
        for node in &mut nodes {
            assert_eq!(node.stop(Signal::TERM).code(), Some(0));
        }
    }
}

#[test]
fn the_table_has_every_command() {
    let here = std::env::temp_dir();
    let help = succeed(&here, "quorlock help");
    let commands = help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next());
    let commands = commands.expect("the help lists the commands").lines();
    let helped: BTreeSet<&str> =
        commands.filter_map(|line| line.split_whitespace().next()).collect();
    let readme = readme();
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `quorlock "));
    let listed: BTreeSet<&str> = rows.filter_map(|row| row.split('`').next()).collect();
    assert_eq!(listed.len(), 19, "{listed:?}");
    let but_help: BTreeSet<&str> = helped.iter().copied().filter(|name| *name != "help").collect();
    assert_eq!(listed, but_help);
    for name in listed {
        let help = succeed(&here, &format!("quorlock help {name}"));
        assert!(help.contains(&format!("quorlock {name}")), "{help}");
    }
}

#[test]
fn every_option_that_the_readme_names_exists() {
    let here = std::env::temp_dir();
    let help = succeed(&here, "quorlock server --help");
    for option in ["--id", "--port", "--create-files", "--load-state", "--bootstrap", "--listen"] {
        assert!(readme().contains(&format!("`{option}`")) && help.contains(option), "{option}");
    }
}

#[test]
fn every_file_that_a_document_links_to_exists() {
    for document in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        let text = fs::read_to_string(root().join(document)).expect("the document is there");
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.starts_with("http")) {
            assert!(root().join(target).exists(), "{document} links to {target}");
        }
    }
}

#[test]
fn the_commands_for_benches_and_tests_name_what_exists() {
    let readme = readme();
    let commands = blocks(&readme, "sh").concat();
    assert!(commands.contains("tests/run") && root().join("tests/run").exists());
    assert!(commands.contains("cargo bench -p quorlock-perf"));
    assert!(root().join("perf/benches").exists());
}
