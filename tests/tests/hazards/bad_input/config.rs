//! Settings that do not work: each has an error that names it and says from where on it works.

use quorlock_core::client::ClientConfig;
use quorlock_core::config::{
    APPEND_BYTES_CEILING, APPENDS_CEILING, Config, ConfigError, ENTRIES_PER_MESSAGE_MAX,
    FRAME_BYTES_MAX, HISTORY_CEILING, Limits, PLACES_CEILING, WINDOW_CEILING,
};
use quorlock_core::ids::NodeId;
use quorlock_core::membership::{Membership, MembershipError, VOTERS_MAX};
use quorlock_core::message::Recovered;
use quorlock_core::node::{Node, StartError};
use quorlock_core::time::{Duration, Time};

use crate::solo::bootstrap;

const MS: Duration = Duration::from_millis(1);

/// The default settings but for one change.
fn config(change: impl Fn(&mut Config)) -> Result<(), ConfigError> {
    let mut config = Config::default();
    change(&mut config);
    config.check(&Limits::default())
}

fn limits(change: impl Fn(&mut Limits)) -> Result<(), ConfigError> {
    let mut limits = Limits::default();
    change(&mut limits);
    limits.check()
}

/// A duration that is one microsecond too short is refused with the minimum, which is accepted.
fn check_minimum(
    setting: &'static str,
    minimum: Duration,
    with: impl Fn(Duration) -> Result<(), ConfigError>,
) {
    let value = minimum.saturating_sub(Duration::from_micros(1));
    let error = with(value).expect_err(setting);
    assert_eq!(error, ConfigError::TooShort { setting, value, minimum });
    let said = error.to_string();
    assert!(said.contains(setting) && said.contains(&format!("{minimum:?}")), "{said}");
    assert_eq!(with(minimum), Ok(()), "{setting} at its minimum");
}

/// A number outside of its range is refused with the range; its ends are accepted.
fn check_range(
    setting: &'static str,
    minimum: u64,
    maximum: u64,
    with: impl Fn(u64) -> Result<(), ConfigError>,
) {
    let outside = [minimum.checked_sub(1), maximum.checked_add(1)];
    for value in outside.into_iter().flatten() {
        // A setting of 32 bits that may be as large as they allow has nothing above it.
        if value > u64::from(u32::MAX) && maximum == u64::from(u32::MAX) {
            continue;
        }
        let error = with(value).expect_err(setting);
        assert_eq!(error, ConfigError::OutOfRange { setting, value, minimum, maximum });
        let said = error.to_string();
        assert!(said.contains(setting) && said.contains(&minimum.to_string()), "{said}");
    }
    assert_eq!(with(minimum), Ok(()), "{setting} at its minimum");
    assert_eq!(with(maximum), Ok(()), "{setting} at its maximum");
}

fn small(value: u64) -> u32 {
    u32::try_from(value).expect("a setting of 32 bits")
}

#[test]
fn defaults_work() {
    assert_eq!(config(|_| ()), Ok(()));
    assert_eq!(ClientConfig::default().check(), Ok(()));
}

#[test]
fn times_that_are_too_close_to_each_other() {
    let default = Config::default();
    let heartbeat = default.heartbeat_interval;
    check_minimum("heartbeat_interval", MS, |it| config(|config| config.heartbeat_interval = it));
    check_minimum("election_timeout_min", heartbeat * 3, |it| {
        config(|config| config.election_timeout_min = it)
    });
    check_minimum("election_timeout_max", default.election_timeout_min + heartbeat, |it| {
        config(|config| config.election_timeout_max = it)
    });
    check_minimum("write_stall_timeout", default.election_timeout_min, |it| {
        config(|config| config.write_stall_timeout = it)
    });
    check_minimum("snapshot_interval", default.election_timeout_max, |it| {
        config(|config| config.snapshot_interval = it)
    });
}

/// A lease that is over before a new leader can be elected would end at every failover.
#[test]
fn a_lease_that_is_shorter_than_an_election() {
    let default = Config::default();
    let with = |session_lease_min, config: &Config| {
        config.check(&Limits { session_lease_min, ..Limits::default() })
    };
    check_minimum("session_lease_min", default.election_timeout_max * 2, |it| with(it, &default));
    let collecting = Config { keep_alive_interval: Duration::from_secs(1), ..default };
    check_minimum("session_lease_min", Duration::from_secs(4), |it| with(it, &collecting));
    check_minimum("session_lease_min", MS, |it| limits(|limits| limits.session_lease_min = it));
    let min = Limits::default().session_lease_min;
    check_minimum("session_lease_max", min, |it| limits(|limits| limits.session_lease_max = it));
}

#[test]
fn sizes_out_of_their_range() {
    let any = u64::from(u32::MAX);
    let half = FRAME_BYTES_MAX as u64 / 2;
    let default = Config::default();
    // Wide enough for every other setting to be at its maximum.
    let wide = |config: &mut Config| {
        config.in_flight_entries_max = u32::MAX;
        config.in_flight_bytes_max = u32::MAX;
        config.log_bytes_max = u64::MAX;
    };
    let entries = ENTRIES_PER_MESSAGE_MAX as u64;
    macro_rules! check {
        ($setting:ident, $min:expr, $max:expr) => {
            check_range(stringify!($setting), $min, $max, |it| {
                config(|config| {
                    wide(config);
                    config.$setting = small(it);
                })
            });
        };
    }
    check!(message_entries_max, 1, entries);
    check!(message_bytes_max, 1 << 10, half);
    check!(snapshot_piece_bytes, 1, half);
    check!(in_flight_entries_max, u64::from(default.message_entries_max), any);
    check!(in_flight_bytes_max, u64::from(default.message_bytes_max), any);
    check!(uncommitted_entries_max, 1, any);
    check!(uncommitted_bytes_max, 1 << 10, any);
    check!(pending_reads_max, 1, any);
    check_range("snapshot_entries", 1, u64::MAX, |it| {
        config(|config| config.snapshot_entries = it)
    });
    check_range("snapshot_bytes", 1 << 10, u64::MAX / 2, |it| {
        config(|config| {
            wide(config);
            config.snapshot_bytes = it;
        })
    });
    for (snapshot_bytes, least) in [(1 << 10, 64 << 20), (1 << 40, 2 << 40)] {
        check_range("log_bytes_max", least, u64::MAX, |it| {
            config(|config| {
                config.snapshot_bytes = snapshot_bytes;
                config.log_bytes_max = it;
            })
        });
    }
    assert_eq!(config(|config| config.retained_entries = 0), Ok(()));
    assert_eq!(config(|config| config.retained_entries = u64::MAX), Ok(()));
}

#[test]
fn limits_out_of_their_range() {
    let any = u64::from(u32::MAX);
    macro_rules! check {
        ($setting:ident, $min:expr, $max:expr) => {
            check_range(stringify!($setting), $min, $max, |it| {
                limits(|limits| limits.$setting = small(it))
            });
        };
    }
    check!(sessions_max, 1, any);
    check!(window_max, 1, WINDOW_CEILING as u64);
    check!(pending_bytes_max, u64::from(Limits::default().append_bytes_max), any);
    check!(places_per_session_max, 1, PLACES_CEILING as u64);
    check!(locks_max, 1, any);
    check!(waiters_per_lock_max, 1, any);
    check!(files_max, 1, any);
    check!(append_bytes_max, 1, u64::from(APPEND_BYTES_CEILING));
    check!(appends_per_request_max, 1, APPENDS_CEILING as u64);
    check!(history_per_lock_max, 0, HISTORY_CEILING as u64);
    check!(history_max, 0, any);
    check!(expiries_per_entry_max, 1, any);
}

/// An even number of voters is fine, none and too many are not.
#[test]
fn voters_that_are_no_membership() {
    let of = |count: usize| Membership::new((1..=count as u64).map(NodeId::new));
    for count in 1..=VOTERS_MAX {
        assert!(of(count).is_ok(), "{count} voters");
    }
    assert_eq!(of(0), Err(MembershipError::NoVoters));
    assert_eq!(of(VOTERS_MAX + 1), Err(MembershipError::TooManyVoters));
    let none: [NodeId; 0] = [];
    let one = [NodeId::new(1)];
    assert_eq!(Membership::joint(one, none), Err(MembershipError::NoVoters));
    assert_eq!(Membership::joint(none, one), Err(MembershipError::NoVoters));
    assert_eq!(
        of(0).map_err(|error| ConfigError::from(error).to_string()),
        Err("a cluster needs at least one voter".to_owned())
    );
    assert_eq!(
        of(16).map_err(|error| ConfigError::from(error).to_string()),
        Err("a cluster has at most 15 voters".to_owned())
    );
}

/// The errors reach whoever starts a node, or sets a cluster up.
#[test]
fn wrong_settings_stop_a_node_at_its_start() {
    let start = |id: u64, config: Config, recovered: Recovered| {
        Node::new(NodeId::new(id), config, recovered, 1, Time::ZERO)
    };
    let heartbeat_interval = Duration::from_secs(1);
    let slow = Config { heartbeat_interval, ..Config::default() };
    let refused = start(1, slow, bootstrap(3)).expect_err("three heartbeats are three seconds");
    assert!(matches!(
        refused,
        StartError::Config(ConfigError::TooShort { setting: "election_timeout_min", minimum, .. })
            if minimum == Duration::from_secs(3)
    ));
    assert!(refused.to_string().contains("3s"), "{refused}");
    // The limits are those of the cluster, which this node did not choose.
    let times = |factor: u32| Config {
        election_timeout_min: Duration::from_secs(1),
        election_timeout_max: Duration::from_millis(1001) * factor,
        write_stall_timeout: Duration::from_secs(1),
        ..Config::default()
    };
    let refused = start(1, times(2), bootstrap(3)).expect_err("a lease is two seconds");
    assert!(refused.to_string().contains("session_lease_min"), "{refused}");
    assert!(start(NodeId::MAX.value(), Config::default(), bootstrap(3)).is_err());
    let no_window = Limits { window_max: 0, ..Limits::default() };
    let voters = Membership::new([NodeId::new(1)]).expect("one voter");
    assert!(Recovered::bootstrap(voters, no_window).is_err());
}

#[test]
fn settings_of_a_client_that_do_not_work() {
    let client = |change: &dyn Fn(&mut ClientConfig)| {
        let mut config = ClientConfig::default();
        change(&mut config);
        config.check()
    };
    let default = ClientConfig::default();
    check_minimum("keep_alive_interval", MS, |it| {
        client(&|config| config.keep_alive_interval = it)
    });
    check_minimum("connect_timeout", MS, |it| client(&|config| config.connect_timeout = it));
    check_minimum("reply_timeout", MS, |it| client(&|config| config.reply_timeout = it));
    check_minimum("open_timeout", MS, |it| client(&|config| config.open_timeout = it));
    check_minimum("backoff_min", MS, |it| client(&|config| config.backoff_min = it));
    check_minimum("backoff_max", default.backoff_min, |it| {
        client(&|config| config.backoff_max = it)
    });
    check_minimum("jeopardy_after", default.keep_alive_interval + default.reply_timeout, |it| {
        client(&|config| config.jeopardy_after = it)
    });
    check_range("calls_max", 1, u64::from(u32::MAX), |it| {
        client(&|config| config.calls_max = small(it))
    });
    // What clocks may differ by is a part of the lease, and some of it must be left.
    let drift = client(&|config| config.drift_ppm = 500_001);
    assert!(matches!(drift, Err(ConfigError::OutOfRange { setting: "drift_ppm", .. })));
    let short = client(&|config| config.lease_margin = Duration::from_secs(9));
    assert!(matches!(short, Err(ConfigError::TooShort { setting: "lease", .. })));
}
