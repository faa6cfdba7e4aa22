//! Guarded files: effects, reads, and fetching from other nodes.

use bytes::Bytes;
use quorlock_core::checksum::Checksum;
use quorlock_core::ids::NodeId;
use quorlock_core::message::{Answer, Effect, FileView, Reply};
use quorlock_core::node::{FileRead, Input, MissingBytes};

use super::Lab;
use super::node::{Files, MissingFiles, Work};
use super::trace::TraceEvent;

impl Lab {
    /// Does a write to a file. It is not durable yet.
    pub(super) fn begin_effect(&mut self, id: NodeId, effect: Effect) {
        self.trace(|| TraceEvent::Effect { node: id, effect: effect.clone() });
        let node = self.lab_node_mut(id.value());
        write_at(&mut node.files, &effect);
        node.effects.push_back(effect);
    }

    /// Makes a node's effects durable and tells the node; false when there are none.
    pub fn effects_durable(&mut self, n: u64) -> bool {
        let node = self.lab_node_mut(n);
        let Some(up_to) = node.effects.drain(..).last().map(|effect| effect.index) else {
            return false;
        };
        node.durable_files = node.files.clone();
        self.trace(|| TraceEvent::EffectsDurable { node: NodeId::new(n), up_to });
        self.input(n, Input::EffectsDurable { up_to });
        true
    }

    /// A node's effects wait from now on until the test makes them durable.
    pub fn hold_effects(&mut self, n: u64, hold: bool) {
        self.lab_node_mut(n).hold(Work::Effects, hold);
        self.finish_automatically(NodeId::new(n));
    }

    /// Some of the effects that are not durable reach the disk after all, as they may: the first
    /// `bytes` of each file. The node is not told.
    pub fn tear_files(&mut self, n: u64, bytes: usize) {
        let node = self.lab_node_mut(n);
        for (name, content) in &node.files {
            let durable = node.durable_files.entry(name.clone()).or_default();
            if durable.len() < bytes {
                *durable = content[..bytes.min(content.len())].to_vec();
            }
        }
    }

    /// Answers a client's read from the file.
    pub(super) fn read_file(&mut self, id: NodeId, read: FileRead) {
        let content = &self.nodes[&id].files[&read.file.file];
        assert!(is_content(content, &read.file), "a read comes after the effects before it");
        let start = usize::try_from(read.offset).expect("an offset in a file in memory");
        let end = start + read.length as usize;
        assert!(end as u64 <= read.file.length, "a read shows committed bytes only");
        let bytes = Bytes::copy_from_slice(&content[start..end]);
        let answer = Answer::Bytes { file: Some(read.file), bytes };
        self.reply(id, read.conn, Reply::Read { id: read.id, index: read.index, answer });
    }

    /// A node asks for what its files lack. It supersedes what it asked for before.
    pub(super) fn begin_fetch(&mut self, id: NodeId, missing: MissingFiles) {
        self.trace(|| TraceEvent::FetchBegun { node: id, missing: missing.clone() });
        self.lab_node_mut(id.value()).missing = Some(missing);
    }

    /// Fetches what a node has asked for, and tells it how that went; false when it has asked for
    /// nothing. It fails when the other node is down, or has not what is wanted.
    pub fn fetch(&mut self, n: u64) -> bool {
        let Some(missing) = self.lab_node_mut(n).missing.take() else {
            return false;
        };
        let source = &self.nodes[&missing.from];
        let source = source.node.is_some().then(|| source.files.clone());
        let node = self.lab_node_mut(n);
        let complete = source.is_some_and(|source| {
            missing.files.iter().all(|file| fetch_file(&source, file, &mut node.files))
        });
        for file in missing.files.iter().map(|missing| &missing.file) {
            if let Some(content) = node.files.get(file) {
                node.durable_files.insert(file.clone(), content.clone());
            }
        }
        self.fetched(n, &missing, complete);
        true
    }

    /// Tells a node that what it has asked for cannot be fetched; false when it has asked for
    /// nothing.
    pub fn fail_fetch(&mut self, n: u64) -> bool {
        let Some(missing) = self.lab_node_mut(n).missing.take() else {
            return false;
        };
        self.fetched(n, &missing, false);
        true
    }

    fn fetched(&mut self, n: u64, missing: &MissingFiles, complete: bool) {
        let snapshot = missing.snapshot;
        self.trace(|| TraceEvent::Fetched { node: NodeId::new(n), snapshot, complete });
        self.input(n, Input::FilesFetched { snapshot, complete });
    }

    /// A node's fetches wait from now on until the test finishes them.
    pub fn hold_fetches(&mut self, n: u64, hold: bool) {
        self.lab_node_mut(n).hold(Work::Fetches, hold);
    }
}

/// Whether the beginning of `content` is the file as described.
pub(super) fn is_content(content: &[u8], file: &FileView) -> bool {
    is_prefix(content, file.length, file.checksum)
}

fn is_prefix(content: &[u8], length: u64, checksum: Checksum) -> bool {
    let length = usize::try_from(length).expect("a file in memory");
    content.get(..length).is_some_and(|prefix| Checksum::of(prefix) == checksum)
}

/// Does a write at an offset, as often as one likes.
fn write_at(files: &mut Files, effect: &Effect) {
    let content = files.entry(effect.file.clone()).or_default();
    let start = usize::try_from(effect.offset).expect("an offset in a file in memory");
    assert!(start <= content.len(), "an effect leaves no hole: {effect:?}");
    let there = effect.bytes.len().min(content.len() - start);
    let (again, new) = effect.bytes.split_at(there);
    assert_eq!(&content[start..start + there], again, "an effect changes nothing: {effect:?}");
    content.extend_from_slice(new);
}

/// Copies what a file lacks; false when the source does not have it, or it is not what is wanted.
fn fetch_file(source: &Files, missing: &MissingBytes, files: &mut Files) -> bool {
    let Some(theirs) = source.get(&missing.file) else {
        return false;
    };
    let ours = files.entry(missing.file.clone()).or_default();
    let length = usize::try_from(missing.length).expect("a file in memory");
    if theirs.len() < length {
        return false;
    }
    if ours.len() < length {
        ours.extend_from_slice(&theirs[ours.len()..length]);
    }
    is_prefix(ours, missing.length, missing.checksum)
}
