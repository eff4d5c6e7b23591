//! OPEN: what we offer, whether the peer's is acceptable (RFC 4271 §6.2), what follows from both.

use super::{Endpoints, Session, Slot};
use crate::bgp::rib::ExportContext;
use crate::bgp::wire::{
    Capabilities, DecodeContext, Families, GracefulRestart, MAX_EXTENDED_MESSAGE, MAX_MESSAGE,
    NextHop, Notification, Open, Role, code, open_error,
};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// What both sides settled on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Negotiated {
    /// Zero: no keepalives.
    pub hold_time: Duration,
    pub keepalive: Duration,
    pub families: Families,
    pub four_octet_as: bool,
    pub extended_message: bool,
    pub extended_next_hop: bool,
    pub route_refresh: bool,
    pub enhanced_route_refresh: bool,
    pub remote_asn: u32,
    pub remote_id: Ipv4Addr,
    /// iBGP.
    pub internal: bool,
}

impl Negotiated {
    pub(super) fn decode_context(&self) -> DecodeContext {
        DecodeContext {
            four_octet_as: self.four_octet_as,
            internal: self.internal,
            families: self.families,
            extended_next_hop: self.extended_next_hop,
        }
    }
}

impl Session {
    pub(super) fn our_open(&self) -> Open {
        Open {
            asn: self.local.asn,
            hold_time: self.config.offered_hold_time(),
            router_id: self.local.router_id,
            capabilities: Capabilities {
                families: self.config.families,
                four_octet_as: true,
                route_refresh: true,
                enhanced_route_refresh: true,
                extended_message: true,
                extended_next_hop: self.config.extended_next_hop,
                graceful_restart: Some(self.our_restart()),
                // For eBGP only (RFC 9234 §4.1).
                role: self.config.role.filter(|_| self.config.is_external(self.local.asn)),
                unknown: Vec::new(),
            },
        }
    }

    /// Unless the operator asks for more, we only help others: End-of-RIB is spoken, nothing is
    /// claimed to survive us (RFC 4724 §3). Restart time 0 with no family: routes go when we go.
    ///
    /// With it, forwarding counts as preserved: when a session comes back, the packet path behind
    /// it runs, and what it does not serve any more is withdrawn by End-of-RIB.
    fn our_restart(&self) -> GracefulRestart {
        match self.config.graceful_restart {
            Some(seconds) => GracefulRestart {
                restarting: self.restarting_until.is_some(),
                restart_time: seconds,
                preserved: self.config.families,
            },
            None => GracefulRestart {
                restarting: false,
                restart_time: 0,
                preserved: Families::default(),
            },
        }
    }

    /// # Errors
    /// The NOTIFICATION that says what is not acceptable.
    pub(super) fn negotiate(&self, open: &Open) -> Result<Negotiated, Notification> {
        let refuse = |subcode| Err(Notification::new(code::OPEN, subcode));
        let internal = open.asn == self.local.asn;
        if !self.config.remote_as.accepts(open.asn, self.local.asn) {
            return refuse(open_error::BAD_PEER_AS);
        }
        // RFC 6286 §2.2: unique within the AS; neighbours in other ASes may share ours.
        if internal && open.router_id == self.local.router_id {
            return refuse(open_error::BAD_IDENTIFIER);
        }
        // Keepalives are off only if both want it so: the liveness of a VIP hangs on them.
        let offered = self.config.offered_hold_time();
        if (offered == 0) != (open.hold_time == 0) {
            return refuse(open_error::HOLD_TIME);
        }
        let theirs = &open.capabilities;
        let families = self.config.families.intersection(theirs.families);
        if families == Families::default() {
            return refuse(open_error::UNSUPPORTED_CAPABILITY);
        }
        if let (Some(role), false) = (self.config.role, internal) {
            let fits = theirs.role.map_or(!self.config.role_strict, |r| role.accepts(r));
            if !fits {
                return refuse(open_error::ROLE_MISMATCH);
            }
        }
        let hold_time = Duration::from_secs(u64::from(offered.min(open.hold_time)));
        Ok(Negotiated {
            hold_time,
            keepalive: hold_time / 3,
            families,
            four_octet_as: theirs.four_octet_as,
            extended_message: theirs.extended_message,
            extended_next_hop: self.config.extended_next_hop && theirs.extended_next_hop,
            route_refresh: theirs.route_refresh,
            enhanced_route_refresh: theirs.enhanced_route_refresh,
            remote_asn: open.asn,
            remote_id: open.router_id,
            internal,
        })
    }

    pub(super) fn export_context(&mut self, slot: Slot) -> Option<ExportContext> {
        let conn = self.at(slot);
        let (n, endpoints) = (conn.negotiated.clone()?, conn.endpoints?);
        let sells =
            matches!(self.config.role, Some(Role::Provider | Role::RouteServer | Role::Peer));
        Some(ExportContext {
            local_asn: self.local.asn,
            internal: n.internal,
            four_octet_as: n.four_octet_as,
            max_message: if n.extended_message { MAX_EXTENDED_MESSAGE } else { MAX_MESSAGE },
            families: n.families,
            extended_next_hop: n.extended_next_hop,
            next_hop_v4: self.config.next_hop_v4.or(next_hop_v4(&endpoints)),
            next_hop_v6: match self.config.next_hop_v6 {
                Some(address) => Some(NextHop { address: address.into(), link_local: None }),
                None => next_hop_v6(&endpoints),
            },
            only_to_customer: sells && !n.internal,
            enhanced_refresh: n.enhanced_route_refresh,
        })
    }
}

/// The session's own address, or the interface's.
fn next_hop_v4(endpoints: &Endpoints) -> Option<Ipv4Addr> {
    match endpoints.local.ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => endpoints.v4,
    }
}

/// The session's own address, or the interface's global one; a link-local one beside it where
/// the session itself is link-local, doubled if there is no other (RFC 2545 §3).
fn next_hop_v6(endpoints: &Endpoints) -> Option<NextHop> {
    let global = |address: Ipv6Addr| NextHop { address: address.into(), link_local: None };
    match endpoints.local.ip() {
        IpAddr::V6(own) if own.is_unicast_link_local() => {
            Some(NextHop { address: endpoints.v6.unwrap_or(own).into(), link_local: Some(own) })
        }
        IpAddr::V6(own) => Some(global(own)),
        IpAddr::V4(_) => endpoints.v6.map(global),
    }
}
