//! Random histories.
//!
//! A step names things by what they are to whoever does it ("the token of the present hold"), so
//! that most steps have an effect whatever came before, and so that a history from which steps
//! were removed, when proptest looks for the shortest that fails, still makes sense.
//!
//! Times are multiples of half a millisecond, so that several deadlines often coincide, except for
//! the odd microsecond before one.

use std::fmt;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use quorlock_core::config::Limits;
use quorlock_core::time::Duration;

/// How many clients there are.
pub(crate) const CLIENTS: u8 = 6;
/// How many lock names.
pub(crate) const LOCKS: u8 = 3;
/// How many file names.
pub(crate) const FILES: u8 = 3;
/// The unit of time.
pub(crate) const UNIT: Duration = Duration::from_micros(500);

/// One log entry, before it is known in which state it is applied.
#[derive(Clone)]
pub(crate) struct Step {
    /// How many log indices are left out before it.
    pub(crate) gap: u8,
    /// Its stamp.
    pub(crate) stamp: Stamp,
    /// Its command.
    pub(crate) act: Act,
}

impl fmt::Debug for Step {
    /// One line, whatever was asked for: a failing history is read as a list of steps.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { gap, stamp, act } = self;
        f.write_str(&format!("gap {gap}, {stamp:?}, {act:?}"))
    }
}

/// The stamp of an entry.
#[derive(Clone, Debug)]
pub(crate) enum Stamp {
    /// That of the entry before.
    Same,
    /// So many units later.
    Forward(u8),
    /// Exactly when something is due, if something is due later than now.
    Due,
    /// A microsecond before that.
    BeforeDue,
    /// Earlier than the entry before, which a leader never writes: the clock must not go back.
    Backward(u8),
}

/// The command of an entry.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// None.
    Empty,
    /// A client opens its session, or the same again.
    Open { client: u8, lease: u8 },
    /// Several keep-alives in one entry.
    KeepAlive(Vec<(Who, Acks, Seen)>),
    /// A numbered request.
    Submit { who: Who, number: Number, acks: Acks, ask: Ask },
}

/// Whose session.
#[derive(Clone, Debug)]
pub(crate) enum Who {
    /// The client's present session; without one, the client opens one instead, or, if there is no
    /// room for that, another session takes its part.
    Client(u8),
    /// The one that holds this lock, or else as for a client.
    Holder(u8),
    /// One that waits for a lock, or else as for a client.
    Waiter(u8),
    /// A session that is over.
    Ghost(u8),
    /// One that never was.
    Nobody,
}

/// The number of a request.
#[derive(Clone, Debug)]
pub(crate) enum Number {
    /// The one that is due.
    Next,
    /// One that was used so many requests ago; with the same request, or another one.
    Again { ago: u8, same: bool },
    /// One that is too high.
    Gap(u8),
    /// Zero, which is never a number.
    Zero,
}

/// What a client says that it has received.
#[derive(Clone, Debug)]
pub(crate) enum Acks {
    /// Nothing.
    Nothing,
    /// All that was decided.
    Decided,
    /// All up to `through` numbers ago, except some numbers.
    Some { through: u8, except: Vec<u8> },
    /// More than there is, open requests included.
    TooMuch,
}

/// What a client says of the losses that it knows of.
#[derive(Clone, Debug)]
pub(crate) enum Seen {
    /// None.
    None,
    /// All.
    All,
    /// Those decided so many indices ago or before.
    Before(u8),
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Acquire { lock: u8, wait: Patience, max_hold: Option<u8> },
    Cancel(Pick),
    Release { lock: Which, token: Token, appends: Vec<Piece> },
    Append { lock: Which, token: Token, piece: Piece },
    Section { lock: u8, wait: Patience, appends: Vec<Piece> },
    Break { lock: u8, token: Token },
    CreateFile { file: u8, guard: u8 },
    Close,
}

/// Which lock.
#[derive(Clone, Debug)]
pub(crate) enum Which {
    /// One that the session holds, if it holds any.
    Held(u8),
    /// This one.
    Any(u8),
}

/// How long to wait.
#[derive(Clone, Debug)]
pub(crate) enum Patience {
    Try,
    /// So many units.
    For(u8),
    /// Less than the clock can count.
    ForNanosecond,
    /// Longer than the clock can count.
    ForAges,
    Forever,
}

/// Which wait to cancel.
#[derive(Clone, Debug)]
pub(crate) enum Pick {
    /// One of the session's own that is open.
    Open(u8),
    /// Any number.
    Number(u8),
}

/// Which token to show.
#[derive(Clone, Debug)]
pub(crate) enum Token {
    /// That of the present hold of the lock, whoever has it.
    Present,
    /// One lower by so much.
    Lower(u8),
    /// One that was not given yet.
    Higher(u8),
}

/// Bytes for a file.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) file: u8,
    pub(crate) length: u8,
}

/// Limits so tight that a history of some dozen steps runs into each of them.
pub(crate) fn limits() -> impl Strategy<Value = Limits> {
    let sessions = (2..=6_u32, 1..=8_u32, 1..=4_u32, 1..=3_u32, 1..=4_u32);
    let files = (1..=3_u32, 1..=16_u32, 1..=3_u32);
    let history = (0..=3_u32, 0..=5_u32, 1..=4_u32);
    let pending = prop_oneof![2 => Just(128 << 20), 1 => 16..=1000_u32];
    (sessions, files, history, pending).prop_map(|(sessions, files, history, pending)| Limits {
        sessions_max: sessions.0,
        session_lease_min: UNIT.saturating_mul(4),
        session_lease_max: UNIT.saturating_mul(100),
        window_max: sessions.1,
        pending_bytes_max: pending,
        places_per_session_max: sessions.2,
        locks_max: sessions.3,
        waiters_per_lock_max: sessions.4,
        files_max: files.0,
        append_bytes_max: files.1,
        appends_per_request_max: files.2,
        history_per_lock_max: history.0,
        history_max: history.1,
        expiries_per_entry_max: history.2,
    })
}

/// A history of at most `steps_max` steps.
pub(crate) fn history(steps_max: usize) -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 1..=steps_max)
}

/// One step.
pub(crate) fn step() -> impl Strategy<Value = Step> {
    let gap = prop_oneof![9 => Just(0), 1 => 1..=5_u8];
    (gap, stamp(), act()).prop_map(|(gap, stamp, act)| Step { gap, stamp, act })
}

fn stamp() -> impl Strategy<Value = Stamp> {
    prop_oneof![
        80 => Just(Stamp::Same),
        12 => (1..=3_u8).prop_map(Stamp::Forward),
        1 => (4..=120_u8).prop_map(Stamp::Forward),
        3 => Just(Stamp::Due),
        3 => Just(Stamp::BeforeDue),
        1 => any::<u8>().prop_map(Stamp::Backward),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let submit = |who, ask| {
        (who, number(), acks(), ask).prop_map(|(who, number, acks, ask)| Act::Submit {
            who,
            number,
            acks,
            ask,
        })
    };
    let holder = (0..LOCKS).prop_map(Who::Holder).boxed();
    let waiter = any::<u8>().prop_map(Who::Waiter).boxed();
    prop_oneof![
        2 => Just(Act::Empty),
        4 => (0..CLIENTS, lease()).prop_map(|(client, lease)| Act::Open { client, lease }),
        6 => vec((who(), acks(), seen()), 0..=4).prop_map(Act::KeepAlive),
        20 => submit(who().boxed(), ask().boxed()),
        12 => submit(who().boxed(), ask_for_a_lock().boxed()),
        12 => submit(holder, ask_as_holder().boxed()),
        2 => submit(waiter.clone(), ask().boxed()),
        2 => submit(waiter, cancel().boxed()),
    ]
}

fn lease() -> impl Strategy<Value = u8> {
    prop_oneof![1 => 2..=12_u8, 3 => 30..=105_u8]
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![
        30 => (0..CLIENTS).prop_map(Who::Client),
        10 => (0..LOCKS).prop_map(Who::Holder),
        1 => any::<u8>().prop_map(Who::Ghost),
        1 => Just(Who::Nobody),
    ]
}

fn number() -> impl Strategy<Value = Number> {
    prop_oneof![
        50 => Just(Number::Next),
        6 => (0..6_u8, any::<bool>()).prop_map(|(ago, same)| Number::Again { ago, same }),
        1 => (1..4_u8).prop_map(Number::Gap),
        1 => Just(Number::Zero),
    ]
}

fn acks() -> impl Strategy<Value = Acks> {
    let some =
        (0..6_u8, vec(0..8_u8, 0..3)).prop_map(|(through, except)| Acks::Some { through, except });
    prop_oneof![
        6 => Just(Acks::Nothing),
        10 => Just(Acks::Decided),
        4 => some,
        1 => Just(Acks::TooMuch),
    ]
}

fn seen() -> impl Strategy<Value = Seen> {
    prop_oneof![Just(Seen::None), Just(Seen::All), (0..6_u8).prop_map(Seen::Before)]
}

fn ask() -> impl Strategy<Value = Ask> {
    let lock = || 0..LOCKS;
    prop_oneof![
        4 => ask_for_a_lock(),
        4 => ask_as_holder(),
        2 => cancel(),
        2 => (lock(), token()).prop_map(|(lock, token)| Ask::Break { lock, token }),
        2 => (0..FILES, lock()).prop_map(|(file, guard)| Ask::CreateFile { file, guard }),
        1 => Just(Ask::Close),
    ]
}

fn ask_for_a_lock() -> impl Strategy<Value = Ask> {
    let acquire = (0..LOCKS, patience(), option::of(0..12_u8))
        .prop_map(|(lock, wait, max_hold)| Ask::Acquire { lock, wait, max_hold });
    let section = (0..LOCKS, patience(), pieces()).prop_map(|(lock, wait, appends)| Ask::Section {
        lock,
        wait,
        appends,
    });
    prop_oneof![acquire, section]
}

fn ask_as_holder() -> impl Strategy<Value = Ask> {
    let which = || prop_oneof![6 => any::<u8>().prop_map(Which::Held), 1 => (0..LOCKS).prop_map(Which::Any)];
    let release = (which(), token(), pieces()).prop_map(|(lock, token, appends)| Ask::Release {
        lock,
        token,
        appends,
    });
    let append = (which(), token(), piece()).prop_map(|(lock, token, piece)| Ask::Append {
        lock,
        token,
        piece,
    });
    prop_oneof![release, append]
}

fn cancel() -> impl Strategy<Value = Ask> {
    prop_oneof![
        3 => any::<u8>().prop_map(Pick::Open),
        1 => (0..8_u8).prop_map(Pick::Number),
    ]
    .prop_map(Ask::Cancel)
}

fn patience() -> impl Strategy<Value = Patience> {
    prop_oneof![
        1 => Just(Patience::Try),
        4 => (0..12_u8).prop_map(Patience::For),
        1 => Just(Patience::ForNanosecond),
        1 => Just(Patience::ForAges),
        8 => Just(Patience::Forever),
    ]
}

fn token() -> impl Strategy<Value = Token> {
    prop_oneof![
        8 => Just(Token::Present),
        1 => (1..9_u8).prop_map(Token::Lower),
        1 => (1..9_u8).prop_map(Token::Higher),
    ]
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    prop_oneof![4 => vec(piece(), 0..=2), 1 => vec(piece(), 3..=4)]
}

fn piece() -> impl Strategy<Value = Piece> {
    (0..FILES, prop_oneof![4 => 0..=3_u8, 1 => 4..=9_u8])
        .prop_map(|(file, length)| Piece { file, length })
}
