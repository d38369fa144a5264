//! How a program ends: exit codes, and programs that cannot run.

use e2e::test;

#[test]
fn an_exit_code_is_the_programs_own() {
    test(async |guest| {
        for code in [0, 1, 7, 255] {
            let done = guest.container(&format!("c{code}")).sh(&format!("exit {code}")).run().await;
            assert_eq!(done.status, code);
        }
    });
}
