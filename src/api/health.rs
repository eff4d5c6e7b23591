//! The node in one word: what counts as degraded.
//!
//! A single backend that fails does not: the service has others, and whether it still has enough
//! is what its VIP's announcement says.

use super::model::{
    BgpNeighborInfo, BgpState, DrainInfo, Health, HealthState, PortInfo, VipStatus, WorkerInfo,
};

/// Everything that [`assess`] looks at.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    pub drain: Option<&'a DrainInfo>,
    /// Why the last reload failed.
    pub config_error: Option<&'a str>,
    pub workers: &'a [WorkerInfo],
    pub ports: &'a [PortInfo],
    pub neighbors: &'a [BgpNeighborInfo],
    pub vips: &'a [VipStatus],
}

/// Judge. Reasons come the most urgent first: what stops packets, then what keeps routers from
/// sending them, then what an operator forgot. A drain explains missing announcements, so these are
/// no reasons while it lasts.
pub fn assess(evidence: Evidence<'_>) -> Health {
    let mut reasons = Vec::new();
    for worker in evidence.workers.iter().filter(|worker| worker.stalled) {
        reasons.push(format!(
            "worker {} (core {}) has not beaten for {} ms",
            worker.id, worker.core, worker.beat_age_ms
        ));
    }
    for port in evidence.ports.iter().filter(|port| !port.link_up) {
        reasons.push(format!("port {}: link is down", port.name));
    }
    let wanted = |n: &&BgpNeighborInfo| n.shutdown.is_none() && n.state != BgpState::Established;
    for neighbor in evidence.neighbors.iter().filter(wanted) {
        let (address, state) = (neighbor.address, neighbor.state);
        reasons.push(format!("BGP neighbour {address} is {state}, not established"));
    }
    if evidence.drain.is_none() {
        for vip in evidence.vips.iter().filter(|vip| !vip.announced) {
            let why = if vip.reason.is_empty() { "no peer has it" } else { &vip.reason };
            reasons.push(format!("{} is not announced: {why}", vip.prefix));
        }
    }
    if let Some(error) = evidence.config_error {
        reasons.push(format!("the last reload failed: {error}"));
    }
    let state = match (evidence.drain, reasons.is_empty()) {
        (Some(_), _) => HealthState::Draining,
        (None, true) => HealthState::Ok,
        (None, false) => HealthState::Degraded,
    };
    if let Some(drain) = evidence.drain {
        let why = if drain.reason.is_empty() { "no reason given" } else { &drain.reason };
        reasons.insert(0, format!("an operator drains the node: {why}"));
    }
    Health { state, reasons }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::model::DrainPhase;

    fn vip(announced: bool) -> VipStatus {
        VipStatus {
            prefix: "203.0.113.1/32".parse().expect("prefix"),
            announced,
            reason: String::new(),
        }
    }

    const NOTHING: Evidence<'_> = Evidence {
        drain: None,
        config_error: None,
        workers: &[],
        ports: &[],
        neighbors: &[],
        vips: &[],
    };

    #[test]
    fn a_node_without_complaints_is_ok_and_any_complaint_degrades_it() {
        assert_eq!(assess(NOTHING).state, HealthState::Ok);
        let announced = [vip(true)];
        let fine = Evidence { vips: &announced, ..NOTHING };
        assert_eq!(assess(fine).state, HealthState::Ok);
        let withdrawn = [vip(true), vip(false)];
        let health =
            assess(Evidence { vips: &withdrawn, config_error: Some("line 3: no"), ..NOTHING });
        assert_eq!(health.state, HealthState::Degraded);
        assert_eq!(
            health.reasons,
            [
                "203.0.113.1/32 is not announced: no peer has it",
                "the last reload failed: line 3: no"
            ]
        );
    }

    #[test]
    fn a_drain_is_told_first_and_explains_what_is_withdrawn() {
        let drain = DrainInfo {
            age_s: 1,
            phase: DrainPhase::Withdrawn,
            reason: "new kernel".to_owned(),
            flows_left: 0,
        };
        let health = assess(Evidence { drain: Some(&drain), vips: &[vip(false)], ..NOTHING });
        assert_eq!(health.state, HealthState::Draining);
        assert_eq!(health.reasons, ["an operator drains the node: new kernel"]);
    }
}
