//! The log against a plain list.

use alloc::vec::Vec;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::message::Payload;

/// What can be done to a log. The numbers are reduced to what is legal at that moment.
#[derive(Clone, Debug)]
enum Step {
    Push { terms_on: u64, bytes: usize },
    Truncate(u64),
    Compact(u64),
    Reset(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..3u64, 0..200usize).prop_map(|(terms_on, bytes)| Step::Push { terms_on, bytes }),
        1 => any::<u64>().prop_map(Step::Truncate),
        1 => any::<u64>().prop_map(Step::Compact),
        1 => (0..50u64).prop_map(Step::Reset),
    ]
}

/// The same log as a base and a list.
struct Model {
    base: EntryId,
    entries: Vec<Entry>,
}

impl Model {
    fn last(&self) -> EntryId {
        self.entries.last().map_or(self.base, |entry| entry.id)
    }

    fn take(&mut self, log: &mut Log, step: &Step) {
        let count = self.entries.len() as u64;
        match *step {
            Step::Push { terms_on, bytes } => {
                let last = self.last();
                let term = Term::new(last.term.value() + terms_on);
                let entry = Entry {
                    id: EntryId::new(term, last.index.next()),
                    stamp: log.last_stamp(),
                    payload: Payload::Command(Bytes::from(alloc::vec![0; bytes])),
                };
                self.entries.push(entry.clone());
                log.push(entry);
            }
            Step::Truncate(at) if count > 0 => {
                let from = self.base.index.plus(1 + at % count);
                self.entries.retain(|entry| entry.id.index < from);
                log.truncate_from(from);
            }
            Step::Compact(at) if count > 0 => {
                let through = self.base.index.plus(1 + at % count);
                let gone = self.entries.iter().filter(|e| e.id.index <= through).count();
                if let Some(entry) = self.entries.drain(..gone).next_back() {
                    self.base = entry.id;
                }
                log.compact_through(through);
            }
            Step::Truncate(_) | Step::Compact(_) => {}
            Step::Reset(on) => {
                self.base = EntryId::new(self.last().term, self.last().index.plus(on));
                self.entries.clear();
                log.reset(self.base, log.last_stamp());
            }
        }
    }

    fn bytes(&self, after: LogIndex, through: LogIndex) -> u64 {
        let within = |entry: &&Entry| entry.id.index > after && entry.id.index <= through;
        self.entries.iter().filter(within).map(Entry::cost_bytes).sum()
    }

    fn last_within(&self, bound: EntryId) -> Option<EntryId> {
        let ids = self.entries.iter().map(|entry| entry.id);
        core::iter::once(self.base)
            .chain(ids)
            .filter(|id| id.index <= bound.index && id.term <= bound.term)
            .last()
    }
}

proptest! {
    #[test]
    fn agrees_with_a_plain_list(steps in prop::collection::vec(step(), 0..60)) {
        let mut log = Log::new(EntryId::ZERO, LeaseTime::ZERO);
        let mut model = Model { base: EntryId::ZERO, entries: Vec::new() };
        for step in &steps {
            model.take(&mut log, step);
            log.check_invariants();
            prop_assert_eq!((log.base(), log.last()), (model.base, model.last()));
            prop_assert!(log.iter_from(LogIndex::ZERO).next().is_none());
            prop_assert!(log.iter_from(log.base().index.next()).eq(&model.entries));
        }
        let end = model.last().index.value() + 2;
        for at in model.base.index.value().saturating_sub(2)..end {
            let at = LogIndex::new(at);
            let entry = model.entries.iter().find(|entry| entry.id.index == at);
            prop_assert_eq!(log.entry(at), entry);
            prop_assert_eq!(log.id(at), entry.map(|e| e.id).or((at == model.base.index).then_some(model.base)));
            prop_assert_eq!(log.bytes_between(at, model.last().index), model.bytes(at, model.last().index));
            prop_assert_eq!(log.bytes_between(model.base.index, at), model.bytes(model.base.index, at));
            for term in 0..=model.last().term.value() + 1 {
                let bound = EntryId::new(Term::new(term), at);
                prop_assert_eq!(log.last_within(bound), model.last_within(bound));
            }
        }
    }

    #[test]
    fn a_copy_has_at_least_one_entry_and_keeps_to_both_limits(
        sizes in prop::collection::vec(0..300usize, 1..20),
        from in 1..20u64,
        count_max in 1..20u64,
        bytes_max in 0..2000u64,
    ) {
        let mut log = Log::new(EntryId::ZERO, LeaseTime::ZERO);
        for (position, size) in sizes.iter().enumerate() {
            let index = LogIndex::new(position as u64 + 1);
            let payload = Payload::Command(Bytes::from(alloc::vec![0; *size]));
            log.push(Entry { id: EntryId::new(Term::new(1), index), stamp: LeaseTime::ZERO, payload });
        }
        let copy = log.copy_from(LogIndex::new(from), count_max, bytes_max);
        let bytes: u64 = copy.iter().map(Entry::cost_bytes).sum();
        prop_assert!(copy.len() as u64 <= count_max);
        prop_assert!(bytes <= bytes_max || copy.len() == 1);
        prop_assert_eq!(copy.is_empty(), from > sizes.len() as u64);
        prop_assert!(log.iter_from(LogIndex::new(from)).zip(&copy).all(|(own, copied)| own == copied));
    }
}

#[test]
fn nothing_below_the_base_is_known() {
    let mut log = Log::new(EntryId::new(Term::new(2), LogIndex::new(10)), LeaseTime::ZERO);
    assert_eq!(log.term(LogIndex::new(9)), None);
    assert_eq!(log.term(LogIndex::new(10)), Some(Term::new(2)));
    assert_eq!(log.term(LogIndex::new(11)), None);
    assert!(log.copy_from(LogIndex::new(10), 10, 1000).is_empty());
    log.compact_through(LogIndex::new(5));
    assert_eq!(log.base().index, LogIndex::new(10));
}

#[test]
#[should_panic(expected = "what is compacted away cannot be truncated")]
fn what_is_compacted_away_stays() {
    let mut log = Log::new(EntryId::new(Term::new(2), LogIndex::new(10)), LeaseTime::ZERO);
    log.truncate_from(LogIndex::new(10));
}
