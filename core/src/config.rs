//! Settings: those of one node ([`Config`]), and those that the whole cluster must agree on
//! ([`Limits`]).

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::membership::MembershipError;
use crate::text::TEXT_BYTES_MAX;
use crate::time::Duration;

/// The most bytes of any encoded message, request or reply.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

/// The highest value of [`Limits::append_bytes_max`].
pub const APPEND_BYTES_CEILING: u32 = 8 << 20;

/// The most entries of one `AppendEntries`.
pub const ENTRIES_PER_MESSAGE_MAX: usize = 4096;
/// The highest value of [`Limits::window_max`].
pub const WINDOW_CEILING: usize = 1024;
/// The highest value of [`Limits::appends_per_request_max`].
pub const APPENDS_CEILING: usize = 256;
/// The highest value of [`Limits::places_per_session_max`].
pub const PLACES_CEILING: usize = 4096;
/// The highest value of [`Limits::history_per_lock_max`].
pub const HISTORY_CEILING: usize = 256;
/// The most items of a list in an answer to a read; a longer one is asked for page by page.
pub const PAGE_MAX: usize = 1000;
/// The most bytes of a file that one read returns.
pub const READ_BYTES_MAX: u32 = 1 << 20;

/// What an entry costs beside the bytes of its command, on the wire or in memory.
pub const ENTRY_OVERHEAD_BYTES: u64 = 64;

/// The most bytes of an encoded request, and of the command that a log entry carries.
pub const REQUEST_BYTES_MAX: usize = APPEND_BYTES_CEILING as usize + (1 << 20);

// A request with the most appends of the longest names fits, and so does a message with one entry
// that carries the largest command.
const _: () = assert!(APPENDS_CEILING * 2 * TEXT_BYTES_MAX < 1 << 20);
const _: () = assert!(REQUEST_BYTES_MAX + (1 << 20) <= FRAME_BYTES_MAX);

/// What an entry with the largest command costs.
const ENTRY_COST_MAX: u64 = REQUEST_BYTES_MAX as u64 + ENTRY_OVERHEAD_BYTES;

/// The settings of one node. They decide when it acts, never what the log means, so nodes may
/// differ in them.
///
/// Every duration is measured on the host's monotone clock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// How often a leader sends a sign of life. Default 50 ms; at least 1 ms.
    pub heartbeat_interval: Duration,
    /// A follower campaigns when it has not heard from a leader for a random time between this
    /// and [`Config::election_timeout_max`]. Also how long a node that heard from a leader helps
    /// nobody to depose it. Default 250 ms; at least three heartbeat intervals.
    pub election_timeout_min: Duration,
    /// Also how long a leader lasts without a quorum, and how long it tries to hand its leadership
    /// over. Default 500 ms; at least `election_timeout_min` and one heartbeat interval, so that
    /// two candidates rarely meet again.
    pub election_timeout_max: Duration,
    /// A leader whose oldest write has not been durable for so long steps down, and no node
    /// campaigns while its own is. Default 1 s; at least `election_timeout_min`.
    pub write_stall_timeout: Duration,

    /// The most entries of one `AppendEntries`. Default 512; 1 to [`ENTRIES_PER_MESSAGE_MAX`].
    pub message_entries_max: u32,
    /// The most bytes of entries of one `AppendEntries`; a single larger entry is sent alone.
    /// Default 256 KiB; at least 1 KiB and at most half a frame.
    pub message_bytes_max: u32,
    /// The most entries on their way to one follower. Default 4096; at least
    /// `message_entries_max`.
    pub in_flight_entries_max: u32,
    /// The most bytes of entries on their way to one follower. Default 4 MiB; at least
    /// `message_bytes_max`.
    pub in_flight_bytes_max: u32,
    /// The size of the pieces in which a snapshot is sent. Default 256 KiB; 1 byte to half a
    /// frame.
    pub snapshot_piece_bytes: u32,

    /// The most entries of a leader's log that are not committed; more requests are turned away as
    /// overloaded. What keeps leases alive may take a quarter more. Default 16,384; at least 1.
    pub uncommitted_entries_max: u32,
    /// The same in bytes. Default 32 MiB; at least 1 KiB.
    pub uncommitted_bytes_max: u32,
    /// The most reads that wait for a round of confirmation. Default 16,384; at least 1.
    pub pending_reads_max: u32,

    /// Applied entries after which a snapshot is taken. Default 100,000; at least 1.
    pub snapshot_entries: u64,
    /// Bytes of applied entries after which a snapshot is taken. Default 64 MiB; at least 1 KiB.
    pub snapshot_bytes: u64,
    /// Time after which a snapshot is taken of whatever was applied meanwhile. Default 10 min; at
    /// least `election_timeout_max`.
    pub snapshot_interval: Duration,
    /// The most bytes of log that are kept in memory, whatever the reason (a disk that does not
    /// finish its writes to files holds up every snapshot). Beyond it a leader turns requests away
    /// as overloaded and a follower takes no new entries; what keeps leases alive may take a
    /// quarter more. Default 256 MiB; at least twice `snapshot_bytes`, twice
    /// `uncommitted_bytes_max`, and four times the largest entry.
    pub log_bytes_max: u64,
    /// Entries kept below a snapshot, so that a follower that is a little behind needs none; at
    /// most as many as cost a quarter of `log_bytes_max`. Default 1000; 0 keeps none.
    pub retained_entries: u64,

    /// How long keep-alives are collected before one entry renews them all. Default 20 ms; at
    /// most a quarter of [`Limits::session_lease_min`].
    pub keep_alive_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_millis(50),
            election_timeout_min: Duration::from_millis(250),
            election_timeout_max: Duration::from_millis(500),
            write_stall_timeout: Duration::from_secs(1),
            message_entries_max: 512,
            message_bytes_max: 256 << 10,
            in_flight_entries_max: 4096,
            in_flight_bytes_max: 4 << 20,
            snapshot_piece_bytes: 256 << 10,
            uncommitted_entries_max: 16_384,
            uncommitted_bytes_max: 32 << 20,
            pending_reads_max: 16_384,
            snapshot_entries: 100_000,
            snapshot_bytes: 64 << 20,
            snapshot_interval: Duration::from_mins(10),
            log_bytes_max: 256 << 20,
            retained_entries: 1000,
            keep_alive_interval: Duration::from_millis(20),
        }
    }
}

impl Config {
    /// Checks every setting by itself and against those it depends on.
    ///
    /// # Errors
    /// The first setting that is out of its range, with the range.
    pub fn check(&self, limits: &Limits) -> Result<(), ConfigError> {
        self.check_times(limits)?;
        self.check_sizes()?;
        limits.check()
    }

    fn check_times(&self, limits: &Limits) -> Result<(), ConfigError> {
        let heartbeat = self.heartbeat_interval;
        at_least("heartbeat_interval", heartbeat, Duration::from_millis(1))?;
        at_least("election_timeout_min", self.election_timeout_min, heartbeat.saturating_mul(3))?;
        at_least(
            "election_timeout_max",
            self.election_timeout_max,
            self.election_timeout_min.saturating_add(heartbeat),
        )?;
        at_least("write_stall_timeout", self.write_stall_timeout, self.election_timeout_min)?;
        at_least("snapshot_interval", self.snapshot_interval, self.election_timeout_max)?;
        // A lease that ends before the cluster can elect a new leader would end at every failover.
        at_least(
            "session_lease_min",
            limits.session_lease_min,
            self.election_timeout_max.saturating_mul(2),
        )?;
        at_least(
            "session_lease_min",
            limits.session_lease_min,
            self.keep_alive_interval.saturating_mul(4),
        )
    }

    fn check_sizes(&self) -> Result<(), ConfigError> {
        let half_frame = FRAME_BYTES_MAX as u64 / 2;
        let sizes = [
            ("message_entries_max", self.message_entries_max, 1, ENTRIES_PER_MESSAGE_MAX as u64),
            ("message_bytes_max", self.message_bytes_max, 1 << 10, half_frame),
            ("snapshot_piece_bytes", self.snapshot_piece_bytes, 1, half_frame),
            (
                "in_flight_entries_max",
                self.in_flight_entries_max,
                u64::from(self.message_entries_max),
                u64::from(u32::MAX),
            ),
            (
                "in_flight_bytes_max",
                self.in_flight_bytes_max,
                u64::from(self.message_bytes_max),
                u64::from(u32::MAX),
            ),
            ("uncommitted_entries_max", self.uncommitted_entries_max, 1, u64::from(u32::MAX)),
            ("uncommitted_bytes_max", self.uncommitted_bytes_max, 1 << 10, u64::from(u32::MAX)),
            ("pending_reads_max", self.pending_reads_max, 1, u64::from(u32::MAX)),
        ];
        for (setting, value, min, max) in sizes {
            within(setting, u64::from(value), min, max)?;
        }
        within("snapshot_entries", self.snapshot_entries, 1, u64::MAX)?;
        within("snapshot_bytes", self.snapshot_bytes, 1 << 10, u64::MAX / 2)?;
        let log_bytes_min = self.snapshot_bytes.max(u64::from(self.uncommitted_bytes_max)) * 2;
        // What is retained, what waits for a snapshot, and the largest entry all have room.
        let log_bytes_min = log_bytes_min.max(4 * ENTRY_COST_MAX);
        within("log_bytes_max", self.log_bytes_max, log_bytes_min, u64::MAX)
    }
}

/// The settings that apply uses. They are fixed when the cluster is bootstrapped and travel in
/// snapshots, since nodes that differed in them would diverge. Nodes compare their
/// [`Limits::digest`] before they talk.
///
/// Reaching one is a documented [`Rejection`](crate::message::Rejection).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// The most open sessions. Default 100,000.
    pub sessions_max: u32,
    /// The shortest time-to-live of a session. Default 2 s; at least twice the longest election
    /// time-out of every node.
    pub session_lease_min: Duration,
    /// The longest. Default 1 h.
    pub session_lease_max: Duration,
    /// The most requests of a session that are open or not acknowledged. Default 256; at most
    /// [`WINDOW_CEILING`].
    pub window_max: u32,
    /// The most bytes that all sessions together keep of what is waiting or not acknowledged: the
    /// appends of waiting sections, outcomes, losses; each counts for 64 bytes beside its own.
    /// Default 128 MiB; at least `append_bytes_max`.
    ///
    /// At the limit, and where its wait would go above it, an acquire or a section is decided as
    /// [`TooManyPendingBytes`](crate::message::Rejection::TooManyPendingBytes). That outcome, and
    /// the requests that can end a wait, may take as much again. Only when that is used up too is
    /// a request, whatever it asks for, refused as
    /// [`WindowFull`](crate::message::Rejection::WindowFull), with its number left to be used.
    ///
    /// This cannot lock up. What waits stays within the limit itself, so all that is above it are
    /// outcomes and losses. Outcomes are freed by the acknowledgements that come with every
    /// keep-alive and every request, also one that is refused; losses by those of keep-alives,
    /// which none of these limits refuses; and all that a session has when it ends. So clients that
    /// live drain what is theirs, the sessions of the others expire, and there is room again for
    /// what ends the waits.
    pub pending_bytes_max: u32,
    /// The most locks that one session holds, waits for, and has not yet acknowledged the loss of.
    /// Default 1024; at most [`PLACES_CEILING`].
    pub places_per_session_max: u32,
    /// The most locks that are held or waited for. Default 1,000,000.
    pub locks_max: u32,
    /// The most sessions that wait for one lock. Default 10,000.
    pub waiters_per_lock_max: u32,
    /// The most files. Default 10,000.
    pub files_max: u32,
    /// The most bytes that one request appends. Default 1 MiB; at most [`APPEND_BYTES_CEILING`].
    pub append_bytes_max: u32,
    /// The most appends of one request. Default 64; at most [`APPENDS_CEILING`].
    pub appends_per_request_max: u32,
    /// The most past holds that one lock remembers. Default 16; at most [`HISTORY_CEILING`].
    pub history_per_lock_max: u32,
    /// The most past holds of all locks together; the oldest are forgotten first. Default 10,000.
    pub history_max: u32,
    /// The most deadlines that one log entry lets pass, so that no entry takes long to apply; the
    /// rest pass with the entries that follow. Default 1000.
    pub expiries_per_entry_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions_max: 100_000,
            session_lease_min: Duration::from_secs(2),
            session_lease_max: Duration::from_hours(1),
            window_max: 256,
            pending_bytes_max: 128 << 20,
            places_per_session_max: 1024,
            locks_max: 1_000_000,
            waiters_per_lock_max: 10_000,
            files_max: 10_000,
            append_bytes_max: 1 << 20,
            appends_per_request_max: 64,
            history_per_lock_max: 16,
            history_max: 10_000,
            expiries_per_entry_max: 1000,
        }
    }
}

impl Limits {
    /// Checks every limit.
    ///
    /// # Errors
    /// The first one that is out of its range, with the range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let any = u64::from(u32::MAX);
        let limits = [
            ("sessions_max", self.sessions_max, 1, any),
            ("window_max", self.window_max, 1, WINDOW_CEILING as u64),
            ("pending_bytes_max", self.pending_bytes_max, u64::from(self.append_bytes_max), any),
            ("places_per_session_max", self.places_per_session_max, 1, PLACES_CEILING as u64),
            ("locks_max", self.locks_max, 1, any),
            ("waiters_per_lock_max", self.waiters_per_lock_max, 1, any),
            ("files_max", self.files_max, 1, any),
            ("append_bytes_max", self.append_bytes_max, 1, u64::from(APPEND_BYTES_CEILING)),
            ("appends_per_request_max", self.appends_per_request_max, 1, APPENDS_CEILING as u64),
            ("history_per_lock_max", self.history_per_lock_max, 0, HISTORY_CEILING as u64),
            ("history_max", self.history_max, 0, any),
            ("expiries_per_entry_max", self.expiries_per_entry_max, 1, any),
        ];
        for (limit, value, min, max) in limits {
            within(limit, u64::from(value), min, max)?;
        }
        at_least("session_lease_min", self.session_lease_min, Duration::from_millis(1))?;
        at_least("session_lease_max", self.session_lease_max, self.session_lease_min)
    }
}

/// Why settings are refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConfigError {
    /// A duration is too short for the others.
    TooShort {
        /// The name of the setting.
        setting: &'static str,
        /// What it is.
        value: Duration,
        /// The shortest that works with the other settings.
        minimum: Duration,
    },
    /// A number is out of its range.
    OutOfRange {
        /// The name of the setting.
        setting: &'static str,
        /// What it is.
        value: u64,
        /// The least.
        minimum: u64,
        /// The most.
        maximum: u64,
    },
    /// The voters are no membership.
    Membership(MembershipError),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { setting, value, minimum } => {
                write!(f, "{setting} is {value:?}; it must be at least {minimum:?}")
            }
            Self::OutOfRange { setting, value, minimum, maximum } => {
                write!(f, "{setting} is {value}; it must be from {minimum} to {maximum}")
            }
            Self::Membership(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ConfigError {}

impl From<MembershipError> for ConfigError {
    fn from(error: MembershipError) -> Self {
        Self::Membership(error)
    }
}

pub(crate) fn at_least(
    setting: &'static str,
    value: Duration,
    minimum: Duration,
) -> Result<(), ConfigError> {
    if value < minimum {
        return Err(ConfigError::TooShort { setting, value, minimum });
    }
    Ok(())
}

pub(crate) fn within(
    setting: &'static str,
    value: u64,
    minimum: u64,
    maximum: u64,
) -> Result<(), ConfigError> {
    if value < minimum || value > maximum {
        return Err(ConfigError::OutOfRange { setting, value, minimum, maximum });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
