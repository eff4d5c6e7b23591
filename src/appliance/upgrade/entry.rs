//! The versions on the boot partition, by their file names, and which one the boot loader takes.
//!
//! `dunlin_VERSION.efi` is good; `dunlin_VERSION+LEFT-DONE.efi` is on trial, with so many attempts left
//! and so many made (systemd's Automatic Boot Assessment). Without attempts left it is bad.

use super::version;
use std::cmp::Ordering;
use std::fmt;

/// Where the boot loader looks, below the boot partition.
pub const DIRECTORY: &str = "EFI/Linux";

/// A file name on the boot partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub version: String,
    /// Attempts left and made; `None`: good.
    pub counter: Option<(u32, u32)>,
}

impl Entry {
    /// A version that is tried once.
    pub fn on_trial(version: &str) -> Self {
        Self { version: version.to_owned(), counter: Some((1, 0)) }
    }

    /// A version that the boot loader takes only if there is no other.
    pub fn bad(version: &str) -> Self {
        Self { version: version.to_owned(), counter: Some((0, 1)) }
    }

    pub fn parse(name: &str) -> Option<Self> {
        let stem = name.strip_prefix("dunlin_")?.strip_suffix(".efi")?;
        let (version, counter) = match stem.split_once('+') {
            None => (stem, None),
            Some((version, counter)) => {
                let (left, done) = counter.split_once('-').unwrap_or((counter, "0"));
                (version, Some((left.parse().ok()?, done.parse().ok()?)))
            }
        };
        version::is_sound(version).then(|| Self { version: version.to_owned(), counter })
    }

    pub fn is_bad(&self) -> bool {
        matches!(self.counter, Some((0, _)))
    }

    pub fn path(&self) -> String {
        format!("{DIRECTORY}/{self}")
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dunlin_{}", self.version)?;
        match self.counter {
            None => {}
            Some((left, 0)) => write!(f, "+{left}")?,
            Some((left, done)) => write!(f, "+{left}-{done}")?,
        }
        f.write_str(".efi")
    }
}

/// The order of the boot loader's menu; the first is taken (`boot_entry_compare` of systemd-boot 257,
/// for entries that differ in version and counters only).
pub fn menu_order(a: &Entry, b: &Entry) -> Ordering {
    a.is_bad().cmp(&b.is_bad()).then_with(|| version::compare(&b.version, &a.version)).then_with(
        || match (a.counter, b.counter) {
            (Some((left_a, done_a)), Some((left_b, done_b))) => {
                left_b.cmp(&left_a).then(done_a.cmp(&done_b))
            }
            _ => Ordering::Equal,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_version_and_attempts() {
        for (name, version, counter) in [
            ("dunlin_0.1.0.efi", "0.1.0", None),
            ("dunlin_0.1.0+1.efi", "0.1.0", Some((1, 0))),
            ("dunlin_0.1.0+0-1.efi", "0.1.0", Some((0, 1))),
            ("dunlin_1~rc1+2-3.efi", "1~rc1", Some((2, 3))),
        ] {
            let entry = Entry { version: version.to_owned(), counter };
            assert_eq!(Entry::parse(name).as_ref(), Some(&entry), "{name}");
            assert_eq!(entry.to_string(), name);
        }
        for other in ["debian.efi", "dunlin_.efi", "dunlin_1+x.efi", "dunlin_1.efi.new", "dunlin_1"]
        {
            assert_eq!(Entry::parse(other), None, "{other}");
        }
    }

    #[test]
    fn the_newest_that_is_not_bad_comes_first() {
        let mut menu: Vec<Entry> = ["0.3.0+0-1", "0.1.0", "0.2.0+1", "0.10.0+0-1"]
            .iter()
            .map(|name| Entry::parse(&format!("dunlin_{name}.efi")).unwrap())
            .collect();
        menu.sort_by(menu_order);
        let versions: Vec<&str> = menu.iter().map(|entry| entry.version.as_str()).collect();
        assert_eq!(versions, ["0.2.0", "0.1.0", "0.10.0", "0.3.0"]);
    }
}
