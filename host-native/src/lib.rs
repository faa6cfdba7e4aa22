//! Quorlock on a real network: the client library, servers, and the command line.
//!
//! What is decided, the core decides ([`quorlock_core`]). Here is what it has no hands for: sockets,
//! disks, clocks, processes.
//!
//! # Features
//!
//! - none: the client library alone.
//! - `config-file`: the client library also reads how to connect from a file.
//! - `certs`: makes certificates.
//! - `server`: a node of a cluster.
//! - `cli` (default): everything, and the program `quorlock`.
#![forbid(unsafe_code)]

#[cfg(feature = "cli")]
pub mod cli;
pub mod client;
pub mod clock;
mod endpoint;
#[cfg(feature = "server")]
pub mod server;
pub mod tls;
pub mod wire;

pub use endpoint::EndpointError;
pub use quorlock_core;
