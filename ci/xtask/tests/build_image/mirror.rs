//! A Debian mirror of our own that has one file, and gives it as bad mirrors do.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What it does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// There is no such file.
    Absent,
    /// Half of the file, and then nothing.
    Stall,
    /// Half of the file, and the end.
    Cut,
    /// Other bytes, as many.
    Wrong,
    /// The file.
    Whole,
}

/// A mirror on a port of this machine, as long as this value lives.
pub(crate) struct Mirror {
    port: u16,
    shared: Arc<Shared>,
    server: Option<JoinHandle<()>>,
}

struct Shared {
    file: Vec<u8>,
    answer: Mutex<Answer>,
    requests: AtomicUsize,
    end: AtomicBool,
}

impl Mirror {
    pub(crate) fn of(file: Vec<u8>) -> Mirror {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            file,
            answer: Mutex::new(Answer::Whole),
            requests: AtomicUsize::new(0),
            end: AtomicBool::new(false),
        });
        let for_server = shared.clone();
        let server = thread::spawn(move || serve(&listener, &for_server));
        Mirror { port, shared, server: Some(server) }
    }

    /// From now on, and counts anew.
    pub(crate) fn answers(&self, answer: Answer) {
        *self.shared.answer.lock().unwrap() = answer;
        self.shared.requests.store(0, Ordering::SeqCst);
    }

    /// How many requests there were.
    pub(crate) fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// What apt would read of a machine that has this mirror: a directory for the place of `/etc/apt`.
    pub(crate) fn sources(&self, into: &Path) -> PathBuf {
        let apt = into.join("apt");
        fs::create_dir_all(&apt).unwrap();
        let line = format!("deb http://127.0.0.1:{}/debian stable main\n", self.port);
        fs::write(apt.join("sources.list"), line).unwrap();
        apt
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::SeqCst);
        let _wakes_it = TcpStream::connect(("127.0.0.1", self.port));
        self.server.take().map(JoinHandle::join);
    }
}

fn serve(listener: &TcpListener, shared: &Arc<Shared>) {
    for peer in listener.incoming() {
        if shared.end.load(Ordering::SeqCst) {
            return;
        }
        let shared = shared.clone();
        // A peer that goes away in the middle is what these tests are about.
        thread::spawn(move || drop(peer.and_then(|peer| answer(peer, &shared))));
    }
}

fn answer(mut peer: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let request = BufReader::new(peer.try_clone()?).lines();
    let _head: Vec<_> = request.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let (answer, file) = (*shared.answer.lock().unwrap(), &shared.file);
    if answer == Answer::Absent {
        shared.requests.fetch_add(1, Ordering::SeqCst);
        return peer.write_all(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    }
    write!(peer, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", file.len())?;
    let half = &file[..file.len() / 2];
    let sent = match answer {
        Answer::Wrong => peer.write_all(&vec![b'x'; file.len()]),
        Answer::Whole => peer.write_all(file),
        _ => peer.write_all(half),
    };
    // Whoever waits for a request waits for one that was answered.
    shared.requests.fetch_add(1, Ordering::SeqCst);
    while answer == Answer::Stall && !shared.end.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(50));
    }
    sent
}
