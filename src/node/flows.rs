//! Flows as the API lists them.

use crate::api::model::{FlowFilter, FlowInfo, FlowState};
use crate::cluster::PeerStats;
use crate::forward::FlowView;
use crate::forward::tables::Protocol;

/// Whether the filter accepts the flow. Runs on the worker's thread: no allocation.
pub fn matches(filter: &FlowFilter, flow: &FlowView, service: Option<&String>) -> bool {
    filter.client.is_none_or(|f| f.matches(&flow.client))
        && filter.vip.is_none_or(|f| f.matches(&flow.vip))
        && filter.backend.is_none_or(|f| f.matches(&flow.backend))
        && filter.protocol.is_none_or(|protocol| protocol == flow.protocol)
        && filter.state.is_none_or(|wanted| wanted == state(flow))
        && filter.service.as_ref().is_none_or(|wanted| service == Some(wanted))
}

/// The flow as the API tells it. `peers`: by number.
pub fn info(flow: &FlowView, service: String, peers: &[PeerStats]) -> FlowInfo {
    let owner = flow.owner.and_then(|peer| peers.get(usize::from(peer)));
    FlowInfo {
        protocol: flow.protocol,
        client: flow.client,
        vip: flow.vip,
        lip: flow.lip,
        backend: flow.backend,
        state: state(flow),
        idle_ms: flow.idle_ms,
        worker: flow.worker,
        service,
        owner: owner.map(|peer| peer.address.ip()),
    }
}

/// The API names states by the timeout that applies; the packet path knows finer ones.
fn state(flow: &FlowView) -> FlowState {
    match (flow.protocol, flow.state) {
        (Protocol::Udp, _) => FlowState::Udp,
        (_, "syn-sent" | "syn-received") => FlowState::Syn,
        (_, "established") => FlowState::Established,
        _ => FlowState::Closing,
    }
}
