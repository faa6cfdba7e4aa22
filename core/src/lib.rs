//! The Quorlock lock manager without IO: consensus, locks, sessions and the exactly-once client.
//!
//! Three values do the work, and each has the same three verbs. `handle_input` tells it something,
//! with the time; `poll_output` says what it wants done; `poll_timeout` says when it wants to be
//! woken.
//!
//! - A [`Node`](node::Node) is one server of a cluster. Inside it, [`raft`] decides what is in the
//!   log, and [`lock`] decides what the log means.
//! - A [`Client`](client::Client) is one session of an application.
//! - With the feature `sim`, `sim::Cluster` is a whole cluster in memory: begin there to see
//!   the others at work.
//!
//! There is no clock in here, no socket, no file, no thread and no randomness but that of a seed: a
//! run is the list of its inputs, and playing it again gives the same bytes on every platform.
//!
//! What a host has to provide is in the documentation of [`node`]. What the promises are, and why a
//! grant alone is not one of them, is in the README.
//!
//! # Features
//!
//! - `sim`: adds the module `sim`. It changes nothing else.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod capped;
pub mod checksum;
pub mod client;
pub mod codec;
pub mod config;
pub mod ids;
pub mod lock;
pub mod membership;
pub mod message;
pub mod node;
pub mod prng;
pub mod raft;
#[cfg(feature = "sim")]
pub mod sim;
pub mod text;
pub mod time;
