//! From the netlink mirror's interfaces to the node's ports.

use crate::control::kernel::{Hop, KernelView};
use crate::forward::tables::{Mac, PortId};
use kni::mirror::{RouteKind, Snapshot};
use std::collections::{BTreeMap, HashMap};

/// Which interface is which port's control interface, as of one snapshot.
#[derive(Debug, Default)]
pub struct Interfaces {
    port_of: HashMap<u32, PortId>,
    index_of: HashMap<PortId, u32>,
}

impl Interfaces {
    /// `names`: of the control interfaces, by port.
    pub fn of(snapshot: &Snapshot, names: &[String]) -> Self {
        let mut interfaces = Self::default();
        for (&index, link) in &snapshot.links {
            if let Some(port) = names.iter().position(|name| *name == link.name) {
                let port = PortId(port as u16);
                interfaces.port_of.insert(index, port);
                interfaces.index_of.insert(port, index);
            }
        }
        interfaces
    }

    /// The kernel's index of the port's control interface, if it exists.
    pub fn index(&self, port: PortId) -> Option<u32> {
        self.index_of.get(&port).copied()
    }

    /// What the snapshot says of the ports. Routes by other interfaces are not ours to use.
    pub fn view(&self, snapshot: &Snapshot) -> KernelView {
        let mut up: Vec<PortId> = snapshot
            .links
            .iter()
            .filter(|(_, link)| link.up && link.carrier)
            .filter_map(|(index, _)| self.port_of.get(index).copied())
            .collect();
        up.sort_unstable();
        let neighbours = snapshot
            .neighbours
            .iter()
            .filter_map(|((index, address), neighbour)| {
                Some(((*self.port_of.get(index)?, *address), Mac(neighbour.mac)))
            })
            .collect();
        let mut routes = BTreeMap::new();
        for route in &snapshot.routes {
            let hops: Vec<Hop> = match route.kind {
                RouteKind::Unicast => route
                    .next_hops
                    .iter()
                    .filter_map(|hop| {
                        let port = *self.port_of.get(&hop.ifindex)?;
                        Some(Hop { port, gateway: hop.via, weight: hop.weight })
                    })
                    .collect(),
                RouteKind::Local => continue,
                RouteKind::Blackhole
                | RouteKind::Unreachable
                | RouteKind::Prohibit
                | RouteKind::Unresolved => Vec::new(),
            };
            routes.insert(route.prefix, hops);
        }
        KernelView { up, routes, neighbours }
    }
}
