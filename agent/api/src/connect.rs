//! The handshake that asks for a port: "hybrid vsock", as Firecracker and Cloud Hypervisor speak it on their sockets.
//!
//! The side that connects writes `CONNECT <port>\n` and reads one line that begins with `OK`; raw bytes follow.
//! A port nobody serves ends in a closed stream. We use it on every transport, so that a client need not know which
//! one is under it: vhost-device-vsock answers it on its unix socket, the serial multiplexer at the head of each
//! yamux stream.

/// The longest line of a handshake, in bytes, its newline included. A longer one is not a handshake.
pub const MAX_LINE: usize = 32;

/// The line that asks for `port`.
pub fn request(port: u32) -> String {
    format!("CONNECT {port}\n")
}

/// The line that grants it.
pub fn grant(port: u32) -> String {
    format!("OK {port}\n")
}

/// The port a line asks for, without its newline; `None` if it is not a request.
///
/// One known peer writes the word in lower case.
pub fn parse_request(line: &str) -> Option<u32> {
    let (word, port) = line.split_once(' ')?;
    if !word.eq_ignore_ascii_case("CONNECT") || !port.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    port.parse().ok()
}

/// Whether a line grants a request. The number behind `OK` differs from one VMM to the next and means nothing.
pub fn is_grant(line: &str) -> bool {
    line.strip_prefix("OK").is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_back() {
        assert_eq!(parse_request(request(1024).trim_end()), Some(1024));
        assert_eq!(parse_request("connect 1026"), Some(1026));
        assert!(request(u32::MAX).len() <= MAX_LINE);
    }

    #[test]
    fn what_is_not_a_request_is_refused() {
        for line in ["", "CONNECT", "CONNECT ", "CONNECT -1", "CONNECT +7", "CONNECT 99999999999", "GET 1"] {
            let parsed = parse_request(line);
            assert_eq!(parsed, None, "{line:?}");
        }
    }

    #[test]
    fn a_grant_is_a_whole_word() {
        assert!(is_grant(grant(1024).trim_end()));
        assert!(is_grant("OK"));
        assert!(!is_grant("OKAY 1"));
        assert!(!is_grant("NO 1"));
    }
}
