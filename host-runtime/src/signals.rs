//! Signals: their names, and those that reach husk while a workload runs.

use std::io;
use std::str::FromStr;

use nix::sys::signal::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// A signal's number from `15`, `TERM` or `SIGTERM`.
pub fn parse(text: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse::<u32>() {
        return if (1..=64).contains(&number) { Ok(number) } else { Err("expected 1 to 64".into()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    Signal::from_str(&name).map(|signal| signal as u32).map_err(|_| "no such signal".into())
}

/// Something husk was told by signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// For the workload.
    Forward(u32),
    /// The terminal has a new size.
    Resized,
}

/// The signals husk listens to. From here on they no longer end it by themselves.
pub(crate) struct Signals {
    forwarded: [(u32, Stream); 6],
    resized: Stream,
}

impl Signals {
    /// Starts listening.
    pub(crate) fn listen() -> io::Result<Signals> {
        use Signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
        let listen = |s: Signal| io::Result::Ok((s as u32, signal(SignalKind::from_raw(s as i32))?));
        Ok(Signals {
            forwarded: [
                listen(SIGINT)?,
                listen(SIGTERM)?,
                listen(SIGHUP)?,
                listen(SIGQUIT)?,
                listen(SIGUSR1)?,
                listen(SIGUSR2)?,
            ],
            resized: signal(SignalKind::window_change())?,
        })
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> Told {
        let Signals { forwarded: [a, b, c, d, e, f], resized } = self;
        let number = tokio::select! {
            _ = a.1.recv() => a.0,
            _ = b.1.recv() => b.0,
            _ = c.1.recv() => c.0,
            _ = d.1.recv() => d.0,
            _ = e.1.recv() => e.0,
            _ = f.1.recv() => f.0,
            _ = resized.recv() => return Told::Resized,
        };
        Told::Forward(number)
    }

    /// The next one that asks husk to stop, while there is no workload to forward it to.
    pub(crate) async fn stop(&mut self) -> u32 {
        loop {
            match self.next().await {
                Told::Forward(number)
                    if number != Signal::SIGUSR1 as u32 && number != Signal::SIGUSR2 as u32 =>
                {
                    return number;
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_any_spelling() {
        for (text, number) in
            [("9", 9), ("KILL", 9), ("SIGTERM", 15), ("hup", 1), ("sigusr1", 10), ("34", 34)]
        {
            assert_eq!(parse(text), Ok(number), "{text}");
        }
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        for text in ["", "0", "65", "-9", "SIG", "NOPE", "SIGSIGTERM"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
