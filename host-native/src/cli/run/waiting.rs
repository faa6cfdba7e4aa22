//! Says whom one is waiting for, while one waits for a lock.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use super::say;
use crate::cli::duration;
use crate::cli::session::who;
use crate::client::{AcquireError, AcquireOptions, Client, Lock, LockView, SessionId, Wait};

/// After how long a wait is worth a word.
const SHORT_WAIT: Duration = Duration::from_millis(300);
/// How often the line on a terminal is refreshed.
const REFRESH: Duration = Duration::from_secs(1);
/// Erases the line that the cursor is in.
const ERASE: &str = "\r\x1b[K";

/// Acquires a lock. Whoever waits longer than a moment is told for whom: on a terminal in one line that
/// is refreshed in place, else once.
///
/// # Errors
/// As [`Client::acquire`]; when somebody else holds the lock, that was said.
pub(crate) async fn acquire(
    client: &Client,
    lock: &str,
    options: AcquireOptions,
) -> Result<Lock, AcquireError> {
    let result = {
        let acquire = client.acquire_with(lock, options);
        tokio::pin!(acquire);
        tokio::select! {
            biased;
            result = &mut acquire => result,
            never = tell(client, lock) => match never {},
        }
    };
    match &result {
        // Then nothing was said yet, and one wants to know why.
        Err(AcquireError::NotObtained { .. }) if options.wait == Wait::Try => {
            let inspected = tokio::time::timeout(REFRESH, client.inspect(lock)).await;
            if let Ok(Ok(LockView { holder: Some(holder), .. })) = inspected {
                let held_for = duration::show(holder.held_for);
                say(&format!("{lock} is held by {} for {held_for}", who(&holder.label)));
            }
        }
        Ok(_) | Err(_) => {}
    }
    result
}

/// A line on stderr, that is erased when one need not see it any more.
struct Line {
    in_place: bool,
    shown: Option<String>,
}

impl Line {
    fn show(&mut self, text: String) {
        if self.in_place {
            write(&format!("{ERASE}quorlock: {text}"));
        } else if self.shown.is_none() {
            say(&text);
        }
        self.shown = Some(text);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.in_place && self.shown.is_some() {
            write(ERASE);
        }
    }
}

fn write(text: &str) {
    // If it cannot be written, there is nobody to tell.
    drop(std::io::stderr().write_all(text.as_bytes()));
}

async fn tell(client: &Client, lock: &str) -> std::convert::Infallible {
    let in_place = std::io::stderr().is_terminal();
    let mut line = Line { in_place, shown: None };
    tokio::time::sleep(SHORT_WAIT).await;
    loop {
        // What cannot be looked at now, the acquire itself will hear of.
        if let Ok(view) = client.inspect(lock).await
            && let Some(text) = describe(&view, client.session())
        {
            line.show(text);
        }
        if !in_place && line.shown.is_some() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(REFRESH).await;
    }
}

/// As in "waiting for deploy: 3rd in queue, held by host:pid (user) for 12 s".
fn describe(view: &LockView, ours: SessionId) -> Option<String> {
    let place = match view.queue.iter().position(|waiter| waiter.session == ours) {
        Some(place) => ordinal(place + 1),
        // Behind those that the answer has room for.
        None if view.waiters > view.queue.len() as u64 => {
            format!("behind the first {}", view.queue.len())
        }
        // It is granted by now.
        None => return None,
    };
    let held = view.holder.as_ref().map_or_else(String::new, |holder| {
        format!(", held by {} for {}", who(&holder.label), duration::show(holder.held_for))
    });
    Some(format!("waiting for {}: {place} in queue{held}", view.lock))
}

/// `1st`, `2nd`, `3rd`, `4th`.
pub(crate) fn ordinal(number: usize) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        (_, _) => "th",
    };
    format!("{number}{ending}")
}

#[cfg(test)]
mod tests {
    use quorlock_core::ids::{FencingToken, Sequence};

    use super::*;
    use crate::client::{HolderView, Label, LockName, Text, WaiterView};

    #[test]
    fn places_are_named_as_people_do() {
        let named = [1, 2, 3, 4, 11, 12, 13, 21, 102, 111].map(ordinal);
        let expected =
            ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "111th"];
        assert_eq!(named, expected);
    }

    fn view(waiters: u64, sessions: &[u64]) -> LockView {
        let text = |text: &str| Text::new(text).expect("it is short");
        let label = Label { host: text("alpha"), pid: 7, user: text("eva"), command: text("make") };
        let holder = HolderView {
            session: SessionId::new(1),
            label: label.clone(),
            token: FencingToken::new(9),
            held_for: Duration::from_secs(12),
            lease_left: Duration::from_secs(8),
            hold_left: None,
        };
        let waiter = |session: &u64| WaiterView {
            session: SessionId::new(*session),
            label: label.clone(),
            sequence: Sequence::new(1),
            waited_for: Duration::from_secs(3),
        };
        LockView {
            lock: LockName::new("deploy").expect("it is a name"),
            holder: Some(holder),
            waiters,
            queue: sessions.iter().map(waiter).collect(),
        }
    }

    #[test]
    fn says_which_place_and_who_holds() {
        assert_eq!(
            describe(&view(3, &[4, 5, 6]), SessionId::new(6)).as_deref(),
            Some("waiting for deploy: 3rd in queue, held by alpha:7 (eva) for 12 s")
        );
        assert_eq!(
            describe(&view(5, &[4, 5]), SessionId::new(6)).as_deref(),
            Some("waiting for deploy: behind the first 2 in queue, held by alpha:7 (eva) for 12 s")
        );
        assert_eq!(describe(&view(1, &[4]), SessionId::new(6)), None);
    }
}
