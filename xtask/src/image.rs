//! `cargo xtask image`: the bootable appliance.
//!
//! In: this source tree, the lists and files of `images/`, and Debian packages from the machine's own
//! mirror. Out: disk images, an installer, an update bundle, a bill of materials and checksums. The
//! same commit and the same packages give the same bytes. Everything is made by programs of the image's
//! own release inside a room ([`room`]); nothing is mounted, and the host does not change.

mod bundle;
mod disk;
mod hash;
mod initrd;
mod iso;
mod kernel;
mod keys;
mod modules;
pub mod release;
pub mod room;
pub mod sbom;
mod system;
pub mod tree;
mod twice;

use crate::cargo;
use crate::deb;
use crate::setup::{self, Purpose};
use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use keys::Keys;
use modules::Modules;
use nix::sys::stat::{Mode, umask};
use release::Release;
use room::{RELEASE, Room};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    /// Where to put what is built
    #[arg(long, default_value = "target/image/out")]
    out: PathBuf,
    /// A directory with keys to sign with, as `cargo xtask image keys` makes it
    #[arg(long, value_name = "DIR")]
    key_dir: Option<PathBuf>,
    /// The version, if not the workspace's
    #[arg(long)]
    version: Option<String>,
    /// Files to lay over the system, such as a site's own certificates
    #[arg(long, value_name = "DIR")]
    overlay: Vec<PathBuf>,
    /// What to make
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Product>,
    /// Reuse Debian roots of an earlier run, even if Debian has newer packages; compress less
    #[arg(long)]
    quick: bool,
    /// Build everything twice, from new Debian roots, the second time compiled anew, and compare
    #[arg(long, conflicts_with = "quick")]
    twice: bool,
}

impl Options {
    /// As words, but for `--out` and `--twice`.
    fn args(&self) -> Vec<String> {
        let mut args = Vec::new();
        let path = |path: &Path| path.to_string_lossy().into_owned();
        for dir in &self.overlay {
            args.extend(["--overlay".to_owned(), path(dir)]);
        }
        if let Some(dir) = &self.key_dir {
            args.extend(["--key-dir".to_owned(), path(dir)]);
        }
        if let Some(version) = &self.version {
            args.extend(["--version".to_owned(), version.clone()]);
        }
        for product in &self.only {
            if let Some(value) = product.to_possible_value() {
                args.extend(["--only".to_owned(), value.get_name().to_owned()]);
            }
        }
        args
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a set of keys: for releases (Ed25519), and for Secure Boot
    Keys { dir: PathBuf },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Product {
    /// dunlin-VERSION.raw, a disk
    Raw,
    /// dunlin-VERSION.qcow2, the same for virtual machines
    Qcow2,
    /// dunlin-VERSION.raw.zst, the same to download
    Zst,
    /// dunlin-VERSION.iso, the installer
    Iso,
    /// dunlin-VERSION.bundle, for `dunlin upgrade`
    Bundle,
}

pub fn run(options: &Options) -> Result<()> {
    if let Some(Command::Keys { dir }) = &options.command {
        return keys::make(dir);
    }
    setup::require_root_because("building the image", "puts a Debian root together")?;
    setup::install(Purpose::Image)?;
    // Modes of files are part of the image.
    umask(Mode::from_bits_truncate(0o022));
    let release = Release::new(options.version.clone(), options.quick)?;
    let out = std::path::absolute(&options.out)?;
    if options.twice {
        return twice::compare(&options.args(), &out);
    }
    let mut build = Build::begin(release, options.key_dir.as_deref(), options.quick)?;
    build.overlays.extend(options.overlay.iter().cloned());
    let parts = build.parts()?;
    let products = if options.only.is_empty() { Product::value_variants() } else { &options.only };
    let files = build.products(&parts, products)?;
    deliver(&build, &files, &out)
}

/// One run.
struct Build {
    release: Release,
    keys: Option<Keys>,
    room: Room,
    images: PathBuf,
    base: PathBuf,
    overlays: Vec<PathBuf>,
    begun: Instant,
}

/// What all products are made of.
struct Parts {
    modules: Modules,
    system: system::System,
    packed: system::Packed,
    initrd: PathBuf,
    cmdline: String,
    /// The unified kernel image, signed if there is a key.
    kernel: PathBuf,
    /// systemd-boot, likewise.
    loader: PathBuf,
}

impl Build {
    /// Make the room and the Debian root.
    fn begin(release: Release, keys: Option<&Path>, reuse: bool) -> Result<Self> {
        let begun = Instant::now();
        let cache = room::cache()?;
        let images = cargo::root().join("images");
        let room = Room::open(&cache, RELEASE, release.epoch, reuse)?;
        let keys = keys.map(|dir| Keys::open(&room, dir)).transpose()?;
        let base = cache.join("base");
        let packages = tree::words(&images.join("packages.txt"))?;
        room::bootstrap(&base, RELEASE, &["--variant=essential"], &packages, release.epoch, reuse)?;
        let overlays = vec![images.join("root")];
        Ok(Self { release, keys, room, images, base, overlays, begun })
    }

    fn step(&self, what: &str) {
        println!("{:6.1}s  {what}", self.begun.elapsed().as_secs_f64());
    }

    fn words(&self, file: &str) -> Result<Vec<String>> {
        tree::words(&self.images.join(file))
    }

    fn parts(&self) -> Result<Parts> {
        let (room, release) = (&self.room, &self.release);
        self.step("compile the node and pack it");
        let deb = deb::build(room, release)?;
        self.step("take the kernel's modules");
        let remove = self.words("modules-remove.txt")?;
        let modules = Modules::take(room, &remove, &room.work("modules")?)?;
        self.step("put the system together");
        let release_key = self.keys.as_ref().map(Keys::release_public).transpose()?;
        let recipe = system::Recipe {
            base: &self.base,
            deb: &deb,
            modules: &modules,
            overlays: &self.overlays,
            remove: &self.words("remove.txt")?,
            release_key: release_key.as_deref(),
        };
        let system = system::assemble(room, &recipe, release, &room.work("root")?)?;
        self.step("pack the system");
        let dir = tree::fresh(&room.work("parts")?)?;
        let packed = system::pack(room, &system, release, &dir)?;
        self.step(&format!("the system's root hash is {}", packed.root_hash));
        let initrd = self.initrd(&modules)?;
        let more = [
            format!("roothash={}", packed.root_hash),
            format!("dunlin.version={}", release.version),
        ];
        let cmdline = kernel::command_line(&self.words("cmdline.txt")?, &more);
        let kernel = dir.join("dunlin.efi");
        let recipe = kernel::Recipe {
            initrd: &initrd,
            cmdline: &cmdline,
            profiles: &[("factory-reset", "Factory reset", "dunlin.factory-reset")],
        };
        kernel::unify(room, release, &recipe, &kernel)?;
        let loader = dir.join("BOOTX64.EFI");
        fs::copy(room.root().join("usr/lib/systemd/boot/efi/systemd-bootx64.efi"), &loader)?;
        if let Some(keys) = &self.keys {
            self.step("sign for Secure Boot");
            keys.sign_efi(room, &kernel)?;
            keys.sign_efi(room, &loader)?;
        }
        Ok(Parts { modules, system, packed, initrd, cmdline, kernel, loader })
    }

    fn initrd(&self, modules: &Modules) -> Result<PathBuf> {
        self.step("make the initrd");
        let dir = self.room.work("initrd")?;
        let own = tree::fresh(&self.room.work("initrd.own")?)?;
        tree::install(&self.images.join("initrd/init"), &own.join("init"), true)?;
        tree::install(&self.images.join("initrd/common"), &own.join("common"), false)?;
        let load = self.words("initrd/modules-load.txt")?;
        tree::write(&own.join("etc/modules"), load.join("\n") + "\n")?;
        let recipe = initrd::Recipe {
            overlay: &[own],
            programs: &self.words("initrd/programs.txt")?,
            modules: &[load, self.words("initrd/modules.txt")?].concat(),
        };
        initrd::build(&self.room, modules, &recipe, &dir)
    }

    fn products(&self, parts: &Parts, products: &[Product]) -> Result<Vec<PathBuf>> {
        let dir = tree::fresh(&self.room.work("products")?)?;
        let named = |end: &str| dir.join(format!("dunlin-{}.{end}", self.release.version));
        let mut files = Vec::new();
        if products.contains(&Product::Bundle) {
            self.step("make the update bundle");
            let bundle = named("bundle");
            let key = self.keys.as_ref();
            bundle::build(&self.room, &self.release, &parts.packed, &parts.kernel, key, &bundle)?;
            files.push(bundle);
        }
        if products.iter().any(|product| *product != Product::Bundle) {
            self.step("make the disk");
            let raw = named("raw");
            let partitions = fs::read_to_string(self.images.join("partitions.txt"))?;
            let recipe = disk::Recipe {
                esp: self.boot_files(parts)?,
                system: &parts.packed,
                partitions: &partitions,
            };
            let work = self.room.work("disk.raw")?;
            disk::build(&self.room, &self.release, recipe, &work)?;
            fs::rename(&work, &raw)?;
            files.extend(self.convert(parts, &raw, products)?);
        }
        let sbom = named("spdx.json");
        let mut packages = parts.system.packages.clone();
        packages.extend(sbom::from_room(&self.room, &self.words("build-image.txt")?)?);
        sbom::write(&self.release, &packages, &sbom)?;
        files.push(sbom);
        Ok(files)
    }

    /// Other shapes of the disk, and the disk itself if it was asked for.
    fn convert(&self, parts: &Parts, raw: &Path, products: &[Product]) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        let inside = self.room.inside(raw)?;
        if products.contains(&Product::Qcow2) {
            self.step("convert the disk to qcow2");
            let qcow2 = raw.with_extension("qcow2");
            let to = self.room.inside(&qcow2)?;
            self.room
                .run("qemu-img", &[&"convert", &"-f", &"raw", &"-O", &"qcow2", &inside, &to])?;
            files.push(qcow2);
        }
        if products.contains(&Product::Zst) || products.contains(&Product::Iso) {
            self.step("compress the disk");
            let packed = raw.with_extension("raw.zst");
            let to = self.room.inside(&packed)?;
            self.room.run("zstd", &[&"-q", &"-f", &"-T0", &"-5", &"-o", &to, &inside])?;
            if products.contains(&Product::Iso) {
                self.step("make the installer");
                let iso = raw.with_extension("iso");
                let recipe = iso::Recipe {
                    images: &self.images,
                    modules: &parts.modules,
                    raw,
                    packed: &packed,
                    root_hash: &parts.packed.root_hash,
                    keys: self.keys.as_ref(),
                };
                iso::build(&self.room, &self.release, &recipe, &iso)?;
                files.push(iso);
            }
            if products.contains(&Product::Zst) {
                files.push(packed);
            }
        }
        if products.contains(&Product::Raw) {
            files.push(raw.to_owned());
        }
        Ok(files)
    }

    /// The boot partition's files: for UEFI, and for BIOS machines the same kernel once more.
    fn boot_files(&self, parts: &Parts) -> Result<Vec<(String, PathBuf)>> {
        let version = &self.release.version;
        let config = fs::read_to_string(self.images.join("boot/syslinux.cfg"))?;
        let config = config.replace("@VERSION@", version).replace("@CMDLINE@", &parts.cmdline);
        let syslinux = self.room.work("syslinux.cfg")?;
        fs::write(&syslinux, config)?;
        let loader_conf = self.room.work("loader.conf")?;
        fs::copy(self.images.join("boot/loader.conf"), &loader_conf)?;
        let linux = self.room.work("linux")?;
        fs::copy(kernel::linux(&self.room)?, &linux).context("no kernel in the build root")?;
        Ok(vec![
            ("EFI/BOOT/BOOTX64.EFI".to_owned(), parts.loader.clone()),
            (format!("EFI/Linux/dunlin_{version}.efi"), parts.kernel.clone()),
            ("loader/loader.conf".to_owned(), loader_conf),
            ("syslinux/syslinux.cfg".to_owned(), syslinux),
            (format!("syslinux/{version}/linux"), linux),
            (format!("syslinux/{version}/initrd"), parts.initrd.clone()),
        ])
    }
}

/// Move the files to where they were asked for, with their checksums.
fn deliver(build: &Build, files: &[PathBuf], out: &Path) -> Result<()> {
    build.step("write checksums");
    fs::create_dir_all(out)?;
    let mut sums = String::new();
    for file in files {
        let name = file.file_name().context("a product has a name")?.to_string_lossy();
        writeln!(sums, "{}  {name}", hash::file(file)?)?;
        let target = out.join(name.as_ref());
        tree::remove(&target)?;
        // Another file system, perhaps. `cp` leaves holes where there are some.
        if fs::rename(file, &target).is_err() {
            let mut cp = std::process::Command::new("cp");
            room::output(cp.arg("--sparse=always").arg(file).arg(&target))?;
        }
        println!("         {}", target.display());
    }
    let list = out.join(format!("dunlin-{}.SHA256SUMS", build.release.version));
    fs::write(&list, &sums)?;
    if let Some(keys) = &build.keys {
        fs::write(list.with_extension("SHA256SUMS.sig"), keys.sign(&build.room, sums.as_bytes())?)?;
    }
    build.step(&format!("done: {}", list.display()));
    Ok(())
}
