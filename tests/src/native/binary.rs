//! The program under test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The program `quorlock`, as cargo built it for these tests.
///
/// Cargo builds a package's programs for its own tests only, and these are another package's. So
/// this asks cargo once for one of those tests, in the profile and the folder of the running one: with
/// all packages, so that they have the features that they were built with already.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(build)
}

fn build() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it is");
    // TARGET/PROFILE/deps/TEST
    let folder = test.ancestors().nth(2).expect("cargo puts tests into a folder of their profile");
    let target = folder.parent().expect("the profile's folder is in the target folder");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .args(["test", "--workspace", "--test", "server", "--no-run", "--target-dir"])
        .arg(target);
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    // What cargo tells a test about itself would tell the next cargo that everything has changed.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_") && name != "CARGO_HOME") {
            cargo.env_remove(name);
        }
    }
    let output = cargo.output().expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let binary = folder.join("quorlock");
    assert!(binary.exists(), "cargo built no {}", binary.display());
    binary
}
