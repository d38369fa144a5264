//! Which accelerator runs the guest. A `/dev/kvm` that exists proves nothing: ours runs no ordinary kernel.

use std::fs::OpenOptions;

use guest_arch::Arch;

use crate::sys;

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accel {
    /// The processor, through KVM.
    Kvm,
    /// QEMU's translator, one thread per guest CPU.
    Tcg,
}

impl Accel {
    /// KVM if the guest's processor is this machine's, has the extension, and a probe VM can be made; else emulation.
    pub(crate) fn detect(guest: Arch) -> Accel {
        if guest != Arch::host() {
            return Accel::Tcg;
        }
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        if may_virtualise(&cpuinfo) && probe() { Accel::Kvm } else { Accel::Tcg }
    }
}

/// Whether cpuinfo allows hardware virtualisation. Only x86 lists it as a flag; elsewhere the probe alone decides.
fn may_virtualise(cpuinfo: &str) -> bool {
    let mut flags = cpuinfo.lines().filter(|line| line.starts_with("flags")).peekable();
    flags.peek().is_none()
        || flags.any(|line| line.split_ascii_whitespace().any(|f| f == "vmx" || f == "svm"))
}

fn probe() -> bool {
    OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok_and(|kvm| sys::kvm_creates_a_vm(&kvm))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_is_a_whole_word_on_x86() {
        assert!(may_virtualise("processor: 0\nflags\t\t: fpu svm sse\n"));
        assert!(may_virtualise("flags\t\t: fpu vmx\n"));
        assert!(!may_virtualise("flags\t\t: fpu vmxx svm_lock\nbugs: vmx\n"));
    }

    #[test]
    fn another_architecture_is_emulated() {
        let foreign = Arch::ALL.into_iter().filter(|arch| *arch != Arch::host());
        foreign.for_each(|arch| assert_eq!(Accel::detect(arch), Accel::Tcg));
    }

    #[test]
    fn no_flags_line_leaves_it_to_the_probe() {
        assert!(may_virtualise("Features : fp asimd\n"));
    }
}
