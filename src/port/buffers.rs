//! Which pools of packet buffers a node needs: one for each NUMA node that has a port.
//!
//! A NIC writes what it receives into the buffers that its receive queues were given, so these lie
//! on the NIC's own NUMA node. In: where ports are and how many buffers they hold. Out: a plan; who
//! makes the pools says what became of it ([`make`]). Nothing here knows DPDK.

/// Buffers of a pool for which nobody asked otherwise.
pub const USUAL: u32 = 32_768;

/// What one port, with its control interface, asks of the pool that it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// NUMA node of its device; `None`: it is on none, as virtual devices are.
    pub node: Option<u32>,
    /// Descriptors of all its queues, both directions: each holds a buffer.
    pub descriptors: u32,
}

/// What else is known of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surroundings {
    pub workers: u16,
    /// Buffers that a worker holds besides those in queues, most of them in its cache of the pool.
    pub held_by_worker: u32,
    /// NUMA node of the first worker: for ports that are on none.
    pub home: Option<u32>,
    /// Memory is taken by NUMA node. If not, one pool is enough.
    pub by_node: bool,
    /// What the operator wants in every pool.
    pub configured: Option<u32>,
}

/// One pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolPlan {
    /// `None`: any.
    pub node: Option<u32>,
    pub mbufs: u32,
    /// With all queues full. More than `mbufs` only if the operator wants so few.
    pub needed: u32,
}

/// All pools, and who uses which.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    pub pools: Vec<PoolPlan>,
    /// By port: index of its pool.
    pub of_port: Vec<usize>,
}

/// One pool for each NUMA node that some port is on, in the order of the ports.
pub fn plan(ports: &[Demand], around: &Surroundings) -> Plan {
    let held = u32::from(around.workers).saturating_mul(around.held_by_worker);
    let mut plan = Plan::default();
    for port in ports {
        let node = if around.by_node { port.node.or(around.home) } else { None };
        let known = plan.pools.iter().position(|pool| pool.node == node);
        let index = known.unwrap_or_else(|| {
            plan.pools.push(PoolPlan { node, mbufs: 0, needed: held });
            plan.pools.len() - 1
        });
        let pool = &mut plan.pools[index];
        pool.needed = pool.needed.saturating_add(port.descriptors);
        plan.of_port.push(index);
    }
    for pool in &mut plan.pools {
        pool.mbufs = around.configured.unwrap_or_else(|| pool.needed.max(USUAL));
    }
    plan
}

/// A pool, and what came of its plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made<P> {
    pub pool: P,
    /// Where it lies; `None`: wherever there was memory.
    pub node: Option<u32>,
    pub mbufs: u32,
    /// What could not be had, and why. `None`: it is as planned.
    pub disappointment: Option<String>,
}

/// Make a pool, with `create(buffers, node)`: as planned, or else wherever there is memory, or else
/// there with the usual number. Fails with the last error.
pub fn make<P, E: std::fmt::Display>(
    plan: &PoolPlan,
    mut create: impl FnMut(u32, Option<u32>) -> Result<P, E>,
) -> Result<Made<P>, E> {
    let made = |pool, node, mbufs, disappointment| Made { pool, node, mbufs, disappointment };
    let mut error = match create(plan.mbufs, plan.node) {
        Ok(pool) => return Ok(made(pool, plan.node, plan.mbufs, None)),
        Err(error) => error,
    };
    let mut why = format!("{error}");
    if let Some(node) = plan.node {
        why = format!("not on NUMA node {node}: {error}");
        match create(plan.mbufs, None) {
            Ok(pool) => return Ok(made(pool, None, plan.mbufs, Some(why))),
            Err(next) => error = next,
        }
    }
    // More than usual was our own idea.
    if plan.mbufs > USUAL && plan.mbufs == plan.needed {
        let pool = create(USUAL, None)?;
        let why = format!("{} would be right, but {why}", plan.mbufs);
        return Ok(made(pool, None, USUAL, Some(why)));
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AROUND: Surroundings = Surroundings {
        workers: 2,
        held_by_worker: 1000,
        home: Some(0),
        by_node: true,
        configured: None,
    };

    fn port(node: Option<u32>, descriptors: u32) -> Demand {
        Demand { node, descriptors }
    }

    fn pool(node: Option<u32>, mbufs: u32, needed: u32) -> PoolPlan {
        PoolPlan { node, mbufs, needed }
    }

    #[test]
    fn every_numa_node_with_a_port_has_a_pool() {
        let one_pool = Surroundings { by_node: false, ..AROUND };
        let told = Surroundings { configured: Some(9000), ..AROUND };
        let lost = Surroundings { home: None, ..AROUND };
        let far = [port(Some(1), 4096), port(Some(0), 4096), port(Some(1), 65_536)];
        type Case<'c> = (&'c str, &'c [Demand], Surroundings, Vec<PoolPlan>, Vec<usize>);
        let cases: [Case<'_>; 8] = [
            ("no port", &[], AROUND, vec![], vec![]),
            ("few need the usual", &far[1..2], AROUND, vec![pool(Some(0), USUAL, 6096)], vec![0]),
            (
                "two nodes; the queues of both ports of one count",
                &far,
                AROUND,
                vec![pool(Some(1), 71_632, 71_632), pool(Some(0), USUAL, 6096)],
                vec![0, 1, 0],
            ),
            (
                "on no node: where the first worker is",
                &[port(None, 10), port(Some(0), 10)],
                AROUND,
                vec![pool(Some(0), USUAL, 2020)],
                vec![0, 0],
            ),
            (
                "that is not known either",
                &[port(None, 10)],
                lost,
                vec![pool(None, USUAL, 2010)],
                vec![0],
            ),
            ("one for all", &far, one_pool, vec![pool(None, 75_728, 75_728)], vec![0, 0, 0]),
            (
                "as the operator wants",
                &far,
                told,
                vec![pool(Some(1), 9000, 71_632), pool(Some(0), 9000, 6096)],
                vec![0, 1, 0],
            ),
            (
                "no overflow",
                &[port(Some(0), u32::MAX), port(Some(0), u32::MAX)],
                AROUND,
                vec![pool(Some(0), u32::MAX, u32::MAX)],
                vec![0, 0],
            ),
        ];
        for (what, ports, around, pools, of_port) in cases {
            assert_eq!(plan(ports, &around), Plan { pools, of_port }, "{what}");
        }
    }

    /// Pools are numbers of buffers here, and memory is what `left` says.
    fn make_with(plan: PoolPlan, left: impl Fn(Option<u32>) -> u32) -> Result<Made<u32>, String> {
        make(&plan, |mbufs, node| {
            if mbufs <= left(node) { Ok(mbufs) } else { Err(format!("no room for {mbufs}")) }
        })
    }

    #[test]
    fn what_does_not_fit_the_node_is_taken_elsewhere_and_said() {
        let near = pool(Some(1), USUAL, 6000);
        let got = make_with(near, |_| u32::MAX).unwrap();
        assert_eq!((got.node, got.mbufs, got.disappointment), (Some(1), USUAL, None));

        let got = make_with(near, |node| if node == Some(1) { 0 } else { USUAL }).unwrap();
        assert_eq!((got.node, got.pool), (None, USUAL));
        let why = got.disappointment.unwrap();
        assert_eq!(why, "not on NUMA node 1: no room for 32768");

        let large = pool(Some(1), 71_632, 71_632);
        let got = make_with(large, |_| USUAL).unwrap();
        assert_eq!((got.node, got.mbufs, got.pool), (None, USUAL, USUAL));
        let why = got.disappointment.unwrap();
        assert!(why.contains("71632 would be right") && why.contains("NUMA node 1"), "{why}");
    }

    #[test]
    fn what_the_operator_wants_and_does_not_fit_is_an_error() {
        for wanted in [pool(None, USUAL, 6000), pool(Some(0), 100_000, 6000)] {
            let refused = make_with(wanted, |_| 1000).unwrap_err();
            assert_eq!(refused, format!("no room for {}", wanted.mbufs));
        }
    }
}
