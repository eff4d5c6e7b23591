//! Which cores the workers get, and which everything else keeps.

use super::inventory::{Cpu, Inventory};

/// Cores that suit workers, the best first: on the cards' NUMA node, isolated ones before others, one
/// hardware thread of each core, and never the first core, which the kernel and the routing
/// protocols keep. On a machine with a single core, that one.
pub fn for_workers(cpus: &[Cpu], node: Option<u32>) -> Vec<u16> {
    let kept = cpus.iter().map(|cpu| cpu.first_sibling).min();
    let mut fit: Vec<&Cpu> = cpus
        .iter()
        .filter(|cpu| cpu.id == cpu.first_sibling && Some(cpu.first_sibling) != kept)
        .collect();
    fit.sort_by_key(|cpu| (node.is_some_and(|node| cpu.node != node), !cpu.isolated, cpu.id));
    if fit.is_empty() {
        // Two hardware threads of one core are better than one for both jobs.
        fit.extend(cpus.last());
    }
    fit.iter().map(|cpu| cpu.id).collect()
}

/// The cores that are no worker's, ascending.
pub fn for_the_rest(inventory: &Inventory, workers: &[u16]) -> Vec<u16> {
    let ids = inventory.cpus.iter().map(|cpu| cpu.id);
    ids.filter(|id| !workers.contains(id)).collect()
}

/// The NUMA node of most of these cards, if they say.
pub fn node_of(inventory: &Inventory, addresses: &[String]) -> Option<u32> {
    let mut nodes: Vec<u32> =
        addresses.iter().filter_map(|address| inventory.nic(address)?.numa_node).collect();
    nodes.sort_unstable();
    let runs = nodes.chunk_by(|a, b| a == b);
    runs.max_by_key(|run| run.len()).and_then(|run| run.first().copied())
}

/// What the wizard proposes: as many workers as there are cores that suit, at most eight (the
/// queues of common cards), and memory for packets by the memory there is.
pub fn proposal(inventory: &Inventory, ports: &[String]) -> (Vec<u16>, u64) {
    let node = node_of(inventory, ports);
    let mut workers = for_workers(&inventory.cpus, node);
    if let Some(node) = node {
        let near = |id: &u16| inventory.cpus.iter().any(|cpu| cpu.id == *id && cpu.node == node);
        // Cores of another node would reach the card's memory across the interconnect.
        if workers.iter().any(near) {
            workers.retain(near);
        }
    }
    workers.truncate(8);
    workers.sort_unstable();
    let memory_mib = match inventory.memory_mib() {
        0..1_500 => 128,
        1_500..3_500 => 256,
        3_500..7_500 => 512,
        7_500..30_000 => 1024,
        _ => 4096,
    };
    (workers, memory_mib)
}
