//! Every golden script is a test: `cargo test -p quorlock-tests --test scripts`.
//!
//! With `UPDATE=1` a script that differs is written anew instead, to be read before it is kept.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use quorlock_tests::script;
use similar::TextDiff;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let mut scripts = Vec::new();
    collect(&root, &mut scripts)?;
    scripts.sort();
    let update = std::env::var_os("UPDATE").is_some_and(|value| value == "1");
    let trials = scripts.into_iter().map(|path| {
        let name = path.strip_prefix(&root).unwrap_or(&path).with_extension("");
        Trial::test(name.display().to_string(), move || check(&path, update))
    });
    Ok(libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code())
}

/// All scripts below a folder.
fn collect(folder: &Path, scripts: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, scripts)?;
        } else if path.extension().is_some_and(|extension| extension == "txt") {
            scripts.push(path);
        }
    }
    Ok(())
}

/// The script tells what happens, also when every batch is tried as a place to start again from.
fn check(path: &Path, update: bool) -> Result<(), Failed> {
    let expected = fs::read_to_string(path)?;
    let told = script::generate(&expected, false)?;
    if told != expected && update {
        fs::write(path, &told)?;
    } else if told != expected {
        return Err(difference(path, &expected, &told).into());
    }
    let again = script::generate(&told, true)?;
    if again != told {
        return Err(difference(path, &told, &again).into());
    }
    Ok(())
}

fn difference(path: &Path, expected: &str, told: &str) -> String {
    let diff = TextDiff::from_lines(expected, told);
    let diff = diff.unified_diff().header("the script says", "what happens").to_string();
    format!("{} differs; UPDATE=1 rewrites it.\n{diff}", path.display())
}
