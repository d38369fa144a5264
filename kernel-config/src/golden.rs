//! The golden configurations: what each kernel's configuration is known to be, checked in, so that a new kernel version or
//! a changed fragment shows as a readable difference.
//!
//! The form is a `.config` without what is off, sorted by name, and without what only tells what the compiler is or can.

use std::path::{Path, PathBuf};

use guest_arch::Arch;
use guest_inputs::sha256;

use crate::{
    Variant,
    fragment::{self, Symbols},
};

/// Facts about the tools, not about the kernel: each is one of these, or begins with one that ends in `_`.
const TOOLS: &[&str] = &[
    "AS_HAS_",
    "AS_IS_",
    "AS_VERSION",
    "CC_CAN_",
    "CC_HAS_",
    "CC_IS_",
    "CC_NO_",
    "CC_VERSION_TEXT",
    "CLANG_VERSION",
    "GCC_ASM_",
    "GCC_VERSION",
    "GCC10_NO_",
    "LD_CAN_",
    "LD_HAS_",
    "LD_IS_",
    "LD_VERSION",
    "LLD_VERSION",
    "PAHOLE_",
    "RUSTC_",
    "TOOLS_SUPPORT_",
];

/// How many hexadecimal digits of a configuration's digest a kernel carries.
const MARK: usize = 16;

/// The golden form of a `.config`.
pub fn form(config: &str) -> String {
    let symbols = fragment::resolved(config);
    let ours = symbols.iter().filter(|(symbol, value)| *value != "n" && !is_of_tools(symbol));
    ours.map(|(symbol, value)| format!("{symbol}={value}\n")).collect()
}

/// What a kernel of this `.config` says of it: the machine it claims to be built on is `config-<mark>`, as
/// `/proc/version` tells. The beginning of the SHA-256 of the golden form.
pub fn mark(config: &str) -> String {
    sha256(form(config).as_bytes())[..MARK].to_owned()
}

/// Where the golden configuration is of a kernel of `version`.
pub fn path(version: &str, arch: Arch, variant: Variant) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(version)
        .join(format!("{arch}-{variant}.config"))
}

/// What is different, a line each: "-CONFIG_A=y" was there, "+CONFIG_B=64" is new.
pub fn difference(golden: &str, now: &str) -> Vec<String> {
    let (old, new) = (fragment::resolved(golden), fragment::resolved(now));
    let only_in = |sign: char, these: &Symbols, those: &Symbols| -> Vec<(String, char, String)> {
        let changed = these.iter().filter(|(symbol, value)| those.get(*symbol) != Some(value));
        changed.map(|(symbol, value)| (symbol.clone(), sign, format!("{sign}{symbol}={value}"))).collect()
    };
    let mut lines = [only_in('-', &old, &new), only_in('+', &new, &old)].concat();
    lines.sort_by_key(|(symbol, sign, _)| (symbol.clone(), *sign == '+'));
    lines.into_iter().map(|(_, _, line)| line).collect()
}

fn is_of_tools(symbol: &str) -> bool {
    let name = symbol.strip_prefix("CONFIG_").unwrap_or(symbol);
    TOOLS.iter().any(|fact| if fact.ends_with('_') { name.starts_with(fact) } else { name == *fact })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "#\n# Linux/x86 6.12.117 Kernel Configuration\n#\nCONFIG_CC_VERSION_TEXT=\"gcc 12\"\n\
        CONFIG_GCC_VERSION=120200\nCONFIG_SMP=y\n# CONFIG_NUMA is not set\nCONFIG_CC_HAS_SLS=y\nCONFIG_ARM=y\n";

    #[test]
    fn what_is_off_and_what_the_compiler_is_are_left_out() {
        assert_eq!(form(CONFIG), "CONFIG_ARM=y\nCONFIG_SMP=y\n");
        assert_eq!(form(&form(CONFIG)), form(CONFIG));
        assert_eq!(mark(CONFIG), mark(&CONFIG.replace("gcc 12", "gcc 13")));
        assert_ne!(mark(CONFIG), mark(&CONFIG.replace("ARM=y", "ARM64=y")));
        assert_eq!(mark(CONFIG).len(), 16);
    }

    #[test]
    fn a_symbol_that_only_begins_like_a_tools_is_kept() {
        assert!(!is_of_tools("CONFIG_CC_OPTIMIZE_FOR_PERFORMANCE"));
        assert!(!is_of_tools("CONFIG_LD_VERSION_X"));
    }

    #[test]
    fn differences_are_told_by_name_the_old_value_first() {
        let (old, new) = ("CONFIG_B=y\nCONFIG_N=1\nCONFIG_Z=y\n", "CONFIG_A=y\nCONFIG_N=2\nCONFIG_Z=y\n");
        assert_eq!(difference(old, new), ["+CONFIG_A=y", "-CONFIG_B=y", "-CONFIG_N=1", "+CONFIG_N=2"]);
        assert!(difference(old, old).is_empty());
    }
}
