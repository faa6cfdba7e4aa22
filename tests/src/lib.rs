//! What the tests of Quorlock share.
//!
//! The tests themselves are in `tests/tests/`, one file or folder for each suite:
//!
//! - `scripts` plays the golden scripts of `tests/scripts`, line by line;
//! - `paper` holds the papers' sentences, `hazards` the failures of other systems (`HAZARDS.md`);
//! - `lock_properties` compares the lock table with a [model](lock_model), `codec` whatever is
//!   decoded with the rules;
//! - `exploration` tries every order of few events;
//! - `cluster` uses the simulator as its users do, and `readme` the README;
//! - `native` starts [clusters of real processes](native) on loopback, and does to them what happens to
//!   machines;
//! - `digests` compares the bytes of debug, release and wasm32 builds;
//! - `tidy` reads the repository, and holds the rules that no compiler checks.
//!
//! Unit tests of one module live in that module. What is here needs more than one crate, or more
//! than one node.

#![forbid(unsafe_code)]

pub mod lab;
pub mod lock_model;
pub mod native;
pub mod script;

/// The README's code, as a doc test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
