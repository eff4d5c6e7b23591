//! Hugepages for as long as something is measured.

use anyhow::{Context, Result, ensure};
use std::fs;

const NUMBER: &str = "/proc/sys/vm/nr_hugepages";
/// What x86-64 calls a hugepage, unless told otherwise.
const PAGE_MIB: u64 = 2;

/// Puts the number of hugepages back when dropped.
pub struct Hugepages {
    before: Option<u64>,
}

impl Hugepages {
    /// Have at least `mib` MiB of them free.
    pub fn reserve(mib: u64) -> Result<Self> {
        let wanted = mib.div_ceil(PAGE_MIB);
        let (total, free) = (number()?, free()?);
        if free >= wanted {
            return Ok(Self { before: None });
        }
        let guard = Self { before: Some(total) };
        set(total + wanted - free)?;
        let free = self::free()?;
        ensure!(
            free >= wanted,
            "the kernel has {free} free hugepages, {wanted} are needed: memory is short or in \
             pieces"
        );
        Ok(guard)
    }
}

impl Drop for Hugepages {
    fn drop(&mut self) {
        if let Some(before) = self.before
            && let Err(e) = set(before)
        {
            eprintln!("warning: {NUMBER} was {before} before: {e:#}");
        }
    }
}

fn number() -> Result<u64> {
    let text = fs::read_to_string(NUMBER).context(NUMBER)?;
    text.trim().parse().context(NUMBER)
}

fn set(number: u64) -> Result<()> {
    fs::write(NUMBER, number.to_string()).context(NUMBER)
}

fn free() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("HugePages_Free:"));
    line.context("no HugePages_Free")?.trim().parse().context("HugePages_Free")
}
