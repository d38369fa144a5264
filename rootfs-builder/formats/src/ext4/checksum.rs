//! The checksums over metadata (kernel: `filesystems/ext4/checksums.rst`).

/// What all checksums of a file system start from. Other makers take a digest of its UUID, so that a block of
/// another file system is noticed; ours has its UUID from its content, these checksums among it.
pub(super) const SEED: u32 = crc32c(!0, b"husk: ext4");

/// CRC-32C as the kernel chains it: with no inversion at its end.
pub(super) const fn crc32c(start: u32, bytes: &[u8]) -> u32 {
    let (mut crc, mut at) = (start, 0);
    while at < bytes.len() {
        crc = crc >> 8 ^ TABLE[(crc as u8 ^ bytes[at]) as usize];
        at += 1;
    }
    crc
}

/// What the checksums of an inode, its directory blocks and its extents start from. All generations are zero.
pub(super) fn inode_seed(number: u32) -> u32 {
    crc32c(crc32c(SEED, &number.to_le_bytes()), &[0; 4])
}

const TABLE: [u32; 256] = {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_castagnolis() {
        // The check value of CRC-32C, which inverts at the end.
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
    }
}
