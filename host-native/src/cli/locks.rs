//! `quorlock locks`, `why`, `history` and `break`: who holds what, and who does not any more.

use std::time::Duration;

use serde::Serialize;

use super::Context;
use super::duration::show;
use super::exit::{Exit, Failure};
use super::output::{Document, Sheet, one_line};
use super::run::waiting::ordinal;
use super::session::{in_short_session, who};
use crate::client::{
    CallError, Client, EndCause, FencingToken, HolderView, Label, LockSummary, LockView, PastHold,
    Rejection, WaiterView,
};

/// How many of those who wait are named in a table.
const WAITERS_SHOWN: usize = 20;

/// Who somebody is. The fields in JSON are a contract, as are all of this module.
#[derive(Debug, Serialize)]
struct Person {
    host: String,
    pid: u32,
    user: String,
    command: String,
}

impl From<&Label> for Person {
    fn from(label: &Label) -> Self {
        Self {
            host: label.host.to_string(),
            pid: label.pid,
            user: label.user.to_string(),
            command: label.command.to_string(),
        }
    }
}

/// Who holds a lock.
#[derive(Debug, Serialize)]
struct Holder {
    #[serde(flatten)]
    person: Person,
    session: u64,
    token: u64,
    held_for_ms: u64,
    lease_left_ms: u64,
    /// Until the lock is taken back; `null` for never.
    hold_left_ms: Option<u64>,
    #[serde(skip)]
    view: HolderView,
}

impl From<HolderView> for Holder {
    fn from(view: HolderView) -> Self {
        Self {
            person: Person::from(&view.label),
            session: view.session.value(),
            token: view.token.value(),
            held_for_ms: millis(view.held_for),
            lease_left_ms: millis(view.lease_left),
            hold_left_ms: view.hold_left.map(millis),
            view,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Arguments of `locks`.
#[derive(Debug, clap::Args)]
pub(crate) struct LocksArguments {
    /// Only those whose names begin with this.
    #[arg(default_value = "")]
    prefix: String,
}

/// The locks that are held.
#[derive(Debug, Serialize)]
pub(super) struct Locks {
    locks: Vec<LockRow>,
}

#[derive(Debug, Serialize)]
struct LockRow {
    lock: String,
    /// `null` between two holds.
    holder: Option<Holder>,
    waiters: u64,
}

impl From<LockSummary> for LockRow {
    fn from(LockSummary { lock, holder, waiters }: LockSummary) -> Self {
        Self { lock: lock.to_string(), holder: holder.map(Holder::from), waiters }
    }
}

impl Document for Locks {
    fn sheet(&self) -> Sheet {
        let headings =
            ["lock", "#token", "holder", "held for", "lease left", "#waiters", "command"];
        let mut sheet = Sheet::new(&headings);
        for LockRow { lock, holder, waiters } in &self.locks {
            let cell =
                |text: fn(&Holder) -> String| holder.as_ref().map_or_else(|| "-".to_owned(), text);
            sheet.row([
                lock.clone(),
                cell(|holder| holder.token.to_string()),
                cell(|holder| who(&holder.view.label)),
                cell(|holder| show(holder.view.held_for)),
                cell(|holder| show(holder.view.lease_left)),
                waiters.to_string(),
                cell(|holder| holder.person.command.clone()),
            ]);
        }
        sheet.when_empty("No lock is held.");
        sheet
    }
}

/// Lists the locks that are held.
///
/// # Errors
/// The cluster does not say.
pub(crate) fn locks(arguments: LocksArguments, context: &Context) -> Result<Exit, Failure> {
    let locks = context.block_on(in_short_session(context, async |client| {
        locks_of(client, &arguments.prefix).await
    }))?;
    context.output.print(&locks)?;
    Ok(Exit::Ok)
}

/// The locks whose names begin with a prefix.
pub(super) async fn locks_of(client: &Client, prefix: &str) -> Result<Locks, Failure> {
    let locks = client.locks(prefix).await?;
    Ok(Locks { locks: locks.into_iter().map(LockRow::from).collect() })
}

/// Arguments of `why`.
#[derive(Debug, clap::Args)]
pub(crate) struct WhyArguments {
    /// The lock.
    name: String,
}

/// A lock with its queue.
#[derive(Debug, Serialize)]
pub(super) struct Why {
    lock: String,
    /// `null` when nobody holds it.
    holder: Option<Holder>,
    waiters: u64,
    /// In the order in which they will have it; of a long one, the beginning.
    queue: Vec<Waiter>,
}

#[derive(Debug, Serialize)]
struct Waiter {
    #[serde(flatten)]
    person: Person,
    session: u64,
    waited_for_ms: u64,
    #[serde(skip)]
    view: WaiterView,
}

impl From<LockView> for Why {
    fn from(view: LockView) -> Self {
        let LockView { lock, holder, waiters, queue } = view;
        let waiter = |view: WaiterView| Waiter {
            person: Person::from(&view.label),
            session: view.session.value(),
            waited_for_ms: millis(view.waited_for),
            view,
        };
        Self {
            lock: lock.to_string(),
            holder: holder.map(Holder::from),
            waiters,
            queue: queue.into_iter().map(waiter).collect(),
        }
    }
}

impl Why {
    /// Sentences for people.
    pub(super) fn sentences(&self) -> Vec<String> {
        let lock = one_line(&self.lock);
        let Some(holder) = &self.holder else {
            return vec![format!("Nobody holds {lock}.")];
        };
        let view = &holder.view;
        let mut sentences = vec![format!(
            "{} holds {lock} for {}, with token {}, in session {}.",
            who(&view.label),
            show(view.held_for),
            holder.token,
            holder.session
        )];
        if !holder.person.command.is_empty() {
            sentences.push(format!("It runs: {}", one_line(&holder.person.command)));
        }
        let taken_back = view.hold_left.map_or_else(String::new, |left| {
            format!("; in any case the lock is taken back in {}", show(left))
        });
        let left = show(view.lease_left);
        sentences.push(format!(
            "If it were not heard from any more, its lease would end in {left}{taken_back}."
        ));
        if self.waiters == 0 {
            sentences.push("Nobody waits for it.".to_owned());
        }
        for (place, waiter) in self.queue.iter().take(WAITERS_SHOWN).enumerate() {
            sentences.push(format!(
                "{} in queue: {}, for {}.",
                ordinal(place + 1),
                who(&waiter.view.label),
                show(waiter.view.waited_for)
            ));
        }
        let more = self.waiters.saturating_sub(WAITERS_SHOWN as u64);
        if more > 0 {
            sentences.push(format!("{more} more wait."));
        }
        sentences
    }
}

impl Document for Why {
    fn sheet(&self) -> Sheet {
        let mut sheet = Sheet::new(&[]);
        for sentence in self.sentences() {
            sheet.remark(sentence);
        }
        sheet
    }
}

/// The same for scripts: a row for the holder, and one for each who waits.
struct Places<'a>(&'a Why);

impl Serialize for Places<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl Document for Places<'_> {
    fn sheet(&self) -> Sheet {
        let mut sheet = Sheet::new(&["place", "host", "pid", "user", "session", "ms"]);
        let mut row = |place: usize, person: &Person, session: u64, for_ms: u64| {
            let Person { host, pid, user, .. } = person;
            sheet.row([
                place.to_string(),
                host.clone(),
                pid.to_string(),
                user.clone(),
                session.to_string(),
                for_ms.to_string(),
            ]);
        };
        if let Some(holder) = &self.0.holder {
            row(0, &holder.person, holder.session, holder.held_for_ms);
        }
        for (place, waiter) in self.0.queue.iter().enumerate() {
            row(place + 1, &waiter.person, waiter.session, waiter.waited_for_ms);
        }
        sheet
    }
}

/// Says who holds a lock, and who waits for it.
///
/// # Errors
/// The cluster does not say.
pub(crate) fn why(arguments: WhyArguments, context: &Context) -> Result<Exit, Failure> {
    let why = context.block_on(in_short_session(context, async |client| {
        why_of(client, &arguments.name).await
    }))?;
    match context.output.format {
        super::output::Format::Plain => context.output.print(&Places(&why))?,
        super::output::Format::Table | super::output::Format::Json => context.output.print(&why)?,
    }
    Ok(Exit::Ok)
}

/// A lock with its queue.
pub(super) async fn why_of(client: &Client, lock: &str) -> Result<Why, Failure> {
    Ok(Why::from(client.inspect(lock).await?))
}

/// Arguments of `history`.
#[derive(Debug, clap::Args)]
pub(crate) struct HistoryArguments {
    /// The lock.
    name: String,
}

/// The past holds of a lock.
#[derive(Debug, Serialize)]
pub(super) struct History {
    lock: String,
    /// Oldest first.
    holds: Vec<Hold>,
}

#[derive(Debug, Serialize)]
struct Hold {
    #[serde(flatten)]
    person: Person,
    session: u64,
    token: u64,
    /// On the clock of the cluster, which stands still while the cluster does.
    since_ms: u64,
    until_ms: u64,
    /// `released`, `session_closed`, `session_expired`, `hold_timed_out` or `broken`.
    cause: &'static str,
    /// Who broke it.
    by: Option<Person>,
    /// Why it was broken.
    reason: Option<String>,
    #[serde(skip)]
    view: PastHold,
}

impl From<PastHold> for Hold {
    fn from(view: PastHold) -> Self {
        let (cause, by, reason) = match &view.cause {
            EndCause::Released => ("released", None, None),
            EndCause::SessionClosed => ("session_closed", None, None),
            EndCause::SessionExpired => ("session_expired", None, None),
            EndCause::HoldTimedOut => ("hold_timed_out", None, None),
            EndCause::Broken { by, reason } => {
                ("broken", Some(Person::from(by)), Some(reason.to_string()))
            }
        };
        Self {
            person: Person::from(&view.label),
            session: view.session.value(),
            token: view.token.value(),
            since_ms: view.since.as_micros() / 1000,
            until_ms: view.until.as_micros() / 1000,
            cause,
            by,
            reason,
            view,
        }
    }
}

impl Document for History {
    fn sheet(&self) -> Sheet {
        let mut sheet = Sheet::new(&["#token", "holder", "held for", "ended because", "command"]);
        for hold in &self.holds {
            sheet.row([
                hold.token.to_string(),
                who(&hold.view.label),
                show(hold.view.until.since(hold.view.since)),
                hold.view.cause.to_string(),
                hold.person.command.clone(),
            ]);
        }
        sheet.when_empty(format!("No past hold of {} is remembered.", one_line(&self.lock)));
        sheet
    }
}

/// Shows who held a lock before, and how each hold ended.
///
/// # Errors
/// The cluster does not say.
pub(crate) fn history(arguments: HistoryArguments, context: &Context) -> Result<Exit, Failure> {
    let history = context.block_on(in_short_session(context, async |client| {
        history_of(client, &arguments.name).await
    }))?;
    context.output.print(&history)?;
    Ok(Exit::Ok)
}

/// The past holds of a lock.
pub(super) async fn history_of(client: &Client, lock: &str) -> Result<History, Failure> {
    let holds = client.history(lock).await?.into_iter().map(Hold::from).collect();
    Ok(History { lock: lock.to_owned(), holds })
}

/// Arguments of `break`.
#[derive(Debug, clap::Args)]
pub(crate) struct BreakArguments {
    /// The lock.
    name: String,
    /// The token of the hold to end, as `quorlock why` shows it: so that no other one is hit.
    #[arg(long, value_name = "TOKEN")]
    token: u64,
    /// Why, for the holder and for the history.
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

#[derive(Debug, Serialize)]
struct Broken {
    lock: String,
    token: u64,
}

impl Document for Broken {
    fn sheet(&self) -> Sheet {
        let mut sheet = Sheet::new(&[]);
        let lock = one_line(&self.lock);
        sheet.remark(format!(
            "{lock} is taken from its holder; token {} is worth nothing any more",
            self.token
        ));
        sheet
    }
}

/// A token that a person typed.
pub(super) fn token_of(number: u64) -> Result<FencingToken, Failure> {
    if number > FencingToken::MAX.value() {
        return Err(Failure::usage(format!("{number} is no token: it is too large")));
    }
    Ok(FencingToken::new(number))
}

/// That hold is over: nothing of ours is lost by that.
pub(super) fn not_broken(error: CallError, lock: &str) -> Failure {
    let CallError::Rejected(Rejection::NotHolder { current }) = error else {
        return error.into();
    };
    let what = match current {
        None => format!("nobody holds {lock}"),
        Some(current) => {
            format!("that hold of {lock} is over; the token of the present one is {current}")
        }
    };
    Failure::new(Exit::Negative, what).hint(format!("look who holds it with `quorlock why {lock}`"))
}

/// Takes a lock away from its holder.
///
/// # Errors
/// Not permitted, or not held with that token.
pub(crate) fn break_lock(arguments: BreakArguments, context: &Context) -> Result<Exit, Failure> {
    let BreakArguments { name, token, reason } = arguments;
    let named = token_of(token)?;
    context.block_on(in_short_session(context, async |client| {
        client.break_lock(&name, named, &reason).await.map_err(|error| not_broken(error, &name))
    }))?;
    context.output.print(&Broken { lock: name, token })?;
    Ok(Exit::Ok)
}
