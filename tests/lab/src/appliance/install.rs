//! The installer: an empty disk, a medium in the drive, and somebody at the console.

use super::PATIENCE;
use super::node::Node;
use super::refuse::{Lonely, RUNS, Shape};
use crate::story::short;
use crate::vm::{Mark, Model};
use anyhow::{Result, ensure};
use std::time::Instant;

impl Lonely {
    /// It asks for the disk, writes it, and the machine boots from it.
    pub fn installer(&mut self) -> Result<()> {
        self.teller.step("The installer, on the serial console, onto an empty disk");
        let start = Instant::now();
        let data = Model::VirtioPastIommu;
        let shape = Shape { install: true, iommu: true, data, ..Shape::default() };
        let mut node = self.start("install", shape, |_| Ok(()))?;
        let asked = Self::choose_disk(&mut node)?;
        let needles = ["done; remove the medium", "nothing more was changed"];
        let (which, _) = node.vm.wait_console(asked, &needles, PATIENCE)?;
        let console = node.vm.serial().since(asked);
        ensure!(which == 0, "it was not installed:\n{console}");
        self.teller.check(&format!(
            "written, read back and compared, {} after power-on",
            short(start.elapsed())
        ));
        // The disk comes before the medium in the firmware's order, now that it can boot.
        let booted = node.vm.wait_console(asked, &[RUNS], PATIENCE);
        node.explained(booted)?;
        node.wait_boot(None, PATIENCE)?;
        let (version, slot) = (node.version()?, node.slot()?);
        ensure!(version == self.artifacts.version, "it runs {version}");
        let disk = node.run("cat /run/dunlin-image/disk")?;
        ensure!(disk.trim() == "/dev/vda", "it runs from {disk}");
        self.teller.check(&format!("{version} runs from slot {slot} of the disk that was chosen"));
        // There is an IOMMU, but not for this card.
        self.drives(&node, "uio_pci_generic", "net_virtio")
    }

    /// Answer its questions; a disk that is not there, and a change of mind, first.
    fn choose_disk(node: &mut Node) -> Result<Mark> {
        const DISK: &str = "Disk to install on";
        const SURE: &str = "to erase /dev/vda";
        let dialogue =
            [(DISK, "vdz"), (DISK, "vda"), (SURE, "no"), (DISK, "/dev/vda"), (SURE, "yes")];
        let mut keyboard = None;
        let mut asked = Mark::START;
        for (question, answer) in dialogue {
            node.vm.wait_console(asked, &[question], PATIENCE)?;
            asked = node.vm.serial().mark();
            let keyboard = match &mut keyboard {
                Some(keyboard) => keyboard,
                none => none.insert(node.vm.keyboard()?),
            };
            keyboard.type_text(&format!("{answer}\n"))?;
        }
        // What was typed last must have arrived before nobody sits there any more.
        node.vm.wait_console(asked, &["writing Dunlin"], PATIENCE)?;
        Ok(asked)
    }
}
