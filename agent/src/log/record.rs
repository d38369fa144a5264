//! One record: a JSON object with the keys that peers' tools read, each once.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use tracing::Level;

/// How bad it is, by the names that peers' tools know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    /// The agent itself is broken.
    Critical,
    Level(Level),
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Self::Critical => "CRIT",
            Self::Level(Level::ERROR) => "ERRO",
            Self::Level(Level::WARN) => "WARN",
            Self::Level(Level::INFO) => "INFO",
            Self::Level(Level::DEBUG) => "DEBG",
            Self::Level(Level::TRACE) => "TRCE",
        }
    }
}

/// Keys of the record itself.
const OWN: [&str; 8] = ["msg", "level", "ts", "name", "source", "pid", "version", "subsystem"];

/// One line of the log. Context values are strings, and a context key never takes the place of one of the record's:
/// it gets a longer name.
pub(super) fn record(
    severity: Severity,
    subsystem: &str,
    message: String,
    context: Map<String, Value>,
) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let own = [
        message,
        severity.name().to_string(),
        rfc3339(now),
        "kata-agent".to_string(),
        "agent".to_string(),
        std::process::id().to_string(),
        env!("CARGO_PKG_VERSION").to_string(),
        subsystem.to_string(),
    ];
    let mut record: Map<String, Value> = context
        .into_iter()
        .map(
            |(key, value)| {
                if OWN.contains(&key.as_str()) { (format!("its_{key}"), value) } else { (key, value) }
            },
        )
        .collect();
    record.extend(OWN.iter().zip(own).map(|(key, value)| (key.to_string(), Value::String(value))));
    let mut line = Value::Object(record).to_string();
    line.push('\n');
    line
}

/// RFC 3339 in UTC with microseconds. Days to civil date: Howard Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`.
fn rfc3339(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60);
    let micros = since_epoch.subsec_micros();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(rfc3339(Duration::ZERO), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(Duration::new(951_827_696, 5_000)), "2000-02-29T12:34:56.000005Z");
        assert_eq!(rfc3339(Duration::from_secs(4_102_444_799)), "2099-12-31T23:59:59.000000Z");
    }

    #[test]
    fn a_record_is_one_line_of_json_with_the_keys_peers_read() {
        let context = Map::from_iter([
            ("container".to_string(), Value::String("a\nb".into())),
            ("level".to_string(), Value::String("fake".into())),
            ("pid".to_string(), Value::String("77".into())),
        ]);
        let line = record(Severity::Level(Level::INFO), "registry", "said \"hi\"\n".into(), context);
        assert_eq!(line.matches('\n').count(), 1);
        let value: Value = serde_json::from_str(&line).expect("JSON");
        for key in OWN {
            assert!(value[key].is_string(), "{key}");
            assert_eq!(line.matches(&format!("\"{key}\":")).count(), 1, "{key}");
        }
        assert_eq!((&value["name"], &value["source"]), (&"kata-agent".into(), &"agent".into()));
        assert_eq!((&value["msg"], &value["level"]), (&"said \"hi\"\n".into(), &"INFO".into()));
        assert_eq!((&value["container"], &value["subsystem"]), (&"a\nb".into(), &"registry".into()));
        assert_eq!((&value["its_level"], &value["its_pid"]), (&"fake".into(), &"77".into()));
        assert_eq!(value["pid"], std::process::id().to_string());
    }

    #[test]
    fn levels_have_the_names_that_peers_map() {
        let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
        let names: Vec<_> = levels.map(Severity::Level).iter().map(|level| level.name()).collect();
        assert_eq!(names, ["ERRO", "WARN", "INFO", "DEBG", "TRCE"]);
        assert_eq!(Severity::Critical.name(), "CRIT");
    }
}
