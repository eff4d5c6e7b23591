//! The builder's keys: Ed25519 for releases, and RSA with a certificate for Secure Boot. [`make`] makes a
//! set; the private halves of a real one belong into a safe.

use super::room::{self, Room};
use anyhow::{Context, Result, bail};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const RELEASE_KEY: &str = "release.key";
const RELEASE_PUBLIC: &str = "release.pem";
/// Platform key, key exchange key, and the one that signs what boots. Only the last is needed to build.
const SECURE_BOOT: [&str; 3] = ["PK", "KEK", "db"];
/// Where the room sees the directory.
const INSIDE: &str = "/build/keys";

/// Keys to build with.
#[derive(Debug)]
pub struct Keys {
    dir: PathBuf,
}

impl Keys {
    /// Show a directory of keys to the room.
    pub fn open(room: &Room, dir: &Path) -> Result<Self> {
        for name in [RELEASE_KEY, RELEASE_PUBLIC, "db.key", "db.crt"] {
            if !dir.join(name).is_file() {
                bail!("no {name} in {}; cargo xtask image keys DIR makes a set", dir.display());
            }
        }
        room.bind(dir, INSIDE, false)?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// The public key of releases, PEM.
    pub fn release_public(&self) -> Result<Vec<u8>> {
        let file = self.dir.join(RELEASE_PUBLIC);
        fs::read(&file).with_context(|| format!("cannot read {}", file.display()))
    }

    /// A raw Ed25519 signature, 64 bytes.
    pub fn sign(&self, room: &Room, message: &[u8]) -> Result<Vec<u8>> {
        // With this kind of key, openssl signs nothing but files.
        let file = room.work("message")?;
        fs::write(&file, message)?;
        let key = format!("{INSIDE}/{RELEASE_KEY}");
        let signature = room.run(
            "openssl",
            &[&"pkeyutl", &"-sign", &"-rawin", &"-inkey", &key, &"-in", &room.inside(&file)?],
        )?;
        if signature.len() != 64 {
            bail!("{RELEASE_KEY} is not an Ed25519 key");
        }
        Ok(signature)
    }

    /// Sign an EFI program in place.
    pub fn sign_efi(&self, room: &Room, file: &Path) -> Result<()> {
        let (key, certificate) = (format!("{INSIDE}/db.key"), format!("{INSIDE}/db.crt"));
        let inside = room.inside(file)?;
        room.run(
            "sbsign",
            &[&"--key", &key, &"--cert", &certificate, &"--output", &inside, &inside],
        )?;
        Ok(())
    }
}

/// Make a set of keys in a directory that does not exist yet.
pub fn make(dir: &Path) -> Result<()> {
    let mut builder = DirBuilder::new();
    builder.mode(0o700).create(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    openssl(dir, &["genpkey", "-algorithm", "ed25519", "-out", RELEASE_KEY])?;
    openssl(dir, &["pkey", "-in", RELEASE_KEY, "-pubout", "-out", RELEASE_PUBLIC])?;
    for name in SECURE_BOOT {
        let (key, certificate) = (format!("{name}.key"), format!("{name}.crt"));
        let subject = format!("/CN=Dunlin {name}/");
        openssl(
            dir,
            &[
                "req",
                "-new",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-sha256",
                "-noenc",
                "-days",
                "7300",
                "-subj",
                &subject,
                "-keyout",
                &key,
                "-out",
                &certificate,
            ],
        )?;
        let der = format!("{name}.cer");
        openssl(dir, &["x509", "-in", &certificate, "-outform", "DER", "-out", &der])?;
    }
    println!("{}: release.* signs updates; db.* signs what boots;", dir.display());
    println!("enrol PK.cer, KEK.cer and db.cer in the firmware of the nodes (docs/image.md)");
    Ok(())
}

fn openssl(dir: &Path, args: &[&str]) -> Result<()> {
    let mut openssl = Command::new("openssl");
    openssl.current_dir(dir).args(args);
    room::output(&mut openssl).map(drop)
}
