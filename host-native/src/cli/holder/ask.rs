//! The other end of the socket.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use tokio::io::BufReader;
use tokio::net::UnixStream;

use super::protocol::{Question, Reply, failure, read, write};
use crate::cli::exit::{Exit, Failure};
use crate::cli::session::in_time;

/// The holder ends with its lock, also while it is asked.
fn ended() -> Failure {
    Failure::new(Exit::Lost, "the process that held the lock has ended")
        .hint("the lock is lost; look who holds it with `quorlock why`")
}

/// A connection with a holder.
#[derive(Debug)]
pub(crate) struct Holder {
    stream: BufReader<UnixStream>,
    timeout: Duration,
}

impl Holder {
    /// Connects with the holder that listens there.
    ///
    /// # Errors
    /// Nobody listens: it has ended, and the lock with it.
    pub(crate) async fn connect(path: &Path, timeout: Duration) -> Result<Self, Failure> {
        let stream = UnixStream::connect(path).await.map_err(|error| {
            Failure::new(
                Exit::Lost,
                format!(
                    "the process that held the lock does not answer at {}: {error}",
                    path.display()
                ),
            )
            .hint("the lock is lost; look who holds it with `quorlock why`")
        })?;
        Ok(Self { stream: BufReader::new(stream), timeout })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// It refuses, or does not answer in time.
    pub(crate) async fn ask(
        &mut self,
        question: &Question,
        bytes: &[u8],
    ) -> Result<Reply, Failure> {
        let answer = async {
            // It may have answered, and closed, before it read all: then the answer counts.
            let written = write(self.stream.get_mut(), question, bytes).await;
            match (read(&mut self.stream).await, written) {
                (Ok(Some(reply)), _) => Ok(reply),
                (Ok(None), _) => Err(ended()),
                // It closed before it read the question.
                (Err(error), _) if error.kind() == ErrorKind::ConnectionReset => Err(ended()),
                (Err(error), _) => {
                    Err(Failure::internal(format!("the process that holds the lock: {error}")))
                }
            }
        };
        let reply = in_time(self.timeout, answer).await?;
        if let Reply::Refused { exit, what } = &reply {
            return Err(failure(*exit, what));
        }
        Ok(reply)
    }
}
