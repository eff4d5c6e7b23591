//! What the config drives of the show's machines say.

use crate::fabric::{self, Options, node_addresses, node_duty, node_port};
use std::time::Duration;

/// The fabric that the nodes stand in. Timers are wide: under emulation a guest may not run for
/// hundreds of milliseconds.
pub(super) fn options() -> Options {
    Options {
        nodes: 2,
        bfd: Duration::from_millis(400),
        hold: Duration::from_secs(9),
        check: Duration::from_secs(1),
        ..Options::default()
    }
}

/// MAC address of machine `n`'s management card.
pub(super) fn management_mac(n: u8) -> String {
    format!("52:54:00:03:00:{n:02x}")
}

/// MAC address of machine `n`'s data card.
pub(super) fn data_mac(n: u8) -> String {
    format!("52:54:00:01:00:{n:02x}")
}

/// Machine `n`'s address on the management network.
pub(super) fn management_address(n: u8) -> String {
    format!("10.3.0.{}", 10 + n)
}

/// `dunlin.toml` of node `n`.
pub(super) fn node(n: u8) -> String {
    let port = node_port(n, &format!("mac:{}", data_mac(n)), "vhost-net");
    head(n) + &port + "\n" + &node_duty(n, &options())
}

/// `dunlin.toml` of a machine that has no router: it forwards for nobody, and boots.
pub(super) fn lonely(n: u8) -> String {
    let [v4, _] = node_addresses(n);
    let backend = fabric::backend_addresses(1)[0];
    format!(
        r#"{head}[[port]]
name = "dn0"
device = "mac:{mac}"
addresses = ["{v4}/24"]

[local]
addresses = ["10.9.{n}.0/29"]

[[service]]
name = "web"
vips = ["{vip}"]
protocol = "tcp"
port = {port}

[[service.backend]]
address = "{backend}"
"#,
        head = head(n),
        mac = data_mac(n),
        vip = fabric::VIP4,
        port = fabric::PORT,
    )
}

fn head(n: u8) -> String {
    let [v4, _] = node_addresses(n);
    format!(
        r#"[node]
name = "node{n}"
router-id = "{v4}"

[management]
interface = "mac:{mac}"
addresses = ["{address}/24"]

[dataplane]
workers = [1]
# Waking up is what an idle emulated machine takes its host's time for.
max-sleep = "10ms"
max-flows = 16_384
memory = "128MiB"
mbufs = 8192

"#,
        mac = management_mac(n),
        address = management_address(n),
    )
}
