//! Watches over a command and over the lock under which it runs, and ends the one before the other is
//! gone.
//!
//! It knows of the lock only what [`Hold`] says, so that it can be tried without a cluster.

use std::io;
use std::time::Duration;

use quorlock_core::time::Time;
use rustix::process::{Pid, Signal};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use super::group::{Exit, Group, LeaderState, living};
use super::ourselves::Ourselves;
use super::signals::Signals;
use super::terminal::{self, Terminal};
use super::timing::Timing;
use super::{OnLost, say};
use crate::cli::duration;
use crate::cli::guard::Guard;
use crate::clock;

/// How long the end of a group is waited for after it was killed. Longer than that takes only what the
/// kernel itself cannot end.
const KILL_PATIENCE: Duration = Duration::from_secs(5);
/// How often to look whether what is left of a group after a command's own end goes too.
const LEFT_LOOKS: u32 = 10;
/// How often to look whether a group is gone.
const GONE_PAUSE: Duration = Duration::from_millis(5);

/// Why the lock counts as lost when the guard was quicker than we: we may have been stopped, or had no
/// turn. The lease may have been renewed since; the command is dead all the same.
const GUARD_KILLED: &str = "the lease was not renewed in time, and the guard has ended the command";

/// What there is to know of the lock under which a command runs.
pub(crate) trait Hold {
    /// Until when it is certainly ours, by [`clock::now`]. It grows with every renewal.
    fn safe_until(&self) -> Time;

    /// What happens to it next. To drop the future loses nothing. Never resolves after a loss.
    async fn news(&mut self) -> News;
}

/// What can happen to a lock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum News {
    /// The cluster has not been heard from for a while.
    Jeopardy,
    /// It has been heard from again.
    Safe,
    /// The lock was taken from us, and somebody else may have it.
    Taken {
        /// Why.
        why: String,
    },
    /// The session is over, with all its locks: the same, and there is no time left.
    Ended {
        /// Why.
        why: String,
    },
}

/// How it went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Report {
    /// How the command ended.
    pub(crate) exit: Exit,
    /// Why the lock was lost before, if it was.
    pub(crate) lost: Option<String>,
    /// Processes of the group that go on.
    pub(crate) left: Vec<Pid>,
}

/// How far the end of the command has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// It may run.
    Running,
    /// It was told to end.
    Told { kill_at: Time },
    /// It was killed.
    Killed { at: Time },
    /// It may run on, although the lock is lost.
    Ignoring,
}

/// A command that runs under a lock.
pub(crate) struct Supervised<'a, H> {
    hold: &'a mut H,
    ourselves: &'a Ourselves,
    group: Group,
    /// None after one was gone and could not be replaced.
    guard: Option<Guard>,
    terminal: Terminal,
    on_lost: OnLost,
    timing: Timing,
    phase: Phase,
    /// What the guard was told.
    told: Time,
    lost: Option<String>,
}

/// What there was to wait for.
enum Happened {
    Child,
    Signal(Signal),
    News(News),
    GuardGone,
    Time,
}

impl<'a, H: Hold> Supervised<'a, H> {
    /// Puts a command that was started, and does not run yet, under guard, and lets it run.
    ///
    /// # Errors
    /// If there can be no guard. Then the command does not run.
    pub(crate) async fn begin(
        hold: &'a mut H,
        ourselves: &'a Ourselves,
        group: Group,
        terminal: Terminal,
        on_lost: OnLost,
        lease: Duration,
    ) -> io::Result<Self> {
        let timing = Timing::new(lease, on_lost);
        let told = guard_time(&timing, on_lost, hold.safe_until());
        let guard = match Guard::start(ourselves, group.id(), told).await {
            Ok(guard) => Some(guard),
            Err(error) => {
                group.signal(Signal::KILL);
                return Err(error);
            }
        };
        let phase = Phase::Running;
        let mut supervised = Self {
            hold,
            ourselves,
            group,
            guard,
            terminal,
            on_lost,
            timing,
            phase,
            told,
            lost: None,
        };
        supervised.terminal.lend_at_start(supervised.group.id());
        supervised.group.go_on();
        Ok(supervised)
    }

    /// Waits for the command's end, or brings it about.
    ///
    /// # Errors
    /// If the system does not let us watch; the guard ends the command then.
    pub(crate) async fn finish(mut self, signals: &mut Signals) -> io::Result<Report> {
        let mut children = signal(SignalKind::child())?;
        let exit = loop {
            match self.group.poll()? {
                LeaderState::Ended(exit) if self.is_over() => break exit,
                LeaderState::Ended(_) => {}
                LeaderState::Stopped(stop) => self.handle_stop(stop),
                LeaderState::Running => {}
            }
            self.look_at_the_clock().await;
            match self.wait(&mut children, signals).await {
                Happened::Signal(signal) => self.pass_on(signal),
                Happened::News(news) => self.handle_news(news),
                Happened::GuardGone => self.replace_guard().await,
                Happened::Child | Happened::Time => {}
            }
        };
        self.terminal.take_back();
        if matches!(exit, Exit::Signal(_)) {
            self.terminal.restore_settings();
        }
        let is_late = clock::now() >= self.lost_at();
        let guard_killed = match self.guard.take() {
            Some(guard) => guard.dismiss().await,
            None => false,
        };
        // We may have been stopped meanwhile: then nobody said anything yet.
        if self.lost.is_none() && (is_late || guard_killed) {
            let why = if guard_killed { GUARD_KILLED } else { "the lease was not renewed in time" };
            say(&format!("the lock was lost: {why}"));
            self.lost = Some(why.to_owned());
        }
        let group = self.group.id();
        let mut left = self.group.reap();
        for _ in 0..LEFT_LOOKS {
            if left.is_empty() {
                break;
            }
            // They may be about to end.
            tokio::time::sleep(GONE_PAUSE).await;
            left = living(group);
        }
        Ok(Report { exit, lost: self.lost, left })
    }

    /// When the lock counts as lost if it is not renewed before.
    fn lost_at(&self) -> Time {
        let safe_until = self.hold.safe_until();
        match self.on_lost {
            OnLost::Term | OnLost::Kill => self.timing.guard_at(safe_until),
            OnLost::Ignore => safe_until,
        }
    }

    async fn wait(&mut self, children: &mut Stream, signals: &mut Signals) -> Happened {
        let next = clock::now().after(self.pause());
        tokio::select! {
            biased;
            news = self.hold.news() => Happened::News(news),
            signal = signals.next() => Happened::Signal(signal),
            _ = children.recv() => Happened::Child,
            () = gone(&mut self.guard) => Happened::GuardGone,
            () = clock::sleep_until(next) => Happened::Time,
        }
    }

    /// How long to wait when nothing happens.
    fn pause(&self) -> Duration {
        match self.phase {
            Phase::Running | Phase::Ignoring => self.timing.look,
            Phase::Told { .. } | Phase::Killed { .. } => GONE_PAUSE,
        }
    }

    /// Whether nothing is left to do after the leader's end. When the lock is lost, the others of the
    /// group have to go as well.
    fn is_over(&self) -> bool {
        match self.phase {
            Phase::Running | Phase::Ignoring => true,
            Phase::Told { .. } => living(self.group.id()).is_empty(),
            Phase::Killed { at } => {
                let waited = clock::now().since(at);
                living(self.group.id()).is_empty() || waited >= KILL_PATIENCE
            }
        }
    }

    /// Does what is due.
    async fn look_at_the_clock(&mut self) {
        let (now, safe_until) = (clock::now(), self.hold.safe_until());
        match self.phase {
            Phase::Running if self.on_lost == OnLost::Ignore => {}
            Phase::Running if now >= self.timing.term_at(safe_until) => {
                let left = duration::show(safe_until.since(now));
                self.lose(&format!("its lease ends in {left} and cannot be renewed"), safe_until);
            }
            Phase::Running => self.tell_guard(safe_until).await,
            Phase::Told { kill_at } if now >= kill_at => self.kill(),
            // Again: one of them may have been between two lives, in the middle of a fork.
            Phase::Killed { .. } => self.group.signal(Signal::KILL),
            Phase::Told { .. } | Phase::Ignoring => {}
        }
    }

    async fn tell_guard(&mut self, safe_until: Time) {
        let until = guard_time(&self.timing, self.on_lost, safe_until);
        if until > self.told {
            self.told = until;
            let Some(guard) = &mut self.guard else { return };
            if guard.until(until).await.is_err() {
                self.replace_guard().await;
            }
        }
    }

    /// A guard that is gone is replaced at once; without one the command must not run.
    async fn replace_guard(&mut self) {
        if let Some(mut guard) = self.guard.take()
            && guard.has_killed().await
        {
            self.lost.get_or_insert_with(|| GUARD_KILLED.to_owned());
            self.kill();
        }
        if matches!(self.phase, Phase::Killed { .. }) {
            return;
        }
        tracing::warn!("the guard has gone; starting another one");
        match Guard::start(self.ourselves, self.group.id(), self.told).await {
            Ok(guard) => self.guard = Some(guard),
            Err(error) => {
                say(&format!("there is no process that could guard the command: {error}"));
                self.lost.get_or_insert_with(|| "the command could not be guarded".to_owned());
                self.kill();
            }
        }
    }

    fn handle_news(&mut self, news: News) {
        match news {
            News::Jeopardy if self.phase == Phase::Running => {
                let left = duration::show(self.hold.safe_until().since(clock::now()));
                say(&format!(
                    "the lock is in jeopardy: the cluster does not answer, its lease ends in {left}"
                ));
            }
            News::Safe if self.phase == Phase::Running => say("the lock is safe again"),
            News::Jeopardy | News::Safe => {}
            News::Taken { why } => {
                let kill_at = clock::now().after(self.timing.grace);
                self.lose_until(&why, kill_at);
            }
            News::Ended { why } => self.lose_until(&why, clock::now()),
        }
    }

    /// The lock is lost when this time comes.
    fn lose(&mut self, why: &str, safe_until: Time) {
        self.lose_until(why, self.timing.kill_at(safe_until));
    }

    fn lose_until(&mut self, why: &str, kill_at: Time) {
        if self.lost.is_none() {
            self.lost = Some(why.to_owned());
            say(&format!("the lock is lost: {why}"));
        }
        match (self.on_lost, self.phase) {
            (OnLost::Ignore, _) => self.phase = Phase::Ignoring,
            (OnLost::Kill, Phase::Running | Phase::Told { .. } | Phase::Ignoring) => self.kill(),
            (OnLost::Term, Phase::Running | Phase::Ignoring) => {
                self.group.signal(Signal::TERM);
                // What is stopped hears of it only when it goes on.
                self.group.go_on();
                self.phase = Phase::Told { kill_at };
            }
            (OnLost::Term, Phase::Told { kill_at: earlier }) => {
                self.phase = Phase::Told { kill_at: kill_at.min(earlier) };
            }
            (OnLost::Kill | OnLost::Term, Phase::Killed { .. }) => {}
        }
    }

    fn kill(&mut self) {
        self.group.signal(Signal::KILL);
        self.phase = Phase::Killed { at: clock::now() };
    }

    fn pass_on(&mut self, signal: Signal) {
        self.group.signal(signal);
    }

    /// The command was stopped: by Ctrl-Z, because it wants the terminal, or by somebody.
    fn handle_stop(&mut self, stop: i32) {
        let group = self.group.id();
        if terminal::wants_the_terminal(stop) && !self.terminal.is_lent() {
            if self.terminal.lend(group) {
                self.group.go_on();
            }
            return;
        }
        if !(terminal::is_ctrl_z(stop) && self.terminal.is_lent()) {
            return;
        }
        let left = duration::show(self.hold.safe_until().since(clock::now()));
        self.terminal.take_back();
        say(&format!("stopped; the lock is lost in {left} if this does not go on (fg)"));
        terminal::stop_ourselves();
        // Too late to go on: the clock is looked at next.
        if clock::now() < self.timing.term_at(self.hold.safe_until()) {
            self.terminal.lend(group);
            self.group.go_on();
        }
    }
}

/// Resolves when there was a guard and it has gone.
async fn gone(guard: &mut Option<Guard>) {
    match guard {
        Some(guard) => guard.gone().await,
        None => std::future::pending().await,
    }
}

fn guard_time(timing: &Timing, on_lost: OnLost, safe_until: Time) -> Time {
    match on_lost {
        OnLost::Term | OnLost::Kill => timing.guard_at(safe_until),
        // It is still there for the case that we are killed.
        OnLost::Ignore => Time::MAX,
    }
}
