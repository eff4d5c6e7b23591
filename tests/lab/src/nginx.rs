//! A backend: one nginx process that says its name.
//!
//! Serves, on port 80 of both families: `/` (its name, in the body and in `X-Backend`),
//! `/healthz` (200, or 503 while told to be ill) and `/download/big?rate=BYTES_PER_SECOND`, whose
//! bytes follow [`crate::http::pattern`].

use crate::http::pattern;
use crate::netns::Netns;
use crate::process::Process;
use crate::tls::Certified;
use anyhow::{Context, Result};
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Size of the file for downloads.
pub const DOWNLOAD: usize = 4 << 20;

/// A web server in a namespace. Dropping it stops it.
#[derive(Debug)]
pub struct Nginx {
    ns: Netns,
    dir: PathBuf,
    process: Option<Process>,
}

/// One line of the access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// When the answer was finished, to the millisecond.
    pub at: SystemTime,
    pub client: String,
    pub path: String,
    pub status: u16,
}

impl Nginx {
    /// Start a server called like its namespace.
    pub fn start(ns: &Netns) -> Result<Self> {
        Self::start_with(ns, None)
    }

    /// The same, also by https on port 443.
    pub fn start_https(ns: &Netns, certified: &Certified) -> Result<Self> {
        Self::start_with(ns, Some(certified))
    }

    fn start_with(ns: &Netns, certified: Option<&Certified>) -> Result<Self> {
        let dir = ns.lab().dir(&format!("{}/nginx", ns.name()))?;
        fs::create_dir_all(dir.join("www"))?;
        fs::create_dir_all(dir.join("tmp"))?;
        fs::create_dir_all(dir.join("files"))?;
        let file: Vec<u8> = (0..DOWNLOAD).map(pattern).collect();
        fs::write(dir.join("www/big"), file)?;
        fs::write(dir.join("nginx.conf"), config(ns.name(), &dir, certified))?;
        let mut nginx = Self { ns: ns.clone(), dir, process: None };
        nginx.up()?;
        Ok(nginx)
    }

    pub fn name(&self) -> &str {
        self.ns.name()
    }

    pub fn netns(&self) -> &Netns {
        &self.ns
    }

    /// Start it (again). Returns when it listens.
    pub fn up(&mut self) -> Result<()> {
        let mut command = self.ns.command("nginx");
        command.arg("-p").arg(&self.dir);
        command.arg("-c").arg(self.dir.join("nginx.conf"));
        command.arg("-e").arg(self.dir.join("error.log"));
        let mut process = Process::spawn("nginx", &self.dir, &mut command)?;
        process.wait_ready(Duration::from_secs(10), || {
            self.ns.enter(|| TcpStream::connect((Ipv4Addr::LOCALHOST, 80)))??;
            Ok(())
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Kill it, as a crash would: connections are reset, new ones refused.
    pub fn kill(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Answer health checks with 503 (`true`) or 200, and everything else as ever.
    pub fn set_ill(&self, ill: bool) -> Result<()> {
        let flag = self.dir.join("ill");
        if ill {
            fs::write(flag, "")?;
        } else if flag.exists() {
            fs::remove_file(flag)?;
        }
        Ok(())
    }

    /// What is in this directory is served below `/files/`.
    pub fn files(&self) -> PathBuf {
        self.dir.join("files")
    }

    /// The requests it finished, health checks left out.
    pub fn log(&self) -> Result<Vec<Access>> {
        let text = fs::read_to_string(self.dir.join("access.log"))?;
        text.lines()
            .map(|line| Access::parse(line).with_context(|| format!("access log: {line:?}")))
            .collect()
    }
}

impl Access {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (seconds, millis) = words.next()?.split_once('.')?;
        let since_epoch = Duration::from_secs(seconds.parse().ok()?)
            + Duration::from_millis(millis.parse().ok()?);
        Some(Self {
            at: SystemTime::UNIX_EPOCH + since_epoch,
            client: words.next()?.to_owned(),
            path: words.next()?.to_owned(),
            status: words.next()?.parse().ok()?,
        })
    }
}

fn config(name: &str, dir: &Path, certified: Option<&Certified>) -> String {
    let dir = dir.display();
    let https = certified.map_or_else(String::new, |Certified { certificate, key, .. }| {
        let (certificate, key) = (certificate.display(), key.display());
        format!("listen 443 ssl; ssl_certificate {certificate}; ssl_certificate_key {key};")
    });
    format!(
        r#"# One process: killing it kills the server.
daemon off;
master_process off;
user root;
pid {dir}/nginx.pid;
error_log {dir}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    log_format lab '$msec [$remote_addr]:$remote_port $uri $status $body_bytes_sent';
    access_log {dir}/access.log lab;
    client_body_temp_path {dir}/tmp;
    proxy_temp_path {dir}/tmp;
    fastcgi_temp_path {dir}/tmp;
    uwsgi_temp_path {dir}/tmp;
    scgi_temp_path {dir}/tmp;
    default_type text/plain;
    tcp_nodelay on;
    server {{
        listen 80 backlog=1024;
        listen [::]:80 backlog=1024;
        {https}
        add_header X-Backend {name} always;
        location = / {{ return 200 "{name}\n"; }}
        location = /healthz {{
            access_log off;
            if (-f {dir}/ill) {{ return 503 "ill\n"; }}
            return 200 "ok {name}\n";
        }}
        location /files/ {{ alias {dir}/files/; }}
        location /download/ {{
            alias {dir}/www/;
            limit_rate $arg_rate;
        }}
    }}
}}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_log_lines() {
        let access = Access::parse("1700000000.123 [10.9.1.1]:4000 / 200 3").unwrap();
        assert_eq!(access.client, "[10.9.1.1]:4000");
        assert_eq!(access.path, "/");
        assert_eq!(access.status, 200);
        let since = access.at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(since.as_millis(), 1_700_000_000_123);
        assert_eq!(Access::parse("nonsense"), None);
    }
}
