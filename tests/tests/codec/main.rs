//! The codec from outside: whatever was encoded comes back, and whatever was not does no harm.
//!
//! - `round_trips`: every type with an encoding, from strategies that reach every variant.
//! - `caps`: every list, text and frame at its limit, and one above.
//! - `mutations`: flipped, cut, spliced and invented bytes, and lengths that promise too much.
//! - `shapes`: read from the source: no type on the wire contains itself, no list is without a cap,
//!   and no list has elements without bytes.

mod caps;
mod mutations;
mod round_trips;
mod shapes;
mod strategies;

use proptest::test_runner::Config;

/// The settings of every property here: so many cases, and no file of failures that would be
/// written next to the sources.
fn cases(cases: u32) -> Config {
    Config { failure_persistence: None, ..Config::with_cases(cases) }
}
