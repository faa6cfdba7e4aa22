//! Answers to queries.

use bytes::Bytes;
use quorlock_core::checksum::Checksum;
use quorlock_core::config::PAGE_MAX;
use quorlock_core::message::{
    Answer, FileView, HolderView, LockSummary, LockView, Query, WaiterView,
};
use quorlock_core::text::{FileName, LockName};

use super::{File, Model};

impl Model {
    /// Answers a query; the bytes of a file are not in the answer.
    pub fn answer(&self, query: &Query) -> Answer {
        match query {
            Query::Lock { lock } => Answer::Lock(self.lock_view(lock)),
            Query::Locks { prefix, after } => {
                Answer::Locks(self.summaries(prefix.as_str(), after.as_ref()))
            }
            Query::History { lock } => Answer::History(
                self.past.iter().filter(|it| it.lock == *lock).map(|it| it.hold.clone()).collect(),
            ),
            Query::File { file } => Answer::File(self.file(file)),
            Query::Files { after } => Answer::Files(self.file_views(after.as_ref())),
            Query::ReadFile { file, offset: _, length: _ } => {
                Answer::Bytes { file: self.file(file), bytes: Bytes::new() }
            }
        }
    }

    fn holder_view(&self, lock: &LockName) -> Option<HolderView> {
        let hold = self.hold(lock)?;
        let session = self.session(hold.session).expect("a holder is alive");
        Some(HolderView {
            session: session.id,
            label: session.label.clone(),
            token: hold.token,
            held_for: self.now.since(hold.since),
            lease_left: session.deadline.since(self.now),
            hold_left: hold.deadline.map(|it| it.since(self.now)),
        })
    }

    fn lock_view(&self, lock: &LockName) -> LockView {
        let queue: Vec<WaiterView> = self
            .waiters
            .iter()
            .filter(|it| it.lock == *lock)
            .map(|it| WaiterView {
                session: it.session,
                label: self.label(it.session),
                sequence: it.sequence,
                waited_for: self.now.since(it.since),
            })
            .collect();
        LockView {
            lock: lock.clone(),
            holder: self.holder_view(lock),
            waiters: queue.len() as u64,
            queue: queue.into_iter().take(PAGE_MAX).collect(),
        }
    }

    /// Every lock that is waited for is held, so that those held are all there are.
    fn summaries(&self, prefix: &str, after: Option<&LockName>) -> Vec<LockSummary> {
        let mut names: Vec<LockName> = self
            .holds
            .iter()
            .map(|it| it.lock.clone())
            .filter(|it| it.as_str().starts_with(prefix))
            .filter(|it| after.is_none_or(|after| it > after))
            .collect();
        names.sort();
        names.truncate(PAGE_MAX);
        names
            .into_iter()
            .map(|lock| LockSummary {
                holder: self.holder_view(&lock),
                waiters: self.queue_length(&lock) as u64,
                lock,
            })
            .collect()
    }

    fn file(&self, name: &FileName) -> Option<FileView> {
        self.files.iter().find(|it| it.name == *name).map(file_view)
    }

    fn file_views(&self, after: Option<&FileName>) -> Vec<FileView> {
        let mut views: Vec<FileView> = self
            .files
            .iter()
            .filter(|it| after.is_none_or(|after| it.name > *after))
            .map(file_view)
            .collect();
        views.sort_by(|a, b| a.file.cmp(&b.file));
        views.truncate(PAGE_MAX);
        views
    }
}

fn file_view(file: &File) -> FileView {
    FileView {
        file: file.name.clone(),
        guard: file.guard.clone(),
        length: file.bytes.len() as u64,
        checksum: Checksum::of(&file.bytes),
    }
}
