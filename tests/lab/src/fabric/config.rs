//! What the fabric's nodes are told: their configuration.

use super::{Options, PORT, Speaks, TOR_AS, VIP4, VIP6, backend_addresses, node_addresses};
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

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

/// Peers talk over IPv4; flows of both families are shared.
fn cluster_of_node(n: u8, nodes: u8) -> String {
    let others = (1..=nodes).filter(|other| *other != n);
    let peers: Vec<String> = others.map(|other| node_addresses(other)[0].to_string()).collect();
    format!(
        "[cluster]\naddress = \"{}\"\npeers = {peers:?}\nkey = \"the key of this lab\"\n\n",
        node_addresses(n)[0]
    )
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
    let cluster = if options.cluster { cluster_of_node(n, options.nodes) } else { String::new() };
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

{cluster}{speaks}
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
