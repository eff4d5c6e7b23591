//! An authority that was made for one lab, and what it vouches for.

use crate::netns::run;
use anyhow::{Context, Result};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A server's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// Whoever trusts this (PEM) trusts the server.
    pub authority: String,
    /// PEM files.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// A new authority in `dir`, which vouches for a server that is reached by its address.
pub fn certify(dir: &Path, address: IpAddr) -> Result<Certified> {
    let file = |name: &str| dir.join(name);
    let new = |name: &str, subject: &str, constraint: &str| {
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-days", "2", "-nodes", "-newkey", "ec"]);
        openssl.args(["-pkeyopt", "ec_paramgen_curve:P-256", "-subj", subject]);
        openssl.args(["-addext", &format!("basicConstraints=critical,{constraint}")]);
        openssl.arg("-keyout").arg(file(&format!("{name}.key")));
        openssl.arg("-out").arg(file(&format!("{name}.crt")));
        openssl
    };
    run(&mut new("ca", "/CN=Authority of the lab", "CA:TRUE")).context("package openssl")?;
    let mut server = new("server", "/CN=Server of the lab", "CA:FALSE");
    server.args(["-addext", &format!("subjectAltName=IP:{address}")]);
    server.arg("-CA").arg(file("ca.crt")).arg("-CAkey").arg(file("ca.key"));
    run(&mut server)?;
    Ok(Certified {
        authority: fs::read_to_string(file("ca.crt"))?,
        certificate: file("server.crt"),
        key: file("server.key"),
    })
}
