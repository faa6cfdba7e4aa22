//! `quorlock append`: some text at the end of a file.
//!
//! A file is guarded by a lock, and whoever appends must hold that. Inside of `quorlock run`, or with the
//! variables that `quorlock acquire` prints, the lock is held already, by another process: that is asked
//! to append in its session. Else the lock is acquired for it; what fits one request is done in a single
//! step of the cluster ([`Client::section`]), what does not in several, under one hold.

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use super::exit::{Exit, Failure};
use super::holder::{self, Holder, Question, Reply};
use super::output::{Document, Sheet};
use super::run::{LOCK_VARIABLE, SOCKET_VARIABLE, TOKEN_VARIABLE};
use super::session::{WaitArguments, in_session};
use super::{Context, duration};
use crate::client::{AcquireError, CallError, Client, Rejection, Wait};

/// How much of the standard input is appended at once. Clusters allow a megabyte, unless they were told
/// otherwise.
const PIECE_BYTES: usize = 256 << 10;

/// Arguments of `append`.
#[derive(Debug, clap::Args)]
pub(crate) struct AppendArguments {
    /// The file. It is made if it is not there.
    file: String,
    /// The text, to which a line break is added; `-`, or nothing, for the standard input, as it is.
    #[arg(allow_hyphen_values = true)]
    text: Option<String>,
    /// Add no line break.
    #[arg(short = 'n', long)]
    no_newline: bool,
    /// The lock that guards the file. Without it, the cluster knows; a new file is guarded by the lock
    /// of its own name.
    #[arg(long, value_name = "NAME")]
    lock: Option<String>,
    /// Do not wait: fail if somebody else holds the lock.
    #[arg(long = "try", conflicts_with = "wait")]
    once: bool,
    /// Wait at most this long for the lock. Without it, as long as --timeout says.
    #[arg(short, long, value_name = "TIME", value_parser = duration::parse)]
    wait: Option<Duration>,
}

/// What was appended. Its fields in JSON are a contract.
#[derive(Debug, Serialize)]
struct Appended {
    file: String,
    /// Where it begins.
    offset: u64,
    /// How many bytes it has.
    length: u64,
    /// The token of the hold under which it was appended.
    token: u64,
}

impl Document for Appended {
    fn sheet(&self) -> Sheet {
        let mut sheet = Sheet::new(&["file", "#offset", "#length", "#token"]);
        sheet.row([
            self.file.clone(),
            self.offset.to_string(),
            self.length.to_string(),
            self.token.to_string(),
        ]);
        sheet
    }
}

/// Appends to a file.
///
/// # Errors
/// It was not appended, or that is not known.
pub(crate) fn run(arguments: AppendArguments, context: &Context) -> Result<Exit, Failure> {
    context.block_on(append(arguments, context))
}

async fn append(arguments: AppendArguments, context: &Context) -> Result<Exit, Failure> {
    let mut pieces = Pieces::of(&arguments);
    let Some(first) = pieces.next().await? else {
        context.output.warn("there is nothing to append");
        return Ok(Exit::Ok);
    };
    let appended = match Environment::read()? {
        Some(environment) if environment.is_for(arguments.lock.as_deref()) => {
            append_through_holder(&arguments.file, first, &mut pieces, environment, context).await?
        }
        Some(_) | None => {
            let (arguments, pieces) = (&arguments, &mut pieces);
            in_session(context, async move |client| {
                append_in_session(client, arguments, first, pieces, context).await
            })
            .await?
        }
    };
    context.output.print(&appended)?;
    Ok(Exit::Ok)
}

/// What is to be appended, in pieces.
enum Pieces {
    Text(Option<Bytes>),
    Input { at_end: bool },
}

impl Pieces {
    fn of(arguments: &AppendArguments) -> Self {
        match arguments.text.as_deref() {
            None | Some("-") => Self::Input { at_end: false },
            Some(text) => {
                let end = if arguments.no_newline { "" } else { "\n" };
                Self::Text(Some(Bytes::from(format!("{text}{end}"))))
            }
        }
    }

    /// The next one, which is not empty.
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        match self {
            Self::Text(text) => Ok(text.take().filter(|text| !text.is_empty())),
            Self::Input { at_end: true } => Ok(None),
            Self::Input { at_end } => {
                // On a thread of its own: Ctrl-C must be heard meanwhile.
                let read =
                    tokio::task::spawn_blocking(read_piece).await.map_err(Failure::internal)?;
                let piece = read.map_err(|error| {
                    Failure::usage(format!("cannot read the standard input: {error}"))
                })?;
                *at_end = piece.len() < PIECE_BYTES;
                Ok(Some(Bytes::from(piece)).filter(|piece| !piece.is_empty()))
            }
        }
    }

    /// Whether there is certainly nothing more.
    fn is_over(&self) -> bool {
        match self {
            Self::Text(text) => text.is_none(),
            Self::Input { at_end } => *at_end,
        }
    }
}

fn read_piece() -> std::io::Result<Vec<u8>> {
    let mut piece = Vec::new();
    std::io::stdin().lock().take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
    Ok(piece)
}

/// A lock that is held for us by another process.
struct Environment {
    lock: String,
    token: u64,
    socket: PathBuf,
}

impl Environment {
    fn read() -> Result<Option<Self>, Failure> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let Some(token) = variable(TOKEN_VARIABLE) else { return Ok(None) };
        let (Some(lock), Some(socket)) = (variable(LOCK_VARIABLE), variable(SOCKET_VARIABLE))
        else {
            let what =
                format!("{TOKEN_VARIABLE} is set, but not {LOCK_VARIABLE} and {SOCKET_VARIABLE}");
            return Err(Failure::usage(what)
                .hint("unset it, or set all of them as `quorlock run` does and `quorlock acquire` prints them"));
        };
        let token = token.parse().map_err(|_not_a_number| {
            Failure::usage(format!("{TOKEN_VARIABLE} is no token: {token:?}"))
        })?;
        Ok(Some(Self { lock, token, socket: socket.into() }))
    }

    /// Whether it is the lock that was asked for, if one was.
    fn is_for(&self, lock: Option<&str>) -> bool {
        lock.is_none_or(|lock| lock == self.lock)
    }
}

async fn append_through_holder(
    file: &str,
    first: Bytes,
    pieces: &mut Pieces,
    environment: Environment,
    context: &Context,
) -> Result<Appended, Failure> {
    let Environment { lock, token, socket } = environment;
    let mut holder = Holder::connect(&socket, context.connection.timeout).await?;
    let mut appended = Appended { file: file.to_owned(), offset: 0, length: 0, token };
    let mut piece = Some(first);
    while let Some(bytes) = piece {
        let length = u32::try_from(bytes.len()).map_err(Failure::usage)?;
        let (lock, file) = (lock.clone(), file.to_owned());
        let question = Question::Append { lock, token, file, length };
        let Reply::Appended { offset } = holder.ask(&question, &bytes).await? else {
            return Err(holder::senseless());
        };
        appended.add(offset, bytes.len());
        piece = pieces.next().await?;
    }
    Ok(appended)
}

impl Appended {
    fn add(&mut self, offset: u64, length: usize) {
        if self.length == 0 {
            self.offset = offset;
        }
        self.length += length as u64;
    }
}

async fn append_in_session(
    client: &Client,
    arguments: &AppendArguments,
    first: Bytes,
    pieces: &mut Pieces,
    context: &Context,
) -> Result<Appended, Failure> {
    let wait = WaitArguments { once: arguments.once, wait: arguments.wait };
    let wait = wait.or(Wait::For(context.connection.timeout));
    let file = &arguments.file;
    let mut guard = guard_of(client, arguments).await?;
    let result = append_under(client, &guard, file, wait, first.clone(), pieces).await;
    // Somebody else may have made the file just now.
    let result = match (result, &arguments.lock) {
        (Err(Refused::WrongGuard(right)), None) if right != guard => {
            guard = right;
            append_under(client, &guard, file, wait, first, pieces).await
        }
        (result, _) => result,
    };
    result.map_err(|refused| match refused {
        Refused::WrongGuard(right) => wrong_guard(file, &guard, &right),
        Refused::Failure(failure) => failure,
    })
}

fn wrong_guard(file: &str, guard: &str, right: &str) -> Failure {
    Failure::new(Exit::Negative, format!("{file} is guarded by the lock {right}, not by {guard}"))
        .hint(format!("append under that one, with --lock {right} or without --lock"))
}

async fn guard_of(client: &Client, arguments: &AppendArguments) -> Result<String, Failure> {
    if let Some(lock) = &arguments.lock {
        return Ok(lock.clone());
    }
    let file = client.file(&arguments.file).await?;
    Ok(file.map_or_else(|| arguments.file.clone(), |file| file.guard.to_string()))
}

/// Why nothing was appended, or not all.
enum Refused {
    WrongGuard(String),
    Failure(Failure),
}

impl From<CallError> for Refused {
    fn from(error: CallError) -> Self {
        if let CallError::Rejected(Rejection::WrongGuard { guard }) = error {
            return Self::WrongGuard(guard.to_string());
        }
        Self::Failure(error.into())
    }
}

impl From<AcquireError> for Refused {
    fn from(error: AcquireError) -> Self {
        if let AcquireError::Call(error) = error {
            return error.into();
        }
        Self::Failure(error.into())
    }
}

async fn append_under(
    client: &Client,
    guard: &str,
    file: &str,
    wait: Wait,
    first: Bytes,
    pieces: &mut Pieces,
) -> Result<Appended, Refused> {
    let length = first.len();
    let mut appended = Appended { file: file.to_owned(), offset: 0, length: 0, token: 0 };
    if pieces.is_over() {
        let done = client.section(guard, wait, [(file, first)]).await?;
        appended.token = done.token.value();
        appended.add(done.offsets.first().copied().unwrap_or_default(), length);
        return Ok(appended);
    }
    let lock = client.acquire(guard, wait).await?;
    appended.token = lock.token().value();
    appended.add(lock.append(file, first).await?, length);
    while let Some(piece) = pieces.next().await.map_err(Refused::Failure)? {
        let length = piece.len();
        appended.add(lock.append(file, piece).await?, length);
    }
    lock.release().await?;
    Ok(appended)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(text: Option<&str>, no_newline: bool) -> AppendArguments {
        let (file, text) = ("log".to_owned(), text.map(str::to_owned));
        AppendArguments { file, text, no_newline, lock: None, once: false, wait: None }
    }

    async fn all(arguments: &AppendArguments) -> Vec<Bytes> {
        let mut pieces = Pieces::of(arguments);
        let mut all = Vec::new();
        while let Some(piece) = pieces.next().await.expect("a text can be read") {
            all.push(piece);
        }
        assert!(pieces.is_over());
        all
    }

    #[tokio::test]
    async fn a_text_is_a_line() {
        assert_eq!(all(&arguments(Some("hello"), false)).await, ["hello\n"]);
        assert_eq!(all(&arguments(Some(""), false)).await, ["\n"]);
        assert_eq!(all(&arguments(Some("hello"), true)).await, ["hello"]);
        assert_eq!(all(&arguments(Some(""), true)).await, [""; 0]);
    }

    #[test]
    fn the_first_offset_counts() {
        let mut appended = Appended { file: "log".to_owned(), offset: 0, length: 0, token: 1 };
        appended.add(100, 10);
        appended.add(110, 5);
        assert_eq!((appended.offset, appended.length), (100, 15));
    }
}
