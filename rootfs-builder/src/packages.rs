//! The Debian packages of a recipe: from what it asks for to files that are laid into a tree.
//!
//! What it asks for is resolved once; after that the lock says which packages those are, and a build needs no more of a
//! mirror than the packages themselves. One that has left its place is looked for by its digest in every suite.

use guest_arch::Arch;
use guest_debian::{Finish, Laid, Mirror, Package, Prune, Request};
use guest_inputs::{Cache, Progress, fetch};
use guest_tree::Tree;

use crate::error::Error;
use crate::lock::{Change, Lock};
use crate::recipe::{self, Recipe, Said, System};

/// Looks for a recipe's packages in its suites as they are now.
pub fn resolve(
    recipe: &Recipe,
    arch: Arch,
    cache: &Cache,
    progress: &Progress,
) -> Result<Vec<Package>, Error> {
    let wanted = &recipe.packages;
    if wanted.install.is_empty() {
        return Ok(Vec::new());
    }
    if cache.is_offline() {
        let what = format!("the list of packages for {}", recipe.name);
        return Err(guest_inputs::Error::Offline { what }.into());
    }
    progress.task("packages").doing("resolving");
    let mirror = Mirror::open(cache, progress)?;
    let [suites, packages, exclude] = [wanted.suites_for(arch), &wanted.install, &wanted.exclude].map(values);
    let available = mirror.packages(&suites, arch)?;
    let resolution = guest_debian::resolve(&available, Request { packages: &packages, exclude: &exclude });
    Ok(resolution.map_err(|error| placed(recipe, error))?.packages)
}

/// A recipe's packages by its lock. Without one that fits they are resolved now, and the lock is written, unless it must be
/// taken as it is; then that is an error. Says what has changed in the lock.
pub fn locked(
    recipe: &Recipe,
    arch: Arch,
    frozen: bool,
    cache: &Cache,
    progress: &Progress,
) -> Result<(Vec<Package>, Vec<Change>), Error> {
    if recipe.packages.install.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let path = Lock::path_for(recipe);
    let mut lock = Lock::load(&path)?;
    if let Some(packages) = lock.packages(recipe, arch) {
        return Ok((packages.to_vec(), Vec::new()));
    }
    if frozen {
        let what = format!("it has no packages for what {} asks for {arch}", recipe.name);
        return Err(Error::Stale { path, what });
    }
    let packages = resolve(recipe, arch, cache, progress)?;
    let before = lock.clone();
    lock.set_packages(recipe, arch, packages.clone());
    lock.write(&path)?;
    Ok((packages, before.changes(&lock)))
}

/// Fetches packages and takes them apart.
pub fn lay(packages: &[Package], arch: Arch, cache: &Cache, progress: &Progress) -> Result<Laid, Error> {
    let mut found = Vec::new();
    for package in packages {
        found.push(match fetch(cache, &package.pin(), progress) {
            Ok(_) => package.clone(),
            Err(guest_inputs::Error::Download { absent: true, .. }) => {
                Mirror::open(cache, progress)?.find(package, arch)?
            }
            Err(other) => return Err(other.into()),
        });
    }
    Ok(guest_debian::lay(&found, cache, progress)?)
}

/// Takes out of a tree what a recipe does not want. A pattern of its own that does nothing is a mistake; one of a recipe that
/// it extends may have been about packages that are not here.
pub(crate) fn prune(tree: &mut Tree, recipe: &Recipe) -> Result<(), Error> {
    let patterns = |list: &[Said<String>]| -> Vec<String> {
        list.iter().map(|said| said.value.trim_start_matches('/').to_owned()).collect()
    };
    let (exclude, keep) = (patterns(&recipe.prune), patterns(&recipe.keep));
    let idle = guest_debian::prune(tree, Prune { exclude: &exclude, keep: &keep });
    for (list, places, what) in [
        (&recipe.prune, idle.exclude, "matches nothing in base and packages"),
        (&recipe.keep, idle.keep, "keeps nothing: prune takes nothing that it matches"),
    ] {
        let own = places.into_iter().map(|place| &list[place]).find(|said| said.place.is_in(&recipe.path));
        if let Some(said) = own {
            return Err(said.place.wrong(format!("{:?} {what}", said.value)).into());
        }
    }
    Ok(())
}

/// Does what is left to do for a system of packages.
pub(crate) fn finish(laid: Laid, system: &System) -> Result<Tree, Error> {
    let [enable, mask, sysusers, fstab] =
        [&system.enable, &system.mask, &system.sysusers, &system.fstab].map(|list| values(list));
    let finish = Finish {
        hostname: system.hostname.as_deref().unwrap_or("husk"),
        default_target: system.default_target.as_deref(),
        enable: &enable,
        mask: &mask,
        sysusers: &sysusers,
        fstab: &fstab,
    };
    Ok(guest_debian::finish(laid, &finish)?)
}

fn values(list: &[Said<String>]) -> Vec<String> {
    list.iter().map(|said| said.value.clone()).collect()
}

/// The error with the line of the recipe that asked for the package, itself or through others.
fn placed(recipe: &Recipe, error: guest_debian::Error) -> Error {
    let guest_debian::Error::Unresolved { wanted, by, .. } = &error else { return error.into() };
    let name = |said: &str| said.split(['=', '/']).next().unwrap_or(said).to_owned();
    let all = recipe.packages.install.iter().chain(&recipe.packages.exclude);
    let asked = all.into_iter().find(|said| said.value == *wanted || by.contains(&name(&said.value)));
    match asked {
        Some(said) => {
            Error::Recipe(recipe::Error::Value { place: said.place.clone(), what: error.to_string() })
        }
        None => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unresolvable_package_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mine.toml");
        let text =
            "extends = 'minimal'\n[packages]\nsuites = ['sid']\ninstall = [\n'bash',\n'nosuch/sid',\n]\n";
        std::fs::write(&path, text).unwrap();
        let recipe = Recipe::load(path.to_str().unwrap()).unwrap();
        let unresolved = |wanted: &str, by: &[&str]| {
            let by = by.iter().map(|&who| who.to_owned()).collect();
            let what = "is nowhere".to_owned();
            placed(&recipe, guest_debian::Error::Unresolved { wanted: wanted.to_owned(), by, what })
                .to_string()
        };
        let direct = unresolved("nosuch/sid", &["the recipe"]);
        assert!(
            direct.contains("mine.toml, line 6, packages.install: package nosuch/sid: is nowhere"),
            "{direct}"
        );
        let through = unresolved("libnone (>= 2)", &["libx", "bash", "the recipe"]);
        assert!(through.contains("mine.toml, line 5, packages.install: package libnone"), "{through}");
    }

    #[test]
    fn an_idle_pattern_is_a_mistake_of_the_recipe_that_says_it() {
        let dir = tempfile::tempdir().unwrap();
        let recipe = |name: &str, text: &str| {
            let path = dir.path().join(format!("{name}.toml"));
            std::fs::write(&path, text).unwrap();
            Recipe::load(path.to_str().unwrap()).unwrap()
        };
        let pruned = |recipe: &Recipe| {
            let mut tree = Tree::new();
            tree.put("/doc/a", guest_tree::Node::file(0o644, "", &"test".into())).unwrap();
            prune(&mut tree, recipe).map_err(|error| error.to_string())
        };
        let below = recipe("below", "extends = 'minimal'\nprune = ['/doc/*',\n'/dco/*']\n");
        let error = pruned(&below).unwrap_err();
        let says = "below.toml, line 3, prune: \"/dco/*\" matches nothing in base and packages";
        assert!(error.ends_with(says), "{error}");
        let kept = recipe("kept", "extends = './below.toml'\nkeep = ['/man/*']\n");
        let error = pruned(&kept).unwrap_err();
        assert!(error.contains("kept.toml, line 2, keep: \"/man/*\" keeps nothing"), "{error}");
        assert_eq!(pruned(&recipe("above", "extends = './below.toml'\n")), Ok(()));
    }
}
