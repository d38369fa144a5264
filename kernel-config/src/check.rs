//! Checks configurations without compiling a kernel: everything the fragments, the lists of `checks/` and the golden
//! configurations promise, for any number of architectures and variants.

use std::{
    fs,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use guest_arch::Arch;
use guest_inputs::{Cache, Progress};

use crate::{
    Error, Finding, Variant,
    error::at,
    fragment, golden,
    list::{self, Kind, Lists},
    resolve, source,
    verdict::{self, Entries, Facts},
};

/// What became of the check.
#[derive(Debug)]
pub struct Outcome {
    /// Each configuration, in the order of the table of architectures.
    pub configs: Vec<Checked>,
    /// Entries of lists of reasons that nothing needs any more, a text each. Told when every kernel they could be for was
    /// looked at.
    pub stale: Vec<String>,
}

/// One configuration.
#[derive(Debug)]
pub struct Checked {
    /// Whose.
    pub arch: Arch,
    /// Of which kind.
    pub variant: Variant,
    /// How many symbols are on.
    pub on: usize,
    /// What is wrong with it.
    pub findings: Vec<Finding>,
    /// How it differs from the golden one, a line each.
    pub difference: Vec<String>,
}

impl Outcome {
    /// Whether there is nothing to say against any of it; a golden file that was rewritten is no fault.
    pub fn is_good(&self, updated: bool) -> bool {
        let good = |config: &Checked| config.findings.is_empty() && (updated || config.difference.is_empty());
        self.stale.is_empty() && self.configs.iter().all(good)
    }
}

/// Checks each variant on each architecture. With `update` the golden configurations are rewritten where they differ.
pub fn check(
    cache: &Cache,
    arches: &[Arch],
    variants: &[Variant],
    update: bool,
    progress: &Progress,
) -> Result<Outcome, Error> {
    let lists = Lists::read(&list::dir())?;
    let mut used = Entries::new();
    let mut configs = Vec::new();
    for (facts, config) in resolve_all(cache, arches, variants, progress)? {
        let (arch, variant) = (facts.kind.arch, facts.kind.variant);
        let findings = verdict::judge(&facts, &lists, &mut used);
        let difference = against_golden(&config, arch, variant, update)?;
        let on = facts.resolved.values().filter(|value| *value == "y").count();
        configs.push(Checked { arch, variant, on, findings, difference });
    }
    let mut judged: Vec<_> = Vec::new();
    if Variant::ALL.iter().all(|variant| variants.contains(variant)) {
        judged.extend(arches.iter().map(|arch| &lists.dropped_by[arch]));
        if Arch::ALL.iter().all(|arch| arches.contains(arch)) {
            judged.extend([&lists.dropped, &lists.allowed]);
        }
    }
    let stale = verdict::entries(judged).difference(&used).map(stale).collect();
    Ok(Outcome { configs, stale })
}

fn stale((list, group, entry): &(String, String, String)) -> String {
    format!("checks/{list} [{group}]: {entry} explains nothing")
}

/// How a configuration differs from the golden one. One that is not there differs in everything.
fn against_golden(config: &str, arch: Arch, variant: Variant, update: bool) -> Result<Vec<String>, Error> {
    let path = golden::path(&source::pinned()?.version, arch, variant);
    let golden = match fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        other => other.map_err(at("read", &path))?,
    };
    let form = golden::form(config);
    if update && form != golden {
        let dir = path.parent().unwrap_or(&path);
        fs::create_dir_all(dir).map_err(at("create", dir))?;
        fs::write(&path, &form).map_err(at("write", &path))?;
    }
    Ok(golden::difference(&golden, &form))
}

/// The facts and the text of each configuration, as many at a time as there are processors.
fn resolve_all(
    cache: &Cache,
    arches: &[Arch],
    variants: &[Variant],
    progress: &Progress,
) -> Result<Vec<(Facts, String)>, Error> {
    let pinned = source::pinned()?;
    let release = pinned.version.parse().map_err(Error::Release)?;
    source::kconfig(cache, &pinned, progress)?; // once, not in each thread
    let wanted: Vec<_> =
        arches.iter().flat_map(|&arch| variants.iter().map(move |&variant| (arch, variant))).collect();
    let one = |arch, variant| {
        let fragments = crate::fragments(arch, variant)?;
        let requested = fragment::requested(&fragments)?;
        let settings = fragment::settings(&requested);
        let texts = resolve::resolve(cache, &pinned, arch, variant, &settings, progress)?;
        let (resolved, defaults) = (fragment::resolved(&texts.config), fragment::resolved(&texts.defaults));
        let kind = Kind { arch, variant, release };
        Ok((Facts { kind, requested, resolved, defaults }, texts.config))
    };
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(&(arch, variant)) = wanted.get(index) else { return done };
            done.push((index, one(arch, variant)));
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from).min(wanted.len());
    let mut all: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a worker does not panic")).collect()
    });
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, result)| result).collect()
}
