//! Golden scripts: a cluster driven by hand, in a text that explains itself.
//!
//! A script is a list of commands with comments between them that say what is about to happen and
//! why, and below each group of commands what did happen:
//!
//! ```text
//! # Node 1 hears from nobody, so it asks whether it would be voted for.
//! campaign 1
//! ---
//! 1 is pre-candidate in term 0
//! 1 ~> 2 PreVote term 1, log ends at 0@0
//! ```
//!
//! The commands are in `tests/scripts/README.md`. What is below the `---` is written by
//! [`generate`], and read by a person before it is kept.
//!
//! The syntax, and the running of one group after the other, is that of the crate `goldenscript`. The
//! words are ours. A script drives a [`Lab`], so everything that a lab checks is checked at each of
//! its steps.

mod clients;
mod cluster;
mod forge;
mod sessions;
mod settings;
mod values;
mod views;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;

use quorlock_core::ids::{FencingToken, SessionId};
use quorlock_core::lock::LockEvent;
use quorlock_core::message::{Op, Reply};
use quorlock_core::node::Event;

use crate::lab::{ClientNews, Lab, TraceEvent};
use cluster::ClusterCommand;
use words::Words;

/// Runs a script and returns it with what happens below each group of commands.
///
/// With `check_restarts`, every batch of every node is also tried as a place to start again from
/// ([`Lab::check_restarts`]). That changes nothing of what is returned.
///
/// # Errors
/// A command that is none, or that failed and was not expected to.
///
/// # Panics
/// If something does not hold that always must, which is what the script is for.
pub fn generate(script: &str, check_restarts: bool) -> std::io::Result<String> {
    let mut runner = Script { check_restarts, ..Script::default() };
    goldenscript::generate(&mut runner, script)
}

/// A script that runs.
#[derive(Default)]
struct Script {
    lab: Option<Lab>,
    check_restarts: bool,
    /// Whether every command is followed by a `settle`.
    automatic: bool,
    words: Words,
    /// Raw sessions by the name that the script uses.
    sessions: BTreeMap<String, SessionId>,
    /// Names that are clients of the core.
    clients: BTreeSet<String>,
    /// The connections on which raw sessions read.
    readers: BTreeMap<String, u64>,
    /// What raw sessions have asked for, to be sent again.
    submitted: BTreeMap<(String, u64), Op>,
    /// The token with which each name was granted each lock last.
    tokens: BTreeMap<(String, String), FencingToken>,
    /// The token of the last grant of each lock.
    holds: BTreeMap<String, FencingToken>,
    /// What the present command tells beside the trace.
    text: String,
}

impl Script {
    /// Goes on with another cluster.
    fn begin(&mut self, mut lab: Lab) {
        self.end();
        lab.record(true);
        if self.check_restarts {
            lab.check_restarts();
        }
        self.lab = Some(lab);
    }

    fn end(&mut self) {
        if let Some(lab) = self.lab.take() {
            lab.check_recovery_points();
        }
    }

    fn lab(&mut self) -> Result<&mut Lab, Box<dyn Error>> {
        self.lab.as_mut().ok_or_else(|| "begin with a cluster".into())
    }

    /// The trace of what the last command did.
    fn tell(&mut self) -> Result<String, Box<dyn Error>> {
        if self.automatic {
            self.lab()?.settle();
        }
        let Some(lab) = &mut self.lab else { return Ok(String::new()) };
        let events = lab.take_trace();
        for event in &events {
            self.learn(event);
        }
        Ok(self.words.trace(&events) + &std::mem::take(&mut self.text))
    }

    /// Learns who is who, and who holds what.
    fn learn(&mut self, event: &TraceEvent) {
        if let TraceEvent::Request { conn, .. }
        | TraceEvent::Reply { conn, .. }
        | TraceEvent::Disconnected { conn, .. } = event
            && let Some(name) = self.lab.as_ref().and_then(|lab| lab.client_of(*conn))
        {
            self.words.connections.insert(*conn, name.to_owned());
            self.words.carried.insert(*conn);
        }
        if let TraceEvent::Reply { node, conn, reply: Reply::Opened { result: Ok(opened), .. } } =
            event
            && let Some(name) = self.words.connections.get(conn).cloned()
        {
            self.words.sessions.insert(opened.session, name.clone());
            self.sessions.insert(name, opened.session);
            if let Some(lab) = &mut self.lab {
                lab.adopt(node.value(), opened.session, conn.value());
            }
        }
        if let TraceEvent::Client { name, news } = event
            && let ClientNews::Received(_, Reply::Opened { result: Ok(opened), .. }) = news
        {
            self.words.sessions.insert(opened.session, name.clone());
        }
        if let TraceEvent::Event { event: Event::Lock { event, .. }, .. } = event
            && let LockEvent::Granted { lock, session, token, .. } = event
        {
            let key = (self.words.session(*session), lock.to_string());
            self.tokens.insert(key, *token);
            self.holds.insert(lock.to_string(), *token);
        }
    }
}

impl goldenscript::Runner for Script {
    type Command = goldenscript::Command;

    fn run(
        &mut self,
        command: &goldenscript::Command,
        _: &goldenscript::Context,
    ) -> Result<String, Box<dyn Error>> {
        self.run_cluster(ClusterCommand::try_from(command)?)?;
        self.tell()
    }

    fn end_script(&mut self) -> Result<(), Box<dyn Error>> {
        self.end();
        Ok(())
    }
}
