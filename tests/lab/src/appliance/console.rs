//! A machine that was given nothing but its image: whoever sits at the console sets it up, and a factory
//! reset makes it ask again.

use super::PATIENCE;
use super::config::{management_address, management_mac};
use super::node::Node;
use super::refuse::{Lonely, Shape};
use super::site::ADMIN;
use crate::fabric::{self, backend_addresses, node_addresses};
use crate::story::short;
use crate::vm::{Mark, fill, partition};
use crate::wait::wait_for;
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

/// What the wizard says on every console.
const INVITATION: &str = "Press Enter to set it up here.";
/// From one question to the next.
const QUESTION: Duration = Duration::from_secs(60);

impl Lonely {
    /// The wizard on the serial console, until the node runs as it was told; then a factory reset.
    pub fn wizard_and_reset(&mut self) -> Result<()> {
        self.teller.step("No config drive: the wizard on the serial console, and a factory reset");
        let start = Instant::now();
        let mut node =
            self.start("wizard", Shape { drive: false, ..Shape::default() }, |_| Ok(()))?;
        node.vm.wait_console(Mark::START, &[INVITATION], PATIENCE)?;
        self.teller.check(&format!("the console asks after {}", short(start.elapsed())));
        let console = node.vm.serial().mark();
        let mut keyboard = node.vm.keyboard()?;
        keyboard.type_text("\n")?;
        let dialogue = self.dialogue();
        let mut asked = console;
        for (question, answer) in &dialogue {
            node.vm.wait_console(asked, &[question], QUESTION)?;
            asked = node.vm.serial().mark();
            keyboard.type_text(&format!("{answer}\n"))?;
        }
        node.wait_boot(None, PATIENCE)?;
        let written = node.run("cat /etc/dunlin/dunlin.toml")?;
        for expected in ["name = \"typed\"", &management_mac(self.number), "asn = 65009"] {
            ensure!(
                written.contains(expected),
                "no {expected} in what the wizard wrote:\n{written}"
            );
        }
        let serving = wait_for("dunlin.service", PATIENCE, || {
            let ports = node.ask("ports")?.to_string();
            ensure!(ports.contains("dn0") && ports.contains("net_virtio"), "its ports: {ports}");
            node.run("systemctl is-active dunlin.service")
        });
        node.explained(serving)?;
        self.teller.check(&format!(
            "{} questions answered; the node runs as typed, and lets in the key that was typed",
            dialogue.len()
        ));
        Self::factory_reset(&mut node)?;
        self.teller
            .check("after `dunlin factory-reset` it boots without a configuration and asks again");
        Ok(())
    }

    /// The boot menu's factory reset: for a state partition that cannot be mounted any more.
    pub fn menu_reset(&mut self) -> Result<()> {
        self.teller.step("Factory reset from the boot menu, of a state partition that is ruined");
        let mut node = self.start("menu", Shape::default(), |_| Ok(()))?;
        node.wait_boot(None, PATIENCE)?;
        let host_key = "cat /var/lib/dunlin/ssh/ssh_host_ed25519_key.pub";
        let (boot, before) = (node.boot_id()?, node.run(host_key)?);
        node.run("echo kept >/var/lib/dunlin/kept && sync")?;
        node.vm.cut_power()?;
        // The superblock, and the copies of it that e2fsck looks for.
        let (start, len) = partition(&self.artifacts.image, "dunlin-state")?;
        fill(&node.disk, start, len, 0)?;
        let console = node.vm.serial().mark();
        node.vm.power_on()?;
        let said = "cannot mount the state partition; the boot menu's factory reset makes it anew";
        node.vm.wait_console(console, &[said], PATIENCE)?;
        self.teller.check(&format!("the machine says: {said:?}"));

        let console = node.vm.serial().mark();
        let mut keyboard = node.vm.keyboard()?;
        node.vm.wait_console(console, &["Boot in"], PATIENCE)?;
        // Down: the arrow's one-letter twin, which no slow terminal tears apart. Then Enter.
        keyboard.type_text("j\r")?;
        node.vm.wait_console(console, &["making the state partition anew"], PATIENCE)?;
        drop(keyboard);
        node.wait_boot(Some(&boot), PATIENCE)?;
        let kept = node.run("cat /var/lib/dunlin/kept 2>/dev/null || echo gone")?;
        ensure!(kept.trim() == "gone", "the state was kept");
        let after = node.run(host_key)?;
        ensure!(before != after, "the host key was kept: {after}");
        self.teller.check(
            "made anew: no state, another host key, and the configuration comes from the drive again",
        );
        Ok(())
    }

    /// The machine restarts without its configuration.
    fn factory_reset(node: &mut Node) -> Result<()> {
        let console = node.vm.serial().mark();
        // 255: the machine takes the connection with it.
        let out = node.ssh().output("dunlin factory-reset --yes")?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        ensure!(matches!(out.status.code(), Some(0 | 255)), "{}: {text}", out.status);
        node.vm.wait_console(console, &[INVITATION], PATIENCE)?;
        node.vm.cut_power()
    }

    /// What the wizard asks, and what somebody types.
    fn dialogue(&self) -> Vec<(&'static str, String)> {
        let number = self.number;
        let [v4, _] = node_addresses(number);
        let router = format!("10.1.{number}.1");
        let key = self.key.public.trim().to_owned();
        let backend = backend_addresses(1)[0];
        vec![
            ("Management NIC", "1".to_owned()),
            ("Data ports", "2".to_owned()),
            // A mistake is said at once, and asked again.
            ("Management address", format!("{}/33", management_address(number))),
            ("is not an address with prefix length", format!("{}/24", management_address(number))),
            ("Management gateway", ADMIN.to_owned()),
            ("Name servers", String::new()),
            ("SSH public key", key),
            ("Name of this node", "typed".to_owned()),
            ("Name of data port", "dn0".to_owned()),
            ("Addresses of dn0", format!("{v4}/24")),
            ("AS number of this node", "65009".to_owned()),
            ("Addresses of the ToR routers", router),
            ("AS number of", "65000".to_owned()),
            ("Default gateways", String::new()),
            ("Local addresses", format!("10.9.{number}.0/29")),
            ("First VIP", fabric::VIP4.to_string()),
            ("Name of its service", String::new()),
            ("TCP port", fabric::PORT.to_string()),
            ("Backends", backend.to_string()),
            ("Write it and start the node?", "yes".to_owned()),
        ]
    }
}
