//! The `husk` binary.

use std::process::{Command, Stdio};

use e2e::Cli;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::noise;

#[test]
fn a_run_relays_output_and_exit_code() {
    Cli::test(async |cli| {
        let done = cli.run(&[], &["sh", "-c", "echo out; echo err >&2; exit 7"]).run().await;
        assert_eq!((done.status, done.text().as_str(), done.stderr.as_str()), (7, "out", "err\n"));
    });
}

#[test]
fn a_command_that_cannot_run_has_the_shells_codes() {
    Cli::test(async |cli| {
        let missing = cli.run(&[], &["nosuch"]).run().await;
        missing.complains(127, &["exec: \"nosuch\": no such file or directory"]);
        cli.nothing_is_left().await;
        let forbidden = cli.run(&[], &["/etc/passwd"]).run().await;
        forbidden.complains(126, &["exec: \"/etc/passwd\": permission denied"]);
    });
}

#[test]
fn flags_reach_the_program() {
    Cli::test(async |cli| {
        let flags =
            ["--env", "COLOUR=blue", "--workdir", "/tmp", "--user", "app", "--memory", "192M", "--cpus", "2"];
        let script =
            "echo $COLOUR; pwd; id -un; nproc; awk '/MemTotal/ {print ($2 < 192 * 1024)}' /proc/meminfo";
        let done = cli.run(&flags, &["sh", "-c", script]).run().await;
        assert_eq!(done.ok(), "blue\n/tmp\napp\n2\n1");
    });
}

#[test]
fn the_kernel_and_the_first_process_are_not_the_hosts() {
    Cli::test(async |cli| {
        let done = cli.run(
            &[],
            &[
                "sh",
                "-c",
                "cat /proc/version; cat /proc/1/comm; hostname; cat /proc/sys/kernel/random/boot_id",
            ],
        );
        let said = done.run().await.ok();
        let lines: Vec<&str> = said.lines().collect();
        assert_ne!(lines[0], std::fs::read_to_string("/proc/version").unwrap().trim());
        assert_eq!((lines[1], lines[2]), ("sh", "c1"));
        assert_ne!(lines[3], std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim());
    });
}

#[test]
fn stdin_goes_through_and_is_closed_without_the_flag() {
    const SIZE: usize = 4 << 20;
    Cli::test(async |cli| {
        let sent = noise(SIZE).next_chunk(SIZE).unwrap();
        let digest = Sha256::digest(&sent);
        let mut running = cli.run(&["-i"], &["cat"]).start();
        // More than the pipes hold: it must be read while it is written.
        let stdout = running.take_stdout();
        let (received, ended) = tokio::join!(stdout, async {
            running.write(&sent).await;
            running.ended().await
        });
        assert_eq!(ended.status, 0, "{ended:?}");
        assert_eq!((received.len(), Sha256::digest(&received)), (SIZE, digest));

        let closed = cli.run(&[], &["cat"]).stdin("not for it").run().await;
        assert_eq!(closed.ok(), "");
    });
}

#[test]
fn a_directory_serves_as_the_root() {
    Cli::test(async |cli| {
        let rootfs = cli.dir().join("rootfs");
        let image = husk::image::Reference { dir: cli.settings().image.clone(), name: None };
        husk::image::unpack(&image, cli.settings().arch(), &rootfs, &false.into()).unwrap();
        let words = [
            "run",
            "--rm",
            "--rootfs",
            rootfs.to_str().unwrap(),
            "c1",
            "--",
            "sh",
            "-c",
            "echo hi > /from-guest",
        ];
        cli.husk(&words).run().await.ok();
        assert_eq!(std::fs::read_to_string(rootfs.join("from-guest")).unwrap(), "hi\n");
    });
}

#[test]
fn the_life_of_a_container_from_another_terminal() {
    Cli::test(async |cli| {
        let patient = "trap 'exit 9' TERM; while :; do sleep 0.1; done";
        let running = cli.start(cli.run(&[], &["sh", "-c", patient])).await;

        let listed: Value = serde_json::from_str(&cli.husk(&["list", "--json"]).run().await.ok()).unwrap();
        assert_eq!((&listed[0]["name"], &listed[0]["pid"]), (&"c1".into(), &running.pid().into()));
        let table = cli.husk(&["list"]).run().await.ok();
        assert!(table.lines().count() == 2 && table.contains("running"), "{table}");

        let done = cli.husk(&["exec", "c1", "--", "sh", "-c", "echo in; echo err >&2; exit 4"]).run().await;
        assert_eq!((done.status, done.text().as_str(), done.stderr.as_str()), (4, "in", "err\n"));
        let fed = cli.husk(&["exec", "-i", "c1", "--", "cat"]).stdin("fed").run().await;
        assert_eq!(fed.ok(), "fed");
        cli.husk(&["exec", "c1", "--", "nosuch"]).run().await.complains(127, &["nosuch"]);
        cli.husk(&["exec", "c1", "--", "/etc/passwd"]).run().await.complains(126, &["/etc/passwd"]);

        cli.husk(&["delete", "c1"]).run().await.complains(125, &["c1", "running"]);
        cli.husk(&["kill", "c1", "TERM"]).run().await.ok();
        assert_eq!(running.ended().await.status, 9);
        assert_eq!(cli.husk(&["list", "--json"]).run().await.ok(), "[]");
    });
}

#[test]
fn what_was_not_to_be_removed_stays_until_it_is_deleted() {
    Cli::test(async |cli| {
        let image = cli.image();
        let done = cli.husk(&["run", "--image", &image, "kept", "--", "sh", "-c", "exit 6"]).run().await;
        assert_eq!(done.status, 6);
        let listed: Value = serde_json::from_str(&cli.husk(&["list", "--json"]).run().await.ok()).unwrap();
        assert_eq!((&listed[0]["status"], &listed[0]["exitCode"]), (&"stopped".into(), &6.into()));
        cli.husk(&["exec", "kept", "--", "true"]).run().await.complains(125, &["kept", "stopped"]);
        let again = cli.husk(&["run", "--image", &image, "kept", "--", "true"]).run().await;
        again.complains(125, &["kept", "in use"]);
        cli.husk(&["delete", "kept"]).run().await.ok();
        assert_eq!(cli.husk(&["list", "--json"]).run().await.ok(), "[]");
    });
}

#[test]
fn signals_go_on_to_the_program() {
    Cli::test(async |cli| {
        let script =
            "trap 'echo term; exit 3' TERM; trap 'echo int' INT; echo up; while :; do sleep 0.1; done";
        let mut running = cli.run(&[], &["sh", "-c", script]).start();
        running.read_until("up").await;
        kill(Pid::from_raw(running.pid()), Signal::SIGINT).unwrap();
        running.read_until("int").await;
        kill(Pid::from_raw(running.pid()), Signal::SIGTERM).unwrap();
        let ended = running.ended().await;
        assert_eq!((ended.status, ended.text().as_str()), (3, "term"));
    });
}

#[test]
fn a_program_without_a_handler_ends_with_137() {
    Cli::test(async |cli| {
        let running = cli.start(cli.run(&[], &["sleep", "1000"])).await;
        kill(Pid::from_raw(running.pid()), Signal::SIGTERM).unwrap();
        assert_eq!(running.ended().await.status, 137);
    });
}

#[test]
fn a_husk_that_is_killed_takes_its_vm_along() {
    Cli::test(async |cli| {
        let running = cli.start(cli.run(&[], &["sleep", "1000"])).await;
        kill(Pid::from_raw(running.pid()), Signal::SIGKILL).unwrap();
        assert_eq!(running.ended().await.status, 137);
        cli.no_process_is_left().await;
        let listed: Value = serde_json::from_str(&cli.husk(&["list", "--json"]).run().await.ok()).unwrap();
        assert_eq!(listed[0]["status"], "dead", "{listed}");
        cli.husk(&["delete", "c1"]).run().await.ok();
    });
}

#[test]
fn force_deletes_what_runs() {
    Cli::test(async |cli| {
        let running = cli.start(cli.run(&[], &["sleep", "1000"])).await;
        cli.husk(&["delete", "--force", "c1"]).run().await.ok();
        assert_eq!(running.ended().await.status, 137);
        cli.husk(&["delete", "--force", "c1"]).run().await.ok();
        cli.husk(&["delete", "c1"]).run().await.complains(125, &["c1", "no such container"]);
    });
}

#[test]
fn a_terminal_is_given_by_flag() {
    Cli::test(async |cli| {
        let done = cli.run(&["-t"], &["sh", "-c", "tty; echo err >&2"]).run().await;
        assert_eq!((done.status, done.text().as_str(), done.stderr.as_str()), (0, "/dev/pts/0\r\nerr", ""));
    });
}

#[test]
fn our_own_terminal_gives_its_size_and_gets_its_modes_back() {
    Cli::test(async |cli| {
        // `script` has a terminal for us; what husk does to its modes must be undone.
        let husk = cli.settings().husk.display().to_string();
        let run = format!("{husk} --root {} run --rm -t -i --image {}", cli.root().display(), cli.image());
        let session = format!("stty rows 31 cols 91; stty -g; {run} c1 -- stty size; stty -g");
        let mut script = Command::new("script");
        script
            .args(["-q", "-e", "-c", &session, "/dev/null"])
            .env("HUSK_ARTEFACTS", &cli.settings().artefacts);
        script.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut running = tokio::process::Command::from(script).kill_on_drop(true).spawn().unwrap();
        // Nobody types, and nobody hangs up either.
        let _keyboard = running.stdin.take();
        let output = running.wait_with_output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert_eq!(lines[1], "31 91");
        assert_eq!(lines[0], lines[2], "the terminal's modes");
    });
}
