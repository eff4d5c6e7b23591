//! What the node should announce: a pure function from its state to the wanted announcements.
//!
//! Rules (docs/architecture.md, "The way of a decision"):
//! - a VIP is announced only once every worker has taken the tables that serve it, a local address
//!   of its family exists, and enough backends are usable behind a next hop that resolves;
//! - once it is, its health checks decide, if it has any: a neighbour entry that is forgotten and
//!   learnt again is no reason to withdraw, but a port that goes down is;
//! - it is withdrawn without waiting for anything;
//! - a stalled worker takes everything down: the node no longer serves all it attracts;
//! - on drain the preference falls first (GRACEFUL_SHUTDOWN, RFC 8326; the highest OSPF cost), then
//!   it is withdrawn.
//!
//! Every decision carries its reasons, which is what `dunlin announce` prints.

use crate::config::model::{Attributes, OnNoBackend};
use ipnet::IpNet;
use routing::{Announcement, BgpAttributes, OspfAttributes, OspfKind, Wanted};
use std::collections::BTreeMap;
use std::fmt;

/// Well-known community of RFC 8326: "prefer anyone else".
pub const GRACEFUL_SHUTDOWN: (u16, u16) = (65535, 0);

/// MaxLinkMetric (RFC 6987 §2): what a drain raises the cost of a stub link to.
pub const MAX_STUB_COST: u32 = 0xffff;
/// One less than LSInfinity (RFC 2328 Appendix B), which would say "unreachable".
pub const MAX_EXTERNAL_COST: u32 = 0xff_fffe;

/// Of prefixes that OSPF carries, unless the configuration says otherwise.
const DEFAULT_OSPF: OspfAttributes = OspfAttributes { cost: 10, kind: OspfKind::Stub };

/// How far a drain has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Drain {
    /// Not draining.
    #[default]
    No,
    /// Announced with GRACEFUL_SHUTDOWN, so that routers move away while we still serve.
    Lowered,
    /// Withdrawn; established flows may go on.
    Withdrawn,
}

/// What of the node bears on every announcement.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeView {
    pub drain: Drain,
    /// Oldest table epoch that some worker still uses. 0: some worker has none yet.
    pub oldest_epoch: u64,
    /// Workers that do not beat, or through which the synthetic packet did not come back.
    pub stalled_workers: Vec<u16>,
    /// Attributes of what is announced, unless a service says otherwise.
    pub attributes: Attributes,
    /// OSPF runs for prefixes of this family.
    pub ospf_v4: bool,
    pub ospf_v6: bool,
}

/// How far the way to a service's usable backends is known to lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// No route to any of them over a port that is up.
    Down,
    /// No next hop's link-layer address has been learnt since a port came up.
    Unresolved,
    Proven,
}

/// One service on a VIP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceView {
    pub name: String,
    pub on_no_backend: OnNoBackend,
    pub min_healthy: u32,
    pub backends: u32,
    /// Backends that take new flows.
    pub usable: u32,
    pub path: Path,
    /// Epoch of the first tables that hold this service.
    pub since_epoch: u64,
    pub drain: Drain,
}

/// A VIP and the services on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VipView {
    pub prefix: IpNet,
    /// A local address of its family exists.
    pub has_local_address: bool,
    /// What its services say; they do not contradict each other.
    pub attributes: Attributes,
    pub services: Vec<ServiceView>,
}

/// Why a prefix is, or is not, announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    WorkerStalled { worker: u16 },
    TablesPending { oldest: u64, needed: u64 },
    NodeDraining { drain: Drain },
    ServiceDraining { service: String, drain: Drain },
    NoLocalAddress,
    TooFewBackends { service: String, usable: u32, minimum: u32, of: u32 },
    NoPath { service: String },
    NextHopUnresolved { service: String },
    Serves { service: String, usable: u32, of: u32 },
    KeptWithoutBackends { service: String },
    LocalPrefix,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WorkerStalled { worker } => write!(f, "worker {worker} is stalled"),
            Self::TablesPending { oldest, needed } => write!(
                f,
                "a worker still uses tables of epoch {oldest}; the service came with epoch {needed}"
            ),
            Self::NodeDraining { drain: Drain::Lowered } => {
                f.write_str("node drains: preference lowered")
            }
            Self::NodeDraining { .. } => f.write_str("node is drained"),
            Self::ServiceDraining { service, drain: Drain::Lowered } => {
                write!(f, "service {service} drains: preference lowered")
            }
            Self::ServiceDraining { service, .. } => write!(f, "service {service} is drained"),
            Self::NoLocalAddress => f.write_str("no local address (LIP) of this family"),
            Self::TooFewBackends { service, usable, minimum, of } => {
                write!(f, "service {service}: {usable} of {of} backends usable, {minimum} needed")
            }
            Self::NoPath { service } => {
                write!(f, "service {service}: no port that leads to a backend is up")
            }
            Self::NextHopUnresolved { service } => {
                write!(f, "service {service}: no backend has a next hop that resolves")
            }
            Self::Serves { service, usable, of } => {
                write!(f, "service {service}: {usable} of {of} backends usable")
            }
            Self::KeptWithoutBackends { service } => {
                write!(f, "service {service}: no backend usable, kept by on-no-backend")
            }
            Self::LocalPrefix => f.write_str("local addresses: replies return to this node"),
        }
    }
}

/// The decision about one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// `None`: withdraw.
    pub announcement: Option<Announcement>,
    pub reasons: Vec<Reason>,
}

/// Decide about every VIP and every prefix of local addresses.
pub fn decide(node: &NodeView, vips: &[VipView], local: &[IpNet]) -> BTreeMap<IpNet, Decision> {
    let mut decisions = BTreeMap::new();
    for vip in vips {
        decisions.insert(vip.prefix, decide_vip(node, vip));
    }
    for &prefix in local {
        decisions.insert(prefix, decide_local(node, prefix));
    }
    decisions
}

/// The set to publish: what [`decide`] said yes to.
pub fn wanted(decisions: &BTreeMap<IpNet, Decision>) -> Wanted {
    decisions
        .iter()
        .filter_map(|(prefix, decision)| Some((*prefix, decision.announcement.clone()?)))
        .collect()
}

fn decide_vip(node: &NodeView, vip: &VipView) -> Decision {
    let mut refusals = node_refusals(node);
    if !vip.has_local_address {
        refusals.push(Reason::NoLocalAddress);
    }
    // A VIP is worth announcing while any service on it can be served: withdrawing it for one dead
    // service would take down its healthy neighbours on the same address.
    let mut serving = Vec::new();
    let mut unable = Vec::new();
    let mut lowered = true;
    for service in &vip.services {
        match decide_service(node, service) {
            Ok(reason) => {
                lowered &= service.drain == Drain::Lowered;
                serving.push(reason);
            }
            Err(reason) => unable.push(reason),
        }
    }
    if !refusals.is_empty() || serving.is_empty() {
        refusals.append(&mut unable);
        return Decision { announcement: None, reasons: refusals };
    }
    let mut reasons = serving;
    if node.drain == Drain::Lowered {
        reasons.insert(0, Reason::NodeDraining { drain: node.drain });
    } else if lowered {
        reasons.extend(
            vip.services
                .iter()
                .map(|s| Reason::ServiceDraining { service: s.name.clone(), drain: s.drain }),
        );
    }
    reasons.append(&mut unable);
    let lowered = lowered || node.drain == Drain::Lowered;
    let attributes = vip.attributes.or(&node.attributes);
    let announcement = announcement(node, vip.prefix, &attributes, lowered);
    Decision { announcement: Some(announcement), reasons }
}

fn decide_service(node: &NodeView, service: &ServiceView) -> Result<Reason, Reason> {
    let name = || service.name.clone();
    if service.since_epoch == 0 || node.oldest_epoch < service.since_epoch {
        return Err(Reason::TablesPending {
            oldest: node.oldest_epoch,
            needed: service.since_epoch,
        });
    }
    if service.drain == Drain::Withdrawn {
        return Err(Reason::ServiceDraining { service: name(), drain: service.drain });
    }
    let enough = service.usable >= service.min_healthy.max(1);
    if !enough && service.on_no_backend == OnNoBackend::Keep {
        return Ok(Reason::KeptWithoutBackends { service: name() });
    }
    if !enough {
        return Err(Reason::TooFewBackends {
            service: name(),
            usable: service.usable,
            minimum: service.min_healthy.max(1),
            of: service.backends,
        });
    }
    if service.on_no_backend == OnNoBackend::Withdraw {
        match service.path {
            Path::Down => return Err(Reason::NoPath { service: name() }),
            Path::Unresolved => return Err(Reason::NextHopUnresolved { service: name() }),
            Path::Proven => {}
        }
    }
    Ok(Reason::Serves { service: name(), usable: service.usable, of: service.backends })
}

/// Local addresses stay announced through the first step of a drain, since established flows still
/// need their replies; they go with the node's withdrawal only when a worker cannot forward them.
fn decide_local(node: &NodeView, prefix: IpNet) -> Decision {
    let mut refusals: Vec<Reason> =
        node.stalled_workers.iter().map(|&worker| Reason::WorkerStalled { worker }).collect();
    if node.oldest_epoch == 0 {
        refusals.push(Reason::TablesPending { oldest: 0, needed: 1 });
    }
    if refusals.is_empty() {
        let announcement = Some(announcement(node, prefix, &node.attributes, false));
        Decision { announcement, reasons: vec![Reason::LocalPrefix] }
    } else {
        Decision { announcement: None, reasons: refusals }
    }
}

fn node_refusals(node: &NodeView) -> Vec<Reason> {
    let mut refusals: Vec<Reason> =
        node.stalled_workers.iter().map(|&worker| Reason::WorkerStalled { worker }).collect();
    if node.drain == Drain::Withdrawn {
        refusals.push(Reason::NodeDraining { drain: node.drain });
    }
    refusals
}

fn announcement(
    node: &NodeView,
    prefix: IpNet,
    attributes: &Attributes,
    lowered: bool,
) -> Announcement {
    let v4 = prefix.addr().is_ipv4();
    let mut communities = attributes.communities.clone().unwrap_or_default();
    if lowered {
        communities.push(GRACEFUL_SHUTDOWN);
    }
    communities.sort_unstable();
    communities.dedup();
    let next_hops = attributes.next_hop.as_deref().unwrap_or_default();
    let bgp = BgpAttributes {
        communities,
        large_communities: attributes.large_communities.clone().unwrap_or_default(),
        extended_communities: attributes.extended_communities.clone().unwrap_or_default(),
        // The draft counts bytes.
        link_bandwidth: attributes.link_bandwidth.map(|bits| (bits as f32 / 8.0).into()),
        med: attributes.med,
        local_preference: attributes.local_preference,
        prepend: attributes.prepend.unwrap_or(0),
        next_hop: next_hops.iter().copied().find(|hop| hop.is_ipv4() == v4),
    };
    let runs = if v4 { node.ospf_v4 } else { node.ospf_v6 };
    let ospf = runs.then(|| {
        let mut ospf = attributes.ospf.clone().unwrap_or(DEFAULT_OSPF);
        if lowered {
            ospf.cost = match ospf.kind {
                OspfKind::Stub => MAX_STUB_COST,
                OspfKind::External1 | OspfKind::External2 => MAX_EXTERNAL_COST,
            };
        }
        ospf
    });
    Announcement { bgp, ospf }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeView {
        NodeView { oldest_epoch: 5, ..NodeView::default() }
    }

    fn service() -> ServiceView {
        ServiceView {
            name: "web".into(),
            on_no_backend: OnNoBackend::Withdraw,
            min_healthy: 1,
            backends: 3,
            usable: 3,
            path: Path::Proven,
            since_epoch: 2,
            drain: Drain::No,
        }
    }

    fn vip(services: Vec<ServiceView>) -> VipView {
        VipView {
            prefix: "192.0.2.10/32".parse().unwrap(),
            has_local_address: true,
            attributes: Attributes::default(),
            services,
        }
    }

    fn reasons(decision: &Decision) -> Vec<String> {
        decision.reasons.iter().map(ToString::to_string).collect()
    }

    /// Each row: what differs from a healthy node, whether the VIP is announced, and a reason.
    #[test]
    fn rules() {
        type Change = fn(&mut NodeView, &mut VipView);
        let rows: &[(&str, Change, bool, &str)] = &[
            ("healthy", |_, _| {}, true, "3 of 3 backends usable"),
            ("a worker has no tables yet", |n, _| n.oldest_epoch = 0, false, "epoch 0"),
            ("tables not taken yet", |_, v| v.services[0].since_epoch = 6, false, "epoch 5"),
            ("never published", |_, v| v.services[0].since_epoch = 0, false, "tables"),
            ("no backends", |_, v| v.services[0].usable = 0, false, "0 of 3 backends usable, 1"),
            (
                "below the minimum",
                |_, v| (v.services[0].usable, v.services[0].min_healthy) = (1, 2),
                false,
                "1 of 3 backends usable, 2 needed",
            ),
            (
                "kept without backends",
                |_, v| {
                    v.services[0].usable = 0;
                    v.services[0].on_no_backend = OnNoBackend::Keep;
                },
                true,
                "kept by on-no-backend",
            ),
            (
                "keep does not outlive missing tables",
                |n, v| {
                    n.oldest_epoch = 0;
                    v.services[0].on_no_backend = OnNoBackend::Keep;
                },
                false,
                "epoch 0",
            ),
            (
                "no next hop",
                |_, v| v.services[0].path = Path::Unresolved,
                false,
                "next hop that resolves",
            ),
            ("no link", |_, v| v.services[0].path = Path::Down, false, "no port that leads"),
            ("no LIP", |_, v| v.has_local_address = false, false, "no local address"),
            ("stalled worker", |n, _| n.stalled_workers = vec![1], false, "worker 1 is stalled"),
            ("drained", |n, _| n.drain = Drain::Withdrawn, false, "node is drained"),
            (
                "service drained",
                |_, v| v.services[0].drain = Drain::Withdrawn,
                false,
                "service web is drained",
            ),
        ];
        for (sentence, change, announced, reason) in rows {
            let (mut node, mut vip) = (node(), vip(vec![service()]));
            change(&mut node, &mut vip);
            let decision = decide_vip(&node, &vip);
            assert_eq!(decision.announcement.is_some(), *announced, "{sentence}");
            let said = reasons(&decision).join("; ");
            assert!(said.contains(reason), "{sentence}: {said}");
        }
    }

    #[test]
    fn drain_lowers_preference_first() {
        let lowered = NodeView { drain: Drain::Lowered, ..node() };
        let decision = decide_vip(&lowered, &vip(vec![service()]));
        let announcement = decision.announcement.expect("still announced");
        assert_eq!(announcement.bgp.communities, vec![GRACEFUL_SHUTDOWN]);
        let normal = decide_vip(&node(), &vip(vec![service()])).announcement.unwrap();
        assert!(normal.bgp.communities.is_empty());
    }

    #[test]
    fn one_dead_service_does_not_take_its_neighbour_down() {
        let dead = ServiceView { name: "dns".into(), usable: 0, path: Path::Down, ..service() };
        let decision = decide_vip(&node(), &vip(vec![dead, service()]));
        assert!(decision.announcement.is_some());
        assert_eq!(decision.reasons.len(), 2, "both are explained");
    }

    #[test]
    fn one_draining_service_does_not_lower_a_shared_vip() {
        let draining = ServiceView { name: "dns".into(), drain: Drain::Lowered, ..service() };
        let decision = decide_vip(&node(), &vip(vec![draining.clone(), service()]));
        assert!(decision.announcement.unwrap().bgp.communities.is_empty());
        let decision = decide_vip(&node(), &vip(vec![draining]));
        assert_eq!(decision.announcement.unwrap().bgp.communities, vec![GRACEFUL_SHUTDOWN]);
    }

    #[test]
    fn local_prefixes_outlive_a_drain_but_not_a_stall() {
        let local: IpNet = "10.9.1.0/29".parse().unwrap();
        let drained = NodeView { drain: Drain::Withdrawn, ..node() };
        assert!(decide(&drained, &[], &[local])[&local].announcement.is_some());
        let stalled = NodeView { stalled_workers: vec![0], ..node() };
        assert!(decide(&stalled, &[], &[local])[&local].announcement.is_none());
    }

    #[test]
    fn a_vip_without_services_is_withdrawn() {
        assert!(decide_vip(&node(), &vip(vec![])).announcement.is_none());
    }

    #[test]
    fn a_service_overrides_the_defaults_and_a_drain_both() {
        let ospf = |cost, kind| Some(OspfAttributes { cost, kind });
        let node = NodeView {
            ospf_v4: true,
            attributes: Attributes {
                communities: Some(vec![(65001, 1)]),
                link_bandwidth: Some(10_000_000_000),
                med: Some(7),
                next_hop: Some(vec!["fd00::1".parse().unwrap(), "10.0.0.1".parse().unwrap()]),
                ospf: ospf(20, OspfKind::External2),
                ..Attributes::default()
            },
            ..node()
        };
        let mut view = vip(vec![service()]);
        view.attributes.communities = Some(vec![(65001, 2)]);
        let announcement = decide_vip(&node, &view).announcement.unwrap();
        assert_eq!(announcement.bgp.communities, vec![(65001, 2)]);
        assert_eq!(announcement.bgp.med, Some(7));
        assert_eq!(announcement.bgp.next_hop, Some("10.0.0.1".parse().unwrap()));
        let bytes = announcement.bgp.link_bandwidth.unwrap().get();
        assert!((bytes - 1.25e9).abs() < 1.0, "{bytes} bytes per second");
        assert_eq!(announcement.ospf, ospf(20, OspfKind::External2));
        let node = NodeView { drain: Drain::Lowered, ..node };
        let announcement = decide_vip(&node, &view).announcement.unwrap();
        assert_eq!(announcement.bgp.communities, vec![(65001, 2), GRACEFUL_SHUTDOWN]);
        assert_eq!(announcement.ospf, ospf(MAX_EXTERNAL_COST, OspfKind::External2));
        view.attributes.ospf = ospf(5, OspfKind::Stub);
        let announcement = decide_vip(&node, &view).announcement.unwrap();
        assert_eq!(announcement.ospf, ospf(MAX_STUB_COST, OspfKind::Stub));
        view.prefix = "2001:db8::1/128".parse().unwrap();
        assert_eq!(decide_vip(&node, &view).announcement.unwrap().ospf, None, "no OSPFv3");
    }
}
