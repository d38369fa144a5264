//! `husk list`: what there is.

use serde_json::{Value, json};

use super::Error;
use crate::name::Name;
use crate::state::{Record, Status, Store};

/// The containers as a table with a heading.
pub fn list_table(store: &Store) -> Result<String, Error> {
    let mut rows = vec![["NAME", "PID", "STATUS", "IMAGE", "COMMAND"].map(String::from)];
    for (name, record) in store.list()? {
        let status = match (record.status, record.exit_code) {
            (Status::Stopped, Some(code)) => format!("stopped ({code})"),
            (status, _) => status.as_str().to_string(),
        };
        let pid = live_pid(&record).map_or("-".into(), |pid| pid.to_string());
        let command: String = record.command.join(" ").chars().take(40).collect();
        rows.push([name.to_string(), pid, status, record.image, command]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2), width(3)];
    let mut table = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(widths) {
            table.push_str(&format!("{cell:width$}  "));
        }
        table.push_str(&row[4]);
        table.push('\n');
    }
    Ok(table)
}

/// The same as JSON.
pub fn list_json(store: &Store) -> Result<String, Error> {
    let all: Vec<Value> = store.list()?.iter().map(|(name, record)| describe(name, record)).collect();
    Ok(format!("{:#}\n", Value::Array(all)))
}

fn describe(name: &Name, record: &Record) -> Value {
    json!({
        "name": name.as_str(),
        "pid": live_pid(record),
        "status": record.status,
        "exitCode": record.exit_code,
        "image": record.image,
        "command": record.command,
    })
}

fn live_pid(record: &Record) -> Option<u32> {
    matches!(record.status, Status::Running | Status::Creating).then_some(record.pid)
}
