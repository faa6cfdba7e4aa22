//! What a client needs to know before it can connect.

#[cfg(feature = "config-file")]
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorlock_core::client::ClientConfig;
use quorlock_core::text::Label;

#[cfg(feature = "config-file")]
use super::client_file::{ClientFile, candidates};
use super::endpoints::{Endpoint, ParseEndpointError};
use super::label::own_label;
use crate::tls::{Credentials, CredentialsError};

/// Where the cluster is, how to be believed there, and the settings of the session.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Where nodes are. One that is up is enough, since it knows the others; more of them help when
    /// some are down. An address that is given here with a node's id wins over the one that the
    /// cluster tells.
    pub endpoints: Vec<Endpoint>,
    /// Whom to believe, and how to be believed.
    pub credentials: Credentials,
    /// The settings of the session.
    pub config: ClientConfig,
    /// Who we are, for people who ask who holds a lock.
    pub label: Label,
}

/// Why options could not be found.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// Neither the environment nor a file says where the cluster is.
    #[error(
        "it is not known where the cluster is: set QUORLOCK_ENDPOINTS, QUORLOCK_CA, QUORLOCK_CERT \
         and QUORLOCK_KEY, or run in a folder with .quorlock/client.toml"
    )]
    NotFound,
    /// A variable of the environment is missing, while others are there.
    #[error("{variable} is not set, though QUORLOCK_ENDPOINTS is: set both, or none")]
    Missing {
        /// Which.
        variable: &'static str,
    },
    /// An endpoint cannot be read.
    #[error(transparent)]
    Endpoint(#[from] ParseEndpointError),
    /// The certificates or the key cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The file cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{path} cannot be used: {reason}", path = path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Where [`ClientOptions::from_env`] looks when the environment says nothing.
pub const CLIENT_FILE: &str = ".quorlock/client.toml";
/// Where it looks then, in the home folder.
pub const HOME_CLIENT_FILE: &str = ".config/quorlock/client.toml";

impl ClientOptions {
    /// Options with the default settings and the label of this process
    /// ([`own_label`]).
    pub fn new(endpoints: Vec<Endpoint>, credentials: Credentials) -> Self {
        Self { endpoints, credentials, config: ClientConfig::default(), label: own_label() }
    }

    /// Sets the lease, with all settings that follow from it ([`ClientConfig::for_lease`]); how long
    /// opening is tried stays as it was.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        let open_timeout = self.config.open_timeout;
        self.config = ClientConfig { open_timeout, ..ClientConfig::for_lease(lease) };
        self
    }

    /// Sets how long [`Client::connect`](super::Client::connect) tries.
    #[must_use]
    pub fn open_timeout(mut self, timeout: Duration) -> Self {
        self.config.open_timeout = timeout;
        self
    }

    /// Options from the environment, as the command line finds them: `QUORLOCK_ENDPOINTS`
    /// (separated by commas), `QUORLOCK_CA`, `QUORLOCK_CERT` and `QUORLOCK_KEY` (files in PEM
    /// format). Without the first, from the file that `QUORLOCK_CONFIG` names, or from
    /// [`CLIENT_FILE`] here, or from [`HOME_CLIENT_FILE`] in the home folder (in
    /// `$XDG_CONFIG_HOME`, if that is set, instead of `.config`); files need the feature
    /// `config-file`.
    ///
    /// # Errors
    /// [`OptionsError`]: nothing is set, or what is set cannot be used.
    pub fn from_env() -> Result<Self, OptionsError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, OptionsError> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let Some(endpoints) = variable("QUORLOCK_ENDPOINTS") else {
            return Self::from_found_file(variable);
        };
        let endpoints = endpoints.split(',').filter(|text| !text.trim().is_empty());
        let endpoints = endpoints.map(str::parse).collect::<Result<Vec<Endpoint>, _>>()?;
        let file = |name| variable(name).ok_or(OptionsError::Missing { variable: name });
        let (ca, certificate, key) =
            (file("QUORLOCK_CA")?, file("QUORLOCK_CERT")?, file("QUORLOCK_KEY")?);
        let credentials =
            Credentials::from_files(Path::new(&ca), Path::new(&certificate), Path::new(&key))?;
        Ok(Self::new(endpoints, credentials))
    }

    #[cfg(not(feature = "config-file"))]
    fn from_found_file(_variable: impl Fn(&str) -> Option<String>) -> Result<Self, OptionsError> {
        Err(OptionsError::NotFound)
    }

    #[cfg(feature = "config-file")]
    fn from_found_file(variable: impl Fn(&str) -> Option<String>) -> Result<Self, OptionsError> {
        let candidates =
            candidates(None, Path::new(""), &|name| variable(name).map(OsString::from));
        let found = ClientFile::first_of(&candidates)?;
        Self::from_client_file(found.ok_or(OptionsError::NotFound)?)
    }

    /// Options from a file:
    ///
    /// ```toml
    /// endpoints = ["0=127.0.0.1:7000", "1=127.0.0.1:7001", "2=127.0.0.1:7002"]
    /// ca = "ca.pem"
    /// cert = "client.pem"
    /// key = "client-key.pem"
    /// ```
    ///
    /// Paths are relative to the file's folder.
    ///
    /// # Errors
    /// [`OptionsError`]: the file, or what it names, cannot be used.
    #[cfg(feature = "config-file")]
    pub fn from_file(path: &Path) -> Result<Self, OptionsError> {
        Self::from_client_file(ClientFile::read(path)?)
    }

    #[cfg(feature = "config-file")]
    fn from_client_file(file: ClientFile) -> Result<Self, OptionsError> {
        let ClientFile { endpoints, ca, cert, key, location } = file;
        let missing = |part: &str| OptionsError::Malformed {
            path: location.clone(),
            reason: format!("it does not say the {part}"),
        };
        if endpoints.is_empty() {
            return Err(missing("endpoints"));
        }
        let endpoints = endpoints.iter().map(|text| text.parse());
        let endpoints = endpoints.collect::<Result<Vec<Endpoint>, _>>()?;
        let credentials = Credentials::from_files(
            &ca.ok_or_else(|| missing("ca"))?,
            &cert.ok_or_else(|| missing("cert"))?,
            &key.ok_or_else(|| missing("key"))?,
        )?;
        Ok(Self::new(endpoints, credentials))
    }
}

#[cfg(all(test, feature = "cli"))]
mod tests {
    use super::*;
    use crate::tls::Role;
    use crate::tls::authority::Authority;

    /// A folder with credentials and a file that names them.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).expect("a file");
        };
        let (authority, _) = Authority::create(Duration::from_hours(1)).expect("an authority");
        let role = Role::Client("ada".into());
        let issued = authority.issue(role, Duration::from_hours(1)).expect("a good name");
        write("ca.pem", authority.certificate());
        write("cert.pem", &issued.certificate);
        write("key.pem", &issued.key);
        write(
            "client.toml",
            "endpoints = ['0=a:1', 'b:2']\nca = 'ca.pem'\ncert = 'cert.pem'\nkey = 'key.pem'\n",
        );
        folder
    }

    fn texts(options: &ClientOptions) -> Vec<String> {
        options.endpoints.iter().map(Endpoint::to_string).collect()
    }

    #[test]
    fn a_file_names_what_lies_beside_it() {
        let folder = folder();
        let options = ClientOptions::from_file(&folder.path().join("client.toml"));
        assert_eq!(texts(&options.expect("a good file")), ["0=a:1", "b:2"]);
        let bad = folder.path().join("bad.toml");
        std::fs::write(&bad, "endpoint = []").expect("a file");
        let error = ClientOptions::from_file(&bad).expect_err("another key");
        assert!(error.to_string().contains("endpoint"), "{error}");
    }

    #[test]
    fn the_environment_wins_over_files() {
        let folder = folder();
        let path = |name: &str| Some(folder.path().join(name).display().to_string());
        let named = |name: &str| match name {
            "QUORLOCK_CONFIG" => path("client.toml"),
            _ => None,
        };
        let options = ClientOptions::from_variables(named).expect("a good file");
        assert_eq!(texts(&options), ["0=a:1", "b:2"]);
        let all = |name: &str| match name {
            "QUORLOCK_ENDPOINTS" => Some("c:3, d:4".into()),
            "QUORLOCK_CA" => path("ca.pem"),
            "QUORLOCK_CERT" => path("cert.pem"),
            "QUORLOCK_KEY" => path("key.pem"),
            _ => named(name),
        };
        assert_eq!(
            texts(&ClientOptions::from_variables(all).expect("all is there")),
            ["c:3", "d:4"]
        );
        let without_key = |name: &str| all(name).filter(|_| name != "QUORLOCK_KEY");
        let error = ClientOptions::from_variables(without_key).expect_err("no key");
        assert!(matches!(error, OptionsError::Missing { variable: "QUORLOCK_KEY" }), "{error}");
    }

    #[test]
    fn the_lease_brings_its_settings_and_keeps_the_patience() {
        let folder = folder();
        let options = ClientOptions::from_file(&folder.path().join("client.toml"));
        let options = options.expect("a good file").open_timeout(Duration::from_secs(7));
        let config = options.lease(Duration::from_secs(3)).config;
        assert_eq!(config.keep_alive_interval, Duration::from_secs(1));
        assert_eq!(config.open_timeout, Duration::from_secs(7));
    }
}
