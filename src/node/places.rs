//! NUMA nodes of the node's workers.

use crate::appliance::host::Root;

/// The NUMA node of a core; `None`: there is no such core, or the kernel knows no NUMA.
pub fn node_of_core(root: &Root, core: u16) -> Option<u32> {
    let entries = root.list(format!("sys/devices/system/cpu/cpu{core}"));
    entries.iter().find_map(|name| name.strip_prefix("node")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_links_each_core_to_its_node() {
        let directory = std::env::temp_dir().join(format!("dunlin-places-{}", std::process::id()));
        for path in ["cpu3/node1", "cpu3/topology", "cpu4/nodes"] {
            std::fs::create_dir_all(directory.join("sys/devices/system/cpu").join(path)).unwrap();
        }
        let root = Root::at(&directory);
        assert_eq!([3, 4, 5].map(|core| node_of_core(&root, core)), [Some(1), None, None]);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
