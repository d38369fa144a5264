//! Resolves packages by hand: `resolve ARCH SUITE[,SUITE...] PACKAGE... [-- EXCLUDED...]`.

use std::process::ExitCode;

use guest_debian::{Mirror, Request, resolve};
use guest_inputs::{Cache, Progress};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let arch = words.next().ok_or("which architecture?")?.parse()?;
    let suites = words.next().ok_or("which suites?")?;
    let suites: Vec<String> = suites.split(',').map(str::to_owned).collect();
    let words: Vec<String> = words.collect();
    let mut lists = words.split(|word| word == "--");
    let wanted = lists.next().unwrap_or_default();
    let exclude = lists.next().unwrap_or_default();
    let cache = Cache::open()?;
    let progress = Progress::new();
    let available = Mirror::open(&cache, &progress)?.packages(&suites, arch)?;
    let found = resolve(&available, Request { packages: wanted, exclude })?;
    for package in &found.packages {
        println!(
            "{} {} {} {} {}",
            package.name,
            package.version,
            package.suite,
            package.size,
            package.depends.join(",")
        );
    }
    for waived in &found.waived {
        println!("without {}, which {} depends on", waived.dependency, waived.package);
    }
    let size: u64 = found.packages.iter().map(|package| package.size).sum();
    println!("{} packages, {size} bytes", found.packages.len());
    Ok(())
}
