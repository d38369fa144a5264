//! How programs end, and programs that cannot run.

use e2e::{code, test};
use ttrpc::Code;

#[test]
fn an_exit_code_is_the_programs_own() {
    test(async |guest| {
        for exit in [0, 1, 126, 127, 255] {
            let done = guest.container(&format!("c{exit}")).sh(&format!("exit {exit}")).run().await;
            assert_eq!(done.status, exit);
        }
    });
}

#[test]
fn a_program_that_a_signal_killed_has_128_and_the_signal() {
    test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        for (signal, status) in [("KILL", 137), ("TERM", 143), ("SEGV", 139)] {
            let done = container.exec(&["sh", "-c", &format!("kill -{signal} $$")]).run().await;
            assert_eq!(done.status, status, "{signal}");
        }
    });
}

#[test]
fn a_program_that_cannot_run_is_named_with_the_cause() {
    let cases = [
        (["nosuch"], "exec: \"nosuch\": no such file or directory"),
        (["/no/such"], "exec: \"/no/such\": no such file or directory"),
        (["/etc/passwd"], "exec: \"/etc/passwd\": permission denied"),
        (["/etc"], "exec: \"/etc\": permission denied"),
    ];
    test(async |guest| {
        let running = guest.container("running").args(&["sleep", "1000"]).start().await;
        for (args, text) in cases {
            let first = guest.container("c1").args(&args).try_start().await;
            assert_eq!(code(&first), Code::INTERNAL);
            assert!(first.unwrap_err().to_string().ends_with(text), "{text}");
            let further = running.exec(&args).try_start().await;
            assert_eq!(code(&further), Code::INTERNAL);
            assert!(further.unwrap_err().to_string().ends_with(text), "{text}");
        }
        assert_eq!(running.sh("echo fine").await, "fine");
        // Nothing of the failed ones stands in the way of the next.
        guest.container("c1").sh("true").run().await.ok();
    });
}

#[test]
fn a_file_that_is_no_program_is_an_error_not_a_hang() {
    test(async |guest| {
        guest
            .container("make")
            .sh("mkdir -p /work && echo garbage > /work/bad && chmod 755 /work/bad")
            .run()
            .await
            .ok();
        let refused = guest.container("c1").args(&["/work/bad"]).try_start().await;
        assert_eq!(code(&refused), Code::INTERNAL);
        assert!(refused.unwrap_err().to_string().contains("/work/bad"));
    });
}
