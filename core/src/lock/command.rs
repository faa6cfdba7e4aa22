//! What a log entry asks of the lock table.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::capped;
use crate::codec::encodable;
use crate::config::FRAME_BYTES_MAX;
use crate::ids::ClientNonce;
use crate::message::{KeepAlive, Submission};
use crate::text::Label;
use crate::time::Duration;

/// The most keep-alives of one [`Command::KeepAlive`].
pub const KEEP_ALIVES_MAX: usize = 4096;

/// One command of the lock table, as [`Payload::Command`](crate::message::Payload::Command)
/// carries it: encoded by [`codec`](crate::codec).
///
/// Whatever a decoded command says, applying it is defined: it takes effect, or its
/// [`Notice`](super::Notice) says why not.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Opens a session, or finds the one that was opened with the same nonce.
    OpenSession {
        /// Chosen at random by the client.
        nonce: ClientNonce,
        /// Who the session belongs to.
        label: Label,
        /// How long the session lives without a keep-alive, in lease time.
        lease: Duration,
    },
    /// Renews the leases of any number of sessions, at most [`KEEP_ALIVES_MAX`].
    KeepAlive(#[serde(deserialize_with = "capped::vec::<_, _, KEEP_ALIVES_MAX>")] Vec<KeepAlive>),
    /// One numbered request of a session.
    Submit(Submission),
}

encodable! {
    7 Command, FRAME_BYTES_MAX;
}
