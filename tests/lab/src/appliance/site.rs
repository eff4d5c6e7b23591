//! Where the machines stand: the demo's router, client and backends, and a management network.
//!
//! ```text
//!   client ── tor (FRR) ── b1, b2, b3            as in the demo, see `crate::fabric`
//!              │
//!              n1    n2                          10.1.N.1, fd00:1:N::1
//!   ┌──────────┴──────────┐
//!   │hostN: bridge `data` │── TAP dataN ─┐
//!   │                     │              QEMU, which lives in hostN's namespace
//!   │       bridge `mgmt` │── TAP mgmtN ─┘
//!   └──────────┬──────────┘
//!            admin                               10.3.0.1, machines 10.3.0.10 + N; serves updates
//! ```
//!
//! A bridge stands between the TAP and the router so that the router's link stays up when the
//! machine dies, as behind a switch: only protocols tell it.

use super::{Bundle, config};
use crate::fabric::{self, Options, backend_addresses};
use crate::fib::Fib;
use crate::http;
use crate::lab::Lab;
use crate::netns::{Netns, cable};
use crate::nginx::Nginx;
use crate::router::Router;
use crate::tls;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

/// The administrator's address, where machines fetch updates.
pub(super) const ADMIN: &str = "10.3.0.1";

/// All hosts but the machines.
#[derive(Debug)]
pub struct Site {
    pub router: Router,
    pub backends: Vec<Nginx>,
    pub fib: Fib,
    pub client: Netns,
    pub tor: Netns,
    pub admin: Netns,
    updates: Nginx,
    /// Who vouches for the administrator's server, as PEM.
    pub(super) authority: String,
    pub options: Options,
    pub lab: Lab,
}

impl Site {
    /// Lay it out; the router and the backends run.
    pub fn new() -> Result<Self> {
        let options = config::options();
        let lab = Lab::new()?;
        let tor = fabric::router_host(&lab)?;
        let client = fabric::client(&lab, &tor)?;
        let backends = (1..=options.backends)
            .map(|n| fabric::backend(&lab, &tor, n))
            .collect::<Result<Vec<_>>>()?;
        let admin = lab.netns("admin")?;
        admin.ip(&format!(
            "link add mgmt type bridge\nlink set mgmt up\naddr add {ADMIN}/24 dev mgmt"
        ))?;
        let certified = tls::certify(&lab.dir("tls")?, ADMIN.parse()?)?;
        let updates = Nginx::start_https(&admin, &certified)?;
        let authority = certified.authority;
        let fib = Fib::watch(&tor)?;
        let router = Router::start(&tor, &options)?;
        let site =
            Self { router, backends, fib, client, tor, admin, updates, authority, options, lab };
        site.backends_answer()?;
        Ok(site)
    }

    /// A host for machine `n`, with its cables; the machine's TAPs belong into the bridges `data`
    /// and `mgmt`. The cable of a machine that is no node of the router leads nowhere.
    pub fn host(&self, n: u8) -> Result<Netns> {
        let host = self.lab.netns(&format!("host{n}"))?;
        let (up, mgmt) = (format!("n{n}"), format!("m{n}"));
        // What the kernel of this host itself would say on these wires stays unsaid.
        for default in ["all", "default"] {
            host.sysctl(&format!("net.ipv6.conf.{default}.disable_ipv6"), "1")?;
        }
        for bridge in ["data", "mgmt"] {
            host.ip(&format!(
                "link add {bridge} type bridge mcast_snooping 0\nlink set {bridge} up"
            ))?;
        }
        cable(&host, "mup", &self.admin, &mgmt)?;
        host.ip("link set mup master mgmt")?;
        self.admin.ip(&format!("link set {mgmt} master mgmt"))?;
        if n <= self.options.nodes {
            cable(&host, "dup", &self.tor, &up)?;
            host.ip("link set dup master data")?;
            self.tor.ip(&format!(
                "addr add 10.1.{n}.1/24 dev {up}\naddr add fd00:1:{n}::1/64 dev {up} nodad"
            ))?;
        }
        Ok(host)
    }

    /// Serve an update to the machines.
    pub fn offer(&self, bundle: &Bundle) -> Result<()> {
        let name = bundle.file.file_name().context("a bundle without a name")?;
        let offered = self.updates.files().join(name);
        std::os::unix::fs::symlink(fs::canonicalize(&bundle.file)?, &offered)
            .with_context(|| format!("cannot offer {}", bundle.file.display()))
    }

    /// Where the machines find it, by http or https.
    pub fn url(scheme: &str, bundle: &Bundle) -> String {
        let name = bundle.file.file_name().unwrap_or_default().to_string_lossy();
        format!("{scheme}://{ADMIN}/files/{name}")
    }

    /// What clients ask: both VIPs.
    pub fn targets(&self) -> Vec<SocketAddr> {
        [fabric::VIP4, fabric::VIP6].map(|vip| SocketAddr::new(vip, fabric::PORT)).to_vec()
    }

    /// A steady load on both VIPs. Latencies are those of emulation, deadlines too.
    pub fn load(&self, rate: u32) -> Result<http::RunningLoad> {
        let timeout = Duration::from_secs(10);
        http::Load { targets: self.targets(), rate, timeout }.start(&self.client)
    }

    fn backends_answer(&self) -> Result<()> {
        for n in 1..=self.options.backends {
            for address in backend_addresses(n) {
                let target = SocketAddr::new(address, 80);
                let patience = Duration::from_secs(10);
                let answer = self.client.enter(|| http::get(target, "/", patience).outcome)?;
                ensure!(answer == Ok(format!("b{n}")), "backend {target}: {answer:?}");
            }
        }
        Ok(())
    }
}
