//! Mounts that one container makes and another one sees: a sidecar that mounts what its neighbour works on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent_api::agent::SharedMount;
use nix::errno::Errno;

use crate::container::Container;
use crate::process::{INIT, Process};
use crate::registry::Registry;

/// How long the other container may take to make its mount.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked for.
const PERIOD: Duration = Duration::from_millis(50);

/// A mount that could not be shared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("shared mount {name:?}: {field}: {value:?} is not an absolute path without \"..\"")]
    Path { name: String, field: &'static str, value: String },
    #[error("shared mount {name:?}: dst_ctr: this container is {this:?}, not {value:?}")]
    Destination { name: String, this: String, value: String },
    #[error("shared mount {name:?}: src_path: nothing mounted at {path:?} of container {container:?} after {} s", PATIENCE.as_secs())]
    Late { name: String, container: String, path: String },
    #[error("shared mount {name:?}: {step}: {source}")]
    Step { name: String, step: &'static str, source: Errno },
}

/// Shows each of `mounts` in the container whose first process is `into`, which is not started yet.
pub(crate) async fn attach(
    mounts: Vec<SharedMount>,
    this: Option<&str>,
    into: &Arc<Process>,
    containers: &Registry,
) -> Result<(), Error> {
    for mount in mounts {
        check(&mount, this)?;
        let late = || Error::Late {
            name: mount.name.clone(),
            container: mount.src_ctr.clone(),
            path: mount.src_path.clone(),
        };
        let found = tokio::time::timeout(PATIENCE, find(&mount, containers)).await;
        let tree = found.map_err(|_| late())??;
        let (process, path) = (into.clone(), PathBuf::from(&mount.dst_path));
        let attached =
            tokio::task::spawn_blocking(move || jail::attach_mount_in(process.pidfd(), &tree, &path));
        let attached = tokio::time::timeout(PATIENCE, attached).await.map_err(|_| late())?;
        let step = |source| Error::Step { name: mount.name.clone(), step: "attach", source };
        attached.unwrap_or(Err(Errno::EIO)).map_err(step)?;
    }
    Ok(())
}

fn check(mount: &SharedMount, this: Option<&str>) -> Result<(), Error> {
    for (field, value) in [("src_path", &mount.src_path), ("dst_path", &mount.dst_path)] {
        if !value.starts_with('/') || value.split('/').any(|part| part == "..") || value.contains('\0') {
            return Err(Error::Path { name: mount.name.clone(), field, value: value.clone() });
        }
    }
    match this {
        Some(this) if this != mount.dst_ctr => Err(Error::Destination {
            name: mount.name.clone(),
            this: this.to_string(),
            value: mount.dst_ctr.clone(),
        }),
        _ => Ok(()),
    }
}

/// Waits for the container and for its mount, and takes a copy of it.
async fn find(mount: &SharedMount, containers: &Registry) -> Result<std::os::fd::OwnedFd, Error> {
    loop {
        if let Some(process) = first_process(&mount.src_ctr, containers) {
            let path = PathBuf::from(&mount.src_path);
            let look = tokio::task::spawn_blocking(move || jail::clone_mount_of(process.pidfd(), &path));
            let step = |source| Error::Step { name: mount.name.clone(), step: "clone", source };
            if let Some(tree) = look.await.unwrap_or(Err(Errno::EIO)).map_err(step)? {
                return Ok(tree);
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Of the container that engines call by this name.
fn first_process(name: &str, containers: &Registry) -> Option<Arc<Process>> {
    let named = |container: &Arc<Container>| container.name() == Some(name);
    containers.all().into_iter().find(named)?.process(INIT).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(source: &str, destination: &str) -> SharedMount {
        SharedMount {
            name: "m".into(),
            src_ctr: "a".into(),
            src_path: source.into(),
            dst_ctr: "b".into(),
            dst_path: destination.into(),
            ..Default::default()
        }
    }

    #[test]
    fn what_leads_elsewhere_is_refused_by_field() {
        for (source, destination, field) in [
            ("", "/b", "src_path"),
            ("/a", "b", "dst_path"),
            ("/a/../x", "/b", "src_path"),
            ("/a", "/b\0", "dst_path"),
        ] {
            let error = check(&mount(source, destination), None).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
        assert!(check(&mount("/a", "/b"), Some("b")).is_ok());
        assert!(check(&mount("/a", "/b"), Some("c")).unwrap_err().to_string().contains("dst_ctr"));
    }
}
