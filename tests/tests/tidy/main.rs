//! Reads the repository, and holds the rules that no compiler checks.
//!
//! Every rule is a test of its own, and names the file, the line and what to do. Every rule is also
//! tried on a small sample that breaks it: a rule that cannot fail holds nothing.
//!
//! | module | holds |
//! |---|---|
//! | [`layout`] | which files there are, and what documents may say |
//! | [`manifests`] | who may depend on whom, and that each fact has one place |
//! | [`imports`] | which module of the core may name which |
//! | [`boundary`] | that the simulator uses only what the core offers to everybody |
//! | [`sizes`] | lines in a file and in a function |
//! | [`words`] | one word for each thing |
//! | [`attributes`] | silenced lints and unsafe code |
//! | [`determinism`] | types that differ between machines or runs |
//!
//! What clippy can hold is left to clippy: see `core/clippy.toml` and the root manifest.

mod attributes;
mod boundary;
mod determinism;
mod imports;
mod layout;
mod manifests;
mod paths;
mod repository;
mod sizes;
mod words;
