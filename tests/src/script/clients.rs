//! Commands of the core's client, and of its connections.

use std::error::Error;
use std::fmt::Write as _;

use quorlock_core::client::ClientConfig;
use quorlock_core::time::Duration;

use super::Script;
use super::cluster::found;
use super::settings;
use super::values::{List, Span};

/// Commands of the core's client.
#[derive(Debug, goldenscript::Command)]
pub(super) enum ClientCommand {
    /// `client bob lease=3s nodes="1 2 3"`: a client, which begins to open its session at once.
    Client {
        name: String,
        #[arg(key)]
        lease: Option<Span>,
        #[arg(key)]
        nodes: Option<List<u64>>,
        #[arg(key, many, optional)]
        settings: Vec<(String, String)>,
    },
    /// `hold_client bob`: what it sends and is sent waits.
    HoldClient(String),
    /// `free_client bob`: it does not wait any more.
    FreeClient(String),
    /// `carry_out bob`: the oldest thing that it has sent arrives.
    CarryOut(String),
    /// `carry_in bob`: the oldest thing that it was sent arrives.
    CarryIn(String),
    /// `lose_out bob`: the oldest thing that it has sent is lost.
    LoseOut(String),
    /// `lose_in bob`: the oldest thing that it was sent is lost.
    LoseIn(String),
    /// `cut_client bob 1`: everything between bob and node 1 is lost, and nobody is told.
    CutClient(String, u64),
    /// `restore_client bob 1`: it arrives again.
    RestoreClient(String, u64),
    /// `break_client bob`: its connection breaks, and both ends are told.
    BreakClient(String),
    /// `pause bob`: its process stops.
    Pause(String),
    /// `resume bob`: it goes on.
    Resume(String),
    /// `wake_client bob`: it is woken, due or not.
    WakeClient(String),
    /// `client_state bob`: what the application can see.
    ClientState(String),
    /// Anything else.
    #[command(other)]
    Other(goldenscript::Command),
}

impl Script {
    pub(super) fn run_clients(&mut self, command: ClientCommand) -> Result<(), Box<dyn Error>> {
        match command {
            ClientCommand::Client { name, lease, nodes, settings } => {
                self.add_client(&name, lease, nodes, &settings)?;
            }
            ClientCommand::HoldClient(name) => self.lab()?.hold_client(&name, true),
            ClientCommand::FreeClient(name) => self.lab()?.hold_client(&name, false),
            ClientCommand::CarryOut(name) => found(self.lab()?.carry_to_node(&name))?,
            ClientCommand::CarryIn(name) => found(self.lab()?.carry_to_client(&name))?,
            ClientCommand::LoseOut(name) => found(self.lab()?.drop_to_node(&name))?,
            ClientCommand::LoseIn(name) => found(self.lab()?.drop_to_client(&name))?,
            ClientCommand::CutClient(name, n) => self.lab()?.cut_client(&name, n),
            ClientCommand::RestoreClient(name, n) => self.lab()?.restore_client(&name, n),
            ClientCommand::BreakClient(name) => self.lab()?.break_client(&name),
            ClientCommand::Pause(name) => self.lab()?.pause_client(&name, true),
            ClientCommand::Resume(name) => self.lab()?.pause_client(&name, false),
            ClientCommand::WakeClient(name) => self.lab()?.wake_client(&name),
            ClientCommand::ClientState(name) => self.tell_client(&name)?,
            ClientCommand::Other(command) => self.run_views((&command).try_into()?)?,
        }
        Ok(())
    }

    fn add_client(
        &mut self,
        name: &str,
        lease: Option<Span>,
        nodes: Option<List<u64>>,
        settings: &[(String, String)],
    ) -> Result<(), Box<dyn Error>> {
        let lease = lease.map_or(Duration::from_secs(10), |span| span.0);
        let mut config = ClientConfig::for_lease(lease);
        for (setting, value) in settings {
            settings::set_client(&mut config, setting, value)?;
        }
        let nodes = match nodes {
            Some(nodes) => nodes.0,
            None => self.lab()?.ids().collect(),
        };
        self.clients.insert(name.to_owned());
        self.lab()?.add_client(name, config, &nodes);
        Ok(())
    }

    pub(super) fn is_client(&self, who: &str) -> bool {
        self.clients.contains(who)
    }

    /// What the application at a client can see.
    fn tell_client(&mut self, name: &str) -> Result<(), Box<dyn Error>> {
        let client = self.lab()?.client(name).clone();
        let held = client.held().map(|held| format!("{} token {}", held.lock, held.token));
        let held: Vec<String> = held.collect();
        let node = client.node().map_or("no node".to_owned(), |node| format!("node {node}"));
        let held = if held.is_empty() { "nothing".to_owned() } else { held.join(", ") };
        writeln!(self.text, "{name}: {:?}, at {node}, holds {held}", client.state())?;
        Ok(())
    }
}
