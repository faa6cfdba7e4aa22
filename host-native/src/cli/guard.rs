//! The guard: ends the command of `quorlock run` if `quorlock run` itself cannot.
//!
//! `run` renews the lease and ends the command before the lease can end. But `run` may be killed, or
//! stopped, or hang. The guard is a second small process, in a process group of its own, which no signal
//! but the two that cannot be blocked can touch. It waits at a pipe:
//!
//! ```text
//! run → guard    group 4711          whom to end
//!                until 123456789     the lock is ours until then, at least (boot clock, microseconds)
//!                done                the command has ended: forget it
//! guard → run    ready               it has the group and the time
//! ```
//!
//! When the pipe closes without `done`, or the time passes, it kills the whole group. The time is a
//! little before the lease's end by `run`'s own clock, which is before its end on the servers: by the
//! time the next session gets the lock, the group is gone.
//!
//! When the guard itself is killed, `run` sees that the other pipe closed, and starts another one
//! ([`super::run`](mod@super::run)). Both killed at one moment leave only the kernel's signal at the parent's death,
//! which reaches the command, but not what the command started.

use std::io::{BufRead as _, Write as _};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use nix::sys::signal::SigSet;
use quorlock_core::time::Time;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::Context;
use super::exit::{Exit, Failure};
use super::run::group::living;
use super::run::ourselves::Ourselves;
use super::run::say;
use crate::clock;

/// The hidden command that is the guard.
pub(crate) const COMMAND: &str = "__guard";

/// How often it looks at the clock: timers stand still while the machine sleeps.
const NAP_MAX: Duration = Duration::from_millis(100);
/// Orders that were read and not yet looked at. More stay in the pipe.
const ORDERS_MAX: usize = 16;
/// The longest line of an order.
const LINE_BYTES_MAX: u64 = 64;
/// How long the guard may take for an answer or an order, before it counts as gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a group is killed that does not go, and how long we wait each time.
const KILLS_MAX: u32 = 100;
const KILL_PAUSE: Duration = Duration::from_millis(10);

/// What `run` tells the guard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    Group(Pid),
    Until(Time),
    Done,
}

impl Order {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        match (words.next()?, words.next(), words.next()) {
            ("group", Some(number), None) => {
                let number = number.parse().ok().filter(|number| *number > 1)?;
                Pid::from_raw(number).map(Self::Group)
            }
            ("until", Some(micros), None) => {
                Some(Self::Until(Time::from_micros(micros.parse().ok()?)))
            }
            ("done", None, None) => Some(Self::Done),
            _ => None,
        }
    }

    fn line(self) -> String {
        match self {
            Self::Group(group) => format!("group {}\n", group.as_raw_pid()),
            Self::Until(time) => format!("until {}\n", time.as_micros()),
            Self::Done => "done\n".to_owned(),
        }
    }
}

/// Arguments of `__guard`: all is told through the pipe.
#[derive(Debug, clap::Args)]
pub(crate) struct GuardArguments;

/// Is the guard. Ends when it is told to, or when it has killed the group.
///
/// # Errors
/// None: it says what goes wrong, and goes on.
#[expect(clippy::unnecessary_wraps, reason = "every command has this shape")]
pub(crate) fn run(_arguments: GuardArguments, _context: &Context) -> Result<Exit, Failure> {
    Ok(watch_over())
}

/// [`run`], without what it has no need of.
pub(super) fn watch_over() -> Exit {
    // Before there is another thread, so that all of them have it.
    if let Err(error) = SigSet::all().thread_block() {
        say(&format!("the guard cannot block signals: {error}"));
    }
    // Do not keep a file system busy.
    if let Err(error) = std::env::set_current_dir("/") {
        tracing::debug!(%error, "cannot leave the folder");
    }
    let (sender, orders) = sync_channel(ORDERS_MAX);
    std::thread::spawn(move || read_orders(&sender));
    let Some(group) = watch(&orders, clock::now) else { return Exit::Ok };
    kill(group);
    Exit::Lost
}

/// Ends at the end of the pipe, and at a line that is no order: then `run` is not what we take it for.
fn read_orders(sender: &SyncSender<Order>) {
    let mut input = std::io::stdin().lock();
    loop {
        let mut line = String::new();
        let read = std::io::Read::take(&mut input, LINE_BYTES_MAX).read_line(&mut line);
        let order = read.ok().and_then(|_| Order::parse(&line));
        let Some(order) = order.filter(|_| line.ends_with('\n')) else { return };
        if sender.send(order).is_err() {
            return;
        }
    }
}

/// Waits until the group has to be killed; `None` when there is nothing to kill.
fn watch(orders: &Receiver<Order>, now: impl Fn() -> Time) -> Option<Pid> {
    let mut group = None;
    let mut until = None;
    let mut ready = false;
    loop {
        let nap = until.map_or(NAP_MAX, |until: Time| until.since(now()).min(NAP_MAX));
        match orders.recv_timeout(nap) {
            Ok(Order::Group(number)) => group = Some(number),
            Ok(Order::Until(time)) => until = Some(time),
            Ok(Order::Done) => return None,
            Err(RecvTimeoutError::Disconnected) => return group,
            // All orders are read before this, so a later time that was told is known.
            Err(RecvTimeoutError::Timeout) if until.is_some_and(|until| now() >= until) => {
                return group;
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if !ready && group.is_some() && until.is_some() {
            ready = true;
            // If `run` is gone, so is its end of the other pipe, which says the same.
            drop(writeln!(std::io::stdout(), "ready"));
        }
    }
}

fn kill(group: Pid) {
    for _ in 0..KILLS_MAX {
        if rustix::process::kill_process_group(group, Signal::KILL).is_err() {
            return;
        }
        std::thread::sleep(KILL_PAUSE);
        if living(group).is_empty() {
            return;
        }
    }
    say("some processes of the command cannot be killed");
}

/// The guard, as `run` sees it. When this is dropped without [`Guard::dismiss`], the guard kills the
/// group.
#[derive(Debug)]
pub(crate) struct Guard {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Guard {
    /// Starts one, and waits until it is ready.
    ///
    /// # Errors
    /// If it cannot be started or does not answer.
    pub(crate) async fn start(
        ourselves: &Ourselves,
        group: Pid,
        until: Time,
    ) -> std::io::Result<Self> {
        let mut command = Command::from(ourselves.command(&[COMMAND]));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut process = command.spawn()?;
        let (orders, answers) = process.stdin.take().zip(process.stdout.take()).ok_or_else(gone)?;
        let mut guard = Self { process, orders, answers: BufReader::new(answers) };
        guard.tell(Order::Group(group)).await?;
        guard.tell(Order::Until(until)).await?;
        tokio::time::timeout(PATIENCE, guard.ready()).await.map_err(|_elapsed| gone())??;
        Ok(guard)
    }

    async fn ready(&mut self) -> std::io::Result<()> {
        let mut line = String::new();
        while self.answers.read_line(&mut line).await? > 0 {
            if line.trim_end() == "ready" {
                return Ok(());
            }
            line.clear();
        }
        Err(gone())
    }

    async fn tell(&mut self, order: Order) -> std::io::Result<()> {
        let line = order.line();
        let written = tokio::time::timeout(PATIENCE, self.orders.write_all(line.as_bytes())).await;
        written.map_err(|_elapsed| gone())?
    }

    /// The lock is ours until then, at least.
    ///
    /// # Errors
    /// If there is no guard any more.
    pub(crate) async fn until(&mut self, time: Time) -> std::io::Result<()> {
        self.tell(Order::Until(time)).await
    }

    /// Resolves when there is no guard any more. To drop the future does no harm.
    pub(crate) async fn gone(&mut self) {
        // It says nothing more, so whatever ends the reading is its end.
        loop {
            match self.answers.fill_buf().await {
                Ok([]) | Err(_) => return,
                Ok(answer) => {
                    let length = answer.len();
                    self.answers.consume(length);
                }
            }
        }
    }

    /// The command has ended: nothing is to be killed any more. Whether the guard has killed it, or
    /// was about to.
    pub(crate) async fn dismiss(mut self) -> bool {
        if let Err(error) = self.tell(Order::Done).await {
            tracing::debug!(%error, "the guard has gone before");
        }
        self.has_killed().await
    }

    /// Waits for the guard's end, and says whether it has killed the group.
    pub(crate) async fn has_killed(&mut self) -> bool {
        match tokio::time::timeout(PATIENCE, self.process.wait()).await {
            Ok(Ok(status)) => status.code() == Some(i32::from(Exit::Lost.code())),
            Ok(Err(_)) | Err(_) => false,
        }
    }
}

fn gone() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::BrokenPipe, "the guard does not answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> Pid {
        Pid::from_raw(4711).expect("a number")
    }

    /// What the guard decides after these orders, at this time, with the pipe closed or open.
    fn decide(lines: &[Order], now: u64, closed: bool) -> Option<Pid> {
        let (sender, orders) = sync_channel(ORDERS_MAX);
        for line in lines {
            sender.send(*line).expect("there is room");
        }
        let sender = (!closed).then_some(sender);
        let decided = watch(&orders, || Time::from_micros(now));
        drop(sender);
        decided
    }

    #[test]
    fn orders_survive_the_pipe() {
        for order in [Order::Group(group()), Order::Until(Time::from_micros(7)), Order::Done] {
            assert_eq!(Order::parse(&order.line()), Some(order));
        }
    }

    #[test]
    fn what_is_no_order_is_refused() {
        // 0 and 1 would be everybody, and so would be what is below.
        for line in
            ["", "group", "group 0", "group 1", "group -4", "until", "until x", "done now", "x"]
        {
            assert_eq!(Order::parse(line), None, "{line}");
        }
    }

    #[test]
    fn kills_when_the_pipe_closes() {
        assert_eq!(decide(&[Order::Group(group())], 0, true), Some(group()));
        let orders = [Order::Group(group()), Order::Until(Time::from_micros(9))];
        assert_eq!(decide(&orders, 0, true), Some(group()));
    }

    #[test]
    fn kills_when_the_time_has_passed() {
        let orders = [Order::Group(group()), Order::Until(Time::from_micros(9))];
        assert_eq!(decide(&orders, 9, false), Some(group()));
    }

    #[test]
    fn a_later_time_counts() {
        let (early, late) = (Time::from_micros(9), Time::from_micros(99));
        let orders = [Order::Group(group()), Order::Until(early), Order::Until(late), Order::Done];
        assert_eq!(decide(&orders, 50, true), None);
    }

    #[test]
    fn leaves_the_group_alone_when_done() {
        assert_eq!(decide(&[Order::Group(group()), Order::Done], 0, true), None);
        assert_eq!(decide(&[], 0, true), None);
    }
}
