//! Generates the protocol's messages, clients and service traits from `proto/`.
//!
//! Messages use protobuf's lite runtime: the descriptors and reflection tables of 114 messages would be dead weight
//! in the guest. An agent that shows requests to a policy needs the names of their fields all the same: with the feature
//! `fields` they are written into a small table of their own. The test that compares the protocol with the table of facts reads `proto/` itself.

#[cfg(feature = "fields")]
mod fields;

use std::fmt::Write as _;
use std::path::Path;

/// The files of `proto/`, without their suffix, and whether they define a service. Modules are named by the last part.
const FILES: [(&str, bool); 6] = [
    ("agent", true),
    ("csi", false),
    ("health", true),
    ("husk/agent/v1/husk", true),
    ("oci", false),
    ("types", false),
];

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=fields.rs");
    let out = std::env::var("OUT_DIR").map_err(std::io::Error::other)?;
    let out = Path::new(&out);

    ttrpc_codegen::Codegen::new()
        .out_dir(out)
        .include("proto")
        .inputs(FILES.map(|(path, _)| format!("proto/{path}.proto")))
        .rust_protobuf()
        .rust_protobuf_customize(
            ttrpc_codegen::ProtobufCustomize::default().lite_runtime(true).gen_mod_rs(false),
        )
        .customize(ttrpc_codegen::Customize { async_all: true, ..Default::default() })
        .run()?;

    let mut modules = String::new();
    for (path, service) in FILES {
        let stem = path.rsplit('/').next().unwrap_or(path);
        declare(&mut modules, out, stem);
        if service {
            declare(&mut modules, out, &format!("{stem}_ttrpc"));
        }
    }
    #[cfg(feature = "fields")]
    std::fs::write(out.join("fields.rs"), fields::table(&FILES.map(|(path, _)| path))?)?;
    std::fs::write(out.join("modules.rs"), modules)
}

fn declare(modules: &mut String, out: &Path, module: &str) {
    let file = out.join(module).with_extension("rs");
    writeln!(modules, "#[path = {file:?}]\npub mod {module};").expect("writing to a string");
}
