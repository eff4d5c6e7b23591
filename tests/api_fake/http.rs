//! Just enough HTTP to say it wrong.

use dunlin::api::model::ErrorBody;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longest that any answer may take here, bar those that a test makes slow.
pub const PROMPT: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// In lower case.
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn error(&self) -> ErrorBody {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

pub fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).expect("the server listens");
    stream.set_read_timeout(Some(PROMPT)).expect("timeout");
    stream
}

/// Send bytes; what comes back until the server closes.
pub fn raw(socket: &Path, request: &[u8]) -> Vec<u8> {
    let mut stream = connect(socket);
    // The server may refuse and close before it has read everything.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("no end of answer"),
        _ => answer,
    }
}

pub fn ask(socket: &Path, method: &str, path: &str, body: &str) -> Answer {
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
    if !body.is_empty() || method == "POST" {
        let _ = write!(request, "content-length: {}\r\n", body.len());
    }
    request.push_str("\r\n");
    request.push_str(body);
    parse(&raw(socket, request.as_bytes()))
}

pub fn parse(answer: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Answer {
        status: status.unwrap_or_else(|| panic!("not HTTP: {text:?}")),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}
