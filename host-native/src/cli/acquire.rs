//! `quorlock acquire` and `quorlock release`, for scripts: a lock that is held after the command has
//! ended.
//!
//! ```sh
//! token=$(quorlock acquire deploy -o json | jq .token)
//! ...
//! quorlock release deploy --token $token
//! ```
//!
//! What keeps it is a process that is left behind ([`super::holder`]). Prefer `quorlock run` where it
//! fits: it ends what runs under the lock when the lock is lost; here nobody does, and only what checks
//! the token is protected. So that a lock that was forgotten does not stay for ever, it is taken back
//! after an hour unless `--max-hold` says otherwise.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::exit::{Exit, Failure};
use super::holder::{self, Beginning, HoldArguments, Holder, Question, Reply};
use super::output::{Document, Sheet};
use super::run::ourselves::Ourselves;
use super::run::{LOCK_VARIABLE, SESSION_VARIABLE, SOCKET_VARIABLE, TOKEN_VARIABLE};
use super::session::{in_short_session, who};
use super::{Context, duration};

/// Arguments of `acquire`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A process is left behind that keeps the lock until `quorlock release`, at most for as long as --max-hold \
says. Exit code: 1 if the lock was not obtained, 69 if there was no quorum in time.")]
pub(crate) struct AcquireArguments {
    #[command(flatten)]
    hold: HoldArguments,
}

/// A lock that is held. Its fields in JSON are a contract.
#[derive(Debug, Serialize)]
struct Acquired {
    lock: String,
    session: u64,
    token: u64,
    /// When the lock is taken back at the latest, in RFC 3339; `null` for never.
    deadline: Option<String>,
    /// Where its holder listens.
    socket: String,
    /// The process that keeps it.
    pid: u32,
}

impl Document for Acquired {
    fn sheet(&self) -> Sheet {
        let mut sheet = Sheet::new(&["lock", "#token", "#session", "deadline", "socket"]);
        sheet.row([
            self.lock.clone(),
            self.token.to_string(),
            self.session.to_string(),
            self.deadline.clone().unwrap_or_else(|| "-".to_owned()),
            self.socket.clone(),
        ]);
        sheet.remark(format!("Held by process {} until", self.pid));
        sheet.remark(format!("  quorlock release {} --token {}", self.lock, self.token));
        sheet.remark("To append under it:");
        sheet.remark(format!(
            "  export {LOCK_VARIABLE}={} {TOKEN_VARIABLE}={} {SESSION_VARIABLE}={} {SOCKET_VARIABLE}={}",
            self.lock, self.token, self.session, self.socket
        ));
        sheet
    }
}

/// Acquires a lock, and leaves a process behind that keeps it.
///
/// # Errors
/// It was not obtained.
pub(crate) fn acquire(arguments: AcquireArguments, context: &Context) -> Result<Exit, Failure> {
    context.block_on(start_holder(&arguments.hold, context))
}

async fn start_holder(arguments: &HoldArguments, context: &Context) -> Result<Exit, Failure> {
    let cannot =
        |error| Failure::internal(format!("cannot start the process that keeps the lock: {error}"));
    let connection = context.connection.find()?;
    let ourselves = Ourselves::find().map_err(cannot)?;
    let mut command =
        tokio::process::Command::from(ourselves.command(&holder_line(arguments, context)));
    // Without its input the holder knows that nobody waits any more: also when we are killed.
    command.envs(connection.variables()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = command.spawn().map_err(cannot)?;
    let pid = process.id().unwrap_or_default();
    let Some(answers) = process.stdout.take() else {
        return Err(Failure::internal("the process that keeps the lock has no output"));
    };
    let mut line = String::new();
    BufReader::new(answers).read_line(&mut line).await.map_err(cannot)?;
    match serde_json::from_str(&line) {
        Ok(Beginning::Held { session, token, socket }) => {
            let lock = arguments.name.clone();
            let deadline = arguments.max_hold().and_then(deadline);
            context.output.print(&Acquired { lock, session, token, deadline, socket, pid })?;
            Ok(Exit::Ok)
        }
        Ok(Beginning::Failed { exit, what }) => Err(holder::failure(exit, &what)),
        Err(_) => Err(Failure::internal("the process that keeps the lock ended before it began")),
    }
}

/// The arguments for the holder.
fn holder_line(arguments: &HoldArguments, context: &Context) -> Vec<OsString> {
    let seconds = |time: Duration| OsString::from(format!("{}ms", time.as_millis()));
    let mut line: Vec<OsString> = vec![
        holder::COMMAND.into(),
        "--timeout".into(),
        seconds(context.connection.timeout),
        "--ttl".into(),
        seconds(arguments.lease),
        "--max-hold".into(),
        seconds(arguments.max_hold),
    ];
    if arguments.wait.once {
        line.push("--try".into());
    }
    if let Some(wait) = arguments.wait.wait {
        line.extend(["--wait".into(), seconds(wait)]);
    }
    line.extend(["--".into(), arguments.name.clone().into()]);
    line
}

fn deadline(hold: Duration) -> Option<String> {
    OffsetDateTime::now_utc()
        .checked_add(hold.try_into().ok()?)?
        .replace_nanosecond(0)
        .ok()?
        .format(&Rfc3339)
        .ok()
}

/// Arguments of `release`.
#[derive(Debug, clap::Args)]
pub(crate) struct ReleaseArguments {
    /// The lock.
    name: String,
    /// Its token, as `acquire` has printed it.
    #[arg(long, env = TOKEN_VARIABLE, value_name = "TOKEN")]
    token: u64,
}

/// A lock that was given back. Its fields in JSON are a contract.
#[derive(Debug, Serialize)]
struct Released {
    lock: String,
    token: u64,
}

impl Document for Released {
    fn sheet(&self) -> Sheet {
        let mut sheet = Sheet::new(&[]);
        sheet.remark(format!(
            "{} is released; token {} is worth nothing any more",
            self.lock, self.token
        ));
        sheet
    }
}

/// Releases a lock that `acquire` left held.
///
/// # Errors
/// It is not held on this machine, or not with this token.
pub(crate) fn release(arguments: ReleaseArguments, context: &Context) -> Result<Exit, Failure> {
    context.block_on(ask_to_release(arguments, context))
}

async fn ask_to_release(arguments: ReleaseArguments, context: &Context) -> Result<Exit, Failure> {
    let ReleaseArguments { name, token } = arguments;
    let cluster = context.connection.find()?.credentials()?.identity().cluster.clone();
    let Some(socket) = holder::find(&cluster, &name, token) else {
        return Err(nobody_here(&name, token, context).await);
    };
    let Ok(mut holder) = Holder::connect(&socket, context.connection.timeout).await else {
        return Err(nobody_here(&name, token, context).await);
    };
    let question = Question::Release { lock: name.clone(), token };
    let Reply::Released {} = holder.ask(&question, b"").await? else {
        return Err(holder::senseless());
    };
    context.output.print(&Released { lock: name, token })?;
    Ok(Exit::Ok)
}

/// Why there is no holder: whether the lock is held elsewhere, by another, or not at all.
async fn nobody_here(name: &str, token: u64, context: &Context) -> Failure {
    let looked = in_short_session(context, async |client| Ok(client.inspect(name).await?)).await;
    let holder = match looked {
        Ok(view) => view.holder,
        Err(failure) => return failure,
    };
    match holder {
        None => Failure::new(Exit::Lost, format!("{name} is not held: it was released or lost before"))
            .hint(format!("see how it ended with `quorlock history {name}`")),
        Some(holder) if holder.token.value() == token => Failure::new(
            Exit::Negative,
            format!("{name} is held with this token by {}, but no process on this machine, of this user, keeps it", who(&holder.label)),
        )
        .hint("release it where it was acquired, or take it away with `quorlock break`"),
        Some(holder) => Failure::new(
            Exit::Lost,
            format!("token {token} of {name} is not current: {} holds it with token {} for {}",
                who(&holder.label), holder.token, duration::show(holder.held_for)),
        ),
    }
}
