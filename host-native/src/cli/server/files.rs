//! Files that are to be there from the start.

use std::collections::BTreeMap;
use std::time::Duration;

use quorlock_core::ids::NodeId;

use super::Failure;
use crate::client::{Client, ClientOptions, Endpoint};
use crate::tls::Credentials;

/// The pause before it is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Creates `file-0` to `file-(count - 1)`, each guarded by a lock of its own name. What is there
/// already, stays as it is.
///
/// # Errors
/// The cluster cannot be reached, or refuses.
pub(crate) async fn create_files(options: ClientOptions, count: u32) -> Result<(), Failure> {
    let client = Client::connect(options).await?;
    for number in 0..count {
        let name = format!("file-{number}");
        client.create_file(&name, &name).await?;
    }
    client.close().await?;
    Ok(())
}

/// The same, tried until it is done, by a node with its own certificate: all nodes may be told to do
/// it.
pub(super) async fn create_when_possible(
    count: u32,
    members: BTreeMap<NodeId, String>,
    credentials: Credentials,
) {
    let endpoints: Result<Vec<Endpoint>, _> =
        members.iter().map(|(node, address)| format!("{node}={address}").parse()).collect();
    let endpoints = match endpoints {
        Ok(endpoints) => endpoints,
        Err(error) => {
            tracing::error!(%error, "cannot create files");
            return;
        }
    };
    let mut last_failure = None;
    loop {
        let options = ClientOptions::new(endpoints.clone(), credentials.clone());
        match create_files(options, count).await {
            Ok(()) => {
                tracing::info!(count, "the files are there");
                return;
            }
            Err(failure) => {
                let failure = failure.to_string();
                if last_failure.as_ref() != Some(&failure) {
                    tracing::warn!(failure, "cannot create files yet, and try again");
                }
                last_failure = Some(failure);
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
