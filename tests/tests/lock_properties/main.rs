//! The lock table against a naive model of it, over random histories.
//!
//! - [`history`] makes histories: lists of steps that say what is done in words such as "the third
//!   client releases the lock that it holds, with a stale token";
//! - [`drive`] turns a step into a log entry, by looking at the state in which it is taken;
//! - [`pair`] applies an entry to the table and to the model, and compares all that can be seen;
//! - [`witness`] and [`chronicle`] hold what must be true of any lock table, without the model: one
//!   holder, growing tokens, first in first out, exactly once, the bytes of the files;
//! - [`agree`], [`encoding`], [`limits`], [`pages`] and [`reach`] are the tests.
//!
//! What is compared: effects in their exact order. Notices as a multiset, since the specification
//! does not order what one entry tells different clients; but those of one session in their exact
//! order, since a client must not hear of the loss of a lock before its grant.

#![forbid(unsafe_code)]

mod agree;
mod chronicle;
mod drive;
mod encoding;
mod history;
mod limits;
mod pages;
mod pair;
mod reach;
mod witness;

/// The settings of all properties: so many cases, unless `PROPTEST_CASES` says how many.
fn cases(cases: u32) -> proptest::test_runner::Config {
    let config = proptest::test_runner::Config { failure_persistence: None, ..Default::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() {
        return config;
    }
    proptest::test_runner::Config { cases, ..config }
}
