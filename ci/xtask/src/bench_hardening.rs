//! `cargo xtask bench --hardening`: what the kernel's defences cost, by counting instructions.
//!
//! The same work runs as PID 1 of several kernels: `lean` as it ships, `lean` with what a command line can switch off
//! switched off, `hardened`, and any kernel that is named with `--kernel`, such as one that was built without the
//! fragments `hardening.conf` and `mitigations.conf`. An emulator has no pipeline: that a fence or a flush takes longer
//! than another instruction is not seen here.

use std::{fs, path::Path};

use ::kernel_config::Variant;
use anyhow::{Context, Result, bail};
use guest_arch::Arch;
use guest_inputs::{Cache, Progress};

use crate::{bench_boot, deps};

/// Where the work can count instructions: by the time stamp counter.
const ARCH: Arch = Arch::X86_64;

/// What of `lean`'s defences can be switched off at boot (kernel-parameters.txt).
const OFF: &str = "mitigations=off init_on_alloc=0 hardened_usercopy=off randomize_kstack_offset=off nokaslr \
    page_alloc.shuffle=0 ibt=off";

/// A kernel and what one of each piece of work took with it.
struct Column {
    title: String,
    figures: Vec<(String, u64)>,
}

pub(crate) fn run(kernels: &[std::path::PathBuf], install_deps: bool) -> Result<()> {
    if Arch::host() != ARCH {
        bail!("what counts instructions here is written for {ARCH} alone");
    }
    deps::ensure(&[&deps::kernel(&[ARCH], &Variant::ALL), &deps::vm(&[ARCH])], install_deps)?;
    let (cache, progress) = (Cache::open()?, Progress::new());
    let built = |variant| ::kernel_config::build(&cache, ARCH, variant, &progress).map(|kernel| kernel.image);
    let (lean, hardened) = (built(Variant::Lean)?, built(Variant::Hardened)?);
    let mut columns = vec![
        column("lean".to_owned(), &lean, "")?,
        column("lean, all off".to_owned(), &lean, OFF)?,
        column("hardened".to_owned(), &hardened, "")?,
    ];
    for kernel in kernels {
        columns.push(column(kernel.display().to_string(), kernel, "")?);
    }
    print!("{}", table(&columns));
    Ok(())
}

fn column(title: String, kernel: &Path, words: &str) -> Result<Column> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("work.c");
    fs::write(&source, include_str!("bench_hardening/work.c"))?;
    let init = bench_boot::compile(ARCH, &source, &["-O2", "-static"])?;
    let log = bench_boot::boot(ARCH, kernel, &init, words).with_context(|| format!("the boot of {title}"))?;
    let figures = figures(&log);
    if figures.is_empty() {
        bail!("{title}: the guest said nothing of what it took:\n{log}");
    }
    Ok(Column { title, figures })
}

/// Reads lines such as "took fork 24000"; others are skipped.
fn figures(log: &str) -> Vec<(String, u64)> {
    let figure = |line: &str| {
        let (name, count) = line.trim().strip_prefix("took ")?.split_once(' ')?;
        Some((name.to_owned(), count.parse().ok()?))
    };
    log.lines().filter_map(figure).collect()
}

/// A line for each piece of work; every column but the first with how much more it is than the first.
fn table(columns: &[Column]) -> String {
    let mut lines = vec![format!("{:<8}", "")];
    lines[0] += &columns.iter().map(|column| format!(" {:>22}", column.title)).collect::<String>();
    for (index, (name, first)) in columns[0].figures.iter().enumerate() {
        let mut line = format!("{name:<8} {first:>22}");
        for column in &columns[1..] {
            let Some((_, count)) = column.figures.get(index) else { continue };
            let more = (*count as f64 / *first as f64 - 1.0) * 100.0;
            line += &format!(" {:>22}", format!("{count} ({more:+.0} %)"));
        }
        lines.push(line);
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_guest_says_becomes_a_table() {
        let column = |title: &str, log| Column { title: title.into(), figures: figures(log) };
        let columns = [
            column("lean", "noise\ntook call 100\r\ntook fork 2000\n"),
            column("off", "took call 80\ntook fork 1000\n"),
        ];
        let table = table(&columns);
        let lines: Vec<_> =
            table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>()).collect();
        assert_eq!(lines[0], ["lean", "off"]);
        assert_eq!(lines[1], ["call", "100", "80", "(-20", "%)"]);
        assert_eq!(lines[2], ["fork", "2000", "1000", "(-50", "%)"]);
    }
}
