//! Commands of sessions: raw ones, and those of the core's client.

use std::error::Error;

use bytes::Bytes;
use quorlock_core::client::Action;
use quorlock_core::ids::{CallId, ConnectionId, FencingToken, LogIndex, Sequence, SessionId};
use quorlock_core::message::{Acked, Consistency, FileAppend, Op, Query, Request, Wait};
use quorlock_core::text::{FileName, LockName, Text};
use quorlock_core::time::Duration;

use super::Script;
use super::values::{Acknowledged, Number, Patience, Span};
use crate::lab::{label, nonce};

/// Where and how a request is sent: the words `at=2 seq=5 acked=4` of any command here.
#[derive(Debug, Default)]
pub(super) struct Sending {
    at: Option<u64>,
    sequence: Option<u64>,
    acked: Acked,
}

impl Sending {
    /// Takes its words out of a command.
    fn take(command: &mut goldenscript::Command) -> Result<Self, Box<dyn Error>> {
        let mut sending = Self::default();
        let mut wrong: Option<Box<dyn Error>> = None;
        command.args.retain(|argument| {
            let goldenscript::Argument::KeyValue(key, value) = argument else { return true };
            let read = match key.as_str() {
                "at" => value.parse().map(|at| sending.at = Some(at)).map_err(Into::into),
                "seq" => value
                    .parse()
                    .map(|number: Number| sending.sequence = Some(number.0))
                    .map_err(Into::into),
                "acked" => value
                    .parse()
                    .map(|acked: Acknowledged| sending.acked = acked.0)
                    .map_err(Into::into),
                _ => return true,
            };
            wrong = wrong.take().or(read.err());
            false
        });
        wrong.map_or(Ok(sending), Err)
    }
}

/// Commands of sessions.
#[derive(Debug, goldenscript::Command)]
enum SessionCommand {
    /// `open alice lease=5s`: opens a session; `like=bob` with the nonce of another.
    Open {
        who: String,
        #[arg(key)]
        lease: Option<Span>,
        #[arg(key)]
        like: Option<String>,
    },
    /// `cancel alice 3`: leave the queue where request (or call) 3 waits.
    Cancel { who: String, waiting: u64 },
    /// `resend alice 3`: the same request again.
    Resend { who: String, number: u64 },
    /// `keep_alive alice seen=7`.
    KeepAlive {
        who: String,
        #[arg(key)]
        seen: Option<Number>,
    },
    /// `read alice lock db`, `locks`, `history db`, `file journal`, `files`, `bytes journal 0 5`;
    /// `stale=true` for an answer of any node.
    Read {
        who: String,
        what: String,
        name: Option<String>,
        offset: Option<u64>,
        length: Option<u32>,
        #[arg(key, optional)]
        stale: bool,
    },
    /// `hang_up alice`: the connection is gone.
    HangUp { who: String },
    /// Anything else.
    #[command(other)]
    Other(goldenscript::Command),
}

/// What a session asks for, exactly once.
#[derive(Debug, goldenscript::Command)]
enum OpCommand {
    /// `acquire alice db forever max_hold=5s`.
    Acquire {
        who: String,
        lock: String,
        wait: Option<Patience>,
        #[arg(key)]
        max_hold: Option<Span>,
    },
    /// `release alice db journal=bye`: with the token that alice was granted last, or `token=5`.
    Release {
        who: String,
        lock: String,
        #[arg(key)]
        token: Option<Number>,
        #[arg(key, many, optional)]
        appends: Vec<(String, String)>,
    },
    /// `append alice db journal=hello`.
    Append {
        who: String,
        lock: String,
        #[arg(key)]
        token: Option<Number>,
        #[arg(key, many)]
        appends: Vec<(String, String)>,
    },
    /// `section alice db forever journal=hello`.
    Section {
        who: String,
        lock: String,
        wait: Option<Patience>,
        #[arg(key, many, optional)]
        appends: Vec<(String, String)>,
    },
    /// `break carol db "is gone"`: ends the present hold, or that of `token=5`.
    Break {
        who: String,
        lock: String,
        reason: String,
        #[arg(key)]
        token: Option<Number>,
    },
    /// `create alice journal db`: a file and its guard.
    Create { who: String, file: String, guard: String },
    /// `close alice`: ends the session.
    Close { who: String },
    /// Anything else.
    #[command(other)]
    Other(goldenscript::Command),
}

impl Script {
    pub(super) fn run_sessions(
        &mut self,
        mut command: goldenscript::Command,
    ) -> Result<(), Box<dyn Error>> {
        if super::forge::is_forged(&command) {
            return self.run_forge((&command).try_into()?);
        }
        let sending = Sending::take(&mut command)?;
        match SessionCommand::try_from(&command)? {
            SessionCommand::Open { who, lease, like } => self.open(&who, lease, like, &sending),
            SessionCommand::Cancel { who, waiting } => {
                if self.is_client(&who) {
                    let call = CallId::new(waiting);
                    self.lab()?.call(&who, Action::Cancel { call });
                    return Ok(());
                }
                self.submit(&who, Op::Cancel { waiting: Sequence::new(waiting) }, &sending)
            }
            SessionCommand::Resend { who, number } => self.resend(&who, number, &sending),
            SessionCommand::KeepAlive { who, seen } => {
                let (session, n) = (self.session(&who)?, self.at(&sending)?);
                let seen = LogIndex::new(seen.unwrap_or_default().0);
                self.name_connection(&who, n, session)?;
                self.lab()?.keep_alive(n, session, sending.acked, seen);
                Ok(())
            }
            SessionCommand::Read { who, what, name, offset, length, stale } => {
                let query = query(&what, name, offset, length)?;
                let consistency =
                    if stale { Consistency::Stale } else { Consistency::Linearizable };
                self.read(&who, query, consistency, &sending)
            }
            SessionCommand::HangUp { who } => {
                let (session, n) = (self.session(&who)?, self.at(&sending)?);
                self.lab()?.disconnect_session(n, session);
                Ok(())
            }
            SessionCommand::Other(command) => self.run_op((&command).try_into()?, &sending),
        }
    }

    fn run_op(&mut self, command: OpCommand, sending: &Sending) -> Result<(), Box<dyn Error>> {
        let (who, op) = match command {
            OpCommand::Acquire { who, lock, wait, max_hold } => {
                let wait = wait.unwrap_or(Patience(Wait::Try)).0;
                let max_hold = max_hold.map(|span| span.0);
                (who, Op::Acquire { lock: LockName::new(lock)?, wait, max_hold })
            }
            OpCommand::Release { who, lock, token, appends } => {
                let token = self.token(&who, &lock, token)?;
                let (lock, appends) = (LockName::new(lock)?, file_appends(appends)?);
                (who, Op::Release { lock, token, appends })
            }
            OpCommand::Append { who, lock, token, appends } => {
                let token = self.token(&who, &lock, token)?;
                let append = file_appends(appends)?.pop().ok_or("append what?")?;
                (who, Op::Append { lock: LockName::new(lock)?, token, append })
            }
            OpCommand::Section { who, lock, wait, appends } => {
                let wait = wait.unwrap_or(Patience(Wait::Try)).0;
                let (lock, appends) = (LockName::new(lock)?, file_appends(appends)?);
                (who, Op::Section { lock, wait, appends })
            }
            OpCommand::Break { who, lock, reason, token } => {
                let token = match token {
                    Some(token) => FencingToken::new(token.0),
                    None => self.holds.get(&lock).copied().ok_or("nobody holds it")?,
                };
                (who, Op::Break { lock: LockName::new(lock)?, token, reason: Text::new(reason)? })
            }
            OpCommand::Create { who, file, guard } => {
                let (file, guard) = (FileName::new(file)?, LockName::new(guard)?);
                (who, Op::CreateFile { file, guard })
            }
            OpCommand::Close { who } => (who, Op::CloseSession),
            OpCommand::Other(command) => return self.run_clients((&command).try_into()?),
        };
        self.submit(&who, op, sending)
    }

    /// The node that a request goes to: the one that was named, or the leader.
    fn at(&mut self, sending: &Sending) -> Result<u64, Box<dyn Error>> {
        let leader = self.lab()?.leader();
        sending.at.or(leader).ok_or_else(|| "there is no leader: say at=1".into())
    }

    /// A session by its name, or by its number.
    fn session(&mut self, who: &str) -> Result<SessionId, Box<dyn Error>> {
        if let Some(session) = self.sessions.get(who) {
            return Ok(*session);
        }
        let number = who.parse::<Number>().ok().ok_or_else(|| format!("{who} has no session"))?;
        Ok(SessionId::new(number.0))
    }

    fn token(
        &mut self,
        who: &str,
        lock: &str,
        token: Option<Number>,
    ) -> Result<FencingToken, Box<dyn Error>> {
        if let Some(token) = token {
            return Ok(FencingToken::new(token.0));
        }
        let key = (who.to_owned(), lock.to_owned());
        Ok(*self.tokens.get(&key).ok_or_else(|| format!("{who} was never granted {lock}"))?)
    }

    fn name_connection(
        &mut self,
        who: &str,
        n: u64,
        session: SessionId,
    ) -> Result<(), Box<dyn Error>> {
        let conn = self.lab()?.connection(n, session);
        self.words.connections.insert(ConnectionId::new(conn), who.to_owned());
        Ok(())
    }

    fn open(
        &mut self,
        who: &str,
        lease: Option<Span>,
        like: Option<String>,
        sending: &Sending,
    ) -> Result<(), Box<dyn Error>> {
        let n = self.at(sending)?;
        let conn = self.lab()?.new_connection();
        self.words.connections.insert(ConnectionId::new(conn), who.to_owned());
        let lease = lease.map_or(Duration::from_secs(10), |span| span.0);
        let nonce = nonce(like.as_deref().unwrap_or(who));
        let request = Request::OpenSession { nonce, label: label(who), lease };
        self.lab()?.request(n, conn, request);
        Ok(())
    }

    /// Sends a request as a numbered one of a raw session, or makes a call of a client.
    fn submit(&mut self, who: &str, op: Op, sending: &Sending) -> Result<(), Box<dyn Error>> {
        if self.is_client(who) {
            self.lab()?.call(who, Action::Op(op));
            return Ok(());
        }
        let (session, n) = (self.session(who)?, self.at(sending)?);
        let next = self.lab()?.next_sequence(session);
        let sequence = sending.sequence.unwrap_or(next);
        self.name_connection(who, n, session)?;
        self.submitted.insert((who.to_owned(), sequence), op.clone());
        self.lab()?.submit_acked(n, session, sequence, sending.acked.clone(), op);
        Ok(())
    }

    fn resend(&mut self, who: &str, number: u64, sending: &Sending) -> Result<(), Box<dyn Error>> {
        let op = self.submitted.get(&(who.to_owned(), number)).cloned();
        let op = op.ok_or_else(|| format!("{who} never sent #{number}"))?;
        let sending =
            Sending { at: sending.at, sequence: Some(number), acked: sending.acked.clone() };
        self.submit(who, op, &sending)
    }

    fn read(
        &mut self,
        who: &str,
        query: Query,
        consistency: Consistency,
        sending: &Sending,
    ) -> Result<(), Box<dyn Error>> {
        if self.is_client(who) {
            self.lab()?.call(who, Action::Read { query, consistency });
            return Ok(());
        }
        let n = self.at(sending)?;
        let conn = match self.readers.get(who) {
            Some(conn) => *conn,
            None => self.lab()?.new_connection(),
        };
        self.readers.insert(who.to_owned(), conn);
        self.words.connections.insert(ConnectionId::new(conn), who.to_owned());
        self.lab()?.read(n, conn, query, consistency);
        Ok(())
    }
}

fn file_appends(appends: Vec<(String, String)>) -> Result<Vec<FileAppend>, Box<dyn Error>> {
    let append = |(file, text): (String, String)| {
        let file = FileName::new(file)?;
        Ok(FileAppend { file, bytes: Bytes::from(text.into_bytes()) })
    };
    appends.into_iter().map(append).collect()
}

fn query(
    what: &str,
    name: Option<String>,
    offset: Option<u64>,
    length: Option<u32>,
) -> Result<Query, Box<dyn Error>> {
    let named = name.clone().ok_or("of what?");
    Ok(match what {
        "lock" => Query::Lock { lock: LockName::new(named?)? },
        "locks" => Query::Locks { prefix: Text::new(name.unwrap_or_default())?, after: None },
        "history" => Query::History { lock: LockName::new(named?)? },
        "file" => Query::File { file: FileName::new(named?)? },
        "files" => Query::Files { after: None },
        "bytes" => Query::ReadFile {
            file: FileName::new(named?)?,
            offset: offset.unwrap_or(0),
            length: length.unwrap_or(u32::MAX),
        },
        _ => return Err(format!("nobody can read {what}").into()),
    })
}
