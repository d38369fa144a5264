//! Recipes that say what they mean, and recipes that do not.

use std::fs;

use super::*;

/// A directory with recipes in it.
struct Recipes(tempfile::TempDir);

impl Recipes {
    fn new(files: &[(&str, &str)]) -> Recipes {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            fs::write(dir.path().join(name), text).unwrap();
        }
        Recipes(dir)
    }

    fn load(&self, name: &str) -> Result<Recipe, String> {
        let dir = self.0.path().canonicalize().unwrap();
        let loaded = Recipe::load(dir.join(name).to_str().unwrap());
        loaded.map_err(|e| e.to_string().replace(dir.to_str().unwrap(), ""))
    }
}

fn load(text: &str) -> Result<Recipe, String> {
    Recipes::new(&[("r.toml", text), ("tree/f", ""), ("file", "")]).load("r.toml")
}

/// What is wrong with a recipe that extends minimal; the text begins in line 2.
fn wrong(text: &str) -> String {
    load(&format!("extends = \"minimal\"\n{text}")).unwrap_err()
}

#[test]
fn every_recipe_with_a_name_loads() {
    let names = Recipe::names();
    assert!(names.contains(&DEFAULT.to_owned()), "{names:?}");
    for name in names {
        let recipe = Recipe::load(&name).unwrap();
        assert_eq!(recipe.name, name);
        assert!(!recipe.description.is_empty(), "{name} does not say what it is for");
    }
}

#[test]
fn single_values_replace_and_lists_go_on() {
    let recipes = Recipes::new(&[
        (
            "one.toml",
            "kernel = 'debug'\nformats = ['initrd']\ncmdline = ['quiet', 'a=1']\nprune = ['/x']\n\
             [agent]\npath = '/init'\nlinks = ['/l']\nfeatures = ['policy']\n[[file]]\npath = '/one'\n",
        ),
        (
            "sub/two.toml",
            "extends = '../one.toml'\ndescription = 'two'\nformats = ['initrd-none', 'initrd']\n\
             cmdline = ['b']\ncmdline-without = ['quiet']\nprune = ['/y']\n\
             [agent]\nfeatures = ['tracing-spans', 'policy']\n[[file]]\npath = '/two'\n",
        ),
    ]);
    let recipe = recipes.load("sub/two.toml").unwrap();
    assert_eq!(
        (recipe.name.as_str(), recipe.description.as_str(), recipe.variant.name()),
        ("two", "two", "debug")
    );
    assert_eq!(recipe.formats.iter().map(|f| f.name()).collect::<Vec<_>>(), ["initrd-none", "initrd"]);
    assert_eq!(recipe.cmdline, ["a=1", "b"]);
    assert_eq!(recipe.prune.iter().map(|p| p.value.as_str()).collect::<Vec<_>>(), ["/x", "/y"]);
    assert_eq!(recipe.agent.features, ["policy", "tracing-spans"]);
    assert_eq!((recipe.agent.path.as_str(), &recipe.agent.links[..]), ("/init", &["/l".to_owned()][..]));
    assert_eq!(recipe.files.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(), ["/one", "/two"]);
    let read: Vec<_> = recipe.read_from.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(read, ["one.toml", "two.toml"]);
}

#[test]
fn an_architecture_can_have_suites_of_its_own() {
    let recipes = Recipes::new(&[
        (
            "one.toml",
            "extends = 'minimal'\n[packages]\nsuites = ['trixie']\nsuites-of = { s390x = ['sid'] }\n",
        ),
        ("two.toml", "extends = './one.toml'\n[packages]\nsuites = ['forky']\n"),
    ]);
    let suite = |recipe: &str, arch| recipes.load(recipe).unwrap().packages.suites_for(arch)[0].value.clone();
    assert_eq!([Arch::X86_64, Arch::S390x].map(|arch| suite("one.toml", arch)), ["trixie", "sid"]);
    assert_eq!(suite("two.toml", Arch::S390x), "forky", "who names suites anew means every architecture");
}

#[test]
fn a_recipe_may_be_called_like_one_that_it_extends() {
    let recipe = Recipes::new(&[("minimal.toml", "extends = 'minimal'\n")]).load("minimal.toml").unwrap();
    let read: Vec<_> = recipe.read_from.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(read, ["minimal.toml", "extended minimal.toml"]);
}

#[test]
fn files_say_what_they_are() {
    let recipe = load(
        "extends = 'minimal'\n\
         [[file]]\npath = '/t'\ntext = 'hi'\nmode = 0o640\nowner = '1:2'\n\
         [[file]]\npath = '/f'\nfrom = 'file'\n\
         [[file]]\npath = '/l'\nlink = '../x'\n\
         [[file]]\npath = '/n'\ndevice = '1:3'\n\
         [[file]]\npath = '/d'\n",
    )
    .unwrap();
    let [text, from, link, device, directory] = &recipe.files[recipe.files.len() - 5..] else { panic!() };
    assert_eq!((&text.what, text.mode, text.owner), (&What::Text("hi".into()), 0o640, (1, 2)));
    assert!(matches!(&from.what, What::From(said, path) if said == "file" && path.ends_with("file")));
    assert_eq!((&link.what, link.mode), (&What::Link("../x".into()), 0o777));
    assert_eq!((&device.what, device.mode), (&What::Device { major: 1, minor: 3 }, 0o600));
    assert_eq!((&directory.what, directory.mode), (&What::Directory, 0o755));
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    assert!(wrong("\npackage = ['x']\n").starts_with("recipe /r.toml, line 3: unknown field `package`"));
    let error = wrong("[[file]]\npath = '/x'\nuser = 'root'\n");
    assert!(
        error.starts_with("recipe /r.toml, line 4: unknown field `user`, expected one of `path`"),
        "{error}"
    );
    assert!(wrong("kernel = 3\n").starts_with("recipe /r.toml, line 2: invalid type: integer `3`"));
    assert!(wrong("[[file]]\ntext = 'x'\n").contains("missing field `path`"));
    assert!(wrong("kernel = \n").starts_with("recipe /r.toml, line 2: "));
}

#[test]
fn a_bad_value_is_named_with_line_and_key() {
    for (text, expected) in [
        ("kernel = 'fast'", "line 2, kernel: unknown kernel variant \"fast\"; known are lean debug hardened"),
        ("formats = ['initrd', 'qcow2']", "line 2, formats: there is no format \"qcow2\"; known are initrd"),
        ("formats = ['initrd', 'initrd']", "line 2, formats: initrd is there twice"),
        ("formats = []", "line 1, formats: no format is said to write"),
        (
            "[agent]\nfeatures = ['seccomp']",
            "line 3, agent.features: there is no feature of the agent \"seccomp\"",
        ),
        ("[agent]\npath = 'init'", "line 3, agent.path: \"init\" is not a plain absolute path"),
        (
            "[packages]\ninstall = ['bash']",
            "line 3, packages.install: there are packages, but packages.suites does not say of which suites",
        ),
        ("[packages.suites-of]\nmips = ['sid']", "line 3, packages.suites-of: unknown architecture \"mips\""),
        ("cmdline = ['a b']", "line 2, cmdline: \"a b\" is not one word of a kernel command line"),
        (
            "cmdline-without = ['loud']",
            "line 2, cmdline-without: \"loud\" is not on the command line it extends",
        ),
        ("prune = [\n'/a/../b']", "line 3, prune: \"/a/../b\" is not a plain absolute path"),
        ("base = './nowhere:latest'", "line 2, base: /./nowhere is not an OCI image layout"),
        ("[[directory]]\npath = '/'\nfrom = 'file'", "line 4, directory.from: there is no directory /file"),
        ("[[file]]\npath = '/x'\nfrom = 'gone'", "line 4, file.from: there is no file /gone"),
        ("[[file]]\npath = '/x'\nmode = 0o10000", "line 4, file.mode: 10000 is no mode"),
        ("[[file]]\npath = '/x'\nowner = 'root'", "line 4, file.owner: an owner is two numbers"),
        ("[[file]]\npath = '/x'\ndevice = '1:-3'", "line 4, file.device: a device is two numbers"),
        ("[[file]]\npath = '/x'\nlink = ''", "line 4, file.link: a link needs a target"),
        ("[[file]]\npath = '/x'\ntext = ''\nlink = 'y'", "line 3, file: it can have only one of"),
        ("[[file]]\npath = '/x/'", "line 3, file: \"/x/\" is not a plain absolute path"),
        ("[[extension]]\nname = '../x'\nfrom = 'tree'", "line 3, extension.name: \"../x\": a name is"),
        (
            "[[extension]]\nname = 'a-long-name'\nfrom = 'tree'",
            "line 3, extension.name: \"a-long-name\": a name is up to 10",
        ),
        (
            "[[extension]]\nname = 'x'\nfrom = 'tree'\n[[extension]]\nname = 'x'\nfrom = 'tree'",
            "line 6, extension.name: there is an extension \"x\" already",
        ),
    ] {
        let error = wrong(text);
        assert!(error.starts_with(&format!("recipe /r.toml, {expected}")), "{text}: {error}");
    }
}

#[test]
fn what_is_not_there_is_told_with_what_is() {
    let error = Recipe::load("tiny").unwrap_err().to_string();
    assert!(
        error.starts_with("recipe tiny: there is none; known are ") && error.contains("minimal"),
        "{error}"
    );
    assert_eq!(
        load("extends = 'tiny'").unwrap_err(),
        "recipe /r.toml, line 1, extends: there is no recipe \"tiny\""
    );
    assert!(load("formats = ['initrd']").unwrap_err().ends_with("agent: no path is said for the agent"));
}

#[test]
fn a_circle_is_told() {
    let recipes = Recipes::new(&[("a.toml", "extends = './b.toml'"), ("b.toml", "extends = './a.toml'")]);
    let error = recipes.load("a.toml").unwrap_err();
    assert_eq!(error, "recipe /b.toml, line 1, extends: \"./a.toml\" extends this recipe in turn");
}

#[test]
fn the_agents_features_are_those_of_its_package() {
    let text = include_str!("../../../agent/Cargo.toml");
    let package: toml::Table = toml::from_str(text).unwrap();
    let features: Vec<_> = package["features"].as_table().unwrap().keys().collect();
    assert_eq!(features, AGENT_FEATURES);
}
