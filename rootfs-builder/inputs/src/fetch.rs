//! Gets a pinned file from the machine's mirror: checked by size and sha256, kept in the cache, with every wait bounded. A
//! mirror that falls silent is given up after three times 30 seconds; `HUSK_DOWNLOAD_TIMEOUT` says how many else.
//! A file that nobody can pin, because it says what is newest, comes without either, and has to prove itself to its reader.

use std::{
    ffi::OsStr,
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use sha2::{Digest, Sha256};

use crate::{
    Archive, Cache, Key, Pin, Progress, Task,
    error::{Error, at},
    key::hex,
    mirror,
};

const ATTEMPTS: u32 = 3;
/// Longest silence of a mirror, before its answer and in the middle of it, in seconds.
const STALL: u64 = 30;
/// The variable that says another.
const STALL_VARIABLE: &str = "HUSK_DOWNLOAD_TIMEOUT";
/// Longest download, whatever its speed.
const WHOLE: Duration = Duration::from_secs(30 * 60);

/// The path of a local copy of `pin`, downloaded if the cache has none.
pub fn fetch(cache: &Cache, pin: &Pin, progress: &Progress) -> Result<PathBuf, Error> {
    let key = Key::new("download/v1").field("path", &pin.path).field("sha256", &pin.sha256);
    let file_name = pin.path.rsplit('/').next().unwrap_or_default();
    let entry = cache.build("downloads", &key, |into| {
        if cache.is_offline() {
            return Err(Error::Offline { what: format!("{pin} ({file_name})") });
        }
        let base = mirror::base(pin.archive)?;
        let (task, stall) = (progress.task(&pin.name), stall()?);
        retried(&task, || download(&base, pin, &into.join(file_name), stall, &task))
    })?;
    Ok(entry.join(file_name))
}

/// A file of an archive as it is now, no longer than `limit`. It is anybody's word until its reader has checked who
/// signed it.
pub fn fetch_current(
    archive: Archive,
    path: &str,
    limit: u64,
    progress: &Progress,
) -> Result<Vec<u8>, Error> {
    let base = mirror::base(archive)?;
    let file = Remote { base: &base, archive, path, called: path.to_owned(), stall: stall()? };
    let task = progress.task(path);
    task.doing("downloading");
    retried(&task, || {
        let mut bytes = Vec::new();
        file.receive(limit, |chunk| {
            bytes.extend(chunk);
            Ok(())
        })?;
        match bytes.len() as u64 > limit {
            true => Err(file.failed(format!("is longer than {limit} bytes"))),
            false => Ok(bytes),
        }
    })
}

/// How long a mirror may be silent.
fn stall() -> Result<Duration, Error> {
    let Some(value) = std::env::var_os(STALL_VARIABLE) else { return Ok(Duration::from_secs(STALL)) };
    seconds(&value).ok_or(Error::Timeout { variable: STALL_VARIABLE, value })
}

fn seconds(text: &OsStr) -> Option<Duration> {
    let seconds = text.to_str()?.parse().ok().filter(|seconds| *seconds > 0)?;
    Some(Duration::from_secs(seconds))
}

/// Tries again after a failure that may pass, and says so.
fn retried<T>(task: &Task, mut attempt: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let mut tries = 1;
    loop {
        match attempt() {
            Err(error) if tries < ATTEMPTS && may_pass(&error) => {
                task.doing(&format!("trying again: {error}"));
                thread::sleep(Duration::from_secs(2 * u64::from(tries)));
                tries += 1;
            }
            result => return result,
        }
    }
}

/// A full disk stays full, and what is not there does not come; a mirror may recover, and a truncated answer arrive whole
/// the next time.
fn may_pass(error: &Error) -> bool {
    matches!(error, Error::Download { absent: false, .. } | Error::Mismatch { .. })
}

fn download(base: &str, pin: &Pin, to: &Path, stall: Duration, task: &Task) -> Result<(), Error> {
    let remote = Remote { base, archive: pin.archive, path: &pin.path, called: pin.to_string(), stall };
    let mut file = File::create(to).map_err(at("create", to))?;
    let (mut size, mut digest) = (0, Sha256::new());
    task.bytes("downloading", 0, pin.size);
    remote.receive(pin.size, |chunk| {
        size += chunk.len() as u64;
        digest.update(chunk);
        task.bytes("downloading", size.min(pin.size), pin.size);
        file.write_all(chunk).map_err(at("write", to))
    })?;
    matches_pin(pin, size, &hex(&digest.finalize()))
}

/// A file of a mirror.
struct Remote<'a> {
    base: &'a str,
    archive: Archive,
    path: &'a str,
    /// What a person calls it.
    called: String,
    /// How long it may be silent.
    stall: Duration,
}

impl Remote<'_> {
    /// Gives the file's bytes to `take`, chunk by chunk. One that is longer than expected is not read to its end: the
    /// last chunk is the one that takes it beyond.
    fn receive(&self, expected: u64, mut take: impl FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        let response = agent(self.stall).get(format!("{}/{}", self.base, self.path)).call();
        let body = response.map_err(|e| self.refused(&e))?.into_body();
        let chunks = read_aside(body.into_reader());
        let mut size = 0;
        loop {
            let chunk = match chunks.recv_timeout(self.stall) {
                Ok(Ok(chunk)) if chunk.is_empty() => return Ok(()),
                Ok(Ok(chunk)) => chunk,
                Ok(Err(error)) => return Err(self.failed(error.to_string())),
                Err(_) => return Err(self.failed(format!("no data for {} s", self.stall.as_secs()))),
            };
            size += chunk.len() as u64;
            take(&chunk)?;
            if size > expected {
                return Ok(());
            }
        }
    }

    fn refused(&self, error: &ureq::Error) -> Error {
        let absent = matches!(error, ureq::Error::StatusCode(404 | 410));
        self.error(error.to_string(), absent)
    }

    fn failed(&self, cause: String) -> Error {
        self.error(cause, false)
    }

    fn error(&self, cause: String, absent: bool) -> Error {
        let (pin, path) = (self.called.clone(), self.path.to_owned());
        Error::Download { pin, path, archive: self.archive, cause, absent }
    }
}

fn matches_pin(pin: &Pin, size: u64, sha256: &str) -> Result<(), Error> {
    let mismatch = |what, actual, expected| Error::Mismatch {
        pin: pin.to_string(),
        path: pin.path.clone(),
        what,
        actual,
        expected,
    };
    if size != pin.size {
        return Err(mismatch("size", size.to_string(), pin.size.to_string()));
    }
    if sha256 != pin.sha256 {
        return Err(mismatch("sha256", sha256.to_owned(), pin.sha256.clone()));
    }
    Ok(())
}

/// Honours the proxy variables, and trusts what this machine trusts.
fn agent(stall: Duration) -> ureq::Agent {
    let tls = ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::PlatformVerifier).build();
    let config = ureq::Agent::config_builder()
        .tls_config(tls)
        .timeout_resolve(Some(stall))
        .timeout_connect(Some(stall))
        .timeout_recv_response(Some(stall))
        .timeout_recv_body(Some(WHOLE))
        .user_agent("husk")
        .build();
    config.into()
}

/// Reads on a thread of its own, so that the reader's silence can be timed. An empty chunk is the end. The thread ends
/// with the file, with the connection's deadline, or with the first chunk nobody waits for.
fn read_aside(mut body: impl Read + Send + 'static) -> mpsc::Receiver<std::io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::sync_channel(16);
    thread::spawn(move || {
        loop {
            let mut chunk = vec![0; 256 * 1024];
            let read = body.read(&mut chunk);
            let last = !matches!(read, Ok(n) if n > 0);
            let message = read.map(|n| {
                chunk.truncate(n);
                chunk
            });
            if sender.send(message).is_err() || last {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        net::TcpListener,
    };

    use super::*;

    /// The digest of "abc".
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn pin() -> Pin {
        Pin {
            name: "p".into(),
            version: "1".into(),
            archive: Archive::Debian,
            path: "pool/p.deb".into(),
            size: 3,
            sha256: ABC.into(),
        }
    }

    /// A mirror that answers one request with `response`, and its address.
    fn mirror(response: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}/debian", listener.local_addr().unwrap());
        thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            let request = BufReader::new(peer.try_clone().unwrap()).lines();
            let _head: Vec<_> = request.map_while(Result::ok).take_while(|l| !l.is_empty()).collect();
            peer.write_all(response.as_bytes()).unwrap();
        });
        base
    }

    fn get(response: &'static str) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("f");
        let task = Progress::silent().task("t");
        download(&mirror(response), &pin(), &to, Duration::from_secs(STALL), &task)
            .map_err(|e| e.to_string())?;
        Ok(std::fs::read_to_string(to).unwrap())
    }

    #[test]
    fn the_pinned_bytes_are_taken() {
        assert_eq!(get("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc").unwrap(), "abc");
    }

    #[test]
    fn other_bytes_are_refused() {
        let error = get("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabd").unwrap_err();
        assert!(error.starts_with("download p 1: /pool/p.deb: sha256 is "), "{error}");
        let error = get("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd").unwrap_err();
        assert_eq!(error, "download p 1: /pool/p.deb: size is 4, the pin says 3");
        let error = get("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab").unwrap_err();
        assert_eq!(error, "download p 1: /pool/p.deb: size is 2, the pin says 3");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = get("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").unwrap_err();
        assert_eq!(error, "download p 1: /pool/p.deb from the debian mirror: http status: 404");
        let error = get("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n").unwrap_err();
        assert!(error.starts_with("download p 1: /pool/p.deb from the debian mirror: "), "{error}");
    }

    #[test]
    fn a_cut_connection_is_an_error() {
        let error = get("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab").unwrap_err();
        assert!(error.starts_with("download p 1: /pool/p.deb from the debian mirror: "), "{error}");
    }

    #[test]
    fn offline_only_the_cache_answers() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap().offline(true);
        let error = fetch(&cache, &pin(), &Progress::silent()).unwrap_err().to_string();
        assert_eq!(error, "offline: p 1 (p.deb) is not in the cache: build once without --offline");
        let key = Key::new("download/v1").field("path", &pin().path).field("sha256", &pin().sha256);
        let fill = |into: &Path| std::fs::write(into.join("p.deb"), "abc").map_err(at("write", into));
        cache.build("downloads", &key, fill).unwrap();
        assert!(fetch(&cache, &pin(), &Progress::silent()).unwrap().ends_with("p.deb"));
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let mut tries = 0;
        let lasting = || at("write", "/x")(std::io::Error::other("full"));
        assert!(
            retried(&Progress::silent().task("t"), || {
                tries += 1;
                Err::<(), _>(lasting())
            })
            .is_err()
        );
        assert_eq!(tries, 1);
        let refused = |response| {
            let dir = tempfile::tempdir().unwrap();
            let task = Progress::silent().task("t");
            let to = dir.path().join("f");
            download(&mirror(response), &pin(), &to, Duration::from_secs(STALL), &task).unwrap_err()
        };
        assert!(!may_pass(&refused("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")));
        assert!(may_pass(&refused("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")));
    }

    #[test]
    fn a_timeout_is_a_number_of_seconds() {
        assert_eq!(seconds("5".as_ref()), Some(Duration::from_secs(5)));
        for odd in ["", "0", "-1", "1.5", "5s"] {
            assert_eq!(seconds(odd.as_ref()), None, "{odd}");
        }
    }

    #[test]
    fn a_mirror_that_falls_silent_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}/debian", listener.local_addr().unwrap());
        let (to_end, end) = mpsc::channel::<()>();
        let server = thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na").unwrap();
            end.recv().unwrap_err();
        });
        let dir = tempfile::tempdir().unwrap();
        let (task, stall) = (Progress::silent().task("t"), Duration::from_secs(1));
        let error = download(&base, &pin(), &dir.path().join("f"), stall, &task).unwrap_err().to_string();
        assert_eq!(error, "download p 1: /pool/p.deb from the debian mirror: no data for 1 s");
        drop(to_end);
        server.join().unwrap();
    }
}
