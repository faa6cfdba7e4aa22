//! A certificate, its key, and the authority whose word counts.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::identity::{Identity, IdentityError};

/// What one needs to take part: whom to believe, and how to be believed.
pub struct Credentials {
    authorities: Vec<CertificateDer<'static>>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    identity: Identity,
}

/// When a certificate is good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Validity {
    /// Not before this.
    pub from: SystemTime,
    /// Not after this.
    pub until: SystemTime,
}

/// Why credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not PEM, or does not hold what it should.
    #[error("{path} does not hold a {what} in PEM format", path = path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// The certificate is not one of Quorlock's.
    #[error("the certificate cannot be used: {0}")]
    Identity(#[from] IdentityError),
    /// The parts do not go together.
    #[error(
        "the certificate, its key and the authority cannot be used: {reason}; check that the key \
         belongs to the certificate"
    )]
    Unusable {
        /// Why.
        reason: String,
    },
}

impl CredentialsError {
    pub(super) fn unusable(error: impl fmt::Display) -> Self {
        Self::Unusable { reason: error.to_string() }
    }
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        Self {
            authorities: self.authorities.clone(),
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            identity: self.identity.clone(),
        }
    }
}

/// Without the key.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads the certificates of the authority (several while one replaces the other), the
    /// certificate with its chain, and the private key, each a PEM file.
    ///
    /// # Errors
    /// [`CredentialsError`]: a file that cannot be read or holds something else, a certificate that
    /// does not name an identity.
    pub fn from_files(ca: &Path, certificate: &Path, key: &Path) -> Result<Self, CredentialsError> {
        let authorities = certificates(ca)?;
        let chain = certificates(certificate)?;
        let key =
            PrivateKeyDer::from_pem_file(key).map_err(|error| pem(key, "private key", error))?;
        Self::new(authorities, chain, key)
    }

    /// The same, from PEM that is in memory.
    ///
    /// # Errors
    /// As [`Credentials::from_files`]; the paths in them are `ca`, `certificate` and `key`.
    pub fn from_pem(ca: &str, certificate: &str, key: &str) -> Result<Self, CredentialsError> {
        let all = |pem: &str, name: &str| {
            let found = CertificateDer::pem_slice_iter(pem.as_bytes());
            let found = found.collect::<Result<Vec<_>, _>>();
            found.map_err(|error| self::pem(Path::new(name), "certificate", error))
        };
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes());
        let key = key.map_err(|error| pem(Path::new("key"), "private key", error))?;
        Self::new(all(ca, "ca")?, all(certificate, "certificate")?, key)
    }

    fn new(
        authorities: Vec<CertificateDer<'static>>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, CredentialsError> {
        let first = chain.first().ok_or(IdentityError::NoCertificate)?;
        let identity = Identity::of_certificate(first)?;
        Ok(Self { authorities, chain, key, identity })
    }

    /// Whom these credentials are for.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// When the certificate is good; `None` if that cannot be told.
    pub fn validity(&self) -> Option<Validity> {
        Validity::of(self.chain.first()?)
    }

    pub(super) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.chain.clone()
    }

    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }

    /// Bytes that nobody else has, to derive other secrets from.
    #[cfg(feature = "server")]
    pub(crate) fn secret(&self) -> &[u8] {
        self.key.secret_der()
    }

    pub(super) fn roots(&self) -> Result<RootCertStore, CredentialsError> {
        let mut roots = RootCertStore::empty();
        for authority in &self.authorities {
            roots.add(authority.clone()).map_err(CredentialsError::unusable)?;
        }
        Ok(roots)
    }
}

impl Validity {
    /// Of a certificate; `None` if it cannot be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let validity = parsed.validity();
        let moment = |seconds: i64| {
            let since = Duration::from_secs(u64::try_from(seconds).ok()?);
            SystemTime::UNIX_EPOCH.checked_add(since)
        };
        Some(Self {
            from: moment(validity.not_before.timestamp())?,
            until: moment(validity.not_after.timestamp())?,
        })
    }
}

/// All certificates of a PEM file.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let wrong = |error| pem(path, "certificate", error);
    let found = CertificateDer::pem_file_iter(path).map_err(wrong)?;
    let found = found.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    if found.is_empty() { Err(wrong(PemError::NoItemsFound)) } else { Ok(found) }
}

fn pem(path: &Path, what: &'static str, error: PemError) -> CredentialsError {
    let path = path.to_owned();
    if let PemError::Io(source) = error {
        CredentialsError::File { path, source }
    } else {
        CredentialsError::Pem { path, what }
    }
}
