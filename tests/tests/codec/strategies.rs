//! Values of every type on the wire, small ones and extreme ones alike.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::strategy::Union;
use quorlock_core::checksum::Checksum;
use quorlock_core::config::Limits;
use quorlock_core::ids::{
    ClientNonce, EntryId, FencingToken, ID_MAX, LogIndex, NodeId, ReadRound, RequestId, Sequence,
    SessionId, Term,
};
use quorlock_core::lock::Command;
use quorlock_core::membership::{Membership, VOTERS_MAX};
use quorlock_core::message::{
    Acked, Answer, AppendEntries, AppendEntriesReply, AppendResult, Consistency, Done, EndCause,
    Entry, FileAppend, FileView, HardState, HolderView, InstallSnapshot, InstallSnapshotReply,
    KeepAlive, LockSummary, LockView, Loss, Message, Op, Opened, Outcome, PastHold, Payload, Query,
    Rejection, Reply, Request, RequestKey, SessionEnd, SessionNews, Snapshot, SnapshotMeta,
    SnapshotResult, Submission, Unavailable, VoteReply, VoteRequest, Wait, WaiterView,
};
use quorlock_core::text::{FileName, Label, LockName, Text};
use quorlock_core::time::{Duration, LeaseTime};

/// Numbers of which many are small or at a limit.
pub(crate) fn number() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..20_u64, 2 => 0..=ID_MAX, 1 => Just(ID_MAX), 1 => Just(ID_MAX - 1)]
}

fn any_u64() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 0..300_u64, 1 => any::<u64>(), 1 => Just(u64::MAX)]
}

macro_rules! ids {
    ($($function:ident: $type:ident),* $(,)?) => {$(
        pub(crate) fn $function() -> impl Strategy<Value = $type> {
            number().prop_map($type::new)
        }
    )*};
}

ids! {
    node_id: NodeId,
    term: Term,
    log_index: LogIndex,
    session_id: SessionId,
    sequence: Sequence,
    token: FencingToken,
    request_id: RequestId,
    round: ReadRound,
}

pub(crate) fn entry_id() -> impl Strategy<Value = EntryId> {
    (term(), log_index()).prop_map(|(term, index)| EntryId { term, index })
}

fn nonce() -> impl Strategy<Value = ClientNonce> {
    (any_u64(), any_u64()).prop_map(|(high, low)| ClientNonce(high, low))
}

fn lease_time() -> impl Strategy<Value = LeaseTime> {
    any_u64().prop_map(LeaseTime::from_micros)
}

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        any_u64().prop_map(Duration::from_micros),
        (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(secs, nanos)| Duration::new(secs, nanos)),
        Just(Duration::ZERO),
        Just(Duration::MAX),
    ]
}

fn checksum() -> impl Strategy<Value = Checksum> {
    any::<[u8; 4]>().prop_map(|bytes| Checksum::of(&bytes))
}

fn bytes() -> impl Strategy<Value = bytes::Bytes> {
    prop_oneof![4 => vec(any::<u8>(), 0..40), 1 => vec(any::<u8>(), 300..400)]
        .prop_map(bytes::Bytes::from)
}

/// Segments in several alphabets; now and then as many bytes as a name may have.
fn name() -> impl Strategy<Value = String> {
    let long = "[a-z]".prop_map(|letter| letter.repeat(255));
    prop_oneof![8 => "[a-zA-Z0-9._é€𝄞-]{1,8}(/[a-z]{1,8}){0,2}", 1 => long]
}

fn lock_name() -> impl Strategy<Value = LockName> {
    name().prop_map(|name| LockName::new(name).expect("the alphabet has no control characters"))
}

fn file_name() -> impl Strategy<Value = FileName> {
    name().prop_map(|name| FileName::new(name).expect("the alphabet has no control characters"))
}

fn text() -> impl Strategy<Value = Text> {
    prop_oneof![1 => Just(String::new()), 4 => name()]
        .prop_map(|text| Text::new(text).expect("a name is a text"))
}

fn label() -> impl Strategy<Value = Label> {
    (text(), any::<u32>(), text(), text()).prop_map(|(host, pid, user, command)| Label {
        host,
        pid,
        user,
        command,
    })
}

pub(crate) fn membership() -> impl Strategy<Value = Membership> {
    let set = || proptest::collection::btree_set(node_id(), 1..=VOTERS_MAX);
    (set(), option::of(set())).prop_map(|(voters, outgoing)| {
        match outgoing {
            Some(outgoing) => Membership::joint(voters, outgoing),
            None => Membership::new(voters),
        }
        .expect("one to fifteen of each")
    })
}

pub(crate) fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        Just(Payload::Empty),
        membership().prop_map(Payload::Membership),
        bytes().prop_map(Payload::Command),
    ]
}

pub(crate) fn entry() -> impl Strategy<Value = Entry> {
    (entry_id(), lease_time(), payload()).prop_map(|(id, stamp, payload)| Entry {
        id,
        stamp,
        payload,
    })
}

pub(crate) fn hard_state() -> impl Strategy<Value = HardState> {
    (term(), option::of(node_id())).prop_map(|(term, vote)| HardState { term, vote })
}

pub(crate) fn snapshot() -> impl Strategy<Value = Snapshot> {
    (entry_id(), lease_time(), membership(), bytes())
        .prop_map(|(last, stamp, membership, data)| Snapshot { last, stamp, membership, data })
}

pub(crate) fn limits() -> impl Strategy<Value = Limits> {
    let numbers = proptest::array::uniform12(any::<u32>());
    (numbers, duration(), duration()).prop_map(|(numbers, session_lease_min, session_lease_max)| {
        let [
            sessions_max,
            window_max,
            pending_bytes_max,
            places_per_session_max,
            locks_max,
            waiters_per_lock_max,
            files_max,
            append_bytes_max,
            appends_per_request_max,
            history_per_lock_max,
            history_max,
            expiries_per_entry_max,
        ] = numbers;
        Limits {
            sessions_max,
            session_lease_min,
            session_lease_max,
            window_max,
            pending_bytes_max,
            places_per_session_max,
            locks_max,
            waiters_per_lock_max,
            files_max,
            append_bytes_max,
            appends_per_request_max,
            history_per_lock_max,
            history_max,
            expiries_per_entry_max,
        }
    })
}

fn snapshot_meta() -> impl Strategy<Value = SnapshotMeta> {
    (entry_id(), lease_time(), membership(), any_u64(), checksum()).prop_map(
        |(last, stamp, membership, data_length, checksum)| SnapshotMeta {
            last,
            stamp,
            membership,
            data_length,
            checksum,
        },
    )
}

fn vote_request() -> impl Strategy<Value = VoteRequest> {
    (term(), entry_id(), any::<bool>()).prop_map(|(term, last, transfer)| VoteRequest {
        term,
        last,
        transfer,
    })
}

fn vote_reply() -> impl Strategy<Value = VoteReply> {
    (term(), term(), any::<bool>()).prop_map(|(term, campaign, granted)| VoteReply {
        term,
        campaign,
        granted,
    })
}

fn append_entries() -> impl Strategy<Value = AppendEntries> {
    (term(), entry_id(), vec(entry(), 0..5), log_index(), round()).prop_map(
        |(term, previous, entries, commit, round)| AppendEntries {
            term,
            previous,
            entries,
            commit,
            round,
        },
    )
}

fn append_reply() -> impl Strategy<Value = AppendEntriesReply> {
    let result = prop_oneof![
        log_index().prop_map(AppendResult::Matched),
        (log_index(), entry_id())
            .prop_map(|(previous, hint)| AppendResult::Conflict { previous, hint }),
        Just(AppendResult::StaleTerm),
    ];
    (term(), round(), result).prop_map(|(term, round, result)| AppendEntriesReply {
        term,
        round,
        result,
    })
}

fn install_snapshot() -> impl Strategy<Value = InstallSnapshot> {
    (term(), snapshot_meta(), any_u64(), bytes())
        .prop_map(|(term, meta, offset, piece)| InstallSnapshot { term, meta, offset, piece })
}

fn install_reply() -> impl Strategy<Value = InstallSnapshotReply> {
    let result = prop_oneof![
        any_u64().prop_map(|length| SnapshotResult::Received { length }),
        Just(SnapshotResult::Installed),
        Just(SnapshotResult::Failed),
        Just(SnapshotResult::StaleTerm),
    ];
    (term(), entry_id(), result).prop_map(|(term, last, result)| InstallSnapshotReply {
        term,
        last,
        result,
    })
}

pub(crate) fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        vote_request().prop_map(Message::PreVote),
        vote_reply().prop_map(Message::PreVoteReply),
        vote_request().prop_map(Message::RequestVote),
        vote_reply().prop_map(Message::RequestVoteReply),
        append_entries().prop_map(Message::AppendEntries),
        append_reply().prop_map(Message::AppendEntriesReply),
        install_snapshot().prop_map(Message::InstallSnapshot),
        install_reply().prop_map(Message::InstallSnapshotReply),
        term().prop_map(|term| Message::TimeoutNow { term }),
    ]
}

fn acked() -> impl Strategy<Value = Acked> {
    (sequence(), vec(sequence(), 0..6)).prop_map(|(through, except)| Acked { through, except })
}

fn keep_alive() -> impl Strategy<Value = KeepAlive> {
    (session_id(), acked(), log_index()).prop_map(|(session, acked, losses_seen)| KeepAlive {
        session,
        acked,
        losses_seen,
    })
}

fn wait() -> impl Strategy<Value = Wait> {
    prop_oneof![Just(Wait::Try), duration().prop_map(Wait::For), Just(Wait::Forever)]
}

fn file_append() -> impl Strategy<Value = FileAppend> {
    (file_name(), bytes()).prop_map(|(file, bytes)| FileAppend { file, bytes })
}

fn op() -> impl Strategy<Value = Op> {
    let appends = || vec(file_append(), 0..4);
    prop_oneof![
        (lock_name(), wait(), option::of(duration()))
            .prop_map(|(lock, wait, max_hold)| Op::Acquire { lock, wait, max_hold }),
        sequence().prop_map(|waiting| Op::Cancel { waiting }),
        (lock_name(), token(), appends()).prop_map(|(lock, token, appends)| Op::Release {
            lock,
            token,
            appends
        }),
        (lock_name(), token(), file_append()).prop_map(|(lock, token, append)| Op::Append {
            lock,
            token,
            append
        }),
        (lock_name(), wait(), appends()).prop_map(|(lock, wait, appends)| Op::Section {
            lock,
            wait,
            appends
        }),
        (lock_name(), token(), text()).prop_map(|(lock, token, reason)| Op::Break {
            lock,
            token,
            reason
        }),
        (file_name(), lock_name()).prop_map(|(file, guard)| Op::CreateFile { file, guard }),
        Just(Op::CloseSession),
    ]
}

fn submission() -> impl Strategy<Value = Submission> {
    (session_id(), sequence(), acked(), op())
        .prop_map(|(session, sequence, acked, op)| Submission { session, sequence, acked, op })
}

fn query() -> impl Strategy<Value = Query> {
    prop_oneof![
        lock_name().prop_map(|lock| Query::Lock { lock }),
        (text(), option::of(lock_name()))
            .prop_map(|(prefix, after)| Query::Locks { prefix, after }),
        lock_name().prop_map(|lock| Query::History { lock }),
        file_name().prop_map(|file| Query::File { file }),
        option::of(file_name()).prop_map(|after| Query::Files { after }),
        (file_name(), any_u64(), any::<u32>()).prop_map(|(file, offset, length)| Query::ReadFile {
            file,
            offset,
            length
        }),
    ]
}

pub(crate) fn request() -> impl Strategy<Value = Request> {
    let consistency = prop_oneof![Just(Consistency::Linearizable), Just(Consistency::Stale)];
    prop_oneof![
        (nonce(), label(), duration()).prop_map(|(nonce, label, lease)| Request::OpenSession {
            nonce,
            label,
            lease
        }),
        (request_id(), keep_alive())
            .prop_map(|(id, keep_alive)| Request::KeepAlive { id, keep_alive }),
        submission().prop_map(Request::Submit),
        (request_id(), query(), consistency).prop_map(|(id, query, consistency)| Request::Read {
            id,
            query,
            consistency
        }),
    ]
}

pub(crate) fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        (nonce(), label(), duration()).prop_map(|(nonce, label, lease)| Command::OpenSession {
            nonce,
            label,
            lease
        }),
        vec(keep_alive(), 0..6).prop_map(Command::KeepAlive),
        submission().prop_map(Command::Submit),
    ]
}

fn done() -> impl Strategy<Value = Done> {
    let offsets = || vec(any_u64(), 0..5);
    prop_oneof![
        (token(), option::of(token()))
            .prop_map(|(token, predecessor)| Done::Granted { token, predecessor }),
        Just(Done::Cancelled),
        offsets().prop_map(|offsets| Done::Released { offsets }),
        any_u64().prop_map(|offset| Done::Appended { offset }),
        (token(), offsets()).prop_map(|(token, offsets)| Done::Sectioned { token, offsets }),
        Just(Done::Broken),
        Just(Done::FileCreated),
        Just(Done::SessionClosed),
    ]
}

fn rejection() -> impl Strategy<Value = Rejection> {
    let plain = [
        Rejection::SessionUnknown,
        Rejection::ResultEvicted,
        Rejection::WindowFull,
        Rejection::TooManySessions,
        Rejection::NotObtained,
        Rejection::TimedOut,
        Rejection::Cancelled,
        Rejection::AlreadyWaiting,
        Rejection::NotWaiting,
        Rejection::FileFull,
        Rejection::TooManyLocks,
        Rejection::TooManyWaiters,
        Rejection::TooManyPlaces,
        Rejection::TooManyFiles,
        Rejection::TooManyPendingBytes,
    ];
    prop_oneof![
        proptest::sample::select(plain.to_vec()),
        sequence().prop_map(|expected| Rejection::OutOfOrder { expected }),
        (duration(), duration()).prop_map(|(min, max)| Rejection::LeaseOutOfRange { min, max }),
        token().prop_map(|token| Rejection::AlreadyHeld { token }),
        option::of(token()).prop_map(|current| Rejection::NotHolder { current }),
        lock_name().prop_map(|guard| Rejection::WrongGuard { guard }),
        any::<u32>().prop_map(|bytes_max| Rejection::AppendTooLarge { bytes_max }),
        any::<u32>().prop_map(|appends_max| Rejection::TooManyAppends { appends_max }),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![done().prop_map(Ok), rejection().prop_map(Err)]
}

fn end_cause() -> impl Strategy<Value = EndCause> {
    prop_oneof![
        Just(EndCause::Released),
        Just(EndCause::SessionClosed),
        Just(EndCause::SessionExpired),
        Just(EndCause::HoldTimedOut),
        (label(), text()).prop_map(|(by, reason)| EndCause::Broken { by, reason }),
    ]
}

fn loss() -> impl Strategy<Value = Loss> {
    (lock_name(), token(), log_index(), end_cause()).prop_map(|(lock, token, index, cause)| Loss {
        lock,
        token,
        index,
        cause,
    })
}

fn news() -> impl Strategy<Value = SessionNews> {
    (vec((sequence(), outcome()), 0..4), vec(loss(), 0..3))
        .prop_map(|(outcomes, losses)| SessionNews { outcomes, losses })
}

fn holder() -> impl Strategy<Value = HolderView> {
    let times = (duration(), duration(), option::of(duration()));
    (session_id(), label(), token(), times).prop_map(
        |(session, label, token, (held_for, lease_left, hold_left))| HolderView {
            session,
            label,
            token,
            held_for,
            lease_left,
            hold_left,
        },
    )
}

fn waiter() -> impl Strategy<Value = WaiterView> {
    (session_id(), label(), sequence(), duration()).prop_map(
        |(session, label, sequence, waited_for)| WaiterView {
            session,
            label,
            sequence,
            waited_for,
        },
    )
}

fn past_hold() -> impl Strategy<Value = PastHold> {
    (session_id(), label(), token(), lease_time(), lease_time(), end_cause()).prop_map(
        |(session, label, token, since, until, cause)| PastHold {
            session,
            label,
            token,
            since,
            until,
            cause,
        },
    )
}

fn file_view() -> impl Strategy<Value = FileView> {
    (file_name(), lock_name(), any_u64(), checksum())
        .prop_map(|(file, guard, length, checksum)| FileView { file, guard, length, checksum })
}

fn lock_view() -> impl Strategy<Value = LockView> {
    (lock_name(), option::of(holder()), any_u64(), vec(waiter(), 0..3))
        .prop_map(|(lock, holder, waiters, queue)| LockView { lock, holder, waiters, queue })
}

fn lock_summary() -> impl Strategy<Value = LockSummary> {
    (lock_name(), option::of(holder()), any_u64()).prop_map(|(lock, holder, waiters)| LockSummary {
        lock,
        holder,
        waiters,
    })
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        lock_view().prop_map(Answer::Lock),
        vec(lock_summary(), 0..3).prop_map(Answer::Locks),
        vec(past_hold(), 0..3).prop_map(Answer::History),
        option::of(file_view()).prop_map(Answer::File),
        vec(file_view(), 0..3).prop_map(Answer::Files),
        (option::of(file_view()), bytes()).prop_map(|(file, bytes)| Answer::Bytes { file, bytes }),
    ]
}

fn unavailable() -> impl Strategy<Value = Unavailable> {
    prop_oneof![
        option::of(node_id()).prop_map(|leader| Unavailable::NotLeader { leader }),
        option::of(node_id()).prop_map(|leader| Unavailable::LeadershipLost { leader }),
        node_id().prop_map(|to| Unavailable::Transferring { to }),
        Just(Unavailable::Overloaded),
        Just(Unavailable::TooLarge),
    ]
}

fn request_key() -> impl Strategy<Value = RequestKey> {
    prop_oneof![
        nonce().prop_map(RequestKey::Open),
        (session_id(), request_id()).prop_map(|(of, id)| RequestKey::KeepAlive(of, id)),
        (session_id(), sequence()).prop_map(|(of, number)| RequestKey::Submit(of, number)),
        request_id().prop_map(RequestKey::Read),
    ]
}

pub(crate) fn reply() -> impl Strategy<Value = Reply> {
    let opened = (session_id(), any::<u32>())
        .prop_map(|(session, window_max)| Opened { session, window_max });
    let opened = prop_oneof![opened.prop_map(Ok), rejection().prop_map(Err)];
    let renewed = prop_oneof![news().prop_map(Ok), rejection().prop_map(Err)];
    let cause = prop_oneof![Just(SessionEnd::Closed), Just(SessionEnd::Expired)];
    Union::new([
        (nonce(), opened).prop_map(|(nonce, result)| Reply::Opened { nonce, result }).boxed(),
        (request_id(), session_id(), log_index(), renewed)
            .prop_map(|(id, session, index, result)| Reply::KeptAlive {
                id,
                session,
                index,
                result,
            })
            .boxed(),
        (session_id(), sequence(), log_index(), outcome())
            .prop_map(|(session, sequence, index, outcome)| Reply::Submitted {
                session,
                sequence,
                index,
                outcome,
            })
            .boxed(),
        (session_id(), loss()).prop_map(|(session, loss)| Reply::Lost { session, loss }).boxed(),
        (session_id(), log_index(), cause)
            .prop_map(|(session, index, cause)| Reply::SessionEnded { session, index, cause })
            .boxed(),
        (request_id(), log_index(), answer())
            .prop_map(|(id, index, answer)| Reply::Read { id, index, answer })
            .boxed(),
        (request_key(), unavailable())
            .prop_map(|(request, reason)| Reply::Unavailable { request, reason })
            .boxed(),
    ])
}
