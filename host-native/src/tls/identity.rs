//! What a certificate says of its holder.

use std::fmt;
use std::str::FromStr;

use quorlock_core::ids::{ID_MAX, NodeId};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Which cluster: 32 hexadecimal digits, drawn when its authority is made.
///
/// It is in every certificate and in every data directory, so that what belongs to one cluster is
/// never mistaken for a part of another.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClusterId(String);

/// Why a text is no [`ClusterId`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a cluster id is 32 hexadecimal digits, in lower case")]
pub struct ClusterIdError;

impl ClusterId {
    const DIGITS: usize = 32;

    /// A new one, at random.
    ///
    /// # Errors
    /// The system's source of randomness failed.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; Self::DIGITS / 2];
        getrandom::fill(&mut bytes)?;
        Ok(Self(format!("{:032x}", u128::from_be_bytes(bytes))))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for ClusterId {
    type Err = ClusterIdError;

    fn from_str(text: &str) -> Result<Self, ClusterIdError> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == Self::DIGITS && text.bytes().all(is_digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ClusterIdError)
        }
    }
}

/// What the holder of a certificate may do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Role {
    /// Be this node: take part in consensus, serve clients.
    Node(NodeId),
    /// Hold locks, append, look.
    Client(String),
    /// The same, and break locks.
    Admin(String),
}

impl Role {
    /// Whether its holder may break other people's locks.
    pub fn is_admin(&self) -> bool {
        match self {
            Self::Admin(_) => true,
            Self::Node(_) | Self::Client(_) => false,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(id) => write!(f, "node {id}"),
            Self::Client(name) => write!(f, "client {name}"),
            Self::Admin(name) => write!(f, "admin {name}"),
        }
    }
}

/// Who the holder of a certificate is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Of which cluster.
    pub cluster: ClusterId,
    /// In which role.
    pub role: Role,
}

/// Why a certificate is not one of Quorlock's.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is none.
    #[error("the other side presented no certificate")]
    NoCertificate,
    /// It is not X.509.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// It has no alternative name that begins with `quorlock:`, or several.
    #[error(
        "the certificate does not say who its holder is: it needs exactly one alternative name \
         such as quorlock:CLUSTER/client/NAME; make it with `quorlock certs`"
    )]
    NoName,
    /// It has one that is not of the right form.
    #[error(
        "{uri:?} is no name of Quorlock's: quorlock:CLUSTER/node/ID, quorlock:CLUSTER/client/NAME \
         or quorlock:CLUSTER/admin/NAME is, with 32 hexadecimal digits for CLUSTER"
    )]
    Malformed {
        /// The name.
        uri: String,
    },
}

const SCHEME: &str = "quorlock:";

/// The most bytes of the name of a client.
const NAME_BYTES_MAX: usize = 64;

/// Whether a text can be the name of a client or an admin in a certificate: 1 to 64 letters, digits
/// and `.`, `_`, `-`, all ASCII.
pub(crate) fn is_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(is_allowed)
}

impl Identity {
    /// As it is in a certificate.
    pub fn to_uri(&self) -> String {
        let (kind, name) = match &self.role {
            Role::Node(id) => ("node", id.to_string()),
            Role::Client(name) => ("client", name.clone()),
            Role::Admin(name) => ("admin", name.clone()),
        };
        format!("{SCHEME}{}/{kind}/{name}", self.cluster)
    }

    fn of_uri(uri: &str) -> Option<Self> {
        let mut parts = uri.strip_prefix(SCHEME)?.split('/');
        let (cluster, kind, name) = (parts.next()?, parts.next()?, parts.next()?);
        let cluster = cluster.parse().ok()?;
        let role = match kind {
            "node" => Role::Node(node_id(name)?),
            "client" if is_name(name) => Role::Client(name.to_owned()),
            "admin" if is_name(name) => Role::Admin(name.to_owned()),
            _ => return None,
        };
        parts.next().is_none().then_some(Self { cluster, role })
    }

    /// What a certificate says. It says nothing about who signed it: TLS checks that.
    ///
    /// # Errors
    /// [`IdentityError`] if it does not name exactly one identity.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|_error| IdentityError::Unreadable)?;
        let names =
            parsed.subject_alternative_name().map_err(|_error| IdentityError::Unreadable)?;
        let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
        let uri = |name: &GeneralName<'_>| {
            if let GeneralName::URI(uri) = name { Some((*uri).to_owned()) } else { None }
        };
        let mut uris = names.iter().filter_map(uri).filter(|uri| uri.starts_with(SCHEME));
        match (uris.next(), uris.next()) {
            (Some(uri), None) => Self::of_uri(&uri).ok_or(IdentityError::Malformed { uri }),
            (None, _) | (Some(_), Some(_)) => Err(IdentityError::NoName),
        }
    }
}

/// The id of a node, written without sign and leading zeros, so that each has one name. The largest
/// identifier is no node's.
fn node_id(text: &str) -> Option<NodeId> {
    let number: u64 = text.parse().ok()?;
    (number < ID_MAX && number.to_string() == text).then(|| NodeId::new(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn every_role_has_one_name() {
        let cluster: ClusterId = CLUSTER.parse().expect("32 digits");
        let roles =
            [Role::Node(NodeId::new(3)), Role::Client("ci-1".into()), Role::Admin("a.b_c".into())];
        for role in roles {
            let identity = Identity { cluster: cluster.clone(), role };
            assert_eq!(Identity::of_uri(&identity.to_uri()), Some(identity));
        }
    }

    #[test]
    fn anything_else_is_no_name() {
        let long = "a".repeat(65);
        for tail in [
            "",
            "node",
            "node/",
            "node/x",
            "node/-1",
            "node/+1",
            "node/01",
            "node/9007199254740991",
            "node/18446744073709551616",
            "client/",
            "client/a b",
            "client/a/b",
            "other/a",
            &format!("client/{long}"),
        ] {
            assert_eq!(Identity::of_uri(&format!("quorlock:{CLUSTER}/{tail}")), None, "{tail}");
        }
        assert_eq!(Identity::of_uri(&format!("https:{CLUSTER}/node/1")), None);
        assert_eq!(Identity::of_uri("quorlock:0123/node/1"), None);
        assert_eq!(Identity::of_uri(&format!("quorlock:{}/node/1", CLUSTER.to_uppercase())), None);
    }

    #[test]
    fn ids_of_clusters_differ() {
        let one = ClusterId::random().expect("there is randomness");
        assert_eq!(one.as_str().parse(), Ok(one.clone()));
        assert_ne!(one, ClusterId::random().expect("there is randomness"));
    }
}
