//! Datagrams: servers that answer with their name, a client that asks, and a flood.

use crate::netns::Netns;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest time a thread takes to see that it should end.
const GLANCE: Duration = Duration::from_millis(50);

/// A server in a namespace that answers every datagram, of both families, with its name and what
/// it got. Dropping it stops it.
#[derive(Debug)]
pub struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Start one called like its namespace.
    pub fn start(ns: &Netns, port: u16) -> Result<Self> {
        let socket = ns.enter(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)))??;
        socket.set_read_timeout(Some(GLANCE))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (name, stopped) = (ns.name().to_owned(), stop.clone());
        let thread = ns.thread("echo", move || {
            let mut datagram = vec![0; 1 << 16];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((len, from)) = socket.recv_from(&mut datagram) {
                    let answer = [name.as_bytes(), b" ", &datagram[..len]].concat();
                    // Whoever asked may have gone.
                    let _ = socket.send_to(&answer, from);
                }
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Ask `count` times, each from a socket of its own; answers by server. An unanswered datagram is
/// counted under the empty name. From the calling thread's namespace.
pub fn ask(target: SocketAddr, count: u32, timeout: Duration) -> Result<BTreeMap<String, usize>> {
    // Kept open, so that no port is used twice.
    let sockets = (0..count).map(|_| open(target, 0)).collect::<Result<Vec<_>, _>>()?;
    question(target, &sockets, timeout)
}

/// As [`ask`], from ports that nobody in the lab has used: a port that the kernel gives out again
/// may still name a flow, and flows outlive a failed check.
pub fn ask_anew(
    target: SocketAddr,
    count: u32,
    timeout: Duration,
) -> Result<BTreeMap<String, usize>> {
    let sockets = (0..count)
        .map(|_| open(target, UNUSED_PORT.fetch_add(1, Ordering::Relaxed)))
        .collect::<Result<Vec<_>, _>>()?;
    question(target, &sockets, timeout)
}

/// Ask once, with so many bytes, and hear them again: both kernels cut what is longer than their MTU
/// into fragments, and put fragments together. From the calling thread's namespace.
pub fn ask_at_length(target: SocketAddr, bytes: usize, timeout: Duration) -> Result<()> {
    let socket = open(target, 0)?;
    socket.set_read_timeout(Some(timeout))?;
    let question: Vec<u8> = (0..bytes).map(|n| (n % 251) as u8).collect();
    socket.send(&question)?;
    let mut answer = vec![0; 1 << 16];
    let len = socket.recv(&mut answer).with_context(|| format!("{target}: {bytes} bytes"))?;
    let heard = answer[..len].splitn(2, |byte| *byte == b' ').nth(1);
    ensure!(heard == Some(&question[..]), "{target}: asked {bytes} bytes, heard {len} others");
    Ok(())
}

/// Below every port the kernel gives out by itself (`ip_local_port_range`: from 32768).
static UNUSED_PORT: AtomicU16 = AtomicU16::new(20_000);

fn question(
    target: SocketAddr,
    sockets: &[UdpSocket],
    timeout: Duration,
) -> Result<BTreeMap<String, usize>> {
    let mut answers = BTreeMap::new();
    for (n, socket) in sockets.iter().enumerate() {
        socket.set_read_timeout(Some(timeout))?;
        let question = format!("question {n}");
        socket.send(question.as_bytes())?;
        let mut answer = [0; 2048];
        // An unreachable port is reported as an error: no answer either.
        let name = match socket.recv(&mut answer) {
            Ok(len) => {
                let text = String::from_utf8_lossy(&answer[..len]).into_owned();
                let (name, rest) = text.split_once(' ').unwrap_or_default();
                ensure!(rest == question, "{target}: asked {question:?}, heard {text:?}");
                name.to_owned()
            }
            Err(_) => String::new(),
        };
        *answers.entry(name).or_default() += 1;
    }
    Ok(answers)
}

/// A socket that talks to `target` only, from `port` (0: the kernel's choice).
pub fn open(target: SocketAddr, port: u16) -> std::io::Result<UdpSocket> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, port).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, port).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(target)?;
    Ok(socket)
}

/// Small datagrams as fast as asked for, from many source ports. Dropping it ends it.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

/// Source ports of a flood: enough that every next hop gets its share.
const PORTS: usize = 32;

impl Flood {
    /// `rate`: datagrams per second, at most.
    pub fn start(ns: &Netns, target: SocketAddr, rate: u32) -> Result<Self> {
        let sockets =
            ns.enter(|| (0..PORTS).map(|_| open(target, 0)).collect::<Result<Vec<_>, _>>())??;
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (stop.clone(), sent.clone());
        let thread = ns.thread("flood", move || {
            let start = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                let due = (start.elapsed().as_secs_f64() * f64::from(rate)) as u64;
                if count.load(Ordering::Relaxed) >= due {
                    std::thread::sleep(Duration::from_micros(200));
                    continue;
                }
                for socket in &sockets {
                    // Nobody listens: an ICMP error may come back, and does not matter.
                    let _ = socket.send(&[0; 18]);
                }
                count.fetch_add(PORTS as u64, Ordering::Relaxed);
            }
        })?;
        Ok(Self { stop, sent, thread: Some(thread) })
    }

    /// Datagrams sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
