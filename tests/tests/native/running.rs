//! `quorlock run`: a command under a lock, and everything that can happen to the two.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use quorlock::client::{Client, Lock, Wait};
use quorlock_core::ids::NodeId;
use quorlock_tests::native::{Cluster, PATIENCE, Relay, binary};
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinHandle;

/// The lock of these tests.
const LOCK: &str = "deploy";

/// A process, and a child of it, that end at no signal but KILL. Both say who they are.
const STUBBORN: &str = "
    trap '' TERM INT HUP QUIT
    sh -c 'echo $$; while :; do sleep 0.05; done' &
    echo $$
    while :; do sleep 0.05; done
";

/// Two processes that say that they got `$SIGNAL`, and the one that started them, which ends with 7.
const OBEDIENT: &str = r#"
    worker='trap "echo $0 got $SIGNAL; exit 0" $SIGNAL; echo $0; while :; do sleep 0.05; done'
    trap : $SIGNAL
    exec 3>&1
    sh -c "$worker" one >&3 | sh -c "$worker" two >&3
    exit 7
"#;

/// A program that runs, with its input and output in the hands of the test.
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stdin = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Self { child, stdin, lines }
    }

    /// The next line that it prints; empty at the end.
    pub(crate) fn line(&mut self) -> String {
        self.lines.next().map(|line| line.expect("it prints text")).unwrap_or_default()
    }

    /// The next lines, which are process ids.
    fn pids<const N: usize>(&mut self) -> [i32; N] {
        [(); N].map(|()| self.line().parse().expect("it prints who it is"))
    }

    pub(crate) fn tell(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("its input is open");
        writeln!(stdin, "{line}").expect("it reads what it is told");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a child has a process id"), signal).expect("it is our child");
    }

    /// Waits for its end. Gives how it ended, and what it said to people.
    pub(crate) async fn end(&mut self, cluster: &Cluster) -> (ExitStatus, String) {
        self.stdin = None;
        let mut ended = async || loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let ended = tokio::time::timeout(PATIENCE, ended()).await;
        let status = ended.unwrap_or_else(|_| panic!("it does not end\n{}", cluster.logs()));
        let mut said = String::new();
        let stderr = self.child.stderr.as_mut().expect("it is piped");
        stderr.read_to_string(&mut said).expect("it says text");
        (status, said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }
}

/// `quorlock run` with these options, and a shell that does `script`; `$0` is the program.
fn run(cluster: &Cluster, options: &[&str], script: &str) -> Command {
    let mut command = cluster.command(&["run"]);
    command.args(options).args(["--", "sh", "-c", script]).arg(binary());
    command
}

/// Whether a process is there, and no mere remainder that its parent has not looked at.
fn lives(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    !matches!(state, Some('Z' | 'X') | None)
}

fn assert_gone(pids: &[i32]) {
    let living: Vec<&i32> = pids.iter().filter(|pid| lives(**pid)).collect();
    assert!(living.is_empty(), "{living:?} of {pids:?} run on");
}

/// Waits for the lock in a session that lasts, from now on.
async fn waiter(cluster: &Cluster) -> JoinHandle<Lock> {
    let client = cluster.client_with(cluster.options().lease(Duration::from_secs(30))).await;
    tokio::spawn(async move {
        client.acquire(LOCK, Wait::Forever).await.expect("it is granted in the end")
    })
}

async fn hold(client: &Client) -> Lock {
    client.acquire(LOCK, Wait::Forever).await.expect("it is granted")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_is_as_if_it_ran_alone() {
    let cluster = Cluster::start(3).await;
    for (script, code) in
        [("exit 0", 0), ("exit 42", 42), ("kill -KILL $$", 137), ("kill -TERM $$", 143)]
    {
        let output = run(&cluster, &[LOCK], script).output().expect("it starts");
        assert_eq!(output.status.code(), Some(code), "{script}: {output:?}");
    }
    for (program, code) in [("./there-is-no-such-program", 127), ("/", 126)] {
        let output = cluster.run(&["run", LOCK, "--", program]);
        assert_eq!(output.status.code(), Some(code), "{program}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(program), "{output:?}");
    }

    let mut running = Running::start(&mut run(&cluster, &[LOCK], "cat; echo aside >&2"));
    running.tell("through");
    let (status, said) = running.end(&cluster).await;
    assert_eq!((status.code(), said.as_str()), (Some(0), "aside\n"));
    assert_eq!((running.line(), running.line()), ("through".to_owned(), String::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_finds_lock_and_cluster_and_an_inner_run_its_own() {
    let cluster = Cluster::start(3).await;
    let token = |line: &str| -> u64 { line.trim().parse().expect("a token") };
    let print = ["run", LOCK, "--", "sh", "-c", "echo $QUORLOCK_TOKEN"];
    let first = token(&cluster.succeed(&print));
    let second = token(&cluster.succeed(&print));
    assert!(second > first, "{second} came after {first}");

    // The outer one knows the cluster by its options alone, and the inner one from the outer one.
    let inner = "echo $QUORLOCK_LOCK $QUORLOCK_TOKEN $QUORLOCK_SESSION $QUORLOCK_SOCKET";
    let script = format!(
        "echo $QUORLOCK_LOCK $QUORLOCK_TOKEN $QUORLOCK_SESSION $QUORLOCK_SOCKET
         cd / && \"$0\" run inner -- sh -c '{inner}' && \"$0\" why {LOCK} -o plain"
    );
    let mut command = Command::new(binary());
    command.arg("run").current_dir(cluster.path(""));
    for (name, value) in cluster.command(&[]).get_envs() {
        let option = match name.to_str() {
            Some("QUORLOCK_ENDPOINTS") => "--endpoints",
            Some("QUORLOCK_CA") => "--ca",
            Some("QUORLOCK_CERT") => "--cert",
            Some("QUORLOCK_KEY") => "--key",
            Some(_) | None => continue,
        };
        command.arg(option).arg(value.expect("it is set")).env_remove(name);
    }
    let output = command
        .env("XDG_RUNTIME_DIR", cluster.path(""))
        .args([LOCK, "--", "sh", "-c", &script])
        .arg(binary())
        .output()
        .expect("it starts");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
    let [outer, inner, _held] = &lines[..] else { panic!("{text}") };
    let ([lock, outer @ ..], [inner_lock, inner @ ..]) = (&outer[..], &inner[..]) else {
        panic!("{text}")
    };
    assert_eq!((*lock, *inner_lock), (LOCK, "inner"));
    assert!(token(outer[0]) > second && token(inner[0]) > token(outer[0]), "{text}");
    assert!(outer[1] != inner[1] && outer[2] != inner[2], "{text}");
    // While the inner one was there, the outer lock was held all along.
    assert!(text.lines().last().is_some_and(|row| row.starts_with("0\t")), "{text}");

    // It would wait for itself.
    let nested = format!("\"$0\" run {LOCK} -- true");
    let output = run(&cluster, &[LOCK], &nested).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("wait for itself"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_reach_all_that_the_command_started() {
    let cluster = Cluster::start(3).await;
    for (name, signal) in
        [("TERM", Signal::TERM), ("INT", Signal::INT), ("HUP", Signal::HUP), ("QUIT", Signal::QUIT)]
    {
        let mut command = run(&cluster, &[LOCK], OBEDIENT);
        let mut running = Running::start(command.env("SIGNAL", name));
        let mut ready = [running.line(), running.line()];
        ready.sort();
        assert_eq!(ready, ["one", "two"]);
        running.signal(signal);
        let mut heard = [running.line(), running.line()];
        heard.sort();
        assert_eq!(heard, ["one", "two"].map(|worker| format!("{worker} got {name}")));
        let (status, said) = running.end(&cluster).await;
        assert_eq!(status.code(), Some(7), "{name}");
        assert!(!said.contains("quorlock"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_not_obtained_runs_nothing() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let held = hold(&client).await;
    for (options, code) in [
        (&["--try", LOCK][..], 1),
        (&["--try", "-E", "9", LOCK], 9),
        (&["--wait", "200ms", "-E", "10", LOCK], 10),
        (&["-w", "0.2", LOCK], 1),
    ] {
        let output = run(&cluster, options, "echo it runs").output().expect("it starts");
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(code), &b""[..]));
        assert!(String::from_utf8_lossy(&output.stderr).contains(LOCK), "{output:?}");
    }

    // Who does not want to wait any more leaves the queue.
    let mut waiting = Running::start(&mut run(&cluster, &[LOCK], "echo it runs"));
    let waiters = async || Some(client.inspect(LOCK).await.ok()?.waiters);
    cluster.wait_for("somebody who waits", async || (waiters().await? == 1).then_some(())).await;
    waiting.signal(Signal::TERM);
    let (status, _said) = waiting.end(&cluster).await;
    assert_eq!((status.code(), waiting.line()), (Some(143), String::new()));
    cluster.wait_for("an empty queue", async || (waiters().await? == 0).then_some(())).await;
    held.release().await.expect("it was held");

    // Wrong ways to ask, each of which says what is wrong.
    for arguments in [
        &["run"][..],
        &["run", LOCK],
        &["run", LOCK, "--"],
        &["run", "--try", "--wait", "1", LOCK, "--", "true"],
        &["run", "--ttl", "soon", LOCK, "--", "true"],
        &["run", "", "--", "true"],
    ] {
        let output = cluster.run(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {output:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty());
    }

    for id in [0, 1] {
        cluster.node_mut(id).kill();
    }
    let options = ["--timeout", "1", LOCK];
    let output = run(&cluster, &options, "echo it runs").output().expect("it starts");
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(69), &b""[..]), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("quorlock status"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_taken_away_ends_the_command() {
    let cluster = Cluster::start(3).await;
    let admin = cluster.client_with({
        let mut options = cluster.options();
        options.credentials = cluster.credentials("admin");
        options
    });
    let admin = admin.await;
    let mut running = Running::start(&mut run(&cluster, &["--ttl", "3", LOCK], STUBBORN));
    let pids: [i32; 2] = running.pids();
    let holder = admin.inspect(LOCK).await.expect("it is served").holder.expect("it is held");
    admin.break_lock(LOCK, holder.token, "we need it").await.expect("it is held with this token");
    let (status, said) = running.end(&cluster).await;
    assert_gone(&pids);
    assert_eq!(status.code(), Some(75), "{said}");
    assert!(said.contains("the lock is lost") && said.contains("we need it"), "{said}");

    // The same when its time is over, whatever the command returns.
    let options = ["--ttl", "3", "--max-hold", "300ms", LOCK];
    let script = "trap 'exit 0' TERM; echo $$; while :; do sleep 0.05; done";
    let mut running = Running::start(&mut run(&cluster, &options, script));
    let pids: [i32; 1] = running.pids();
    let (status, said) = running.end(&cluster).await;
    assert_gone(&pids);
    assert_eq!(status.code(), Some(75), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_whose_cluster_is_silent_is_gone_before_the_next_grant() {
    let mut cluster = Cluster::start(3).await;
    for is_power_failure in [false, true] {
        let mut running = Running::start(&mut run(&cluster, &["--ttl", "2", LOCK], STUBBORN));
        let pids: [i32; 2] = running.pids();
        let next = waiter(&cluster).await;
        if is_power_failure {
            cluster.kill_all();
        } else {
            cluster.ids().into_iter().for_each(|id| cluster.node_mut(id).pause());
        }
        let (status, said) = running.end(&cluster).await;
        assert_gone(&pids);
        assert_eq!(status.code(), Some(75), "{said}");
        assert!(said.contains("in jeopardy") && said.contains("the lock is lost"), "{said}");
        if is_power_failure {
            cluster.restart_all();
        } else {
            cluster.ids().into_iter().for_each(|id| cluster.node_mut(id).resume());
        }
        next.await.expect("no panic").release().await.expect("it is held");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_cut_off_from_the_cluster_is_gone_before_the_next_grant() {
    let cluster = Cluster::start(3).await;
    let mut relays = Vec::new();
    let mut endpoints = Vec::new();
    for id in cluster.ids() {
        let relay = Relay::to(cluster.node(id).spec().address).await;
        let address: SocketAddr = relay.address();
        endpoints.push(format!("{}={address}", NodeId::new(id)));
        relays.push(relay);
    }
    let mut command = run(&cluster, &["--ttl", "2", LOCK], STUBBORN);
    let mut running = Running::start(command.env("QUORLOCK_ENDPOINTS", endpoints.join(",")));
    let pids: [i32; 2] = running.pids();
    let next = waiter(&cluster).await;
    relays.iter().for_each(Relay::cut);
    // The servers end its lease; nobody told the command's side.
    let lock = next.await.expect("no panic");
    assert_gone(&pids);
    lock.release().await.expect("it is held");
    let (status, said) = running.end(&cluster).await;
    assert_eq!(status.code(), Some(75), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_whose_run_was_killed_is_gone_before_the_next_grant() {
    let cluster = Cluster::start(3).await;
    let mut running = Running::start(&mut run(&cluster, &["--ttl", "2", LOCK], STUBBORN));
    let pids: [i32; 2] = running.pids();
    let next = waiter(&cluster).await;
    running.signal(Signal::KILL);
    let (status, _said) = running.end(&cluster).await;
    assert_eq!(status.signal(), Some(9));
    let lock = next.await.expect("no panic");
    assert_gone(&pids);
    lock.release().await.expect("it is held");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_whose_run_was_stopped_is_gone_before_the_next_grant() {
    let cluster = Cluster::start(3).await;
    let mut running = Running::start(&mut run(&cluster, &["--ttl", "2", LOCK], STUBBORN));
    let pids: [i32; 2] = running.pids();
    let next = waiter(&cluster).await;
    running.signal(Signal::STOP);
    let lock = next.await.expect("no panic");
    assert_gone(&pids);
    lock.release().await.expect("it is held");
    running.signal(Signal::CONT);
    let (status, said) = running.end(&cluster).await;
    assert_eq!(status.code(), Some(75), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_appends_under_its_lock_and_not_after_it_was_lost() {
    let cluster = Cluster::start(3).await;
    let script = r#"
        "$0" append log "first $QUORLOCK_TOKEN" -o plain; echo $?
        read go
        "$0" append log late; echo $?
    "#;
    let options = ["--on-lost", "ignore", LOCK];
    let mut running = Running::start(&mut run(&cluster, &options, script));
    let appended = running.line();
    let [file, offset, length, token] = &appended.split('\t').collect::<Vec<_>>()[..] else {
        panic!("{appended}")
    };
    assert_eq!((*file, *offset), ("log", "0"));
    assert_eq!(*length, format!("first {token}\n").len().to_string());
    assert_eq!(running.line(), "0");

    cluster.succeed(&["break", LOCK, "--token", token, "--reason", "a test"]);
    let client = cluster.client().await;
    let next = hold(&client).await;
    next.append("log", "by the next\n").await.expect("it is held");
    running.tell("go");
    assert_eq!(running.line(), "75");
    let (status, said) = running.end(&cluster).await;
    assert_eq!(status.code(), Some(75), "{said}");
    assert_eq!(cluster.succeed(&["cat", "log"]), format!("first {token}\nby the next\n"));
    next.release().await.expect("it was held all along");

    // Somebody who died with the lock in hand, and one who died waiting for it, hold nobody up for longer
    // than their leases.
    let mut dead =
        Running::start(&mut run(&cluster, &["--ttl", "2", LOCK], "echo up; exec sleep 60"));
    assert_eq!(dead.line(), "up");
    let mut waits = Running::start(&mut run(&cluster, &["--ttl", "2", LOCK], "echo up"));
    let waiters = async || Some(client.inspect(LOCK).await.ok()?.waiters);
    cluster.wait_for("somebody who waits", async || (waiters().await? == 1).then_some(())).await;
    for running in [&mut waits, &mut dead] {
        running.signal(Signal::KILL);
        running.end(&cluster).await;
    }
    hold(&client).await.release().await.expect("it is held");
    assert_eq!(waits.line(), "");
}
