//! One probe of one target: a TCP connection, or an HTTP/1.1 GET over one.
//!
//! Everything a backend can make us do is bounded: by the check's timeout over connect, request
//! and response together, by the size of the response's head, and by [`MAX_BODY`].
//!
//! Probes close with a reset (`SO_LINGER` 0). An orderly close would leave a TIME_WAIT socket
//! here for each probe: at 10 000 checks a second that is 600 000, and a source address runs out
//! of ports toward a backend that is checked often. By then an HTTP response has been read as far
//! as it matters, and a TCP check has nothing to say, so nothing is lost by it.

use super::{Probe, Target};
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use nix::errno::Errno;
use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use tokio::net::{TcpSocket, TcpStream};

/// How far a body is read to find the wanted text, bytes.
const MAX_BODY: usize = 64 << 10;
/// Largest head of a response, bytes, and the number of its fields.
const MAX_HEAD: usize = 32 << 10;
const MAX_FIELDS: usize = 100;

const CUT_SHORT: &str = "connection closed before the response was complete";

/// What a probe found, with a reason for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Passed(String),
    Failed(String),
    /// This node could not probe, which says nothing about the target: no file descriptors, no
    /// memory.
    Inconclusive(String),
}

/// Probes `target` once, within its check's timeout.
pub async fn probe(target: &Target) -> Outcome {
    let timeout = target.check.timeout;
    let mut phase = "connecting";
    match tokio::time::timeout(timeout, attempt(target, &mut phase)).await {
        Ok(Ok(reason)) => Outcome::Passed(reason),
        Ok(Err(Fault::Target(reason))) => Outcome::Failed(reason),
        Ok(Err(Fault::Local(reason))) => Outcome::Inconclusive(reason),
        Err(_) => Outcome::Failed(format!("timeout after {} ms, {phase}", timeout.as_millis())),
    }
}

/// The probe without its timeout. `phase` is what it is doing, should that strike.
async fn attempt(target: &Target, phase: &mut &'static str) -> Result<String, Fault> {
    let stream = connect(target).await?;
    let (path, host, status, body) = match &target.check.probe {
        Probe::Tcp => return Ok("connected".to_owned()),
        Probe::Http { path, host, status, body } => (path, host, status, body),
    };
    *phase = "waiting for the response";
    let host = host.clone().unwrap_or_else(|| default_host(address_of(target)));
    let mut exchange = Exchange::begin(stream, path, &host).await?;
    exchange.expect_status(status)?;
    let found = format!("status {}", exchange.status());
    if let Some(body) = body {
        *phase = "reading the body";
        exchange.expect_body(body).await?;
    }
    Ok(found)
}

/// Why a probe did not pass, and whose fault it is.
enum Fault {
    Target(String),
    Local(String),
}

impl Fault {
    fn io(error: &io::Error) -> Self {
        let errno = error.raw_os_error().map(Errno::from_raw);
        match errno {
            Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                Self::Local(format!("cannot probe: {error}"))
            }
            Some(Errno::ECONNREFUSED) => Self::Target("connection refused".to_owned()),
            Some(Errno::ECONNRESET) => Self::Target("connection reset".to_owned()),
            Some(Errno::ENETUNREACH) => Self::Target("network unreachable".to_owned()),
            Some(Errno::EHOSTUNREACH) => Self::Target("no route to host".to_owned()),
            _ if error.kind() == io::ErrorKind::UnexpectedEof => Self::Target(CUT_SHORT.to_owned()),
            _ => Self::Target(error.to_string()),
        }
    }

    fn http(error: &hyper::Error) -> Self {
        if let Some(io) = error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
            return Self::io(io);
        }
        Self::Target(if error.is_incomplete_message() {
            CUT_SHORT.to_owned()
        } else if error.is_parse_too_large() {
            format!("the head of the response is larger than {} KiB", MAX_HEAD >> 10)
        } else if error.is_parse() {
            "the response is not HTTP".to_owned()
        } else {
            error.to_string()
        })
    }
}

fn address_of(target: &Target) -> SocketAddr {
    let mut address = target.address;
    if let Some(port) = target.check.port {
        address.set_port(port);
    }
    address
}

async fn connect(target: &Target) -> Result<TcpStream, Fault> {
    let address = address_of(target);
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.map_err(|error| Fault::io(&error))?;
    socket.set_zero_linger().map_err(|error| Fault::io(&error))?;
    if let Some(source) = target.source {
        socket.bind(SocketAddr::new(source, 0)).map_err(|error| match Fault::io(&error) {
            Fault::Target(reason) => Fault::Target(format!("source {source}: {reason}")),
            local @ Fault::Local(_) => local,
        })?;
    }
    socket.connect(address).await.map_err(|error| Fault::io(&error))
}

/// RFC 9110 §7.2: the port is left out if it is the scheme's.
fn default_host(address: SocketAddr) -> String {
    match (address, address.port()) {
        (SocketAddr::V4(v4), 80) => v4.ip().to_string(),
        (SocketAddr::V6(v6), 80) => format!("[{}]", v6.ip()),
        (address, _) => address.to_string(),
    }
}

/// A GET whose response's head has arrived.
struct Exchange {
    response: hyper::Response<Incoming>,
    connection: http1::Connection<TokioIo<TcpStream>, Empty<Bytes>>,
    /// The connection has ended; what it read before is still to be had.
    ended: bool,
}

impl Exchange {
    async fn begin(stream: TcpStream, path: &str, host: &str) -> Result<Self, Fault> {
        let request = Request::get(path)
            .header("Host", host)
            .header("User-Agent", concat!("dunlin/", env!("CARGO_PKG_VERSION")))
            .header("Accept", "*/*")
            .header("Connection", "close")
            .body(Empty::new())
            .map_err(|error| Fault::Target(format!("cannot ask for {path:?}: {error}")))?;
        let (mut sender, mut connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_FIELDS)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Fault::http(&error))?;
        let mut response = std::pin::pin!(sender.send_request(request));
        let mut ended = false;
        loop {
            tokio::select! {
                biased;
                response = &mut response => {
                    let response = response.map_err(|error| Fault::http(&error))?;
                    return Ok(Self { response, connection, ended });
                }
                // Its error, if any, reaches the response too, with what it means there.
                _ = &mut connection, if !ended => ended = true,
            }
        }
    }

    fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    fn expect_status(&self, expected: &[u16]) -> Result<(), Fault> {
        if expected.contains(&self.status()) {
            return Ok(());
        }
        let expected: Vec<_> = expected.iter().map(u16::to_string).collect();
        let expected = expected.join(" or ");
        Err(Fault::Target(format!("status {}, expected {expected}", self.status())))
    }

    /// Reads the body until it contains `wanted`, ends, or has reached [`MAX_BODY`].
    async fn expect_body(&mut self, wanted: &str) -> Result<(), Fault> {
        let mut body: Vec<u8> = Vec::new();
        loop {
            let frame = tokio::select! {
                biased;
                frame = self.response.body_mut().frame() => frame,
                _ = &mut self.connection, if !self.ended => {
                    self.ended = true;
                    continue;
                }
            };
            let Some(frame) = frame else {
                return Err(Fault::Target(format!("body does not contain {wanted:?}")));
            };
            let frame = frame.map_err(|error| Fault::http(&error))?;
            let Some(data) = frame.data_ref() else {
                continue;
            };
            // The text may begin in an earlier frame.
            let from = body.len().saturating_sub(wanted.len());
            body.extend(data.iter().take(MAX_BODY - body.len()));
            if contains(body.get(from..).unwrap_or_default(), wanted.as_bytes()) {
                return Ok(());
            }
            if body.len() >= MAX_BODY {
                let limit = MAX_BODY >> 10;
                let reason = format!("body does not contain {wanted:?} in its first {limit} KiB");
                return Err(Fault::Target(reason));
            }
        }
    }
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || text.windows(wanted.len()).any(|window| window == wanted)
}

#[cfg(test)]
mod tests;
