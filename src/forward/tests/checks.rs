//! What must hold after every step.

use super::*;
use std::collections::HashSet;

impl World {
    pub(super) fn check(&self) {
        self.engine.flows.check();
        let stats = &self.stats;
        assert_eq!(self.frames, self.forwarded + stats.dropped(), "frames");
        let flows = u64::from(self.engine.flow_count());
        assert_eq!(stats.flows.get(), flows);
        let sharing = &stats.sharing;
        let own = flows - sharing.adopted.get();
        assert_eq!(u64::from(self.engine.pool.in_use()), own, "LIP:port leaked");
        assert!(sharing.adopted.get() <= MAX_ADOPTED.into());
        assert_eq!(self.engine.adoption.lips.flows(), sharing.adopted.get(), "foreign LIPs");
        assert_eq!(
            stats.flows_created.get() + sharing.adoptions.get(),
            flows
                + sharing.unconfirmed.get()
                + stats.flows_expired.get()
                + stats.flows_evicted.get()
                + stats.flows_replaced.get(),
            "flows"
        );
        let sum = |number: &dyn Fn(&stats::Usage) -> u64| -> (u64, u64) {
            let services = (0..8).filter_map(|id| stats.service(ServiceId(id)));
            let backends = (0..16).filter_map(|id| stats.backend(BackendId(id)));
            (services.map(number).sum(), backends.map(number).sum())
        };
        assert_eq!(sum(&|usage| usage.active.get()), (flows, flows), "active");
        let created = stats.flows_created.get();
        assert_eq!(sum(&|usage| usage.total.get()), (created, created));
        let forwarded = self.forwarded;
        let packets =
            |usage: &stats::Usage| usage.requests().packets.get() + usage.replies().packets.get();
        assert_eq!(sum(&packets), (forwarded, forwarded), "packets");
        self.check_views();
        let long = &self.long.stats;
        let usage = |stats: &WorkerStats| -> Vec<_> {
            let services = (0..8).filter_map(|id| stats.service(ServiceId(id)));
            let all = services.chain((0..16).filter_map(|id| stats.backend(BackendId(id))));
            all.map(|usage| format!("{usage:?}")).collect()
        };
        assert_eq!(usage(stats), usage(long), "counted otherwise on the long way");
        assert_eq!(stats.dropped(), long.dropped());
    }

    /// No LIP:port is in use twice toward one backend, no client tuple has two flows, and every
    /// flow is the one the model saw last.
    pub(super) fn check_views(&self) {
        let mut views = Vec::new();
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            cursor = self.engine.scan_flows(&self.tables, self.now, at, 3, &mut views);
        }
        assert_eq!(views.len() as u32, self.engine.flow_count());
        let mut outside = HashSet::new();
        let mut inside = HashSet::new();
        for view in &views {
            let tcp = view.protocol == Protocol::Tcp;
            match view.owner {
                None => assert_eq!(view.lip.port() % WORKERS, 5, "another worker's port"),
                owner => assert_eq!(owner, Some(3)),
            }
            assert!(outside.insert((tcp, view.client, view.vip)), "{view:?}");
            assert!(inside.insert((tcp, view.lip, view.backend)), "{view:?}");
            assert_eq!(
                self.model.get(&(tcp, view.client, view.vip)),
                Some(&(tcp, view.lip, view.backend)),
                "{view:?}"
            );
        }
    }
}
