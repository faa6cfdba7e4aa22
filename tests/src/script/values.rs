//! The words that scripts use for values.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

use quorlock_core::ids::{EntryId, ID_MAX, LogIndex, Sequence, Term};
use quorlock_core::message::{Acked, Wait};
use quorlock_core::time::Duration;

/// Why a word is no value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ValueError(String);

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for ValueError {}

fn wrong(what: &str, word: &str) -> ValueError {
    ValueError(format!("{word:?} is no {what}"))
}

/// A duration: `50us`, `250ms`, `2s`, `5m`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Span(pub(super) Duration);

impl FromStr for Span {
    type Err = ValueError;

    fn from_str(word: &str) -> Result<Self, ValueError> {
        let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let micros = match &word[digits.len()..] {
            "us" => 1,
            "ms" => 1000,
            "s" => 1_000_000,
            "m" => 60_000_000,
            _ => return Err(wrong("duration", word)),
        };
        let count: u64 = digits.parse().ok().ok_or_else(|| wrong("duration", word))?;
        Ok(Self(Duration::from_micros(count * micros)))
    }
}

/// How long to wait: `try`, `forever`, or a duration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Patience(pub(super) Wait);

impl FromStr for Patience {
    type Err = ValueError;

    fn from_str(word: &str) -> Result<Self, ValueError> {
        Ok(Self(match word {
            "try" => Wait::Try,
            "forever" => Wait::Forever,
            _ => Wait::For(word.parse::<Span>()?.0),
        }))
    }
}

/// A number, or `max` for the largest that an identifier can have.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Number(pub(super) u64);

impl FromStr for Number {
    type Err = ValueError;

    fn from_str(word: &str) -> Result<Self, ValueError> {
        if word == "max" {
            return Ok(Self(ID_MAX));
        }
        let number = word.parse().ok().ok_or_else(|| wrong("number", word))?;
        if number > ID_MAX { Err(wrong("number", word)) } else { Ok(Self(number)) }
    }
}

/// The identity of an entry: `index@term`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Id(pub(super) EntryId);

impl FromStr for Id {
    type Err = ValueError;

    fn from_str(word: &str) -> Result<Self, ValueError> {
        let (index, term) = word.split_once('@').ok_or_else(|| wrong("entry", word))?;
        let index = LogIndex::new(index.parse::<Number>()?.0);
        Ok(Self(EntryId::new(Term::new(term.parse::<Number>()?.0), index)))
    }
}

/// Several of something, with spaces between them, in quotes.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct List<T>(pub(super) Vec<T>);

impl<T: FromStr> FromStr for List<T> {
    type Err = T::Err;

    fn from_str(words: &str) -> Result<Self, T::Err> {
        words.split_whitespace().map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

/// What a client acknowledges: `5` for all up to five, `"5 but 2 3"` for all but some.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Acknowledged(pub(super) Acked);

impl FromStr for Acknowledged {
    type Err = ValueError;

    fn from_str(words: &str) -> Result<Self, ValueError> {
        let (through, except) = words.split_once(" but ").unwrap_or((words, ""));
        let through = Sequence::new(through.parse::<Number>()?.0);
        let except = except.parse::<List<Number>>()?;
        let except = except.0.into_iter().map(|number| Sequence::new(number.0)).collect();
        Ok(Self(Acked { through, except }))
    }
}

/// A log made by hand: the terms of its entries, and the term that its node has come to, as in
/// `"1 1 2 in 4"`. Without the latter it is that of the last entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct HandMadeLog {
    pub(super) terms: Vec<Term>,
    pub(super) term: Term,
}

impl FromStr for HandMadeLog {
    type Err = ValueError;

    fn from_str(words: &str) -> Result<Self, ValueError> {
        let (entries, term) = words.split_once(" in ").unwrap_or((words, ""));
        let entries = entries.parse::<List<Number>>()?;
        let terms: Vec<Term> = entries.0.into_iter().map(|term| Term::new(term.0)).collect();
        let term = match term {
            "" => terms.last().copied().unwrap_or(Term::ZERO),
            term => Term::new(term.parse::<Number>()?.0),
        };
        Ok(Self { terms, term })
    }
}
