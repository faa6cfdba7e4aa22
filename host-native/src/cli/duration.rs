//! Durations, as people write them.

use std::time::Duration;

/// Reads `10` (seconds), `1.5s`, `250ms`, `2m` or `1h`.
///
/// # Errors
/// What is wrong with it, for clap to show.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!("{text:?} is no duration: use for example 10 or 1.5s (seconds), 250ms, 2m or 1h")
    };
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_not_a_number| wrong())?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "" | "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_too_long| wrong())
}

/// Writes a duration for people: `250 ms`, `1.5 s`, `12 s`, `3 min`, `5 h`, `2 d`.
pub(crate) fn show(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        assert_eq!(parse("10"), Ok(Duration::from_secs(10)));
        assert_eq!(parse("0"), Ok(Duration::ZERO));
        assert_eq!(parse("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse("2m"), Ok(Duration::from_mins(2)));
        assert_eq!(parse("1h"), Ok(Duration::from_hours(1)));
        for wrong in ["", "s", "-1", "1d", "1 s", "1e3", "nan", "inf", "99999999999999999999999h"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn writes_what_people_read() {
        for (duration, shown) in [
            (Duration::from_millis(250), "250 ms"),
            (Duration::from_millis(1500), "1.5 s"),
            (Duration::from_secs(12), "12 s"),
            (Duration::from_mins(3), "3 min"),
            (Duration::from_hours(5), "5 h"),
            (Duration::from_hours(49), "2 d"),
        ] {
            assert_eq!(show(duration), shown);
        }
    }
}
