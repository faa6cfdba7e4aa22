//! The authority of a cluster: it signs the certificates of nodes and clients.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};

use super::credentials::{CredentialsError, certificates};
use super::identity::{ClusterId, Identity, Role, is_name};
use super::{NODE_NAME, Validity};

/// A certificate and its private key, both PEM.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// The key. Whoever has it is who the certificate says.
    pub key: String,
}

/// Without the key.
impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// Signs certificates for one cluster.
pub struct Authority {
    cluster: ClusterId,
    issuer: Issuer<'static, KeyPair>,
    /// PEM.
    certificate: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// Why a certificate cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Keys or certificates cannot be made, or what was read is none.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The system has no randomness.
    #[error("cannot draw a cluster id: {0}")]
    Random(#[from] getrandom::Error),
    /// The files of the authority cannot be read.
    #[error("the authority cannot be used: {0}")]
    Files(#[from] CredentialsError),
    /// A file of the authority cannot be read.
    #[error("cannot read the authority's key {path}: {source}", path = path.display())]
    Key {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The certificate is not that of an authority that was made here.
    #[error(
        "{path} is not the certificate of an authority made by `quorlock certs init`: its subject \
         does not name a cluster", path = path.display()
    )]
    NoCluster {
        /// Which.
        path: std::path::PathBuf,
    },
    /// The name of a client has other characters than a certificate may have.
    #[error("{name:?} cannot be a name: use 1 to 64 letters, digits and . _ -")]
    Name {
        /// Which.
        name: String,
    },
}

/// The subject of an authority: this, then the cluster id.
const SUBJECT: &str = "quorlock cluster ";

impl Authority {
    /// A new authority, for a new cluster. Returns it with its own certificate and key.
    ///
    /// # Errors
    /// [`AuthorityError`] if there is no randomness.
    pub fn create(valid_for: Duration) -> Result<(Self, Issued), AuthorityError> {
        Self::create_for(ClusterId::random()?, valid_for)
    }

    /// A new authority for a cluster that exists: to replace the one that expires.
    ///
    /// # Errors
    /// As [`Authority::create`].
    pub fn create_for(
        cluster: ClusterId,
        valid_for: Duration,
    ) -> Result<(Self, Issued), AuthorityError> {
        let mut params = params(&format!("{SUBJECT}{cluster}"), validity(valid_for));
        // It signs certificates of nodes and clients, and none of another authority.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        let issued = Issued { certificate: certificate.clone(), key: key.serialize_pem() };
        let issuer = Issuer::new(params, key);
        Ok((Self { cluster, issuer, certificate }, issued))
    }

    /// The authority whose certificate and key are in these PEM files.
    ///
    /// # Errors
    /// [`AuthorityError`] if they cannot be read, or are of no authority made here.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, AuthorityError> {
        let read = certificates(certificate)?;
        let no_cluster = || AuthorityError::NoCluster { path: certificate.to_owned() };
        let first = read.first().ok_or_else(no_cluster)?;
        let cluster = cluster_of(first).ok_or_else(no_cluster)?;
        let pem = std::fs::read_to_string(key)
            .map_err(|source| AuthorityError::Key { path: key.to_owned(), source })?;
        let issuer = Issuer::from_ca_cert_der(first, KeyPair::from_pem(&pem)?)?;
        let certificate = std::fs::read_to_string(certificate)
            .map_err(|source| AuthorityError::Key { path: certificate.to_owned(), source })?;
        Ok(Self { cluster, issuer, certificate })
    }

    /// The cluster that it signs for.
    pub fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    /// Its certificate, PEM: what everybody needs to believe it.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Makes a certificate that is good from now on.
    ///
    /// # Errors
    /// [`AuthorityError::Name`] for a name that cannot be in a certificate.
    pub fn issue(&self, role: Role, valid_for: Duration) -> Result<Issued, AuthorityError> {
        let identity = Identity { cluster: self.cluster.clone(), role };
        self.issue_identity(&identity, validity(valid_for))
    }

    /// Makes a certificate for any identity and any time. For tests of what refuses them.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn issue_identity(
        &self,
        identity: &Identity,
        validity: Validity,
    ) -> Result<Issued, AuthorityError> {
        let mut params = params(&identity.role.to_string(), validity);
        params.subject_alt_names.push(SanType::URI(identity.to_uri().try_into()?));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        match &identity.role {
            Role::Node(_) => {
                // Only a node's certificate is good for accepting connections.
                params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
                params.subject_alt_names.push(SanType::DnsName(NODE_NAME.try_into()?));
            }
            Role::Client(name) | Role::Admin(name) => {
                if !is_name(name) {
                    return Err(AuthorityError::Name { name: name.clone() });
                }
            }
        }
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { certificate, key: key.serialize_pem() })
    }
}

/// From a little before now, since clocks differ.
fn validity(valid_for: Duration) -> Validity {
    let now = SystemTime::now();
    Validity { from: now - Duration::from_hours(1), until: now + valid_for }
}

fn params(subject: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject);
    params.not_before = validity.from.into();
    params.not_after = validity.until.into();
    params
}

/// The cluster whose authority a certificate is; `None` if it is that of nobody's authority.
pub(crate) fn cluster_of(certificate: &[u8]) -> Option<ClusterId> {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let subject = parsed.subject().iter_common_name().next()?.as_str().ok()?;
    subject.strip_prefix(SUBJECT)?.parse().ok()
}
