//! `slice:prefix:name`: which scope is meant, and where systemd puts it.
//!
//! The scope is called `prefix-name.scope`, or `name.scope` without a prefix; without a slice it is in `system.slice`.
//! A dash in a slice's name says what it lies in: `a-b.slice` is in `a.slice` (systemd.slice(5)).

use std::path::PathBuf;

use super::Error;
use crate::cgroup::ROOT;

/// The slice for those that name none: where systemd has what it calls services.
const DEFAULT_SLICE: &str = "system.slice";

/// systemd's longest name of a unit, `.scope` and all.
const LONGEST: usize = 255;

/// A scope by its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    slice: String,
    unit: String,
}

impl Scope {
    /// The scope that a `cgroupsPath` means. `None`: it has not that form.
    pub(crate) fn parse(cgroups_path: &str) -> Option<Result<Scope, Error>> {
        let mut parts = cgroups_path.split(':');
        let (slice, prefix, name) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || cgroups_path.starts_with('/') {
            return None;
        }
        Some(Scope::of(slice, prefix, name))
    }

    fn of(slice: &str, prefix: &str, name: &str) -> Result<Scope, Error> {
        let refused = |field: &'static str, value: &str, why: &'static str| {
            Err(Error::Name { field, value: value.to_owned(), why })
        };
        let slice = if slice.is_empty() { DEFAULT_SLICE } else { slice };
        match slice.strip_suffix(".slice") {
            None => return refused("slice", slice, "it does not end in .slice"),
            Some("-") => {}
            Some(stem) if stem.split('-').any(str::is_empty) => {
                return refused("slice", slice, "nothing is before, between or after its dashes");
            }
            Some(_) => {}
        }
        for (field, value) in [("slice", slice), ("prefix", prefix), ("name", name)] {
            // What systemd allows in names, but for the @ of templates.
            if !value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.\\".contains(&byte)) {
                return refused(field, value, "it may have letters, digits, _, -, . and \\");
            }
        }
        if name.is_empty() {
            return refused("name", name, "it is empty");
        }
        if name.ends_with(".slice") {
            return refused("name", name, "a container is in a scope, not in a slice of its own");
        }
        let unit = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
        for (field, value) in [("slice", slice), ("name", &unit)] {
            if value.len() > LONGEST {
                return refused(field, value, "it is longer than 255 characters");
            }
        }
        Ok(Scope { slice: slice.to_owned(), unit })
    }

    /// The scope's name as a unit.
    pub fn unit(&self) -> &str {
        &self.unit
    }

    /// The slice it is in.
    pub fn slice(&self) -> &str {
        &self.slice
    }

    /// The slices it is in, the outermost first; the root slice is not among them.
    pub fn slices(&self) -> Vec<String> {
        let stem = self.slice.strip_suffix(".slice").unwrap_or(&self.slice);
        if stem == "-" {
            return Vec::new();
        }
        let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
        ends.map(|end| format!("{}.slice", &stem[..end])).collect()
    }

    /// Its path in systemd's words: below the root of the cgroup tree, with a slash before it.
    pub(super) fn control_group(&self) -> String {
        self.slices().iter().chain([&self.unit]).map(|part| format!("/{part}")).collect()
    }

    /// Its cgroup's path.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("{ROOT}{}", self.control_group()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> String {
        Scope::parse(text).unwrap().unwrap().control_group()
    }

    #[test]
    fn a_scope_is_where_its_slice_says() {
        assert_eq!(path("system.slice:cri:c1"), "/system.slice/cri-c1.scope");
        assert_eq!(path("::c1"), "/system.slice/c1.scope");
        assert_eq!(path("-.slice:x:c1"), "/x-c1.scope");
        let pod = "kubepods-besteffort-pod1_2.slice:cri-containerd:0f";
        let wanted = "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1_2.slice/\
            cri-containerd-0f.scope";
        assert_eq!(path(pod), wanted);
        let scope = Scope::parse(pod).unwrap().unwrap();
        let slices = ["kubepods.slice", "kubepods-besteffort.slice", "kubepods-besteffort-pod1_2.slice"];
        assert_eq!(scope.slices(), slices);
        assert_eq!(scope.path(), PathBuf::from(format!("/sys/fs/cgroup{wanted}")));
        assert_eq!((scope.slice(), scope.unit()), (slices[2], "cri-containerd-0f.scope"));
        assert!(Scope::parse("-.slice::c1").unwrap().unwrap().slices().is_empty());
    }

    #[test]
    fn other_forms_are_directories() {
        for path in ["", "/pod/c1", "c1", "a:b", "a:b:c:d", "/a.slice:b:c"] {
            assert!(Scope::parse(path).is_none(), "{path:?}");
        }
    }

    #[test]
    fn a_bad_name_is_refused_by_its_field() {
        let long = "x".repeat(250);
        for (path, field, why) in [
            ("pod:cri:c1", "slice", ".slice"),
            (".slice:cri:c1", "slice", "dashes"),
            ("-a.slice:cri:c1", "slice", "dashes"),
            ("a-.slice:cri:c1", "slice", "dashes"),
            ("a--b.slice:cri:c1", "slice", "dashes"),
            ("../x.slice:cri:c1", "slice", "letters"),
            ("a.slice:c/ri:c1", "prefix", "letters"),
            ("a.slice:cri:../../c1", "name", "letters"),
            ("a.slice:cri:c 1", "name", "letters"),
            ("a.slice:cri:c@1", "name", "letters"),
            ("a.slice:cri:c\0", "name", "letters"),
            ("a.slice:cri:", "name", "empty"),
            ("a.slice:cri:b.slice", "name", "slice of its own"),
            (&format!("a.slice:cri:{long}"), "name", "255"),
            (&format!("{long}.slice:cri:c1"), "slice", "255"),
        ] {
            let error = Scope::parse(path).unwrap().unwrap_err().to_string();
            assert!(
                error.contains(&format!("cgroupsPath: {field} ")) && error.contains(why),
                "{path}: {error}"
            );
        }
    }
}
