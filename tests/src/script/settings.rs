//! Settings and limits by their names.

use std::error::Error;
use std::str::FromStr;

use quorlock_core::client::ClientConfig;
use quorlock_core::config::{Config, Limits};
use quorlock_core::time::Duration;

use super::values::Span;

/// Changes one setting of the nodes, or one limit of the cluster.
pub(super) fn set(
    config: &mut Config,
    limits: &mut Limits,
    name: &str,
    value: &str,
) -> Result<(), Box<dyn Error>> {
    if let Some(setting) = duration(config, limits, name) {
        *setting = value.parse::<Span>()?.0;
    } else if let Some(setting) = number(config, limits, name) {
        *setting = parse(value)?;
    } else if let Some(setting) = large_number(config, name) {
        *setting = parse(value)?;
    } else {
        return Err(format!("there is no setting {name}").into());
    }
    Ok(())
}

/// Changes one setting of a client.
pub(super) fn set_client(
    config: &mut ClientConfig,
    name: &str,
    value: &str,
) -> Result<(), Box<dyn Error>> {
    let setting = match name {
        "keep_alive_interval" => &mut config.keep_alive_interval,
        "jeopardy_after" => &mut config.jeopardy_after,
        "lease_margin" => &mut config.lease_margin,
        "connect_timeout" => &mut config.connect_timeout,
        "reply_timeout" => &mut config.reply_timeout,
        "open_timeout" => &mut config.open_timeout,
        "backoff_min" => &mut config.backoff_min,
        "backoff_max" => &mut config.backoff_max,
        "calls_max" => {
            config.calls_max = parse(value)?;
            return Ok(());
        }
        _ => return Err(format!("there is no setting {name} of a client").into()),
    };
    *setting = value.parse::<Span>()?.0;
    Ok(())
}

fn parse<T: FromStr<Err: Error + 'static>>(value: &str) -> Result<T, Box<dyn Error>> {
    Ok(value.parse()?)
}

fn duration<'a>(
    config: &'a mut Config,
    limits: &'a mut Limits,
    name: &str,
) -> Option<&'a mut Duration> {
    Some(match name {
        "heartbeat_interval" => &mut config.heartbeat_interval,
        "election_timeout_min" => &mut config.election_timeout_min,
        "election_timeout_max" => &mut config.election_timeout_max,
        "write_stall_timeout" => &mut config.write_stall_timeout,
        "snapshot_interval" => &mut config.snapshot_interval,
        "keep_alive_interval" => &mut config.keep_alive_interval,
        "session_lease_min" => &mut limits.session_lease_min,
        "session_lease_max" => &mut limits.session_lease_max,
        _ => return None,
    })
}

fn number<'a>(config: &'a mut Config, limits: &'a mut Limits, name: &str) -> Option<&'a mut u32> {
    Some(match name {
        "message_entries_max" => &mut config.message_entries_max,
        "message_bytes_max" => &mut config.message_bytes_max,
        "in_flight_entries_max" => &mut config.in_flight_entries_max,
        "in_flight_bytes_max" => &mut config.in_flight_bytes_max,
        "snapshot_piece_bytes" => &mut config.snapshot_piece_bytes,
        "uncommitted_entries_max" => &mut config.uncommitted_entries_max,
        "uncommitted_bytes_max" => &mut config.uncommitted_bytes_max,
        "pending_reads_max" => &mut config.pending_reads_max,
        "sessions_max" => &mut limits.sessions_max,
        "window_max" => &mut limits.window_max,
        "pending_bytes_max" => &mut limits.pending_bytes_max,
        "places_per_session_max" => &mut limits.places_per_session_max,
        "locks_max" => &mut limits.locks_max,
        "waiters_per_lock_max" => &mut limits.waiters_per_lock_max,
        "files_max" => &mut limits.files_max,
        "append_bytes_max" => &mut limits.append_bytes_max,
        "appends_per_request_max" => &mut limits.appends_per_request_max,
        "history_per_lock_max" => &mut limits.history_per_lock_max,
        "history_max" => &mut limits.history_max,
        "expiries_per_entry_max" => &mut limits.expiries_per_entry_max,
        _ => return None,
    })
}

fn large_number<'a>(config: &'a mut Config, name: &str) -> Option<&'a mut u64> {
    Some(match name {
        "snapshot_entries" => &mut config.snapshot_entries,
        "snapshot_bytes" => &mut config.snapshot_bytes,
        "log_bytes_max" => &mut config.log_bytes_max,
        "retained_entries" => &mut config.retained_entries,
        _ => return None,
    })
}
