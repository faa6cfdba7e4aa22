//! Who we are, for people who ask who holds a lock.

use quorlock_core::text::{Label, TEXT_BYTES_MAX, Text};

/// The label of this process: the name of the machine, the process id, the user, and the command
/// with its arguments.
///
/// What is too long is cut, and control characters are left out. Whoever may look at locks sees it:
/// a program with secrets among its arguments makes a label of its own.
pub fn own_label() -> Label {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
    let command = arguments.collect::<Vec<String>>().join(" ");
    Label { host: fit(&host), pid: std::process::id(), user: fit(&user()), command: fit(&command) }
}

fn user() -> String {
    let named = ["USER", "LOGNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
    named.unwrap_or_else(|| rustix::process::getuid().as_raw().to_string())
}

/// As much of a text as a label takes.
pub(super) fn fit(text: &str) -> Text {
    let kept: String = text.chars().filter(|character| !character.is_control()).collect();
    let end = kept.floor_char_boundary(TEXT_BYTES_MAX);
    Text::new(&kept[..end]).expect("it is short enough, and has no control characters")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_strange_texts_are_made_to_fit() {
        assert_eq!(fit("a\tb\nc\u{7f}\u{85}d").as_str(), "abcd");
        let long = "ä".repeat(200);
        assert_eq!(fit(&long).as_str(), "ä".repeat(127));
        assert_eq!(fit("").as_str(), "");
    }

    #[test]
    fn own_label_names_this_process() {
        let label = own_label();
        assert_eq!(label.pid, std::process::id());
        assert!(!label.host.as_str().is_empty() && !label.user.as_str().is_empty());
        assert!(!label.command.as_str().is_empty());
    }
}
