//! Getting what the files of this node lack from other nodes.
//!
//! In ranges, on streams of their own with a low priority, and one at a time beside the one that is
//! being written: heartbeats go on meanwhile. What was fetched is not lost when a source fails: the
//! next one goes on from there. The checksum of the whole file decides whether it is right.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::Connection;
use quorlock_core::ids::NodeId;
use quorlock_core::node::MissingBytes;
use quorlock_core::text::FileName;

use super::disk::DiskFiles;
use super::files::FilesError;
use super::shared::Shared;
use crate::wire::report::FILE_RANGE_BYTES_MAX;
use crate::wire::{
    DecodeError, FileRangeReply, FileRangeRequest, FrameError, FrameReader, StreamKind, decode,
    encode, write_frame,
};

/// How long one range may take.
const RANGE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a source may say that it is busy before another one is tried.
const BUSY_MAX: u32 = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(100);
const REPLY_BYTES_MAX: usize = 64;

/// Why a source is of no use for a file.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("there is no connection")]
    NotConnected,
    #[error("it does not have the file, or not all of it")]
    Missing,
    #[error("it is busy")]
    Busy,
    #[error("it is too slow")]
    Slow,
    #[error("{0}")]
    Connection(#[from] quinn::ConnectionError),
    #[error("{0}")]
    Write(#[from] quinn::WriteError),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Decode(#[from] DecodeError),
    #[error("it sent another number of bytes than was asked for")]
    OtherLength,
    #[error("what it sent does not have the checksum of the file")]
    Misfit,
    #[error("{0}")]
    Files(#[from] FilesError),
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    /// What is still missing.
    pub(super) left: Vec<MissingBytes>,
    /// Whether several nodes sent what does not fit to what was there before.
    pub(super) is_damaged: bool,
}

/// Fetches what is missing, from `first` if it has it, else from any other node.
pub(super) async fn fetch(
    shared: &Arc<Shared>,
    files: &DiskFiles,
    first: Option<NodeId>,
    missing: Vec<MissingBytes>,
) -> Fetched {
    let mut fetched = Fetched::default();
    for file in missing {
        let mut misfits = 0;
        if !fetch_file(shared, files, first, &file, &mut misfits).await {
            fetched.left.push(file);
        }
        fetched.is_damaged |= misfits >= 2;
    }
    fetched
}

/// `false` if no node has it, or none that can be reached. Counts those that sent what does not fit.
async fn fetch_file(
    shared: &Arc<Shared>,
    files: &DiskFiles,
    first: Option<NodeId>,
    missing: &MissingBytes,
    misfits: &mut u32,
) -> bool {
    let mut sources: Vec<NodeId> = shared.links.keys().copied().collect();
    sources.sort_by_key(|node| Some(*node) != first);
    for source in sources {
        match fetch_from(shared, files, source, missing).await {
            Ok(()) => {
                let bytes = missing.length - missing.offset;
                tracing::info!(peer = %source, file = ?missing.file, bytes, "fetched a file");
                return true;
            }
            Err(error) => {
                *misfits += u32::from(matches!(error, FetchError::Misfit));
                tracing::info!(peer = %source, file = ?missing.file, %error, "cannot fetch a file");
            }
        }
    }
    false
}

/// Fetches what is not there yet, the next range while the last one is written.
async fn fetch_from(
    shared: &Arc<Shared>,
    files: &DiskFiles,
    source: NodeId,
    missing: &MissingBytes,
) -> Result<(), FetchError> {
    let link = shared.links.get(&source).ok_or(FetchError::NotConnected)?;
    let connection = link.connection().ok_or(FetchError::NotConnected)?;
    let length_at = |offset: u64| {
        let left = missing.length.saturating_sub(offset);
        u32::try_from(left).unwrap_or(u32::MAX).min(FILE_RANGE_BYTES_MAX)
    };
    let mut offset = files.fetch_from(missing.clone()).await?;
    let mut fetched = None;
    while length_at(offset) > 0 {
        let bytes = match fetched.take() {
            Some(bytes) => bytes,
            None => range(&connection, &missing.file, offset, length_at(offset)).await?,
        };
        let next = offset + bytes.len() as u64;
        let written = files.install(missing.clone(), offset, bytes);
        if length_at(next) > 0 {
            let ahead = range(&connection, &missing.file, next, length_at(next));
            let (written, ahead) = tokio::join!(written, ahead);
            offset = written?;
            fetched = (offset == next).then_some(ahead?);
        } else {
            offset = written.await?;
        }
    }
    if files.complete(missing.clone()).await? { Ok(()) } else { Err(FetchError::Misfit) }
}

async fn range(
    connection: &Connection,
    file: &FileName,
    offset: u64,
    length: u32,
) -> Result<Bytes, FetchError> {
    for _ in 0..BUSY_MAX {
        let asked = tokio::time::timeout(RANGE_TIMEOUT, ask(connection, file, offset, length));
        match asked.await.map_err(|_elapsed| FetchError::Slow)? {
            Err(FetchError::Busy) => tokio::time::sleep(BUSY_PAUSE).await,
            answered => return answered,
        }
    }
    Err(FetchError::Busy)
}

async fn ask(
    connection: &Connection,
    file: &FileName,
    offset: u64,
    length: u32,
) -> Result<Bytes, FetchError> {
    let (mut send, receive) = connection.open_bi().await?;
    let kind = StreamKind::FileRange;
    send.set_priority(kind.priority()).map_err(|_closed| quinn::WriteError::ClosedStream)?;
    send.write_all(&[kind.byte()]).await?;
    let request = FileRangeRequest { file: file.clone(), offset, length };
    write_frame(&mut send, encode(&request)).await?;
    drop(send.finish());
    let bytes_max = REPLY_BYTES_MAX.max(length as usize);
    let mut reader = FrameReader::new(receive, bytes_max);
    let reply = reader.next().await?.ok_or(FetchError::Missing)?;
    match decode(&reply)? {
        FileRangeReply::Bytes => {}
        FileRangeReply::Missing => return Err(FetchError::Missing),
        FileRangeReply::Busy => return Err(FetchError::Busy),
    }
    let bytes = reader.next().await?.ok_or(FetchError::Missing)?;
    if bytes.len() == length as usize { Ok(bytes) } else { Err(FetchError::OtherLength) }
}
