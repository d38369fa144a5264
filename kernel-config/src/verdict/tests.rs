use guest_arch::Arch;

use super::*;
use crate::{Variant, fragment::resolved, golden, list};

/// The configuration of one of our kernels, as it is checked in.
fn ours(arch: Arch, variant: Variant) -> Symbols {
    let version = crate::source::pinned().unwrap().version;
    let path = golden::path(&version, arch, variant);
    resolved(&crate::read(&path).unwrap())
}

/// One of our kernels whose fragments forgot `symbols`, all of which its authors have on.
fn forgetting(arch: Arch, symbols: &[&str]) -> Vec<Finding> {
    let defaults = ours(arch, Variant::Lean);
    let mut resolved = defaults.clone();
    for symbol in symbols {
        let symbol = format!("CONFIG_{symbol}");
        assert_eq!(resolved.remove(&symbol).as_deref(), Some("y"), "{symbol} on {arch}");
    }
    let kind = Kind { arch, variant: Variant::Lean, release: "6.12.117".parse().unwrap() };
    let facts = Facts { kind, requested: Symbols::new(), resolved, defaults };
    judge(&facts, &Lists::read(&list::dir()).unwrap(), &mut Entries::new())
}

fn is_missed_twice(findings: &[Finding], symbol: &str) {
    let symbol = format!("CONFIG_{symbol}");
    let dropped = Finding::Dropped { symbol: symbol.clone() };
    assert!(findings.contains(&dropped), "{findings:?}");
    let demanded = |finding: &Finding| matches!(finding, Finding::Demanded { mismatch, .. } if mismatch.symbol == symbol);
    assert!(findings.iter().any(demanded), "{symbol} is demanded by no list: {findings:?}");
}

#[test]
fn our_kernels_have_nothing_to_be_found() {
    for arch in Arch::ALL {
        assert_eq!(forgetting(arch, &[]), [], "{arch}");
    }
}

#[test]
fn riscv64_without_floating_point_is_caught() {
    is_missed_twice(&forgetting(Arch::Riscv64, &["FPU"]), "FPU");
}

#[test]
fn x86_64_without_mitigations_is_caught_for_each() {
    let all: Vec<_> = ours(Arch::X86_64, Variant::Lean).into_keys().collect();
    let all: Vec<_> = all.iter().filter_map(|symbol| symbol.strip_prefix("CONFIG_")).collect();
    let all: Vec<_> = all.into_iter().filter(|symbol| symbol.starts_with("MITIGATION_")).collect();
    assert!(all.len() > 20, "{all:?}");
    let findings = forgetting(Arch::X86_64, &all);
    all.iter().for_each(|symbol| is_missed_twice(&findings, symbol));
}

#[test]
fn arm64_without_page_table_isolation_is_caught() {
    let both = ["UNMAP_KERNEL_AT_EL0", "MITIGATE_SPECTRE_BRANCH_HISTORY"];
    let findings = forgetting(Arch::Aarch64, &both);
    both.iter().for_each(|symbol| is_missed_twice(&findings, symbol));
}

/// Lists of one group each.
fn lists(required: &str, allowed: &str, dropped: &str) -> Lists {
    let list = |name: &str, text: &str| List::parse(name, text).unwrap();
    Lists {
        required: vec![list("hardening.toml", required)],
        allowed: list("allowed.toml", allowed),
        dropped: list("dropped/common.toml", dropped),
        dropped_by: Arch::ALL.map(|arch| (arch, list(&format!("dropped/{arch}.toml"), ""))).into(),
    }
}

fn facts(requested: &str, got: &str, defaults: &str) -> Facts {
    let kind = Kind { arch: Arch::S390x, variant: Variant::Lean, release: "6.12".parse().unwrap() };
    Facts { kind, requested: resolved(requested), resolved: resolved(got), defaults: resolved(defaults) }
}

#[test]
fn each_kind_of_finding_names_its_symbol_and_where_to_go() {
    let required = "[walls]\nwhy = \"x\"\nsymbols = [\"A\"]\noff = [\"B\"]\nvalues = { N = \"4\" }\n";
    let facts = facts("CONFIG_C=y\n", "CONFIG_B=y\nCONFIG_N=5\n", "CONFIG_D=y\nCONFIG_B=y\n");
    let found = judge(&facts, &lists(required, "", ""), &mut Entries::new());
    let said: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "CONFIG_C wanted y, got n: the kernel did not grant what a fragment asks for",
            "CONFIG_D is on by default and got lost: ask for it, or give a reason in checks/dropped/",
            "CONFIG_A wanted y, got n: demanded by checks/hardening.toml [walls]",
            "CONFIG_B wanted n, got y: demanded by checks/hardening.toml [walls]",
            "CONFIG_N wanted 4, got 5: demanded by checks/hardening.toml [walls]",
        ]
    );
}

#[test]
fn what_a_list_explains_is_no_finding_and_the_entry_is_of_use() {
    let required = "[walls]\nwhy = \"x\"\nsymbols = [\"A\"]\n";
    let allowed = "[later]\nwhy = \"x\"\nsymbols = [\"A\", \"C\", \"GONE\"]\nbefore = \"6.13\"\n";
    let dropped = "[fans]\nwhy = \"x\"\nsymbols = [\"FAN_*\", \"HEAT\"]\n";
    let lists = lists(required, allowed, dropped);
    let mut used = Entries::new();
    let facts = facts("CONFIG_C=y\n", "", "CONFIG_FAN_1=y\nCONFIG_FAN_2=y\n");
    assert_eq!(judge(&facts, &lists, &mut used), []);
    let useless: Vec<_> = entries([&lists.allowed, &lists.dropped]).difference(&used).cloned().collect();
    let useless: Vec<_> =
        useless.iter().map(|(list, group, entry)| format!("{list} {group} {entry}")).collect();
    assert_eq!(useless, ["allowed.toml later GONE", "dropped/common.toml fans HEAT"]);
}
