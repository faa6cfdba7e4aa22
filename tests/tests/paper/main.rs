//! What the papers say, sentence by sentence: one test for each sentence that matters, with the
//! sentence above it. The name of a test is the claim.
//!
//! - "The paper" is Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm
//!   (Extended Version)", 2014. Its sections 5.1 to 5.5, and figures 7 and 8, have a file each.
//! - "The thesis" is Ongaro, "Consensus: Bridging Theory and Practice", 2014.
//! - "Chubby" is Burrows, "The Chubby lock service for loosely-coupled distributed systems", 2006.
//!
//! Most sentences are about one server. Their tests use [`solo::Solo`], a node whose disk, network
//! and peers are the test, and compare every message that it sends. Sentences about a cluster use
//! the lab, where several nodes run, and what must hold between them is checked at every step.
//!
//! Where Quorlock does something else than the sentence, the file says so at its top, and why.

mod chubby_2_4;
mod chubby_2_8;
mod figure_7;
mod figure_8;
mod locking;
mod raft_5_1;
mod raft_5_2;
mod raft_5_3;
mod raft_5_4;
mod raft_5_5;
mod solo;
mod thesis_10_2_1;
mod thesis_3_10;
mod thesis_3_8;
mod thesis_4_2_3;
mod thesis_6_2;
mod thesis_6_3;
mod thesis_6_4;
mod thesis_9_6;
