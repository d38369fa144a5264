//! Real output, before the libraries of the projects that define the formats.
//!
//! The libraries are installed once from PyPI into Husk's cache.

mod validators;

use guest_inputs::Pin;
use guest_sbom::{
    Artefact, Build, Component, Document, Input, Kind, Licence, Role, Sha256, crates_of_agent, cyclonedx,
    debian_licence, provenance, spdx,
};
use serde::Deserialize;
use validators::{Validators, workspace};

/// The documents of a plausible image: the agent's crates, the kernel, and a Debian package.
fn image() -> (Document, Build) {
    let mut all = crates_of_agent(&workspace(), "x86_64-unknown-linux-musl", &[], false).unwrap();
    all.push(kernel());
    all.push(busybox());
    let document = Document::new("x86_64/minimal", Sha256::of(b"image"), all).unwrap();
    let build = build(&document);
    (document, build)
}

/// The kernel, as its pin says.
fn kernel() -> Component {
    #[derive(Deserialize)]
    struct Kernels {
        version: String,
        source: Pin,
    }
    let text = std::fs::read_to_string(workspace().join("kernel-config/kernels.toml")).unwrap();
    let kernels: Kernels = toml::from_str(&text).unwrap();
    let mut kernel = Component::new(Kind::Kernel, "linux", kernels.version);
    kernel.licence = Licence::declared("GPL-2.0-only WITH Linux-syscall-note");
    kernel.fetched_as(&kernels.source, "all").unwrap()
}

/// A Debian package, as its pin says.
fn busybox() -> Component {
    let text = std::fs::read_to_string(workspace().join("rootfs-builder/demo.toml")).unwrap();
    let table: toml::Table = toml::from_str(&text).unwrap();
    let pin: Pin = table["x86_64"]["busybox"].clone().try_into().unwrap();
    let mut package = Component::new(Kind::DebianPackage, &pin.name, &pin.version);
    package.supplier = Some("Debian Install System Team <debian-boot@lists.invalid>".into());
    let copyright =
        "Format: copyright-format/1.0\n\nFiles: *\nLicense: GPL-2\n\nFiles: x\nLicense: public-domain\n";
    package.licence = debian_licence(copyright);
    package.fetched_as(&pin, "amd64").unwrap()
}

fn build(document: &Document) -> Build {
    Build {
        recipe: "minimal".into(),
        arch: "x86_64".into(),
        formats: vec!["initrd".into(), "erofs".into()],
        variant: "lean".into(),
        artefacts: vec![Artefact { name: "vmlinux".into(), sha256: Sha256::of(b"kernel") }],
        inputs: document.components().filter_map(Input::of).collect(),
    }
}

/// Components as an enemy would name them.
fn hostile() -> (Document, Build) {
    let nasty = "\"'\\\n\r\t\u{0}\u{1b}[31m\u{7f}\u{85}\u{2028}</script>ä漢🌰 ($(x))";
    let component = |kind, n: u32| {
        let mut component = Component::new(kind, nasty, format!("{n}{nasty}"));
        component.licence = Licence::declared(&format!("{nasty}{n}"));
        component.supplier = Some(format!("{nasty} <{nasty}@>"));
        component.digest = Some(guest_sbom::Digest::File(Sha256::of(nasty.as_bytes())));
        component.purl = Some(guest_sbom::Purl::deb(nasty, nasty, nasty).unwrap());
        component.origin =
            Some(guest_sbom::Origin { archive: "debian".into(), path: nasty.replace('/', "") });
        component
    };
    let mut all = vec![component(Kind::DebianPackage, 1), component(Kind::DebianPackage, 2)];
    let mut tool = component(Kind::Tool, 1);
    tool.role = Role::Builds;
    tool.depends_on = all.iter().map(|c| c.id.clone()).collect();
    all.push(tool);
    all.push(Component::new(Kind::File, "/etc/\u{202e}motd", ""));
    let document = Document::new(nasty, Sha256::of(b"image"), all).unwrap();
    let build = Build { recipe: nasty.into(), formats: vec![nasty.into()], ..build(&document) };
    (document, build)
}

#[test]
fn what_is_written_is_valid() {
    let validators = Validators::prepare();
    for (document, build) in [image(), hostile()] {
        let verdicts = validators.verdicts(&[
            ("spdx", spdx(&document)),
            ("cyclonedx", cyclonedx(&document)),
            ("provenance", provenance(&build).unwrap()),
        ]);
        assert_eq!(verdicts, ["ok", "ok", "ok"]);
    }
}

/// Validators that accept anything would prove nothing.
#[test]
fn what_is_spoilt_is_not_valid() {
    let (document, build) = image();
    let spoil = |bytes: Vec<u8>, from: &str, to: &str| {
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1).into_bytes()
    };
    let statement = || provenance(&build).unwrap();
    let spoilt = [
        ("spdx", spoil(spdx(&document), "\"MIT OR Apache-2.0\"", "\"MIT OR Apache-2.x\"")),
        ("spdx", spoil(spdx(&document), "\"SPDXRef-Kernel-linux", "\"SPDXRef-Kernel_linux")),
        ("spdx", spoil(spdx(&document), "\"versionInfo\"", "\"version\"")),
        ("cyclonedx", spoil(cyclonedx(&document), "\"urn:uuid:", "\"urn:uid:")),
        ("cyclonedx", spoil(cyclonedx(&document), "\"scope\": \"required\"", "\"scope\": \"wanted\"")),
        ("provenance", spoil(statement(), "\"buildType\"", "\"kindOfBuild\"")),
        ("provenance", spoil(statement(), "\"sha256\"", "\"sha999\": 1, \"sha256\"")),
    ];
    let verdicts = Validators::prepare().verdicts(&spoilt);
    for (verdict, (kind, _)) in verdicts.iter().zip(&spoilt) {
        assert_ne!(verdict, "ok", "{kind}: {verdicts:#?}");
    }
}

#[test]
fn the_order_of_components_changes_nothing() {
    let (document, _) = image();
    let mut reversed: Vec<_> = document.components().cloned().collect();
    reversed.reverse();
    let other = Document::new("x86_64/minimal", Sha256::of(b"image"), reversed).unwrap();
    assert_eq!(spdx(&document), spdx(&other));
    assert_eq!(cyclonedx(&document), cyclonedx(&other));
}

#[test]
fn another_image_has_other_identifiers() {
    let line = |bytes: Vec<u8>, key: &str| {
        let text = String::from_utf8(bytes).unwrap();
        text.lines().find(|line| line.contains(key)).unwrap().to_owned()
    };
    let document = |image: &[u8]| Document::new("x", Sha256::of(image), [kernel()]).unwrap();
    let (one, two) = (document(b"1"), document(b"2"));
    assert_ne!(line(spdx(&one), "documentNamespace"), line(spdx(&two), "documentNamespace"));
    assert_ne!(line(cyclonedx(&one), "serialNumber"), line(cyclonedx(&two), "serialNumber"));
}

/// No document says where it was made, or from which host anything came.
#[test]
fn no_host_and_no_path_of_this_machine_is_told() {
    let (document, build) = image();
    let checkout = workspace().canonicalize().unwrap();
    for bytes in [spdx(&document), cyclonedx(&document), provenance(&build).unwrap()] {
        let text = String::from_utf8(bytes).unwrap();
        assert!(!text.contains(checkout.to_str().unwrap()));
        let urls: Vec<_> = text.lines().filter(|line| line.contains("://")).map(str::trim).collect();
        let types = [
            "\"_type\": \"https://in-toto.io/Statement/v1\",",
            "\"predicateType\": \"https://slsa.dev/provenance/v1\",",
        ];
        assert!(urls.is_empty() || urls == types, "{urls:?}");
    }
}
