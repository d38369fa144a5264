//! Mirrors that fail, disks that are full, builds that are killed in the middle of a download. Afterwards nothing is half
//! there, and the next build works.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::mirror::{Answer, Mirror};
use crate::place::{INPUT, Place, input, user_cache};
use crate::{Group, is_whole, succeeded};

/// What a build says that has to fail.
fn failure(build: &mut Command) -> (String, String) {
    let output = build.output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    assert!(!output.status.success(), "{out}{err}");
    (out, err)
}

#[test]
#[ignore = "needs HUSK_ARTEFACTS"]
fn a_bad_mirror_is_told_with_the_input_and_leaves_nothing() {
    let (place, mirror) = (Place::new(), Mirror::of(input()));
    for (answer, says, requests) in [
        (Answer::Absent, "http status: 404", 1),
        (Answer::Stall, "no data for 2 s", 3),
        (Answer::Cut, "from the debian mirror: ", 3),
        (Answer::Wrong, "sha256 is ", 3),
    ] {
        mirror.answers(answer);
        let (_, said) = failure(&mut place.build(&mirror, "exec \"$@\""));
        let last = said.lines().last().unwrap();
        assert!(last.contains(&format!("download {INPUT} ")) && last.contains(says), "{answer:?}: {said}");
        assert_eq!(mirror.requests(), requests, "{answer:?}");
        assert_eq!((place.cached(), place.beside()), (vec![], vec![]), "{answer:?}");
    }
    mirror.answers(Answer::Whole);
    succeeded(&place.build(&mirror, "exec \"$@\"").output().unwrap());
    is_whole(&place.set());
    assert_eq!(place.cached().len(), 2);
}

#[test]
#[ignore = "needs HUSK_ARTEFACTS"]
fn a_cache_on_a_full_disk_has_no_half_entry() {
    let (place, mirror) = (Place::new(), Mirror::of(input()));
    for (shelf, kilobytes) in [("downloads", 256), ("demo-image", 512)] {
        let shelf = user_cache().join(shelf);
        let script = format!(
            "mount -t tmpfs -o size={kilobytes}k tmpfs {0}\n\"$@\" || code=$?\nls -A {0} | grep -v lock$ || true\nexit $code",
            shelf.display()
        );
        let (listed, said) = failure(&mut place.build(&mirror, &script));
        assert!(said.contains("No space left on device"), "{said}");
        assert!(said.lines().last().unwrap().contains("busybox"), "{said}");
        assert_eq!(listed, "");
        assert_eq!(place.beside(), Vec::<String>::new());
    }
}

#[test]
#[ignore = "needs HUSK_ARTEFACTS"]
fn a_full_disk_leaves_the_set_that_is_there() {
    let (place, mirror) = (Place::new(), Mirror::of(input()));
    // Room for one set and a half.
    succeeded(&place.build(&mirror, "exec \"$@\"").output().unwrap());
    let sizes = std::fs::read_dir(place.set()).unwrap().map(|file| file.unwrap().metadata().unwrap().len());
    let size = sizes.sum::<u64>() * 3 / 2;
    let script = format!(
        "mount -t tmpfs -o size={size} tmpfs {out}\n\"$@\" >/dev/null\n! \"$@\" >/dev/null || exit 9\n\
         {xtask} verify-image {set} >/dev/null\nls -A {set}/..\n",
        out = place.out().display(),
        xtask = env!("CARGO_BIN_EXE_xtask"),
        set = place.set().display(),
    );
    let output = place.build(&mirror, &script).output().unwrap();
    succeeded(&output);
    assert_eq!(String::from_utf8_lossy(&output.stdout), ".box.lock\nbox\n");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("No space left on device"), "{said}");
}

#[test]
#[ignore = "needs HUSK_ARTEFACTS"]
fn what_a_killed_download_leaves_is_gone_after_the_next_build() {
    let mirror = Mirror::of(input());
    for signal in ["INT", "KILL"] {
        let place = Place::new();
        mirror.answers(Answer::Stall);
        let child = Group::start(&mut place.build(&mirror, "HUSK_DOWNLOAD_TIMEOUT=600 exec \"$@\""));
        let deadline = Instant::now() + Duration::from_secs(300);
        while mirror.requests() == 0 {
            assert!(Instant::now() < deadline, "it downloads nothing");
            thread::sleep(Duration::from_millis(50));
        }
        assert!(!child.end(signal).success());
        assert!(place.cached().iter().any(|name| name.contains(".half-")), "{:?}", place.cached());
        assert_eq!(place.beside(), Vec::<String>::new());
        mirror.answers(Answer::Whole);
        succeeded(&place.build(&mirror, "exec \"$@\"").output().unwrap());
        is_whole(&place.set());
        let left = place.cached();
        assert!(left.len() == 2 && !left.iter().any(|name| name.starts_with('.')), "{left:?}");
        // And of what it finds in the cache already.
        std::fs::create_dir_all(place.shelf("downloads").join(".0123.half-x/deep")).unwrap();
        std::fs::write(place.shelf("downloads").join(".0123.lock"), "").unwrap();
        succeeded(&place.build(&mirror, "exec \"$@\"").output().unwrap());
        assert_eq!(place.cached(), left);
    }
}

#[test]
#[ignore = "needs HUSK_ARTEFACTS"]
fn two_builds_with_one_cache_download_once() {
    let (place, mirror) = (Place::new(), Mirror::of(input()));
    let start = || place.build(&mirror, "exec \"$@\"").spawn().unwrap();
    for child in [start(), start()] {
        succeeded(&child.wait_with_output().unwrap());
    }
    is_whole(&place.set());
    assert_eq!((mirror.requests(), place.beside()), (1, vec!["box".to_owned()]));
}
