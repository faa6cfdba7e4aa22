//! Where nodes are, as people write it.

use std::fmt;
use std::str::FromStr;

use quorlock_core::ids::{ID_MAX, NodeId};

/// Where a node is: `host:port`, or `id=host:port` where it is known which node that is.
///
/// The host is a name or an address; one of IPv6 stands in brackets. Names are looked up at every
/// attempt to connect, so that a node which moved is found again.
///
/// ```
/// use quorlock::client::Endpoint;
///
/// for text in ["127.0.0.1:7000", "2=lock-2.example.org:7000", "[::1]:7000"] {
///     let endpoint: Endpoint = text.parse()?;
///     assert_eq!(endpoint.to_string(), text);
/// }
/// assert!("lock-2.example.org".parse::<Endpoint>().is_err());
/// # Ok::<(), quorlock::client::ParseEndpointError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Endpoint {
    /// Which node is there; `None` if it is to be asked.
    pub node: Option<NodeId>,
    /// Its name or address, without brackets.
    pub host: String,
    /// Its UDP port; not zero.
    pub port: u16,
}

/// Why a text is no [`Endpoint`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{text:?} is no endpoint: {problem}; write host:port or id=host:port, with IPv6 as in [::1]:7000"
)]
pub struct ParseEndpointError {
    text: String,
    problem: &'static str,
}

impl Endpoint {
    /// The host and the port, as `host:port`: the address without the node's id.
    pub fn address(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(node) = self.node {
            write!(f, "{node}=")?;
        }
        f.write_str(&self.address())
    }
}

impl FromStr for Endpoint {
    type Err = ParseEndpointError;

    fn from_str(text: &str) -> Result<Self, ParseEndpointError> {
        parse(text.trim()).map_err(|problem| ParseEndpointError { text: text.to_owned(), problem })
    }
}

fn parse(text: &str) -> Result<Endpoint, &'static str> {
    let (node, address) = match text.split_once('=') {
        Some((id, address)) => (Some(node_id(id.trim())?), address.trim()),
        None => (None, text),
    };
    let (host, port) = address.rsplit_once(':').ok_or("there is no port")?;
    let port: u16 = port.parse().map_err(|_error| "the port is no number from 1 to 65535")?;
    if port == 0 {
        return Err("the port is no number from 1 to 65535");
    }
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match bracketed {
        Some(host) if host.parse::<std::net::Ipv6Addr>().is_ok() => host,
        Some(_) => return Err("what stands in brackets is no IPv6 address"),
        None => host,
    };
    let is_plain = bracketed.is_some()
        || host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    if host.is_empty() {
        return Err("there is no host");
    }
    if !is_plain {
        return Err("the host is neither a name nor an address");
    }
    Ok(Endpoint { node, host: host.to_owned(), port })
}

fn node_id(text: &str) -> Result<NodeId, &'static str> {
    let number = text.parse::<u64>().ok().filter(|number| *number < ID_MAX);
    number.map(NodeId::new).ok_or("what stands before '=' is no id of a node")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_ones_are_read_and_written_alike() {
        for text in ["a:1", "0=a.b-c:65535", "[::1]:7000", "7=[fe80::1]:7000", "10.0.0.1:80"] {
            let endpoint: Endpoint = text.parse().expect("an endpoint");
            assert_eq!(endpoint.to_string(), text);
        }
        let spaced: Endpoint = " 1 = localhost:7000 ".parse().expect("an endpoint");
        assert_eq!(spaced.to_string(), "1=localhost:7000");
    }

    #[test]
    fn others_are_refused_with_a_reason() {
        for text in [
            "",
            "a",
            ":7000",
            "a:",
            "a:0",
            "a:65536",
            "a:-1",
            "x=a:1",
            "-1=a:1",
            "=a:1",
            "::1:7000",
            "[::1:7000",
            "[a]:7000",
            "a b:1",
            "9007199254740991=a:1",
            "1=2=a:1",
        ] {
            let error = text.parse::<Endpoint>().expect_err(text);
            assert!(error.to_string().contains("write host:port"), "{error}");
        }
    }
}
