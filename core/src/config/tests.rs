//! What settings are refused, and what they leave room for.

use super::*;

#[test]
fn the_defaults_are_good() {
    assert_eq!(Config::default().check(&Limits::default()), Ok(()));
}

/// However small the other settings are.
#[test]
fn the_log_has_room_for_the_largest_entry() {
    let least = 4 * (REQUEST_BYTES_MAX as u64 + ENTRY_OVERHEAD_BYTES);
    let config = |log_bytes_max| Config {
        snapshot_bytes: 1 << 10,
        uncommitted_bytes_max: 1 << 10,
        log_bytes_max,
        ..Config::default()
    };
    assert_eq!(config(least).check(&Limits::default()), Ok(()));
    let refused = config(least - 1).check(&Limits::default());
    let expected = ConfigError::OutOfRange {
        setting: "log_bytes_max",
        value: least - 1,
        minimum: least,
        maximum: u64::MAX,
    };
    assert_eq!(refused, Err(expected));
}

/// What is retained, and what waits for a snapshot, fill no more than three quarters.
#[test]
fn the_log_is_twice_what_a_snapshot_waits_for() {
    for (snapshot_bytes, uncommitted_bytes_max) in [(129 << 20, 1 << 20), (1 << 20, 129 << 20)] {
        let config = Config { uncommitted_bytes_max, snapshot_bytes, ..Config::default() };
        let refused = config.check(&Limits::default());
        assert!(matches!(refused, Err(ConfigError::OutOfRange { setting: "log_bytes_max", .. })));
    }
}
