//! The command line: one program for servers, locks and files.
//!
//! # Rules that hold for every command
//!
//! - Results go to stdout, in the format that `-o` names (`output`); messages go to stderr. Whoever
//!   reads stdout may stop reading at any time: that is no error.
//! - How the cluster is found is the same everywhere (`connection`), and no call to it waits for
//!   longer than `--timeout`.
//! - A command ends with an `Exit`. What went wrong is a `Failure`: what happened, why, and what to
//!   do next (`exit`).
//! - Nothing is drawn, coloured or refreshed unless it goes to a terminal.
//!
//! # How it is laid out
//!
//! Every command has a struct of arguments and a function that takes them with the `Context`, in a
//! module of its own. Commands are plain functions; those that talk to the network make the runtime
//! that they need (`Context::block_on`), so that a command that needs none starts none.

mod acquire;
mod append;
mod certs;
mod cluster;
mod completions;
mod connection;
mod demo;
mod dev;
mod duration;
mod exit;
mod files;
mod guard;
mod holder;
mod locks;
mod logging;
mod output;
mod run;
mod server;
mod session;
mod shell;
mod signals;
mod status;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use connection::ConnectionArguments;
use exit::{Exit, Failure};
use logging::LoggingArguments;
use output::{Output, OutputArguments};

/// Locks that a cluster agrees on, and files that only their holder can append to.
#[derive(Debug, Parser)]
#[command(
    name = "quorlock",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Begin with `quorlock demo`, a tour that takes 20 seconds, or with `quorlock dev`, which \
                  keeps a cluster on this machine for you to play with.",
    after_long_help = HELP
)]
pub struct Cli {
    #[command(flatten)]
    connection: ConnectionArguments,
    #[command(flatten)]
    output: OutputArguments,
    #[command(flatten)]
    logging: LoggingArguments,
    #[command(subcommand)]
    command: Command,
}

/// What is the same for all commands.
const HELP: &str = "\
Begin with `quorlock demo`, a tour that takes 20 seconds, or with `quorlock dev`, which keeps a \
cluster on this machine for you to play with.

Exit codes:
   0  done
   1  the answer is no: a lock was not obtained, a cluster has no quorum, something does not exist
  64  the command line is wrong
  69  no quorum, or the cluster was not reached in time
  70  a fault of quorlock itself
  75  the lock was lost
  77  not permitted to this certificate
  78  the configuration is wrong: certificates, files, folders

Environment:
  QUORLOCK_ENDPOINTS, QUORLOCK_CA, QUORLOCK_CERT, QUORLOCK_KEY, QUORLOCK_CONFIG, QUORLOCK_TIMEOUT
      stand for the options of the same names
  QUORLOCK_LOG   which messages of the program are shown, such as info or quorlock=debug
  NO_COLOR       no colours, also on a terminal";

#[derive(Debug, Subcommand)]
enum Command {
    /// The tour: starts a cluster, kills its leader, and shows that nothing is lost.
    Demo(demo::DemoArguments),
    /// Keeps a cluster on this machine, for you to try things with.
    Dev(dev::DevArguments),
    /// Runs one node.
    Server(Box<server::ServerArguments>),
    /// Makes and shows certificates.
    #[command(subcommand)]
    Certs(certs::CertsCommand),
    /// Shows how every node is; exits with 1 if there is no quorum.
    Status(status::StatusArguments),

    /// Runs a command while holding a lock.
    Run(run::RunArguments),
    /// Acquires a lock, and keeps it after the command has ended.
    Acquire(acquire::AcquireArguments),
    /// Releases a lock that `acquire` left held.
    Release(acquire::ReleaseArguments),
    /// Lists the locks that are held.
    Locks(locks::LocksArguments),
    /// Says who holds a lock, and who waits for it.
    Why(locks::WhyArguments),
    /// Shows who held a lock before, and how each hold ended.
    History(locks::HistoryArguments),
    /// Takes a lock away from its holder. Needs the certificate of an admin.
    Break(locks::BreakArguments),

    /// Appends to a file.
    Append(append::AppendArguments),
    /// Prints a file.
    Cat(files::CatArguments),
    /// Prints the end of a file, and follows it.
    Tail(files::TailArguments),
    /// Lists and creates files.
    Files(files::FilesArguments),

    /// An interactive client.
    Shell(shell::ShellArguments),

    /// Prints completions for a shell.
    Completions(completions::CompletionsArguments),
    /// Prints the manual page, or writes those of all commands to a folder.
    Man(completions::ManArguments),

    #[command(name = "__exec", hide = true)]
    Exec(run::ExecArguments),
    #[command(name = "__guard", hide = true)]
    Guard(guard::GuardArguments),
    #[command(name = "__hold", hide = true)]
    Hold(holder::HoldArguments),
    #[command(name = "__demo-holder", hide = true)]
    DemoHolder,
}

/// What commands need beside their own arguments.
#[derive(Debug)]
pub(crate) struct Context {
    /// How to reach the cluster.
    pub(crate) connection: ConnectionArguments,
    /// Where and how results are printed.
    pub(crate) output: Output,
    /// What is logged, and how.
    pub(crate) logging: LoggingArguments,
}

impl Context {
    /// Runs a future on this thread, with timers, sockets, signals and child processes.
    #[expect(clippy::unused_self, reason = "what commands need, they get from here")]
    pub(crate) fn block_on<T>(
        &self,
        future: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::internal(format!("cannot start the runtime: {error}")))?;
        let result = runtime.block_on(future);
        // What still blocks (a read of a terminal, a look-up of a name) must not keep us here.
        runtime.shutdown_background();
        result
    }
}

/// The whole program: reads the arguments of the process, and does what they say.
pub fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => run(cli),
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            // There is nobody left to tell if this cannot be printed.
            drop(error.print());
            exit.into()
        }
    }
}

/// Does what a command line says.
pub fn run(cli: Cli) -> ExitCode {
    let Cli { connection, output, logging, command } = cli;
    let context = Context { connection, output: output.output(), logging };
    match dispatch(command, &context) {
        Ok(exit) => exit.into(),
        Err(failure) => failure.report(&context.output).into(),
    }
}

fn dispatch(command: Command, context: &Context) -> Result<Exit, Failure> {
    let logging = &context.logging;
    match command {
        Command::Server(_) => logging.start(logging::Default::Info)?,
        Command::Demo(_)
        | Command::Dev(_)
        | Command::Certs(_)
        | Command::Status(_)
        | Command::Run(_)
        | Command::Acquire(_)
        | Command::Release(_)
        | Command::Locks(_)
        | Command::Why(_)
        | Command::History(_)
        | Command::Break(_)
        | Command::Append(_)
        | Command::Cat(_)
        | Command::Tail(_)
        | Command::Files(_)
        | Command::Shell(_)
        | Command::Completions(_)
        | Command::Man(_)
        | Command::Exec(_)
        | Command::Guard(_)
        | Command::Hold(_)
        | Command::DemoHolder => logging.start(logging::Default::Error)?,
    }
    match command {
        Command::Demo(arguments) => demo::run(arguments, context),
        Command::Dev(arguments) => dev::run(arguments, context),
        Command::Server(arguments) => server::run(*arguments, context),
        Command::Certs(command) => certs::run(command, context),
        Command::Status(arguments) => status::run(arguments, context),
        Command::Run(arguments) => run::run(arguments, context),
        Command::Acquire(arguments) => acquire::acquire(arguments, context),
        Command::Release(arguments) => acquire::release(arguments, context),
        Command::Locks(arguments) => locks::locks(arguments, context),
        Command::Why(arguments) => locks::why(arguments, context),
        Command::History(arguments) => locks::history(arguments, context),
        Command::Break(arguments) => locks::break_lock(arguments, context),
        Command::Append(arguments) => append::run(arguments, context),
        Command::Cat(arguments) => files::cat(arguments, context),
        Command::Tail(arguments) => files::tail(arguments, context),
        Command::Files(arguments) => files::files(arguments, context),
        Command::Shell(arguments) => shell::run(arguments, context),
        Command::Completions(arguments) => completions::completions(arguments, context),
        Command::Man(arguments) => completions::man(arguments, context),
        Command::Exec(arguments) => run::exec(arguments, context),
        Command::Guard(arguments) => guard::run(arguments, context),
        Command::Hold(arguments) => holder::run(arguments, context),
        Command::DemoHolder => demo::hold(context),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_may_come_before_and_after_the_command() {
        for line in [
            ["quorlock", "--config", "a.toml", "-o", "json", "status"],
            ["quorlock", "status", "--config", "a.toml", "-o", "json"],
        ] {
            let cli = Cli::try_parse_from(line).expect("it can be parsed");
            assert_eq!(cli.connection.config.as_deref(), Some("a.toml".as_ref()));
            assert_eq!(cli.output.format, output::Format::Json);
        }
    }
}
