//! `quorlock completions` and `quorlock man`: made of the grammar of the command line itself.

use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;

use super::exit::{Exit, Failure};
use super::{Cli, Context};

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArguments {
    /// For which shell.
    shell: Shell,
}

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
pub(crate) struct ManArguments {
    /// Writes a page for every command into this folder.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prints the completions for a shell.
pub(crate) fn completions(
    arguments: CompletionsArguments,
    context: &Context,
) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "quorlock", &mut script);
    context.output.raw(&script)?;
    Ok(Exit::Ok)
}

/// Prints the page of the whole program, or writes all of them.
pub(crate) fn man(arguments: ManArguments, context: &Context) -> Result<Exit, Failure> {
    let Some(folder) = arguments.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page)?;
        context.output.raw(&page)?;
        return Ok(Exit::Ok);
    };
    let write = || {
        std::fs::create_dir_all(&folder)?;
        clap_mangen::generate_to(Cli::command(), &folder)
    };
    write().map_err(|error: std::io::Error| {
        Failure::configuration(format!("cannot write pages to {}: {error}", folder.display()))
    })?;
    Ok(Exit::Ok)
}
