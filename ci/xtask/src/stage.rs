//! Names and times the stages of a command: a failure says in which stage it happened, the end says where time went.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

/// The stages so far.
#[derive(Default)]
pub(crate) struct Stages(Vec<(&'static str, Duration)>);

impl Stages {
    /// Runs one stage.
    pub(crate) fn run<T>(&mut self, name: &'static str, stage: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let result = stage().with_context(|| format!("stage {name}"));
        self.0.push((name, start.elapsed()));
        result
    }

    /// A line per stage, and one for all of them.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let total = self.0.iter().map(|(_, time)| *time).sum();
        for (name, time) in self.0.iter().chain([&("total", total)]) {
            let _infallible = writeln!(text, "{name:<16} {:>8.2} s", time.as_secs_f64());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_its_stage_and_both_are_in_the_table() {
        let mut stages = Stages::default();
        stages.run("first", || Ok(())).unwrap();
        let error = stages.run("second", || -> Result<()> { anyhow::bail!("no disk") }).unwrap_err();
        assert_eq!(format!("{error:#}"), "stage second: no disk");
        let names: Vec<_> = stages.table().lines().map(|l| l.split(' ').next().unwrap().to_owned()).collect();
        assert_eq!(names, ["first", "second", "total"]);
    }
}
