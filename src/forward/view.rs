//! Flows as people see them: `dunlin flows`.

use super::build::Tables;
use super::engine::Engine;
use super::flows::{Record, State};
use super::tables::Protocol;
use super::time::{Now, Tick, ms_of_ticks};
use super::tuple::{Family, split_ports};
use std::net::SocketAddr;

/// Records that one call looks at, at most, per flow it may return.
const LOOKED_AT_PER_FLOW: usize = 16;

/// One flow, with everything that names it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FlowView {
    /// 4 or 6.
    pub family: u8,
    pub protocol: Protocol,
    pub client: SocketAddr,
    pub vip: SocketAddr,
    pub lip: SocketAddr,
    pub backend: SocketAddr,
    pub state: &'static str,
    /// Since the last packet, milliseconds, to about 17 ms.
    pub idle_ms: u64,
    /// Slot of the service.
    pub service: u32,
    /// Index of the worker that owns it.
    pub worker: u16,
    /// Number of the peer that owns it; `None`: it is ours.
    pub owner: Option<u16>,
}

impl Engine {
    /// Append at most `max` flows to `out`, beginning at `cursor` (0 at first). Returns where to
    /// go on, or `None` at the end. Bounded work: it may append fewer before the end. Flows that
    /// come and go between calls may be missed; none is shown twice.
    pub fn scan_flows(
        &self,
        tables: &Tables,
        now: Now,
        cursor: u32,
        max: usize,
        out: &mut Vec<FlowView>,
    ) -> Option<u32> {
        let last = (cursor as usize)
            .saturating_add(max.max(1).saturating_mul(LOOKED_AT_PER_FLOW))
            .min(self.flows.capacity() as usize) as u32;
        let mut found = 0;
        for number in cursor..last {
            if found >= max {
                return Some(number);
            }
            let record = self.flows.get(number).filter(|r| r.state != State::Free);
            if let Some(view) = record.and_then(|r| self.view(tables, now.tick(), r)) {
                out.push(view);
                found += 1;
            }
        }
        (last < self.flows.capacity()).then_some(last)
    }

    /// `None`: a slot that the flow names is empty in these tables.
    fn view(&self, tables: &Tables, now: Tick, record: &Record) -> Option<FlowView> {
        let v6 = record.transport >= crate::packet::Transport::Udp6 as u8;
        let [client, vip, lip, backend] = if v6 {
            u128::ends(tables, &self.adoption.lips, record)?.map(Family::ip)
        } else {
            u32::ends(tables, &self.adoption.lips, record)?.map(Family::ip)
        };
        let end = |ip, port: u16| SocketAddr::new(ip, u16::from_be_bytes(port.to_ne_bytes()));
        let [[client_port, vip_port], [backend_port, local_port]] = record.ports.map(split_ports);
        Some(FlowView {
            family: if v6 { 6 } else { 4 },
            protocol: if record.transport & 1 == 1 { Protocol::Tcp } else { Protocol::Udp },
            client: end(client, client_port),
            vip: end(vip, vip_port),
            lip: end(lip, local_port),
            backend: end(backend, backend_port),
            state: record.state.name(),
            idle_ms: ms_of_ticks(now.since(record.last_seen).max(0) as u32),
            service: record.service.0,
            worker: self.worker.0,
            owner: self.adoption.lips.peer(record.lip),
        })
    }
}
