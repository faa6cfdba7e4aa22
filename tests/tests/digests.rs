//! Debug, release, native and WebAssembly: one digest for each run.
//!
//! `tests/digests.txt` holds the digests of the fixed runs. This file is compiled in debug and in
//! release builds, and compares both, and a WebAssembly build of the same runs, with that list. So
//! all of them agree with each other. `UPDATE=1` writes the list anew: do that only when the
//! protocol, its time-outs or its messages changed, and say so in the commit.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use quorlock_core::sim::runs::{RUNS, digest};
use wasmi::{Engine, Linker, Module, Store};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn expected_path() -> PathBuf {
    root().join("tests/digests.txt")
}

/// One line for each run: its digest and its name.
fn list(mut digest_of: impl FnMut(usize) -> u64) -> String {
    let mut lines = String::new();
    for (run, (name, _)) in RUNS.iter().enumerate() {
        writeln!(lines, "{:016x} {name}", digest_of(run)).expect("writing to a string");
    }
    lines
}

fn expected() -> String {
    fs::read_to_string(expected_path()).expect("tests/digests.txt is checked in")
}

#[test]
fn native_runs_have_the_expected_digests() {
    let actual = list(|run| digest(run).value());
    if std::env::var_os("UPDATE").is_some() {
        fs::write(expected_path(), actual).expect("the list can be written");
        return;
    }
    assert_eq!(actual, expected(), "the runs changed; see the head of this file");
}

#[test]
fn wasm_runs_have_the_expected_digests() {
    let bytes = build_wasm();
    let engine = Engine::default();
    let module = Module::new(&engine, &bytes).expect("the module is valid");
    let imports: Vec<String> =
        module.imports().map(|import| format!("{}.{}", import.module(), import.name())).collect();
    assert!(imports.is_empty(), "the core asks its host for nothing, but imports {imports:?}");

    let mut store = Store::new(&engine, ());
    let instance = Linker::new(&engine)
        .instantiate_and_start(&mut store, &module)
        .expect("the module needs nothing");
    let digest = instance.get_typed_func::<u32, u64>(&store, "digest").expect("it exports digest");
    let actual = list(|run| {
        let run = u32::try_from(run).expect("there are few runs");
        digest.call(&mut store, run).expect("the run ends without a trap")
    });
    assert_eq!(actual, expected(), "wasm32 and native builds differ");
}

/// Builds the runs for wasm32, into a target folder of their own, since the outer cargo may hold
/// the lock of the usual one.
fn build_wasm() -> Vec<u8> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wasm");
    let status = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["build", "--quiet", "--release", "--package", "quorlock-core"])
        .args(["--example", "digests", "--features", "sim"])
        .args(["--target", "wasm32-unknown-unknown", "--target-dir"])
        .arg(&target)
        .status()
        .expect("cargo starts");
    assert!(status.success(), "the build for wasm32 failed; is the target installed?");
    let path = target.join("wasm32-unknown-unknown/release/examples/digests.wasm");
    fs::read(path).expect("the build leaves a module")
}
