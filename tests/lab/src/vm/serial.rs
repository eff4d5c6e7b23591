//! A machine's serial console: a log that grows, read as plain text.

use anyhow::{Context, Result};
use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;

/// A place in the console's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

impl Mark {
    /// Where the output begins.
    pub const START: Self = Self(0);
}

/// What a machine has written to its console.
#[derive(Debug, Clone)]
pub struct Serial {
    path: PathBuf,
}

impl Serial {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The end of the output as it is now.
    pub fn mark(&self) -> Mark {
        Mark(fs::metadata(&self.path).map_or(0, |m| m.len()))
    }

    /// What was written from `mark` on, without the terminal's control sequences.
    pub fn since(&self, mark: Mark) -> String {
        // No file yet is no output yet.
        plain(&self.read(mark).unwrap_or_default())
    }

    /// The last lines, empty ones left out.
    pub fn tail(&self, lines: usize) -> String {
        let text = self.since(Mark::START);
        let all: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    fn read(&self, mark: Mark) -> std::io::Result<Vec<u8>> {
        let mut file = fs::File::open(&self.path)?;
        file.seek(SeekFrom::Start(mark.0))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// Somebody at the console. While one is there, the console is nobody else's.
#[derive(Debug)]
pub struct Keyboard(UnixStream);

impl Keyboard {
    /// QEMU forgets what it has not yet passed on when the connection ends, so keep this until the
    /// answer is there.
    pub(super) fn open(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).context("the serial console's socket")?;
        // The log has the output; unread here, it would hold up the machine. Ends with the connection.
        let mut screen = stream.try_clone()?;
        thread::spawn(move || io::copy(&mut screen, &mut io::sink()));
        Ok(Self(stream))
    }

    pub fn type_text(&mut self, text: &str) -> Result<()> {
        self.0.write_all(text.as_bytes()).context("typing on the serial console")
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        // Ends the thread that reads, too. Nothing is left to do if the machine ended first.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// Text as a person would read it: no escape sequences (ECMA-48 CSI and two-byte ones), no
/// carriage returns, no other control characters.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => {
                if chars.next_if_eq(&'[').is_some() {
                    // Parameters and intermediates, then one final byte.
                    while chars.next_if(|c| matches!(c, '\u{20}'..='\u{3f}')).is_some() {}
                }
                chars.next();
            }
            '\n' | '\t' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_sequences_are_not_text() {
        let cases: [(&[u8], &str); 5] = [
            (b"plain\r\n", "plain\n"),
            (b"\x1b[0;1;31mred\x1b[0m", "red"),
            (b"\x1b[2J\x1b[01;01HBdsDxe\x1b=x", "BdsDxex"),
            (b"[  \x1b[32mOK\x1b[0m  ] up", "[  OK  ] up"),
            (b"cut \x1b[", "cut "),
        ];
        for (bytes, text) in cases {
            assert_eq!(plain(bytes), text, "{bytes:?}");
        }
    }

    #[test]
    fn a_mark_hides_what_came_before() {
        let dir = std::env::temp_dir().join(format!("dunlin-serial-{}", std::process::id()));
        let serial = Serial::new(dir.clone());
        assert_eq!(serial.since(Mark::START), "");
        fs::write(&dir, "before\n").unwrap();
        let mark = serial.mark();
        fs::write(&dir, "before\n\nafter\n").unwrap();
        assert_eq!(serial.since(mark), "\nafter\n");
        assert_eq!(serial.tail(1), "after");
        fs::remove_file(dir).unwrap();
    }
}
