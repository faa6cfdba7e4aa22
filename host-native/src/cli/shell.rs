//! `quorlock shell`: a session to play with.
//!
//! The session is opened by the first command that needs it, and lives until the shell ends or the
//! cluster is not heard from in time. What happens to it, and to the locks that it holds, is said at
//! once, above the line that is being typed. Lines may come from a pipe, too: then there is no prompt,
//! a command that fails does not keep the next from being done, and the exit code is that of the first
//! that failed.

mod editor;
mod line;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorlock_core::client::SessionState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use super::duration::show;
use super::exit::{Exit, Failure};
use super::holder::Held;
use super::session::{cannot_catch, in_time};
use super::{Context, files, locks};
use crate::client::{Client, Consistency, LossCause, Wait};
use editor::{Lines, Names, Printer};
use line::Line;

/// How long the end of the session is waited for.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// Arguments of `shell`.
#[derive(Debug, clap::Args)]
pub(crate) struct ShellArguments;

/// An interactive client.
///
/// # Errors
/// The cluster is not found.
pub(crate) fn run(_arguments: ShellArguments, context: &Context) -> Result<Exit, Failure> {
    // Said at once, and not only at the first command.
    context.connection.options()?;
    context.block_on(async {
        let names = Names::default();
        let (lines, printer) = Lines::start(names.clone());
        let shell = Shell { context, names, printer, session: None };
        shell.run(lines).await
    })
}

/// An open session.
struct Session {
    client: Client,
    held: BTreeMap<String, Arc<Held>>,
    /// Tell what happens to it.
    watchers: Vec<JoinHandle<()>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        for watcher in &self.watchers {
            watcher.abort();
        }
    }
}

struct Shell<'a> {
    context: &'a Context,
    names: Names,
    printer: Printer,
    session: Option<Session>,
}

/// Whether there is another line to read.
enum Next {
    Line,
    End,
}

impl Shell<'_> {
    async fn run(mut self, mut lines: Lines) -> Result<Exit, Failure> {
        let mut exit = Exit::Ok;
        if lines.interactive {
            self.context.output.note("Type `help` for the commands; Ctrl-D leaves.");
        }
        while let Some(text) = lines.next().await {
            let line = match line::parse(&text) {
                Ok(line) => line,
                Err(usage) => {
                    let failed = Failure::usage(usage).report(&self.context.output);
                    exit = first(exit, failed);
                    continue;
                }
            };
            match self.interruptible(line).await {
                Ok(Next::Line) => {}
                Ok(Next::End) => break,
                Err(failure) => exit = first(exit, failure.report(&self.context.output)),
            }
        }
        self.close().await;
        Ok(if lines.interactive { Exit::Ok } else { exit })
    }

    /// Does what a line says, until it is done or Ctrl-C is pressed.
    async fn interruptible(&mut self, line: Line) -> Result<Next, Failure> {
        // A new one: those that came while a line was typed are meant for nothing.
        let mut interrupts = signal(SignalKind::interrupt()).map_err(cannot_catch)?;
        tokio::select! {
            biased;
            _ = interrupts.recv() => Err(Failure::new(Exit::Other(130), "interrupted")),
            done = self.obey(line) => done,
        }
    }

    async fn obey(&mut self, line: Line) -> Result<Next, Failure> {
        let context = self.context;
        let (output, timeout) = (&context.output, context.connection.timeout);
        match line {
            Line::Nothing => {}
            Line::Quit => return Ok(Next::End),
            Line::Help => output.raw(line::help().as_bytes())?,
            Line::Close => self.close().await,
            Line::Open | Line::Status => {
                let session = self.session().await?;
                output.raw(status(session).as_bytes())?;
            }
            Line::Acquire { lock, wait } => self.acquire(&lock, wait).await?,
            Line::Append { file, text } => in_time(timeout, self.append(&file, &text)).await?,
            Line::Release { lock } => in_time(timeout, self.release(&lock)).await?,
            Line::Locks { prefix } => {
                let client = self.client().await?;
                output.print(&in_time(timeout, locks::locks_of(&client, &prefix)).await?)?;
            }
            Line::Why { lock } => {
                let client = self.client().await?;
                self.names.add(&lock);
                output.print(&in_time(timeout, locks::why_of(&client, &lock)).await?)?;
            }
            Line::History { lock } => {
                let client = self.client().await?;
                self.names.add(&lock);
                output.print(&in_time(timeout, locks::history_of(&client, &lock)).await?)?;
            }
            Line::Break { lock, token, reason } => {
                let (client, token) = (self.client().await?, locks::token_of(token)?);
                let broken = async {
                    let broken = client.break_lock(&lock, token, &reason).await;
                    broken.map_err(|error| locks::not_broken(error, &lock))
                };
                in_time(timeout, broken).await?;
            }
            Line::Files => {
                let client = self.client().await?;
                output.print(&in_time(timeout, files::list(&client)).await?)?;
            }
            Line::Cat { file } => {
                let client = self.client().await?;
                self.names.add(&file);
                let mut reader = client.read_file(&file, .., Consistency::Linearizable)?;
                while let Some(chunk) = in_time(timeout, async { Ok(reader.next().await?) }).await?
                {
                    output.raw(&chunk.bytes)?;
                }
            }
        }
        Ok(Next::Line)
    }

    /// The session, which is opened if there is none, or if the last one has ended.
    async fn session(&mut self) -> Result<&mut Session, Failure> {
        let is_over = |session: &Session| matches!(session.client.state(), SessionState::Ended(_));
        if self.session.as_ref().is_some_and(is_over) {
            self.session = None;
        }
        if self.session.is_none() {
            let client = self.context.connection.connect().await?;
            let watcher = tokio::spawn(tell_of_session(client.clone(), self.printer.clone()));
            let session = Session { client, held: BTreeMap::new(), watchers: vec![watcher] };
            self.session = Some(session);
        }
        self.session.as_mut().ok_or_else(|| Failure::internal("there is no session"))
    }

    async fn client(&mut self) -> Result<Client, Failure> {
        Ok(self.session().await?.client.clone())
    }

    async fn acquire(&mut self, lock: &str, wait: Wait) -> Result<(), Failure> {
        let client = self.client().await?;
        self.names.add(lock);
        let lock = super::run::waiting::acquire(&client, lock, wait.into()).await?;
        let printer = self.printer.clone();
        self.context.output.line(format!(
            "{} is held, with token {}",
            lock.name(),
            lock.token()
        ))?;
        let held = Held::new(lock, None);
        let name = held.lock.name().to_string();
        let session = self.session().await?;
        session.held.insert(name, Arc::clone(&held));
        session.watchers.retain(|watcher| !watcher.is_finished());
        session.watchers.push(tokio::spawn(tell_of_loss(held, printer)));
        Ok(())
    }

    async fn append(&mut self, file: &str, text: &str) -> Result<(), Failure> {
        let session = self.session().await?;
        let client = session.client.clone();
        session.held.retain(|_, held| held.lock.loss().is_none());
        let guard = client.file(file).await?.map(|view| view.guard.to_string());
        let bytes = format!("{text}\n");
        let held = match &guard {
            Some(guard) => session.held.get(guard),
            // A new file: guarded by the one lock that is held, if it is one.
            None if session.held.len() == 1 => session.held.values().next(),
            None => session.held.get(file),
        };
        let offset = if let Some(held) = held {
            held.lock.append(file, bytes).await?
        } else {
            let wait = Wait::For(self.context.connection.timeout);
            let lock = guard.as_deref().unwrap_or(file);
            let done = client.section(lock, wait, [(file, bytes)]).await?;
            done.offsets.first().copied().unwrap_or_default()
        };
        self.names.add(file);
        self.context.output.line(format!("appended to {file} at offset {offset}"))?;
        Ok(())
    }

    async fn release(&mut self, lock: &str) -> Result<(), Failure> {
        let held = self.session().await?.held.remove(lock);
        let Some(held) = held else {
            return Err(Failure::new(Exit::Negative, format!("this session does not hold {lock}"))
                .hint(format!("look who does with `why {lock}`")));
        };
        held.release().await?;
        self.context.output.line(format!("{lock} is released"))?;
        Ok(())
    }

    async fn close(&mut self) {
        let Some(session) = self.session.take() else { return };
        for watcher in &session.watchers {
            watcher.abort();
        }
        let closed = tokio::time::timeout(CLOSE_PATIENCE, session.client.clone().close()).await;
        tracing::debug!(?closed, "session closed");
    }
}

/// The first that went wrong.
fn first(exit: Exit, failed: Exit) -> Exit {
    if exit == Exit::Ok { failed } else { exit }
}

fn status(session: &mut Session) -> String {
    session.held.retain(|_, held| held.lock.loss().is_none());
    let client = &session.client;
    let state = match client.state() {
        SessionState::Opening => "opening",
        SessionState::Safe => "safe",
        SessionState::Jeopardy => "in jeopardy",
        SessionState::Ended(_) => "over",
    };
    let left = show(client.lease_left().unwrap_or_default());
    let node = client.node().map_or_else(|| "no node".to_owned(), |node| format!("node {node}"));
    let about = format!(
        "Session {} is {state}; its lease lasts for {left}; connected to {node}.\n",
        client.session()
    );
    let holds = session
        .held
        .values()
        .map(|held| format!("It holds {}, with token {}.\n", held.lock.name(), held.lock.token()));
    std::iter::once(about).chain(holds).collect()
}

async fn tell_of_session(client: Client, printer: Printer) {
    let mut state = client.watch();
    let mut was_in_jeopardy = false;
    while state.changed().await.is_ok() {
        let now = state.borrow_and_update().clone();
        match now {
            SessionState::Opening => {}
            SessionState::Safe if was_in_jeopardy => {
                printer.print("the session is safe again");
                was_in_jeopardy = false;
            }
            SessionState::Safe => {}
            SessionState::Jeopardy => {
                let left = show(client.lease_left().unwrap_or_default());
                printer.print(&format!(
                    "the session is in jeopardy: the cluster does not answer, its lease ends in {left}"
                ));
                was_in_jeopardy = true;
            }
            SessionState::Ended(ending) => {
                printer.print(&format!(
                    "the session is over: {ending}; the next command opens another one"
                ));
                return;
            }
        }
    }
}

async fn tell_of_loss(held: Arc<Held>, printer: Printer) {
    let loss = held.lock.lost().await;
    match loss.cause {
        // By us: nobody else has this session.
        LossCause::Released => {}
        LossCause::Taken(_) | LossCause::SessionEnded(_) => printer.print(&loss.to_string()),
    }
}
