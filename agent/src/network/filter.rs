//! The packet filter: iptables' own programs, which know its format and which of its kernel sides the guest has.

use std::time::Duration;

use crate::helper::{self, Command};
use crate::reaper::Reaper;

/// Where the programs are, the preferred place first.
const PLACES: &[&str] = &["/usr/sbin", "/sbin"];

/// The largest table that still fits into an answer, whose limit is 4 MiB.
const LARGEST: usize = (4 << 20) - (64 << 10);

/// How long the programs may take; they wait 5 s for each other.
const DEADLINE: Duration = Duration::from_secs(20);

/// The rules were not read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Helper(#[from] helper::Error),
    #[error("{0}: more than {LARGEST} bytes of rules, which no answer can hold")]
    TooLarge(String),
}

/// The rules of all tables, in the format of `iptables-save`.
pub(crate) async fn save(reaper: &Reaper, ipv6: bool) -> Result<Vec<u8>, Error> {
    let name = program(ipv6, "save");
    let output = helper::run(reaper, command(PLACES, &name)?.keep(LARGEST)).await?;
    if output.truncated { Err(Error::TooLarge(name)) } else { Ok(output.stdout) }
}

/// Replaces the rules of the tables named in `rules`, and returns what the program printed.
pub(crate) async fn restore(reaper: &Reaper, ipv6: bool, rules: Vec<u8>) -> Result<Vec<u8>, Error> {
    let command = command(PLACES, &program(ipv6, "restore"))?.args(["--wait", "5"]).input(rules);
    Ok(helper::run(reaper, command).await?.stdout)
}

fn program(ipv6: bool, verb: &str) -> String {
    format!("ip{}tables-{verb}", if ipv6 { "6" } else { "" })
}

fn command(places: &[&str], name: &str) -> Result<Command, helper::Error> {
    let paths: Vec<String> = places.iter().map(|place| format!("{place}/{name}")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    Ok(Command::new(helper::find(&paths)?).deadline(DEADLINE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_and_verb_has_its_own_program() {
        let names = [(false, "save"), (false, "restore"), (true, "save"), (true, "restore")]
            .map(|(ipv6, verb)| program(ipv6, verb));
        assert_eq!(names, ["iptables-save", "iptables-restore", "ip6tables-save", "ip6tables-restore"]);
    }

    #[test]
    fn a_guest_without_the_program_says_which_and_where() {
        let error = command(&["/no/usr/sbin", "/no/sbin"], "ip6tables-restore").err().unwrap().to_string();
        assert_eq!(
            error,
            "/no/usr/sbin/ip6tables-restore or /no/sbin/ip6tables-restore: no such program in the guest"
        );
    }
}
