//! The codes with which a server closes connections, for whoever looks at the other end.

use quinn::{Connection, VarInt};

/// Why a connection is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Close {
    /// Nothing more is to be said.
    Done,
    /// The hello was refused.
    Refused,
    /// What was sent makes no sense.
    Garbage,
    /// What was asked for is not for the holder of this certificate.
    NotPermitted,
    /// Replies were not read.
    TooSlow,
    /// A newer connection of the same node took its place.
    Replaced,
    /// The node stops, or starts again.
    Stopping,
}

impl Close {
    const fn code(self) -> u32 {
        match self {
            Self::Done => 0,
            Self::Refused => 1,
            Self::Garbage => 2,
            Self::NotPermitted => 3,
            Self::TooSlow => 4,
            Self::Replaced => 5,
            Self::Stopping => 6,
        }
    }

    const fn reason(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Garbage => "what was sent makes no sense",
            Self::NotPermitted => "not permitted with this certificate",
            Self::TooSlow => "replies were not read",
            Self::Replaced => "replaced by a newer connection",
            Self::Stopping => "the node stops",
        }
    }

    /// Closes a connection. It is no error if it is closed already.
    pub(super) fn connection(self, connection: &Connection) {
        connection.close(VarInt::from_u32(self.code()), self.reason().as_bytes());
    }

    pub(super) fn endpoint(self, endpoint: &quinn::Endpoint) {
        endpoint.close(VarInt::from_u32(self.code()), self.reason().as_bytes());
    }
}
