//! What the fabric's hosts are told: FRR's configuration and the nodes'.

use super::{Options, PORT, Speaks, TOR_AS, VIP4, VIP6, backend_addresses, node_addresses};
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

/// FRR's configuration where nodes speak OSPF.
pub(crate) fn ospf_router_config(options: &Options) -> String {
    let bfd = options.bfd.as_millis();
    let mut config = format!(
        "hostname tor\n\
         log timestamp precision 3\n\
         bfd\n profile lab\n  detect-multiplier 3\n  receive-interval {bfd}\n  \
         transmit-interval {bfd}\n exit\nexit\n"
    );
    for n in 1..=options.nodes {
        let _ = writeln!(config, "interface n{n}");
        for v in ["ip ospf", "ipv6 ospf6"] {
            let _ = write!(
                config,
                " {v} area 0\n {v} network point-to-point\n {v} hello-interval 1\n \
                 {v} dead-interval 3\n {v} bfd\n {v} bfd profile lab\n"
            );
        }
        config.push_str("exit\n");
    }
    for (router, id) in [("ospf", "ospf router-id"), ("ospf6", "ospf6 router-id")] {
        let _ = write!(config, "router {router}\n {id} 10.100.0.1\n maximum-paths 16\nexit\n");
    }
    config
}

/// FRR's configuration where nodes speak BGP.
pub(crate) fn router_config(options: &Options) -> String {
    let bfd = options.bfd.as_millis();
    let (keepalive, hold) = (options.hold.as_secs() / 3, options.hold.as_secs());
    let mut peers = String::new();
    let mut families = [String::new(), String::new()];
    for n in 1..=options.nodes {
        for (family, address) in node_addresses(n).into_iter().enumerate() {
            let asn = TOR_AS + u32::from(n);
            let _ = write!(
                peers,
                " neighbor {address} remote-as {asn}\n \
                 neighbor {address} description node{n}\n \
                 neighbor {address} timers connect 1\n \
                 neighbor {address} advertisement-interval 0\n \
                 neighbor {address} bfd profile lab\n"
            );
            let _ = writeln!(families[family], "  neighbor {address} activate");
            if address.is_ipv6() {
                // Next hops by which tests can tell the nodes apart.
                let _ = writeln!(families[family], "  neighbor {address} route-map global in");
            }
        }
    }
    let [v4, v6] = families;
    format!(
        "hostname tor\n\
         log timestamp precision 3\n\
         bfd\n \
         profile lab\n  \
         detect-multiplier 3\n  \
         receive-interval {bfd}\n  \
         transmit-interval {bfd}\n \
         exit\n\
         exit\n\
         route-map global permit 10\n \
         set ipv6 next-hop prefer-global\n\
         exit\n\
         router bgp {TOR_AS}\n \
         bgp router-id 10.100.0.1\n \
         no bgp ebgp-requires-policy\n \
         no bgp default ipv4-unicast\n \
         no bgp network import-check\n \
         bgp bestpath as-path multipath-relax\n \
         timers bgp {keepalive} {hold}\n\
         {peers} \
         address-family ipv4 unicast\n  \
         maximum-paths 16\n\
         {v4} \
         exit-address-family\n \
         address-family ipv6 unicast\n  \
         maximum-paths 16\n\
         {v6} \
         exit-address-family\n\
         exit\n"
    )
}

fn bgp_of_node(n: u8, hold: Duration) -> String {
    let hold = hold.as_secs();
    let asn = TOR_AS + u32::from(n);
    format!(
        r#"[bgp]
asn = {asn}

[[bgp.neighbor]]
address = "10.1.{n}.1"
asn = {TOR_AS}
hold-time = "{hold}s"
connect-retry = "1s"
bfd = true

[[bgp.neighbor]]
address = "fd00:1:{n}::1"
asn = {TOR_AS}
hold-time = "{hold}s"
connect-retry = "1s"
bfd = true
"#
    )
}

fn ospf_of_node() -> String {
    let version = |name: &str| {
        format!(
            "[{name}]\nbfd = true\n\n[[{name}.interface]]\nname = \"dn0\"\n\
             hello-interval = \"1s\"\ndead-interval = \"3s\"\n\n"
        )
    };
    version("ospf") + &version("ospf3")
}

/// The configuration of node `n`.
pub fn node_config(n: u8, socket: &Path, options: &Options) -> String {
    let [node4, _] = node_addresses(n);
    format!(
        r#"# Node {n} of the lab. The annotated example is docs/example.toml.
[node]
name = "node{n}"
router-id = "{node4}"
api-socket = "{socket}"

[dataplane]
workers = {workers:?}
poll = "adaptive"
max-flows = 65_536
memory = "256MiB"
hugepages = false
file-prefix = "dunlin-lab-{pid}-{n}"
mbufs = 16_384

{port}
{duty}{extra}"#,
        socket = socket.display(),
        workers = options.workers,
        pid = std::process::id(),
        port = node_port(n, "net_af_packet,iface=eth0", "tap"),
        duty = node_duty(n, options),
        extra = options.extra,
    )
}

/// Node `n`'s port to the router, on a DPDK device, and its default routes.
pub(crate) fn node_port(n: u8, device: &str, control: &str) -> String {
    let [node4, node6] = node_addresses(n);
    format!(
        r#"[[port]]
name = "dn0"
device = "{device}"
control = "{control}"
addresses = ["{node4}/24", "{node6}/64"]

[[route]]
to = "0.0.0.0/0"
via = ["10.1.{n}.1"]

[[route]]
to = "::/0"
via = ["fd00:1:{n}::1"]
"#
    )
}

/// What node `n` does, on whatever machine: local addresses, sessions, the service.
pub(crate) fn node_duty(n: u8, options: &Options) -> String {
    let speaks = match options.speaks {
        Speaks::Bgp => bgp_of_node(n, options.hold),
        Speaks::Ospf => ospf_of_node(),
    };
    let mut backends = String::new();
    for b in 1..=options.backends {
        for address in backend_addresses(b) {
            let _ = write!(backends, "\n[[service.backend]]\naddress = \"{address}\"\n");
        }
    }
    format!(
        r#"[local]
addresses = ["10.9.{n}.0/29", "fd00:9:{n}::/125"]

[bfd]
min-tx = "{bfd}ms"
min-rx = "{bfd}ms"
multiplier = 3

[announce]
drain-wait = "300ms"

{speaks}
[[service]]
name = "web"
vips = ["{VIP4}", "{VIP6}"]
protocol = "tcp"
port = {PORT}

[service.check]
type = "http"
path = "/healthz"
interval = "{check}ms"
timeout = "{timeout}ms"
rise = 2
fall = 2
{backends}
"#,
        bfd = options.bfd.as_millis(),
        check = options.check.as_millis(),
        timeout = options.check.as_millis() * 4 / 5,
    )
}
