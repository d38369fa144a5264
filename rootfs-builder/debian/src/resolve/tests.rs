use super::*;
use crate::index::tests::{index, packages};

fn run(lines: &[&str], wanted: &[&str], exclude: &[&str]) -> Result<Resolution, String> {
    among(packages(vec![index("sid", false, lines)]), wanted, exclude)
}

fn among(available: Packages, wanted: &[&str], exclude: &[&str]) -> Result<Resolution, String> {
    let owned = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
    let (wanted, exclude) = (owned(wanted), owned(exclude));
    resolve(&available, Request { packages: &wanted, exclude: &exclude }).map_err(|error| error.to_string())
}

fn names(resolution: &Resolution) -> Vec<&str> {
    resolution.packages.iter().map(|package| package.name.as_str()).collect()
}

#[test]
fn the_closure_is_taken_and_nothing_else() {
    let all =
        ["a 1; Depends: b (>= 1), c", "b 1; Pre-Depends: d", "c 1; Recommends: e", "d 1; Depends: a", "e 1"];
    let found = run(&all, &["a"], &[]).unwrap();
    assert_eq!(names(&found), ["a", "b", "c", "d"]);
    assert_eq!(found.packages[0].depends, ["b", "c"]);
    assert_eq!(found.packages[3].depends, ["a"]);
}

#[test]
fn the_first_alternative_that_can_be_had_is_taken() {
    let all = ["a 1; Depends: none | b (>= 2) | c | d", "b 1", "c 1", "d 1"];
    assert_eq!(names(&run(&all, &["a"], &[]).unwrap()), ["a", "c"]);
    assert_eq!(names(&run(&all, &["a", "d"], &[]).unwrap()), ["a", "d"], "what is there is preferred");
}

#[test]
fn providers_go_by_priority_and_name() {
    let all = [
        "a 1; Depends: awk",
        "gawk 1; Provides: awk; Priority: optional",
        "mawk 1; Provides: awk; Priority: required",
        "nawk 1; Provides: awk; Priority: required",
    ];
    assert_eq!(names(&run(&all, &["a"], &[]).unwrap()), ["a", "mawk"]);
    assert_eq!(names(&run(&all, &["a", "gawk"], &[]).unwrap()), ["a", "gawk"]);
    assert_eq!(names(&run(&all, &["a"], &["mawk"]).unwrap()), ["a", "nawk"]);
}

#[test]
fn a_version_is_asked_of_what_is_provided_too() {
    let all =
        ["a 1; Depends: v (>= 2)", "p 1; Provides: v", "q 1; Provides: v (= 1)", "r 1; Provides: v (= 2)"];
    assert_eq!(names(&run(&all, &["a"], &[]).unwrap()), ["a", "r"]);
}

#[test]
fn what_is_excluded_stays_out_and_its_absence_is_told() {
    let all = ["a 1; Depends: adduser (>= 3) | other, awk", "adduser 4", "other 1", "mawk 1; Provides: awk"];
    let found = run(&all, &["a"], &["adduser", "awk"]).unwrap();
    assert_eq!(names(&found), ["a"]);
    let waived: Vec<_> = found.waived.iter().map(|w| format!("{}: {}", w.package, w.dependency)).collect();
    assert_eq!(waived, ["a: adduser (>= 3) | other", "a: awk"]);
    let error = run(&all, &["a", "adduser"], &["adduser"]).unwrap_err();
    assert_eq!(error, "package adduser: is both wanted and excluded, wanted by the recipe");
    assert!(run(&all, &["a"], &["A b"]).unwrap_err().contains("is no package's name"));
}

#[test]
fn an_error_names_the_package_and_who_wanted_it() {
    let all = ["a 1; Depends: b", "b 2; Depends: c (>= 3) | d", "c 1"];
    assert_eq!(
        run(&all, &["a"], &[]).unwrap_err(),
        "package c (>= 3) | d: of c there is only 1/sid; d is in none of sid for amd64, wanted by b 2, wanted by a 1, \
         wanted by the recipe"
    );
    assert_eq!(
        run(&all, &["x"], &[]).unwrap_err(),
        "package x: x is in none of sid for amd64, wanted by the recipe"
    );
    assert!(run(&all, &["a b"], &[]).unwrap_err().contains("is no package's name"));
}

#[test]
fn conflicts_are_found_from_either_side() {
    for all in [
        ["a 1; Depends: b; Conflicts: c", "b 1; Depends: c", "c 1"],
        ["a 1; Depends: b", "b 1; Depends: c", "c 1; Breaks: a (<< 2)"],
        ["a 1; Depends: b; Provides: v", "b 1; Depends: c", "c 1; Conflicts: v"],
    ] {
        let error = run(&all, &["a"], &[]).unwrap_err();
        assert!(error.contains("c cannot be with a: ") && error.contains(" excludes "), "{error}");
        assert!(error.ends_with("wanted by b 1, wanted by a 1, wanted by the recipe"), "{error}");
    }
    let all = ["a 1; Depends: x | y", "x 1; Conflicts: a", "y 1"];
    assert_eq!(names(&run(&all, &["a"], &[]).unwrap()), ["a", "y"], "the next alternative is tried");
    let one = ["a 1; Provides: v; Conflicts: v"];
    assert_eq!(names(&run(&one, &["a"], &[]).unwrap()), ["a"], "not with itself");
}

#[test]
fn a_second_version_of_what_is_chosen_is_no_way_out() {
    let all = ["a 1; Depends: b, c", "b 1", "b 2", "c 1; Depends: b (= 1)"];
    let error = run(&all, &["a"], &[]).unwrap_err();
    assert!(error.starts_with("package b (= 1): b 2 is chosen already, wanted by c 1"), "{error}");
    assert_eq!(run(&all, &["a", "b=1"], &[]).unwrap().packages[1].version, "1", "the recipe decides");
}

#[test]
fn suites_and_versions_can_be_asked_for() {
    let suites = || {
        packages(vec![
            index("trixie", false, &["a 1", "b 1; Depends: a (>= 2)"]),
            index("trixie-backports", true, &["a 2"]),
        ])
    };
    let version =
        |wanted: &str| among(suites(), &[wanted], &[]).map(|found| found.packages[0].version.clone());
    assert_eq!(version("a").unwrap(), "1");
    assert_eq!(version("a/trixie-backports").unwrap(), "2");
    assert_eq!(version("a=2").unwrap(), "2");
    assert!(version("a=3").unwrap_err().contains("of a there is only 1/trixie, 2/trixie-backports"));
    assert_eq!(version("b").unwrap(), "2", "backports are used where nothing else will do");
    assert!(among(suites(), &["a", "a=2"], &[]).unwrap_err().contains("1 is wanted too"));
}

#[test]
fn other_architectures_do_not_count() {
    let all = ["a 1; Depends: p:any, q:i386 | r", "p 1", "q 1", "r 1"];
    assert_eq!(names(&run(&all, &["a"], &[]).unwrap()), ["a", "p", "r"]);
}
