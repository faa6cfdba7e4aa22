//! Every command of the program, on a cluster of real processes: what it prints, for people and for
//! programs, and how it ends.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use quorlock::tls::Role;
use quorlock::tls::authority::Authority;
use quorlock_tests::native::{Cluster, DAY, binary, free_ports};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::running::Running;

/// The names of the fields of everything that is printed as JSON: a contract.
const STATUS: &str = "healthy leader nodes quorum reachable term";
const NODE: &str = "address applied commit connections disk error files id lag leader locks role \
                    sessions term uptime_ms version waiters";
const LOCKS: &str = "holder lock waiters";
const HOLDER: &str = "command held_for_ms hold_left_ms host lease_left_ms pid session token user";
const WHY: &str = "holder lock queue waiters";
const WAITER: &str = "command host pid session user waited_for_ms";
const HOLD: &str = "by cause command host pid reason session since_ms token until_ms user";
const FILE: &str = "checksum file guard length";
const APPENDED: &str = "file length offset token";
const ACQUIRED: &str = "deadline lock pid session socket token";
const CERTIFICATE: &str = "cluster days_left file fingerprint name not_after not_before role state";

/// A value with exactly these fields.
#[track_caller]
fn fields(value: &Value, names: &str) {
    let object = value.as_object().unwrap_or_else(|| panic!("{value} has no fields"));
    let found: BTreeSet<&str> = object.keys().map(String::as_str).collect();
    assert_eq!(found, names.split_whitespace().collect());
}

/// Runs a command, which must succeed, and reads what it prints as JSON: one line.
fn json(cluster: &Cluster, arguments: &[&str]) -> Value {
    let text = cluster.succeed(&[arguments, &["-o", "json"]].concat());
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The same as rows and columns.
fn plain(cluster: &Cluster, arguments: &[&str]) -> Vec<Vec<String>> {
    let text = cluster.succeed(&[arguments, &["-o", "plain"]].concat());
    text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// A command that fails: with this code, with nothing on its standard output, and with words for people.
#[track_caller]
fn refused(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_and_what_is_in_them() {
    let mut cluster = Cluster::start(3).await;
    assert!(cluster.succeed(&["files"]).contains("no files"));
    let appended = json(&cluster, &["append", "log", "hello"]);
    fields(&appended, APPENDED);
    assert_eq!((number(&appended["offset"]), number(&appended["length"])), (0, 6));
    let row = &plain(&cluster, &["append", "log", "world", "--no-newline"])[0];
    assert_eq!(row[..3], ["log", "6", "5"]);
    assert!(cluster.succeed(&["append", "log", "!"]).starts_with("FILE"));

    let mut piped = Running::start(&mut cluster.command(&["append", "log", "-"]));
    piped.tell("from a pipe");
    assert_eq!(piped.end(&cluster).await.0.code(), Some(0));
    let all = "hello\nworld!\nfrom a pipe\n";
    assert_eq!(cluster.succeed(&["cat", "log"]), all);
    assert_eq!(cluster.succeed(&["cat", "log", "--from", "6"]), all[6..]);
    assert_eq!(cluster.succeed(&["tail", "log", "-n", "2"]), all[6..]);
    assert!(all.starts_with(&cluster.succeed(&["cat", "log", "--stale"])));

    // What fits no single request is appended in pieces, one behind the other.
    let big = "0123456789abcde\n".repeat(64 << 10);
    let mut piped = Running::start(&mut cluster.command(&["append", "big"]));
    piped.tell(big.trim_end());
    assert_eq!(piped.end(&cluster).await.0.code(), Some(0));
    assert!(cluster.succeed(&["cat", "big"]) == big);

    let made = json(&cluster, &["files", "create", "part", "--guard", "whole", "--count", "3"]);
    let names = |value: &Value| -> Vec<String> {
        let files = value["files"].as_array().expect("a list");
        files.iter().map(|file| file["file"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(names(&made), ["part-0", "part-1", "part-2"]);
    let files = json(&cluster, &["files", "list"]);
    assert_eq!(names(&files), ["big", "log", "part-0", "part-1", "part-2"]);
    files["files"].as_array().expect("a list").iter().for_each(|file| fields(file, FILE));
    let row = &plain(&cluster, &["files"])[1];
    assert_eq!(row[..3], ["log".to_owned(), "log".to_owned(), all.len().to_string()]);

    let wrong = cluster.run(&["append", "part-0", "x", "--lock", "log"]);
    refused(&wrong, 1, &["guarded by the lock whole", "--lock whole"]);
    for command in [&["cat", "nothing"][..], &["tail", "nothing"]] {
        refused(&cluster.run(command), 1, &["nothing"]);
    }
    // A name is no path.
    refused(&cluster.run(&["cat", "../ca.pem"]), 1, &["../ca.pem"]);

    // Who follows a file goes on when the leader is killed.
    let mut tail = Running::start(&mut cluster.command(&["tail", "-f", "log", "-n", "1"]));
    assert_eq!(tail.line(), "from a pipe");
    cluster.succeed(&["append", "log", "before"]);
    assert_eq!(tail.line(), "before");
    let leader = cluster.leader().await;
    cluster.node_mut(leader).kill();
    cluster.succeed(&["append", "log", "after", "--timeout", "60"]);
    assert_eq!(tail.line(), "after");
    tail.signal(Signal::INT);
    assert_eq!(tail.end(&cluster).await.0.code(), Some(130));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_for_a_script() {
    let cluster = Cluster::start(3).await;
    assert!(cluster.succeed(&["locks"]).contains("No lock is held"));
    let acquired = json(&cluster, &["acquire", "deploy"]);
    fields(&acquired, ACQUIRED);
    let token = number(&acquired["token"]).to_string();
    assert!(acquired["deadline"].as_str().is_some_and(|time| time.ends_with('Z')), "{acquired}");

    refused(&cluster.run(&["acquire", "deploy", "--try"]), 1, &["deploy"]);
    let mut waiting =
        Running::start(&mut cluster.command(&["run", "deploy", "--", "echo", "it is mine"]));
    let why = cluster
        .wait_for("somebody who waits", async || {
            Some(json(&cluster, &["why", "deploy"])).filter(|why| why["waiters"] == 1)
        })
        .await;
    fields(&why, WHY);
    fields(&why["holder"], HOLDER);
    fields(&why["queue"][0], WAITER);
    assert_eq!(why["holder"]["command"], "quorlock acquire deploy");
    assert_eq!(why["holder"]["session"], acquired["session"]);
    let places = plain(&cluster, &["why", "deploy"]);
    assert_eq!(places.iter().map(|row| row[0].as_str()).collect::<Vec<_>>(), ["0", "1"]);
    assert!(cluster.succeed(&["why", "deploy"]).contains("1st in queue"));
    let locks = json(&cluster, &["locks"]);
    fields(&locks["locks"][0], LOCKS);
    fields(&locks["locks"][0]["holder"], HOLDER);
    let row = &plain(&cluster, &["locks", "dep"])[0];
    assert_eq!((row[0].as_str(), &row[1], row[5].as_str()), ("deploy", &token, "1"));
    assert!(plain(&cluster, &["locks", "other"]).is_empty());

    // With what `acquire` has printed, other commands work under the lock.
    let mut append = cluster.command(&["append", "log", "under it", "-o", "json"]);
    append
        .env("QUORLOCK_LOCK", "deploy")
        .env("QUORLOCK_TOKEN", &token)
        .env("QUORLOCK_SOCKET", acquired["socket"].as_str().expect("a path"));
    let output = append.output().expect("it starts");
    let appended: Value = serde_json::from_slice(&output.stdout).expect("it was appended");
    assert_eq!(appended["token"], acquired["token"]);

    let wrong = (number(&acquired["token"]) + 1).to_string();
    refused(&cluster.run(&["release", "deploy", "--token", &wrong]), 75, &["not current"]);
    let released = json(&cluster, &["release", "deploy", "--token", &token]);
    fields(&released, "lock token");
    assert_eq!(waiting.line(), "it is mine");
    assert_eq!(waiting.end(&cluster).await.0.code(), Some(0));
    refused(&cluster.run(&["release", "deploy", "--token", &token]), 75, &["released"]);
    let socket = acquired["socket"].as_str().map(Path::new).expect("a path");
    cluster.wait_for("the holder's end", async || (!socket.exists()).then_some(())).await;
    refused(&append.output().expect("it starts"), 75, &["lost", "quorlock why"]);

    let history = json(&cluster, &["history", "deploy"]);
    fields(&history, "holds lock");
    let holds = history["holds"].as_array().expect("a list");
    for hold in holds {
        fields(hold, HOLD);
    }
    let causes: Vec<&Value> = holds.iter().map(|hold| &hold["cause"]).collect();
    assert_eq!(causes, ["released", "released"]);
    assert_eq!(plain(&cluster, &["history", "deploy"])[0][0], token);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_break_a_lock_takes_an_admin_and_the_token() {
    let cluster = Cluster::start(3).await;
    let acquired = json(&cluster, &["acquire", "deploy", "--max-hold", "0"]);
    assert_eq!(acquired["deadline"], Value::Null);
    let token = number(&acquired["token"]);
    let line = |token: u64| {
        let token = token.to_string();
        ["break", "deploy", "--token", &token, "--reason", "it hangs"].map(str::to_owned)
    };
    let as_client = cluster.command_as("client", &[]).args(line(token)).output();
    refused(&as_client.expect("it starts"), 77, &["admin"]);
    let break_it = |token| cluster.command(&[]).args(line(token)).output().expect("it starts");
    refused(&break_it(token + 1), 1, &["quorlock why deploy"]);
    let unnamed = cluster.run(&["break", "deploy", "--reason", "it hangs"]);
    refused(&unnamed, 64, &["--token"]);
    assert!(json(&cluster, &["why", "deploy"])["holder"].is_object());

    let broken = cluster.command(&["-o", "json"]).args(line(token)).output().expect("it starts");
    let broken: Value = serde_json::from_slice(&broken.stdout).expect("it is broken");
    fields(&broken, "lock token");
    refused(&break_it(token), 1, &["nobody holds deploy"]);
    let hold = &json(&cluster, &["history", "deploy"])["holds"][0];
    fields(hold, HOLD);
    fields(&hold["by"], "command host pid user");
    assert_eq!((&hold["cause"], &hold["reason"]), (&"broken".into(), &"it hangs".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_needs_no_quorum_and_says_whether_there_is_one() {
    let mut cluster = Cluster::start(3).await;
    let status = json(&cluster, &["status"]);
    fields(&status, STATUS);
    let nodes = status["nodes"].as_array().expect("a list");
    for node in nodes {
        fields(node, NODE);
    }
    assert_eq!((&status["healthy"], nodes.len()), (&true.into(), 3));
    assert_eq!((number(&status["quorum"]), number(&status["reachable"])), (2, 3));
    assert!(cluster.succeed(&["status"]).contains("Healthy"));
    assert_eq!(plain(&cluster, &["status"])[2].len(), 10);

    cluster.node_mut(0).kill();
    cluster.leader().await;
    let status = json(&cluster, &["status"]);
    assert_eq!((number(&status["reachable"]), &status["healthy"]), (2, &true.into()));
    assert!(status["nodes"][0]["error"].as_str().is_some_and(|error| error.contains("listens")));

    cluster.node_mut(1).kill();
    let without = async || {
        let output = cluster.run(&["status", "-o", "json"]);
        (output.status.code() == Some(1)).then_some(output)
    };
    let output = cluster.wait_for("the end of the quorum", without).await;
    let status: Value = serde_json::from_slice(&output.stdout).expect("it is said as well");
    assert_eq!((&status["healthy"], &status["leader"]), (&false.into(), &Value::Null));
    let output = cluster.run(&["status"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("No quorum"), "{output:?}");
    for command in [&["locks"][..], &["append", "log", "x"], &["cat", "log"]] {
        let output = cluster.command(command).args(["--timeout", "1"]).output();
        refused(&output.expect("it starts"), 69, &["quorlock status"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_the_wrong_way_is_told_what_to_do() {
    let cluster = Cluster::start(1).await;
    let (stranger, _key) = Authority::create(DAY).expect("there is randomness");
    let issued = stranger.issue(Role::Client("eve".to_owned()), DAY).expect("a good role");
    cluster.keep("stranger", &issued);
    fs::write(cluster.path("other-ca.pem"), stranger.certificate()).expect("it is ours");
    let quick = ["locks", "--timeout", "2"];
    let output = |command: &mut Command| command.output().expect("it starts");

    refused(&output(&mut cluster.command_as("stranger", &quick)), 78, &["cluster", "check"]);
    let mut other = cluster.command_as("stranger", &quick);
    other.env("QUORLOCK_CA", cluster.path("other-ca.pem"));
    refused(&output(&mut other), 78, &["certificate", "check"]);
    let missing = output(&mut cluster.command_as("nobody", &quick));
    refused(&missing, 78, &["nobody.pem", "quorlock certs"]);
    let port = free_ports(1)[0];
    let mut silent = cluster.command(&quick);
    silent.env("QUORLOCK_ENDPOINTS", format!("127.0.0.1:{port}"));
    refused(&output(&mut silent), 69, &["start the node", "quorlock status"]);
    let mut unknown = cluster.command(&quick);
    unknown.env_remove("QUORLOCK_ENDPOINTS").env("HOME", cluster.path(""));
    refused(&output(&mut unknown), 78, &["QUORLOCK_ENDPOINTS", "quorlock dev", "--endpoints"]);
    let mut senseless = cluster.command(&quick);
    senseless.env("QUORLOCK_ENDPOINTS", "no port");
    refused(&output(&mut senseless), 64, &["no port"]);
    refused(&cluster.run(&["no-such-command"]), 64, &["--help"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shell_reads_from_a_pipe() {
    let cluster = Cluster::start(3).await;
    let shell = |input: &str| {
        let mut command = cluster.command(&["shell"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(input.as_bytes()).expect("it reads");
        drop(stdin);
        child.wait_with_output().expect("it is our child")
    };
    let output = shell(
        "# a remark\nhelp\nacquire deploy\nappend log one\nstatus\nlocks\nwhy deploy\nrelease deploy\n\
         history deploy\nfiles\ncat log\nquit\ncat never\n",
    );
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]), "{text}");
    for part in ["deploy is held", "at offset 0", "is safe", "deploy is released", "\none\n"] {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
    // A line that fails keeps no other from being done; the first failure is the exit code.
    let output = shell("nonsense\ncat nothing\nappend log two\ncat log\n");
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("one\ntwo\n"), "{output:?}");
    // What it held is free at once.
    assert_eq!(shell("acquire deploy\n").status.code(), Some(0));
    cluster.succeed(&["run", "--try", "deploy", "--", "true"]);
}

#[test]
fn certificates_completions_and_manual_need_no_cluster() {
    let folder = TempDir::with_prefix("quorlock-test-").expect("there is room");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(binary());
        command.args(arguments).current_dir(folder.path()).output().expect("it starts")
    };
    let printed = |arguments: &[&str]| {
        let output = run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    refused(&run(&["certs", "node", "0"]), 78, &["quorlock certs init"]);
    printed(&["certs", "init"]);
    let made: Value =
        serde_json::from_str(&printed(&["certs", "node", "0", "1", "-o", "json"])).expect("JSON");
    fields(&made, "certificates cluster");
    fields(&made["certificates"][1], "certificate key role");
    printed(&["certs", "client", "ci"]);
    printed(&["certs", "client", "ada", "--admin"]);
    let read = || -> Vec<(String, Vec<u8>)> {
        let names = ["ca", "node-0", "node-1", "client-ci", "admin-ada"];
        let files = names.iter().flat_map(|name| [format!("{name}.pem"), format!("{name}.key")]);
        let content = |name: &String| fs::read(folder.path().join("certs").join(name));
        files.map(|name| (name.clone(), content(&name).expect("it was made"))).collect()
    };
    let before = read();
    for again in [
        &["certs", "init"][..],
        &["certs", "node", "1"],
        &["certs", "client", "ci"],
        &["certs", "client", "ada", "--admin"],
    ] {
        refused(&run(again), 78, &["already"]);
    }
    assert!(read() == before, "a key was overwritten");
    let shown: Value =
        serde_json::from_str(&printed(&["certs", "show", "-o", "json"])).expect("JSON");
    let shown = shown["certificates"].as_array().expect("a list");
    for certificate in shown {
        fields(certificate, CERTIFICATE);
    }
    assert_eq!(shown.len(), 5);

    for shell in ["bash", "zsh", "fish"] {
        assert!(printed(&["completions", shell]).contains("quorlock"));
    }
    assert!(printed(&["man"]).starts_with(".ie"));
    printed(&["man", "--dir", "pages"]);
    let page = fs::read_to_string(folder.path().join("pages/quorlock-run.1")).expect("a page");
    assert!(page.contains("QUORLOCK_TOKEN"));
    assert!(printed(&["demo", "--help"]).contains("--nodes"));
    assert!(printed(&["--version"]).starts_with("quorlock "));
}

/// A cluster of `quorlock dev` in a folder.
struct Dev<'a> {
    folder: &'a Path,
    child: std::process::Child,
}

impl<'a> Dev<'a> {
    fn command(folder: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments).current_dir(folder).stdin(Stdio::null());
        let variables = std::env::vars_os().map(|(name, _)| name);
        for name in variables.filter(|name| name.to_string_lossy().starts_with("QUORLOCK_")) {
            command.env_remove(name);
        }
        command.env("HOME", folder).env("XDG_RUNTIME_DIR", folder);
        command
    }

    fn start(folder: &'a Path, arguments: &[&str]) -> Self {
        let file = |name| fs::File::create(folder.join(name)).expect("the folder is ours");
        let mut command = Self::command(folder, &[&["dev"], arguments].concat());
        let child = command.stdout(file("printed")).stderr(file("said")).spawn();
        Self { folder, child: child.expect("it starts") }
    }

    fn printed(&self) -> String {
        fs::read_to_string(self.folder.join("printed")).expect("it is ours")
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.join("said")).expect("it is ours")
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Self::command(self.folder, arguments).output().expect("it starts")
    }

    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}\n{}", self.said());
        String::from_utf8(output.stdout).expect("text")
    }

    fn wait_for<T>(&self, what: &str, probe: impl Fn() -> Option<T>) -> T {
        let start = std::time::Instant::now();
        loop {
            if let Some(found) = probe() {
                return found;
            }
            let patient = start.elapsed() < quorlock_tests::native::PATIENCE;
            assert!(patient, "no sign of {what}\n{}\n{}", self.printed(), self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn ready(&self) {
        self.wait_for("a leader", || self.said().contains("Ready:").then_some(()));
    }

    /// Presses Ctrl-C.
    fn interrupt(&mut self) {
        kill(self.child.id(), Signal::INT);
        let status = self.child.wait().expect("it is our child");
        assert_eq!(status.code(), Some(0), "{}", self.said());
    }
}

impl Drop for Dev<'_> {
    fn drop(&mut self) {
        // Its nodes end with it.
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }
}

fn kill(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("it is a process id"), signal).expect("it runs");
}

#[test]
fn a_cluster_to_play_with_survives_its_leader_and_ctrl_c() {
    let folder = TempDir::with_prefix("quorlock-test-").expect("there is room");
    let folder = folder.path();
    let mut dev = Dev::start(folder, &["--nodes", "3", "--create-files", "2"]);
    dev.ready();
    let printed = dev.printed();
    assert!(printed.contains("QUORLOCK_CONFIG=") && printed.contains("ADDRESS"), "{printed}");
    let pids: Vec<u32> = printed
        .lines()
        .filter(|line| line.contains("127.0.0.1:"))
        .map(|line| line.split_whitespace().nth(2).and_then(|pid| pid.parse().ok()).expect("a pid"))
        .collect();
    assert_eq!(pids.len(), 3, "{printed}");
    assert!(dev.succeed(&["files"]).contains("file-1"));
    dev.succeed(&["append", "log", "hello"]);

    refused(&dev.run(&["dev"]), 78, &["runs already", "--data"]);
    refused(&dev.run(&["dev", "--fresh"]), 78, &["runs already"]);

    let status = || -> Value {
        serde_json::from_slice(&dev.run(&["status", "-o", "json"]).stdout).expect("JSON")
    };
    let leader = number(&status()["leader"]);
    kill(pids[usize::try_from(leader).expect("it is small")], Signal::KILL);
    dev.wait_for("another leader", || {
        let status = status();
        (status["healthy"] == true && number(&status["reachable"]) == 2).then_some(())
    });
    dev.wait_for("a word about it", || dev.said().contains("killed by signal 9").then_some(()));
    assert_eq!(dev.succeed(&["cat", "log"]), "hello\n");
    dev.interrupt();

    let mut again = Dev::start(folder, &["-o", "json"]);
    again.ready();
    let running: Value = serde_json::from_str(&again.printed()).expect("JSON");
    fields(&running, "client_file cluster folder nodes");
    fields(&running["nodes"][2], "address data id log pid");
    assert_eq!(again.succeed(&["cat", "log"]), "hello\n");
    again.interrupt();

    refused(&again.run(&["dev", "--nodes", "5"]), 78, &["3 nodes", "--fresh"]);
    let mut fresh = Dev::start(folder, &["--fresh", "--nodes", "1"]);
    fresh.ready();
    refused(&fresh.run(&["cat", "log"]), 1, &["log"]);
    fresh.interrupt();
}

/// What a node has to measure, each as a name of ours.
const METRICS: &[&str] = &[
    "quorlock_role",
    "quorlock_term",
    "quorlock_commit_index",
    "quorlock_applied_index",
    "quorlock_lag_entries",
    "quorlock_proposals_total",
    "quorlock_log_write_seconds_bucket",
    "quorlock_files_sync_seconds_bucket",
    "quorlock_apply_seconds_bucket",
    "quorlock_sessions",
    "quorlock_locks_held",
    "quorlock_waiters",
    "quorlock_grants_total",
    "quorlock_holds_ended_total",
    "quorlock_rejections_total",
    "quorlock_unavailable_total",
    "quorlock_peer_round_trip_seconds",
    "quorlock_dropped_messages_total",
    "quorlock_connections",
];

fn fetch(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_is_served() {
    let mut cluster = Cluster::prepare(3, &[]);
    // All at once, so that they differ.
    let listeners: Vec<TcpListener> =
        (0..3).map(|_| TcpListener::bind("127.0.0.1:0").expect("there are ports")).collect();
    let addresses: Vec<SocketAddr> =
        listeners.iter().map(|listener| listener.local_addr().expect("it is bound")).collect();
    drop(listeners);
    for (id, address) in (0..3).zip(&addresses) {
        let option = ["--metrics-addr".to_owned(), address.to_string()];
        cluster.node_mut(id).spec_mut().arguments.extend(option);
        cluster.node_mut(id).start(&["--bootstrap"]);
    }
    cluster.succeed(&["append", "log", "x", "--timeout", "60"]);
    let held = json(&cluster, &["acquire", "deploy"]);
    let token = number(&held["token"]).to_string();
    cluster.succeed(&["break", "deploy", "--token", &token, "--reason", "a test"]);
    let leader = usize::try_from(cluster.leader().await).expect("it is small");
    let ended = format!("quorlock_holds_ended_total{{node=\"{leader}\",cause=\"broken\"}} 1");
    cluster
        .wait_for("all metrics", async || {
            let answer = fetch(addresses[leader])?;
            let missing = METRICS.iter().find(|name| {
                let line = |line: &str| {
                    line.strip_prefix(**name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                };
                !answer.lines().any(line)
            });
            (missing.is_none() && answer.contains(&ended)).then_some(())
        })
        .await;
}
