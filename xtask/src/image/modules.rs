//! The kernel's modules: those that a server can need, uncompressed (the squashfs and the initrd are
//! compressed as a whole), with their index made anew.

use super::room::Room;
use super::tree;
use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub struct Modules {
    /// Has `usr/lib/modules/RELEASE`.
    root: PathBuf,
    release: String,
    /// Name, with `-` for `_`, to its file and the files it needs, below the release's directory.
    index: BTreeMap<String, Vec<String>>,
}

impl Modules {
    /// Take the modules of the room's kernel, but for the directories that `images/modules-remove.txt`
    /// names.
    pub fn take(room: &Room, remove: &[String], root: &Path) -> Result<Self> {
        tree::fresh(root)?;
        let release = room.kernel()?;
        let dir = root.join("usr/lib/modules").join(&release);
        fs::create_dir_all(root.join("usr/lib/modules"))?;
        let from = Path::new("/usr/lib/modules").join(&release);
        let inside = room.inside(&dir)?;
        room.run("cp", &[&"-a", &from, &inside])?;
        tree::remove_matching(&dir.join("kernel"), remove)?;
        // Thousands of small files: as many at once as there are processors.
        let unpack = "find \"$0\" -name '*.ko.xz' -print0 | \
                      xargs -0 -r -n 64 -P \"$(nproc)\" xz --decompress --threads=1";
        room.run("sh", &[&"-c", &unpack, &inside])?;
        let mut modules = Self { root: root.to_owned(), release, index: BTreeMap::new() };
        modules.depmod(room, root)?;
        modules.index = index(&fs::read_to_string(dir.join("modules.dep"))?);
        Ok(modules)
    }

    /// The directory to lay over a root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Copy some, and what they need, into an initrd, with an index of their own.
    pub fn copy(&self, room: &Room, names: &[String], to: &Path) -> Result<()> {
        let mut files = BTreeSet::new();
        for name in names {
            let entry = self.index.get(&name.replace('_', "-"));
            let entry = entry.with_context(|| format!("the kernel has no module {name}"))?;
            files.extend(entry);
        }
        let below = Path::new("usr/lib/modules").join(&self.release);
        let from = self.root.join(&below);
        let lists = ["modules.order", "modules.builtin", "modules.builtin.modinfo"];
        for file in files.into_iter().map(String::as_str).chain(lists) {
            tree::install(&from.join(file), &to.join(&below).join(file), false)?;
        }
        if !to.join("lib/modules").exists() {
            fs::create_dir_all(to.join("lib"))?;
            std::os::unix::fs::symlink("../usr/lib/modules", to.join("lib/modules"))?;
        }
        self.depmod(room, to)
    }

    fn depmod(&self, room: &Room, root: &Path) -> Result<()> {
        let base = room.inside(&root.join("usr"))?;
        room.run("depmod", &[&"-b", &base, &self.release]).map(drop)
    }
}

/// `modules.dep`: lines of `file: file file …`.
fn index(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut index = BTreeMap::new();
    for line in text.lines() {
        let Some((file, needs)) = line.split_once(':') else { continue };
        let name = file.rsplit('/').next().unwrap_or(file).trim_end_matches(".ko");
        let files = std::iter::once(file).chain(needs.split_whitespace()).map(str::to_owned);
        index.insert(name.replace('_', "-"), files.collect());
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_comes_with_what_it_needs() {
        let index = index("kernel/a/virtio_blk.ko: kernel/b/virtio.ko\nkernel/b/virtio.ko:\n");
        assert_eq!(index["virtio-blk"], ["kernel/a/virtio_blk.ko", "kernel/b/virtio.ko"]);
        assert_eq!(index["virtio"], ["kernel/b/virtio.ko"]);
    }
}
