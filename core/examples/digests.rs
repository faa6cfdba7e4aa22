//! The fixed runs of the simulator as a WebAssembly module, so that a test can compare their
//! digests with the native ones.

use quorlock_core::sim::runs;

/// The checksum of a run; 0 when there is none of that number.
#[expect(unsafe_code, reason = "the name of an export is outside of the compiler's control")]
#[unsafe(no_mangle)]
pub extern "C" fn digest(run: u32) -> u64 {
    let run = run as usize;
    if run < runs::RUNS.len() { runs::digest(run).value() } else { 0 }
}
