//! The conversation, with somebody at the other end who answers wrongly or not at all. Scopes of a real systemd are in
//! `tests/contained/systemd.rs`.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Instant;

use super::*;

const SHORT: Duration = Duration::from_millis(300);

/// A socket of its own for each test, which goes with it.
struct Peer(PathBuf, UnixListener);

impl Peer {
    fn new(name: &str) -> Peer {
        let path = std::env::temp_dir().join(format!("husk-bus-{name}-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        Peer(path, listener)
    }

    fn connect(&self) -> Result<Bus, Error> {
        Bus::connect(&self.0, "start c1.scope".to_owned(), SHORT)
    }

    /// Lets one in, and says this after its call.
    fn answer(&self, after_call: Vec<u8>) -> std::thread::JoinHandle<UnixStream> {
        let listener = self.1.try_clone().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut heard = [0; 4096];
            let read = stream.read(&mut heard).unwrap();
            assert!(heard[..read].starts_with(b"\0AUTH EXTERNAL 3"), "{:?}", &heard[..read]);
            stream.write_all(b"OK 0123456789abcdef0123456789abcdef\r\n").unwrap();
            let mut all: Vec<u8> = Vec::new();
            while !all.windows(7).any(|part| part == b"GetUnit") {
                let read = stream.read(&mut heard).unwrap();
                all.extend(&heard[..read]);
            }
            stream.write_all(&after_call).unwrap();
            stream
        })
    }

    fn ask(&self) -> Result<String, Error> {
        let mut bus = self.connect()?;
        let answer = bus.call("GetUnit", Arguments::default().text("c1.scope"))?;
        answer.object().map_err(|source| bus.malformed(source))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

const ERROR: &[u8] = include_bytes!("../../../../fuzz/seeds/systemd/error");
const OBJECT: &[u8] = include_bytes!("../../../../fuzz/seeds/systemd/object");
const JOB_REMOVED: &[u8] = include_bytes!("../../../../fuzz/seeds/systemd/job_removed");

/// The object, as an answer to the first call.
fn object() -> Vec<u8> {
    let mut answer = OBJECT.to_vec();
    answer[20] = 1;
    answer
}

#[test]
fn nobody_there_is_said_at_once() {
    let error =
        Bus::connect(Path::new("/nonexistent/bus"), "start c1.scope".to_owned(), SHORT).err().unwrap();
    let wanted = "systemd: start c1.scope: connect to \"/nonexistent/bus\": ";
    assert!(error.to_string().starts_with(wanted), "{error}");
}

#[test]
fn one_that_never_answers_is_given_up_in_time() {
    let peer = Peer::new("dead");
    let begun = Instant::now();
    let error = peer.connect().err().unwrap().to_string();
    assert_eq!(error, "systemd: start c1.scope: not done after 300ms");
    drop(peer.1.accept().unwrap());
    // Nor one that is silent after the call.
    let answer = peer.answer(Vec::new());
    assert!(matches!(peer.ask(), Err(Error::Deadline { .. })));
    drop(answer.join().unwrap());
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn one_whose_queue_is_full_is_given_up_in_time() {
    let peer = Peer::new("full");
    nix::sys::socket::listen(&peer.1, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let waiting = UnixStream::connect(&peer.0).unwrap();
    let begun = Instant::now();
    let error = peer.connect().err().unwrap();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
    assert!(begun.elapsed() >= SHORT && begun.elapsed() < Duration::from_secs(5));
    drop(waiting);
}

#[test]
fn an_error_is_told_by_its_name_and_text() {
    let peer = Peer::new("error");
    let answer = peer.answer(ERROR.to_vec());
    let error = peer.ask().unwrap_err();
    answer.join().unwrap();
    assert!(error.is_no_such_unit());
    let wanted =
        "systemd: start c1.scope: org.freedesktop.systemd1.NoSuchUnit: Unit nosuch.scope not loaded.";
    assert_eq!(error.to_string(), wanted);
}

#[test]
fn what_is_said_in_between_is_passed_over() {
    let peer = Peer::new("signals");
    let answer = peer.answer([JOB_REMOVED, JOB_REMOVED, &object()].concat());
    assert_eq!(peer.ask().unwrap(), "/org/freedesktop/systemd1/unit/init_2escope");
    answer.join().unwrap();
}

#[test]
fn a_job_may_end_before_its_call_is_answered() {
    let peer = Peer::new("job");
    for (said, wanted) in
        [("done", None), ("fail", Some("systemd: start c1.scope: its job is not done but fail"))]
    {
        let mut ended = JOB_REMOVED.to_vec();
        let at = ended.len() - 5;
        ended[at..at + 4].copy_from_slice(said.as_bytes());
        let mut answer = OBJECT[..72].to_vec();
        answer[4] = 0x26;
        answer[20] = 1;
        answer.extend(b"\x21\0\0\0/org/freedesktop/systemd1/job/194\0");
        let peer_said = peer.answer([ended, answer].concat());
        let mut bus = peer.connect().unwrap();
        let ran = bus.run("GetUnit", Arguments::default().text("c1.scope"));
        assert_eq!(ran.err().map(|error| error.to_string()).as_deref(), wanted);
        peer_said.join().unwrap();
    }
}

#[test]
fn one_that_hangs_up_or_talks_nonsense_is_an_error() {
    let peer = Peer::new("nonsense");
    let answer = peer.answer(OBJECT[..40].to_vec());
    let asked = std::thread::scope(|scope| {
        let asked = scope.spawn(|| peer.ask());
        drop(answer.join().unwrap());
        asked.join().unwrap()
    });
    assert!(matches!(asked, Err(Error::Talk { .. })), "{asked:?}");
    let answer = peer.answer(b"HTTP/1.1 400 Bad Request\r\n".to_vec());
    let error = peer.ask().unwrap_err().to_string();
    answer.join().unwrap();
    assert_eq!(error, "systemd: start c1.scope: an answer with neither of the two byte orders at byte 0");
}

#[test]
fn nothing_is_told_of_what_has_no_property() {
    // Nobody is asked, so nobody need be there.
    let scope = Scope::parse("a.slice:b:c").unwrap().unwrap();
    let file = "hugetlb.2MB.max".to_owned();
    scope.set(&[Setting { file, value: "5".to_owned(), optional: false }], &|_| None).unwrap();
}
