//! What a container is, seen from inside.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::bench::{Bench, Outcome, script};

pub(crate) type Test = (&'static str, fn());

pub(crate) const ALL: &[Test] = &[
    ("output_and_exit_code", output_and_exit_code),
    ("a_signal_that_kills", a_signal_that_kills),
    ("stdin_reaches_it", stdin_reaches_it),
    ("namespaces_are_its_own", namespaces_are_its_own),
    ("nothing_runs_before_the_start", nothing_runs_before_the_start),
    ("nothing_is_inherited", nothing_is_inherited),
    ("credentials", credentials),
    ("capabilities", capabilities),
    ("users_by_name", users_by_name),
    ("home_comes_from_passwd", home_comes_from_passwd),
    ("cwd_is_made_and_stays_inside", cwd_is_made_and_stays_inside),
    ("rlimits_and_oom_score", rlimits_and_oom_score),
    ("devices", devices),
    ("bind_mounts", bind_mounts),
    ("mounts_stay_inside", mounts_stay_inside),
    ("tmpfs_is_filled_and_sealed", tmpfs_is_filled_and_sealed),
    ("masked_and_readonly_paths", masked_and_readonly_paths),
    ("readonly_root", readonly_root),
    ("sysctls", sysctls),
    ("commands_that_cannot_run", commands_that_cannot_run),
    ("failures_name_their_object", failures_name_their_object),
    ("terminal", terminal),
];

pub(crate) fn out(bench: &Bench) -> String {
    let Outcome { out, err, code } = bench.run().unwrap();
    assert_eq!((err.as_str(), code), ("", 0), "stdout was {out:?}");
    out
}

pub(crate) fn lines(bench: &Bench) -> Vec<String> {
    out(bench).lines().map(str::to_owned).collect()
}

/// The value of a line in `/proc/self/status`.
pub(crate) fn status(text: &str, name: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{name} in {text}")).trim().to_owned()
}

fn output_and_exit_code() {
    let got = script("echo out; echo err >&2; exit 7").run().unwrap();
    assert_eq!(got, Outcome { out: "out\n".into(), err: "err\n".into(), code: 7 });
}

fn a_signal_that_kills() {
    let running = Bench::new(&["sleep", "100"]).start().unwrap();
    running.signal(Signal::SIGKILL);
    assert_eq!(running.finish().code, 137);
}

fn stdin_reaches_it() {
    let running = Bench::new(&["cat"]).start().unwrap();
    running.write("through\n");
    assert_eq!(running.finish().out, "through\n");
}

fn namespaces_are_its_own() {
    let bench = script(
        "echo $$; hostname; cat /proc/1/comm; for n in mnt uts ipc pid cgroup net user; do readlink /proc/self/ns/$n; done",
    );
    let got = lines(&bench);
    assert_eq!(got[..3], ["1", "husk-test", "sh"]);
    for (name, inside) in ["mnt", "uts", "ipc", "pid", "cgroup", "net", "user"].iter().zip(&got[3..]) {
        let ours = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        let shared = ours == Path::new(inside);
        assert_eq!(shared, ["net", "user"].contains(name), "{name} {inside} {ours:?}");
    }
    // Nothing of the machine is mounted in there.
    let got = out(&Bench::new(&["cat", "/proc/self/mountinfo"]));
    let points: Vec<_> = got.lines().map(|line| line.split(' ').nth(4).unwrap()).collect();
    assert_eq!(points[0], "/");
    let known = ["/", "/proc", "/dev", "/sys"];
    for point in &points {
        assert!(
            known
                .iter()
                .any(|known| point == known || point.starts_with(&format!("{known}/")) && *known != "/"),
            "{got}"
        );
    }
}

fn nothing_runs_before_the_start() {
    let bench = script("touch /data/ran");
    let running = bench.create().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(!bench.rootfs().join("data/ran").exists());
    running.release();
    assert_eq!(running.finish().code, 0);
    assert!(bench.rootfs().join("data/ran").exists());
    // And a container that nobody wants any more goes by itself.
    assert_eq!(bench.create().unwrap().abandon(), 125);
}

fn nothing_is_inherited() {
    let got = lines(&script("ls /proc/self/fd; grep Sig /proc/self/status; env; umask"));
    // 3 is what `ls` reads the directory with.
    assert_eq!(got[..4], ["0", "1", "2", "3"]);
    let text = got.join("\n");
    assert_eq!(status(&text, "SigIgn"), "0000000000000000");
    assert_eq!(status(&text, "SigBlk"), "0000000000000000");
    let rest = &got[got.iter().position(|line| line.contains('=')).unwrap()..];
    let mut env: Vec<_> = rest[..rest.len() - 1]
        .iter()
        .filter(|line| !line.starts_with("SHLVL=") && !line.starts_with("PWD="))
        .collect();
    env.sort();
    assert_eq!(env, ["HOME=/root", "PATH=/bin"]);
    assert_eq!(rest[rest.len() - 1], "0022");
}

fn credentials() {
    let user = json!({ "uid": 1000, "gid": 1001, "additionalGids": [5, 7] });
    let bench = Bench::new(&["cat", "/proc/self/status"]).set("/process/user", user);
    let got = out(&bench);
    assert_eq!(status(&got, "Uid"), "1000\t1000\t1000\t1000");
    assert_eq!(status(&got, "Gid"), "1001\t1001\t1001\t1001");
    assert_eq!(status(&got, "Groups"), "5 7");
    assert_eq!(status(&got, "NoNewPrivs"), "1");
    let bench = Bench::new(&["cat", "/proc/self/status"]).set("/process/noNewPrivileges", json!(false));
    assert_eq!(status(&out(&bench), "NoNewPrivs"), "0");
    // Its streams are its own.
    let user = json!({ "uid": 1000, "gid": 1000 });
    let got = script("echo again > /dev/stdout").set("/process/user", user).run().unwrap();
    assert_eq!((got.out.as_str(), got.err.as_str()), ("again\n", ""));
}

fn capabilities() {
    let show = ["cat", "/proc/self/status"];
    let got = out(&Bench::new(&show));
    // chown 0, dac_override 1, fowner 3, kill 5, setgid 6, setuid 7
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(status(&got, set), "00000000000000eb", "{set}");
    }
    assert_eq!(status(&got, "CapInh"), "0000000000000000");
    assert_eq!(status(&got, "CapAmb"), "0000000000000000");
    // Another user keeps only the ambient ones.
    let net = json!(["CAP_NET_RAW", "CAP_CHOWN"]);
    let ambient = json!(["CAP_NET_RAW"]);
    let sets = json!({ "bounding": net, "effective": net, "permitted": net, "inheritable": net, "ambient": ambient });
    let bench = Bench::new(&show).set("/process/capabilities", sets).set("/process/user/uid", json!(1000));
    let got = out(&bench);
    for set in ["CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status(&got, set), "0000000000002000", "{set}");
    }
    assert_eq!(status(&got, "CapBnd"), "0000000000002001");
    // None at all.
    let mut bench = Bench::new(&show);
    bench.spec["process"].as_object_mut().unwrap().remove("capabilities");
    assert_eq!(status(&out(&bench), "CapBnd"), "0000000000000000");
}

fn users_by_name() {
    let id = |name: &str| {
        let bench = script("id -u; id -g; id -G").set("/process/user/username", json!(name));
        bench.run().map(|got| got.out.replace('\n', " ").trim().to_owned())
    };
    assert_eq!(id("web").unwrap(), "33 34 34 26 29");
    assert_eq!(id("web:tape").unwrap(), "33 26 26");
    assert_eq!(id("1234:99").unwrap(), "1234 99 99");
    assert_eq!(id("nosuch").unwrap_err(), "user \"nosuch\": no such user in the container's \"/etc/passwd\"");
    // The machine's own files are not asked.
    let bench = script("id -u").set("/process/user/username", json!("daemon"));
    assert!(bench.run().unwrap_err().contains("daemon"));
    // A link that leads out of the image leads back into it.
    let bench = script("id -u").set("/process/user/username", json!("daemon"));
    fs::remove_file(bench.rootfs().join("etc/passwd")).unwrap();
    symlink("../../../../../../etc/passwd", bench.rootfs().join("etc/passwd")).unwrap();
    assert!(bench.run().is_err());
}

fn home_comes_from_passwd() {
    let home = |bench: Bench| out(&bench);
    assert_eq!(home(script("echo $HOME")), "/root\n");
    assert_eq!(home(script("echo $HOME").set("/process/user/uid", json!(33))), "/home/web\n");
    assert_eq!(home(script("echo $HOME").set("/process/user/uid", json!(4711))), "/\n");
    assert_eq!(home(script("echo $HOME").set("/process/env", json!(["PATH=/bin", "HOME=/x"]))), "/x\n");
}

fn cwd_is_made_and_stays_inside() {
    let bench = Bench::new(&["pwd"]).set("/process/cwd", json!("/not/there/yet"));
    assert_eq!(out(&bench), "/not/there/yet\n");
    assert!(bench.rootfs().join("not/there/yet").is_dir());
    let bench = Bench::new(&["pwd"]).set("/process/cwd", json!("/out"));
    symlink("../../../../tmp", bench.rootfs().join("out")).unwrap();
    assert_eq!(out(&bench), "/tmp\n");
    let bench = Bench::new(&["pwd"]).set("/process/cwd", json!("/out"));
    symlink("/proc/self/fd/1", bench.rootfs().join("out")).unwrap();
    assert!(bench.run().unwrap_err().starts_with("cwd \"/out\": "));
    // A program relative to it.
    let bench = Bench::new(&["./busybox", "echo", "found"]).set("/process/cwd", json!("/bin"));
    assert_eq!(out(&bench), "found\n");
}

fn rlimits_and_oom_score() {
    let limits = json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }, { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }]);
    let bench = script("ulimit -Sn; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj")
        .set("/process/rlimits", limits)
        .set("/process/oomScoreAdj", json!(321));
    assert_eq!(lines(&bench), ["100", "200", "0", "321"]);
}

fn devices() {
    let extra = json!([
        { "path": "/dev/deep/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 3, "gid": 4 },
        { "path": "/dev/pipe", "type": "p", "major": 0, "minor": 0 },
    ]);
    let bench = script(
        "cd /dev; stat -c '%n %F %t:%T %a %u:%g' null zero full random urandom tty deep/zero pipe; \
         for l in fd stdin stdout stderr ptmx; do echo $l $(readlink $l); done; \
         echo x > null && head -c 3 zero | wc -c",
    )
    .set("/linux/devices", extra);
    let expected = "\
null character special file 1:3 666 0:0
zero character special file 1:5 666 0:0
full character special file 1:7 666 0:0
random character special file 1:8 666 0:0
urandom character special file 1:9 666 0:0
tty character special file 5:0 666 0:0
deep/zero character special file 1:5 640 3:4
pipe fifo 0:0 666 0:0
fd /proc/self/fd
stdin /proc/self/fd/0
stdout /proc/self/fd/1
stderr /proc/self/fd/2
ptmx pts/ptmx
3
";
    assert_eq!(out(&bench), expected);
    // A /dev that belongs to someone else is left alone.
    let mut bench = script("ls /dev");
    let own = bench.path("dev");
    fs::create_dir(&own).unwrap();
    fs::write(own.join("only"), "").unwrap();
    bench.spec["mounts"] =
        json!([{ "destination": "/dev", "type": "bind", "source": own, "options": ["rbind"] }]);
    assert_eq!(out(&bench), "only\n");
}

fn bind_mounts() {
    let bench = script(
        "cat /etc/hosts /made/by/mount; echo no 2>/dev/null > /etc/hosts || echo readonly; echo new > /made/dir/file; \
         grep ' /made/dir ' /proc/self/mountinfo | grep -c nosuid,nodev,noexec",
    );
    let (file, directory) = (bench.path("hosts"), bench.path("volume"));
    fs::write(&file, "mounted\n").unwrap();
    fs::create_dir(&directory).unwrap();
    let bench = bench
        .mount(
            json!({ "destination": "/etc/hosts", "type": "bind", "source": file, "options": ["bind", "ro"] }),
        )
        .mount(
            json!({ "destination": "/made/by/mount", "type": "local", "source": file, "options": ["rbind"] }),
        )
        .mount(json!({ "destination": "/made/dir", "type": "bind", "source": directory,
                       "options": ["rbind", "rprivate", "nosuid", "nodev", "noexec", "relatime"] }));
    assert_eq!(out(&bench), "mounted\nmounted\nreadonly\n1\n");
    assert_eq!(fs::read_to_string(directory.join("file")).unwrap(), "new\n");
    assert_eq!(fs::read_to_string(&file).unwrap(), "mounted\n");
    assert_eq!(fs::read_to_string(bench.rootfs().join("etc/hosts")).unwrap(), "image\n");
}

fn mounts_stay_inside() {
    // A destination behind a link that leads out of the root lands inside of it.
    let bench = script("cat /elsewhere/file");
    let outside = bench.path("outside");
    let volume = bench.path("volume");
    fs::create_dir(&outside).unwrap();
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "volume\n").unwrap();
    symlink(format!("../../../../../..{}", outside.display()), bench.rootfs().join("elsewhere")).unwrap();
    let at = bench.rootfs().join(outside.strip_prefix("/").unwrap());
    fs::create_dir_all(at).unwrap();
    let bind = json!({ "destination": "/elsewhere", "type": "bind", "source": volume, "options": ["bind"] });
    assert_eq!(out(&bench.mount(bind)), "volume\n");
    // And one that leads into /proc is refused, although its name is harmless.
    let bench = script("true");
    symlink("/proc/sys", bench.rootfs().join("trap")).unwrap();
    let bind = json!({ "destination": "/trap", "type": "bind", "source": "/tmp", "options": ["bind"] });
    assert_eq!(bench.mount(bind).run().unwrap_err(), "mount at \"/trap\": leads into /proc");
}

fn tmpfs_is_filled_and_sealed() {
    let bench = script(
        "cat /home/web/hello; echo x 2>/dev/null > /home/new || echo readonly; cat /home/inner/file",
    )
    .mount(
        json!({ "destination": "/home", "type": "tmpfs", "source": "tmpfs", "options": ["ro", "tmpcopyup"] }),
    );
    let volume = bench.path("volume");
    fs::write(&volume, "inner\n").unwrap();
    let bench = bench.mount(
        json!({ "destination": "/home/inner/file", "type": "bind", "source": volume, "options": ["bind"] }),
    );
    fs::write(bench.rootfs().join("home/web/hello"), "hello\n").unwrap();
    assert_eq!(out(&bench), "hello\nreadonly\ninner\n");
}

fn masked_and_readonly_paths() {
    let bench = script(
        "wc -c < /proc/timer_list; wc -c < /proc/keys; ls /sys/firmware | wc -l; \
         echo 1 2>/dev/null > /proc/sys/kernel/shm_rmid_forced || echo readonly; \
         touch /sys/firmware/x 2>/dev/null || echo sealed; \
         umount /proc/sys 2>/dev/null || echo kept",
    );
    assert_eq!(lines(&bench), ["0", "0", "0", "readonly", "sealed", "kept"]);
    // A link in the image does not move the cover.
    let bench = script("cat /secret/file").set("/linux/maskedPaths", json!(["/alias"]));
    fs::create_dir(bench.rootfs().join("secret")).unwrap();
    fs::write(bench.rootfs().join("secret/file"), "secret").unwrap();
    symlink("../../secret", bench.rootfs().join("alias")).unwrap();
    assert_eq!(bench.run().unwrap().code, 1);
}

fn readonly_root() {
    let bench = script("touch /x 2>/dev/null || echo readonly; touch /dev/shm/x && echo shm; pwd")
        .set("/root/readonly", json!(true))
        .set("/process/cwd", json!("/work"));
    assert_eq!(lines(&bench), ["readonly", "shm", "/work"]);
    let root = bench.rootfs();
    assert!(!root.join("x").exists() && root.join("work").is_dir());
    fs::write(root.join("outside-may-write"), "").unwrap();
}

fn sysctls() {
    let values =
        json!({ "kernel.msgmax": "4321", "kernel.domainname": "husk.test", "net.nosuch.setting": "1" });
    let bench =
        script("cat /proc/sys/kernel/msgmax /proc/sys/kernel/domainname").set("/linux/sysctl", values);
    let before = fs::read_to_string("/proc/sys/kernel/msgmax").unwrap();
    assert_eq!(out(&bench), "4321\nhusk.test\n");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/msgmax").unwrap(), before);
}

fn commands_that_cannot_run() {
    let fails = |name: &str| Bench::new(&[name]).create().err().unwrap();
    assert_eq!(fails("nosuch"), "exec: \"nosuch\": no such file or directory");
    assert_eq!(fails("/etc/passwd"), "exec: \"/etc/passwd\": permission denied");
    assert_eq!(fails("/etc"), "exec: \"/etc\": permission denied");
    assert_eq!(fails("/nosuch/x"), "exec: \"/nosuch/x\": no such file or directory");
    // Found, executable, and yet no program: known only at the very end.
    let bench = Bench::new(&["/bin/text"]);
    fs::write(bench.rootfs().join("bin/text"), "#!/nosuch/interpreter\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(bench.rootfs().join("bin/text"), mode).unwrap();
    assert_eq!(bench.run().unwrap_err(), "exec: \"/bin/text\": no such file or directory");
    fs::write(bench.rootfs().join("bin/text"), "\x7fnonsense").unwrap();
    assert_eq!(bench.run().unwrap_err(), "exec: \"/bin/text\": exec format error");
}

fn failures_name_their_object() {
    let bench = script("true").set("/root/path", json!("nowhere"));
    let got = bench.run().unwrap_err();
    assert_eq!(got, format!("root {:?}: no such file or directory", bench.path("nowhere")));
    let bench = script("true").mount(json!({ "destination": "/data", "type": "nosuchfs", "source": "x" }));
    assert_eq!(bench.run().unwrap_err(), "mount \"x\" at \"/data\": no such device");
    let bench =
        script("true").mount(json!({ "destination": "/etc/hosts/x", "type": "tmpfs", "source": "t" }));
    assert_eq!(bench.run().unwrap_err(), "mount \"t\" at \"/etc/hosts/x\": not a directory");
}

fn terminal() {
    let bench = script("tty; stty size; ls /dev/pts; echo onto the console > /dev/console; id -u; exit 3")
        .set("/process/terminal", json!(true))
        .set("/process/consoleSize", json!({ "height": 43, "width": 132 }))
        .set("/process/user/uid", json!(33));
    let got = bench.run().unwrap();
    let expected = "/dev/pts/0\r\n43 132\r\n0     ptmx\r\nonto the console\r\n33\r\n";
    assert_eq!((got.out.as_str(), got.code), (expected, 3));
    // Control characters are signals: the terminal is the controlling one.
    let running = script("trap 'echo interrupted; exit 9' INT; echo ready; while :; do sleep 1; done")
        .set("/process/terminal", json!(true))
        .start()
        .unwrap();
    let pty = running.pty.as_ref().unwrap();
    crate::bench::wait_readable(pty);
    std::thread::sleep(std::time::Duration::from_millis(100));
    nix::unistd::write(pty, b"\x03").unwrap();
    let got = running.finish();
    assert!(got.out.ends_with("interrupted\r\n"), "{got:?}");
    assert_eq!(got.code, 9);
}
