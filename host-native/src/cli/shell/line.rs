//! What can be typed in the shell.

use crate::cli::duration;
use crate::client::Wait;

/// The commands, how they are written, and what they do; for `help` and for completion.
pub(super) const COMMANDS: [(&str, &str, &str); 14] = [
    ("open", "open", "open a session; the first command that needs one does it too"),
    ("acquire", "acquire LOCK [try|TIME]", "acquire a lock; wait for it, or not, or this long"),
    ("append", "append FILE TEXT", "append a line to a file, under a lock that is held or its own"),
    ("release", "release LOCK", "give a lock back"),
    ("status", "status", "show the session and the locks that it holds"),
    ("locks", "locks [PREFIX]", "list the locks that are held, by whomever"),
    ("why", "why LOCK", "say who holds a lock, and who waits for it"),
    ("history", "history LOCK", "show who held a lock before, and how each hold ended"),
    ("break", "break LOCK TOKEN REASON", "take a lock from its holder"),
    ("files", "files", "list the files"),
    ("cat", "cat FILE", "print a file"),
    ("close", "close", "close the session, which releases all that it holds"),
    ("help", "help", "show this"),
    ("quit", "quit", "close the session, and leave; so does Ctrl-D"),
];

/// A line, understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Line {
    Nothing,
    Open,
    Acquire { lock: String, wait: Wait },
    Append { file: String, text: String },
    Release { lock: String },
    Status,
    Locks { prefix: String },
    Why { lock: String },
    History { lock: String },
    Break { lock: String, token: u64, reason: String },
    Files,
    Cat { file: String },
    Close,
    Help,
    Quit,
}

/// Understands a line. Words are separated by blanks; the last argument of `append` and of `break` goes
/// on to the end of the line, as it is.
///
/// # Errors
/// How it is written, for the person who typed it.
pub(super) fn parse(line: &str) -> Result<Line, String> {
    let (command, rest) = word(line);
    let usage = || {
        let known = COMMANDS.iter().find(|(name, ..)| *name == command);
        known.map_or_else(
            || format!("there is no command {command:?}; `help` shows those that there are"),
            |(_, usage, _)| format!("this is written: {usage}"),
        )
    };
    let none = |parsed: Line| if rest.is_empty() { Ok(parsed) } else { Err(usage()) };
    let one = || match word(rest) {
        ("", _) => Err(usage()),
        (argument, "") => Ok(argument.to_owned()),
        (_, _) => Err(usage()),
    };
    match command {
        "" => Ok(Line::Nothing),
        comment if comment.starts_with('#') => Ok(Line::Nothing),
        "open" => none(Line::Open),
        "acquire" => acquire(rest).ok_or_else(usage),
        "append" => match word(rest) {
            ("", _) => Err(usage()),
            (file, text) => Ok(Line::Append { file: file.to_owned(), text: text.to_owned() }),
        },
        "release" => Ok(Line::Release { lock: one()? }),
        "status" => none(Line::Status),
        "locks" if rest.is_empty() => Ok(Line::Locks { prefix: String::new() }),
        "locks" => Ok(Line::Locks { prefix: one()? }),
        "why" => Ok(Line::Why { lock: one()? }),
        "history" => Ok(Line::History { lock: one()? }),
        "break" => break_lock(rest).ok_or_else(usage),
        "files" => none(Line::Files),
        "cat" => Ok(Line::Cat { file: one()? }),
        "close" => none(Line::Close),
        "help" | "?" => Ok(Line::Help),
        "quit" | "exit" => none(Line::Quit),
        _ => Err(usage()),
    }
}

/// The first word, and what comes after it.
fn word(line: &str) -> (&str, &str) {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    (word, rest.trim_start())
}

fn acquire(rest: &str) -> Option<Line> {
    let (lock, rest) = word(rest);
    let wait = match word(rest) {
        ("", _) => Wait::Forever,
        ("try", "") => Wait::Try,
        (time, "") => Wait::For(duration::parse(time).ok()?),
        (_, _) => return None,
    };
    let lock = Some(lock).filter(|lock| !lock.is_empty())?.to_owned();
    Some(Line::Acquire { lock, wait })
}

fn break_lock(rest: &str) -> Option<Line> {
    let (lock, rest) = word(rest);
    let (token, reason) = word(rest);
    let token = token.parse().ok()?;
    let reason = Some(reason).filter(|reason| !reason.is_empty())?.to_owned();
    Some(Line::Break { lock: lock.to_owned(), token, reason })
}

/// What a first word may become.
pub(super) fn commands_from(beginning: &str) -> Vec<String> {
    let names = COMMANDS.iter().map(|(name, ..)| *name);
    names.filter(|name| name.starts_with(beginning)).map(|name| format!("{name} ")).collect()
}

/// The text of `help`.
pub(super) fn help() -> String {
    let lines = COMMANDS.iter().map(|(_, usage, does)| format!("  {usage:24} {does}\n"));
    lines.collect::<String>() + "TIME is as 10 (seconds), 500ms or 2m. Ctrl-C ends a wait.\n"
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn lines_are_understood() {
        let lock = || "deploy".to_owned();
        for (line, expected) in [
            ("", Line::Nothing),
            ("  # a remark", Line::Nothing),
            ("acquire deploy", Line::Acquire { lock: lock(), wait: Wait::Forever }),
            (" acquire  deploy try ", Line::Acquire { lock: lock(), wait: Wait::Try }),
            (
                "acquire deploy 2",
                Line::Acquire { lock: lock(), wait: Wait::For(Duration::from_secs(2)) },
            ),
            ("append log a  b", Line::Append { file: "log".into(), text: "a  b".into() }),
            ("append log", Line::Append { file: "log".into(), text: String::new() }),
            ("locks", Line::Locks { prefix: String::new() }),
            ("locks a/", Line::Locks { prefix: "a/".into() }),
            (
                "break deploy 7 it hangs",
                Line::Break { lock: lock(), token: 7, reason: "it hangs".into() },
            ),
            ("exit", Line::Quit),
        ] {
            assert_eq!(parse(line), Ok(expected), "{line}");
        }
    }

    #[test]
    fn what_is_not_understood_is_explained() {
        for line in [
            "acquire",
            "acquire a b",
            "acquire a 1 2",
            "release",
            "why a b",
            "break a",
            "break a b c",
            "break a 7",
            "open it",
        ] {
            let error = parse(line).expect_err("it is wrong");
            assert!(error.contains("this is written"), "{line}: {error}");
        }
        assert!(parse("lock a").expect_err("it is wrong").contains("help"));
    }

    #[test]
    fn every_command_is_known_and_can_be_completed() {
        for (name, ..) in COMMANDS {
            assert!(!parse(name).is_err_and(|error| error.contains("no command")), "{name}");
            assert!(commands_from(&name[..1]).contains(&format!("{name} ")));
            assert!(help().contains(name));
        }
    }
}
