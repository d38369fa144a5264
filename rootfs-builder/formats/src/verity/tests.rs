use std::io::Cursor;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

/// Blocks that all differ.
fn image(blocks: usize) -> Vec<u8> {
    (0..blocks * BLOCK).map(|at| (at % BLOCK * 7 + at / BLOCK * 13) as u8).collect()
}

fn tree(data: &[u8]) -> HashTree {
    build(Cursor::new(data), &Options::default()).unwrap()
}

fn check(data: &[u8], tree: &HashTree) -> Result<(), Error> {
    verify(data.chain(&tree.device[..]), &tree.verity)
}

#[test]
fn one_block_is_hashed_after_the_salt() {
    let data = image(1);
    let options = Options { salt: Some(b"salt".to_vec()), uuid: None };
    let tree = build(Cursor::new(&data), &options).unwrap();
    let expected: [u8; 32] = Sha256::digest([b"salt", &data[..]].concat()).into();
    assert_eq!(tree.verity.root, RootHash(expected));
    assert_eq!(tree.device.len(), BLOCK, "a superblock and no tree");
    check(&data, &tree).unwrap();
}

#[test]
fn what_was_built_verifies_and_content_decides_salt_and_uuid() {
    for blocks in [1, 2, 127, 128, 129, 300] {
        let data = image(blocks);
        let tree = tree(&data);
        assert_eq!(tree.device.len() as u64, (1 + levels::blocks(blocks as u64)) * BLOCK as u64);
        assert_eq!(tree.verity.superblock.salt, Sha256::digest(&data).to_vec());
        check(&data, &tree).unwrap();
    }
    let (one, other) = (tree(&image(5)), tree(&image(6)));
    assert_ne!(one.verity.superblock.uuid, other.verity.superblock.uuid);
}

#[test]
fn images_that_are_not_of_blocks_and_salts_too_long_are_refused() {
    let none = Options::default();
    for length in [0, 1, BLOCK - 1, BLOCK + 1] {
        let error = build(Cursor::new(vec![0; length]), &none).unwrap_err().to_string();
        assert!(error.starts_with(&format!("dm-verity: an image of {length} bytes")), "{error}");
    }
    let long = Options { salt: Some(vec![0; 257]), uuid: None };
    let error = build(Cursor::new(image(1)), &long).unwrap_err().to_string();
    assert_eq!(error, "dm-verity: a salt of 257 bytes, and there is room for 256");
}

#[test]
fn the_first_bad_block_is_named() {
    let (mut data, tree) = (image(300), tree(&image(300)));
    data[200 * BLOCK + 17] ^= 1;
    data[250 * BLOCK] ^= 1;
    let error = check(&data, &tree).unwrap_err().to_string();
    assert_eq!(error, "dm-verity: data block 200 (from byte 819200) is not what the root hash says");

    // Superblock, one block on top, three below: the second of those.
    let mut bad = tree.clone();
    bad.device[3 * BLOCK + 1] ^= 1;
    let error = check(&image(300), &bad).unwrap_err().to_string();
    assert_eq!(error, "dm-verity: hash block 3 (level 0) is not what the root hash says");

    let mut bad = tree.clone();
    bad.verity.root.0[31] ^= 0x80;
    let error = check(&image(300), &bad).unwrap_err().to_string();
    assert_eq!(error, "dm-verity: hash block 1 (level 1) is not what the root hash says");
}

#[test]
fn blocks_that_changed_places_are_noticed() {
    let (mut data, tree) = (image(300), tree(&image(300)));
    let (one, other) = data.split_at_mut(100 * BLOCK);
    one[..BLOCK].swap_with_slice(&mut other[..BLOCK]);
    assert!(check(&data, &tree).unwrap_err().to_string().contains("data block 0 "));
}

#[test]
fn an_image_of_another_length_is_noticed() {
    let (data, tree) = (image(3), tree(&image(3)));
    let whole = [&data[..], &tree.device].concat();
    for length in [0, BLOCK, data.len(), whole.len() - 1] {
        let error = verify(&whole[..length], &tree.verity).unwrap_err().to_string();
        assert_eq!(error, "dm-verity: cannot read the image");
    }
    let longer = verify(whole.chain(&b"x"[..]), &tree.verity).unwrap_err().to_string();
    assert_eq!(longer, "dm-verity: there is something behind the hash tree");
}

#[test]
fn no_byte_of_superblock_tree_and_root_can_be_changed() {
    let (data, tree) = (image(2), tree(&image(2)));
    for at in 0..tree.device.len() {
        let mut bad = tree.clone();
        bad.device[at] ^= 1;
        assert!(check(&data, &bad).is_err(), "byte {at} of the hash device");
    }
    for at in 0..DIGEST {
        let mut bad = tree.clone();
        bad.verity.root.0[at] ^= 1;
        assert!(check(&data, &bad).is_err(), "byte {at} of the root hash");
    }
}

/// An image with two levels of hash blocks behind it.
static WHOLE: LazyLock<(Vec<u8>, Verity)> = LazyLock::new(|| {
    let data = image(140);
    let HashTree { verity, device } = tree(&data);
    ([data, device].concat(), verity)
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Any one bit, anywhere in an image and its tree.
    #[test]
    fn no_flip_goes_unnoticed(at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let (good, verity) = &*WHOLE;
        let at = at.index(good.len());
        let mut bad = good.clone();
        bad[at] ^= 1 << bit;
        let error = verify(&bad[..], verity).unwrap_err().to_string();
        // The block that is named is the one that was changed.
        let block = at / BLOCK;
        let named = match block.checked_sub(140) {
            None => format!("data block {block} "),
            Some(0) => format!("superblock: byte {} ", at % BLOCK),
            Some(hash_block) => format!("hash block {hash_block} "),
        };
        prop_assert!(error.contains(&named), "byte {}: {}", at, error);
    }
}
