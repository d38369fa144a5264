//! Random sequences of calls, in wrong states and with wrong ids too, against a model of what each answers. Afterwards
//! nothing is left of any of them.
//!
//! `HUSK_MODEL_CASES` says how many sequences (30), `HUSK_MODEL_SEED` which ones (a number; the same each time without).

mod calls;
mod expectation;
mod state;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use agent_api::agent::DestroySandboxRequest;
use e2e::{Boot, Guest, Traces, Watch};
use proptest::collection::vec;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use ttrpc::context;

use calls::{Call, call};
use expectation::Expectation;
use state::State;

/// Sequences without `HUSK_MODEL_CASES`, and how long they may take: what is not done by then is left out.
const CASES: u64 = 30;
const TIME: Duration = Duration::from_secs(60);

/// How often a failing sequence is made shorter.
const SHRINKS: u32 = 60;

#[test]
fn any_sequence_of_calls_is_answered_as_the_model_says_and_leaves_nothing() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let cases = number("HUSK_MODEL_CASES");
    let seed = number("HUSK_MODEL_SEED").unwrap_or(1);
    // A second or two a sequence, far less on a machine with nothing else to do.
    let limit = Duration::from_secs(120 + cases.unwrap_or(0) * 5);
    Boot::new().limit(limit).test(async |guest| {
        let mut runner = runner(seed);
        let watch = guest.watch().await;
        // What the first container of all makes once and for all is made.
        assert_eq!(run(guest, &watch, &settled(), None).await, Ok(()));
        let before = watch.look().await;
        let (begun, mut done) = (Instant::now(), 0);
        while done < cases.unwrap_or(CASES) && (cases.is_some() || begun.elapsed() < TIME) {
            let mut tree = vec(call(), 1..16).new_tree(&mut runner).expect("sequences can be made");
            if let Err(failure) = run(guest, &watch, &tree.current(), Some(&before)).await {
                panic!(
                    "sequence {done} of seed {seed}: {}",
                    shrink(guest, &watch, &before, &mut tree, failure).await
                );
            }
            done += 1;
        }
        println!("{done} sequences of seed {seed} in {:?}", begun.elapsed());
        ends_with_whatever_there_is(guest, &mut runner).await;
    });
}

/// The last sequence is not cleaned up by us but by `DestroySandbox`, which also ends the VM, and in order.
async fn ends_with_whatever_there_is(guest: &Guest, runner: &mut TestRunner) {
    let calls = vec(call(), 12).new_tree(runner).expect("sequences can be made").current();
    let mut state = State::default();
    for call in &calls {
        carry_out(guest, &mut state, call).await.unwrap_or_else(|failure| panic!("{failure}: {calls:#?}"));
    }
    let (agent, ctx) = (guest.agent(), context::with_duration(Duration::from_secs(60)));
    let destroyed = agent.service().destroy_sandbox(ctx, &DestroySandboxRequest::new()).await;
    assert!(destroyed.is_ok(), "{destroyed:?} after {calls:#?}");
    let gone = tokio::time::timeout(Duration::from_secs(20), guest.vm().fate().gone()).await;
    let gone = gone.expect("QEMU exits by itself").to_string();
    assert!(!gone.contains("panic"), "{gone} after {calls:#?}");
    guest.abandon_all();
}

fn runner(seed: u64) -> TestRunner {
    let seed: Vec<u8> = seed.to_le_bytes().into_iter().cycle().take(32).collect();
    TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
}

/// A container that is made and goes.
fn settled() -> Vec<Call> {
    use calls::Program;
    vec![
        Call::Create { container: 0, program: Program::Sleep, storage: Some(0) },
        Call::Start(0),
        Call::Exec { container: 0, process: 0, program: Program::Fail },
    ]
}

/// Makes every call, then removes what there is, then looks for what is left.
async fn run(
    guest: &Guest,
    watch: &Watch<'_>,
    calls: &[Call],
    before: Option<&Traces>,
) -> Result<(), String> {
    let mut state = State::default();
    let mut outcome = Ok(());
    for (position, call) in calls.iter().enumerate() {
        outcome = carry_out(guest, &mut state, call).await;
        if let Err(failure) = &mut outcome {
            write!(failure, ", in call {position}").expect("a String takes everything");
            break;
        }
    }
    // Whatever the model thinks: what there is goes, so that the next sequence has the same start.
    let mut removed = Ok(());
    for container in 0..calls::CONTAINERS {
        let answer = Call::Remove { container, timeout: 0 }.make(guest, calls::LONG).await;
        if state.exists(container) && removed.is_ok() {
            removed = Expectation::Ok
                .meets(&answer)
                .map_err(|why| format!("removing container {container}: {why}"));
        }
    }
    outcome.and(removed)?;
    let Some(before) = before else { return Ok(()) };
    let left = watch.left_since(before).await;
    if left.is_empty() { Ok(()) } else { Err(format!("left behind: {left:#?}")) }
}

/// Makes one call, compares its answer with what the model says, and lets both come to rest.
async fn carry_out(guest: &Guest, state: &mut State, call: &Call) -> Result<(), String> {
    let expected = state.expects(call);
    let limit = match expected {
        Expectation::Skip => return Ok(()),
        Expectation::Blocks => calls::SHORT,
        _ => calls::LONG,
    };
    let answer = call.make(guest, limit).await;
    expected.meets(&answer).map_err(|why| format!("{call:?}: {why}"))?;
    state.after(call, answer.is_ok());
    let Some((container, processes)) = state.unsettled() else { return Ok(()) };
    calls::settle(guest, container, processes).await.map_err(|why| format!("after {call:?}: {why}"))
}

/// The shortest sequence found that fails too.
async fn shrink(
    guest: &Guest,
    watch: &Watch<'_>,
    before: &Traces,
    tree: &mut impl ValueTree<Value = Vec<Call>>,
    failure: String,
) -> String {
    let mut shortest = (failure, tree.current());
    // What one sequence left is there for all that follow, and no shorter one would tell more.
    let stays = run(guest, watch, &[], Some(before)).await.is_err();
    let mut shorter = !stays && tree.simplify();
    for _ in 0..SHRINKS {
        if !shorter {
            break;
        }
        let calls = tree.current();
        shorter = match run(guest, watch, &calls, Some(before)).await {
            Err(failure) => {
                shortest = (failure, calls);
                tree.simplify()
            }
            Ok(()) => tree.complicate(),
        };
    }
    format!("{}\n{:#?}", shortest.0, shortest.1)
}
