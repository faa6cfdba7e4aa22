//! Bytes of guarded files, for peers that lack them.

use std::sync::Arc;

use quinn::{RecvStream, SendStream};
use tokio::sync::Semaphore;

use super::files::FilesError;
use super::shared::Shared;
use super::streams::Fault;
use crate::wire::report::FILE_RANGE_BYTES_MAX;
use crate::wire::{
    FileRangeReply, FileRangeRequest, FrameReader, StreamKind, decode, encode, write_frame,
};

/// The most bytes of a question: a name, and two numbers.
const QUESTION_BYTES_MAX: usize = 1024;
/// The most ranges that are read and sent at one time, for all peers.
const RANGES_MAX: usize = 16;

/// Places among the ranges that are sent.
#[derive(Debug)]
pub(super) struct Ranges(Semaphore);

impl Ranges {
    pub(super) fn new() -> Self {
        Self(Semaphore::new(RANGES_MAX))
    }
}

/// Answers one question.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    mut send: SendStream,
    receive: RecvStream,
) -> Result<(), Fault> {
    send.set_priority(StreamKind::FileRange.priority())
        .map_err(|_closed| quinn::WriteError::ClosedStream)?;
    let Some(frame) = FrameReader::new(receive, QUESTION_BYTES_MAX).next().await? else {
        return Ok(());
    };
    let request: FileRangeRequest = decode(&frame)?;
    let place = shared.ranges.0.try_acquire();
    let is_too_long = request.length > FILE_RANGE_BYTES_MAX;
    let (reply, bytes) = match (&place, shared.files()) {
        (Ok(_), Some(_)) if is_too_long => (FileRangeReply::Missing, None),
        (Ok(_), Some(files)) => {
            match files.range(request.file, request.offset, request.length).await {
                Ok(bytes) => (FileRangeReply::Bytes, Some(bytes)),
                Err(FilesError::NotThere { .. }) => (FileRangeReply::Missing, None),
                Err(
                    FilesError::Full { .. }
                    | FilesError::Damaged { .. }
                    | FilesError::Failed { .. }
                    | FilesError::TooManyReads
                    | FilesError::Closed,
                ) => (FileRangeReply::Busy, None),
            }
        }
        (Ok(_), None) | (Err(_), _) => (FileRangeReply::Busy, None),
    };
    write_frame(&mut send, encode(&reply)).await?;
    if let Some(bytes) = bytes {
        write_frame(&mut send, bytes).await?;
    }
    drop(send.finish());
    Ok(())
}
