//! The program `quorlock`. All of it is in [`quorlock::cli`].
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    quorlock::cli::main()
}
