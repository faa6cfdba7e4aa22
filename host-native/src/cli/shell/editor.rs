//! Where lines come from: a person at a terminal, with history and completion, or a pipe.
//!
//! Reading blocks, so it has a thread of its own. It reads the next line only when the last one is done,
//! so that the prompt comes after the results.

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor, ExternalPrinter};
use tokio::sync::mpsc;

use super::line;

/// What is shown before a line is typed.
const PROMPT: &str = "quorlock> ";
/// Lines that are remembered.
const HISTORY_MAX: usize = 1000;
/// Names of locks and files that are remembered, for completion.
const NAMES_MAX: usize = 1000;

/// Names that were seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(Arc<Mutex<BTreeSet<String>>>);

impl Names {
    /// Remembers a name.
    pub(super) fn add(&self, name: &str) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() < NAMES_MAX {
            names.insert(name.to_owned());
        }
    }

    fn from(&self, beginning: &str) -> Vec<String> {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.iter().filter(|name| name.starts_with(beginning)).cloned().collect()
    }
}

/// None where there is no terminal that could do it.
type BoxedPrinter = Option<Box<dyn ExternalPrinter + Send>>;

/// Shows messages at once, above the prompt if there is one.
#[derive(Clone)]
pub(super) struct Printer(Arc<Mutex<BoxedPrinter>>);

impl Printer {
    pub(super) fn print(&self, text: &str) {
        let mut printer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let printed = match printer.as_mut() {
            Some(printer) => printer.print(format!("{text}\n")).is_ok(),
            None => false,
        };
        if !printed {
            crate::cli::run::say(text);
        }
    }
}

/// Where the lines come from. To ask for the next one says that the last one is done.
pub(super) struct Lines {
    asked: std::sync::mpsc::Sender<()>,
    typed: mpsc::Receiver<String>,
    /// Whether there is a person.
    pub(super) interactive: bool,
}

impl Lines {
    /// Starts to read.
    pub(super) fn start(names: Names) -> (Self, Printer) {
        let (asked, asks) = std::sync::mpsc::channel();
        let (sender, typed) = mpsc::channel(1);
        let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let editor = terminal.then(|| Terminal::new(names)).flatten();
        let interactive = editor.is_some();
        let (printer, mut source) = match editor {
            Some((terminal, printer)) => (printer, Source::Terminal(Box::new(terminal))),
            None => (None, Source::Pipe),
        };
        // It ends with the process at the latest: a read cannot be interrupted.
        std::thread::spawn(move || {
            while asks.recv().is_ok() {
                let Some(line) = source.next() else { return };
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        (Self { asked, typed, interactive }, Printer(Arc::new(Mutex::new(printer))))
    }

    /// The next line; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<String> {
        self.asked.send(()).ok()?;
        self.typed.recv().await
    }
}

enum Source {
    Terminal(Box<Terminal>),
    Pipe,
}

impl Source {
    fn next(&mut self) -> Option<String> {
        match self {
            Self::Terminal(terminal) => terminal.next(),
            Self::Pipe => {
                let mut line = String::new();
                let read = std::io::stdin().read_line(&mut line).ok()?;
                (read > 0).then_some(line)
            }
        }
    }
}

struct Terminal {
    editor: Editor<Completion, FileHistory>,
    history: Option<PathBuf>,
}

impl Terminal {
    /// None if the terminal cannot do it; then lines are read as they come.
    fn new(names: Names) -> Option<(Self, BoxedPrinter)> {
        let config = Config::builder().completion_type(CompletionType::List).auto_add_history(true);
        let config = config.max_history_size(HISTORY_MAX).ok()?.build();
        let mut editor = Editor::with_config(config).ok()?;
        editor.set_helper(Some(Completion { names }));
        let history = history_file();
        if let Some(history) = &history
            && let Err(error) = editor.load_history(history)
        {
            tracing::debug!(%error, "no history");
        }
        let mut boxed: BoxedPrinter = None;
        if let Ok(printer) = editor.create_external_printer() {
            boxed = Some(Box::new(printer));
        }
        Some((Self { editor, history }, boxed))
    }

    fn next(&mut self) -> Option<String> {
        loop {
            match self.editor.readline(PROMPT) {
                Ok(line) => {
                    self.remember();
                    return Some(line);
                }
                // Ctrl-C: another line.
                Err(ReadlineError::Interrupted) => {}
                Err(_) => return None,
            }
        }
    }

    fn remember(&mut self) {
        if let Some(history) = &self.history
            && let Err(error) = self.editor.append_history(history)
        {
            tracing::debug!(%error, "the history is not remembered");
        }
    }
}

/// `quorlock/history` in the folder for the state of programs.
fn history_file() -> Option<PathBuf> {
    let variable =
        |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = variable("XDG_STATE_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".local/state")))?;
    let folder = state.join("quorlock");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("history"))
}

/// Completes commands, then names that were seen.
#[derive(rustyline::Helper, rustyline::Hinter, rustyline::Highlighter, rustyline::Validator)]
struct Completion {
    names: Names,
}

impl Completer for Completion {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _context: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = &line[..position];
        let start = typed.rfind(char::is_whitespace).map_or(0, |blank| blank + 1);
        let beginning = &typed[start..];
        let is_first = typed[..start].trim().is_empty();
        let candidates =
            if is_first { line::commands_from(beginning) } else { self.names.from(beginning) };
        Ok((start, candidates))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded() {
        let names = Names::default();
        for number in 0..2 * NAMES_MAX {
            names.add(&format!("lock-{number}"));
        }
        assert_eq!(names.from("lock-").len(), NAMES_MAX);
        assert_eq!(names.from("lock-99").len(), 11);
        assert_eq!(names.from("file"), Vec::<String>::new());
    }
}
