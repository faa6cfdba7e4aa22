//! What a node is told: by its options, and by its node file. The options go before the file.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use quorlock_core::config::{Config, Limits};
use quorlock_core::ids::{ID_MAX, NodeId};
use serde::Deserialize;

use super::{Failure, ServerArguments};
use crate::cli::duration;
use crate::client::Endpoint;
use crate::server::{ServerConfig, Start};
use crate::tls::Credentials;

/// All that a node is told.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) config: ServerConfig,
    /// Files to create after the start.
    pub(super) create_files: Option<u32>,
}

/// A node file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeFile {
    id: Option<u64>,
    port: Option<u16>,
    listen: Option<IpAddr>,
    data_dir: Option<PathBuf>,
    #[serde(default)]
    peers: Vec<String>,
    #[serde(default)]
    bootstrap: bool,
    #[serde(default)]
    load_state: bool,
    create_files: Option<u32>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    metrics_addr: Option<SocketAddr>,
    connections_max: Option<u32>,
    #[serde(default)]
    limits: BTreeMap<String, toml::Value>,
    #[serde(default)]
    set: BTreeMap<String, toml::Value>,
}

impl NodeFile {
    fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::configuration(format!("cannot read the node file {}: {error}", path.display()))
        })?;
        let mut file: Self = toml::from_str(&text).map_err(|error| {
            let (path, error) = (path.display(), error.to_string());
            Failure::configuration(format!("{path} is no node file: {}", error.trim_end()))
                .hint("`quorlock server --help` shows one")
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let paths = [&mut file.data_dir, &mut file.ca, &mut file.cert, &mut file.key];
        for path in paths.into_iter().flatten() {
            *path = folder.join(&path);
        }
        Ok(file)
    }
}

impl Settings {
    /// # Errors
    /// Something is missing, or makes no sense.
    pub(super) fn of(arguments: ServerArguments) -> Result<Self, Failure> {
        let file = arguments.config.as_deref().map(NodeFile::read).transpose()?.unwrap_or_default();
        let missing = |option: &str| {
            Failure::usage(format!("--{option} is missing")).hint(
                "`quorlock server --help` shows all options; `quorlock dev` starts a whole cluster",
            )
        };
        let id = arguments.id.or(file.id).ok_or_else(|| missing("id"))?;
        if id >= ID_MAX {
            return Err(Failure::usage(format!("{id} is too large for the id of a node")));
        }
        let id = NodeId::new(id);
        let peers = if arguments.peers.is_empty() { file.peers } else { arguments.peers };
        let listen = arguments.listen.or(file.listen).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let (members, listen) = members(id, &peers, listen, arguments.port.or(file.port))?;
        let path = |option: Option<PathBuf>, of_file: Option<PathBuf>, name: &str| {
            option.or(of_file).ok_or_else(|| missing(name))
        };
        let data_dir = path(arguments.data_dir, file.data_dir, "data-dir")?;
        let ca = path(arguments.ca, file.ca, "ca")?;
        let cert = path(arguments.cert, file.cert, "cert")?;
        let key = path(arguments.key, file.key, "key")?;
        let credentials = Credentials::from_files(&ca, &cert, &key).map_err(|error| {
            Failure::configuration(error).hint(format!("make it with `quorlock certs node {id}`"))
        })?;
        let (mut limits, mut node) = (Limits::default(), Config::default());
        for (name, value) in assignments(&file.limits, &arguments.limit)? {
            set_limit(&mut limits, &name, &value)?;
        }
        for (name, value) in assignments(&file.set, &arguments.set)? {
            set_node(&mut node, &name, &value)?;
        }
        let bootstrap = arguments.bootstrap || (file.bootstrap && !arguments.load_state);
        if bootstrap && file.load_state {
            return Err(Failure::usage("bootstrap and load_state exclude each other"));
        }
        let start = if bootstrap { Start::Bootstrap(limits) } else { Start::Load };
        let mut config = ServerConfig::new(id, listen, members, data_dir, credentials, start);
        config.node = node;
        config.metrics = arguments.metrics_addr.or(file.metrics_addr);
        if let Some(connections_max) = arguments.connections_max.or(file.connections_max) {
            config.connections_max = connections_max;
        }
        Ok(Self { config, create_files: arguments.create_files.or(file.create_files) })
    }
}

/// The members of the cluster, and where this node listens.
fn members(
    id: NodeId,
    peers: &[String],
    listen: IpAddr,
    port: Option<u16>,
) -> Result<(BTreeMap<NodeId, String>, SocketAddr), Failure> {
    let mut members = BTreeMap::new();
    let mut own_port = port;
    for peer in peers {
        let endpoint = member(peer)?;
        let node = endpoint.node.ok_or_else(|| no_peer(peer, "the id of the node is missing"))?;
        if members.insert(node, endpoint.address()).is_some() {
            return Err(Failure::usage(format!("--peers names node {node} twice")));
        }
        if node == id {
            own_port = own_port.or(Some(endpoint.port));
        }
    }
    let port = own_port.ok_or_else(|| {
        Failure::usage(format!("the port of node {id} is not given"))
            .hint("give it with --port, or name all nodes with --peers")
    })?;
    let listen = SocketAddr::new(listen, port);
    if members.is_empty() && listen.ip().is_unspecified() {
        return Err(Failure::usage(format!(
            "{listen} is no address at which node {id} can be reached"
        ))
        .hint("name the node with its own address in --peers"));
    }
    if members.is_empty() {
        members.insert(id, listen.to_string());
    } else if !members.contains_key(&id) {
        return Err(Failure::usage(format!("--peers does not name node {id} itself")).hint(
            "name all nodes of the cluster, this one included, in the same way on all of them",
        ));
    }
    let own = &members[&id];
    if listen.ip().is_loopback() && members.len() > 1 && !is_local(own) {
        tracing::warn!(
            "node {id} listens on {listen} only, and other machines cannot reach it as {own}: give the \
             address of this machine, or 0.0.0.0, with --listen"
        );
    }
    Ok((members, listen))
}

/// Whether an address, as `host:port`, is one of this machine for itself.
fn is_local(address: &str) -> bool {
    address.starts_with("localhost:")
        || address.parse().is_ok_and(|address: SocketAddr| address.ip().is_loopback())
}

/// One of `--peers`.
///
/// # Errors
/// It is not of the form `id=host:port`.
pub(super) fn member(text: &str) -> Result<Endpoint, Failure> {
    text.trim().parse().map_err(|error: crate::client::ParseEndpointError| no_peer(text, error))
}

fn no_peer(text: &str, why: impl std::fmt::Display) -> Failure {
    Failure::usage(format!("{text:?} in --peers is no node: {why}"))
        .hint("write it as in 0=127.0.0.1:7000")
}

/// What the file and the options assign, the options last.
fn assignments(
    file: &BTreeMap<String, toml::Value>,
    options: &[String],
) -> Result<Vec<(String, String)>, Failure> {
    let mut assignments = Vec::new();
    for (name, value) in file {
        let value = match value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Float(number) => number.to_string(),
            toml::Value::Boolean(_)
            | toml::Value::Datetime(_)
            | toml::Value::Array(_)
            | toml::Value::Table(_) => {
                return Err(Failure::configuration(format!("{name} must be a number or a text")));
            }
        };
        assignments.push((name.clone(), value));
    }
    for option in options {
        let (name, value) = option.split_once('=').ok_or_else(|| {
            Failure::usage(format!("{option:?} assigns nothing: write NAME=VALUE"))
        })?;
        assignments.push((name.to_owned(), value.to_owned()));
    }
    Ok(assignments)
}

/// Sets one of the fields of a struct by its name: numbers, and durations.
macro_rules! set_by_name {
    ($target:expr, $name:expr, $value:expr, numbers: $($number:ident)+, durations: $($duration:ident)+) => {
        match $name {
            $(stringify!($number) => number($name, $value).map(|value| $target.$number = value),)+
            $(stringify!($duration) => time($name, $value).map(|value| $target.$duration = value),)+
            _ => Err(unknown($name, &[$(stringify!($number),)+ $(stringify!($duration),)+])),
        }
    };
}

fn set_limit(limits: &mut Limits, name: &str, value: &str) -> Result<(), Failure> {
    set_by_name!(limits, name, value,
        numbers: sessions_max window_max pending_bytes_max places_per_session_max locks_max
            waiters_per_lock_max files_max append_bytes_max appends_per_request_max
            history_per_lock_max history_max expiries_per_entry_max,
        durations: session_lease_min session_lease_max)
}

fn set_node(node: &mut Config, name: &str, value: &str) -> Result<(), Failure> {
    set_by_name!(node, name, value,
        numbers: message_entries_max message_bytes_max in_flight_entries_max in_flight_bytes_max
            snapshot_piece_bytes uncommitted_entries_max uncommitted_bytes_max pending_reads_max
            snapshot_entries snapshot_bytes log_bytes_max retained_entries,
        durations: heartbeat_interval election_timeout_min election_timeout_max
            write_stall_timeout snapshot_interval keep_alive_interval)
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, Failure> {
    value.parse().map_err(|_not_a_number| {
        Failure::usage(format!(
            "{name} is {value:?}: it must be a number without sign and point, not too large"
        ))
    })
}

fn time(name: &str, value: &str) -> Result<std::time::Duration, Failure> {
    duration::parse(value).map_err(|error| Failure::usage(format!("{name}: {error}")))
}

fn unknown(name: &str, known: &[&str]) -> Failure {
    Failure::usage(format!("there is no setting {name:?}"))
        .hint(format!("these are there: {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::*;
    use crate::cli::certs::{Folder, duration_of};
    use crate::tls::Role;
    use crate::tls::authority::Authority;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        server: ServerArguments,
    }

    fn settings(folder: &Path, line: &[&str]) -> Result<Settings, Failure> {
        let mut all = vec!["test".to_owned()];
        for (option, file) in
            [("--ca", "ca.pem"), ("--cert", "node-1.pem"), ("--key", "node-1.key")]
        {
            all.extend([option.to_owned(), folder.join(file).display().to_string()]);
        }
        all.extend(line.iter().map(|&part| part.to_owned()));
        Settings::of(Line::try_parse_from(all).expect("it can be parsed").server)
    }

    fn certificates() -> tempfile::TempDir {
        let temporary = tempfile::tempdir().expect("there is room");
        let folder = Folder::new(temporary.path().to_owned());
        let (authority, ca) = Authority::create(duration_of(1)).expect("it can be made");
        folder.store("ca", &ca).expect("it can be stored");
        let node = Role::Node(NodeId::new(1));
        folder.issue(&authority, node, duration_of(1)).expect("it can be made");
        temporary
    }

    #[test]
    fn options_are_enough() {
        let folder = certificates();
        let line = [
            "--id",
            "1",
            "--data-dir",
            "d",
            "--peers",
            "0=a:7000,1=b:7001",
            "--bootstrap",
            "--limit",
            "files_max=7",
            "--set",
            "heartbeat_interval=20ms",
            "--create-files",
            "3",
        ];
        let settings = settings(folder.path(), &line).expect("all is there");
        let config = settings.config;
        assert_eq!(config.listen.to_string(), "127.0.0.1:7001");
        assert_eq!(config.members[&NodeId::new(0)], "a:7000");
        assert_eq!(config.start, Start::Bootstrap(Limits { files_max: 7, ..Limits::default() }));
        assert_eq!(config.node.heartbeat_interval, Duration::from_millis(20));
        assert_eq!(settings.create_files, Some(3));
    }

    #[test]
    fn a_cluster_of_one_needs_no_peers() {
        let folder = certificates();
        let line = ["--id", "1", "--data-dir", "d", "--port", "7009", "--load-state"];
        let config = settings(folder.path(), &line).expect("all is there").config;
        assert_eq!(config.members[&NodeId::new(1)], "127.0.0.1:7009");
        assert_eq!(config.start, Start::Load);
    }

    #[test]
    fn options_go_before_the_file() {
        let folder = certificates();
        let file = folder.path().join("node.toml");
        let text = "id = 1\nport = 7001\ndata_dir = 'here'\nbootstrap = true\nconnections_max = 9\n\
                    [limits]\nfiles_max = 5\nlocks_max = 6\n[set]\nheartbeat_interval = '30ms'\n";
        std::fs::write(&file, text).expect("it can be written");
        let file = file.display().to_string();
        let line = ["--config", &file, "--port", "7002", "--limit", "files_max=8"];
        let config = settings(folder.path(), &line).expect("all is there").config;
        assert_eq!(config.listen.port(), 7002);
        assert_eq!(config.data_dir, folder.path().join("here"));
        assert_eq!(config.connections_max, 9);
        let limits = Limits { files_max: 8, locks_max: 6, ..Limits::default() };
        assert_eq!(config.start, Start::Bootstrap(limits));
    }

    #[test]
    fn says_what_is_wrong() {
        let folder = certificates();
        let base = ["--id", "1", "--data-dir", "d", "--port", "7000"];
        for (line, said) in [
            (vec!["--limit", "fils_max=1"], "files_max"),
            (vec!["--limit", "files_max"], "NAME=VALUE"),
            (vec!["--limit", "files_max=-1"], "files_max"),
            (vec!["--set", "heartbeat_interval=x"], "duration"),
            (vec!["--peers", "0=a:1"], "itself"),
            (vec!["--peers", "a:1"], "id"),
            (vec!["--peers", "1=a:1,1=b:1"], "twice"),
            (vec!["--config", "/nowhere/node.toml"], "/nowhere/node.toml"),
            (vec!["--listen", "0.0.0.0"], "--peers"),
        ] {
            let failure = settings(folder.path(), &[&base[..], &line].concat()).expect_err(said);
            assert!(failure.to_string().contains(said), "{failure}");
        }
        let failure = settings(folder.path(), &["--id", "1"]).expect_err("no port");
        assert!(failure.to_string().contains("--port"), "{failure}");
    }
}
