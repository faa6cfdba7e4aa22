//! One node of the lab, with its disk and its files.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use quorlock_core::ids::{EntryId, LogIndex, NodeId};
use quorlock_core::message::{Effect, Recovered, WriteBatch};
use quorlock_core::node::{MissingBytes, Node};
use quorlock_core::text::FileName;

/// The content of files.
pub(super) type Files = BTreeMap<FileName, Vec<u8>>;

/// What a test finishes itself instead of leaving it to the lab.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Work {
    Writes,
    Effects,
    Fetches,
    /// The node's outputs are not even taken.
    Outputs,
}

/// What a node has asked to be fetched from another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MissingFiles {
    /// The snapshot that they belong to.
    pub snapshot: EntryId,
    /// Who has them.
    pub from: NodeId,
    /// What is missing.
    pub files: Vec<MissingBytes>,
}

/// One node of the lab, with its disk and its files.
///
/// Invariants: `latest` is `durable` with all of `writes` applied (but that compaction waits for the
/// checks); the first `written` of `writes` are in `durable` already, and only their
/// acknowledgement is missing; without a node there is nothing under way.
#[derive(Clone, Debug)]
pub struct LabNode {
    pub(super) node: Option<Node>,
    /// How often it was started.
    pub(super) starts: u64,
    pub(super) durable: Recovered,
    pub(super) latest: Recovered,
    /// Removal of entries from `latest` that waits until the checks have seen them.
    pub(super) compact: Option<LogIndex>,
    pub(super) writes: VecDeque<WriteBatch>,
    pub(super) written: usize,
    /// Effects in `files` that would not survive a crash.
    pub(super) effects: VecDeque<Effect>,
    pub(super) files: Files,
    pub(super) durable_files: Files,
    pub(super) missing: Option<MissingFiles>,
    pub(super) holds: BTreeSet<Work>,
}

impl LabNode {
    /// A node that is not running, with this disk.
    pub(super) fn down(disk: Recovered) -> Self {
        Self {
            node: None,
            starts: 0,
            latest: disk.clone(),
            durable: disk,
            compact: None,
            writes: VecDeque::new(),
            written: 0,
            effects: VecDeque::new(),
            files: Files::new(),
            durable_files: Files::new(),
            missing: None,
            holds: BTreeSet::new(),
        }
    }

    /// The node itself; `None` while it is down.
    #[must_use]
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// Whether the test finishes this kind of work itself.
    pub(super) fn holds(&self, work: Work) -> bool {
        self.holds.contains(&work)
    }

    pub(super) fn hold(&mut self, work: Work, hold: bool) {
        if hold {
            self.holds.insert(work);
        } else {
            self.holds.remove(&work);
        }
    }

    pub(super) fn node_mut(&mut self) -> Option<&mut Node> {
        self.node.as_mut()
    }

    /// What it would start from after a crash.
    #[must_use]
    pub fn durable(&self) -> &Recovered {
        &self.durable
    }

    /// What its disk will have once all writes are done: the node's own view of its log.
    #[must_use]
    pub fn latest(&self) -> &Recovered {
        &self.latest
    }

    /// Batches that were not acknowledged yet, in order.
    pub fn writes(&self) -> impl ExactSizeIterator<Item = &WriteBatch> {
        self.writes.iter()
    }

    /// Effects that are not durable yet, in order.
    pub fn effects(&self) -> impl ExactSizeIterator<Item = &Effect> {
        self.effects.iter()
    }

    /// What it wants to fetch, and has not been told the end of.
    #[must_use]
    pub fn missing(&self) -> Option<&MissingFiles> {
        self.missing.as_ref()
    }

    /// The content of a guarded file, durable or not; `None` when there is no such file.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(Vec::as_slice)
    }

    /// The content of all guarded files, durable or not, by name.
    pub fn files(&self) -> impl Iterator<Item = (&FileName, &[u8])> {
        self.files.iter().map(|(name, bytes)| (name, bytes.as_slice()))
    }

    /// The part of a guarded file that would survive a crash; `None` when the file would not.
    #[must_use]
    pub fn durable_file(&self, name: &str) -> Option<&[u8]> {
        self.durable_files.get(name).map(Vec::as_slice)
    }
}
