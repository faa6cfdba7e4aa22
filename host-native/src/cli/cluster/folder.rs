//! The folder of a cluster on this machine.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use quorlock_core::ids::NodeId;
use serde::Deserialize;

use crate::cli::certs::{Folder, duration_of};
use crate::cli::exit::Failure;
use crate::tls::Role;
use crate::tls::authority::Authority;

const LOCK_FILE: &str = "quorlock.lock";
const CLUSTER_FILE: &str = "cluster.toml";
pub(super) const CLIENT_FILE: &str = "client.toml";
const CERTS: &str = "certs";
const LOGS: &str = "logs";
/// The certificate that clients on this machine use.
pub(super) const ADMIN: &str = "admin-dev";
/// How long certificates last that never leave the machine.
const DAYS: u32 = 3650;

/// What is known of a cluster in a folder.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClusterFile {
    pub(super) cluster: String,
    pub(super) nodes: Vec<NodeEntry>,
}

/// What is known of one of its nodes.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NodeEntry {
    pub(super) id: u64,
    pub(super) port: u16,
    /// Whether it was ready once. From then on it must find its state.
    pub(super) started: bool,
}

impl NodeEntry {
    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(super) fn peer(&self) -> String {
        format!("{}={}", self.id, self.address())
    }
}

pub(super) fn node_name(id: u64) -> String {
    format!("node-{id}")
}

pub(super) fn node_file(folder: &Path, id: u64) -> PathBuf {
    folder.join(format!("node-{id}.toml"))
}

pub(super) fn log(folder: &Path, id: u64) -> PathBuf {
    folder.join(LOGS).join(format!("node-{id}.log"))
}

pub(super) fn certs(folder: &Path) -> Folder {
    Folder::new(folder.join(CERTS))
}

pub(super) fn unusable(folder: &Path, error: std::io::Error) -> Failure {
    Failure::configuration(format!("the folder {} cannot be used: {error}", folder.display()))
        .hint("name another one with --data")
}

/// Makes the folder if it is not there, and takes it for this process.
pub(super) fn lock(folder: &Path) -> Result<File, Failure> {
    let failed = |error| unusable(folder, error);
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let is_ours = folder.join(LOCK_FILE).exists();
    if !is_ours && std::fs::read_dir(folder).map_err(failed)?.next().is_some() {
        let what = format!("{} has something else in it than a cluster", folder.display());
        return Err(Failure::configuration(what)
            .hint("name an empty folder, or one that does not exist, with --data"));
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(folder.join(LOCK_FILE)).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            drop(file.read_to_string(&mut pid));
            let pid = pid.trim();
            let who = if pid.is_empty() { String::new() } else { format!(" (pid {pid})") };
            let what = format!("the cluster in {} runs already{who}", folder.display());
            return Err(Failure::configuration(what)
                .hint("use that one, or name another folder with --data"));
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(failed)?;
    Ok(file)
}

/// Removes a cluster from its folder: what we made there, and nothing else.
///
/// # Errors
/// It runs, or something cannot be removed.
pub(crate) fn clear(folder: &Path) -> Result<(), Failure> {
    if !folder.exists() {
        return Ok(());
    }
    let _lock = lock(folder)?;
    let failed = |error| unusable(folder, error);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (name, path) = (entry.file_name(), entry.path());
        if !is_ours(&name) {
            continue;
        }
        let is_folder = entry.file_type().map_err(failed)?.is_dir();
        let removed =
            if is_folder { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.map_err(failed)?;
    }
    Ok(())
}

/// What [`clear`] removes. The lock stays, since it is held.
fn is_ours(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let is_node = |rest: &str| {
        let id = rest.strip_suffix(".toml").unwrap_or(rest);
        !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit())
    };
    [CLUSTER_FILE, CLIENT_FILE, CERTS, LOGS, ".gitignore"].contains(&name)
        || name.strip_prefix("node-").is_some_and(is_node)
}

impl ClusterFile {
    /// That of a folder, if there is one.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>, Failure> {
        let path = folder.join(CLUSTER_FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(folder, error)),
        };
        let file = toml::from_str(&text).map_err(|error| {
            let (path, error) = (path.display(), error.to_string());
            Failure::configuration(format!("{path} cannot be read: {}", error.trim_end()))
                .hint("empty the folder with --fresh")
        })?;
        Ok(Some(file))
    }

    /// A new cluster, with its certificates. There are no ports yet.
    pub(super) fn create(folder: &Path, nodes: u64) -> Result<Self, Failure> {
        let certs = certs(folder);
        if certs.path().exists() {
            // Somebody was interrupted while making them: without the file that is written last, they
            // are of no use.
            std::fs::remove_dir_all(certs.path()).map_err(|error| unusable(folder, error))?;
        }
        let valid_for = duration_of(DAYS);
        let (authority, issued) = Authority::create(valid_for)?;
        certs.store("ca", &issued)?;
        for id in 0..nodes {
            certs.issue(&authority, Role::Node(NodeId::new(id)), valid_for)?;
        }
        certs.issue(&authority, Role::Admin("dev".to_owned()), valid_for)?;
        let node = |id| NodeEntry { id, port: 0, started: false };
        Ok(Self { cluster: authority.cluster().to_string(), nodes: (0..nodes).map(node).collect() })
    }

    /// Writes this file, and those that follow from it.
    pub(super) fn write(&self, folder: &Path) -> Result<(), Failure> {
        let files = std::iter::once((folder.join(".gitignore"), "*\n".to_owned()))
            .chain(self.nodes.iter().map(|node| (node_file(folder, node.id), self.node_text(node))))
            .chain([
                (folder.join(CLIENT_FILE), self.client_text()),
                (folder.join(CLUSTER_FILE), self.text()),
            ]);
        for (path, text) in files {
            replace(&path, &text).map_err(|error| unusable(folder, error))?;
        }
        Ok(())
    }

    fn text(&self) -> String {
        let node = |NodeEntry { id, port, started }: &NodeEntry| {
            format!("\n[[nodes]]\nid = {id}\nport = {port}\nstarted = {started}\n")
        };
        let nodes: String = self.nodes.iter().map(node).collect();
        format!("# Written by quorlock.\ncluster = \"{}\"\n{nodes}", self.cluster)
    }

    fn client_text(&self) -> String {
        format!(
            "# Written by quorlock. Commands in the folder above find it by themselves.\n\
             endpoints = [{}]\nca = \"{CERTS}/ca.pem\"\ncert = \"{CERTS}/{ADMIN}.pem\"\n\
             key = \"{CERTS}/{ADMIN}.key\"\n",
            self.peers()
        )
    }

    fn node_text(&self, node: &NodeEntry) -> String {
        let name = node_name(node.id);
        format!(
            "# Written by quorlock: quorlock server --config {name}.toml\n\
             id = {}\nport = {}\npeers = [{}]\ndata_dir = \"{name}\"\nca = \"{CERTS}/ca.pem\"\n\
             cert = \"{CERTS}/{name}.pem\"\nkey = \"{CERTS}/{name}.key\"\n",
            node.id,
            node.port,
            self.peers()
        )
    }

    fn peers(&self) -> String {
        let peers: Vec<_> = self.nodes.iter().map(|node| format!("\"{}\"", node.peer())).collect();
        peers.join(", ")
    }
}

/// Writes a file such that nobody ever sees half of it.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    if std::fs::read_to_string(path).is_ok_and(|found| found == text) {
        return Ok(());
    }
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, text)?;
    std::fs::rename(&temporary, path)
}

/// The log of a node, for its process to write to.
pub(super) fn open_log(folder: &Path, id: u64) -> Result<File, Failure> {
    let open = || {
        std::fs::create_dir_all(folder.join(LOGS))?;
        OpenOptions::new().create(true).append(true).open(log(folder, id))
    };
    open().map_err(|error| unusable(folder, error))
}

/// The end of a log, to show why a node did not start.
pub(super) fn last_lines(log: &Path) -> String {
    const LINES: usize = 3;
    const BYTES: u64 = 4096;
    let mut end = Vec::new();
    let mut read = || {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
        file.read_to_end(&mut end)
    };
    // Without it there is less to show, and that is all.
    drop(read());
    let text = String::from_utf8_lossy(&end);
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default();
    let last: Vec<_> = last.iter().map(|line| format!("\n  {line}")).collect();
    last.concat()
}

/// This very program.
///
/// # Errors
/// The system does not say where it is.
pub(crate) fn program() -> Result<PathBuf, Failure> {
    std::env::current_exe()
        .map_err(|error| Failure::internal(format!("cannot find this very program: {error}")))
}
