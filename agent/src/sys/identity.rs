//! What makes one machine differ from its clone and has no safe call: entropy and hardware addresses.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

nix::ioctl_write_ptr_bad!(
    /// Mixes bytes into the random numbers and credits them (random(4), RNDADDENTROPY).
    rndaddentropy,
    nix::request_code_write!(b'R', 0x03, 2 * size_of::<libc::c_int>()),
    EntropyHeader
);
nix::ioctl_none!(
    /// Makes what was mixed in count at once (random(4), RNDRESEEDCRNG).
    rndreseedcrng,
    b'R',
    0x07
);
nix::ioctl_write_ptr_bad!(
    /// Sets an interface's hardware address by its name (netdevice(7), SIOCSIFHWADDR).
    siocsifhwaddr,
    libc::SIOCSIFHWADDR,
    libc::ifreq
);

/// `struct rand_pool_info`, whose bytes follow it.
#[repr(C)]
struct EntropyHeader {
    bits: libc::c_int,
    bytes: libc::c_int,
}

/// Mixes `bytes` into the kernel's random numbers, trusts them, and draws from them from now on.
pub(crate) fn add_entropy(bytes: &[u8]) -> io::Result<()> {
    let size = libc::c_int::try_from(bytes.len()).map_err(io::Error::other)?;
    let bits = size.checked_mul(8).ok_or_else(|| io::Error::other("too much entropy"))?;
    // Integers, so that the header at its beginning is aligned.
    let mut pool: Vec<libc::c_int> = vec![bits, size];
    pool.extend(bytes.chunks(size_of::<libc::c_int>()).map(|chunk| {
        let mut word = [0; size_of::<libc::c_int>()];
        word[..chunk.len()].copy_from_slice(chunk);
        libc::c_int::from_ne_bytes(word)
    }));
    let random = File::open("/dev/urandom")?;
    // SAFETY: the descriptor is open, and `pool` begins with the structure, which says how many bytes follow it.
    unsafe { rndaddentropy(random.as_raw_fd(), pool.as_ptr().cast()) }?;
    // SAFETY: the descriptor is open; the call takes no argument.
    unsafe { rndreseedcrng(random.as_raw_fd()) }?;
    Ok(())
}

/// Gives an interface another hardware address.
pub(crate) fn set_hardware_address(name: &str, address: [u8; 6]) -> io::Result<()> {
    // SAFETY: ifreq is a plain C structure for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::other("the interface's name is too long"));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: every member of the union is plain data, and all of it was set to zero above.
    let hardware = unsafe { &mut request.ifr_ifru.ifru_hwaddr };
    hardware.sa_family = libc::ARPHRD_ETHER;
    for (to, from) in hardware.sa_data.iter_mut().zip(address) {
        *to = from as libc::c_char;
    }
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: the socket is open, and `request` names an interface and holds its new address.
    unsafe { siocsifhwaddr(socket.as_raw_fd(), &raw const request) }?;
    Ok(())
}
