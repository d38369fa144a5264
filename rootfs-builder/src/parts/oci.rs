//! An OCI image layout in one tar archive: its documents, and what is in its layer.

use serde_json::Value;

use super::{Part, archive};

pub(super) fn parts(image: &[u8]) -> Option<Vec<Part<'_>>> {
    let files = archive::tar(image)?;
    let blob = |name: &str| files.iter().find(|part| part.name == name);
    let content = |name: &str| -> Option<Vec<u8>> { Some(blob(name)?.chunks().flatten().copied().collect()) };
    let document = |name: &str| -> Option<Value> { serde_json::from_slice(&content(name)?).ok() };
    let manifest = file_of(&document("/index.json")?["manifests"][0])?;
    let described = document(&manifest)?;
    let config = file_of(&described["config"])?;
    let layers: Vec<_> = described["layers"].as_array()?.iter().filter_map(file_of).collect();

    let mut parts = Vec::new();
    for (number, layer) in (1..).zip(&layers) {
        let name = format!("layer {number}");
        // One that is damaged is still a layer.
        let unpacked = archive::unpack(&content(layer)?);
        let inner = unpacked.as_deref().and_then(archive::tar).into_iter().flatten();
        parts.extend(inner.filter(|part| !part.is_derived).map(|part| part.unpacked(&name)));
    }
    for mut part in files {
        let layer = layers.iter().position(|layer| *layer == part.name);
        part.name = match part.name {
            name if name == manifest => "the manifest".to_owned(),
            name if name == config => "the configuration".to_owned(),
            name => layer.map_or(name, |index| format!("layer {}", index + 1)),
        };
        part.is_derived = true;
        parts.push(part);
    }
    Some(parts)
}

/// Where in a layout a descriptor leads.
fn file_of(descriptor: &Value) -> Option<String> {
    Some(format!("/blobs/{}", descriptor["digest"].as_str()?.replacen(':', "/", 1)))
}
