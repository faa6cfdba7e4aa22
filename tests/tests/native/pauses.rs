//! SIGSTOP and SIGCONT: a process that does not know that time has passed.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use quorlock::client::{CallError, FencingToken, FileAppend, FileName, Op, Rejection, Wait};
use quorlock::wire::ReportedRole;
use quorlock_tests::native::Cluster;
use rustix::process::{Pid, Signal, kill_process};

use crate::workload::{FILE, LOCK, Workload};

/// A client in a process of its own.
struct Holder {
    child: Child,
    stdin: ChildStdin,
    events: Lines<BufReader<ChildStdout>>,
}

impl Holder {
    fn start(cluster: &Cluster, lease: Duration) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_holder"))
            .args([LOCK, &lease.as_millis().to_string()])
            .envs(cluster.command(&[]).get_envs().filter_map(|(name, value)| Some((name, value?))))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stdin = child.stdin.take().expect("it is piped");
        let events = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Self { child, stdin, events }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a child has a process id"), signal).expect("it is our child");
    }

    fn append(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").expect("it reads what it is told");
    }

    /// The next event; empty when it has ended.
    fn event(&mut self) -> String {
        self.events.next().map(|line| line.expect("it prints text")).unwrap_or_default()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_was_stopped_is_told_and_its_append_is_refused() {
    let cluster = Cluster::start(3).await;
    let mut holder = Holder::start(&cluster, Duration::from_secs(2));
    let held = holder.event();
    let first: u64 = held.strip_prefix("held ").and_then(|token| token.parse().ok()).expect("held");
    holder.append("in time");
    assert_eq!(holder.event(), "appended 0");

    let next = cluster.client().await;
    let waiting = tokio::spawn({
        let next = next.clone();
        async move { next.acquire(LOCK, Wait::Forever).await }
    });
    holder.signal(Signal::STOP);
    // It is granted though the holder never gave it back.
    let lock = waiting.await.expect("it does not panic").expect("it is granted");
    assert!(lock.token().value() > first);
    lock.append(FILE, "by the next\n").await.expect("it holds the lock");

    // The stopped process finds this line when it wakes up, with its mind on the old token.
    holder.append("too late");
    holder.signal(Signal::CONT);
    let mut events = Vec::new();
    let has = |events: &[String], start: &str| events.iter().any(|event| event.starts_with(start));
    while !(has(&events, "refused") && has(&events, "lost")) {
        let event = holder.event();
        assert!(!event.is_empty(), "it ended after {events:?}");
        events.push(event);
    }
    // Either it was told of the loss first, or the refusal itself tells it: its own library looked at
    // the clock and sent nothing.
    let silent = "the cluster was not heard from in time";
    let refusal = events.iter().find(|event| event.starts_with("refused")).expect("it was refused");
    let told = events.iter().position(|event| event.starts_with("lost"))
        < events.iter().position(|event| event.starts_with("refused"));
    assert!(told || refusal.contains(silent), "{events:?}");

    // And if it had been sent: the cluster names the token that counts.
    let append = FileAppend { file: FileName::new(FILE).expect("a name"), bytes: "no\n".into() };
    let token = FencingToken::new(first);
    let late = next.call(Op::Append { lock: lock.name().clone(), token, append }).await;
    let current = Some(lock.token());
    let refused = matches!(
        &late,
        Err(CallError::Rejected(Rejection::NotHolder { current: named })) if *named == current
    );
    assert!(refused, "{late:?}");

    lock.release().await.expect("it was held all along");
    let view = next.file(FILE).await.expect("the cluster serves").expect("it is there");
    cluster.settle().await;
    assert_eq!(cluster.file_everywhere(&view).await, b"in time\nby the next\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_stopped_finds_another_one_and_gives_no_stale_answer() {
    let mut cluster = Cluster::start(3).await;
    let workload = Workload::start(&cluster, 2).await;
    workload.progress(&cluster, 10).await;
    let old = cluster.leader().await;
    // A reader that knows the old leader only.
    let mut options = cluster.options();
    options.endpoints = cluster
        .endpoints()
        .into_iter()
        .filter(|endpoint| endpoint.node.is_some_and(|id| id.value() == old))
        .collect();
    let reader = cluster.client_with(options).await;
    let length = |view: Option<quorlock::client::FileView>| view.map_or(0, |view| view.length);

    cluster.node_mut(old).pause();
    // Three election time-outs of at most half a second each, and whatever the machine needs.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    workload.progress(&cluster, 10).await;
    let written = length(cluster.client().await.file(FILE).await.expect("two of three serve"));
    // Asked while it is stopped: it answers when it wakes up, or somebody else does.
    let read = tokio::spawn(async move { reader.file(FILE).await });
    cluster.node_mut(old).resume();
    let read = length(read.await.expect("it does not panic").expect("it is answered"));
    assert!(read >= written, "{read} bytes were read after {written} were there");

    cluster.settle().await;
    let reports = cluster.reports().await;
    let leaders = reports.iter().filter(|report| report.role == ReportedRole::Leader).count();
    assert_eq!(leaders, 1, "{reports:?}");
    assert_eq!(reports.len(), 3);
    workload.finish(&cluster).await;
}
