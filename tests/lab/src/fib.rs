//! The kernel's routing table of a host, watched over netlink: what its next hops are, and since
//! when.
//!
//! A thread in the namespace subscribes to route and next-hop changes. At every notification it
//! reads the main table anew and records the difference with the time. Reading anew, rather than
//! following increments, is right whatever way a daemon writes ECMP routes (replace, per-hop
//! delete, next-hop objects), and costs well under a millisecond for a lab's table.

use crate::netns::Netns;
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A destination, `192.0.2.10/32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    pub address: IpAddr,
    pub length: u8,
}

impl Prefix {
    /// The prefix of one address.
    pub fn host(address: IpAddr) -> Self {
        let length = if address.is_ipv4() { 32 } else { 128 };
        Self { address, length }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Prefix {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((address, length)) = text.split_once('/') else {
            return Ok(Self::host(text.parse()?));
        };
        let prefix = Self { address: address.parse()?, length: length.parse()? };
        anyhow::ensure!(
            prefix.length <= Self::host(prefix.address).length,
            "{text}: prefix too long"
        );
        Ok(prefix)
    }
}

/// Gateways of a route and their weights (1 to 256). An on-link hop has the unspecified address.
/// Hops the kernel holds dead are left out; a route that is gone has none.
pub type NextHops = BTreeMap<IpAddr, u16>;

/// The whole main table.
pub type Table = BTreeMap<Prefix, NextHops>;

/// One change of one route.
#[derive(Debug, Clone)]
pub struct Change {
    /// When the notification was read.
    pub at: Instant,
    pub prefix: Prefix,
    /// Empty: the route is gone.
    pub next_hops: NextHops,
}

/// A watched routing table. Dropping it ends the watch.
#[derive(Debug)]
pub struct Fib {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    stop: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    table: Table,
    changes: Vec<Change>,
    error: Option<String>,
}

impl Fib {
    /// Watch the main table of `ns`.
    pub fn watch(ns: &Netns) -> Result<Self> {
        let sockets = ns.enter(Sockets::open)??;
        let shared = Arc::new(Shared::default());
        shared.record(Instant::now(), sockets.dump()?);
        let thread = std::thread::Builder::new().name("fib".into()).spawn({
            let shared = shared.clone();
            move || {
                if let Err(e) = follow(&sockets, &shared) {
                    shared.lock().error = Some(format!("{e:#}"));
                    shared.changed.notify_all();
                }
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The next hops of a prefix now.
    pub fn next_hops(&self, prefix: Prefix) -> NextHops {
        let state = self.shared.lock();
        state.table.get(&prefix).cloned().unwrap_or_default()
    }

    /// The whole table now.
    pub fn table(&self) -> Table {
        self.shared.lock().table.clone()
    }

    /// Every change of a prefix from `since` on.
    pub fn changes(&self, prefix: Prefix, since: Instant) -> Vec<Change> {
        let state = self.shared.lock();
        let mine = state.changes.iter();
        mine.filter(|c| c.prefix == prefix && c.at >= since).cloned().collect()
    }

    /// Wait until the prefix's next hops satisfy `wanted`; when they came to do so (in the past,
    /// if they do already).
    pub fn wait(
        &self,
        prefix: Prefix,
        timeout: Duration,
        wanted: impl Fn(&NextHops) -> bool,
    ) -> Result<Instant> {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.lock();
        loop {
            if let Some(error) = &state.error {
                bail!("the watch of the routing table failed: {error}");
            }
            let current = state.table.get(&prefix).cloned().unwrap_or_default();
            if wanted(&current) {
                return Ok(state.true_since(prefix, &wanted));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("{prefix}: not as wanted within {timeout:?}; next hops: {current:?}");
            }
            (state, _) = self
                .shared
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Wait until the whole table satisfies `wanted`.
    pub fn wait_table(
        &self,
        timeout: Duration,
        wanted: impl Fn(&Table) -> bool,
    ) -> Result<Instant> {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.lock();
        loop {
            if let Some(error) = &state.error {
                bail!("the watch of the routing table failed: {error}");
            }
            if wanted(&state.table) {
                return Ok(state.changes.last().map_or_else(Instant::now, |c| c.at));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("the table is not as wanted within {timeout:?}");
            }
            (state, _) = self
                .shared
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Fib {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, at: Instant, table: Table) {
        let mut state = self.lock();
        let old = std::mem::replace(&mut state.table, table.clone());
        for (prefix, next_hops) in &table {
            if old.get(prefix) != Some(next_hops) {
                state.changes.push(Change { at, prefix: *prefix, next_hops: next_hops.clone() });
            }
        }
        for prefix in old.keys().filter(|p| !table.contains_key(p)) {
            state.changes.push(Change { at, prefix: *prefix, next_hops: NextHops::new() });
        }
        self.changed.notify_all();
    }
}

impl State {
    /// The start of the unbroken run of states, up to now, in which `wanted` holds.
    fn true_since(&self, prefix: Prefix, wanted: &impl Fn(&NextHops) -> bool) -> Instant {
        let mine = self.changes.iter().rev().filter(|c| c.prefix == prefix);
        mine.take_while(|c| wanted(&c.next_hops))
            .last()
            // Never there at all: true since the watch began.
            .or(self.changes.first())
            .map_or_else(Instant::now, |c| c.at)
    }
}

fn follow(sockets: &Sockets, shared: &Shared) -> Result<()> {
    while !shared.stop.load(Ordering::Relaxed) {
        if let Some(at) = sockets.notified()? {
            shared.record(at, sockets.dump()?);
        }
    }
    Ok(())
}

/// One socket subscribed to changes, one to ask with.
#[derive(Debug)]
struct Sockets {
    changes: OwnedFd,
    query: OwnedFd,
}

/// Multicast groups, as bits: IPv4 routes (7), IPv6 routes (11), next-hop objects (32).
const GROUPS: u32 = 1 << 6 | 1 << 10 | 1 << 31;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
/// The table changed while it was read.
const NLM_F_DUMP_INTR: u16 = 0x10;
const RT_TABLE_MAIN: u8 = 254;
const RTN_UNICAST: u8 = 1;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_MULTIPATH: u16 = 9;
const RTA_VIA: u16 = 18;
const RTNH_F_DEAD: u8 = 1;

impl Sockets {
    fn open() -> Result<Self> {
        let make = |groups| -> Result<OwnedFd> {
            let fd = socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::NetlinkRoute,
            )?;
            setsockopt(&fd, sockopt::RcvBuf, &(1 << 20))?;
            bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
            Ok(fd)
        };
        Ok(Self { changes: make(GROUPS)?, query: make(0)? })
    }

    /// Wait a little for notifications, and take all that are there. The time of the first.
    fn notified(&self) -> Result<Option<Instant>> {
        let mut fds = [PollFd::new(self.changes.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(50u8)) {
            Ok(0) | Err(Errno::EINTR) => return Ok(None),
            Ok(_) => {}
            Err(e) => return Err(e.into()),
        }
        let at = Instant::now();
        let mut buffer = [0; 16 * 1024];
        loop {
            match recv(self.changes.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                // Overrun: some notifications were lost. The dump that follows has it all.
                Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(Some(at)),
                Err(e) => return Err(e).context("netlink notifications"),
            }
        }
    }

    fn dump(&self) -> Result<Table> {
        loop {
            let mut table = Table::new();
            let v4 = self.dump_family(libc::AF_INET as u8, &mut table)?;
            let v6 = self.dump_family(libc::AF_INET6 as u8, &mut table)?;
            if v4 && v6 {
                return Ok(table);
            }
        }
    }

    /// Whether the dump is consistent.
    fn dump_family(&self, family: u8, table: &mut Table) -> Result<bool> {
        let mut request = [0u8; 28];
        request[0..4].copy_from_slice(&28u32.to_ne_bytes());
        request[4..6].copy_from_slice(&RTM_GETROUTE.to_ne_bytes());
        request[6..8].copy_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
        request[16] = family;
        send(self.query.as_raw_fd(), &request, MsgFlags::empty())?;
        let mut buffer = vec![0; 64 * 1024];
        let mut consistent = true;
        loop {
            let len = match recv(self.query.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                other => other.context("netlink dump")?,
            };
            let mut rest = &buffer[..len];
            while let Some((header, body, next)) = message(rest) {
                consistent &= header.flags & NLM_F_DUMP_INTR == 0;
                match header.kind {
                    NLMSG_DONE => return Ok(consistent),
                    NLMSG_ERROR => bail!("the kernel refused to dump routes"),
                    RTM_NEWROUTE => {
                        if let Some((prefix, hops)) = route(body) {
                            // IPv6 may list one prefix several times, by metric.
                            table.entry(prefix).or_default().extend(hops);
                        }
                    }
                    _ => {}
                }
                rest = next;
            }
        }
    }
}

struct Header {
    kind: u16,
    flags: u16,
}

/// Split the first netlink message off: header, body, what follows.
fn message(bytes: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let len = u32::from_ne_bytes(bytes.get(0..4)?.try_into().ok()?) as usize;
    let header = Header {
        kind: u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?),
        flags: u16::from_ne_bytes(bytes.get(6..8)?.try_into().ok()?),
    };
    let body = bytes.get(16..len)?;
    Some((header, body, bytes.get(align(len)..).unwrap_or_default()))
}

/// Attributes of a route or of a next hop: `(type, value)`.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = u16::from_ne_bytes(bytes.get(0..2)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let value = bytes.get(4..len)?;
        bytes = bytes.get(align(len)..).unwrap_or_default();
        // The two high bits are flags.
        Some((kind & 0x3fff, value))
    })
}

/// A unicast route of the main table, from the body of its message (`struct rtmsg` and attributes).
fn route(body: &[u8]) -> Option<(Prefix, NextHops)> {
    let (head, rest) = body.split_at_checked(12)?;
    let (family, length, table, kind, flags) = (head[0], head[1], head[4], head[7], head[8]);
    if table != RT_TABLE_MAIN || kind != RTN_UNICAST {
        return None;
    }
    let unspecified = if i32::from(family) == libc::AF_INET {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    };
    let mut prefix = Prefix { address: unspecified, length };
    let mut hops = NextHops::new();
    for (kind, value) in attributes(rest) {
        match kind {
            RTA_DST => prefix.address = address(value)?,
            RTA_MULTIPATH => multipath(value, unspecified, &mut hops),
            _ => {}
        }
    }
    if hops.is_empty()
        && flags & RTNH_F_DEAD == 0
        && let Some(hop) = gateway(rest, unspecified)
    {
        hops.insert(hop, 1);
    }
    Some((prefix, hops))
}

/// `struct rtnexthop` (length, flags, weight - 1, interface), each with attributes of its own.
fn multipath(mut bytes: &[u8], unspecified: IpAddr, hops: &mut NextHops) {
    while let Some((head, _)) = bytes.split_at_checked(8) {
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let Some(inner) = bytes.get(8..len) else {
            return;
        };
        if head[2] & RTNH_F_DEAD == 0 {
            let hop = gateway(inner, unspecified).unwrap_or(unspecified);
            hops.insert(hop, u16::from(head[3]) + 1);
        }
        bytes = bytes.get(align(len)..).unwrap_or_default();
    }
}

fn gateway(bytes: &[u8], unspecified: IpAddr) -> Option<IpAddr> {
    let mut on_link = None;
    for (kind, value) in attributes(bytes) {
        match kind {
            RTA_GATEWAY => return address(value),
            // An IPv4 route through an IPv6 neighbour: family, then the address.
            RTA_VIA => return address(value.get(2..)?),
            RTA_OIF => on_link = Some(unspecified),
            _ => {}
        }
    }
    on_link
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

fn align(len: usize) -> usize {
    // A length of zero would never advance.
    len.max(4).next_multiple_of(4)
}
