//! `quorlock demo`: the tour. It checks what it shows, and ends with 0 only if all of it held.
//!
//! 1. Real processes become a cluster, and clients go through cycles on one lock: acquire, append a
//!    line to the file that it guards, release.
//! 2. The leader is killed at the very moment at which a client hands the lock on, and later started
//!    again.
//! 3. A process that holds a lock is stopped for longer than its lease. The next one gets the lock, and
//!    what the first one tries when it wakes up is refused.
//! 4. At the end, every line must be there once, in the order of the tokens, and every file must be the
//!    same on all nodes, byte for byte, on disk too.

mod act;
mod check;
mod holder;
mod stale;
mod workers;

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::Context;
use super::cluster::{Cluster, NODES_MAX};
use super::exit::{Exit, Failure};
use super::output::{Document, Format, Sheet, Tone};

pub(crate) use holder::hold;

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArguments {
    /// How many nodes the cluster has.
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u64).range(1..=NODES_MAX))]
    nodes: u64,
    /// How many clients compete for the lock.
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u64).range(1..=64))]
    clients: u64,
    /// How long the clients are watched in each part.
    #[arg(long, value_name = "TIME", default_value = "3", value_parser = super::duration::parse)]
    period: Duration,
    /// Keeps the folder with certificates, data and logs. If something is wrong, it is kept anyway.
    #[arg(long)]
    keep: bool,
}

/// Where ports are looked for: below those that the system gives to whoever asks for any.
const PORTS: std::ops::Range<u16> = 10_000..30_000;

/// Shows and checks.
pub(crate) fn run(arguments: DemoArguments, context: &Context) -> Result<Exit, Failure> {
    let teller = Teller { context };
    let folder = tempfile::Builder::new().prefix("quorlock-demo-").tempdir().map_err(|error| {
        Failure::configuration(format!("cannot make a temporary folder: {error}"))
    })?;
    teller.say(format!("Starting {} in {}.", nodes(arguments.nodes), folder.path().display()))?;
    let result = context.block_on(async {
        let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
        let mut cluster = Cluster::open(folder.path(), Some(arguments.nodes), first_port()?)?;
        let played = tokio::select! {
            played = act::play(&mut cluster, &arguments, teller) => played,
            _ = &mut interrupted => Err(Failure::new(Exit::Other(130), "interrupted")),
        };
        match &played {
            Ok(_) => cluster.stop().await,
            Err(_) => cluster.kill_all().await,
        }
        played
    });
    let is_interrupted = matches!(&result, Err(failure) if failure.exit() == Exit::Other(130));
    let all_well = matches!(&result, Ok(report) if report.problems.is_empty());
    let kept = (arguments.keep || !(all_well || is_interrupted)).then(|| folder.keep());
    let mut report = match (result, &kept) {
        (Ok(report), _) => report,
        (Err(failure), Some(kept)) => {
            return Err(failure.or_hint(format!("everything is kept in {}", kept.display())));
        }
        (Err(failure), None) => return Err(failure),
    };
    report.folder = kept;
    context.output.print(&report)?;
    Ok(if all_well { Exit::Ok } else { Exit::Negative })
}

fn first_port() -> Result<u16, Failure> {
    let random = getrandom::u32()
        .map_err(|error| Failure::internal(format!("there is no randomness: {error}")))?;
    let places = u32::from(PORTS.end - PORTS.start);
    let offset = u16::try_from(random % places).expect("it is below the number of ports");
    Ok(PORTS.start + offset)
}

fn nodes(count: u64) -> String {
    if count == 1 { "1 node".to_owned() } else { format!("{count} nodes, each a process,") }
}

/// Tells what happens: on stdout for people, on stderr where stdout is for a program.
#[derive(Clone, Copy)]
struct Teller<'a> {
    context: &'a Context,
}

impl Teller<'_> {
    fn say(self, text: impl std::fmt::Display) -> Result<(), Failure> {
        let output = &self.context.output;
        match output.format {
            Format::Table => output.line(text)?,
            Format::Json | Format::Plain => output.note(text),
        }
        Ok(())
    }

    /// The beginning of a part.
    fn part(self, title: &str) -> Result<(), Failure> {
        self.say(format!("\n{title}"))
    }
}

/// What came of it, for `-o json`.
#[derive(Clone, Debug, Default, Serialize)]
struct Report {
    nodes: u64,
    clients: u64,
    /// Completed cycles of acquire, append and release, of all clients.
    cycles: usize,
    /// While nothing was broken.
    cycles_per_second: f64,
    /// The longest time without a completed cycle after the leader was killed; `None` if it was not.
    failover_gap_ms: Option<u128>,
    /// How long the stopped holder kept the lock from the next one; `None` if that was not shown.
    pause_wait_ms: Option<u128>,
    /// Lines in the file of the cycles.
    lines: usize,
    /// Guarded files that were compared on all nodes.
    files: usize,
    files_equal: bool,
    /// What did not hold.
    problems: Vec<String>,
    /// Where everything is, if it was kept.
    folder: Option<PathBuf>,
    #[serde(skip)]
    painted: Option<(String, String)>,
}

impl Document for Report {
    fn sheet(&self) -> Sheet {
        let mut sheet = Sheet::new(&[]);
        sheet.remark("\nWhat came of it");
        sheet.remark(format!(
            "  {} cycles by {} clients; {:.0} cycles/s while nothing was broken",
            self.cycles, self.clients, self.cycles_per_second
        ));
        match self.failover_gap_ms {
            Some(gap) => {
                sheet.remark(format!("  fail-over gap: {gap} ms without a completed cycle"));
            }
            None => sheet.remark(format!(
                "  no fail-over: with {} nodes none can be missing; it takes at least 3",
                self.nodes
            )),
        }
        if let Some(wait) = self.pause_wait_ms {
            sheet.remark(format!("  the lock of the stopped process was free after {wait} ms"));
        }
        if self.files_equal {
            sheet.remark(format!(
                "  all files equal: {} files, byte for byte, on {} nodes",
                self.files, self.nodes
            ));
        }
        let (good, bad) = match &self.painted {
            Some((good, bad)) => (good.as_str(), bad.as_str()),
            None => ("OK", "NOT OK"),
        };
        if self.problems.is_empty() {
            sheet.remark(format!(
                "  no line lost or doubled: {} lines, tokens strictly increasing",
                self.lines
            ));
            sheet.remark(format!("{good}: everything held."));
        } else {
            for problem in &self.problems {
                sheet.remark(format!("  {bad}: {problem}"));
            }
        }
        if let Some(folder) = &self.folder {
            sheet.remark(format!("Everything is kept in {}.", folder.display()));
        }
        sheet
    }
}

impl Report {
    fn paint(&mut self, context: &Context) {
        let painted = |tone, text| context.output.painted(tone, text);
        self.painted = Some((painted(Tone::Good, "OK"), painted(Tone::Bad, "NOT OK")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_held_and_what_did_not() {
        let good = Report {
            nodes: 5,
            clients: 4,
            cycles: 1000,
            cycles_per_second: 123.4,
            failover_gap_ms: Some(700),
            files: 2,
            files_equal: true,
            lines: 1000,
            ..Report::default()
        };
        let output = crate::cli::output::OutputArguments { format: Format::Table }.output();
        let text = output.text(&good).expect("it can be shown");
        assert!(
            text.contains("all files equal") && text.contains("fail-over gap: 700 ms"),
            "{text}"
        );
        assert!(text.ends_with("OK: everything held.\n"), "{text}");
        let bad = Report { problems: vec!["a line is lost".to_owned()], ..good };
        let text = output.text(&bad).expect("it can be shown");
        assert!(text.contains("NOT OK: a line is lost") && !text.contains("held."), "{text}");
    }
}
