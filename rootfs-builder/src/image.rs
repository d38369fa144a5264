//! The minimal image: a kernel, a ramdisk that holds the agent and nothing else, and the manifest that names both.

use std::{
    fs,
    path::{Path, PathBuf},
};

use guest_inputs::{Cache, Progress};
use guest_manifest::{Artefact, Manifest};
use initrd::Initrd;
use kernel_config::{Kernel, Variant};

use crate::{
    error::{Error, at},
    swap,
};

const INITRD: &str = "initrd.cpio.zst";
const AGENT: &str = "husk-agent";
const SUMS: &str = "SHA256SUMS";

/// What this kernel and this ramdisk need: a console on the first virtio console, a panic that ends the VM at once instead
/// of leaving it hanging, and the agent's log on its port.
const CMDLINE: &str = "quiet console=hvc0 panic=-1 agent.log_vport=1025";

/// A finished set of artefacts.
#[derive(Debug)]
pub struct Image {
    /// Where it is.
    pub dir: PathBuf,
    /// What it holds.
    pub manifest: Manifest,
}

/// Makes the image from a built agent and writes it to `<out>/<arch>/minimal`, replacing what is there. The kernel comes
/// from the cache, or is built now.
pub fn build_image(
    cache: &Cache,
    arch: guest_arch::Arch,
    agent: &Path,
    out: &Path,
    progress: &Progress,
) -> Result<Image, Error> {
    let kernel = kernel_config::build(cache, arch, Variant::Lean, progress)?;
    let ramdisk = initrd::compress(&ramdisk(fs::read(agent).map_err(at("read", agent))?)?)?;
    let mut written = None;
    let dir = swap::replace(&out.join(arch.name()).join("minimal"), |into| {
        let manifest = fill(into, arch.name(), &kernel, &ramdisk, agent)?;
        written = Some(manifest);
        Ok(())
    })?;
    Ok(Image { dir, manifest: written.expect("the directory was filled") })
}

/// The kernel opens /dev/console for PID 1 before anything could mount a /dev.
fn ramdisk(agent: Vec<u8>) -> Result<Vec<u8>, initrd::Error> {
    Initrd::new().file("/init", 0o755, agent)?.char_device("/dev/console", 0o600, 5, 1)?.to_cpio()
}

fn fill(into: &Path, arch: &str, kernel: &Kernel, ramdisk: &[u8], agent: &Path) -> Result<Manifest, Error> {
    let copy = |from: &Path, name: &str| -> Result<Artefact, Error> {
        let to = into.join(name);
        fs::copy(from, &to).map_err(at("copy", from))?;
        Ok(Artefact::measure(into, name)?)
    };
    let path = into.join(INITRD);
    fs::write(&path, ramdisk).map_err(at("write", &path))?;
    let manifest = Manifest {
        version: guest_manifest::VERSION,
        arch: arch.to_owned(),
        kernel_version: kernel.version.clone(),
        kernel: copy(&kernel.image, &base_name(&kernel.image))?,
        kernel_compressed: copy(&kernel.compressed, &base_name(&kernel.compressed))?,
        initrd: Artefact::measure(into, INITRD)?,
        agent: copy(agent, AGENT)?,
        cmdline: CMDLINE.to_owned(),
    };
    manifest.write(into)?;
    let path = into.join(SUMS);
    fs::write(&path, sums(&manifest)).map_err(at("write", &path))?;
    Ok(manifest)
}

fn base_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What `sha256sum --check` reads; a file that is there under two titles once.
fn sums(manifest: &Manifest) -> String {
    let mut lines: Vec<_> = manifest.artefacts().map(|a| format!("{}  {}\n", a.sha256, a.file)).into();
    lines.sort_by(|a, b| a[64..].cmp(&b[64..]));
    lines.dedup();
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(dir: &Path) -> Manifest {
        let file = |name: &str| {
            let path = dir.join(name);
            fs::write(&path, name).unwrap();
            path
        };
        let kernel = Kernel {
            image: file("vmlinux"),
            compressed: file("bzImage"),
            config: file("config"),
            version: "6.12.1".into(),
        };
        let into = dir.join("out");
        fs::create_dir(&into).unwrap();
        fill(&into, "x86_64", &kernel, b"ramdisk", &file("agent")).unwrap()
    }

    #[test]
    fn the_host_runtime_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let written = made(dir.path());
        assert_eq!(Manifest::load(&dir.path().join("out")).unwrap(), written);
        assert_eq!(written.kernel.file, "vmlinux");
        assert_eq!(written.agent.size, 5);
    }

    #[test]
    fn the_sums_are_sorted_and_complete() {
        let dir = tempfile::tempdir().unwrap();
        made(dir.path());
        let text = fs::read_to_string(dir.path().join("out").join(SUMS)).unwrap();
        let names: Vec<_> = text.lines().map(|l| l.split_once("  ").unwrap().1).collect();
        assert_eq!(names, ["bzImage", "husk-agent", "initrd.cpio.zst", "vmlinux"]);
        assert!(text.lines().all(|l| l.find(' ') == Some(64)));
    }

    #[test]
    fn the_ramdisk_holds_the_agent_and_a_console() {
        let cpio = ramdisk(b"agent".to_vec()).unwrap();
        let text = String::from_utf8_lossy(&cpio);
        assert!(text.contains("init\0"));
        assert!(text.contains("dev/console\0"));
        assert_eq!(text.matches("070701").count(), 4, "/dev, /dev/console, /init and the trailer");
    }
}
