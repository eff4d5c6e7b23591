//! Ten thousand VIPs.

use super::outage::logged_at;
use super::reload::By;
use super::teller::short;
use super::{PATIENCE, Story};
use crate::fabric::backend_addresses;
use crate::fib::Table;
use anyhow::{Context, Result, ensure};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

/// First of the VIPs.
const FIRST: u32 = u32::from_be_bytes([10, 128, 0, 0]);

/// What many VIPs cost.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// From `dunlin reload` until the router's kernel had all.
    pub announced_after: Duration,
    /// From the drain of the node's services until it had none.
    pub withdrawn_after: Duration,
    /// Resident memory of dunlind, KiB: before and with them.
    pub memory: (u64, u64),
}

impl Story {
    /// `count` VIPs with one service each come by a reload and go by a reload.
    pub fn many_vips(&mut self, count: u32) -> Result<Scale> {
        self.teller.step(&format!("{count} VIPs, one service each"));
        let [backend, _] = backend_addresses(1);
        let mut text = String::new();
        for n in 0..count {
            let vip = Ipv4Addr::from(FIRST + n);
            let _ = write!(
                text,
                "\n[[service]]\nname = \"s{n}\"\nvips = [\"{vip}\"]\nprotocol = \"tcp\"\nport = 80\n\
                 backend = [{{ address = \"{backend}\" }}]\n"
            );
        }
        let before = self.memory()?;
        let sessions = self.sessions_came_up()?;
        let start = Instant::now();
        self.change(By::Command, |_, old| format!("{old}{text}"))?;
        let reloaded = start.elapsed();
        let at = self.fabric.fib.wait_table(PATIENCE, |t| vips(t) == count as usize)?;
        let announced_after = at.saturating_duration_since(start);
        let memory = (before, self.memory()?);
        self.teller.check(&format!(
            "in the router's kernel {} after the reload began (answered after {}); dunlind: {} MiB, \
             before {} MiB",
            short(announced_after),
            short(reloaded),
            memory.1 >> 10,
            memory.0 >> 10
        ));
        for command in ["services", "backends", "announce", "status"] {
            let asked = Instant::now();
            // The exit code of `status` also tells whether all is well.
            let out = self.fabric.nodes[0].try_show(&[command])?;
            let took = asked.elapsed();
            ensure!(!out.stdout.is_empty(), "dunlin {command}: {out:?}");
            ensure!(took <= Duration::from_secs(1), "dunlin {command} took {}", short(took));
            self.teller.check(&format!("dunlin {command}: {}", short(took)));
        }
        self.one_vip_of_many()?;
        let start = Instant::now();
        self.change(By::Command, |_, all| all.replace(&text, ""))?;
        let reloaded = start.elapsed();
        let at = self.fabric.fib.wait_table(PATIENCE, |t| vips(t) == 0)?;
        let withdrawn_after = at.saturating_duration_since(start);
        self.teller.check(&format!(
            "gone {} after the reload began (answered after {})",
            short(withdrawn_after),
            short(reloaded)
        ));
        ensure!(self.sessions_came_up()? == sessions, "sessions flapped");
        let most = Duration::from_secs(2);
        ensure!(announced_after <= most, "announced only after {}", short(announced_after));
        ensure!(withdrawn_after <= most, "withdrawn only after {}", short(withdrawn_after));
        Ok(Scale { announced_after, withdrawn_after, memory })
    }

    /// Among so many, a VIP whose last backend fails is withdrawn as fast as ever: from the failed
    /// check in the node's log to the router's kernel.
    fn one_vip_of_many(&mut self) -> Result<()> {
        let start = Instant::now();
        for backend in &self.fabric.backends {
            backend.set_ill(true)?;
        }
        let gone = self.fabric.wait_vips(&[], PATIENCE)?;
        let log = std::fs::read_to_string(self.fabric.nodes[0].process()?.log())?;
        let failed = log.lines().rev().find(|line| line.contains("healthy=false"));
        let failed = failed.and_then(logged_at).context("no failed check in the log")?;
        ensure!(failed >= start, "the failed check is an old one");
        let after = gone.saturating_duration_since(failed);
        self.teller.check(&format!("one VIP of many: withdrawn {} after its check", short(after)));
        ensure!(after <= Duration::from_millis(500), "only after {}", short(after));
        for backend in &self.fabric.backends {
            backend.set_ill(false)?;
        }
        self.fabric.wait_vips(&self.all_nodes(), PATIENCE).map(drop)
    }

    /// Resident memory of the first node, KiB.
    fn memory(&mut self) -> Result<u64> {
        let pid = self.fabric.nodes[0].process()?.pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("VmRSS")?;
        let number = line.split_whitespace().next().context("VmRSS")?;
        Ok(number.parse()?)
    }
}

/// How many of the VIPs the table has.
fn vips(table: &Table) -> usize {
    let ours =
        |address: &IpAddr| matches!(address, IpAddr::V4(v4) if v4.octets()[..2] == [10, 128]);
    table.keys().filter(|prefix| ours(&prefix.address) && prefix.length == 32).count()
}
