//! Every list, text, number and frame of the wire, at its limit and one above.

use std::fmt::Debug;

use bytes::Bytes;
use quorlock_core::checksum::Checksum;
use quorlock_core::codec::{self, DecodeError, Encodable, SNAPSHOT_BYTES_MAX};
use quorlock_core::config::{
    APPENDS_CEILING, ENTRIES_PER_MESSAGE_MAX, FRAME_BYTES_MAX, HISTORY_CEILING, Limits, PAGE_MAX,
    PLACES_CEILING, REQUEST_BYTES_MAX, WINDOW_CEILING,
};
use quorlock_core::ids::{
    EntryId, FencingToken, ID_MAX, LogIndex, ReadRound, RequestId, Sequence, SessionId, Term,
};
use quorlock_core::lock::{Command, KEEP_ALIVES_MAX};
use quorlock_core::membership::{Membership, VOTERS_MAX};
use quorlock_core::message::{
    Acked, Answer, AppendEntries, Done, EndCause, Entry, FileAppend, FileView, HardState,
    InstallSnapshot, KeepAlive, LockSummary, LockView, Loss, Message, Op, PastHold, Payload,
    Rejection, Reply, Request, SessionNews, Snapshot, SnapshotMeta, Submission, Wait, WaiterView,
};
use quorlock_core::text::{FileName, Label, LockName, TEXT_BYTES_MAX};
use quorlock_core::time::{Duration, LeaseTime};

/// A list of this length is accepted, one more element is not; and each element has bytes of its
/// own, so that no length can promise more than the input has.
fn check_cap<T: Encodable + PartialEq + Debug>(max: usize, with: impl Fn(usize) -> T) {
    let full = with(max);
    assert_eq!(codec::decode::<T>(&codec::encode(&full)).as_ref(), Ok(&full), "a full list");
    let over = codec::decode::<T>(&codec::encode(&with(max + 1)));
    assert_eq!(over, Err(DecodeError::Malformed), "one more than {max}");
    let grown = codec::encode(&with(2)).len() - codec::encode(&with(1)).len();
    assert!(grown >= 1, "an element without bytes");
}

fn lock() -> LockName {
    LockName::new("l").expect("a name")
}

fn file() -> FileName {
    FileName::new("f").expect("a name")
}

fn appends(count: usize) -> Vec<FileAppend> {
    vec![FileAppend { file: file(), bytes: Bytes::new() }; count]
}

fn submission(op: Op) -> Submission {
    let (session, sequence) = (SessionId::ZERO, Sequence::ZERO);
    Submission { session, sequence, acked: Acked::default(), op }
}

fn submit(op: Op) -> Request {
    Request::Submit(submission(op))
}

fn acked(count: usize) -> Acked {
    Acked { through: Sequence::ZERO, except: vec![Sequence::ZERO; count] }
}

fn keep_alive(acked: Acked) -> KeepAlive {
    KeepAlive { session: SessionId::ZERO, acked, losses_seen: LogIndex::ZERO }
}

fn submitted(done: Done) -> Reply {
    let (session, sequence, index) = (SessionId::ZERO, Sequence::ZERO, LogIndex::ZERO);
    Reply::Submitted { session, sequence, index, outcome: Ok(done) }
}

fn kept_alive(news: SessionNews) -> Reply {
    let (id, session, index) = (RequestId::ZERO, SessionId::ZERO, LogIndex::ZERO);
    Reply::KeptAlive { id, session, index, result: Ok(news) }
}

fn read(answer: Answer) -> Reply {
    Reply::Read { id: RequestId::ZERO, index: LogIndex::ZERO, answer }
}

#[test]
fn entries_of_a_message() {
    let entry = Entry { id: EntryId::ZERO, stamp: LeaseTime::ZERO, payload: Payload::Empty };
    check_cap(ENTRIES_PER_MESSAGE_MAX, |count| {
        Message::AppendEntries(AppendEntries {
            term: Term::ZERO,
            previous: EntryId::ZERO,
            entries: vec![entry.clone(); count],
            commit: LogIndex::ZERO,
            round: ReadRound::ZERO,
        })
    });
}

#[test]
fn exceptions_of_an_acknowledgement() {
    check_cap(WINDOW_CEILING, |count| {
        Request::Submit(Submission { acked: acked(count), ..submission(Op::CloseSession) })
    });
    check_cap(WINDOW_CEILING, |count| Request::KeepAlive {
        id: RequestId::ZERO,
        keep_alive: keep_alive(acked(count)),
    });
}

#[test]
fn keep_alives_of_an_entry() {
    check_cap(KEEP_ALIVES_MAX, |count| Command::KeepAlive(vec![keep_alive(acked(0)); count]));
}

#[test]
fn appends_of_a_request() {
    let token = FencingToken::ZERO;
    check_cap(APPENDS_CEILING, |count| {
        submit(Op::Release { lock: lock(), token, appends: appends(count) })
    });
    check_cap(APPENDS_CEILING, |count| {
        submit(Op::Section { lock: lock(), wait: Wait::Try, appends: appends(count) })
    });
}

#[test]
fn offsets_of_an_outcome() {
    let token = FencingToken::ZERO;
    check_cap(APPENDS_CEILING, |count| submitted(Done::Released { offsets: vec![0; count] }));
    check_cap(APPENDS_CEILING, |count| {
        submitted(Done::Sectioned { token, offsets: vec![0; count] })
    });
}

#[test]
fn news_of_a_session() {
    let outcome = (Sequence::ZERO, Err(Rejection::NotObtained));
    check_cap(WINDOW_CEILING, |count| {
        kept_alive(SessionNews { outcomes: vec![outcome.clone(); count], losses: Vec::new() })
    });
    let (lock, token, index) = (lock(), FencingToken::ZERO, LogIndex::ZERO);
    let loss = Loss { lock, token, index, cause: EndCause::HoldTimedOut };
    check_cap(PLACES_CEILING, |count| {
        kept_alive(SessionNews { outcomes: Vec::new(), losses: vec![loss.clone(); count] })
    });
}

#[test]
fn pages_of_an_answer() {
    let summary = LockSummary { lock: lock(), holder: None, waiters: 0 };
    check_cap(PAGE_MAX, |count| read(Answer::Locks(vec![summary.clone(); count])));
    let view = FileView { file: file(), guard: lock(), length: 0, checksum: Checksum::EMPTY };
    check_cap(PAGE_MAX, |count| read(Answer::Files(vec![view.clone(); count])));
    let waiter = WaiterView {
        session: SessionId::ZERO,
        label: Label::default(),
        sequence: Sequence::ZERO,
        waited_for: Duration::ZERO,
    };
    check_cap(PAGE_MAX, |count| {
        let queue = vec![waiter.clone(); count];
        read(Answer::Lock(LockView { lock: lock(), holder: None, waiters: 0, queue }))
    });
    let past = PastHold {
        session: SessionId::ZERO,
        label: Label::default(),
        token: FencingToken::ZERO,
        since: LeaseTime::ZERO,
        until: LeaseTime::ZERO,
        cause: EndCause::Released,
    };
    check_cap(HISTORY_CEILING, |count| read(Answer::History(vec![past.clone(); count])));
}

/// An entry at 1@1 with a membership: `voters`, then `outgoing`, by hand, since the types do not
/// let one be made that breaks its rules.
fn membership_bytes(voters: &[u8], outgoing: &[u8]) -> Vec<u8> {
    let count = |set: &[u8]| u8::try_from(set.len()).expect("a short list");
    let header = [codec::VERSION, Entry::KIND, 1, 1, 0, 1];
    [&header[..], &[count(voters)], voters, &[count(outgoing)], outgoing].concat()
}

#[test]
fn voters_of_a_membership() {
    let voters: Vec<u8> = (1..=16).collect();
    let decode = |voters: &[u8], outgoing: &[u8]| {
        codec::decode::<Entry>(&membership_bytes(voters, outgoing)).map(|entry| entry.payload)
    };
    let ids = |ids: &[u8]| -> Vec<_> {
        ids.iter().map(|id| quorlock_core::ids::NodeId::new(u64::from(*id))).collect()
    };
    let (full, over) = (&voters[..VOTERS_MAX], &voters[..=VOTERS_MAX]);
    let simple = Membership::new(ids(full)).expect("fifteen voters");
    assert_eq!(decode(full, &[]), Ok(Payload::Membership(simple)));
    let joint = Membership::joint(ids(full), ids(full)).expect("fifteen voters each");
    assert_eq!(decode(full, full), Ok(Payload::Membership(joint)));
    assert_eq!(decode(over, &[]), Err(DecodeError::Malformed), "too many voters");
    assert_eq!(decode(full, over), Err(DecodeError::Malformed), "too many that are being left");
    assert_eq!(decode(&[], &[]), Err(DecodeError::Malformed), "no voters");
    assert_eq!(decode(&[], full), Err(DecodeError::Malformed), "no voters, while joint");
}

/// A request to break a lock of which the name has these bytes.
fn break_bytes(name: &[u8]) -> Vec<u8> {
    let length = u8::try_from(name.len() % 128).expect("seven bits") | 0x80;
    let high = u8::try_from(name.len() / 128).expect("a short name");
    // Submit, session, sequence, acknowledgement (through, no exceptions), Break.
    let head = [codec::VERSION, Request::KIND, 2, 0, 0, 0, 0, 5];
    [&head[..], &[length, high], name, &[0, 0]].concat()
}

#[test]
fn bytes_of_a_text() {
    let decode = |name: &[u8]| codec::decode::<Request>(&break_bytes(name));
    assert!(decode(&[b'n'; TEXT_BYTES_MAX]).is_ok(), "the longest name");
    assert_eq!(decode(&[b'n'; TEXT_BYTES_MAX + 1]), Err(DecodeError::Malformed), "too long");
    for name in ["", "/", "/a", "a/", "a//b", "a\nb", "\0", "a\u{85}b", "\u{7f}"] {
        assert_eq!(decode(name.as_bytes()), Err(DecodeError::Malformed), "the name {name:?}");
    }
    for name in [&[0xff_u8][..], &[0xc0, 0x80], &[0xed, 0xa0, 0x80], &[b'a', 0xe2, 0x82]] {
        assert_eq!(decode(name), Err(DecodeError::Malformed), "{name:?} is no UTF-8");
    }
}

/// A number as postcard writes it.
fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7f).expect("seven bits");
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

#[test]
fn identifiers_above_the_largest() {
    let decode = |term: u64, vote: Option<u64>| {
        let vote = vote.map_or(vec![0], |vote| [vec![1], varint(vote)].concat());
        let bytes = [vec![codec::VERSION, HardState::KIND], varint(term), vote].concat();
        codec::decode::<HardState>(&bytes)
    };
    assert_eq!(decode(ID_MAX, None).map(|state| state.term), Ok(Term::MAX));
    for above in [ID_MAX + 1, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
        assert_eq!(decode(above, None), Err(DecodeError::Malformed), "term {above}");
        assert_eq!(decode(1, Some(above)), Err(DecodeError::Malformed), "vote {above}");
    }
}

/// A message with a piece such that its encoding has exactly this many bytes.
fn message_of(bytes: usize) -> Vec<u8> {
    let with = |piece: usize| {
        let membership = Membership::new([quorlock_core::ids::NodeId::new(1)]).expect("a voter");
        let meta = SnapshotMeta {
            last: EntryId::ZERO,
            stamp: LeaseTime::ZERO,
            membership,
            data_length: 0,
            checksum: Checksum::EMPTY,
        };
        let piece = Bytes::from(vec![0; piece]);
        Message::InstallSnapshot(InstallSnapshot { term: Term::ZERO, meta, offset: 0, piece })
    };
    let overhead = codec::encode(&with(bytes - 100)).len() - (bytes - 100);
    codec::encode(&with(bytes - overhead))
}

#[test]
fn bytes_of_a_message() {
    let full = message_of(FRAME_BYTES_MAX);
    assert_eq!(full.len(), FRAME_BYTES_MAX);
    assert!(codec::decode::<Message>(&full).is_ok(), "a full frame");
    let over = message_of(FRAME_BYTES_MAX + 1);
    let refused = DecodeError::TooLong { bytes: FRAME_BYTES_MAX + 1, bytes_max: FRAME_BYTES_MAX };
    assert_eq!(codec::decode::<Message>(&over), Err(refused));
}

#[test]
fn bytes_of_a_request() {
    let with = |bytes: usize| {
        let append = FileAppend { file: file(), bytes: Bytes::from(vec![0; bytes]) };
        codec::encode(&submit(Op::Append { lock: lock(), token: FencingToken::ZERO, append }))
    };
    let overhead = with(REQUEST_BYTES_MAX - 100).len() - (REQUEST_BYTES_MAX - 100);
    let full = with(REQUEST_BYTES_MAX - overhead);
    assert_eq!(full.len(), REQUEST_BYTES_MAX);
    assert!(codec::decode::<Request>(&full).is_ok(), "the largest request");
    let over = codec::decode::<Request>(&with(REQUEST_BYTES_MAX - overhead + 1));
    assert!(matches!(over, Err(DecodeError::TooLong { .. })), "{over:?}");
}

/// Too long is found before anything else is looked at: these are all zeros, and have no header.
#[test]
fn bytes_of_everything_else() {
    fn refused<T: Encodable + PartialEq + Debug>() {
        let bytes = vec![0; T::BYTES_MAX + 1];
        let refused = DecodeError::TooLong { bytes: bytes.len(), bytes_max: T::BYTES_MAX };
        assert_eq!(codec::decode::<T>(&bytes), Err(refused));
    }
    refused::<Reply>();
    refused::<Entry>();
    refused::<HardState>();
    refused::<Command>();
    refused::<Limits>();
    refused::<Snapshot>();
    // The data of the largest snapshot, with what stands around it.
    const { assert!(Snapshot::BYTES_MAX > SNAPSHOT_BYTES_MAX + VOTERS_MAX * 2 * 8) };
}
