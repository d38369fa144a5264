//! Progress of long steps: a bar where somebody looks (standard error is a terminal), a line now and then otherwise.

use std::{
    io::{IsTerminal, stderr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// How often a log gets a line about a step that goes on.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Where progress is shown. Cheap to clone; clones share one screen.
#[derive(Debug, Clone)]
pub struct Progress {
    show: Show,
}

#[derive(Debug, Clone)]
enum Show {
    Bars(MultiProgress),
    Lines,
    Nothing,
}

/// One long step. It is over when it is dropped.
#[derive(Debug, Clone)]
pub struct Task(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    bar: Option<ProgressBar>,
    lines: bool,
    counted: AtomicBool,
    /// What was last said, and when; only `Task::line` takes this lock.
    last: Mutex<(String, Option<Instant>)>,
}

impl Progress {
    /// Bars if standard error is a terminal, else lines.
    #[must_use]
    pub fn new() -> Self {
        let show = if stderr().is_terminal() { Show::Bars(MultiProgress::new()) } else { Show::Lines };
        Progress { show }
    }

    /// Shows nothing: for tests.
    #[must_use]
    pub fn silent() -> Self {
        Progress { show: Show::Nothing }
    }

    /// Begins a step, named by what is being made ("kernel").
    #[must_use]
    pub fn task(&self, name: &str) -> Task {
        let bar = match &self.show {
            Show::Bars(screen) => {
                let bar = screen.add(ProgressBar::new_spinner());
                bar.set_style(style("{spinner} {prefix}: {msg} ({elapsed})"));
                bar.set_prefix(name.to_owned());
                bar.enable_steady_tick(Duration::from_millis(120));
                Some(bar)
            }
            Show::Lines | Show::Nothing => None,
        };
        let lines = matches!(self.show, Show::Lines);
        let last = Mutex::new((String::new(), None));
        Task(Arc::new(Inner { name: name.to_owned(), bar, lines, counted: AtomicBool::new(false), last }))
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Task {
    /// Says what is being done now: "unpacking".
    pub fn doing(&self, what: &str) {
        match &self.0.bar {
            Some(bar) => bar.set_message(what.to_owned()),
            None => self.line(what, what),
        }
    }

    /// Says what is in hand within one subject: "compiling" "serde v1.0". A log gets only some of these.
    pub fn at(&self, subject: &str, detail: &str) {
        match &self.0.bar {
            Some(bar) => bar.set_message(format!("{subject} {detail}")),
            None => self.line(subject, &format!("{subject} {detail}")),
        }
    }

    /// Says how many bytes of how many are done: "downloading 40 of 153 MB".
    pub fn bytes(&self, what: &str, done: u64, total: u64) {
        let mega = |n: u64| format!("{:.*}", usize::from(total < 10_000_000), n as f64 / 1e6);
        match &self.0.bar {
            Some(bar) => {
                self.measured(bar, "{prefix}: {msg} {wide_bar} {bytes}/{total_bytes} ({eta})");
                self.move_to(bar, what, done, total);
            }
            None => self.line(what, &format!("{what} {} of {} MB", mega(done), mega(total))),
        }
    }

    /// Says how many things of how many are done: "compiling 40 of 800".
    pub fn count(&self, what: &str, done: u64, total: u64) {
        match &self.0.bar {
            Some(bar) => {
                self.measured(bar, "{prefix}: {msg} {wide_bar} {pos}/{len} ({elapsed})");
                self.move_to(bar, what, done, total);
            }
            None => self.line(what, &format!("{what} {done} of {total}")),
        }
    }

    fn measured(&self, bar: &ProgressBar, template: &str) {
        if !self.0.counted.swap(true, Ordering::Relaxed) {
            bar.set_style(style(template));
        }
    }

    fn move_to(&self, bar: &ProgressBar, what: &str, done: u64, total: u64) {
        bar.set_message(what.to_owned());
        bar.set_length(total);
        bar.set_position(done);
    }

    /// A new subject is said at once, the same one again only every [`LINE_EVERY`].
    fn line(&self, subject: &str, text: &str) {
        if !self.0.lines {
            return;
        }
        let mut last = self.0.last.lock().expect("nothing panics under this lock");
        if last.0 != subject || last.1.is_none_or(|at| at.elapsed() >= LINE_EVERY) {
            eprintln!("{}: {text}", self.0.name);
            *last = (subject.to_owned(), Some(Instant::now()));
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates in this file are valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_subject_is_not_repeated_at_once() {
        let task = Progress { show: Show::Lines }.task("t");
        task.bytes("downloading", 0, 10);
        let first = task.0.last.lock().unwrap().1;
        task.bytes("downloading", 5, 10);
        assert_eq!(task.0.last.lock().unwrap().1, first);
        task.doing("unpacking");
        assert_ne!(task.0.last.lock().unwrap().1, first);
    }

    #[test]
    fn all_templates_parse() {
        for draw in [Task::bytes, Task::count] {
            draw(&Progress { show: Show::Bars(MultiProgress::new()) }.task("t"), "x", 1, 2);
        }
    }
}
