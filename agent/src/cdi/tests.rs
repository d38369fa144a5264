//! Files as vendors write them, and what comes of them.

use std::collections::HashMap;

use jail::oci::LinuxDeviceType as Type;

use super::*;

/// As `nvidia-ctk cdi generate` writes it, shortened.
const GPU: &str = r#"---
cdiVersion: 0.5.0
containerEdits:
  deviceNodes:
  - path: /dev/full
    permissions: rw
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  hooks:
  - args:
    - nvidia-cdi-hook
    - create-symlinks
    - --link
    - libcuda.so.1::/usr/lib64/libcuda.so
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
  mounts:
  - containerPath: /usr/bin/nvidia-smi
    hostPath: /usr/bin/nvidia-smi
    options:
    - ro
    - nosuid
    - nodev
    - bind
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/zero
  name: "0"
- containerEdits:
    deviceNodes:
    - path: /dev/zero
  name: all
kind: nvidia.com/gpu
"#;

/// The example of the CDI specification, shortened.
const EXAMPLE: &str = r#"{
  "cdiVersion": "0.6.0",
  "kind": "vendor.com/device",
  "devices": [
    {
      "name": "myDevice",
      "containerEdits": {
        "deviceNodes": [
          {"hostPath": "/dev/zero", "path": "/dev/card1", "type": "c", "major": 25, "minor": 25,
           "fileMode": 384, "permissions": "rw", "uid": 1000, "gid": 1000},
          {"path": "/dev/card-render1", "hostPath": "/dev/null"}
        ]
      }
    }
  ],
  "containerEdits": {
    "env": ["FOO=VALID_SPEC", "BAR=BARVALUE1"],
    "deviceNodes": [{"path": "/dev/vendorctl", "type": "b", "major": 25, "minor": 25}],
    "mounts": [
      {"hostPath": "/bin/vendorBin", "containerPath": "/bin/vendorBin"},
      {"hostPath": "/usr/lib/libVendor.so.0", "containerPath": "/usr/lib/libVendor.so.0", "options": ["ro", "rbind"]},
      {"hostPath": "tmpfs", "containerPath": "/tmp/data", "type": "tmpfs", "options": ["nosuid"]}
    ],
    "hooks": [
      {"hookName": "createContainer", "path": "/bin/vendor-hook", "timeout": 5, "env": ["A=b"]},
      {"hookName": "startContainer", "path": "/usr/bin/ldconfig"}
    ],
    "additionalGids": [44, 0]
  }
}"#;

fn config(seconds_in_hundredths: u64) -> Config {
    Config {
        cdi_timeout: Duration::from_millis(seconds_in_hundredths * 10),
        visible_cdi_devices: true,
        ..Config::default()
    }
}

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, text)| std::fs::write(directory.path().join(name), text).unwrap());
    directory
}

/// A spec with an annotation that asks for these.
fn asks(names: &str) -> oci::Spec {
    let mut spec = oci::Spec::default();
    let mut linux = oci::Linux::default();
    linux.set_devices(None).set_resources(None);
    let mut process = oci::Process::default();
    process.set_env(Some(vec!["FOO=before".into(), "PATH=/bin".into()]));
    spec.set_linux(Some(linux)).set_process(Some(process)).set_mounts(None);
    spec.set_annotations(Some(HashMap::from([("cdi.k8s.io/plugin".to_string(), names.to_string())])));
    spec
}

fn devices(spec: &oci::Spec) -> Vec<String> {
    let devices = spec.linux().as_ref().unwrap().devices().as_deref().unwrap_or_default().iter();
    devices
        .map(|device| {
            let (typ, mode) = (device.typ(), device.file_mode().unwrap_or(0));
            let (path, uid) = (device.path().display(), device.uid().unwrap());
            format!("{path} {} {}:{} {mode:o} {uid}", typ.as_str(), device.major(), device.minor())
        })
        .collect()
}

fn rules(spec: &oci::Spec) -> Vec<(Option<Type>, i64, i64, String)> {
    let resources = spec.linux().as_ref().unwrap().resources().as_ref().unwrap();
    let rules = resources.devices().as_deref().unwrap().iter();
    rules
        .map(|rule| {
            assert!(rule.allow());
            (rule.typ(), rule.major().unwrap(), rule.minor().unwrap(), rule.access().clone().unwrap())
        })
        .collect()
}

fn destinations(spec: &oci::Spec) -> Vec<&str> {
    spec.mounts().as_ref().unwrap().iter().map(|mount| mount.destination().to_str().unwrap()).collect()
}

#[tokio::test]
async fn the_example_of_the_specification() {
    let directory = directory(&[("vendor.json", EXAMPLE), ("README", "not one"), ("broken.json", "{")]);
    let mut spec = asks("vendor.com/device=myDevice");
    let mut tmp = oci::Mount::default();
    tmp.set_destination("/bin/vendorBin".into()).set_typ(Some("tmpfs".into()));
    let mut above = oci::Mount::default();
    above.set_destination("/tmp".into()).set_typ(Some("tmpfs".into()));
    spec.set_mounts(Some(vec![tmp, above]));
    inject_from(directory.path(), &mut spec, &config(0)).await.unwrap();

    let process = spec.process().as_ref().unwrap();
    assert_eq!(process.env().as_deref().unwrap(), ["PATH=/bin", "FOO=VALID_SPEC", "BAR=BARVALUE1"]);
    assert_eq!(process.user().additional_gids().as_deref().unwrap(), [44]);
    assert_eq!(
        devices(&spec),
        ["/dev/vendorctl b 25:25 0 0", "/dev/card1 c 25:25 600 1000", "/dev/card-render1 c 1:3 666 0"]
    );
    let rwm = || "rwm".to_string();
    assert_eq!(
        rules(&spec),
        [
            (Some(Type::B), 25, 25, rwm()),
            (Some(Type::C), 25, 25, "rw".to_string()),
            (Some(Type::C), 1, 3, rwm())
        ]
    );
    assert_eq!(
        destinations(&spec),
        ["/tmp", "/bin/vendorBin", "/tmp/data", "/usr/lib/libVendor.so.0"],
        "what is above comes first, and the vendor's replaces the spec's"
    );
    let mounts = spec.mounts().as_ref().unwrap();
    assert_eq!(mounts[1].options().as_deref().unwrap(), ["bind"]);
    assert_eq!(mounts[2].typ().as_deref(), Some("tmpfs"));
    assert_eq!(mounts[3].options().as_deref().unwrap(), ["ro", "rbind"]);
    let hooks = spec.hooks().as_ref().unwrap();
    let create = &hooks.create_container().as_ref().unwrap()[0];
    assert_eq!((create.path().to_str(), create.timeout()), (Some("/bin/vendor-hook"), Some(5)));
    assert_eq!(create.env().as_deref().unwrap(), ["A=b"]);
    assert_eq!(hooks.start_container().as_ref().unwrap().len(), 1);
}

#[tokio::test]
async fn a_gpu_as_its_vendor_describes_it() {
    let directory = directory(&[("nvidia.yaml", GPU)]);
    // Twice, by annotation and by environment: counted once, as is what both devices have in common.
    let mut spec = asks("nvidia.com/gpu=0, nvidia.com/gpu=all,nvidia.com/gpu=0");
    let process = spec.process_mut().as_mut().unwrap();
    process.env_mut().as_mut().unwrap().push("VISIBLE_CDI_DEVICES=nvidia.com/gpu=0".into());
    inject_from(directory.path(), &mut spec, &config(0)).await.unwrap();
    assert_eq!(devices(&spec), ["/dev/full c 1:7 666 0", "/dev/zero c 1:5 666 0"]);
    assert_eq!(rules(&spec).len(), 2);
    assert_eq!(destinations(&spec), ["/usr/bin/nvidia-smi"]);
    let hooks = spec.hooks().as_ref().unwrap().create_container().as_ref().unwrap();
    assert_eq!(hooks.len(), 1);
    assert_eq!(hooks[0].args().as_ref().unwrap()[3], "libcuda.so.1::/usr/lib64/libcuda.so");
}

#[tokio::test]
async fn a_file_that_comes_later_is_waited_for() {
    let directory = directory(&[]);
    let later = directory.path().join("vendor.json");
    let write = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        // Half of it first, as seen while it is being written.
        std::fs::write(&later, &EXAMPLE[..200]).unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        std::fs::write(&later, EXAMPLE).unwrap();
    };
    let mut spec = asks("vendor.com/device=myDevice");
    let config = config(3000);
    let (injected, ()) = tokio::join!(inject_from(directory.path(), &mut spec, &config), write);
    injected.unwrap();
    assert_eq!(devices(&spec).len(), 3);
}

#[tokio::test]
async fn what_is_missing_is_named_with_its_reason_and_nothing_is_changed() {
    let no_node = EXAMPLE.replace("\"hostPath\": \"/dev/null\"", "\"hostPath\": \"/dev/not-there\"");
    type Case<'c> = (&'c str, &'c [(&'c str, &'c str)], &'c str);
    let cases: [Case<'_>; 5] = [
        ("vendor.com/device=other", &[("a.json", EXAMPLE)], "vendor.com/device=other: no file describes it"),
        ("other.com/device=myDevice", &[("a.json", EXAMPLE)], "other.com/device=myDevice: no file"),
        ("vendor.com/device=myDevice", &[("a.json", EXAMPLE), ("b.json", EXAMPLE)], "both a.json and b.json"),
        ("vendor.com/device=myDevice", &[("a.yaml", "a: [")], "no file describes it; a.yaml: "),
        ("vendor.com/device=myDevice", &[("a.json", &no_node)], "a.json: device node /dev/not-there"),
    ];
    for (name, files, text) in cases {
        let directory = directory(files);
        let before = asks(name);
        let mut after = before.clone();
        let error = inject_from(directory.path(), &mut after, &config(2)).await.unwrap_err().to_string();
        assert!(error.contains(text), "{text}: {error}");
        assert_eq!(after, before);
    }
}

#[tokio::test]
async fn only_those_who_ask_get_anything_and_the_pod_itself_never_asks() {
    let directory = directory(&[]);
    let mut pod = asks("vendor.com/device=myDevice");
    let annotations = pod.annotations_mut().as_mut().unwrap();
    annotations.insert("io.katacontainers.pkg.oci.container_type".into(), "pod_sandbox".into());
    let mut nobody = asks("");
    let mut by_environment = asks("");
    let process = by_environment.process_mut().as_mut().unwrap();
    process.env_mut().as_mut().unwrap().push("VISIBLE_CDI_DEVICES=vendor.com/device=myDevice".into());
    let not_allowed = Config { visible_cdi_devices: false, ..config(0) };
    for (spec, config) in
        [(&mut pod, config(0)), (&mut nobody, config(0)), (&mut by_environment, not_allowed)]
    {
        let before = spec.clone();
        inject_from(directory.path(), spec, &config).await.unwrap();
        assert_eq!(*spec, before);
    }
    assert!(inject_from(directory.path(), &mut by_environment, &config(0)).await.is_err());
}

#[test]
fn names_that_are_none_are_refused_with_their_origin() {
    for name in ["x", "a/b", "a=b", "/b=c", "a/=c", "a/b=", "a/b=c/d", "../b=c", "a/b= c", "ä/b=c", "a/b/c=d"]
    {
        let error = asked_for(&asks(name), true).unwrap_err().to_string();
        assert!(error.contains("annotation cdi.k8s.io/plugin"), "{name}: {error}");
    }
    let names = asked_for(&asks("v-1.com/c_2=0:1.a,,v/c=all"), true).unwrap();
    assert_eq!(names.iter().map(ToString::to_string).collect::<Vec<_>>(), ["v-1.com/c_2=0:1.a", "v/c=all"]);
}

#[test]
fn every_bad_field_of_a_file_is_named() {
    let document = |edits: &str| {
        format!(
            r#"{{"cdiVersion":"0.6.0","kind":"v/c","devices":[{{"name":"d","containerEdits":{edits}}}]}}"#
        )
    };
    let edits = [
        (r#"{"env":["A"]}"#, "env[0]"),
        (r#"{"env":["=a"]}"#, "env[0]"),
        (r#"{"env":[1.5,[]]}"#, "env[1]: not a text"),
        (r#"{"env":"A=b"}"#, "env: not a list"),
        (r#"{"deviceNodes":[{}]}"#, "deviceNodes[0].path: it is missing"),
        (r#"{"deviceNodes":[{"path":"dev/x"}]}"#, "deviceNodes[0].path: not an absolute path"),
        (r#"{"deviceNodes":[{"path":"/dev/../x"}]}"#, "deviceNodes[0].path"),
        (r#"{"deviceNodes":[{"path":"/dev/x\u0000"}]}"#, "deviceNodes[0].path: not a text"),
        (r#"{"deviceNodes":[{"path":"/x","type":"d"}]}"#, "deviceNodes[0].type"),
        (r#"{"deviceNodes":[{"path":"/x","major":-1}]}"#, "deviceNodes[0].major"),
        (r#"{"deviceNodes":[{"path":"/x","minor":4294967296}]}"#, "deviceNodes[0].minor"),
        (r#"{"deviceNodes":[{"path":"/x","permissions":"rx"}]}"#, "deviceNodes[0].permissions"),
        (r#"{"deviceNodes":[{"path":"/x","uid":1e30}]}"#, "deviceNodes[0].uid"),
        (r#"{"mounts":[{"hostPath":"/x"}]}"#, "mounts[0].containerPath: it is missing"),
        (r#"{"mounts":[{"containerPath":"/x"}]}"#, "mounts[0].hostPath: it is missing"),
        (r#"{"mounts":[7]}"#, "mounts[0].hostPath: it is missing"),
        (r#"{"hooks":[{"hookName":"later","path":"/x"}]}"#, "hooks[0].hookName"),
        (r#"{"hooks":[{"hookName":"poststop","path":"x"}]}"#, "hooks[0].path"),
        (r#"{"additionalGids":[-1]}"#, "additionalGids[0]"),
        (r#"{"intelRdt":{}}"#, "intelRdt: not supported"),
        (r#"{"netDevices":[]}"#, "netDevices: not supported"),
    ];
    for (edits, field) in edits {
        let value = serde_json::from_str(&document(edits)).unwrap();
        let error = Document::of(&value).unwrap_err();
        assert!(error.contains(&format!("devices[0].containerEdits.{field}")), "{edits}: {error}");
    }
    for (text, field) in [
        ("[]", "cdiVersion: it is missing"),
        (r#"{"cdiVersion":"2.0"}"#, "cdiVersion"),
        (r#"{"cdiVersion":"0.6.0"}"#, "kind: it is missing"),
        (r#"{"cdiVersion":"0.6.0","kind":"v"}"#, "kind"),
        (r#"{"cdiVersion":"0.6.0","kind":"v/c","devices":[{}]}"#, "devices[0].name: it is missing"),
        (r#"{"cdiVersion":"0.6.0","kind":"v/c","devices":[{"name":"a"},{"name":"a"}]}"#, "devices[1].name"),
    ] {
        let error = Document::of(&serde_json::from_str(text).unwrap()).unwrap_err();
        assert!(error.contains(field), "{text}: {error}");
    }
}
