//! How a command finds its cluster.
//!
//! It needs the addresses of nodes, and three files: the certificate of the authority, one's own
//! certificate, and its key. Each of the four comes from the first of these that has it:
//!
//! 1. the options `--endpoints`, `--ca`, `--cert`, `--key`;
//! 2. the variables `QUORLOCK_ENDPOINTS`, `QUORLOCK_CA`, `QUORLOCK_CERT`, `QUORLOCK_KEY`;
//! 3. one client file: that of `--config`, else that of `QUORLOCK_CONFIG`, else
//!    `./.quorlock/client.toml`, which `quorlock dev` writes, else `quorlock/client.toml` in
//!    `$XDG_CONFIG_HOME` or `~/.config`. Only the first that exists is read, so that parts of two
//!    clusters are never mixed.
//!
//! ```toml
//! endpoints = ["127.0.0.1:7000", "127.0.0.1:7001", "127.0.0.1:7002"]
//! ca = "certs/ca.pem"       # relative to the folder of this file
//! cert = "certs/client.pem"
//! key = "certs/client.key"
//! ```

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::certs::check_validity;
use super::duration;
use super::exit::Failure;
use crate::client::client_file::{Candidate, ClientFile, candidates};
use crate::client::{CLIENT_FILE, Client, ClientOptions, Endpoint, OptionsError};
use crate::tls::Credentials;

/// Stands for `--endpoints`.
pub(crate) const ENDPOINTS_VARIABLE: &str = "QUORLOCK_ENDPOINTS";
/// Stands for `--ca`.
pub(crate) const CA_VARIABLE: &str = "QUORLOCK_CA";
/// Stands for `--cert`.
pub(crate) const CERT_VARIABLE: &str = "QUORLOCK_CERT";
/// Stands for `--key`.
pub(crate) const KEY_VARIABLE: &str = "QUORLOCK_KEY";
/// The client file of a cluster on this machine, in the folder where `quorlock dev` was started.
pub(crate) const LOCAL_FILE: &str = CLIENT_FILE;

/// How to reach the cluster.
// The variables are read by hand: clap would hand a client's down to the server's options of the same
// names.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Connection")]
#[group(skip)]
pub(crate) struct ConnectionArguments {
    /// Where nodes listen; one that lives is enough. [env: QUORLOCK_ENDPOINTS]
    #[arg(long, global = true, value_name = "HOST:PORT,...", value_delimiter = ',')]
    pub(crate) endpoints: Vec<String>,
    /// The certificate of the cluster's authority. [env: QUORLOCK_CA]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// The certificate to show. [env: QUORLOCK_CERT]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,
    /// Its private key. [env: QUORLOCK_KEY]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// A client file with all of these. [env: QUORLOCK_CONFIG]
    ///
    /// Without it ./.quorlock/client.toml is read, or else ~/.config/quorlock/client.toml.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// How long to wait for the cluster, such as 10 (seconds) or 500ms.
    #[arg(
        long, global = true, value_name = "TIME", default_value = "10", env = "QUORLOCK_TIMEOUT",
        hide_env_values = true,
        value_parser = duration::parse
    )]
    pub(crate) timeout: Duration,
}

/// What is needed to reach a cluster. The paths are absolute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Connection {
    /// `[id=]host:port`.
    pub(crate) endpoints: Vec<String>,
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Connection {
    /// The environment in which every command finds the same cluster.
    pub(crate) fn variables(&self) -> [(&'static str, OsString); 4] {
        [
            (ENDPOINTS_VARIABLE, self.endpoints.join(",").into()),
            (CA_VARIABLE, self.ca.clone().into()),
            (CERT_VARIABLE, self.cert.clone().into()),
            (KEY_VARIABLE, self.key.clone().into()),
        ]
    }

    /// With the certificates read, and the default settings.
    ///
    /// # Errors
    /// An endpoint or a certificate is not as it should be.
    pub(crate) fn options(&self) -> Result<ClientOptions, Failure> {
        let endpoints = self.endpoints.iter().map(|text| text.parse::<Endpoint>());
        let endpoints = endpoints.collect::<Result<_, _>>().map_err(Failure::usage)?;
        let credentials = self.credentials()?;
        if let Some(warning) = check_validity(&credentials)? {
            tracing::warn!("{warning}");
        }
        Ok(ClientOptions::new(endpoints, credentials))
    }

    /// Reads the certificates.
    ///
    /// # Errors
    /// They cannot be read.
    pub(crate) fn credentials(&self) -> Result<Credentials, Failure> {
        Credentials::from_files(&self.ca, &self.cert, &self.key).map_err(|error| {
            Failure::configuration(error)
                .hint("make certificates with `quorlock certs`, and name them with --ca, --cert and --key")
        })
    }
}

impl ConnectionArguments {
    /// Finds out how to reach the cluster.
    ///
    /// # Errors
    /// Something is missing: the failure says where it was looked for.
    pub(crate) fn find(&self) -> Result<Connection, Failure> {
        let folder = std::env::current_dir().map_err(|error| {
            Failure::configuration(format!("the current folder cannot be told: {error}"))
        })?;
        self.find_in(&folder, &|name| std::env::var_os(name))
    }

    /// What a client of a command needs: the cluster that is found, tried for as long as `--timeout`
    /// says.
    ///
    /// # Errors
    /// As [`ConnectionArguments::find`] and [`Connection::options`].
    pub(crate) fn options(&self) -> Result<ClientOptions, Failure> {
        Ok(self.find()?.options()?.open_timeout(self.timeout))
    }

    /// Opens a session with the cluster that is found.
    ///
    /// # Errors
    /// As [`ConnectionArguments::options`], or the cluster cannot be reached.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        Ok(Client::connect(self.options()?).await?)
    }

    fn find_in(
        &self,
        folder: &Path,
        environment: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Connection, Failure> {
        let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
        let path = |option: &Option<PathBuf>, name: &str| {
            let given = option.clone().or_else(|| variable(name).map(PathBuf::from));
            given.map(|path| folder.join(path))
        };
        let endpoints = if self.endpoints.is_empty() {
            let text = variable(ENDPOINTS_VARIABLE).unwrap_or_default();
            split(&text.to_string_lossy())
        } else {
            self.endpoints.clone()
        };
        let (ca, cert, key) = (
            path(&self.ca, CA_VARIABLE),
            path(&self.cert, CERT_VARIABLE),
            path(&self.key, KEY_VARIABLE),
        );
        if let (false, Some(ca), Some(cert), Some(key)) = (endpoints.is_empty(), &ca, &cert, &key) {
            let (ca, cert, key) = (ca.clone(), cert.clone(), key.clone());
            return Ok(Connection { endpoints, ca, cert, key });
        }
        let candidates = candidates(self.config.clone(), folder, environment);
        let file = ClientFile::first_of(&candidates)?;
        let missing = |what: &'static str| nowhere(what, file.as_ref(), &candidates);
        let of_file = |part: fn(&ClientFile) -> Option<PathBuf>| file.as_ref().and_then(part);
        let endpoints = match &file {
            Some(file) if endpoints.is_empty() => file.endpoints.clone(),
            Some(_) | None => endpoints,
        };
        if endpoints.is_empty() {
            return Err(missing("endpoints"));
        }
        Ok(Connection {
            endpoints,
            ca: ca.or_else(|| of_file(|file| file.ca.clone())).ok_or_else(|| missing("ca"))?,
            cert: cert
                .or_else(|| of_file(|file| file.cert.clone()))
                .ok_or_else(|| missing("cert"))?,
            key: key.or_else(|| of_file(|file| file.key.clone())).ok_or_else(|| missing("key"))?,
        })
    }
}

/// A client file that cannot be used.
impl From<OptionsError> for Failure {
    fn from(error: OptionsError) -> Self {
        match &error {
            OptionsError::Malformed { .. } => Self::configuration(error).hint(
                "it has the lines endpoints = [\"host:port\", ...], ca, cert and key, each of these the \
                 path of a PEM file",
            ),
            OptionsError::NotFound
            | OptionsError::Missing { .. }
            | OptionsError::Endpoint(_)
            | OptionsError::Credentials(_)
            | OptionsError::File { .. } => Self::configuration(error),
        }
    }
}

fn split(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Where something was looked for in vain.
fn nowhere(what: &str, file: Option<&ClientFile>, candidates: &[Candidate]) -> Failure {
    let option = format!("--{what} and QUORLOCK_{}", what.to_uppercase());
    let looked = if let Some(file) = file {
        format!("{option} are not set, and {} does not say", file.location.display())
    } else {
        let paths: Vec<_> = candidates.iter().map(|c| c.path.display().to_string()).collect();
        format!("{option} are not set, and there is no {}", paths.join(" and no "))
    };
    let what = match what {
        "endpoints" => format!("it is not known where the cluster is: {looked}"),
        _ => format!("a certificate or key is missing: {looked}"),
    };
    Failure::configuration(what).hint(
        "run this where `quorlock dev` runs, or name a client file with --config, or give --endpoints, \
         --ca, --cert and --key",
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        connection: ConnectionArguments,
    }

    fn arguments(line: &[&str]) -> ConnectionArguments {
        Line::try_parse_from([&["test"], line].concat()).expect("it can be parsed").connection
    }

    fn nothing(_name: &str) -> Option<OsString> {
        None
    }

    fn write(folder: &Path, name: &str, text: &str) {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().expect("it is in a folder")).expect("it can be made");
        std::fs::write(path, text).expect("it can be written");
    }

    const ALL: &str = "endpoints = ['file:1']\nca = 'ca.pem'\ncert = 'c.pem'\nkey = '/abs/c.key'\n";

    #[test]
    fn options_come_before_variables_and_those_before_the_file() {
        let folder = tempfile::tempdir().expect("there is room");
        write(folder.path(), LOCAL_FILE, ALL);
        let arguments = arguments(&["--endpoints", "a:1,3=b:2"]);
        let variables = |name: &str| match name {
            "QUORLOCK_ENDPOINTS" => Some("never:1".into()),
            "QUORLOCK_CERT" => Some("mine.pem".into()),
            "QUORLOCK_KEY" => Some("".into()),
            _ => None,
        };
        let found = arguments.find_in(folder.path(), &variables).expect("all is there");
        assert_eq!(found.endpoints, ["a:1", "3=b:2"]);
        assert_eq!(found.cert, folder.path().join("mine.pem"));
        // Relative to the file, not to the current folder.
        assert_eq!(found.ca, folder.path().join(".quorlock/ca.pem"));
        assert_eq!(found.key, Path::new("/abs/c.key"));
    }

    #[test]
    fn the_first_file_that_exists_is_the_only_one() {
        let folder = tempfile::tempdir().expect("there is room");
        let home = folder.path().join("home");
        write(&home, ".config/quorlock/client.toml", &ALL.replace("file:1", "home:1"));
        write(&home, "xdg/quorlock/client.toml", &ALL.replace("file:1", "xdg:1"));
        let variables = |name: &str| (name == "HOME").then(|| home.clone().into_os_string());
        let found = arguments(&[]).find_in(folder.path(), &variables).expect("all is there");
        assert_eq!(found.endpoints, ["home:1"]);
        let variables = |name: &str| match name {
            "HOME" => Some(home.clone().into_os_string()),
            "XDG_CONFIG_HOME" => Some(home.join("xdg").into_os_string()),
            _ => None,
        };
        let found = arguments(&[]).find_in(folder.path(), &variables).expect("all is there");
        assert_eq!(found.endpoints, ["xdg:1"]);
        write(folder.path(), LOCAL_FILE, "endpoints = ['local:1']");
        let failure =
            arguments(&[]).find_in(folder.path(), &variables).expect_err("no certificate");
        assert!(failure.to_string().contains("--ca and QUORLOCK_CA are not set"), "{failure}");
        write(folder.path(), "named.toml", &ALL.replace("file:1", "named:1"));
        let found = arguments(&["--config", "named.toml"]).find_in(folder.path(), &variables);
        assert_eq!(found.expect("all is there").endpoints, ["named:1"]);
        let variables = |name: &str| (name == "QUORLOCK_CONFIG").then(|| "named.toml".into());
        let found = arguments(&[]).find_in(folder.path(), &variables).expect("all is there");
        assert_eq!(found.endpoints, ["named:1"]);
    }

    #[test]
    fn says_where_it_looked() {
        let folder = tempfile::tempdir().expect("there is room");
        let failure =
            arguments(&[]).find_in(folder.path(), &nothing).expect_err("there is nothing");
        assert!(failure.to_string().contains(LOCAL_FILE), "{failure}");
        assert!(failure.to_string().contains("quorlock dev"), "{failure}");
        let failure = arguments(&["--config", "no.toml"])
            .find_in(folder.path(), &nothing)
            .expect_err("no file");
        assert!(failure.to_string().contains("no.toml"), "{failure}");
        assert_eq!(failure.exit().code(), 78);
    }

    #[test]
    fn a_file_with_a_slip_is_refused() {
        let folder = tempfile::tempdir().expect("there is room");
        write(folder.path(), LOCAL_FILE, "endpoint = ['a:1']");
        let failure = arguments(&[]).find_in(folder.path(), &nothing).expect_err("it is misspelt");
        assert!(failure.to_string().contains("endpoint"), "{failure}");
    }

    #[test]
    fn all_options_need_no_file() {
        let folder = tempfile::tempdir().expect("there is room");
        write(folder.path(), LOCAL_FILE, "nonsense");
        let line = ["--endpoints", "a:1", "--ca", "a", "--cert", "b", "--key", "c"];
        let found = arguments(&line).find_in(folder.path(), &nothing).expect("all is there");
        assert_eq!(found.ca, folder.path().join("a"));
        let [endpoints, ..] = found.variables();
        assert_eq!(endpoints, ("QUORLOCK_ENDPOINTS", "a:1".into()));
    }
}
