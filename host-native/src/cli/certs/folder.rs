//! A folder of certificates and keys.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Authority, Failure, Issued, Role};

/// A folder of certificates and keys.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder at a path. It need not be there yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file of a certificate.
    pub(crate) fn certificate(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.pem"))
    }

    /// The file of a key.
    pub(crate) fn key(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.key"))
    }

    /// How the files of a role are called.
    pub(crate) fn name_of(role: &Role) -> String {
        match role {
            Role::Node(id) => format!("node-{id}"),
            Role::Client(name) => format!("client-{name}"),
            Role::Admin(name) => format!("admin-{name}"),
        }
    }

    /// The authority whose certificate and key are here.
    ///
    /// # Errors
    /// They are not.
    pub(crate) fn authority(&self) -> Result<Authority, Failure> {
        Ok(Authority::from_files(&self.certificate("ca"), &self.key("ca"))?)
    }

    /// Makes a certificate, and stores it with its key. Returns its name.
    ///
    /// # Errors
    /// There is one already, or it cannot be written.
    pub(crate) fn issue(
        &self,
        authority: &Authority,
        role: Role,
        valid_for: Duration,
    ) -> Result<String, Failure> {
        let name = Self::name_of(&role);
        self.store(&name, &authority.issue(role, valid_for)?)?;
        Ok(name)
    }

    /// Stores a certificate and its key.
    ///
    /// # Errors
    /// There is one of them already, or they cannot be written.
    pub(crate) fn store(&self, name: &str, issued: &Issued) -> Result<(), Failure> {
        let (certificate, key) = (self.certificate(name), self.key(name));
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&self.path).map_err(|error| {
            let path = self.path.display();
            Failure::configuration(format!("cannot make the folder {path}: {error}"))
        })?;
        for file in [&certificate, &key] {
            if file.symlink_metadata().is_ok() {
                return Err(taken(file));
            }
        }
        // The key first: a certificate without one would look as if all was there.
        write_new(&key, &issued.key, 0o600)?;
        write_new(&certificate, &issued.certificate, 0o644)
    }
}

fn taken(file: &Path) -> Failure {
    Failure::configuration(format!("{} is there already, and is not overwritten", file.display()))
        .hint("use it, name another folder with --dir, or move the old files away yourself")
}

fn write_new(file: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let write = || {
        let mut opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(file)?;
        opened.write_all(text.as_bytes())?;
        opened.sync_all()
    };
    write().map_err(|error: std::io::Error| {
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            taken(file)
        } else {
            Failure::configuration(format!("cannot write {}: {error}", file.display()))
        }
    })
}
