//! Looks for a package of a suite as if it had left it: `find ARCH SUITE PACKAGE [SHA256]`.

use std::process::ExitCode;

use guest_debian::{Mirror, Package, Request, resolve};
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
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [arch, suite, name, digest @ ..] = &words[..] else { return Err("which package?".into()) };
    let arch = arch.parse()?;
    let (cache, progress) = (Cache::open()?, Progress::new());
    let mirror = Mirror::open(&cache, &progress)?;
    let available = mirror.packages(std::slice::from_ref(suite), arch)?;
    let found = resolve(&available, Request { packages: std::slice::from_ref(name), exclude: &[] })?;
    let package = found.packages.into_iter().find(|package| package.name == *name).ok_or("is not there")?;
    let sha256 = digest.first().cloned().unwrap_or(package.sha256.clone());
    let gone = Package { suite: "elsewhere".to_owned(), path: String::new(), sha256, ..package };
    let there = mirror.find(&gone, arch)?;
    println!("{} {} is in {} at {}", there.name, there.version, there.suite, there.path);
    Ok(())
}
