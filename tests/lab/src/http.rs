//! A client: HTTP requests at a steady rate, each on a connection of its own, and long downloads.
//!
//! Every request's fate is kept, so that a test can say exactly which were lost and when.
//! Requests start on schedule whether or not earlier ones have finished (an open loop): a stall
//! shows as slow or failed requests, never as fewer of them.

use crate::netns::Netns;
use anyhow::{Result, bail};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Most of an answer that is read.
const LIMIT: usize = 64 * 1024;

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    Refused,
    Reset,
    Timeout,
    /// Closed before a whole answer.
    Short,
    Status(u16),
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("refused"),
            Self::Reset => f.write_str("reset"),
            Self::Timeout => f.write_str("timed out"),
            Self::Short => f.write_str("cut short"),
            Self::Status(code) => write!(f, "status {code}"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Self {
        match e.kind() {
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
                Self::Reset
            }
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Self::Timeout,
            ErrorKind::UnexpectedEof => Self::Short,
            _ => Self::Other(e.to_string()),
        }
    }
}

/// One request and what came of it.
#[derive(Debug, Clone)]
pub struct Request {
    pub target: SocketAddr,
    pub started: Instant,
    pub latency: Duration,
    /// The backend that answered.
    pub outcome: Result<String, Failure>,
}

/// What a load consists of.
#[derive(Debug, Clone)]
pub struct Load {
    /// Asked in turn.
    pub targets: Vec<SocketAddr>,
    /// Requests per second, all targets together.
    pub rate: u32,
    /// A request not answered within this is lost.
    pub timeout: Duration,
}

impl Load {
    /// Start it from `ns`.
    pub fn start(self, ns: &Netns) -> Result<RunningLoad> {
        anyhow::ensure!(!self.targets.is_empty() && self.rate > 0, "an empty load");
        // Enough hands that every request starts on time even when half of them time out.
        let hands = (f64::from(self.rate) * self.timeout.as_secs_f64() / 2.0).ceil() as usize;
        let shared = Arc::new(Shared {
            load: self,
            start: Instant::now(),
            next: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            results: Mutex::new(Vec::new()),
        });
        let threads = (0..hands.clamp(4, 256))
            .map(|_| {
                let shared = shared.clone();
                ns.thread("load", move || shared.work())
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(RunningLoad { shared, threads })
    }
}

#[derive(Debug)]
struct Shared {
    load: Load,
    start: Instant,
    next: AtomicU64,
    stop: AtomicBool,
    results: Mutex<Vec<Request>>,
}

impl Shared {
    fn work(&self) {
        loop {
            let ticket = self.next.fetch_add(1, Ordering::Relaxed);
            let due = Duration::from_secs_f64(ticket as f64 / f64::from(self.load.rate));
            let due = self.start + due;
            loop {
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                let left = due.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                std::thread::sleep(left.min(Duration::from_millis(50)));
            }
            let target = self.load.targets[ticket as usize % self.load.targets.len()];
            let request = get(target, "/", self.load.timeout);
            self.results.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        }
    }
}

/// A load under way. Dropping it ends it.
#[derive(Debug)]
pub struct RunningLoad {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl RunningLoad {
    /// The requests finished so far.
    pub fn so_far(&self) -> Report {
        let results = self.shared.results.lock();
        Report { requests: results.unwrap_or_else(PoisonError::into_inner).clone() }
    }

    /// Start no more requests, wait for those under way, and report.
    pub fn stop(mut self) -> Report {
        self.end();
        self.so_far()
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for RunningLoad {
    fn drop(&mut self) {
        self.end();
    }
}

/// Requests and their fates.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub requests: Vec<Request>,
}

impl Report {
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// How many were answered.
    pub fn ok(&self) -> usize {
        self.requests.iter().filter(|r| r.outcome.is_ok()).count()
    }

    /// Answers by backend.
    pub fn by_backend(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for backend in self.requests.iter().filter_map(|r| r.outcome.as_ref().ok()) {
            *counts.entry(backend.clone()).or_default() += 1;
        }
        counts
    }

    /// Lost requests by reason.
    pub fn failures(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for failure in self.requests.iter().filter_map(|r| r.outcome.as_ref().err()) {
            *counts.entry(failure.to_string()).or_default() += 1;
        }
        counts
    }

    /// Those started in `from..to`.
    pub fn between(&self, from: Instant, to: Instant) -> Self {
        let chosen = self.requests.iter();
        Self { requests: chosen.filter(|r| (from..to).contains(&r.started)).cloned().collect() }
    }

    /// Those started at `from` or later.
    pub fn after(&self, from: Instant) -> Self {
        let chosen = self.requests.iter();
        Self { requests: chosen.filter(|r| r.started >= from).cloned().collect() }
    }

    /// Those to one family of targets.
    pub fn to(&self, target: SocketAddr) -> Self {
        let chosen = self.requests.iter();
        Self { requests: chosen.filter(|r| r.target == target).cloned().collect() }
    }

    /// A quantile (0.0 to 1.0) of the latency of answered requests.
    pub fn latency(&self, quantile: f64) -> Duration {
        let answered = self.requests.iter().filter(|r| r.outcome.is_ok());
        let mut all: Vec<_> = answered.map(|r| r.latency).collect();
        all.sort_unstable();
        let last = all.len().saturating_sub(1);
        let at = (quantile.clamp(0.0, 1.0) * last as f64).round() as usize;
        all.get(at).copied().unwrap_or_default()
    }
}

/// One request on a connection of its own, from the calling thread's namespace.
pub fn get(target: SocketAddr, path: &str, timeout: Duration) -> Request {
    let started = Instant::now();
    let outcome = exchange(target, path, started + timeout);
    Request { target, started, latency: started.elapsed(), outcome }
}

fn exchange(target: SocketAddr, path: &str, deadline: Instant) -> Result<String, Failure> {
    let mut stream = open(target, path, deadline)?;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut chunk)? {
            0 => break,
            n if answer.len() + n > LIMIT => return Err(Failure::Other("too long".into())),
            n => answer.extend_from_slice(&chunk[..n]),
        }
    }
    let head = Head::parse(&answer)?.ok_or(Failure::Short)?;
    if head.status != 200 {
        return Err(Failure::Status(head.status));
    }
    if answer.len() - head.len != head.body {
        return Err(Failure::Short);
    }
    Ok(head.backend)
}

fn open(target: SocketAddr, path: &str, deadline: Instant) -> Result<TcpStream, Failure> {
    let mut stream = TcpStream::connect_timeout(&target, left(deadline)?)?;
    stream.set_write_timeout(Some(left(deadline)?))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    Ok(stream)
}

fn left(deadline: Instant) -> Result<Duration, Failure> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Failure::Timeout);
    }
    Ok(left)
}

/// The head of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    backend: String,
    /// Bytes of the head itself.
    len: usize,
    /// Content-Length.
    body: usize,
}

impl Head {
    /// `None`: not all there yet.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, Failure> {
        let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
            return Ok(None);
        };
        let bad = || Failure::Other("not an HTTP answer".into());
        let text = std::str::from_utf8(&bytes[..end]).map_err(|_| bad())?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|l| l.strip_prefix("HTTP/1.1 "));
        let status = status.and_then(|l| l.get(..3)).and_then(|l| l.parse().ok());
        let mut head =
            Self { status: status.ok_or_else(bad)?, backend: String::new(), len: end + 4, body: 0 };
        for (name, value) in lines.filter_map(|l| l.split_once(':')) {
            match name.to_ascii_lowercase().as_str() {
                "content-length" => head.body = value.trim().parse().map_err(|_| bad())?,
                "x-backend" => value.trim().clone_into(&mut head.backend),
                _ => {}
            }
        }
        Ok(Some(head))
    }
}

/// The byte at `at` of every file the lab's backends serve for download.
pub fn pattern(at: usize) -> u8 {
    (at % 251) as u8
}

/// A long download under way.
#[derive(Debug)]
pub struct Download {
    received: Arc<AtomicU64>,
    thread: JoinHandle<Result<Downloaded>>,
}

/// A finished download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Downloaded {
    pub backend: String,
    pub bytes: usize,
}

impl Download {
    /// Fetch `/download/big` at `rate` bytes per second, checking every byte. Gives up when
    /// nothing arrives for `silence`.
    pub fn start(ns: &Netns, target: SocketAddr, rate: u32, silence: Duration) -> Result<Self> {
        let received = Arc::new(AtomicU64::new(0));
        let path = format!("/download/big?rate={rate}");
        let thread = ns.thread("download", {
            let received = received.clone();
            move || download(target, &path, silence, &received)
        })?;
        Ok(Self { received, thread })
    }

    /// Body bytes received so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Wait for its end.
    pub fn join(self) -> Result<Downloaded> {
        match self.thread.join() {
            Ok(result) => result,
            Err(_) => bail!("the download panicked"),
        }
    }
}

fn download(
    target: SocketAddr,
    path: &str,
    silence: Duration,
    received: &AtomicU64,
) -> Result<Downloaded> {
    let fail = |e: Failure| anyhow::anyhow!("download from {target}: {e}");
    let mut stream = open(target, path, Instant::now() + silence).map_err(fail)?;
    stream.set_read_timeout(Some(silence))?;
    let mut answer = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    let head = loop {
        let n = stream.read(&mut chunk).map_err(|e| fail(e.into()))?;
        answer.extend_from_slice(&chunk[..n]);
        if let Some(head) = Head::parse(&answer).map_err(fail)? {
            break head;
        }
        if n == 0 || answer.len() > LIMIT * 2 {
            bail!("download from {target}: no answer");
        }
    };
    anyhow::ensure!(head.status == 200, "download: status {}", head.status);
    let mut at = 0;
    let mut body = answer[head.len..].to_vec();
    loop {
        for byte in &body {
            anyhow::ensure!(*byte == pattern(at), "download: wrong byte at {at}");
            at += 1;
        }
        received.store(at as u64, Ordering::Relaxed);
        if at == head.body {
            break;
        }
        let n = stream.read(&mut chunk);
        let n = n.map_err(|e| anyhow::anyhow!("download: after {at} bytes: {e}"))?;
        anyhow::ensure!(n > 0, "download: closed after {at} of {} bytes", head.body);
        body.clear();
        body.extend_from_slice(&chunk[..n]);
    }
    Ok(Downloaded { backend: head.backend, bytes: at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let answer = b"HTTP/1.1 200 OK\r\nX-Backend: b1\r\ncontent-length: 3\r\n\r\nb1\n";
        let head = Head::parse(answer).unwrap().unwrap();
        assert_eq!(head.status, 200);
        assert_eq!(head.backend, "b1");
        assert_eq!(answer.len() - head.len, head.body);
        assert_eq!(Head::parse(b"HTTP/1.1 200 OK\r\n"), Ok(None));
        assert!(Head::parse(b"SSH-2.0\r\n\r\n").is_err());
    }
}
