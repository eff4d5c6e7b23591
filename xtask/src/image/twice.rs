//! `--twice`: is the image a function of the commit and Debian's packages? Builds all of it two times,
//! each time from new Debian roots, and compares. The first may use what cargo compiled before; for the second
//! everything is compiled anew.

use super::room::{self, RELEASE};
use super::{hash, tree};
use crate::cargo;
use anyhow::{Result, bail};
use std::path::Path;
use std::process::Command;

/// Build into `out`, and again beside it. `args`: of `cargo xtask image`, but for `--out`.
pub fn compare(args: &[String], out: &Path) -> Result<()> {
    let again = out.with_extension("again");
    for dir in [out, &again] {
        tree::remove(dir)?;
        if dir == again {
            tree::remove(&room::compiled(&room::cache()?, RELEASE))?;
        }
        // A process of its own: its mounts end with it.
        let mut build = Command::new(std::env::current_exe()?);
        build.arg("image").args(args).arg("--out").arg(dir);
        cargo::status(&mut build)?;
    }
    let mut different = Vec::new();
    for name in tree::names(out)? {
        let sums = (hash::file(&out.join(&name))?, hash::file(&again.join(&name))?);
        let same = sums.0 == sums.1;
        println!("{} {name} {}", if same { "same     " } else { "DIFFERENT" }, sums.0);
        if !same {
            different.push(name);
        }
    }
    if !different.is_empty() {
        bail!(
            "two builds differ in {}; the second is in {}",
            different.join(", "),
            again.display()
        );
    }
    tree::remove(&again)
}
