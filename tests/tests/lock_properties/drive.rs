//! From a step of a history to a log entry.

use bytes::Bytes;
use quorlock_core::ids::{ClientNonce, FencingToken, LogIndex, Sequence, SessionId};
use quorlock_core::lock::Command;
use quorlock_core::message::{Acked, FileAppend, KeepAlive, Op, Submission, Wait};
use quorlock_core::text::{FileName, Label, LockName, Text};
use quorlock_core::time::{Duration, LeaseTime};
use quorlock_tests::lock_model::Model;

use crate::history::{
    Acks, Act, Ask, CLIENTS, LOCKS, Number, Patience, Pick, Piece, Seen, Stamp, Step, Token, UNIT,
    Which, Who,
};

/// The clients: what they remember, and what they do next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Driver {
    /// The latest nonce of each client, and how often it took a new one.
    lives: Vec<(u8, u64)>,
    /// Every request that was sent, the earliest of each number.
    sent: Vec<Submission>,
    /// Every byte of every file differs from its neighbours.
    written: u8,
}

impl Who {
    /// The client that opens a session when there is none.
    fn client(&self) -> Option<u8> {
        match self {
            Self::Client(client) => Some(*client),
            Self::Holder(lock) => Some(*lock),
            Self::Waiter(pick) => Some(pick % CLIENTS),
            Self::Ghost(_) | Self::Nobody => None,
        }
    }
}

/// One log entry.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) index: LogIndex,
    pub(crate) stamp: LeaseTime,
    pub(crate) command: Option<Command>,
}

impl Driver {
    /// What a step means in this state.
    pub(crate) fn entry(&mut self, step: &Step, model: &Model) -> Entry {
        Entry {
            index: model.index.plus(1 + u64::from(step.gap)),
            stamp: stamp(&step.stamp, model),
            command: self.command(&step.act, model),
        }
    }

    fn command(&mut self, act: &Act, model: &Model) -> Option<Command> {
        match act {
            Act::Empty => None,
            Act::Open { client, lease } => Some(self.open(*client, *lease, model)),
            Act::KeepAlive(all) => Some(Command::KeepAlive(
                all.iter()
                    .filter_map(|(who, acks, seen)| self.keep_alive(who, acks, seen, model))
                    .collect(),
            )),
            Act::Submit { who, number, acks, ask } => {
                let Some(session) = self.session(who, model) else {
                    return who.client().map(|client| self.open(client, 60, model));
                };
                Some(Command::Submit(self.submission(session, number, acks, ask, model)))
            }
        }
    }

    /// The present session of a client is found by its nonce; once it is over, the client takes
    /// a new nonce with its next opening.
    fn open(&mut self, client: u8, lease: u8, model: &Model) -> Command {
        let had = self.nonce(client);
        let opened = had.is_some_and(|it| model.sessions.iter().any(|found| found.nonce == it));
        if !opened {
            match self.lives.iter_mut().find(|(of, _)| *of == client) {
                Some((_, lives)) => *lives += 1,
                None => self.lives.push((client, 0)),
            }
        }
        Command::OpenSession {
            nonce: self.nonce(client).expect("it has one now"),
            // A repeated opening may say something else, which changes nothing.
            label: Label { pid: lease.into(), ..label(client) },
            lease: UNIT.saturating_mul(u32::from(lease)),
        }
    }

    fn nonce(&self, client: u8) -> Option<ClientNonce> {
        let (_, lives) = self.lives.iter().find(|(of, _)| *of == client)?;
        Some(ClientNonce(u64::from(client), *lives))
    }

    fn session(&self, who: &Who, model: &Model) -> Option<SessionId> {
        match who {
            Who::Client(client) => self.of_client(*client, model),
            Who::Holder(lock) => match model.hold(&lock_name(*lock)) {
                Some(hold) => Some(hold.session),
                None => self.of_client(*lock, model),
            },
            Who::Waiter(pick) => {
                let waiting: Vec<SessionId> = model.waiters.iter().map(|it| it.session).collect();
                pick_one(&waiting, *pick).or_else(|| self.of_client(pick % CLIENTS, model))
            }
            Who::Ghost(pick) => {
                let dead: Vec<SessionId> = self
                    .sent
                    .iter()
                    .map(|it| it.session)
                    .filter(|it| model.session(*it).is_none())
                    .collect();
                pick_one(&dead, *pick).or(Some(SessionId::ZERO))
            }
            Who::Nobody => Some(SessionId::MAX),
        }
    }

    fn of_client(&self, client: u8, model: &Model) -> Option<SessionId> {
        let nonce = self.nonce(client);
        let own = model.sessions.iter().find(|it| Some(it.nonce) == nonce).map(|it| it.id);
        if own.is_none() && model.sessions.len() as u64 >= model.limits.sessions_max.into() {
            let all: Vec<SessionId> = model.sessions.iter().map(|it| it.id).collect();
            return pick_one(&all, client);
        }
        own
    }

    fn keep_alive(&self, who: &Who, acks: &Acks, seen: &Seen, model: &Model) -> Option<KeepAlive> {
        let session = self.session(who, model)?;
        let losses_seen = match seen {
            Seen::None => LogIndex::ZERO,
            Seen::All => model.index,
            Seen::Before(ago) => LogIndex::new(model.index.value().saturating_sub((*ago).into())),
        };
        Some(KeepAlive { session, acked: acked(acks, session, model), losses_seen })
    }

    fn submission(
        &mut self,
        session: SessionId,
        number: &Number,
        acks: &Acks,
        ask: &Ask,
        model: &Model,
    ) -> Submission {
        let last = model.session(session).map_or(Sequence::ZERO, |it| it.last);
        let acked = acked(acks, session, model);
        let sequence = match number {
            Number::Next => last.next(),
            Number::Again { ago, .. } => back(last, *ago),
            Number::Gap(by) => Sequence::new(last.value() + 1 + u64::from(*by)),
            Number::Zero => Sequence::ZERO,
        };
        let sent = self.sent.iter().find(|it| (it.session, it.sequence) == (session, sequence));
        let same = matches!(number, Number::Again { same: true, .. });
        let op = match sent {
            Some(sent) if same => sent.op.clone(),
            Some(_) | None => self.op(ask, session, model),
        };
        let submission = Submission { session, sequence, acked, op };
        if sequence == last.next() {
            self.sent.push(submission.clone());
        }
        submission
    }

    /// Who is to do something as a holder, or as a waiter, and is none, tries to become one.
    fn op(&mut self, ask: &Ask, session: SessionId, model: &Model) -> Op {
        match ask {
            Ask::Release { lock: Which::Held(pick), .. }
            | Ask::Append { lock: Which::Held(pick), .. }
                if !model.holds.iter().any(|it| it.session == session) =>
            {
                let lock = lock_name(pick % LOCKS);
                Op::Acquire { lock, wait: Wait::Forever, max_hold: None }
            }
            Ask::Cancel(Pick::Open(pick))
                if !model.waiters.iter().any(|it| it.session == session) =>
            {
                let others: Vec<&LockName> = model
                    .holds
                    .iter()
                    .filter(|it| it.session != session)
                    .map(|it| &it.lock)
                    .collect();
                let lock = pick_one(&others, *pick).cloned().unwrap_or_else(|| lock_name(0));
                Op::Acquire { lock, wait: Wait::Forever, max_hold: None }
            }
            Ask::Acquire { lock, wait, max_hold } => Op::Acquire {
                lock: lock_name(*lock),
                wait: patience(wait),
                max_hold: max_hold.map(|units| UNIT.saturating_mul(units.into())),
            },
            Ask::Cancel(pick) => Op::Cancel { waiting: waiting(pick, session, model) },
            Ask::Release { lock, token, appends } => {
                let lock = which(lock, session, model);
                let token = show(token, &lock, model);
                Op::Release { lock, token, appends: self.pieces(appends) }
            }
            Ask::Append { lock, token, piece } => {
                let lock = which(lock, session, model);
                let token = show(token, &lock, model);
                Op::Append { lock, token, append: self.piece(piece) }
            }
            Ask::Section { lock, wait, appends } => Op::Section {
                lock: lock_name(*lock),
                wait: patience(wait),
                appends: self.pieces(appends),
            },
            Ask::Break { lock, token } => {
                let lock = lock_name(*lock);
                let token = show(token, &lock, model);
                Op::Break { lock, token, reason: text("because") }
            }
            Ask::CreateFile { file, guard } => {
                Op::CreateFile { file: file_name(*file), guard: lock_name(*guard) }
            }
            Ask::Close => Op::CloseSession,
        }
    }

    fn pieces(&mut self, pieces: &[Piece]) -> Vec<FileAppend> {
        pieces.iter().map(|it| self.piece(it)).collect()
    }

    fn piece(&mut self, piece: &Piece) -> FileAppend {
        let bytes: Vec<u8> = (0..piece.length)
            .map(|_| {
                self.written = self.written.wrapping_add(1);
                self.written
            })
            .collect();
        FileAppend { file: file_name(piece.file), bytes: Bytes::from(bytes) }
    }
}

fn stamp(stamp: &Stamp, model: &Model) -> LeaseTime {
    let due = model.next_due().filter(|it| *it > model.now);
    let micros = model.now.as_micros();
    match stamp {
        Stamp::Same => model.now,
        Stamp::Forward(units) => model.now.after(UNIT.saturating_mul((*units).into())),
        // A wait "for ages" must not bring the clock to its end.
        Stamp::Due => due.filter(|it| *it < LeaseTime::MAX).unwrap_or(model.now),
        Stamp::BeforeDue => due
            .filter(|it| *it < LeaseTime::MAX)
            .map_or(model.now, |it| LeaseTime::from_micros(it.as_micros() - 1)),
        Stamp::Backward(units) => {
            LeaseTime::from_micros(micros.saturating_sub(u64::from(*units) * 500))
        }
    }
}

fn acked(acks: &Acks, session: SessionId, model: &Model) -> Acked {
    let last = model.session(session).map_or(Sequence::ZERO, |it| it.last);
    let mut open: Vec<Sequence> =
        model.waiters.iter().filter(|it| it.session == session).map(|it| it.sequence).collect();
    open.sort();
    match acks {
        Acks::Nothing => Acked::default(),
        Acks::Decided => Acked { through: last, except: open },
        Acks::Some { through, except } => {
            let mut except: Vec<Sequence> = except.iter().map(|ago| back(last, *ago)).collect();
            except.sort();
            except.dedup();
            Acked { through: back(last, *through), except }
        }
        Acks::TooMuch => Acked { through: Sequence::MAX, except: Vec::new() },
    }
}

fn which(which: &Which, session: SessionId, model: &Model) -> LockName {
    match which {
        Which::Any(lock) => lock_name(*lock),
        Which::Held(pick) => {
            let held: Vec<&LockName> =
                model.holds.iter().filter(|it| it.session == session).map(|it| &it.lock).collect();
            pick_one(&held, *pick).cloned().unwrap_or_else(|| lock_name(pick % LOCKS))
        }
    }
}

fn waiting(pick: &Pick, session: SessionId, model: &Model) -> Sequence {
    match pick {
        Pick::Number(number) => Sequence::new((*number).into()),
        Pick::Open(pick) => {
            let open: Vec<Sequence> = model
                .waiters
                .iter()
                .filter(|it| it.session == session)
                .map(|it| it.sequence)
                .collect();
            pick_one(&open, *pick).unwrap_or(Sequence::ZERO)
        }
    }
}

fn show(token: &Token, lock: &LockName, model: &Model) -> FencingToken {
    let present = model.token(lock).unwrap_or(model.last_token);
    match token {
        Token::Present => present,
        Token::Lower(by) => FencingToken::new(present.value().saturating_sub((*by).into())),
        Token::Higher(by) => FencingToken::new(present.value() + u64::from(*by)),
    }
}

fn patience(patience: &Patience) -> Wait {
    match patience {
        Patience::Try => Wait::Try,
        Patience::For(units) => Wait::For(UNIT.saturating_mul((*units).into())),
        Patience::ForNanosecond => Wait::For(Duration::from_nanos(1)),
        Patience::ForAges => Wait::For(Duration::MAX),
        Patience::Forever => Wait::Forever,
    }
}

fn back(last: Sequence, ago: u8) -> Sequence {
    Sequence::new(last.value().saturating_sub(ago.into()))
}

fn pick_one<T: Copy>(of: &[T], pick: u8) -> Option<T> {
    if of.is_empty() { None } else { Some(of[usize::from(pick) % of.len()]) }
}

/// The name of a lock. The names are not in the order of their numbers, and one is a prefix of
/// another.
pub(crate) fn lock_name(number: u8) -> LockName {
    const NAMES: [&str; 3] = ["m/one", "m", "a"];
    LockName::new(NAMES[usize::from(number)]).expect("a proper name")
}

/// The name of a file.
pub(crate) fn file_name(number: u8) -> FileName {
    const NAMES: [&str; 3] = ["log", "a/journal", "m/one"];
    FileName::new(NAMES[usize::from(number)]).expect("a proper name")
}

/// The label of a client.
pub(crate) fn label(client: u8) -> Label {
    Label {
        host: text("host"),
        pid: client.into(),
        user: text(&format!("user {client}")),
        command: text("test"),
    }
}

pub(crate) fn text(text: &str) -> Text {
    Text::new(text).expect("a proper text")
}
