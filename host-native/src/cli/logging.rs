//! What the program says of itself while it runs: `tracing`, on stderr.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::exit::Failure;

/// What is logged, and how.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Messages")]
#[group(skip)]
pub(crate) struct LoggingArguments {
    /// How messages of the program are written to stderr.
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Which messages are shown: error, warn, info, debug, trace, or such as `info,quorlock=debug`.
    ///
    /// Without it, servers show info, all else shows errors. [env: QUORLOCK_LOG]
    #[arg(long, global = true, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
}

/// How messages are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is shown if nobody says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Default {
    /// A server: what it does.
    Info,
    /// A command tells by itself what goes wrong.
    Error,
}

/// The environment variable that stands for `--log-level`.
pub(crate) const LOG_VARIABLE: &str = "QUORLOCK_LOG";

impl LoggingArguments {
    /// From now on messages are written.
    ///
    /// # Errors
    /// The level cannot be understood.
    pub(crate) fn start(&self, default: Default) -> Result<(), Failure> {
        let level = self.level(std::env::var(LOG_VARIABLE).ok(), default);
        let filter = EnvFilter::try_new(&level).map_err(|error| {
            Failure::usage(format!("{level:?} is no log level: {error}"))
                .hint("use error, warn, info, debug or trace, or for example info,quorlock=debug")
        })?;
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
        let started = match self.log_format {
            LogFormat::Text => builder.try_init(),
            LogFormat::Json => builder.json().try_init(),
        };
        // Somebody who uses this as a library may have a subscriber already; then that one is used.
        drop(started);
        Ok(())
    }

    fn level(&self, environment: Option<String>, default: Default) -> String {
        let environment = environment.filter(|level| !level.is_empty());
        self.log_level.clone().or(environment).unwrap_or_else(|| {
            // Of others only what is wrong: the disk's log in particular tells much.
            match default {
                Default::Info => "warn,quorlock=info".to_owned(),
                Default::Error => "error".to_owned(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_comes_before_the_environment() {
        let given = |log_level: Option<&str>| LoggingArguments {
            log_format: LogFormat::Text,
            log_level: log_level.map(str::to_owned),
        };
        let environment = Some("debug".to_owned());
        assert_eq!(given(Some("trace")).level(environment.clone(), Default::Error), "trace");
        assert_eq!(given(None).level(environment, Default::Error), "debug");
        assert_eq!(given(None).level(Some(String::new()), Default::Error), "error");
        assert_eq!(given(None).level(None, Default::Info), "warn,quorlock=info");
    }
}
