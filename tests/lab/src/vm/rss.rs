//! The proof that replies come back to the queue they were predicted for, on network cards whose
//! RSS is real: a guest forwards through an emulated card, a reflector is the far end.
//!
//! The program in the guest (`examples/rss_proof.rs`) chooses ports by the card's own key and
//! redirection table, sends, and counts on which queue each reply arrives. A second run, with the
//! choice of ports left to chance, shows that the count would notice.

use super::guest::{self, ENDED, Initrd, KernelPackage};
use super::reflector::Reflector;
use super::{Accel, Machine, Mark, Model, Nic, Vm};
use crate::lab::Lab;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::path::Path;
use std::time::Duration;

/// Queues of every card, and workers.
pub const QUEUES: u8 = 4;
/// Connections of a run, over TCP and UDP, IPv4 and IPv6.
pub const FLOWS: u64 = 4000;
/// For a guest to boot and finish both runs, emulated on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the program says of one run, one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Proof {
    pub driver: Vec<String>,
    pub queues: u64,
    /// How each port is steered: `rss`, `software`, …
    pub steering: Vec<String>,
    pub reason: Vec<String>,
    pub flows: u64,
    /// Replies that arrived on the queue of the worker that owns the flow.
    pub right: u64,
    pub wrong: u64,
    pub lost: u64,
    /// Frames sent again because nothing came back in time.
    pub resent: u64,
    pub handed_over: u64,
    pub by_queue: Vec<u64>,
    /// Replies whose hash the card told, and those where it was not the predicted one.
    pub hash_checked: u64,
    pub hash_wrong: u64,
}

/// Both runs on one card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proved {
    pub steered: Proof,
    pub control: Proof,
}

/// Run the proof on a card and assert it. `cache` keeps the guest's kernel.
pub fn prove(program: &Path, cache: &Path, accel: Accel, model: Model) -> Result<Proved> {
    let lab = Lab::new()?;
    let wire = lab.netns("wire")?;
    let reflector = Reflector::start(&wire)?;
    let mut vm = Vm::start(&wire, machine(&lab, program, cache, accel, model)?)?;
    let (_, _) = vm.wait_console(Mark::START, &[ENDED], PATIENCE)?;
    let console = vm.serial().since(Mark::START);
    let checked = proofs(&console).and_then(|proved| {
        proved.check()?;
        let needed = proved.steered.flows + proved.control.flows;
        let reflected = reflector.reflected();
        ensure!(reflected >= needed, "{reflected} frames reflected for {needed} flows");
        Ok(proved)
    });
    checked.with_context(|| vm.last_words())
}

fn machine(lab: &Lab, program: &Path, cache: &Path, accel: Accel, model: Model) -> Result<Machine> {
    let kernel = KernelPackage::fetch(cache)?;
    let dir = lab.dir("initrd")?;
    let mut initrd = Initrd::new(&dir.join("stage"))?;
    initrd.program(program, "rss_proof")?;
    let drivers = ["bus_pci", "bus_vdev", "mempool_ring", "net_virtio", "net_e1000"];
    initrd.dpdk_drivers(&drivers)?;
    initrd.module(&kernel, "uio_pci_generic")?;
    let run = format!("rss_proof {} --queues {QUEUES} --flows {FLOWS}", Nic::pci_address(0));
    let script = format!(
        "{}{run}\necho \"steered: $?\"\n{run} --steering software\necho \"control: $?\"\n",
        guest::bind_network_cards()
    );
    let file = dir.join("initrd.cpio");
    initrd.pack(&script, &file)?;
    let mut machine = Machine::new("guest", accel);
    machine.kernel = Some(guest::kernel(&kernel, &file, "hugepages=256"));
    machine.extra.push("-no-reboot".into());
    let mut nic = Nic::virtio("rss0", "02:00:00:00:00:01");
    nic.model = model;
    nic.queues = if model == Model::Virtio { QUEUES } else { 1 };
    machine.nics.push(nic);
    Ok(machine)
}

/// Read both runs from the console.
fn proofs(console: &str) -> Result<Proved> {
    let ended = |name: &str| {
        let code = console.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        code.with_context(|| format!("the console does not say {name}"))
    };
    let codes: [u8; 2] = [ended("steered: ")?, ended("control: ")?];
    let mut lines = console.lines().filter(|line| line.starts_with('{'));
    let mut next = |name: &str| -> Result<Proof> {
        let line = lines.next().with_context(|| format!("no result of the {name} run"))?;
        serde_json::from_str(line).with_context(|| format!("the {name} run said {line}"))
    };
    let proved = Proved { steered: next("steered")?, control: next("control")? };
    ensure!(codes == [0, 3], "the runs ended with {codes:?}, not 0 and 3: {proved:?}");
    Ok(proved)
}

impl Proved {
    /// All replies came to their queue without help; by chance they do not.
    fn check(&self) -> Result<()> {
        let steered = &self.steered;
        ensure!(steered.flows == FLOWS, "{} flows, not {FLOWS}", steered.flows);
        ensure!(steered.steering == ["rss"], "steered by {:?}", steered.steering);
        ensure!(
            steered.right == FLOWS && [steered.wrong, steered.lost, steered.handed_over] == [0; 3],
            "not every reply on its queue: {steered:?}"
        );
        ensure!(
            steered.by_queue.len() == usize::from(QUEUES)
                && steered.by_queue.iter().all(|replies| replies * 10 > FLOWS),
            "not spread over the queues: {:?}",
            steered.by_queue
        );
        ensure!(steered.hash_wrong == 0, "the card's hash is not ours: {steered:?}");
        let control = &self.control;
        ensure!(
            control.handed_over * 2 > FLOWS,
            "by chance three of four replies need handing over: {control:?}"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(right: u64, handed_over: u64) -> String {
        let line = |steering: &str, right: u64, handed_over: u64| {
            let quarter = FLOWS / 4;
            format!(
                "{{\"driver\":[\"net_virtio\"],\"queues\":4,\"steering\":[\"{steering}\"],\
                 \"reason\":[\"\"],\"rss\":[],\"flows\":{FLOWS},\"right\":{right},\
                 \"wrong\":{},\"lost\":0,\"resent\":0,\"handed_over\":{handed_over},\
                 \"by_queue\":[{quarter},{quarter},{quarter},{quarter}],\"hash_checked\":0,\
                 \"hash_wrong\":0}}\n",
                FLOWS - right
            )
        };
        let (steered, control) = (line("rss", right, 0), line("software", FLOWS, handed_over));
        format!("EAL: noise\n{steered}steered: 0\n{control}control: 3\n")
    }

    #[test]
    fn a_proof_is_read_and_judged() {
        proofs(&console(FLOWS, 3000)).unwrap().check().unwrap();
        assert!(proofs(&console(FLOWS - 1, 3000)).unwrap().check().is_err());
        assert!(proofs(&console(FLOWS, 0)).unwrap().check().is_err());
        assert!(proofs("steered: 2\ncontrol: 2\n").is_err());
    }
}
