//! What clients ask and are told.

use std::fmt::Write as _;

use quorlock_core::client::{Action, CallError, CallResult, Completed, SessionState};
use quorlock_core::lock::Command;
use quorlock_core::message::{
    Acked, Answer, Consistency, Done, FileAppend, FileView, HolderView, LockView, Loss, Op,
    Outcome, PastHold, Query, Rejection, Reply, Request, RequestKey, SessionEnd, SessionNews,
    Submission, Unavailable, Wait,
};
use quorlock_core::text::Label;
use quorlock_core::time::Duration;

use super::Words;
use super::events::{bytes, end_cause};
use crate::lab::ClientNews;

impl Words {
    /// A command of the log.
    pub(super) fn command(&self, command: &Command) -> String {
        match command {
            Command::OpenSession { label: of, lease, .. } => {
                format!("open {} {lease:?}", label(of))
            }
            Command::KeepAlive(renewals) => {
                let of = renewals.iter().map(|renewal| self.session(renewal.session));
                format!("keep alive {}", of.collect::<Vec<_>>().join(" "))
            }
            Command::Submit(submission) => self.submission(submission),
        }
    }

    fn submission(&self, submission: &Submission) -> String {
        let Submission { session, sequence, acked, op } = submission;
        let acked = if *acked == Acked::default() { String::new() } else { acked_words(acked) };
        format!("{}#{sequence} {}{acked}", self.session(*session), op_words(op))
    }

    pub(super) fn request(&self, request: &Request) -> String {
        match request {
            Request::OpenSession { label: of, lease, .. } => {
                format!("open {} {lease:?}", label(of))
            }
            Request::KeepAlive { id, keep_alive } => {
                let acked = acked_words(&keep_alive.acked);
                let seen = keep_alive.losses_seen;
                let of = self.session(keep_alive.session);
                format!("keep alive {of} (request {id}){acked}, losses seen to {seen}")
            }
            Request::Submit(submission) => self.submission(submission),
            Request::Read { id, query, consistency } => {
                let stale = match consistency {
                    Consistency::Stale => ", stale",
                    Consistency::Linearizable => "",
                };
                format!("read {} (request {id}){stale}", query_words(query))
            }
        }
    }

    pub(super) fn reply(&self, reply: &Reply) -> String {
        match reply {
            Reply::Opened { result: Ok(opened), .. } => {
                format!("opened session {}, window {}", opened.session, opened.window_max)
            }
            Reply::Opened { result: Err(why), .. } => format!("not opened: {}", rejection(why)),
            Reply::KeptAlive { id, index, result: Ok(news), .. } => {
                format!("kept alive (request {id}) at {index}{}", session_news(news))
            }
            Reply::KeptAlive { id, index, result: Err(why), .. } => {
                format!("not kept alive (request {id}) at {index}: {}", rejection(why))
            }
            Reply::Submitted { sequence, index, outcome: result, .. } => {
                format!("#{sequence} {} (at {index})", outcome(result))
            }
            Reply::Lost { loss, .. } => loss_words(loss),
            Reply::SessionEnded { index, cause, .. } => {
                format!("session ended at {index}: {}", session_end(*cause))
            }
            Reply::Read { id, index, answer: what } => {
                format!("(request {id}) as of {index}: {}", answer(self, what))
            }
            Reply::Unavailable { request, reason } => {
                format!("{}: unavailable: {}", key_words(*request), unavailable(*reason))
            }
        }
    }

    pub(super) fn client_news(&self, name: &str, news: &ClientNews) -> String {
        match news {
            ClientNews::Connects(node) => format!("{name} connects to {node}"),
            ClientNews::Connected(node) => format!("{name} is connected to {node}"),
            ClientNews::Disconnected(node) => format!("{name} is disconnected from {node}"),
            ClientNews::GaveUp(node) => format!("{name} gives up its connection to {node}"),
            ClientNews::Sent(node, request) => {
                format!("{name} ~> {node} {}", self.request(request))
            }
            ClientNews::Received(node, reply) => {
                format!("{node} -> {name} {}", self.reply(reply))
            }
            ClientNews::MailLost => format!("{name}: something between it and a node is lost"),
            ClientNews::Woken(at) => format!("{name} wakes at {at:?}"),
            ClientNews::Called(call, action) => {
                format!("{name} call {call}: {}", action_words(action))
            }
            ClientNews::Finished(call, result) => {
                format!("{name} call {call} is over: {}", self.call_result(result))
            }
            ClientNews::State(state) => format!("{name} is {}", state_words(state)),
            ClientNews::Lost(loss) => format!("{name} {}", loss_words(loss)),
        }
    }

    fn call_result(&self, result: &CallResult) -> String {
        match result {
            Ok(Completed::Done(result)) => done(result),
            Ok(Completed::Read { index, answer: what }) => {
                format!("as of {index}: {}", answer(self, what))
            }
            Err(CallError::Rejected(why)) => format!("refused: {}", rejection(why)),
            Err(error) => error.to_string(),
        }
    }
}

fn loss_words(loss: &Loss) -> String {
    let Loss { lock, token, index, cause } = loss;
    format!("lost {lock}, token {token}, at {index}: {}", end_cause(cause))
}

fn session_news(news: &SessionNews) -> String {
    let mut words = String::new();
    for (sequence, decided) in &news.outcomes {
        write!(words, "; #{sequence} {}", outcome(decided)).expect("a string takes all");
    }
    for loss in &news.losses {
        write!(words, "; {}", loss_words(loss)).expect("a string takes all");
    }
    words
}

fn state_words(state: &SessionState) -> String {
    match state {
        SessionState::Opening => "opening its session".to_owned(),
        SessionState::Safe => "safe".to_owned(),
        SessionState::Jeopardy => "in jeopardy".to_owned(),
        SessionState::Ended(ending) => format!("at its end: {ending}"),
    }
}

fn action_words(action: &Action) -> String {
    match action {
        Action::Op(op) => op_words(op),
        Action::Cancel { call } => format!("cancel call {call}"),
        Action::Read { query, consistency: Consistency::Stale } => {
            format!("read {}, stale", query_words(query))
        }
        Action::Read { query, consistency: Consistency::Linearizable } => {
            format!("read {}", query_words(query))
        }
    }
}

/// The name that a test gave to a client, and nothing of the rest.
pub(in super::super) fn label(label: &Label) -> String {
    label.user.to_string()
}

fn acked_words(acked: &Acked) -> String {
    let mut words = format!(", has the outcomes to {}", acked.through);
    if !acked.except.is_empty() {
        let except: Vec<String> = acked.except.iter().map(ToString::to_string).collect();
        write!(words, " but {}", except.join(" ")).expect("a string takes all");
    }
    words
}

fn wait_words(wait: Wait) -> String {
    match wait {
        Wait::Try => "try".to_owned(),
        Wait::For(time) => format!("for {time:?}"),
        Wait::Forever => "forever".to_owned(),
    }
}

fn append_words(appends: &[FileAppend]) -> String {
    let each = appends.iter().map(|append| format!(" {}+{}", append.file, bytes(&append.bytes)));
    each.collect()
}

fn op_words(op: &Op) -> String {
    match op {
        Op::Acquire { lock, wait, max_hold } => {
            let most = max_hold.map(|time| format!(", hold {time:?}")).unwrap_or_default();
            format!("acquire {lock} {}{most}", wait_words(*wait))
        }
        Op::Cancel { waiting } => format!("cancel #{waiting}"),
        Op::Release { lock, token, appends } => {
            format!("release {lock} token {token}{}", append_words(appends))
        }
        Op::Append { lock, token, append } => {
            format!("append {lock} token {token}{}", append_words(std::slice::from_ref(append)))
        }
        Op::Section { lock, wait, appends } => {
            format!("section {lock} {}{}", wait_words(*wait), append_words(appends))
        }
        Op::Break { lock, token, reason } => format!("break {lock} token {token}: {reason}"),
        Op::CreateFile { file, guard } => format!("create {file} guarded by {guard}"),
        Op::CloseSession => "close".to_owned(),
    }
}

fn query_words(query: &Query) -> String {
    match query {
        Query::Lock { lock } => format!("lock {lock}"),
        Query::Locks { prefix, after } => format!("locks {prefix}*{}", after_words(after.as_ref())),
        Query::History { lock } => format!("history of {lock}"),
        Query::File { file } => format!("file {file}"),
        Query::Files { after } => format!("files{}", after_words(after.as_ref())),
        Query::ReadFile { file, offset, length } => {
            format!("{length} bytes of {file} from {offset}")
        }
    }
}

fn after_words(after: Option<&impl std::fmt::Display>) -> String {
    after.map(|name| format!(" after {name}")).unwrap_or_default()
}

fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Ok(result) => done(result),
        Err(why) => format!("refused: {}", rejection(why)),
    }
}

fn done(done: &Done) -> String {
    match done {
        Done::Granted { token, predecessor } => {
            let after = predecessor.map(|token| format!(" after {token}")).unwrap_or_default();
            format!("granted, token {token}{after}")
        }
        Done::Cancelled => "cancelled".to_owned(),
        Done::Released { offsets } => format!("released{}", offset_words(offsets)),
        Done::Appended { offset } => format!("appended at {offset}"),
        Done::Sectioned { token, offsets } => {
            format!("section done, token {token}{}", offset_words(offsets))
        }
        Done::Broken => "broken".to_owned(),
        Done::FileCreated => "file created".to_owned(),
        Done::SessionClosed => "session closed".to_owned(),
    }
}

fn offset_words(offsets: &[u64]) -> String {
    let offsets: Vec<String> = offsets.iter().map(ToString::to_string).collect();
    if offsets.is_empty() { String::new() } else { format!(", appended at {}", offsets.join(" ")) }
}

pub(super) fn rejection(rejection: &Rejection) -> String {
    match rejection {
        Rejection::OutOfOrder { expected } => format!("out of order, expected #{expected}"),
        Rejection::LeaseOutOfRange { min, max } => {
            format!("time-to-live outside {min:?} to {max:?}")
        }
        Rejection::AlreadyHeld { token } => format!("already held, token {token}"),
        Rejection::NotHolder { current: Some(token) } => {
            format!("not the holder, now token {token}")
        }
        Rejection::NotHolder { current: None } => "not the holder, nobody is".to_owned(),
        Rejection::WrongGuard { guard } => format!("wrong guard, it is {guard}"),
        Rejection::AppendTooLarge { bytes_max } => format!("append too large, at most {bytes_max}"),
        Rejection::TooManyAppends { appends_max } => {
            format!("too many appends, at most {appends_max}")
        }
        Rejection::SessionUnknown => "session unknown".to_owned(),
        Rejection::ResultEvicted => "result evicted".to_owned(),
        Rejection::WindowFull => "window full".to_owned(),
        Rejection::TooManySessions => "too many sessions".to_owned(),
        Rejection::NotObtained => "not obtained".to_owned(),
        Rejection::TimedOut => "timed out".to_owned(),
        Rejection::Cancelled => "cancelled".to_owned(),
        Rejection::AlreadyWaiting => "already waiting".to_owned(),
        Rejection::NotWaiting => "not waiting".to_owned(),
        Rejection::FileFull => "file full".to_owned(),
        Rejection::TooManyLocks => "too many locks".to_owned(),
        Rejection::TooManyWaiters => "too many waiters".to_owned(),
        Rejection::TooManyPlaces => "too many places".to_owned(),
        Rejection::TooManyFiles => "too many files".to_owned(),
        Rejection::TooManyPendingBytes => "too many pending bytes".to_owned(),
    }
}

pub(super) fn session_end(end: SessionEnd) -> &'static str {
    match end {
        SessionEnd::Closed => "closed",
        SessionEnd::Expired => "expired",
    }
}

fn key_words(key: RequestKey) -> String {
    match key {
        RequestKey::Open(_) => "open".to_owned(),
        RequestKey::KeepAlive(_, id) => format!("keep alive (request {id})"),
        RequestKey::Submit(_, sequence) => format!("#{sequence}"),
        RequestKey::Read(id) => format!("read (request {id})"),
    }
}

fn unavailable(reason: Unavailable) -> String {
    match reason {
        Unavailable::NotLeader { leader: Some(leader) } => format!("not the leader, try {leader}"),
        Unavailable::NotLeader { leader: None } => "not the leader, nobody known".to_owned(),
        Unavailable::LeadershipLost { leader: Some(leader) } => {
            format!("leadership lost, try {leader}")
        }
        Unavailable::LeadershipLost { leader: None } => "leadership lost, nobody known".to_owned(),
        Unavailable::Transferring { to } => format!("transferring to {to}"),
        Unavailable::Overloaded => "overloaded".to_owned(),
        Unavailable::TooLarge => "too large".to_owned(),
    }
}

/// What a query was answered.
pub(in super::super) fn answer(words: &Words, answer: &Answer) -> String {
    match answer {
        Answer::Lock(view) => lock_words(words, view),
        Answer::Locks(locks) => {
            let each = locks.iter().map(|lock| {
                let holder = holder_words(words, lock.holder.as_ref());
                format!("{} {holder}, {} wait", lock.lock, lock.waiters)
            });
            list(each.collect(), "no locks")
        }
        Answer::History(holds) => list(holds.iter().map(past_words).collect(), "no past holds"),
        Answer::File(Some(file)) => file_words(file),
        Answer::File(None) | Answer::Bytes { file: None, .. } => "no such file".to_owned(),
        Answer::Files(files) => list(files.iter().map(file_words).collect(), "no files"),
        Answer::Bytes { file: Some(file), bytes: read } => {
            format!("{} of {} bytes", bytes(read), file.length)
        }
    }
}

fn list(each: Vec<String>, none: &str) -> String {
    if each.is_empty() { none.to_owned() } else { each.join("; ") }
}

fn lock_words(words: &Words, view: &LockView) -> String {
    let queue: Vec<String> = view
        .queue
        .iter()
        .map(|waiter| format!("{}#{}", words.session(waiter.session), waiter.sequence))
        .collect();
    let holder = holder_words(words, view.holder.as_ref());
    format!("{} {holder}, waiting: {}", view.lock, list(queue, "nobody"))
}

fn holder_words(words: &Words, holder: Option<&HolderView>) -> String {
    let Some(holder) = holder else { return "free".to_owned() };
    let left = |time: Option<Duration>| time.map(|time| format!(", hold left {time:?}"));
    format!(
        "held by {} ({}), token {}, for {:?}, lease left {:?}{}",
        words.session(holder.session),
        label(&holder.label),
        holder.token,
        holder.held_for,
        holder.lease_left,
        left(holder.hold_left).unwrap_or_default()
    )
}

fn past_words(hold: &PastHold) -> String {
    let (since, until) = (hold.since, hold.until);
    let cause = end_cause(&hold.cause);
    format!("{} token {} from {since:?} to {until:?}: {cause}", label(&hold.label), hold.token)
}

fn file_words(file: &FileView) -> String {
    let FileView { file, guard, length, checksum } = file;
    format!("{file} guarded by {guard}, {length} bytes, checksum {checksum}")
}
