//! The wizard on every console at once: screen and serial port.
//!
//! Each console that the kernel writes to shows an invitation; the one where somebody presses Enter
//! first gets the wizard, and the others say so. When that one falls silent for ten minutes, or goes
//! away, all of them invite again: nobody has to find the cable that was used before.

use super::sources::Found;
use super::wizard::{self, Talk};
use crate::appliance::host::{Host, Root};
use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

/// Silence that ends a wizard under way.
const PATIENCE: Duration = Duration::from_secs(600);
const INVITATION: &str = "\r\nDunlin: this node has no configuration.\r\n\
    Press Enter to set it up here.\r\n";

#[derive(Debug)]
struct Console {
    name: String,
    file: File,
}

/// Runs until somebody has answered. Errors: no console can be opened, or none is left.
pub fn wizard(host: &Host) -> Result<Found> {
    let mut consoles = open_all(&host.root)?;
    loop {
        for console in &mut consoles {
            // Nobody may be there: a write that fails shows at the next read.
            let _ = console.file.write_all(INVITATION.as_bytes());
        }
        let chosen = first_enter(&mut consoles)?;
        let name = consoles[chosen].name.clone();
        for (_, other) in consoles.iter_mut().enumerate().filter(|(index, _)| *index != chosen) {
            let _ = write!(other.file, "\r\nDunlin is being set up on {name}.\r\n");
        }
        let file = &consoles[chosen].file;
        let input = Patient(file.try_clone().context("console")?);
        let mut talk = Talk::new(BufReader::new(input), file.try_clone().context("console")?);
        match wizard::run(host, &mut talk) {
            Ok(found) => return Ok(found),
            Err(error) => {
                let gone = error.downcast_ref::<io::Error>().map(io::Error::kind);
                tracing::warn!(console = name, error = %error, "the wizard was left");
                let _ = write!(consoles[chosen].file, "\r\n{error:#}\r\n");
                if !matches!(gone, Some(ErrorKind::TimedOut)) {
                    consoles.remove(chosen);
                }
            }
        }
    }
}

/// The consoles of the kernel: `tty0` is whatever the screen shows.
fn open_all(root: &Root) -> Result<Vec<Console>> {
    let names = root.read("sys/class/tty/console/active").unwrap_or_default();
    let names = names.split_ascii_whitespace().rev().chain(["console"]);
    let mut consoles: Vec<Console> = Vec::new();
    for name in names {
        // `/dev/console` is one of the others; it is for machines that do not tell which.
        if name == "console" && !consoles.is_empty() {
            break;
        }
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).custom_flags(nix::libc::O_NOCTTY);
        match options.open(root.path(format!("dev/{name}"))) {
            Ok(file) => consoles.push(Console { name: name.to_owned(), file }),
            Err(error) => tracing::warn!(console = name, %error, "console not usable"),
        }
    }
    if consoles.is_empty() {
        bail!("no console to ask on: give a config drive (label DUNLIN) or a credential instead");
    }
    Ok(consoles)
}

/// The console on which a line comes first. Consoles that have gone away are dropped.
fn first_enter(consoles: &mut Vec<Console>) -> Result<usize> {
    loop {
        if consoles.is_empty() {
            bail!("every console has gone away");
        }
        let mut waiting: Vec<PollFd<'_>> = consoles
            .iter()
            .map(|console| PollFd::new(console.file.as_fd(), PollFlags::POLLIN))
            .collect();
        match poll(&mut waiting, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("waiting for the consoles"),
        }
        let ready = waiting.iter().position(|fd| fd.any() == Some(true));
        let Some(index) = ready else { continue };
        let mut line = [0; 256];
        match consoles[index].file.read(&mut line) {
            Ok(count) if count > 0 => return Ok(index),
            _ => {
                consoles.remove(index);
            }
        }
    }
}

/// Reads from a console until it has been silent for too long.
#[derive(Debug)]
struct Patient(File);

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut waiting = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
        match poll(&mut waiting, patience)? {
            0 => Err(ErrorKind::TimedOut.into()),
            _ => self.0.read(buffer),
        }
    }
}
