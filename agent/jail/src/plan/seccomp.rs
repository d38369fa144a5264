//! The filter of a process's system calls, compiled to what the kernel takes.
//!
//! libseccomp knows the numbers of system calls on every architecture and writes the program; nothing is loaded here.
//! The child only installs it, which is why a filter that cannot be is known before anything is made.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};

use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use super::PlanError;
use crate::oci::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag};
use crate::oci::{LinuxSeccompOperator, LinuxSyscall};

/// A compiled filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
    /// The instructions, each a `struct sock_filter` in the machine's own byte order.
    pub program: Vec<u64>,
}

/// Flags of `seccomp(2)`.
const LOG: u32 = 1 << 1;
const SPEC_ALLOW: u32 = 1 << 2;

/// The largest error number the kernel hands on (`MAX_ERRNO`).
const MAX_ERRNO: u32 = 4095;

/// The error number of a rule that names none.
const EPERM: u32 = 1;

pub(super) fn compile(spec: &LinuxSeccomp) -> Result<Filter, PlanError> {
    let default = action(spec.default_action(), spec.default_errno_ret())?;
    let mut filter = ScmpFilterContext::new(default).map_err(|error| failed("default action", &error))?;
    for arch in spec.architectures().iter().flatten() {
        let added = filter.add_arch(architecture(*arch)).map(drop);
        added.map_err(|error| failed(format!("architecture {arch}"), &error))?;
    }
    // A tree over the numbers instead of a list: every system call of the container is looked up in it.
    filter.set_ctl_optimize(2).map_err(|error| failed("optimisation", &error))?;
    for rule in spec.syscalls().iter().flatten() {
        add(&mut filter, rule, default)?;
    }
    let flags = spec.flags().iter().flatten().fold(0, |flags, word| flags | flag(*word));
    Ok(Filter { flags, program: program(&filter)? })
}

fn add(filter: &mut ScmpFilterContext, rule: &LinuxSyscall, default: ScmpAction) -> Result<(), PlanError> {
    let action = action(rule.action(), rule.errno_ret())?;
    // libseccomp takes it for a mistake.
    if action == default {
        return Ok(());
    }
    let conditions = rule.args().iter().flatten().map(condition).collect::<Result<Vec<_>, _>>()?;
    for name in rule.names() {
        // Profiles name the system calls of every kernel there is; one that this library has never heard of is none
        // that this kernel's programs could make under that name.
        let Ok(syscall) = ScmpSyscall::from_name(name) else { continue };
        let add = |filter: &mut ScmpFilterContext, conditions: &[ScmpArgCompare]| {
            filter
                .add_rule_conditional(action, syscall, conditions)
                .map(drop)
                .map_err(|error| failed(format!("system call {name:?}"), &error))
        };
        if repeats(rule) {
            // One rule asks each argument once. Engines mean several questions about one argument as alternatives.
            conditions.iter().try_for_each(|condition| add(filter, &[*condition]))?;
        } else {
            add(filter, &conditions)?;
        }
    }
    Ok(())
}

/// Whether a rule asks twice about one argument.
fn repeats(rule: &LinuxSyscall) -> bool {
    let mut seen = [false; ARGUMENTS];
    let mut indices = rule.args().iter().flatten().map(LinuxSeccompArg::index);
    indices.any(|index| seen.get_mut(index).is_some_and(|seen| std::mem::replace(seen, true)))
}

/// How many arguments a system call has.
const ARGUMENTS: usize = 6;

fn condition(arg: &LinuxSeccompArg) -> Result<ScmpArgCompare, PlanError> {
    if arg.index() >= ARGUMENTS {
        let value = arg.index().to_string();
        return Err(PlanError::Unsupported { what: "seccomp argument", value });
    }
    let (operator, value) = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => (ScmpCompareOp::NotEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpLt => (ScmpCompareOp::Less, arg.value()),
        LinuxSeccompOperator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpEq => (ScmpCompareOp::Equal, arg.value()),
        LinuxSeccompOperator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpGt => (ScmpCompareOp::Greater, arg.value()),
        // The value is the mask, the second one what must be left of the argument.
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (ScmpCompareOp::MaskedEqual(arg.value()), arg.value_two().unwrap_or(0))
        }
    };
    Ok(ScmpArgCompare::new(arg.index() as u32, operator, value))
}

fn action(action: LinuxSeccompAction, number: Option<u32>) -> Result<ScmpAction, PlanError> {
    let number = number.unwrap_or(EPERM);
    let bounded = |most: u32| match number {
        number if number <= most => Ok(number),
        number => Err(PlanError::Unsupported { what: "seccomp errnoRet", value: number.to_string() }),
    };
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => ScmpAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActErrno => ScmpAction::Errno(bounded(MAX_ERRNO)? as i32),
        LinuxSeccompAction::ScmpActTrace => ScmpAction::Trace(bounded(u32::from(u16::MAX))? as u16),
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
        // It would need somebody outside of the VM who answers for each call.
        LinuxSeccompAction::ScmpActNotify => {
            return Err(PlanError::Unsupported { what: "seccomp action", value: action.to_string() });
        }
    })
}

/// One thread has nobody to synchronise with, and a wait for an answer is never killed where nobody waits.
fn flag(flag: LinuxSeccompFilterFlag) -> u32 {
    match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => LOG,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => SPEC_ALLOW,
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync
        | LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0,
    }
}

fn architecture(arch: Arch) -> ScmpArch {
    match arch {
        Arch::ScmpArchNative => ScmpArch::Native,
        Arch::ScmpArchX86 => ScmpArch::X86,
        Arch::ScmpArchX86_64 => ScmpArch::X8664,
        Arch::ScmpArchX32 => ScmpArch::X32,
        Arch::ScmpArchArm => ScmpArch::Arm,
        Arch::ScmpArchAarch64 => ScmpArch::Aarch64,
        Arch::ScmpArchMips => ScmpArch::Mips,
        Arch::ScmpArchMips64 => ScmpArch::Mips64,
        Arch::ScmpArchMips64n32 => ScmpArch::Mips64N32,
        Arch::ScmpArchMipsel => ScmpArch::Mipsel,
        Arch::ScmpArchMipsel64 => ScmpArch::Mipsel64,
        Arch::ScmpArchMipsel64n32 => ScmpArch::Mipsel64N32,
        Arch::ScmpArchPpc => ScmpArch::Ppc,
        Arch::ScmpArchPpc64 => ScmpArch::Ppc64,
        Arch::ScmpArchPpc64le => ScmpArch::Ppc64Le,
        Arch::ScmpArchS390 => ScmpArch::S390,
        Arch::ScmpArchS390x => ScmpArch::S390X,
        Arch::ScmpArchParisc => ScmpArch::Parisc,
        Arch::ScmpArchParisc64 => ScmpArch::Parisc64,
        Arch::ScmpArchRiscv64 => ScmpArch::Riscv64,
        Arch::ScmpArchLoongarch64 => ScmpArch::Loongarch64,
        Arch::ScmpArchM68k => ScmpArch::M68k,
        Arch::ScmpArchSh => ScmpArch::Sh,
        Arch::ScmpArchSheb => ScmpArch::Sheb,
    }
}

/// libseccomp writes to descriptors only.
fn program(filter: &ScmpFilterContext) -> Result<Vec<u64>, PlanError> {
    let io = |error: io::Error| failed("program", &error);
    let file = memfd_create(c"husk-seccomp", MFdFlags::MFD_CLOEXEC).map_err(|errno| io(errno.into()))?;
    filter.export_bpf(&file).map_err(|error| failed("program", &error))?;
    let (mut file, mut bytes) = (File::from(file), Vec::new());
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(io)?;
    let instructions = bytes.as_chunks().0.iter();
    Ok(instructions.map(|instruction| u64::from_ne_bytes(*instruction)).collect())
}

fn failed(what: impl Into<String>, cause: &dyn std::fmt::Display) -> PlanError {
    PlanError::Seccomp { what: what.into(), cause: cause.to_string() }
}

#[cfg(test)]
mod tests;
