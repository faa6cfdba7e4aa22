//! Opening a session.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use quorlock_core::client::{Client as CoreClient, ClientConfig, Ending};
use quorlock_core::ids::{ClientNonce, NodeId};
use tokio::sync::oneshot;

use super::background::Background;
use super::command::channels;
use super::dial::Dialler;
use super::discover::find;
use super::driver::{Driver, Opening};
use super::errors::{NodeStanding, Standing};
use super::{Client, ClientOptions, ConnectError, Inner};
use crate::clock;

pub(super) async fn connect(options: ClientOptions) -> Result<Client, ConnectError> {
    options.config.check()?;
    let background = Background::start().map_err(ConnectError::Thread)?;
    background.run(open(options, background.clone())).await
}

/// Runs on the thread that keeps sessions alive.
async fn open(options: ClientOptions, background: Background) -> Result<Client, ConnectError> {
    let ClientOptions { endpoints, credentials, config, label } = options;
    let (timeout, started) = (config.open_timeout, clock::now());
    let deadline = started.after(timeout);
    let dialler = Dialler::new(&credentials)?;
    let members = find(&dialler, &endpoints, deadline, timeout).await?;
    let addresses: BTreeMap<NodeId, String> =
        members.into_iter().map(|member| (member.node, member.address)).collect();

    let now = clock::now();
    let left = deadline.since(now).max(std::time::Duration::from_millis(1));
    let opening_config = ClientConfig { open_timeout: left, ..config.clone() };
    let nonce = ClientNonce(getrandom::u64()?, getrandom::u64()?);
    let nodes = addresses.keys().copied();
    let core = CoreClient::new(opening_config, nodes, label, nonce, getrandom::u64()?, now)?;

    let (ends, driver_ends) = channels();
    let (opened, opening) = oneshot::channel();
    let driver = Driver::new(core, driver_ends, dialler, addresses.clone(), opened);
    let keep = background.clone();
    // It ends by itself, after the last handle.
    tokio::spawn(async move {
        driver.run().await;
        drop(keep);
    });
    let ended = |ending: Ending, standings| not_opened(ending, addresses, standings, timeout);
    let session = match opening.await {
        Ok(Opening::Opened(session)) => session,
        Ok(Opening::Ended(ending, standings)) => return Err(ended(ending, standings)),
        Err(_gone) => return Err(ended(Ending::NotOpened, BTreeMap::new())),
    };
    let role = &credentials.identity().role;
    let inner = Inner {
        ends,
        session,
        config,
        not_admin: (!role.is_admin()).then(|| role.to_string()),
        tickets: AtomicU64::new(0),
        background,
    };
    Ok(Client { inner: Arc::new(inner) })
}

fn not_opened(
    ending: Ending,
    addresses: BTreeMap<NodeId, String>,
    mut standings: BTreeMap<NodeId, Standing>,
    timeout: std::time::Duration,
) -> ConnectError {
    match ending {
        Ending::Refused(rejection) => ConnectError::Refused(rejection),
        // The others cannot be while it is opening; it is not open in any case.
        Ending::NotOpened
        | Ending::Closed
        | Ending::Expired
        | Ending::Forgotten
        | Ending::LeaseRanOut => {
            let standing = |(node, address)| {
                let standing = standings.remove(&node).unwrap_or(Standing::NotTried);
                NodeStanding { node, address, standing }
            };
            ConnectError::NoQuorum { nodes: addresses.into_iter().map(standing).collect(), timeout }
        }
    }
}
