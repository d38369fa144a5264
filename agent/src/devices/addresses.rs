//! PCI addresses of the host's in a container's environment. Device plugins on the host put them there, in variables
//! called `PCIDEVICE_*`, as a list or (`*_INFO`) as JSON; in the guest the devices have other addresses.

use std::collections::HashMap;

use super::pci::PciAddress;

/// The guest's address of each function that the host passed through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct GuestAddresses(HashMap<PciAddress, PciAddress>);

impl GuestAddresses {
    pub(super) fn insert(&mut self, host: PciAddress, guest: PciAddress) {
        self.0.insert(host, guest);
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Rewrites the values of `PCIDEVICE_*` variables. What is no address, or of a function that is not here, stays.
    pub(crate) fn rewrite(&self, env: &mut [String]) {
        if self.0.is_empty() {
            return;
        }
        for variable in env.iter_mut().filter(|variable| variable.starts_with("PCIDEVICE_")) {
            if let Some((name, value)) = variable.split_once('=') {
                *variable = format!("{name}={}", self.translated(value));
            }
        }
    }

    /// Each word of a text is looked up once, so that a guest address that is also one of the host's stays what it is.
    fn translated(&self, text: &str) -> String {
        let of_address = |byte: char| byte.is_ascii_hexdigit() || byte == ':' || byte == '.';
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.find(|byte| !of_address(byte)).unwrap_or(rest.len());
            let (word, tail) = rest.split_at(end);
            match word.parse().ok().and_then(|host: PciAddress| self.0.get(&host)) {
                Some(guest) => out.push_str(&guest.to_string()),
                None => out.push_str(word),
            }
            let next = tail.find(of_address).unwrap_or(tail.len());
            out.push_str(&tail[..next]);
            rest = &tail[next..];
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(pairs: &[(&str, &str)]) -> GuestAddresses {
        let mut all = GuestAddresses::default();
        pairs.iter().for_each(|(host, guest)| all.insert(host.parse().unwrap(), guest.parse().unwrap()));
        all
    }

    fn rewritten(all: &GuestAddresses, variable: &str) -> String {
        let mut env = [variable.to_string()];
        all.rewrite(&mut env);
        let [variable] = env;
        variable
    }

    #[test]
    fn lists_and_json_are_rewritten_each_address_once() {
        // The first two swap places.
        let all = addresses(&[
            ("0000:1a:01.0", "0000:1a:02.0"),
            ("0000:1a:02.0", "0000:1a:01.0"),
            ("0000:3b:00.0", "0000:01:00.0"),
        ]);
        assert_eq!(
            rewritten(&all, "PCIDEVICE_INTEL_COM_NET=0000:1a:01.0,0000:1a:02.0,0000:3b:00.0"),
            "PCIDEVICE_INTEL_COM_NET=0000:1a:02.0,0000:1a:01.0,0000:01:00.0"
        );
        assert_eq!(
            rewritten(
                &all,
                r#"PCIDEVICE_X_INFO={"0000:3b:00.0":{"generic":{"deviceID":"0000:3b:00.0"},"vfio":{"mount":"/dev/vfio/12"}}}"#
            ),
            r#"PCIDEVICE_X_INFO={"0000:01:00.0":{"generic":{"deviceID":"0000:01:00.0"},"vfio":{"mount":"/dev/vfio/12"}}}"#
        );
    }

    #[test]
    fn everything_else_stays() {
        let all = addresses(&[("0000:1a:01.0", "0000:02:00.0")]);
        for same in [
            "OTHER=0000:1a:01.0",
            "MY_PCIDEVICE_X=0000:1a:01.0",
            "PCIDEVICE_X",
            "PCIDEVICE_X=",
            "PCIDEVICE_X=0000:1b:01.0",
            "PCIDEVICE_X=eth0,ü",
            "PCIDEVICE_X=10000:1a:01.0",
            "PCIDEVICE_X=0000:1a:01.0.0",
        ] {
            assert_eq!(rewritten(&all, same), same);
        }
    }
}
