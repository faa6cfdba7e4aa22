//! What is said on the socket of a holder.
//!
//! One JSON object a line, each answered by one. After the line of an append come its bytes, as many as
//! it says; after no other line comes anything.
//!
//! ```text
//! → {"append":{"lock":"deploy","token":7,"file":"log","length":6}}   and six bytes
//! ← {"appended":{"offset":120}}
//! → {"release":{"lock":"deploy","token":7}}
//! ← {"refused":{"exit":75,"what":"..."}}
//! ```

use std::io;

use serde::{Deserialize, Serialize};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _,
};

use crate::cli::exit::{Exit, Failure};

/// The longest line. A name is at most 255 bytes, each of them at most six in JSON.
pub(super) const LINE_BYTES_MAX: u64 = 8 << 10;
/// The most bytes of one append; what the cluster allows is checked there.
pub(super) const APPEND_BYTES_MAX: u32 = quorlock_core::config::APPEND_BYTES_CEILING;

/// What is asked of a holder.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Question {
    /// Append to a file, under the lock.
    Append {
        /// The lock.
        lock: String,
        /// Its token, as the asker knows it.
        token: u64,
        /// The file.
        file: String,
        /// How many bytes follow this line.
        length: u32,
    },
    /// Give the lock back.
    Release {
        /// The lock.
        lock: String,
        /// Its token.
        token: u64,
    },
    /// How it stands.
    Status {},
}

/// What a holder answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    /// The bytes are in the file.
    Appended {
        /// Where they begin.
        offset: u64,
    },
    /// The lock was given back.
    Released {},
    /// How it stands.
    Status {
        /// The lock.
        lock: String,
        /// Its token.
        token: u64,
        /// The session that holds it.
        session: u64,
        /// The process that keeps the session.
        pid: u32,
        /// How long the session lasts without another renewal, in milliseconds.
        lease_left_ms: u64,
    },
    /// It was not done.
    Refused {
        /// The exit code that says why.
        exit: u8,
        /// What happened, and why.
        what: String,
    },
}

impl Reply {
    /// As a refusal.
    pub(super) fn refused(failure: &Failure) -> Self {
        Self::Refused { exit: failure.exit().code(), what: failure.to_string() }
    }
}

/// Reads a line of JSON; `None` at the end.
pub(super) async fn read<T: for<'a> Deserialize<'a>>(
    input: &mut (impl AsyncBufRead + Unpin),
) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    let read = (&mut *input).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the line is too long, or cut off"));
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

/// Writes a line of JSON, and what follows it.
pub(super) async fn write(
    output: &mut (impl AsyncWrite + Unpin),
    value: &impl Serialize,
    bytes: &[u8],
) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    output.write_all(&line).await?;
    output.write_all(bytes).await?;
    output.flush().await
}

/// A refusal, for the one who asked.
pub(crate) fn failure(exit: u8, what: &str) -> Failure {
    let known = [
        Exit::Negative,
        Exit::Usage,
        Exit::Unavailable,
        Exit::Internal,
        Exit::Lost,
        Exit::NotPermitted,
        Exit::Configuration,
    ];
    let exit = known.into_iter().find(|known| known.code() == exit).unwrap_or(Exit::Internal);
    Failure::new(exit, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_bounded() {
        let question = Question::Release { lock: "a".to_owned(), token: 7 };
        let mut bytes = Vec::new();
        write(&mut bytes, &question, b"").await.expect("it fits");
        let mut input = bytes.as_slice();
        assert_eq!(read(&mut input).await.expect("it is one"), Some(question));
        assert_eq!(read::<Question>(&mut input).await.expect("it is the end"), None);
        let long = vec![b' '; 2 * usize::try_from(LINE_BYTES_MAX).expect("it is small")];
        assert!(read::<Question>(&mut long.as_slice()).await.is_err());
        for wrong in ["{}\n", "{\"status\":{}", "{\"status\":{\"x\":1}}\n", "\n", "\u{0}\n"] {
            assert!(read::<Question>(&mut wrong.as_bytes()).await.is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn names_of_the_longest_kind_fit_a_line() {
        let name = "\u{1}".repeat(255);
        let question =
            Question::Append { lock: name.clone(), token: u64::MAX, file: name, length: u32::MAX };
        let line = serde_json::to_vec(&question).expect("it can be written");
        assert!((line.len() as u64) < LINE_BYTES_MAX);
    }
}
