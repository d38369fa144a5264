//! Images beside the root: attached by the host, checked and mounted by the agent, and what becomes of a guest whose
//! extension is not what its command line says.

use e2e::{Boot, ContainerBuilder, End, Guest, Set, Settings};

const BLOCK: u64 = 4096;

fn set() -> Set {
    Set::of(&Settings::extension())
}

/// The shared VM's kind of guest, with the extension of a set.
fn boot(set: &Set) -> Boot {
    Boot::new().extension(Some(&set.dir()), "tools")
}

fn reads(guest: &Guest) -> ContainerBuilder<'_> {
    let container = guest.container("reader").mount("/vol", "bind", "/run/kata-extensions/tools", &["rbind"]);
    container.sh("cat /vol/numbers > /dev/null; grep ' /vol ' /proc/self/mountinfo")
}

/// A guest that does not come up.
fn ends(set: &Set) -> End {
    boot(set).ends_with_a_word(async |_| ())
}

fn is_corrupted(console: &str, what: &str) -> bool {
    let mut lines = console.lines().filter(|line| line.contains("device-mapper: verity: "));
    lines.any(|line| line.trim_end().ends_with(&format!(": {what} is corrupted")))
}

/// Without its second partition: a boot record has its entry in these bytes.
fn without_hashes(disk: &mut [u8]) {
    disk[462..478].fill(0);
}

#[test]
fn one_of_the_booted_set_is_verified_like_its_root() {
    let set = set();
    Boot::new().artefacts(&set).extension(None, "tools").test(async |guest| {
        let words = format!("{} {}", set.image("erofs").cmdline.as_ref().unwrap(), set.extension().cmdline);
        let cmdline = guest.container("c1").sh("cat /proc/cmdline").run().await.ok();
        assert!(
            cmdline
                .replace(&Settings::get().arch().row().emulated_words(1), "")
                .split_whitespace()
                .eq(words.split_whitespace()),
            "{cmdline}"
        );
        assert!(reads(guest).run().await.ok().contains(" - erofs /dev/dm-1 "), "behind the root's dm-0");
    });
}

#[test]
fn a_changed_block_is_not_mounted() {
    let at = set().extension().verity.data_offset + 1024;
    let end = ends(&set().extension_bytes(|disk| disk[at as usize] ^= 1));
    let wanted = "the guest powered off: husk-agent: extension tools: mount its verified device /dev/dm-0: ";
    assert!(end.reason.contains(wanted), "{end:?}");
    assert!(is_corrupted(&end.console, "data block 0"), "{end:?}");
}

#[test]
fn a_changed_hash_is_not_mounted() {
    let at = set().extension().verity.hash_offset;
    let end = ends(&set().extension_bytes(|disk| disk[at as usize + 40] ^= 0x80));
    assert!(end.reason.contains("extension tools: mount its verified device "), "{end:?}");
    assert!(is_corrupted(&end.console, "metadata block 0"), "{end:?}");
}

#[test]
fn a_changed_block_of_a_file_is_not_read() {
    let verity = set().extension().verity.clone();
    let block = verity.data_blocks - 1;
    let at = verity.data_offset + block * BLOCK;
    let set = set().extension_bytes(|disk| disk[at as usize] ^= 1);
    boot(&set).test(async |guest| {
        let done = reads(guest).run().await;
        assert!(done.error_text().contains("Input/output error"), "{done:?}");
        let console = std::fs::read_to_string(guest.vm().console_log()).unwrap();
        assert!(is_corrupted(&console, &format!("data block {block}")), "{console}");
        assert_eq!(guest.container("c2").sh("exit 3").run().await.status, 3, "the guest goes on");
    });
}

#[test]
fn word_and_disk_have_to_agree() {
    let bare = "kata.extension.tools.verity_params";
    let end = ends(&set().extension_cmdline(bare));
    assert!(
        end.reason.contains("extension tools: its disk has hashes, and the command line no verity_params"),
        "{end:?}"
    );
    let end = ends(&set().extension_bytes(without_hashes));
    assert!(
        end.reason.contains("extension tools: its disk has no second partition with the hashes"),
        "{end:?}"
    );
    boot(&set().extension_bytes(without_hashes).extension_cmdline(bare)).test(async |guest| {
        assert!(reads(guest).run().await.ok().contains(" - erofs /dev/vda1 "), "nobody asked for more");
    });
}

#[test]
fn words_that_cannot_be_met_end_the_guest() {
    for (word, told) in [
        ("kata.extension.gone.verity_params", "extension gone: disk extension-gone: entity not found"),
        (
            "kata.extension.x.verity_params=root_hash=x",
            "extension x: verity_params: \"root_hash=x\": not hexadecimal",
        ),
        (
            "kata.extension.a/b.verity_params",
            "extension \"a/b\": its name has to be of letters, digits, - and _",
        ),
    ] {
        let end = Boot::new().cmdline(word).ends_with_a_word(async |_| ());
        assert!(end.reason.contains(&format!("the guest powered off: husk-agent: {told}")), "{end:?}");
    }
}

#[test]
fn what_is_not_there_is_named_before_anything_boots() {
    let dir = Settings::extension();
    let end = |boot: Boot| boot.ends(async |_| ()).reason;
    let said = end(Boot::new().extension(Some(&dir), "gone"));
    assert!(said.ends_with("there is no extension \"gone\" in this set (tools)"), "{said}");
    let said = end(Boot::new().extension(None, "tools"));
    assert!(said.ends_with("there is no extension \"tools\" in this set (it has none)"), "{said}");
    let other = set().arch("s390x");
    let said = end(boot(&other));
    let wanted = format!("its extensions are for s390x, and the VM is {}", Settings::get().arch());
    assert!(said.ends_with(&wanted), "{said}");
    let twice = Boot::new().extension(Some(&dir), "tools").extension(Some(&dir), "tools");
    assert_eq!(end(twice), "extension tools: it is asked for twice");
}
