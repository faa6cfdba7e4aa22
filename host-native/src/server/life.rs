//! The life of a node within its server: repair, run, and again if a file was damaged.
//!
//! Connections outlive it. While the node does not run, because files are being fetched, peers' messages
//! are dropped and clients are sent elsewhere.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quorlock_core::config::Config;
use quorlock_core::message::{Reply, Unavailable};
use quorlock_core::node::{MissingBytes, Node};
use quorlock_core::time::Time;
use tokio::sync::mpsc;

use super::close::Close;
use super::disk::{Disk, DiskEvent, OpenDisk, Opened};
use super::driver::{Driver, End};
use super::error::{ServerError, StartError};
use super::fetch;
use super::inputs::{Control, Inputs};
use super::shared::Shared;
use super::start::blocking;
use crate::clock;

/// The pause between attempts to repair, which doubles while nothing comes of them: what they say fills
/// no disk.
const REPAIR_PAUSE_MIN: Duration = Duration::from_secs(1);
const REPAIR_PAUSE_MAX: Duration = Duration::from_secs(10);
/// The pause before the node starts again after a file was damaged.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// Everything that the nodes of one server need, one after the other.
pub(super) struct Life {
    pub(super) shared: Arc<Shared>,
    pub(super) inputs: Inputs,
    pub(super) config: Config,
    pub(super) open: OpenDisk,
}

impl Life {
    /// Runs nodes until one stops or fails for good.
    pub(super) async fn run(mut self, opened: Opened) -> Result<(), ServerError> {
        let ended = self.run_all(opened).await;
        if ended.is_err() {
            // Others should not wait for answers.
            self.shared.stopping.store(true, Ordering::Release);
            self.shared.clients.close_all(Close::Stopping);
        }
        ended
    }

    async fn run_all(&mut self, mut opened: Opened) -> Result<(), ServerError> {
        loop {
            match self.run_one(opened).await {
                End::Stopped => return Ok(()),
                End::Failed(error) => return Err(error),
                End::Damaged => {}
            }
            self.shared.clients.close_all(Close::Stopping);
            tokio::time::sleep(RESTART_PAUSE).await;
            tracing::info!("starting again");
            let restart = |error: StartError| ServerError::Restart(error.to_string());
            opened = self.open().await.map_err(restart)?;
        }
    }

    async fn open(&self) -> Result<Opened, StartError> {
        let directory = self.shared.directory.lease();
        let directory =
            directory.ok_or_else(|| StartError::Internal("the node was stopped".to_owned()))?;
        let open = Arc::clone(&self.open);
        let opened = blocking(move || open(&directory)).await?;
        opened.check_sources(self.shared.members.len())?;
        Ok(opened)
    }

    async fn run_one(&mut self, opened: Opened) -> End {
        let Opened { disk, mut events, recovered, missing, locks: _ } = opened;
        self.shared.set_files(Some(disk.files()));
        self.shared.space.forget();
        if !missing.is_empty()
            && let Some(end) = self.repair(&disk, &mut events, missing).await
        {
            self.close(disk).await;
            return end;
        }
        let seed = getrandom::u64();
        let started = seed.map_err(|error| error.to_string()).and_then(|seed| {
            let node =
                Node::new(self.shared.id, self.config.clone(), recovered, seed, clock::now());
            node.map_err(|error| error.to_string())
        });
        let end = match started {
            Ok(node) => {
                let leaving_max = self.config.election_timeout_max * 3;
                let shared = Arc::clone(&self.shared);
                let driver = Driver::new(node, shared, disk.clone(), leaving_max);
                driver.run(&mut self.inputs, &mut events).await
            }
            Err(reason) => End::Failed(ServerError::Restart(reason)),
        };
        self.close(disk).await;
        end
    }

    /// Ends the threads of the disk: all that was handed to them is done then.
    async fn close(&self, disk: Disk) {
        self.shared.set_files(None);
        let stopped = tokio::task::spawn_blocking(|| disk.stop()).await;
        if let Err(error) = stopped {
            tracing::error!(%error, "the disk did not stop");
        }
    }

    /// Fetches what is missing, before the node takes part. `Some` if the server is to end meanwhile.
    async fn repair(
        &mut self,
        disk: &Disk,
        events: &mut mpsc::UnboundedReceiver<DiskEvent>,
        mut missing: Vec<MissingBytes>,
    ) -> Option<End> {
        let shared = Arc::clone(&self.shared);
        let files = disk.files();
        let fetched = async {
            let mut pause = REPAIR_PAUSE_MIN;
            loop {
                let before = missing.len();
                tracing::warn!(
                    files = missing.len(),
                    first = ?missing.first().map(|missing| &missing.file),
                    "guarded files are missing or damaged: fetching them from other nodes; until then \
                     this node takes no part in the cluster"
                );
                missing = fetch::fetch(&shared, &files, None, missing).await.left;
                if missing.is_empty() {
                    tracing::info!("all guarded files are there");
                    return None;
                }
                tokio::time::sleep(pause).await;
                let is_in_vain = missing.len() == before;
                pause =
                    if is_in_vain { (pause * 2).min(REPAIR_PAUSE_MAX) } else { REPAIR_PAUSE_MIN };
            }
        };
        tokio::select! {
            done = fetched => done,
            end = idle(&self.shared, &mut self.inputs, events) => Some(end),
        }
    }
}

/// Does what there is to do while there is no node.
async fn idle(
    shared: &Shared,
    inputs: &mut Inputs,
    events: &mut mpsc::UnboundedReceiver<DiskEvent>,
) -> End {
    loop {
        let turn = inputs.gather(events, Time::MAX).await;
        for _ in turn.peers {
            shared.ignore_message();
        }
        for input in turn.keep_alives.into_iter().chain(turn.requests) {
            let reason = Unavailable::NotLeader { leader: None };
            input.outbox.send(&Reply::Unavailable { request: input.request.key(), reason });
        }
        for event in turn.disk {
            shared.space.note(&event);
            match event {
                DiskEvent::LogFailed { reason } => return End::Failed(ServerError::Log(reason)),
                DiskEvent::FilesFailed { reason } => {
                    return End::Failed(ServerError::Files(reason));
                }
                DiskEvent::Damaged { .. } => return End::Damaged,
                DiskEvent::Persisted { .. }
                | DiskEvent::EffectsDurable { .. }
                | DiskEvent::LogFull { .. }
                | DiskEvent::LogSpaceAgain
                | DiskEvent::FilesFull { .. }
                | DiskEvent::FilesSpaceAgain => {}
            }
        }
        for control in turn.control {
            match control {
                Control::Stop => return End::Stopped,
                #[cfg(test)]
                Control::Transfer => {}
                Control::Disconnected(_) | Control::Fetched { .. } => {}
            }
        }
    }
}
