//! `quorlock cat`, `tail` and `files`.

use quorlock_core::config::READ_BYTES_MAX;
use serde::Serialize;

use super::Context;
use super::exit::{Exit, Failure};
use super::output::{Document, Sheet};
use super::session::{in_session, in_short_session, in_time};
use crate::client::{CallError, Client, Consistency, FileName, FileView};

/// Arguments of `cat`.
#[derive(Debug, clap::Args)]
pub(crate) struct CatArguments {
    /// The file.
    file: String,
    /// Begin at this offset, in bytes.
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    from: u64,
    /// Take what the node at hand has, which may be old, without asking the others.
    #[arg(long)]
    stale: bool,
}

/// Prints a file.
///
/// # Errors
/// There is none, or it cannot be read.
pub(crate) fn cat(arguments: CatArguments, context: &Context) -> Result<Exit, Failure> {
    context.block_on(in_session(context, async |client| {
        let consistency =
            if arguments.stale { Consistency::Stale } else { Consistency::Linearizable };
        let mut reader = client.read_file(&arguments.file, arguments.from.., consistency)?;
        let mut index = None;
        while let Some(chunk) = next_in_time(context, reader.next()).await? {
            index = Some(chunk.index);
            context.output.raw(&chunk.bytes)?;
        }
        if let Some(index) = index.filter(|_| arguments.stale) {
            context.output.note(format!("stale: as of log index {index}"));
        }
        Ok(Exit::Ok)
    }))
}

async fn next_in_time<T>(
    context: &Context,
    next: impl Future<Output = Result<T, CallError>>,
) -> Result<T, Failure> {
    in_time(context.connection.timeout, async { Ok(next.await?) }).await
}

/// Arguments of `tail`.
#[derive(Debug, clap::Args)]
pub(crate) struct TailArguments {
    /// The file.
    file: String,
    /// Go on with what is appended, until Ctrl-C. A file that is not there yet is waited for.
    #[arg(short, long)]
    follow: bool,
    /// How many lines of the end.
    #[arg(short = 'n', long, value_name = "LINES", default_value_t = 10)]
    lines: u64,
    /// Begin at this offset, in bytes.
    #[arg(long, value_name = "OFFSET", conflicts_with = "lines")]
    from: Option<u64>,
}

/// Prints the end of a file, and follows it.
///
/// # Errors
/// There is none, or it cannot be read.
pub(crate) fn tail(arguments: TailArguments, context: &Context) -> Result<Exit, Failure> {
    context.block_on(async {
        let mut offset = arguments.from;
        loop {
            let (arguments, at) = (&arguments, &mut offset);
            let ended = in_session(context, async move |client| {
                tail_in(client, arguments, at, context).await
            });
            match ended.await? {
                Ended::End => return Ok(Exit::Ok),
                // A new session goes on where this one was.
                Ended::SessionLost(error) => {
                    context.output.warn(format!("{error}; connecting again"));
                }
            }
        }
    })
}

enum Ended {
    End,
    SessionLost(CallError),
}

/// Prints from an offset on; `None` is where the last lines begin. Keeps the offset up to date.
async fn tail_in(
    client: &Client,
    arguments: &TailArguments,
    offset: &mut Option<u64>,
    context: &Context,
) -> Result<Ended, Failure> {
    let file = &arguments.file;
    let mut at = match *offset {
        Some(at) => at,
        None => start_of_lines(client, file, arguments.lines, arguments.follow, context).await?,
    };
    if !arguments.follow {
        let mut reader = client.read_file(file, at.., Consistency::Linearizable)?;
        while let Some(chunk) = next_in_time(context, reader.next()).await? {
            context.output.raw(&chunk.bytes)?;
        }
        return Ok(Ended::End);
    }
    let mut tail = client.tail(file, at, Consistency::Linearizable)?;
    loop {
        *offset = Some(at);
        match tail.next().await {
            Ok(chunk) => {
                context.output.raw(&chunk.bytes)?;
                at = tail.offset();
            }
            Err(error @ (CallError::SessionEnded(_) | CallError::Unknown)) => {
                return Ok(Ended::SessionLost(error));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Where the last `lines` lines begin. It reads from the end, a block at a time.
async fn start_of_lines(
    client: &Client,
    file: &str,
    lines: u64,
    may_be_missing: bool,
    context: &Context,
) -> Result<u64, Failure> {
    let view = next_in_time(context, client.file(file)).await?;
    let length = match view {
        Some(view) => view.length,
        None if may_be_missing => return Ok(0),
        None => {
            let name = FileName::new(file).map_err(Failure::usage)?;
            return Err(CallError::NoSuchFile(name).into());
        }
    };
    let mut counted = Lines::new(lines);
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(u64::from(READ_BYTES_MAX));
        let reader = client.read_file(file, start..end, Consistency::Linearizable)?;
        let block = next_in_time(context, reader.read_to_end()).await?;
        if let Some(place) = counted.before(&block) {
            return Ok(start + place as u64);
        }
        end = start;
    }
    Ok(0)
}

/// Counts lines backwards. A line that is not finished is one; the break at the very end is of the last
/// one.
struct Lines {
    left: u64,
    at_end: bool,
}

impl Lines {
    fn new(lines: u64) -> Self {
        Self { left: lines, at_end: true }
    }

    /// Counts a block that lies before those counted. Where in it the first wanted line begins, if it
    /// does there.
    fn before(&mut self, block: &[u8]) -> Option<usize> {
        for (place, byte) in block.iter().enumerate().rev() {
            let is_break = *byte == b'\n';
            if self.left == 0 || (is_break && !self.at_end && self.left == 1) {
                return Some(place + 1);
            }
            if is_break && !self.at_end {
                self.left -= 1;
            }
            self.at_end = false;
        }
        None
    }
}

/// Arguments of `files`.
#[derive(Debug, clap::Args)]
pub(crate) struct FilesArguments {
    #[command(subcommand)]
    command: Option<FilesCommand>,
}

#[derive(Debug, clap::Subcommand)]
enum FilesCommand {
    /// Lists all files; the same as without a command.
    List,
    /// Creates empty files. One that is there already stays as it is.
    Create {
        /// The name of the file; of several, what comes before their numbers.
        name: String,
        /// The lock that guards it. Without it, the lock of the file's own name.
        #[arg(long, value_name = "LOCK")]
        guard: Option<String>,
        /// How many: NAME-0, NAME-1, and so on.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        count: Option<u32>,
    },
}

/// All files. The fields in JSON are a contract.
#[derive(Debug, Serialize)]
pub(super) struct Files {
    files: Vec<FileRow>,
}

#[derive(Debug, Serialize)]
struct FileRow {
    file: String,
    /// The lock that guards it.
    guard: String,
    /// In bytes.
    length: u64,
    /// The CRC-64/XZ of its content, in hexadecimal digits.
    checksum: String,
}

impl From<FileView> for FileRow {
    fn from(view: FileView) -> Self {
        let FileView { file, guard, length, checksum } = view;
        Self {
            file: file.to_string(),
            guard: guard.to_string(),
            length,
            checksum: checksum.to_string(),
        }
    }
}

impl Document for Files {
    fn sheet(&self) -> Sheet {
        let mut sheet = Sheet::new(&["file", "guard", "#length", "checksum"]);
        for FileRow { file, guard, length, checksum } in &self.files {
            sheet.row([file.clone(), guard.clone(), length.to_string(), checksum.clone()]);
        }
        sheet.when_empty("There are no files. `quorlock append log hello` makes one.");
        sheet
    }
}

/// Lists and creates files.
///
/// # Errors
/// They cannot be listed or created.
pub(crate) fn files(arguments: FilesArguments, context: &Context) -> Result<Exit, Failure> {
    let files =
        context.block_on(in_short_session(context, async |client| match &arguments.command {
            None | Some(FilesCommand::List) => list(client).await,
            Some(FilesCommand::Create { name, guard, count }) => {
                create(client, &names(name, *count), guard.as_deref()).await
            }
        }))?;
    context.output.print(&files)?;
    Ok(Exit::Ok)
}

/// All files.
pub(super) async fn list(client: &Client) -> Result<Files, Failure> {
    Ok(Files { files: client.files().await?.into_iter().map(FileRow::from).collect() })
}

async fn create(client: &Client, names: &[String], guard: Option<&str>) -> Result<Files, Failure> {
    let mut files = Vec::new();
    for name in names {
        client.create_file(name, guard.unwrap_or(name)).await?;
        files.extend(client.file(name).await?.map(FileRow::from));
    }
    Ok(Files { files })
}

fn names(name: &str, count: Option<u32>) -> Vec<String> {
    match count {
        None => vec![name.to_owned()],
        Some(count) => (0..count).map(|number| format!("{name}-{number}")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the last lines begin in blocks that follow each other.
    fn start(blocks: &[&str], lines: u64) -> usize {
        let mut counted = Lines::new(lines);
        let mut start: usize = blocks.iter().map(|block| block.len()).sum();
        for block in blocks.iter().rev() {
            start -= block.len();
            if let Some(place) = counted.before(block.as_bytes()) {
                return start + place;
            }
        }
        0
    }

    #[test]
    fn last_lines_are_found_across_blocks() {
        let whole = "a\nbb\n\nccc\n";
        for (lines, expected) in [(0, 10), (1, 6), (2, 5), (3, 2), (4, 0), (9, 0)] {
            assert_eq!(start(&[whole], lines), expected, "{lines}");
            for cut in 0..=whole.len() {
                let (one, two) = whole.split_at(cut);
                assert_eq!(start(&[one, two], lines), expected, "{lines} {cut}");
            }
        }
    }

    #[test]
    fn a_line_without_its_end_is_one() {
        assert_eq!(start(&["a\nbb"], 1), 2);
        assert_eq!(start(&["a\nbb"], 2), 0);
        assert_eq!(start(&[""], 3), 0);
        assert_eq!(start(&["\n"], 1), 0);
    }

    #[test]
    fn several_files_have_numbers() {
        assert_eq!(names("log", None), ["log"]);
        assert_eq!(names("log", Some(2)), ["log-0", "log-1"]);
    }
}
