//! Many flows through one engine: made, looked up in an order that no prefetcher guesses, expired.

use crate::capture::{self, Family, Proto};
use crate::life::{Bytes, balance};
use crate::node::Handle;
use anyhow::{Context, Result, ensure};
use arrayvec::ArrayVec;
use dunlin::forward::tables::{PortId, Timeouts};
use dunlin::forward::{Engine, Now, Origin, Tables, Verdict};

/// Enough that the LIPs' ports suffice for all flows: each can be used toward each backend.
const BACKENDS: u32 = 64;
const BURST: usize = 32;
const PORTS_PER_CLIENT: u32 = 60_000;

pub fn measure(flows: u32) -> Result<serde_json::Value> {
    let timeouts = Timeouts::default();
    let handle = Handle::with(Family::V4, timeouts, BACKENDS, 1)?;
    let tables = handle.published.load();
    let mut engine = handle.engine(0, flows);
    let mut now = Now(1_000_000_000);

    let start = cpu_ns()?;
    forward(&mut engine, &tables, now, 0..flows)?;
    let established = cpu_ns()? - start;
    ensure!(engine.flow_count() == flows, "{} flows", engine.flow_count());

    let start = cpu_ns()?;
    // A step without a common divisor visits each flow once.
    let step = (flows / 3..=flows).find(|&step| gcd(step, flows) == 1).unwrap_or(1);
    let order = (0..flows).map(|n| (u64::from(n) * u64::from(step) % u64::from(flows)) as u32);
    forward(&mut engine, &tables, now, order)?;
    let looked_up = cpu_ns()? - start;
    let created = handle.shared[0].stats.flows_created.get();
    ensure!(created == u64::from(flows), "{created} flows were made");

    now.0 += (u64::from(timeouts.udp_ms) + 1000) * 1_000_000;
    let start = cpu_ns()?;
    while engine.flow_count() > 0 {
        engine.tick(&tables, now);
        now.0 += 1000;
    }
    let expired = cpu_ns()? - start;
    let each = |ns: u64| ns as f64 / f64::from(flows);
    Ok(serde_json::json!({
        "what": "table",
        "flows": flows,
        "bytes_per_flow": engine.flow_memory() as f64 / f64::from(flows),
        "peak_rss_bytes": peak_rss()?,
        "establish_ns": each(established),
        "look_up_ns": each(looked_up),
        "expire_ns": each(expired),
    }))
}

/// One packet of each of these flows, in bursts.
fn forward(
    engine: &mut Engine,
    tables: &Tables,
    now: Now,
    flows: impl IntoIterator<Item = u32>,
) -> Result<()> {
    let mut first = [0; 60];
    first.copy_from_slice(&capture::frame(0, Family::V4, Proto::Udp, 0));
    first[40..42].fill(0); // no UDP checksum
    let mut frames: Vec<Bytes> = (0..BURST).map(|_| Bytes(Box::new(first))).collect();
    let mut verdicts = ArrayVec::new();
    let mut flows = flows.into_iter();
    loop {
        let mut count = 0;
        for (frame, flow) in frames.iter_mut().zip(&mut flows) {
            let (client, port) = (flow / PORTS_PER_CLIENT, 1024 + flow % PORTS_PER_CLIENT);
            *frame.0 = first;
            frame.0[18..20].copy_from_slice(&balance(client).to_be_bytes());
            frame.0[26..30].copy_from_slice(&(0x0a00_0001 + client).to_be_bytes());
            frame.0[34..36].copy_from_slice(&(port as u16).to_be_bytes());
            count += 1;
        }
        if count == 0 {
            return Ok(());
        }
        let burst = &mut frames[..count];
        engine.forward_burst(tables, now, PortId(0), Origin::Port, burst, &mut verdicts);
        let other = verdicts.iter().find(|v| !matches!(v, Verdict::Transmit { .. }));
        ensure!(other.is_none(), "{other:?}");
    }
}

const fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// CPU time of this thread so far, nanoseconds.
fn cpu_ns() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").context("schedstat")?;
    let first = text.split_whitespace().next().context("schedstat is empty")?;
    Ok(first.parse()?)
}

/// The most memory that this process has had, bytes.
fn peak_rss() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("VmHWM")?;
    Ok(kib * 1024)
}
