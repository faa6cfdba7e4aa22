//! Random commands under tiny limits.

use super::*;

/// One of these.
fn pick<T: Clone>(prng: &mut Prng, choices: &[T]) -> T {
    let choice = usize::try_from(prng.below(choices.len() as u64));
    choices[choice.expect("an index is below the length")].clone()
}

/// A command of one of a few sessions on a few locks and files, most of it nonsense.
fn random_command(prng: &mut Prng, story: &Story) -> Option<Command> {
    let nonce = ClientNonce(prng.below(6), 0);
    let by_nonce = story.table.sessions.find(nonce).unwrap_or(SessionId::new(prng.below(9)));
    let holder = story.holder(pick(prng, &["a", "b", "c", "d"])).map(|(session, _)| session);
    let session = pick(prng, &[by_nonce, holder.unwrap_or(by_nonce)]);
    let last =
        story.table.sessions.find_by_id(session).map_or(0, |open| open.window.last().value());
    let acked = acked(last.saturating_sub(prng.below(5)), &[prng.below(last + 1)]);
    match prng.below(12) {
        0 => None,
        1 | 2 => {
            let lease = Duration::from_millis(1990 + prng.below(9000));
            Some(Command::OpenSession { nonce, label: Label::default(), lease })
        }
        3 | 4 => {
            let losses_seen = LogIndex::new(prng.below(story.table.index().value() + 1));
            Some(Command::KeepAlive(vec![KeepAlive { session, acked, losses_seen }]))
        }
        _ => {
            // Mostly the next one, else one too far, or one of before.
            let number = pick(prng, &[1, 1, 1, 1, 1, 1, 2, 0]);
            let sequence = Sequence::new(last + number);
            let op = random_op(prng, story, last);
            Some(Command::Submit(Submission { session, sequence, acked, op }))
        }
    }
}

fn random_op(prng: &mut Prng, story: &Story, last: u64) -> Op {
    let lock = pick(prng, &["a", "b", "c", "d"]);
    let file = pick(prng, &["f", "g", "h"]);
    let token = story.holder(lock).map_or(prng.below(9), |(_, token)| token);
    match prng.below(16) {
        0..4 => acquire(lock),
        4 => hold_for(lock, prng.below(500)),
        5 => acquire_for(lock, prng.below(500)),
        6..9 => section(lock, vec![append(file, "bytes"); pick(prng, &[0, 1, 2])]),
        9..12 => release(lock, token, vec![append(file, "more"); pick(prng, &[0, 1])]),
        12 => append_under(lock, token, append(file, "x")),
        13 => Op::Cancel { waiting: Sequence::new(last.saturating_sub(prng.below(4))) },
        14 if prng.below(4) == 0 => Op::CloseSession,
        14 => Op::CreateFile { file: append(file, "").file, guard: name(lock) },
        15 if prng.below(4) == 0 => break_hold(lock, token),
        _ => release(lock, token, vec![]),
    }
}

#[test]
fn no_commands_break_an_invariant() {
    let mut grants = 0;
    for seed in 0..60 {
        let mut prng = Prng::new(seed);
        let limits = Limits {
            sessions_max: 5,
            window_max: 6,
            pending_bytes_max: 1200,
            append_bytes_max: 1200,
            places_per_session_max: 3,
            locks_max: 3,
            waiters_per_lock_max: 3,
            files_max: 2,
            history_per_lock_max: pick(&mut prng, &[0, 1, 2]),
            history_max: pick(&mut prng, &[0, 1, 2, 3]),
            expiries_per_entry_max: 2,
            ..Limits::default()
        };
        let mut story = Story::with(limits);
        for _ in 0..300 {
            story.now += prng.below(150) * prng.below(2);
            let command = random_command(&mut prng, &story);
            story.apply(command);
            let is_grant = |event: &&LockEvent| matches!(event, LockEvent::Granted { .. });
            grants += story.applied.events.iter().filter(is_grant).count();
        }
    }
    assert!(grants > 500, "only {grants} grants: the commands are not worth much");
}
