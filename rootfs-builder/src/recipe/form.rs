//! A recipe's file as it is written: every key there is, none of them looked at yet.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::place::Source;
use super::{Error, Said};

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Form {
    /// What it is for.
    pub(super) description: Option<String>,
    /// Another recipe, by name or by path.
    extends: Option<Spanned<String>>,
    pub(super) kernel: Option<Spanned<String>>,
    pub(super) agent: Option<AgentForm>,
    pub(super) formats: Option<Vec<Spanned<String>>>,
    pub(super) cmdline: Vec<Spanned<String>>,
    pub(super) cmdline_without: Vec<Spanned<String>>,
    pub(super) base: Option<Spanned<String>>,
    pub(super) busybox: Option<bool>,
    pub(super) packages: Option<PackagesForm>,
    pub(super) prune: Vec<Spanned<String>>,
    pub(super) keep: Vec<Spanned<String>>,
    pub(super) system: Option<SystemForm>,
    pub(super) set_id: Vec<Spanned<String>>,
    pub(super) directory: Vec<DirectoryForm>,
    pub(super) file: Vec<FileForm>,
    pub(super) extension: Vec<ExtensionForm>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct AgentForm {
    pub(super) path: Option<Spanned<String>>,
    pub(super) links: Vec<Spanned<String>>,
    pub(super) features: Vec<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct PackagesForm {
    pub(super) suites: Option<Vec<Spanned<String>>>,
    /// By architecture, instead of the above.
    pub(super) suites_of: BTreeMap<Spanned<String>, Vec<Spanned<String>>>,
    pub(super) install: Vec<Spanned<String>>,
    pub(super) exclude: Vec<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct SystemForm {
    pub(super) hostname: Option<String>,
    pub(super) default_target: Option<String>,
    pub(super) enable: Vec<Spanned<String>>,
    pub(super) mask: Vec<Spanned<String>>,
    pub(super) sysusers: Vec<Spanned<String>>,
    pub(super) fstab: Vec<Spanned<String>>,
}

/// `[[file]]`: one of `text`, `from`, `link`, `device`, or none of them for a directory.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct FileForm {
    pub(super) path: Spanned<String>,
    pub(super) text: Option<String>,
    pub(super) from: Option<Spanned<String>>,
    pub(super) link: Option<Spanned<String>>,
    pub(super) device: Option<Spanned<String>>,
    pub(super) mode: Option<Spanned<u32>>,
    pub(super) owner: Option<Spanned<String>>,
}

/// `[[directory]]`: what is in a directory of this machine.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct DirectoryForm {
    pub(super) path: Spanned<String>,
    pub(super) from: Spanned<String>,
}

/// `[[extension]]`: the same, as an image of its own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ExtensionForm {
    pub(super) name: Spanned<String>,
    pub(super) from: Spanned<String>,
}

impl Form {
    pub(super) fn extends(&self, source: &Source) -> Option<Said<String>> {
        let parent = self.extends.as_ref()?;
        Some(Said { value: parent.get_ref().clone(), place: source.place("extends", parent.span()) })
    }
}

pub(super) fn parse(source: &Source) -> Result<Form, Error> {
    toml::from_str(&source.text).map_err(|error| Error::Form {
        file: source.path.display().to_string(),
        line: error.span().map_or(1, |span| source.line(span.start)),
        what: error.message().to_owned(),
    })
}
