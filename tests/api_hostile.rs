//! Clients that misbehave: garbage, endless headers, and those that stall. None may crash the API,
//! and none may keep others waiting.

#[path = "api_fake/mod.rs"]
mod api_fake;

use api_fake::http::{ask, connect, parse, raw};
use api_fake::{Fake, Served};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Panics anywhere in this process: those of connection tasks would otherwise go unnoticed.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// A generator of our own: the same requests on every run (xorshift64, Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }
}

#[test]
fn garbage_never_panics_and_never_hangs() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        before(info);
    }));
    let mut served = Served::new(Fake::bad_night());
    let seeds: [&[u8]; 6] = [
        b"GET /v1/flows?client=10.0.0.0/8&state=syn&limit=7 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /v1/bgp/2001:db8::1 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /v1/drain HTTP/1.1\r\ncontent-length: 15\r\n\r\n{\"reason\":\"xy\"}",
        b"POST /v1/drain HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"POST /v1/backends/%5B::1%5D:80/drain HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n",
    ];
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let started = Instant::now();
    for round in 0..3_000 {
        let mut request = seeds[dice.roll(seeds.len())].to_vec();
        for _ in 0..=dice.roll(6) {
            let at = dice.roll(request.len());
            match dice.roll(4) {
                0 => request[at] = dice.roll(256) as u8,
                1 => request.insert(at, b"\r\n%:/?&={}\x00\xff9"[dice.roll(13)]),
                2 if request.len() > 1 => drop(request.remove(at)),
                _ => request.truncate(at.max(1)),
            }
        }
        let mut stream = connect(served.socket());
        let _ = stream.write_all(&request);
        // No more will come: what is not whole by now never will be.
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer);
        let hung = end.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!hung, "round {round}: {:?}", String::from_utf8_lossy(&request));
    }
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    assert_eq!(ask(served.socket(), "GET", "/v1/status", "").status, 200);
    served.stop();
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
}

#[test]
fn headers_without_end_are_refused() {
    let served = Served::new(Fake::bad_night());
    let long = format!("GET /v1/status HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    assert_eq!(parse(&raw(served.socket(), long.as_bytes())).status, 431);
    let many = format!("GET /v1/status HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(100));
    assert_eq!(parse(&raw(served.socket(), many.as_bytes())).status, 431);
}

#[test]
fn stalled_clients_delay_nobody_until_every_place_is_taken_and_then_are_cut_off() {
    let served = Served::new(Fake::bad_night());
    let stall = || {
        let mut stream = connect(served.socket());
        stream.write_all(b"GET /v1/status HTTP/1.1\r\nhost:").expect("written");
        stream
    };
    let mut stalled: Vec<UnixStream> = (0..63).map(|_| stall()).collect();
    let started = Instant::now();
    assert_eq!(ask(served.socket(), "GET", "/v1/status", "").status, 200);
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    // Every place is taken; a place becomes free when the first of them are cut off.
    stalled.extend((0..8).map(|_| stall()));
    assert_eq!(ask(served.socket(), "GET", "/v1/status", "").status, 200);
    let mut rest = Vec::new();
    let first = stalled.first_mut().expect("there are some");
    first.read_to_end(&mut rest).expect("the server closed it");
}

/// More than a socket buffers, so that the answer stays in the server while nobody reads.
const MANY: usize = 20_000;

#[test]
fn readers_that_stall_hold_no_more_than_a_few_listings_of_flows() {
    let mut fake = Fake::bad_night();
    fake.flows = vec![fake.flows[0].clone(); MANY];
    let served = Served::new(fake);
    let list = || {
        let mut stream = connect(served.socket());
        let request = format!("GET /v1/flows?limit={MANY} HTTP/1.1\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("written");
        stream
    };
    let mut readers: Vec<UnixStream> = (0..4).map(|_| list()).collect();
    for reader in &mut readers {
        reader.read_exact(&mut [0; 64]).expect("an answer begins");
    }
    // No place is left for another listing, but everything else goes on.
    let mut waiting = list();
    waiting.set_read_timeout(Some(Duration::from_millis(300))).expect("timeout");
    assert!(waiting.read(&mut [0; 1]).is_err(), "no answer while the others stall");
    assert_eq!(ask(served.socket(), "GET", "/v1/status", "").status, 200);
    // One place is given back.
    drop(readers.pop());
    waiting.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
    let mut answer = Vec::new();
    waiting.read_to_end(&mut answer).expect("the whole answer");
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"));
    assert!(answer.ends_with(b"}"));
}

#[test]
fn a_body_that_does_not_come_is_a_timeout() {
    let served = Served::new(Fake::bad_night());
    let request = b"POST /v1/drain HTTP/1.1\r\nconnection: close\r\ncontent-length: 9\r\n\r\n{";
    let answer = parse(&raw(served.socket(), request));
    assert_eq!(answer.status, 408);
    assert_eq!(served.node.done(), Vec::<String>::new());
}
