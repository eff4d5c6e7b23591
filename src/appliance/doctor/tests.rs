//! Each complaint on a machine that has the cause, and none on one that has not.

use super::{Level, Report, show};
use crate::api::model::{ControlInterface, PortInfo, Status};
use crate::appliance::fake::{Card, DATA, MANAGEMENT, Machine};
use crate::appliance::machine;
use crate::appliance::node::{Node, Sessions};
use crate::cli::table::Style;
use anyhow::{Result, bail};
use std::path::Path;

const CONFIG: &str = "/etc/dunlin/dunlin.toml";
const TEXT: &str = "[node]\nname = \"lb1\"\n[dataplane]\nworkers = [1]\nmemory = \"256MiB\"\n\
                    [management]\ninterface = \"enp0s2\"\n[[port]]\nname = \"wan0\"\n\
                    device = \"mac:52:54:00:00:00:02\"\naddresses = [\"10.1.1.2/24\"]\n";

/// A node that runs, with what a test changes about its port; or none. And its workers' hint.
#[derive(Debug)]
struct Running(Option<fn(&mut PortInfo)>, &'static str);

impl Node for Running {
    fn status(&self) -> Result<Status> {
        if self.0.is_none() {
            bail!("no socket");
        }
        let text = include_str!("../../../tests/fixtures/cli/status.json");
        let mut status: Status = serde_json::from_str(text)?;
        for worker in &mut status.workers {
            worker.hint = self.1.to_owned();
        }
        Ok(status)
    }

    fn ports(&self) -> Result<Vec<PortInfo>> {
        let Some(change) = self.0 else { bail!("no socket") };
        let text = include_str!("../../../tests/fixtures/cli/ports.json");
        let mut ports: Vec<PortInfo> = serde_json::from_str(text)?;
        ports.truncate(1);
        let port = &mut ports[0];
        port.name = "wan0".to_owned();
        (port.link_up, port.rx_queues, port.stats.rx_missed) = (true, 8, 0);
        port.steering.mode = crate::api::model::SteeringMode::Rss;
        if let Some(control) = &mut port.control {
            control.kind = ControlInterface::VhostNet;
        }
        change(port);
        Ok(ports)
    }

    fn sessions(&self) -> Result<Sessions> {
        bail!("not asked for")
    }

    fn drain(&self, _: &str) -> Result<()> {
        bail!("not asked for")
    }
}

const FINE: Running = Running(Some(|_| {}), "");

/// A machine on which nothing is left to wish for.
fn sound() -> Machine {
    let machine = Machine::new().with(MANAGEMENT).with(DATA).default_route("enp0s2");
    machine.write("etc/dunlin/dunlin.toml", TEXT);
    machine.write("proc/cpuinfo", "model name\t: Testium 9000\nflags\t: constant_tsc\n");
    machine.write("sys/devices/system/cpu/isolated", "1");
    machine.write("usr/lib/x86_64-linux-gnu/dpdk/pmds-25.0/librte_net_e1000.so.25.0", "");
    machine.write("usr/lib/x86_64-linux-gnu/dpdk/pmds-25.0/librte_net_virtio.so.25.0", "");
    machine::run(&machine.host(), Path::new(CONFIG), false, &mut Vec::new()).unwrap();
    machine
}

fn report(machine: &Machine, node: &dyn Node) -> Report {
    Report::make(&machine.host(), node, Path::new(CONFIG))
}

#[test]
fn a_machine_that_is_ready_has_no_findings_and_says_what_was_chosen() {
    let machine = sound();
    let report = report(&machine, &FINE);
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    let text = show::text(&report, Style::default());
    for part in [
        "Testium 9000, 2 cores, 1 NUMA node",
        "0000:00:03.0  port wan0",
        "52:54:00:00:00:02  Intel",
        "enp0s2 (0000:00:02.0) stays with the kernel  [management] names it",
        "0000:00:03.0 on vfio-pci",
        "it is in IOMMU group 7",
        "144 of 2 MiB",
        "No problems.",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(serde_json::to_string(&report).unwrap().contains("\"role\":\"port wan0\""));
}

#[test]
fn every_complaint_has_its_cause() {
    type Case = (fn(&Machine), Running, Level, &'static str);
    let none: fn(&Machine) = |_| {};
    let cases: &[Case] = &[
        (|m| m.write("etc/dunlin/dunlin.toml", "[nod]"), FINE, Level::Problem, "is not valid"),
        (
            |m| std::fs::remove_file(m.path("etc/dunlin/dunlin.toml")).unwrap(),
            FINE,
            Level::Problem,
            "there is no configuration",
        ),
        (none, Running(None, ""), Level::Problem, "the node does not answer"),
        (
            |m| {
                let at = "sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages";
                m.write(at, "0");
            },
            FINE,
            Level::Problem,
            "no hugepages are reserved",
        ),
        (
            |m| std::fs::remove_dir_all(m.path("sys/kernel/iommu_groups")).unwrap(),
            FINE,
            Level::Warning,
            "no IOMMU",
        ),
        (
            |m| {
                let group = "sys/bus/pci/devices/0000:00:03.0/iommu_group";
                std::fs::remove_file(m.path(group)).unwrap();
                m.write("sys/kernel/security/lockdown", "none [integrity] confidentiality");
            },
            FINE,
            Level::Problem,
            "Secure Boot locks the kernel down",
        ),
        (
            |m| {
                let at = "usr/lib/x86_64-linux-gnu/dpdk/pmds-25.0/librte_net_e1000.so.25.0";
                std::fs::remove_file(m.path(at)).unwrap();
            },
            FINE,
            Level::Problem,
            "the DPDK driver for 0000:00:03.0 (Intel, 8086:1000) is not",
        ),
        (
            |m| {
                m.write("sys/kernel/iommu_groups/7/devices/0000:00:03.0", "");
                m.write("sys/kernel/iommu_groups/7/devices/0000:00:02.0", "");
            },
            FINE,
            Level::Problem,
            "shares IOMMU group 7 with 0000:00:02.0 (virtio-pci)",
        ),
        (
            |m| m.write("sys/bus/pci/devices/0000:00:03.0/vendor", "0x10ec"),
            FINE,
            Level::Problem,
            "no DPDK driver is known for 0000:00:03.0",
        ),
        (
            |m| {
                m.write("sys/bus/pci/devices/0000:00:03.0/current_link_width", "4");
                m.write("sys/bus/pci/devices/0000:00:03.0/max_link_width", "8");
            },
            FINE,
            Level::Faster,
            "PCIe lanes 4, and the card can do 8",
        ),
        (
            |m| m.write("sys/devices/system/cpu/isolated", ""),
            FINE,
            Level::Faster,
            "may run other work on the workers' cores 1",
        ),
        (
            |m| m.write("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave"),
            FINE,
            Level::Faster,
            "the clock of cores 1",
        ),
        (|m| m.write("proc/cpuinfo", "flags : x"), FINE, Level::Warning, "is not constant"),
        (
            |m| std::fs::remove_file(m.path("dev/watchdog0")).unwrap(),
            FINE,
            Level::Warning,
            "no hardware watchdog",
        ),
        (
            |m| std::fs::remove_file(m.path("dev/net/tun")).unwrap(),
            FINE,
            Level::Problem,
            "there is no /dev/net/tun",
        ),
        (
            |m| std::fs::remove_file(m.path("dev/vhost-net")).unwrap(),
            Running(None, ""),
            Level::Faster,
            "there is no /dev/vhost-net",
        ),
        (
            |m| m.write("etc/dunlin/dunlin.toml", &TEXT.replace("[1]", "[0, 1]")),
            FINE,
            Level::Warning,
            "every core has a worker",
        ),
        (
            |m| m.write("etc/dunlin/dunlin.toml", &TEXT.replace("[1]", "[0]")),
            FINE,
            Level::Faster,
            "a worker is on core 0",
        ),
        (
            none,
            Running(Some(|port| port.link_up = false), ""),
            Level::Problem,
            "port wan0 has no link",
        ),
        (
            none,
            Running(Some(|port| port.rx_queues = 1), ""),
            Level::Faster,
            "1 receive queues for 2",
        ),
        (
            none,
            Running(Some(|port| port.stats.rx_missed = 9), ""),
            Level::Faster,
            "dropped 9 packets",
        ),
        (
            none,
            Running(Some(|_| {}), "flows on NUMA node 1"),
            Level::Faster,
            "worker 1: flows on NUMA node 1",
        ),
        (
            none,
            Running(Some(|port| port.numa_node = Some(1)), ""),
            Level::Faster,
            "port wan0 is on NUMA node 1, its packet buffers are not: where the port is",
        ),
        (
            none,
            Running(
                Some(|port| {
                    if let Some(control) = &mut port.control {
                        control.kind = ControlInterface::Tap;
                    }
                }),
                "",
            ),
            Level::Faster,
            "its control interface is a TAP",
        ),
        (
            |m| m.write("usr/lib/dunlin/release", "VERSION=0"),
            FINE,
            Level::Warning,
            "nobody can log in by ssh",
        ),
        (
            |m| m.write("usr/lib/dunlin/release", "VERSION=0"),
            FINE,
            Level::Warning,
            "no other version to go back to",
        ),
    ];
    for (change, node, level, expected) in cases {
        let machine = sound();
        change(&machine);
        let report = report(&machine, node);
        let found = report.findings.iter().find(|finding| finding.what.contains(expected));
        let found = found.unwrap_or_else(|| panic!("{expected}: {:#?}", report.findings));
        assert_eq!(found.level, *level, "{expected}");
        assert_eq!(report.has_problem(), report.findings.iter().any(|f| f.level == Level::Problem));
        let text = show::text(&report, Style::default());
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn a_machine_that_was_not_prepared_is_told_what_is_missing() {
    let machine = Machine::new().with(MANAGEMENT).with(Card { link: false, ..DATA });
    machine.write("etc/dunlin/dunlin.toml", TEXT);
    let report = report(&machine, &Running(None, ""));
    let text = show::text(&report, Style::default());
    assert!(text.contains("not done yet: bind 0000:00:03.0 (port wan0) to vfio-pci, from igb"));
    assert!(text.contains("→ dunlin machine") && report.has_problem(), "{text}");
    assert!(text.contains("no link, 10 Gbit/s"), "{text}");
}
