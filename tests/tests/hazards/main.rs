//! What went wrong in real systems, and does not here: one test for each failure that was made public
//! and that messages, time-outs and acknowledgements of writes can bring about.
//!
//! `HAZARDS.md` lists all of them, with the evidence, and says which test covers which. The tests are
//! named after the failure; their comments name the row.

mod bad_input;
mod clients;
mod elections;
mod files;
mod locks;
mod log;
mod membership;
mod network;
mod persistence;
mod reads;
mod sessions;
mod snapshots;
mod solo;
mod state_machine;
mod table;
mod tools;
