//! From the node's state to what the workers need: [`TablesSpec`].

use super::state::State;
use crate::forward::tables::{
    NeighbourSpec, NextHopId, NextHopSpec, PortId, RouteSpec, TablesSpec,
};
use std::collections::BTreeMap;
use std::net::IpAddr;

impl State {
    /// The tables that follow from the state, if they differ from `previous`. The caller publishes
    /// them; the state notes their epoch.
    pub fn next_tables(&mut self, previous: &TablesSpec) -> Option<TablesSpec> {
        let mut spec = self.tables_spec();
        spec.epoch = previous.epoch;
        if spec == *previous {
            return None;
        }
        spec.epoch += 1;
        self.published(spec.epoch);
        Some(spec)
    }

    fn tables_spec(&mut self) -> TablesSpec {
        let mut hops: BTreeMap<(PortId, Option<IpAddr>), NextHopId> = BTreeMap::new();
        let routes = self
            .kernel
            .routes
            .iter()
            .map(|(&prefix, ways)| RouteSpec {
                prefix,
                next_hops: ways
                    .iter()
                    .map(|hop| {
                        let next = NextHopId(hops.len() as u32);
                        (*hops.entry((hop.port, hop.gateway)).or_insert(next), hop.weight)
                    })
                    .collect(),
            })
            .collect();
        let mut next_hops: Vec<NextHopSpec> = hops
            .into_iter()
            .map(|((port, gateway), id)| NextHopSpec { id, port, gateway })
            .collect();
        next_hops.sort_by_key(|hop| hop.id);
        let neighbours = self
            .kernel
            .neighbours
            .iter()
            .map(|(&(port, address), &mac)| NeighbourSpec { port, address, mac })
            .collect();
        let mut ports = self.ports.clone();
        for port in &mut ports {
            port.up &= self.kernel.up.contains(&port.id);
        }
        TablesSpec {
            epoch: 0,
            workers: self.workers.len() as u16,
            ports,
            services: self.service_specs(),
            lips: self.lip_specs(),
            routes,
            next_hops,
            neighbours,
        }
    }
}
