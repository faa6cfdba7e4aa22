//! Commands under a lock that is only pretended, with real processes.
//!
//! What is tested has to be a process of its own, since it is killed and stopped. So this test's
//! program is started again: told by the environment, [`helper`] plays the roles of `quorlock run`,
//! of its guard, and of the step before the command.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quorlock_core::time::Time;
use rustix::process::{Pid, Signal, kill_process};

use super::exec::ExecArguments;
use super::group::{Group, living};
use super::ourselves::{Ourselves, SEPARATOR};
use super::signals::Signals;
use super::supervise::{Hold, News, Supervised};
use super::terminal::Terminal;
use super::{OnLost, exec};
use crate::cli::exit::Exit;
use crate::cli::guard;
use crate::clock;

const ROLE: &str = "QUORLOCK_TEST_ROLE";
/// How long any condition may take before a test fails.
const PATIENCE: Duration = Duration::from_mins(1);
/// A lease that does not end while a test runs.
const LONG: Duration = Duration::from_mins(10);
/// One that does.
const SHORT: Duration = Duration::from_secs(3);

fn ourselves() -> Ourselves {
    Ourselves::as_test("cli::run::tests::helper", ROLE)
}

/// No test: plays a role.
#[test]
fn helper() {
    let Some(role) = std::env::var_os(ROLE) else { return };
    let role = role.into_string().expect("tests use plain text");
    let words: Vec<&str> = role.split(SEPARATOR).collect();
    let exit = match words.as_slice() {
        ["__guard"] => guard::watch_over(),
        ["__exec", "--parent", parent, "--", command @ ..] => exec::run(&ExecArguments {
            parent: parent.parse().expect("a number"),
            command: command.iter().map(OsString::from).collect(),
        }),
        ["run", lease, fate, on_lost, command @ ..] => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let lease = Duration::from_millis(lease.parse().expect("a number"));
            let command: Vec<OsString> = command.iter().map(OsString::from).collect();
            let on_lost = match *on_lost {
                "term" => OnLost::Term,
                "kill" => OnLost::Kill,
                _ => OnLost::Ignore,
            };
            runtime.expect("there is a runtime").block_on(pretend(lease, fate, on_lost, &command))
        }
        other => panic!("no such role: {other:?}"),
    };
    std::process::exit(i32::from(exit.code()));
}

/// `quorlock run`, without a cluster.
async fn pretend(lease: Duration, fate: &str, on_lost: OnLost, command: &[OsString]) -> Exit {
    let mut signals = Signals::catch().expect("signals can be caught");
    let mut hold = Pretended::new(lease, fate);
    let ourselves = ourselves();
    let group = Group::start(&ourselves, command, &[]).expect("there can be a process");
    let begun =
        Supervised::begin(&mut hold, &ourselves, group, Terminal::none(), on_lost, lease).await;
    let report = begun.expect("there can be a guard").finish(&mut signals).await;
    let report = report.expect("the command can be watched");
    if report.lost.is_some() {
        return Exit::Lost;
    }
    Exit::Other(report.exit.code())
}

/// A lock of which nobody else knows.
struct Pretended {
    safe_until: Arc<AtomicU64>,
    taken_at: Option<Time>,
}

impl Pretended {
    /// Its fate: `renewed`, `forgotten` (renewed no more), or `taken` (from the session, which lives).
    fn new(lease: Duration, fate: &str) -> Self {
        let end = || clock::now().after(lease);
        let safe_until = Arc::new(AtomicU64::new(end().as_micros()));
        if fate != "forgotten" {
            let safe_until = Arc::clone(&safe_until);
            std::thread::spawn(move || {
                // Once it is over, it stays over.
                while clock::now().as_micros() < safe_until.load(Ordering::Relaxed) {
                    safe_until.store(clock::now().after(lease).as_micros(), Ordering::Relaxed);
                    std::thread::sleep((lease / 4).min(Duration::from_secs(1)));
                }
            });
        }
        let taken_at = (fate == "taken").then(clock::now);
        Self { safe_until, taken_at }
    }
}

impl Hold for Pretended {
    fn safe_until(&self) -> Time {
        Time::from_micros(self.safe_until.load(Ordering::Relaxed))
    }

    async fn news(&mut self) -> News {
        match self.taken_at.take() {
            Some(_) => News::Taken { why: "of a test".to_owned() },
            None => std::future::pending().await,
        }
    }
}

/// A pretended `quorlock run` and a folder for what its command writes.
struct Scene {
    folder: tempfile::TempDir,
    run: Child,
}

impl Scene {
    /// Runs a shell script, whose `$0` is the folder.
    fn start(lease: Duration, fate: &str, on_lost: &str, script: &str) -> Self {
        let folder = tempfile::tempdir().expect("there can be a folder");
        let path = folder.path().to_str().expect("it is plain text").to_owned();
        let lease = lease.as_millis().to_string();
        let arguments = ["run", &lease, fate, on_lost, "sh", "-c", script, &path];
        let mut run = ourselves().command(&arguments);
        // What a test leaves behind must not keep the test's own output open.
        let run =
            run.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("it can be started");
        Self { folder, run }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn is_there(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// The number that the command wrote.
    fn number(&self, name: &str) -> Pid {
        wait_for(&format!("the number in {name}"), || number_in(&self.path(name)))
    }

    /// The process group of the command, once its script has written its own number as `leader`.
    fn group(&self) -> Pid {
        self.number("leader")
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.run), signal).expect("it is there");
    }

    fn code(&mut self) -> Option<i32> {
        let run = &mut self.run;
        let status: ExitStatus = wait_for("its end", || run.try_wait().expect("it is our child"));
        status.code()
    }

    /// Its guards, by number.
    fn guards(&self) -> Vec<Pid> {
        let ps = Command::new("ps").args(["-A", "-o", "pid=,ppid="]).output().expect("there is ps");
        let us = i32::try_from(self.run.id()).expect("it is a number");
        let (listed, leader) = (String::from_utf8_lossy(&ps.stdout).into_owned(), self.group());
        let mut guards = Vec::new();
        for line in listed.lines() {
            let numbers: Vec<i32> = line.split_whitespace().flat_map(str::parse).collect();
            if let [pid, parent] = numbers[..]
                && parent == us
                && pid != leader.as_raw_pid()
                && !is_ended(pid)
            {
                guards.extend(Pid::from_raw(pid));
            }
        }
        guards
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // A test that failed leaves nothing behind: the guard ends the rest.
        drop(self.run.kill());
        drop(self.run.wait());
    }
}

fn is_ended(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}

fn number_in(path: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(path).ok()?;
    text.strip_suffix('\n')?.parse().ok().and_then(Pid::from_raw)
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn wait_until_gone(group: Pid) {
    wait_for("the end of the group", || living(group).is_empty().then_some(()));
}

/// Two processes of the group, which do not end by themselves.
const TWO: &str = "echo $$ > $0/leader; sleep 1000 & echo $! > $0/other; wait";

#[test]
fn exit_codes_are_the_commands() {
    for (script, code) in [
        ("exit 0", 0),
        ("exit 3", 3),
        ("kill -9 $$", 137),
        ("kill -TERM $$", 143),
        ("exec /nonexistent/command", 127),
    ] {
        let mut scene = Scene::start(LONG, "renewed", "term", script);
        assert_eq!(scene.code(), Some(code), "{script}");
    }
}

#[test]
fn a_command_that_cannot_be_run_ends_as_in_a_shell() {
    for (command, code) in [("/nonexistent/command", 127), ("/etc/passwd", 126)] {
        let lease = LONG.as_millis().to_string();
        let mut run = ourselves().command(&["run", &lease, "renewed", "term", command]);
        let status = run.status().expect("it can be started");
        assert_eq!(status.code(), Some(code), "{command}");
    }
}

#[test]
fn signals_reach_the_command() {
    let script = "trap 'exit 5' HUP; echo $$ > $0/leader; while :; do sleep 0.05; done";
    let mut scene = Scene::start(LONG, "renewed", "term", script);
    scene.group();
    scene.signal(Signal::HUP);
    assert_eq!(scene.code(), Some(5));
}

#[test]
fn killed_with_all_that_the_command_started() {
    let mut scene = Scene::start(LONG, "renewed", "term", TWO);
    let group = scene.group();
    scene.number("other");
    scene.signal(Signal::KILL);
    scene.code();
    wait_until_gone(group);
}

#[test]
fn stopped_past_the_lease() {
    let mut scene = Scene::start(SHORT, "renewed", "term", TWO);
    let group = scene.group();
    scene.signal(Signal::STOP);
    wait_until_gone(group);
    scene.signal(Signal::CONT);
    assert_eq!(scene.code(), Some(75));
}

#[test]
fn a_lease_that_is_not_renewed_ends_what_ignores_term() {
    let script = "trap '' TERM; echo $$ > $0/leader; while :; do sleep 0.05; done";
    let mut scene = Scene::start(SHORT, "forgotten", "term", script);
    let group = scene.group();
    assert_eq!(scene.code(), Some(75));
    wait_until_gone(group);
}

#[test]
fn the_command_may_clean_up() {
    let script = "trap 'touch $0/clean; exit 0' TERM; echo $$ > $0/leader; \
                  while :; do sleep 0.05; done";
    let mut scene = Scene::start(Duration::from_secs(5), "forgotten", "term", script);
    assert_eq!(scene.code(), Some(75));
    assert!(scene.is_there("clean"));
}

#[test]
fn what_outlives_the_commands_end_is_ended_with_the_lock() {
    let script = "trap 'exit 0' TERM; (trap '' TERM; echo $$ > $0/leader; \
                  while :; do sleep 0.05; done) & wait";
    let mut scene = Scene::start(SHORT, "forgotten", "term", script);
    let group = scene.group();
    assert_eq!(scene.code(), Some(75));
    assert_eq!(living(group), Vec::new());
}

#[test]
fn a_lock_that_is_taken_away() {
    for on_lost in ["term", "kill"] {
        let mut scene = Scene::start(Duration::from_secs(5), "taken", on_lost, TWO);
        assert_eq!(scene.code(), Some(75), "{on_lost}");
    }
}

#[test]
fn a_loss_may_be_ignored_and_shows_all_the_same() {
    let script = "sleep 0.5; touch $0/done";
    let mut scene = Scene::start(SHORT, "taken", "ignore", script);
    assert_eq!(scene.code(), Some(75));
    assert!(scene.is_there("done"));
}

#[test]
fn a_guard_that_is_killed_is_replaced() {
    let mut scene = Scene::start(LONG, "renewed", "term", TWO);
    let group = scene.group();
    let first = scene.guards();
    for guard in &first {
        kill_process(*guard, Signal::KILL).expect("it is there");
    }
    let second = wait_for("another guard", || {
        Some(scene.guards()).filter(|guards| !guards.is_empty() && *guards != first)
    });
    assert_eq!((first.len(), second.len()), (1, 1));
    assert!(!living(group).is_empty());
    scene.signal(Signal::KILL);
    scene.code();
    wait_until_gone(group);
}

#[test]
fn what_the_command_leaves_behind_goes_on() {
    let script = "echo $$ > $0/leader; sleep 1000 & echo $! > $0/other";
    let mut scene = Scene::start(LONG, "renewed", "term", script);
    let (group, other) = (scene.group(), scene.number("other"));
    assert_eq!(scene.code(), Some(0));
    assert_eq!(living(group), vec![other]);
    kill_process(other, Signal::KILL).expect("it is there");
    wait_until_gone(group);
}
