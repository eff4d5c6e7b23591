//! On made-up machines: what is planned, what is done, and that a second run does nothing.

use super::inventory::{Inventory, parse_list, show_list, show_mask};
use super::plan::{Level, Plan, Step};
use super::{cores, run};
use crate::appliance::devices;
use crate::appliance::fake::{Card, DATA, MANAGEMENT, Machine};
use crate::config::Config;
use crate::config::model::Device;
use std::path::Path;

const CONFIG: &str = "/etc/dunlin/dunlin.toml";

fn config(device: &str, more: &str) -> String {
    format!(
        "[node]\nname = \"lb1\"\n[dataplane]\nworkers = [1]\nmemory = \"256MiB\"\n\
         [[port]]\nname = \"wan0\"\ndevice = \"{device}\"\naddresses = [\"10.1.1.2/24\"]\n{more}"
    )
}

fn parse(text: &str) -> Config {
    Config::parse(text, "t").unwrap_or_else(|errors| panic!("{errors}"))
}

fn machine() -> Machine {
    Machine::new().with(MANAGEMENT).with(DATA).default_route("enp0s2")
}

fn plan(machine: &Machine, text: &str) -> Plan {
    Plan::make(&machine.root(), &Inventory::take(&machine.root()), &parse(text))
}

fn prepared(machine: &Machine, dry_run: bool) -> (String, bool) {
    let mut out = Vec::new();
    let result = run(&machine.host(), Path::new(CONFIG), dry_run, &mut out);
    (String::from_utf8(out).unwrap(), result.is_ok())
}

fn problems(plan: &Plan) -> Vec<&str> {
    let bad = plan.remarks.iter().filter(|remark| remark.level == Level::Problem);
    bad.map(|remark| remark.text.as_str()).collect()
}

#[test]
fn a_data_port_goes_to_vfio_and_the_management_card_stays() {
    let machine = machine();
    machine.write("etc/dunlin/dunlin.toml", &config("mac:52:54:00:00:00:02", ""));
    let (said, done) = prepared(&machine, true);
    assert!(done && said.contains("would bind 0000:00:03.0 (port wan0) to vfio-pci, from igb"));
    assert_eq!(machine.driver(DATA.address).as_deref(), Some("igb"), "dry run: {said}");

    let (said, done) = prepared(&machine, false);
    assert!(done, "{said}");
    assert_eq!(machine.driver(DATA.address).as_deref(), Some("vfio-pci"), "{said}");
    assert_eq!(machine.driver(MANAGEMENT.address).as_deref(), Some("virtio-pci"), "{said}");
    let pages = "sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages";
    assert_eq!(machine.read(pages), "144", "256 MiB and 16 pages to spare");
    assert_eq!(machine.read("proc/irq/24/smp_affinity_list"), "0");
    assert_eq!(machine.read("sys/devices/virtual/workqueue/cpumask"), "00000001");
    let ran = machine.ran.lock().unwrap().join("\n");
    assert!(ran.contains("modprobe vfio-pci"), "{ran}");
    assert!(ran.contains("systemctl set-property --runtime system.slice AllowedCPUs=0"), "{ran}");
}

#[test]
fn a_second_run_changes_nothing_and_still_knows_the_address() {
    let machine = machine();
    machine.write("etc/dunlin/dunlin.toml", &config("mac:52:54:00:00:00:02", ""));
    assert!(prepared(&machine, false).1);
    let before = machine.ran.lock().unwrap().len();
    let (said, done) = prepared(&machine, false);
    assert!(done && said.contains("nothing to change"), "{said}");
    assert_eq!(machine.ran.lock().unwrap().len(), before, "no program was run");
    let ports =
        devices::resolve(&machine.root(), &parse(&config("mac:52:54:00:00:00:02", "")).ports);
    assert_eq!(ports.unwrap()[0].device, Device::Pci(DATA.address.to_owned()));
}

#[test]
fn the_card_that_the_machine_is_reached_by_is_never_taken() {
    let by_route = config("0000:00:02.0", "");
    let machine = machine();
    let found = plan(&machine, &by_route);
    assert!(problems(&found)[0].contains("is the management NIC (enp0s2)"), "{found:?}");
    assert!(!found.steps.iter().any(|step| matches!(step, Step::Bind { .. })), "{found:?}");
    // Named in [management], it stays without a default route too; the other one is then free.
    let named = "[management]\ninterface = \"enp0s3\"\n";
    let found = plan(&machine, &config("0000:00:03.0", named));
    assert!(problems(&found)[0].contains("is the management NIC (enp0s3)"), "{found:?}");
    // A bridge leads to the cards below it.
    let bridged = Machine::new().with(MANAGEMENT).with(DATA).default_route("br0");
    bridged.write("sys/class/net/br0/lower_enp0s2/ifindex", "2");
    assert!(plan(&bridged, &by_route).has_problem());
}

#[test]
fn without_an_iommu_it_is_uio_and_said_loudly() {
    let machine =
        Machine::new().with(MANAGEMENT).with(Card { iommu: false, ..DATA }).default_route("enp0s2");
    machine.write("etc/dunlin/dunlin.toml", &config("0000:00:03.0", ""));
    let (said, done) = prepared(&machine, false);
    assert!(said.contains("WARNING: port wan0: NO IOMMU protects"), "{said}");
    assert!(said.contains("uio_pci_generic not found"), "a module that may be built in: {said}");
    assert!(done, "{said}");
    assert_eq!(machine.driver(DATA.address).as_deref(), Some("uio_pci_generic"));
}

#[test]
fn under_secure_boot_a_card_without_an_iommu_stays_with_the_kernel() {
    let machine =
        Machine::new().with(MANAGEMENT).with(Card { iommu: false, ..DATA }).default_route("enp0s2");
    let states = "sys/kernel/security/lockdown";
    machine.write(states, "none [integrity] confidentiality\n");
    let found = plan(&machine, &config("0000:00:03.0", ""));
    let said = problems(&found);
    assert!(
        said[0].contains("only through an IOMMU, which 0000:00:03.0 is not behind"),
        "{said:?}"
    );
    assert!(!found.steps.iter().any(|step| matches!(step, Step::Bind { .. })), "{found:?}");
    // Behind one, it is as ever; and so it is while the kernel could lock down but did not.
    machine.write(states, "[none] integrity confidentiality\n");
    assert!(!plan(&machine, &config("0000:00:03.0", "")).has_problem());
    let behind = self::machine();
    behind.write(states, "none [integrity] confidentiality\n");
    assert!(!plan(&behind, &config("0000:00:03.0", "")).has_problem());
}

#[test]
fn a_virtio_card_that_goes_past_the_iommu_is_not_given_to_vfio() {
    let card = Card { vendor: "0x1af4", driver: "virtio-pci", ..DATA };
    let features = format!("sys/bus/pci/devices/{}/virtio0/features", card.address);
    let bits = |platform: char| format!("{}{platform}{}\n", "1".repeat(33), "0".repeat(30));
    let bound_to = |platform: char| {
        let machine = Machine::new().with(MANAGEMENT).with(card).default_route("enp0s2");
        machine.write(&features, &bits(platform));
        machine.write("etc/dunlin/dunlin.toml", &config("mac:52:54:00:00:00:02", ""));
        let (said, done) = prepared(&machine, false);
        assert!(done, "{said}");
        let driver = machine.driver(card.address);
        // The kernel's view of the card goes with its driver; the choice stays.
        std::fs::remove_dir_all(machine.path(&features).parent().unwrap()).unwrap();
        assert!(prepared(&machine, false).0.contains("nothing to change"), "{said}");
        (driver, said)
    };
    let (driver, said) = bound_to('0');
    assert_eq!(driver.as_deref(), Some("uio_pci_generic"), "{said}");
    assert!(said.contains("iommu_platform=on"), "{said}");
    let (driver, said) = bound_to('1');
    assert_eq!(driver.as_deref(), Some("vfio-pci"), "{said}");
}

#[test]
fn what_cannot_work_is_a_problem() {
    let cases: &[(&str, &str, &str)] = &[
        ("0000:00:09.0", "", "there is no network card 0000:00:09.0"),
        ("mac:52:54:00:00:00:99", "", "no NIC of this machine has MAC address 52:54:00:00:00:99"),
        ("0000:00:03.0", "workers = [1]|workers = [7]", "core 7, which is not on line"),
        ("0000:00:03.0", "256MiB|8GiB", "takes 4112 hugepages of NUMA node 0"),
    ];
    let machine = machine();
    for (device, change, expected) in cases {
        let mut text = config(device, "");
        if let Some((from, to)) = change.split_once('|') {
            text = text.replace(from, to);
        }
        let found = plan(&machine, &text);
        assert!(problems(&found).iter().any(|p| p.contains(expected)), "{expected}: {found:?}");
    }
}

#[test]
fn shared_drivers_keep_their_card_and_virtual_devices_need_nothing() {
    let machine = Machine::new().with(MANAGEMENT).with(Card { driver: "mlx5_core", ..DATA });
    let found = plan(&machine, &config("0000:00:03.0", ""));
    assert!(!found.steps.iter().any(|step| matches!(step, Step::Bind { .. })), "{found:?}");
    let found = plan(&machine, &config("net_tap0", ""));
    assert!(found.ports.is_empty() && !found.has_problem(), "{found:?}");
}

#[test]
fn workers_get_whole_cores_near_the_card_and_never_the_first() {
    let machine = Machine::new();
    machine.write("sys/devices/system/cpu/online", "0-7");
    machine.write("sys/devices/system/node/node0/cpulist", "0-1,4-5");
    machine.write("sys/devices/system/node/node1/cpulist", "2-3,6-7");
    for cpu in 0..8 {
        let siblings = format!("{},{}", cpu % 4, cpu % 4 + 4);
        let at = format!("sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        machine.write(&at, &siblings);
    }
    machine.write("sys/devices/system/cpu/isolated", "3");
    let inventory = Inventory::take(&machine.root());
    assert_eq!(cores::for_workers(&inventory.cpus, Some(1)), [3, 2, 1]);
    assert_eq!(cores::for_workers(&inventory.cpus, Some(0)), [1, 3, 2]);
    assert_eq!(cores::for_workers(&inventory.cpus, None), [3, 1, 2]);
    assert_eq!(cores::for_the_rest(&inventory, &[1, 2, 3]), [0, 4, 5, 6, 7]);
    machine.write("sys/devices/system/cpu/online", "0");
    let single = Inventory::take(&machine.root());
    assert_eq!(cores::for_workers(&single.cpus, None), [0]);
}

#[test]
fn lists_and_masks_are_the_kernels() {
    for (text, numbers) in [("0-3,8", vec![0, 1, 2, 3, 8]), ("", vec![]), ("5", vec![5])] {
        assert_eq!(parse_list(text), numbers);
        assert_eq!(show_list(&numbers), text);
    }
    assert_eq!(parse_list("x,1-,2-1,9"), [9]);
    assert_eq!(parse_list("0-65535").len(), 4096, "bounded");
    assert_eq!(show_mask(&[0, 2]), "00000005");
    assert_eq!(show_mask(&[1, 33]), "00000002,00000002");
}

/// Flows lie where workers are, packet buffers where cards are.
#[test]
fn a_card_far_from_the_workers_has_hugepages_too() {
    let machine = machine();
    let far = "sys/devices/system/node/node1";
    machine.write(&format!("{far}/cpulist"), "2-3\n");
    machine.write(&format!("{far}/meminfo"), "Node 1 MemTotal:        2097152 kB\n");
    machine.write(&format!("{far}/hugepages/hugepages-2048kB/nr_hugepages"), "0\n");
    let pages = |found: Plan| {
        let of_step = |step: &Step| match step {
            Step::Hugepages { node, to, .. } => Some((*node, *to)),
            _ => None,
        };
        found.steps.iter().filter_map(of_step).collect::<Vec<_>>()
    };
    let text = config("0000:00:03.0", "");
    assert_eq!(pages(plan(&machine, &text)), [(0, 144)], "the card is on no node");
    machine.write("sys/bus/pci/devices/0000:00:03.0/numa_node", "1\n");
    assert_eq!(pages(plan(&machine, &text)), [(0, 80), (1, 80)], "half each, and some to spare");
}
