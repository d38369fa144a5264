//! Ids of processes and containers, and waiting for them.

use std::time::Duration;

use agent_api::agent::StatsContainerRequest;
use e2e::{Guest, Process, code, test};
use husk::agent::{Error, Stream};
use ttrpc::{Code, context};

#[test]
fn the_empty_id_and_the_containers_both_mean_the_first_process() {
    test(async |guest| {
        let container = guest.container("c1").args(&["cat"]).start().await;
        let (by_nothing, by_name) = (container.init(), container.init().by_id(container.id()));
        by_name.write(b"one").await;
        assert_eq!(by_nothing.read(3).await, b"one");
        by_nothing.write(b"two").await;
        assert_eq!(by_name.read(3).await, b"two");
        by_name.close_stdin().await;
        assert_eq!(by_nothing.read(1).await, b"");
        assert_eq!(by_name.wait().await, 0);
    });
}

#[test]
fn all_who_wait_are_told_and_later_ones_hear_not_found() {
    test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        let process = container.exec(&["sh", "-c", "sleep 0.5; exit 6"]).start().await;
        let waits = tokio::join!(process.wait(), process.wait(), process.wait());
        assert_eq!(waits, (6, 6, 6));
        assert_eq!(code(&at_once(process.try_wait()).await), Code::NOT_FOUND);

        let by_name = container.init().by_id(container.id());
        let kill = async {
            // Both must be waiting by then: the record goes with the first answer.
            tokio::time::sleep(Duration::from_millis(500)).await;
            container.init().signal(9).await;
        };
        let waits = tokio::join!(container.init().wait(), by_name.wait(), kill);
        assert_eq!(waits, (137, 137, ()));
        assert_eq!(code(&at_once(container.init().try_wait()).await), Code::NOT_FOUND);
    });
}

#[test]
fn an_unknown_process_is_not_found() {
    test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        let nobody = container.init().by_id("nobody");
        assert_eq!(
            codes_of(&nobody).await,
            [
                ("WaitProcess", Code::NOT_FOUND),
                ("SignalProcess", Code::NOT_FOUND),
                ("ReadStdout", Code::NOT_FOUND),
                ("ReadStderr", Code::NOT_FOUND),
                ("TtyWinResize", Code::NOT_FOUND),
                ("WriteStdin", Code::INTERNAL),
            ]
        );
    });
}

#[test]
fn an_unknown_container_is_an_invalid_argument_or_internal() {
    test(async |guest| {
        let gone = gone(guest).await;
        assert_eq!(
            codes_of(&gone).await,
            [
                ("WaitProcess", Code::INVALID_ARGUMENT),
                ("SignalProcess", Code::INVALID_ARGUMENT),
                ("ReadStdout", Code::INVALID_ARGUMENT),
                ("ReadStderr", Code::INVALID_ARGUMENT),
                ("TtyWinResize", Code::INVALID_ARGUMENT),
                ("WriteStdin", Code::INTERNAL),
            ]
        );
        let (id, agent) = (&gone.target().container, guest.agent());
        assert_eq!(code(&gone.try_signal(9).await), Code::INTERNAL, "the way that kills all");
        assert_eq!(code(&agent.start_container(id).await), Code::INTERNAL);
        assert_eq!(code(&agent.remove_container(id).await), Code::INTERNAL);
        let request = StatsContainerRequest { container_id: id.clone(), ..Default::default() };
        let stats = agent.service().stats_container(context::with_duration(e2e::LIMIT), &request).await;
        assert_eq!(status_of(stats), Code::INVALID_ARGUMENT);
    });
}

#[test]
fn ids_that_could_lead_elsewhere_are_refused() {
    test(async |guest| {
        for id in ["", "a", "../up", "a/b", ".hidden", "-dash", "a b", "a\n", "ä1"] {
            let named = guest.container("c1").request(|request| request.container_id = id.into());
            assert_eq!(code(&named.try_create().await), Code::INTERNAL, "{id:?}");
        }
    });
}

#[test]
fn a_second_container_of_a_name_is_refused_and_the_first_goes_on() {
    test(async |guest| {
        let first = guest.container("same").args(&["cat"]).start().await;
        let second = guest.container("same").sh("true").try_create().await;
        assert_eq!(code(&second), Code::INTERNAL);
        first.init().write(b"still here").await;
        assert_eq!(first.init().read(100).await, b"still here");
        assert_eq!(first.sh("cat /etc/passwd | head -n 1 | cut -d: -f1").await, "root");
        first.init().close_stdin().await;
        assert_eq!(first.init().wait().await, 0);
        first.remove().await;
        guest.container("same").sh("true").run().await.ok();
    });
}

/// The first process of a container that was removed.
async fn gone(guest: &Guest) -> Process {
    let container = guest.container("gone").args(&["sleep", "1000"]).start().await;
    let process = container.init().clone();
    container.remove().await;
    process
}

/// What the calls about one process answer.
async fn codes_of(process: &Process) -> [(&'static str, Code); 6] {
    [
        ("WaitProcess", code(&at_once(process.try_wait()).await)),
        ("SignalProcess", code(&process.try_signal(15).await)),
        ("ReadStdout", status_of(process.try_read(Stream::Stdout, 1).await)),
        ("ReadStderr", status_of(process.try_read(Stream::Stderr, 1).await)),
        ("TtyWinResize", code(&process.try_resize(24, 80).await)),
        ("WriteStdin", code(&process.try_write(b"x").await)),
    ]
}

fn status_of<T: std::fmt::Debug>(result: ttrpc::Result<T>) -> Code {
    match result {
        Err(ttrpc::Error::RpcStatus(status)) => status.code(),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

async fn at_once(wait: impl Future<Output = Result<i32, Error>>) -> Result<i32, Error> {
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("the answer comes at once")
}
