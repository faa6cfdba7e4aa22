//! The table agrees with the model, after every entry of a random history.

use proptest::collection::vec;
use proptest::prelude::*;
use quorlock_core::ids::{LogIndex, Sequence, SessionId};
use quorlock_core::lock::{Command, Notice};
use quorlock_core::message::{Acked, KeepAlive, Op, Submission};

use crate::drive::Entry;
use crate::history;
use crate::pair::{Pair, apply, next_index};

proptest! {
    #![proptest_config(crate::cases(800))]

    /// Many clients, few locks, tight limits.
    #[test]
    fn agrees_with_the_model(limits in history::limits(), steps in history::history(150)) {
        let mut pair = Pair::new(&limits);
        for step in &steps {
            pair.step(step);
        }
    }

    /// Exceptions have to be in ascending order. A client that sends them in another order has
    /// itself to blame for what is forgotten, but harms neither the others nor the table.
    #[test]
    fn unsorted_exceptions_do_no_harm(
        limits in history::limits(),
        steps in history::history(60),
        through in 0..12_u64,
        except in vec((0..12_u64).prop_map(Sequence::new), 0..6),
    ) {
        let mut pair = Pair::new(&limits);
        for step in &steps {
            pair.step(step);
        }
        if pair.model.next_due().is_some_and(|due| due <= pair.model.now) {
            return Ok(());
        }
        let acked = Acked { through: Sequence::new(through), except };
        for session in &pair.model.sessions {
            acknowledge(&pair, session.id, &acked);
        }
    }

    /// Whatever was decided is answered again in the same words, and nothing else happens: the
    /// state is the one that an empty entry leaves.
    #[test]
    fn a_repeat_changes_nothing(limits in history::limits(), steps in history::history(60)) {
        let mut pair = Pair::new(&limits);
        for step in &steps {
            pair.step(step);
            // What is due would pass in the probes, and mix with what they show.
            if pair.model.next_due().is_none_or(|due| due > pair.model.now) {
                repeat_all(&pair);
            }
        }
    }
}

fn acknowledge(pair: &Pair, session: SessionId, acked: &Acked) {
    let keep_alive = KeepAlive { session, acked: acked.clone(), losses_seen: LogIndex::ZERO };
    let command = Some(Command::KeepAlive(vec![keep_alive]));
    let mut table = pair.table.clone();
    let before: Vec<_> = pair.model.sessions.iter().map(|it| table.news(it.id)).collect();
    apply(&mut table, &pair.now(command));
    table.check_invariants();
    for (of, before) in pair.model.sessions.iter().zip(before) {
        let (Some(before), Some(after)) = (before, table.news(of.id)) else { continue };
        if of.id != session {
            assert_eq!(after, before, "what another session is told");
        }
        assert!(after.outcomes.iter().all(|it| before.outcomes.contains(it)), "made up");
    }
}

fn repeat_all(pair: &Pair) {
    for session in &pair.model.sessions {
        for (sequence, outcome) in &session.outcomes {
            let notice = Notice::Submitted {
                session: session.id,
                sequence: *sequence,
                outcome: outcome.clone(),
            };
            repeat(pair, session.id, *sequence, &[notice]);
        }
        for waiter in pair.model.waiters.iter().filter(|it| it.session == session.id) {
            repeat(pair, session.id, waiter.sequence, &[]);
        }
    }
}

/// The request that is repeated is not the one that was made: the number alone counts.
fn repeat(pair: &Pair, session: SessionId, sequence: Sequence, expected: &[Notice]) {
    let submission =
        Submission { session, sequence, acked: Acked::default(), op: Op::CloseSession };
    let index = next_index(&pair.model);
    let stamp = pair.model.now;
    let mut repeated = pair.table.clone();
    let output =
        apply(&mut repeated, &Entry { index, stamp, command: Some(Command::Submit(submission)) });
    assert_eq!(output.notices, expected, "a repeat of {sequence} of session {session}");
    assert!(output.effects.is_empty(), "a repeat writes to files");
    let mut idle = pair.table.clone();
    apply(&mut idle, &Entry { index, stamp, command: None });
    assert_eq!(repeated.encode(), idle.encode(), "a repeat leaves another state");
}
