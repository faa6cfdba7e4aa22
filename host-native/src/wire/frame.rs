//! Frames: a length in four bytes, little-endian, then that many bytes.
//!
//! A length is checked before anything is allocated for it, and memory grows with what has really
//! arrived, so that a claim costs nothing.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use quinn::{ReadError, RecvStream, SendStream, WriteError};

/// How long a frame may take from its first byte to its last. Between frames there is no limit.
pub const FRAME_TIMEOUT: Duration = Duration::from_secs(30);

const HEADER_BYTES: usize = 4;
/// How much is read at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// It claims to be longer than any frame of this stream.
    #[error("a frame of {bytes} bytes: at most {bytes_max} are allowed")]
    TooLong {
        /// How long it claims to be.
        bytes: u32,
        /// How long it may be.
        bytes_max: usize,
    },
    /// The stream ended within it.
    #[error("the stream ended in the middle of a frame")]
    CutOff,
    /// Its bytes came too slowly.
    #[error("a frame did not arrive within {FRAME_TIMEOUT:?}")]
    TooSlow,
    /// The stream broke.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Reads frames from a stream.
///
/// [`FrameReader::next`] may be dropped at any await: what was read is kept for the next call.
#[derive(Debug)]
pub struct FrameReader {
    stream: RecvStream,
    buffered: BytesMut,
    bytes_max: usize,
}

impl FrameReader {
    /// A reader that takes frames of up to `bytes_max` bytes.
    pub fn new(stream: RecvStream, bytes_max: usize) -> Self {
        Self { stream, buffered: BytesMut::new(), bytes_max }
    }

    /// The next frame; `None` when the stream ended before another one began.
    ///
    /// # Errors
    /// [`FrameError`]; nothing more can be read after it.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        if self.buffered.is_empty() && !self.read_more().await? {
            return Ok(None);
        }
        let rest = tokio::time::timeout(FRAME_TIMEOUT, self.rest_of_frame());
        rest.await.map_err(|_elapsed| FrameError::TooSlow)?.map(Some)
    }

    async fn rest_of_frame(&mut self) -> Result<Bytes, FrameError> {
        loop {
            if let Some(frame) = self.take_frame()? {
                return Ok(frame);
            }
            if !self.read_more().await? {
                return Err(FrameError::CutOff);
            }
        }
    }

    /// A frame, if all of it is here.
    fn take_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(header) = self.buffered.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let bytes = u32::from_le_bytes(*header);
        let length = usize::try_from(bytes).unwrap_or(usize::MAX);
        if length > self.bytes_max {
            return Err(FrameError::TooLong { bytes, bytes_max: self.bytes_max });
        }
        if self.buffered.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        self.buffered.advance(HEADER_BYTES);
        Ok(Some(self.buffered.split_to(length).freeze()))
    }

    /// `false` at the end of the stream.
    async fn read_more(&mut self) -> Result<bool, FrameError> {
        let chunk = self.stream.read_chunk(CHUNK_BYTES, true).await?;
        let Some(chunk) = chunk else { return Ok(false) };
        self.buffered.extend_from_slice(&chunk.bytes);
        Ok(true)
    }
}

/// Writes one frame. Returns when the stream has taken it, which is not when it has arrived.
///
/// # Errors
/// [`WriteError`] if the stream or its connection is gone.
pub async fn write_frame(
    stream: &mut SendStream,
    frame: impl Into<Bytes>,
) -> Result<(), WriteError> {
    let frame = frame.into();
    let length = u32::try_from(frame.len()).expect("no frame has more than FRAME_BYTES_MAX bytes");
    let header = Bytes::copy_from_slice(&length.to_le_bytes());
    stream.write_all_chunks(&mut [header, frame]).await
}
