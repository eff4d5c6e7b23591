//! Partition UUIDs that are halves of a root hash (the Discoverable Partitions Specification): so a
//! kernel command line that names the hash names the partitions too.

use anyhow::{Result, bail};
use std::fmt;

/// Lower case, as it is written: `8-4-4-4-12` digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uuid(String);

impl Uuid {
    pub fn parse(text: &str) -> Result<Self> {
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        if digits.len() != 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            bail!("{text:?} is not a UUID");
        }
        let d = digits.to_ascii_lowercase();
        let parts = [&d[..8], &d[8..12], &d[12..16], &d[16..20], &d[20..]];
        Ok(Self(parts.join("-")))
    }

    /// Of the partitions with the system and with its hash tree: the first and the last 128 bits.
    pub fn of_root_hash(root_hash: &str) -> Result<(Self, Self)> {
        match (root_hash.len(), root_hash.is_ascii()) {
            (64, true) => Ok((Self::parse(&root_hash[..32])?, Self::parse(&root_hash[32..])?)),
            _ => bail!("{root_hash:?} is not a root hash"),
        }
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
