//! The client file: how a cluster is reached, in TOML.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::options::{CLIENT_FILE, OptionsError};

/// The user's client file, in the folder for configuration.
const USER_FILE: &str = "quorlock/client.toml";

/// A client file. What is not in it, somebody else has to say. The paths are relative to the same folder
/// as the file's own was.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientFile {
    #[serde(default)]
    pub(crate) endpoints: Vec<String>,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    /// Where it is.
    #[serde(skip)]
    pub(crate) location: PathBuf,
}

/// A client file that may be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Candidate {
    /// Where it may be.
    pub(crate) path: PathBuf,
    /// Whether the user named it: then it has to exist.
    pub(crate) is_named: bool,
}

/// The client files that may be read, the first choice first: the one that is named, or else that of
/// the folder, then that of the user.
pub(crate) fn candidates(
    named: Option<PathBuf>,
    folder: &Path,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Vec<Candidate> {
    let variable = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = named.or_else(|| variable("QUORLOCK_CONFIG")) {
        return vec![Candidate { path: folder.join(path), is_named: true }];
    }
    let of_home = || variable("HOME").map(|home| home.join(".config"));
    let of_user = variable("XDG_CONFIG_HOME").filter(|path| path.is_absolute()).or_else(of_home);
    let paths = [Some(folder.join(CLIENT_FILE)), of_user.map(|config| config.join(USER_FILE))];
    paths.into_iter().flatten().map(|path| Candidate { path, is_named: false }).collect()
}

impl ClientFile {
    /// The first that exists.
    pub(crate) fn first_of(candidates: &[Candidate]) -> Result<Option<Self>, OptionsError> {
        for Candidate { path, is_named } in candidates {
            match Self::read(path) {
                Err(OptionsError::File { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound && !is_named => {}
                read => return read.map(Some),
            }
        }
        Ok(None)
    }

    /// Reads one.
    pub(crate) fn read(path: &Path) -> Result<Self, OptionsError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| OptionsError::File { path: path.to_owned(), source })?;
        let file: Self = toml::from_str(&text).map_err(|error| OptionsError::Malformed {
            path: path.to_owned(),
            reason: error.to_string().trim_end().to_owned(),
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let from_here = |part: Option<PathBuf>| part.map(|path| folder.join(path));
        Ok(Self {
            endpoints: file.endpoints,
            ca: from_here(file.ca),
            cert: from_here(file.cert),
            key: from_here(file.key),
            location: path.to_owned(),
        })
    }
}
