//! Where a configuration may come from, in order: the state, a config drive, credentials.

use crate::appliance::host::Host;
use crate::config::Config;
use anyhow::Result;
use std::io::Write;
use std::thread::sleep;
use std::time::Duration;

/// The configuration in the state.
pub const CONFIG: &str = "etc/dunlin/dunlin.toml";
/// Volume labels of config drives, the first one wins.
const LABELS: [&str; 4] = ["DUNLIN", "dunlin", "CIDATA", "cidata"];
const MOUNT_POINT: &str = "run/dunlin-drive";
/// Credentials of the unit, and those that the firmware or the hypervisor gave to the system.
const SYSTEM_CREDENTIALS: &str = "run/credentials/@system";
/// How long a drive may take to show up, after udev has settled: USB sticks.
const DRIVE_PATIENCE: Duration = Duration::from_secs(3);

/// A valid configuration and what came with it.
#[derive(Debug)]
pub struct Found {
    /// For the log.
    pub source: String,
    pub document: String,
    pub config: Config,
    /// Lines of `authorized_keys`.
    pub keys: Option<String>,
    /// Who is trusted for `https` upgrades, as PEM.
    pub authorities: Option<String>,
    pub hostname: Option<String>,
}

/// What a source holds, not checked.
#[derive(Debug, Default)]
struct Raw {
    source: String,
    document: Option<String>,
    keys: Option<String>,
    authorities: Option<String>,
    hostname: Option<String>,
}

/// The config drive, then credentials. What is not valid is told in full and not taken.
pub fn outside(host: &Host, log: &mut dyn Write) -> Result<Option<Found>> {
    // A machine without udev has no labels either; then this fails, and the search finds nothing.
    let _ = host.run("udevadm", &["settle", "--timeout=30"]);
    let credentials = credentials(host);
    let mut drive = find_drive(host);
    let mut waited = Duration::ZERO;
    while drive.is_none() && credentials.document.is_none() && waited < DRIVE_PATIENCE {
        let step = Duration::from_millis(200);
        sleep(step);
        waited += step;
        drive = find_drive(host);
    }
    let drive = drive.map(|device| read_drive(host, &device, log)).transpose()?.flatten();
    for raw in drive.into_iter().chain([credentials]) {
        if let Some(found) = check(raw, log)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Whether a drive offers another configuration than the one in the state, which is the one used.
pub fn differing_drive(host: &Host, document: &str, log: &mut dyn Write) -> Result<Option<String>> {
    let Some(device) = find_drive(host) else { return Ok(None) };
    let raw = read_drive(host, &device, log)?;
    let other = raw.filter(|raw| raw.document.as_deref().is_some_and(|text| text != document));
    Ok(other.map(|raw| raw.source))
}

fn check(raw: Raw, log: &mut dyn Write) -> Result<Option<Found>> {
    let Raw { source, document, keys, authorities, hostname } = raw;
    let Some(document) = document else {
        return Ok(None);
    };
    match Config::parse(&document, &source) {
        Ok(config) => Ok(Some(Found { source, document, config, keys, authorities, hostname })),
        Err(errors) => {
            writeln!(log, "the configuration of {source} is NOT VALID and not taken:\n{errors}")?;
            Ok(None)
        }
    }
}

fn find_drive(host: &Host) -> Option<String> {
    let at = LABELS.iter().map(|label| format!("dev/disk/by-label/{label}"));
    at.into_iter().find(|path| host.root.exists(path))
}

/// Mounted read only, read, unmounted.
fn read_drive(host: &Host, device: &str, log: &mut dyn Write) -> Result<Option<Raw>> {
    let source = format!("config drive {}", device.rsplit('/').next().unwrap_or(device));
    let mount_point = host.root.path(MOUNT_POINT);
    std::fs::create_dir_all(&mount_point)?;
    let (device, target) = (host.root.path(device), mount_point.display().to_string());
    let device = device.display().to_string();
    let options = "ro,nodev,nosuid,noexec";
    if let Err(error) = host.run("mount", &["-t", "iso9660,vfat", "-o", options, &device, &target])
    {
        writeln!(log, "the {source} cannot be mounted: {error:#}")?;
        return Ok(None);
    }
    let mut raw = Raw {
        document: read_plain(host, "dunlin.toml"),
        keys: read_plain(host, "authorized_keys"),
        authorities: read_plain(host, "ca-certificates.crt"),
        hostname: read_plain(host, "hostname").and_then(|name| hostname(&name)),
        source,
    };
    if let (Some(document), Some(network)) = (&mut raw.document, read_plain(host, "network.toml")) {
        // A table of its own, so it may follow whatever the document ends with.
        document.push('\n');
        document.push_str(&network);
    }
    if raw.document.is_none() {
        writeln!(log, "the {} has no dunlin.toml", raw.source)?;
    }
    if let Err(error) = host.run("umount", &[&target]) {
        writeln!(log, "the {} stays mounted: {error:#}", raw.source)?;
    }
    Ok(Some(raw))
}

/// A regular file of the drive; a link could lead out of it.
fn read_plain(host: &Host, name: &str) -> Option<String> {
    let path = format!("{MOUNT_POINT}/{name}");
    let plain = std::fs::symlink_metadata(host.root.path(&path)).ok()?.is_file();
    let text = host.root.read(path).filter(|_| plain)?;
    Some(format!("{text}\n"))
}

fn hostname(text: &str) -> Option<String> {
    crate::config::value::name(text.trim()).ok()
}

fn credentials(host: &Host) -> Raw {
    let own = std::env::var("CREDENTIALS_DIRECTORY").ok();
    let read = |name: &str| {
        let places = own.iter().map(String::as_str).chain([SYSTEM_CREDENTIALS]);
        let mut texts = places.filter_map(|place| host.root.read(format!("{place}/{name}")));
        texts.next().map(|text| format!("{text}\n"))
    };
    Raw {
        source: "credential dunlin.toml".to_owned(),
        document: read("dunlin.toml"),
        keys: read("dunlin.authorized_keys"),
        authorities: read("dunlin.ca-certificates"),
        hostname: None,
    }
}
