//! Commands that only look.

use std::error::Error;
use std::fmt::Write as _;

use quorlock_core::checksum::Checksum;
use quorlock_core::ids::LogIndex;
use quorlock_core::message::Query;
use quorlock_core::node::Status;
use quorlock_core::raft::Role;
use quorlock_core::text::LockName;

use super::Script;
use super::words;

/// Commands that only look.
#[derive(Debug, goldenscript::Command)]
pub(super) enum ViewCommand {
    /// `status 1`: role, term, commit, log; without a node, of all.
    Status(Option<u64>),
    /// `log 1`: every entry with its stamp.
    Log(u64),
    /// `disk 1`: what the node would start from.
    Disk(u64),
    /// `progress 1`: what a leader knows of the others.
    Progress(u64),
    /// `mail`: what is on its way.
    Mail,
    /// `counts 1`: how much the lock table holds.
    Counts(u64),
    /// `drops 1`: messages that made no sense.
    Drops(u64),
    /// `lock db 1`: a lock with its queue, from the state of node 1, or of the leader.
    Lock(String, Option<u64>),
    /// `files 1`: the content of every file, and what of it is durable.
    Files(u64),
    /// `same`: that all nodes that run have one state; fails if not.
    Same,
    /// `clock`: what time it is, and when each node wants to be woken.
    Clock,
}

impl Script {
    pub(super) fn run_views(&mut self, command: ViewCommand) -> Result<(), Box<dyn Error>> {
        match command {
            ViewCommand::Status(Some(n)) => self.tell_status(n),
            ViewCommand::Status(None) => {
                let ids: Vec<u64> = self.lab()?.ids().collect();
                ids.into_iter().try_for_each(|n| self.tell_status(n))
            }
            ViewCommand::Log(n) => self.tell_log(n),
            ViewCommand::Disk(n) => self.tell_disk(n),
            ViewCommand::Progress(n) => self.tell_progress(n),
            ViewCommand::Mail => self.tell_mail(),
            ViewCommand::Counts(n) => self.tell_counts(n),
            ViewCommand::Drops(n) => {
                for (reason, count) in self.lab()?.status(n).dropped {
                    writeln!(self.text, "{n} dropped {count} as {reason:?}")?;
                }
                Ok(())
            }
            ViewCommand::Lock(lock, n) => self.tell_lock(lock, n),
            ViewCommand::Files(n) => self.tell_files(n),
            ViewCommand::Same => self.tell_same(),
            ViewCommand::Clock => self.tell_clock(),
        }
    }

    fn tell_status(&mut self, n: u64) -> Result<(), Box<dyn Error>> {
        let line = if self.lab()?.is_up(n) {
            status_words(&self.lab()?.status(n))
        } else {
            "is down".to_owned()
        };
        writeln!(self.text, "{n} {line}")?;
        Ok(())
    }

    fn tell_log(&mut self, n: u64) -> Result<(), Box<dyn Error>> {
        let node = self.lab()?.lab_node(n).clone();
        let durable: Vec<_> = node.durable().entries.iter().map(|entry| entry.id).collect();
        for entry in &node.latest().entries {
            let line = words::entry(&self.words, entry);
            let pending = if durable.contains(&entry.id) { "" } else { " (not durable)" };
            writeln!(self.text, "{n} {line}, stamp {:?}{pending}", entry.stamp)?;
        }
        Ok(())
    }

    fn tell_disk(&mut self, n: u64) -> Result<(), Box<dyn Error>> {
        let disk = self.lab()?.lab_node(n).durable().clone();
        let ids: Vec<String> = disk.entries.iter().map(|entry| entry.id.to_string()).collect();
        let (state, snapshot) = (words::hard_state(disk.hard_state), disk.snapshot.last);
        let log = if ids.is_empty() { "empty".to_owned() } else { ids.join(" ") };
        writeln!(self.text, "{n} {state}; snapshot {snapshot}; log {log}")?;
        Ok(())
    }

    fn tell_progress(&mut self, n: u64) -> Result<(), Box<dyn Error>> {
        for peer in self.lab()?.status(n).progress {
            let (node, matched, next, state) = (peer.node, peer.matched, peer.next, peer.state);
            writeln!(self.text, "{node} {state:?}, matched {matched}, next {next}")?;
        }
        Ok(())
    }

    fn tell_mail(&mut self) -> Result<(), Box<dyn Error>> {
        for envelope in self.lab()?.mail().to_vec() {
            writeln!(self.text, "{}", words::envelope("~>", &envelope))?;
        }
        Ok(())
    }

    fn tell_counts(&mut self, n: u64) -> Result<(), Box<dyn Error>> {
        let counts = self.lab()?.status(n).counts;
        writeln!(
            self.text,
            "{n}: {} sessions, {} locks, {} waiters, {} files, {} past holds",
            counts.sessions, counts.locks, counts.waiters, counts.files, counts.past_holds
        )?;
        Ok(())
    }

    fn tell_lock(&mut self, lock: String, n: Option<u64>) -> Result<(), Box<dyn Error>> {
        let leader = self.lab()?.leader();
        let n = n.or(leader).ok_or("there is no leader: say of which node")?;
        let answer = self.lab()?.node(n).answer(&Query::Lock { lock: LockName::new(lock)? });
        writeln!(self.text, "{n}: {}", words::answer(&self.words, &answer))?;
        Ok(())
    }

    fn tell_files(&mut self, n: u64) -> Result<(), Box<dyn Error>> {
        let node = self.lab()?.lab_node(n).clone();
        for (file, bytes) in node.files() {
            let durable = node.durable_file(file.as_str()).map_or(0, <[u8]>::len);
            let text = String::from_utf8_lossy(bytes);
            writeln!(self.text, "{n} {file}: {text:?}, {durable} bytes of it durable")?;
        }
        Ok(())
    }

    fn tell_same(&mut self) -> Result<(), Box<dyn Error>> {
        let lab = self.lab()?;
        let up: Vec<u64> = lab.ids().filter(|n| lab.is_up(*n)).collect();
        let states = up.iter().map(|n| (lab.status(*n).applied, lab.node(*n).digest()));
        let mut states: Vec<(LogIndex, Checksum)> = states.collect();
        states.dedup();
        match states[..] {
            [(applied, _)] => writeln!(self.text, "{up:?} have one state, as of {applied}")?,
            _ => return Err(format!("they differ: {states:?}").into()),
        }
        Ok(())
    }

    fn tell_clock(&mut self) -> Result<(), Box<dyn Error>> {
        let now = self.lab()?.now();
        writeln!(self.text, "it is {now:?}")?;
        let ids: Vec<u64> = self.lab()?.ids().collect();
        for n in ids {
            if let Some(deadline) = self.lab()?.deadline(n) {
                writeln!(self.text, "{n} wakes at {deadline:?}")?;
            }
        }
        Ok(())
    }
}

fn status_words(status: &Status) -> String {
    let Status { role, term, leader, commit, first, last, durable, .. } = status;
    let role = match (role, leader) {
        (Role::Follower, Some(leader)) => format!("follows {leader}"),
        (Role::Follower, None) => "follows nobody".to_owned(),
        (Role::PreCandidate, _) => "is pre-candidate".to_owned(),
        (Role::Candidate, _) => "is candidate".to_owned(),
        (Role::Leader, _) => "leads".to_owned(),
    };
    format!(
        "{role} in term {term}; log {first} to {last}, durable to {durable}, committed to {commit}"
    )
}
