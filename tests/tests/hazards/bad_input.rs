//! Bad input: from peers, from clients, from whoever sets a cluster up.
//!
//! - `messages`: every kind of message with every number at its extremes, to a node in every role.
//! - `anything`: values of every type on the wire, to whoever takes them.
//! - `noise`: sequences of random messages, and of real ones late, twice and in any order.
//! - `requests`: what a client may get wrong, and that the state is the same afterwards.
//! - `config`: every setting below and above its range, with what the error says.
//! - `limits`: every limit of a node's settings is reached.

mod anything;
mod config;
mod limits;
mod messages;
mod noise;
mod requests;
