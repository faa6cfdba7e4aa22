//! A cluster of real processes on loopback: what a user starts, with everything that can be done to it.
//!
//! Each node is a `quorlock server` of its own, with its own data directory and certificate, in a
//! temporary folder. Nodes can be killed, stopped, continued and started again; clients are those of the
//! library, or the program itself. Whatever is still running when the cluster is dropped is
//! killed, by its process id, and the nodes end by themselves when the test's process does.

mod binary;
mod node;
mod relay;

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use quorlock::client::{Client, ClientOptions, Endpoint, FileView, report};
use quorlock::tls::authority::{Authority, Issued};
use quorlock::tls::{Credentials, Role};
use quorlock::wire::{NodeReport, ReportedRole};
use quorlock_core::checksum::Checksum;
use quorlock_core::ids::NodeId;
use tempfile::TempDir;

pub use binary::binary;
pub use node::{Node, Spec};
pub use relay::Relay;

/// How long a test waits for something that has to happen. No test is about how long it takes.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// How long certificates of tests are good.
pub const DAY: Duration = Duration::from_hours(24);

/// A cluster, and the folder that all of it lies in.
#[derive(Debug)]
pub struct Cluster {
    folder: TempDir,
    authority: Authority,
    nodes: BTreeMap<u64, Node>,
    /// Further arguments of every server.
    arguments: Vec<String>,
}

impl Cluster {
    /// Starts a new cluster of nodes 0, 1, ... and waits until one of them leads.
    pub async fn start(size: u64) -> Self {
        Self::with_arguments(size, &[]).await
    }

    /// The same, with further arguments for every server.
    pub async fn with_arguments(size: u64, arguments: &[&str]) -> Self {
        let mut cluster = Self::prepare(size, arguments);
        for id in 0..size {
            cluster.node_mut(id).start(&["--bootstrap"]);
        }
        cluster.leader().await;
        cluster
    }

    /// A cluster of which no process runs yet: certificates, ports, folders.
    pub fn prepare(size: u64, arguments: &[&str]) -> Self {
        let folder = TempDir::with_prefix("quorlock-test-").expect("there is room for a folder");
        let (authority, _key) = Authority::create(DAY).expect("there is randomness");
        let mut cluster = Self {
            folder,
            authority,
            nodes: BTreeMap::new(),
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
        };
        fs::write(cluster.path("ca.pem"), cluster.authority.certificate()).expect("it is ours");
        for (name, role) in
            [("client", Role::Client("test".to_owned())), ("admin", Role::Admin("test".to_owned()))]
        {
            cluster.issue(name, role);
        }
        let ports = free_ports(size);
        let peers: Vec<String> = (0_u64..).zip(&ports).map(|(id, port)| peer(id, *port)).collect();
        for (id, port) in (0_u64..).zip(ports) {
            cluster.add_node(id, port, &peers.join(","));
        }
        cluster
    }

    fn add_node(&mut self, id: u64, port: u16, peers: &str) {
        let name = format!("node-{id}");
        self.issue(&name, Role::Node(NodeId::new(id)));
        let spec = Spec {
            id,
            address: ([127, 0, 0, 1], port).into(),
            peers: peers.to_owned(),
            data: self.path(&format!("data-{id}")),
            log: self.path(&format!("{name}.log")),
            ca: self.path("ca.pem"),
            certificate: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
            arguments: self.arguments.clone(),
        };
        self.nodes.insert(id, Node::new(spec));
    }

    /// Writes a new certificate and its key into the folder, as `NAME.pem` and `NAME.key`.
    pub fn issue(&self, name: &str, role: Role) {
        let issued = self.authority.issue(role, DAY).expect("the role is good");
        self.keep(name, &issued);
    }

    /// Writes any certificate and its key into the folder.
    pub fn keep(&self, name: &str, issued: &Issued) {
        fs::write(self.path(&format!("{name}.pem")), &issued.certificate).expect("it is ours");
        fs::write(self.path(&format!("{name}.key")), &issued.key).expect("it is ours");
    }

    /// Who signs the certificates.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// A path in the folder of the cluster.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The ids of all nodes, running or not.
    pub fn ids(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    /// A node.
    pub fn node(&self, id: u64) -> &Node {
        &self.nodes[&id]
    }

    /// A node, to do something to it.
    pub fn node_mut(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).expect("the cluster has this node")
    }

    /// Starts a node that has a data directory already.
    pub fn restart(&mut self, id: u64) {
        self.node_mut(id).start(&[]);
    }

    /// Kills every node at once, as a power failure would.
    pub fn kill_all(&mut self) {
        for node in self.nodes.values_mut() {
            node.signal_kill();
        }
        for node in self.nodes.values_mut() {
            node.kill();
        }
    }

    /// Starts every node that does not run.
    pub fn restart_all(&mut self) {
        for node in self.nodes.values_mut() {
            if !node.is_running() {
                node.start(&[]);
            }
        }
    }

    /// The certificates of a client of this name in the folder.
    pub fn credentials(&self, name: &str) -> Credentials {
        let path = |extension: &str| self.path(&format!("{name}.{extension}"));
        Credentials::from_files(&self.path("ca.pem"), &path("pem"), &path("key"))
            .expect("the cluster wrote them")
    }

    /// Every node's `id=host:port`.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        let endpoint = |node: &Node| {
            let text = peer(node.spec().id, node.spec().address.port());
            text.parse().expect("it is an endpoint")
        };
        self.nodes.values().map(endpoint).collect()
    }

    /// What a client needs to connect.
    pub fn options(&self) -> ClientOptions {
        ClientOptions::new(self.endpoints(), self.credentials("client"))
    }

    /// A new session.
    pub async fn client(&self) -> Client {
        self.client_with(self.options()).await
    }

    /// A new session with other settings.
    pub async fn client_with(&self, options: ClientOptions) -> Client {
        let connected = Client::connect(options).await;
        connected.unwrap_or_else(|error| panic!("{error}\n{}", self.logs()))
    }

    /// The program, with the connection to this cluster in its environment, as an admin.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_as("admin", arguments)
    }

    /// The program, with the certificates of this name.
    pub fn command_as(&self, name: &str, arguments: &[&str]) -> Command {
        let endpoints =
            self.nodes.values().map(|node| peer(node.spec().id, node.spec().address.port()));
        let endpoints: Vec<String> = endpoints.collect();
        let mut command = Command::new(binary());
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("QUORLOCK_ENDPOINTS", endpoints.join(","))
            .env("QUORLOCK_CA", self.path("ca.pem"))
            .env("QUORLOCK_CERT", self.path(&format!("{name}.pem")))
            .env("QUORLOCK_KEY", self.path(&format!("{name}.key")))
            .env("XDG_RUNTIME_DIR", self.folder.path())
            .env_remove("QUORLOCK_CONFIG")
            .env_remove("QUORLOCK_TOKEN")
            .env_remove("QUORLOCK_SOCKET")
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program starts")
    }

    /// Runs the program, which must succeed, and gives what it printed.
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}\n{}", self.logs());
        String::from_utf8(output.stdout).expect("it prints text")
    }

    /// What a node says of itself; `None` if it does not answer.
    pub async fn report(&self, id: u64) -> Option<NodeReport> {
        let address = self.node(id).spec().address.to_string();
        report(&self.options(), &address, Duration::from_secs(2)).await.ok()
    }

    /// What every node that answers says of itself.
    pub async fn reports(&self) -> Vec<NodeReport> {
        let mut reports = Vec::new();
        for id in self.ids() {
            reports.extend(self.report(id).await);
        }
        reports
    }

    /// Waits until one node leads and a quorum knows that, and gives its id.
    pub async fn leader(&self) -> u64 {
        self.wait_for("a leader that a quorum follows", async || {
            let reports = self.reports().await;
            let term = reports.iter().map(|report| report.term).max()?;
            let leads =
                |report: &&NodeReport| report.role == ReportedRole::Leader && report.term == term;
            let leader = reports.iter().find(leads)?.id;
            let followers = reports.iter().filter(|report| report.leader == Some(leader)).count();
            (followers * 2 > self.nodes.len()).then_some(leader.value())
        })
        .await
    }

    /// Waits until `probe` gives something.
    pub async fn wait_for<T>(&self, what: &str, probe: impl AsyncFn() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            assert!(start.elapsed() < PATIENCE, "no sign of {what}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until every running node has applied as much as the leader has committed now, and its
    /// files hold it.
    pub async fn settle(&self) {
        let leader = self.leader().await;
        let commit =
            self.wait_for("a report", async || Some(self.report(leader).await?.commit)).await;
        let running = self.nodes.values().filter(|node| node.is_up());
        for id in running.map(|node| node.spec().id) {
            self.wait_for("a node that caught up", async || {
                (self.report(id).await?.applied >= commit).then_some(())
            })
            .await;
        }
    }

    /// The content of a guarded file, read from the disk of every running node once all have the same.
    ///
    /// A node writes a little after it applies, so this waits; what the files end up as is the same
    /// everywhere, or this fails.
    pub async fn file_everywhere(&self, view: &FileView) -> Vec<u8> {
        let length = usize::try_from(view.length).expect("a file of a test fits into memory");
        let running: Vec<u64> =
            self.nodes.values().filter(|node| node.is_up()).map(|node| node.spec().id).collect();
        let mut contents = Vec::new();
        for id in running {
            let content = self.wait_for("the same file on every node", async || {
                let content = self.file_on_disk(id, view.file.as_str())?;
                (content.len() >= length).then_some(content)
            });
            contents.push((id, content.await));
        }
        let (first, content) = contents[0].clone();
        for (id, other) in &contents {
            assert!(*other == content, "{} differs on nodes {first} and {id}", view.file);
        }
        assert_eq!(Checksum::of(&content), view.checksum);
        content
    }

    /// A guarded file as it lies on a node's disk; `None` if there is none.
    pub fn file_on_disk(&self, id: u64, file: &str) -> Option<Vec<u8>> {
        fs::read(self.node(id).spec().data.join("files").join(file)).ok()
    }

    /// What all nodes logged, for the message of a test that fails.
    pub fn logs(&self) -> String {
        let tail = |path: &Path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(40)..].join("\n")
        };
        let logs: Vec<String> = self
            .nodes
            .values()
            .map(|node| format!("--- node {}\n{}", node.spec().id, tail(&node.spec().log)))
            .collect();
        logs.join("\n")
    }
}

fn peer(id: u64, port: u16) -> String {
    format!("{id}=127.0.0.1:{port}")
}

/// UDP ports that nobody uses at the moment. All are reserved together, so that they differ.
pub fn free_ports(count: u64) -> Vec<u16> {
    let bind = |_| UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("there are ports");
    let sockets: Vec<UdpSocket> = (0..count).map(bind).collect();
    sockets.iter().map(|socket| socket.local_addr().expect("it is bound").port()).collect()
}
