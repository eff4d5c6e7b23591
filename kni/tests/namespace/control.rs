//! The control interface: the kernel's side, and the device string with a real DPDK.

use crate::support::{in_namespace, index, ip, ip_output, net, until};
use kni::control::{Configurator, Kind, Requested, Spec, plan};
use kni::mirror::{Mirror, MirrorConfig};
use std::io::Read;
use std::process::{Child, Command, Stdio};

#[test]
#[ignore = "needs root: cargo xtask test kni"]
fn a_control_interface_is_configured_and_changed() {
    in_namespace(async |lab| {
        let mut configurator = Configurator::open().expect("netlink");
        let mac = [0x02, 0xd0, 0x11, 0, 0, 1];
        let addresses = [net("10.3.0.1/24"), net("2001:db8:3::1/64")];
        // An address of somebody else's, and an interface that appears only later.
        ip("link del ka");
        let later = async {
            tokio::task::yield_now().await;
            lab.connect("ka", "pa", "192.0.2", "2001:db8:a:");
        };
        let (configured, ()) =
            tokio::join!(configurator.configure("ka", mac, 1400, &addresses), later);
        let ifindex = configured.expect("configured");
        let shown = ip_output("addr show dev ka");
        for part in ["mtu 1400", "02:d0:11:00:00:01", "10.3.0.1/24", "2001:db8:3::1/64", "UP"] {
            assert!(shown.contains(part), "{part} in:\n{shown}");
        }
        for line in shown.lines().filter(|line| line.contains("2001:db8:")) {
            assert!(!line.contains("tentative"), "usable at once: {line}");
        }
        assert!(shown.contains("fe80::d0:11ff:fe00:1/64"), "link-local of the new MAC:\n{shown}");
        let setting = |name: &str| {
            let path = format!("/proc/sys/net/{name}");
            std::fs::read_to_string(&path).expect("sysctl").trim().to_owned()
        };
        assert_eq!(setting("ipv6/conf/ka/keep_addr_on_down"), "1");
        assert_eq!(setting("ipv4/conf/ka/rp_filter"), "2");
        assert_eq!(setting("ipv6/conf/ka/accept_ra"), "0");

        // Other addresses: ours go, the others' stay.
        let other = [net("10.3.0.2/24"), net("2001:db8:3::1/64")];
        assert_eq!(configurator.configure("ka", mac, 1400, &other).await.expect("again"), ifindex);
        let shown = ip_output("addr show dev ka");
        for part in ["10.3.0.2/24", "2001:db8:3::1/64", "192.0.2.1/24", "fe80::d0:11ff:fe00:1/64"] {
            assert!(shown.contains(part), "{part} in:\n{shown}");
        }
        assert!(!shown.contains("10.3.0.1/24"), "{shown}");
        // Another prefix length, which IPv6 cannot have twice.
        let longer = [net("10.3.0.2/25"), net("2001:db8:3::1/80")];
        configurator.configure("ka", mac, 1400, &longer).await.expect("another length");
        let shown = ip_output("addr show dev ka");
        assert!(shown.contains("10.3.0.2/25") && shown.contains("2001:db8:3::1/80"), "{shown}");
        assert!(!shown.contains("10.3.0.2/24") && !shown.contains("3::1/64"), "{shown}");
        // IPv6 addresses outlive the link.
        ip("link set ka down");
        ip("link set ka up");
        assert!(ip_output("addr show dev ka").contains("2001:db8:3::1/80"));
    });
}

/// A DPDK process with the device of a plan. Killed when dropped.
struct TestPmd {
    child: Child,
    prefix: String,
}

impl TestPmd {
    /// Returns once the port is started.
    fn start(vdev: &str) -> Self {
        let prefix = format!("kni-test-{}", std::process::id());
        let child = Command::new("dpdk-testpmd")
            .args(["--no-huge", "-m", "128", "--no-pci", "--file-prefix", &prefix, "--vdev", vdev])
            .args(["--", "-i", "--total-num-mbufs=2048"])
            // Interactive: it runs until this pipe is closed.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("dpdk-testpmd is installed (package dpdk)");
        let mut dpdk = Self { child, prefix };
        dpdk.read_until("testpmd>");
        dpdk
    }

    fn read_until(&mut self, prompt: &str) {
        let stdout = self.child.stdout.as_mut().expect("piped");
        let mut seen = Vec::new();
        let mut buffer = [0; 1024];
        while !String::from_utf8_lossy(&seen).contains(prompt) {
            let read = stdout.read(&mut buffer).expect("testpmd's output");
            assert!(read > 0, "testpmd ended: {}", String::from_utf8_lossy(&seen));
            seen.extend(&buffer[..read]);
        }
    }
}

impl Drop for TestPmd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(format!("/var/run/dpdk/{}", self.prefix));
    }
}

#[test]
#[ignore = "needs root: cargo xtask test kni"]
fn dpdk_makes_the_planned_tap_and_takes_it_along_when_it_dies() {
    in_namespace(async |_| {
        let mac = [0x02, 0xd0, 0x11, 0, 0, 2];
        let spec =
            Spec { index: 0, name: "port0".into(), mac, mtu: 1500, requested: Requested::Tap };
        let planned = plan(&spec).expect("TAP");
        assert_eq!(planned.kind, Kind::Tap);
        let (handle, mut snapshots) =
            Mirror::spawn(MirrorConfig::new(vec![spec.name.clone()])).expect("mirror");
        let dpdk = TestPmd::start(&planned.vdev);
        let mut configurator = Configurator::open().expect("netlink");
        let address = net("192.0.2.1/24");
        let ifindex =
            configurator.configure(&spec.name, mac, 9000, &[address]).await.expect("configured");
        let snapshot = until(&mut snapshots, "up, with carrier", |s| {
            s.links.get(&ifindex).is_some_and(|link| link.up && link.carrier)
                && s.addresses.contains(&(ifindex, address))
        })
        .await;
        assert_eq!(snapshot.links[&ifindex].mac, mac, "the kernel answers ARP with it");
        // The NIC lost its link: the kernel is told.
        configurator.set_carrier(ifindex, false).await.expect("carrier off");
        until(&mut snapshots, "no carrier", |s| !s.links[&ifindex].carrier).await;
        configurator.set_carrier(ifindex, true).await.expect("carrier on");
        until(&mut snapshots, "carrier", |s| s.links[&ifindex].carrier).await;
        drop(dpdk);
        until(&mut snapshots, "gone", |s| index(s, "port0").is_none()).await;
        handle.shutdown().await.expect("shutdown");
    });
}
