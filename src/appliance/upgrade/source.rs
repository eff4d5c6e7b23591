//! Where a bundle comes from: a file, standard input, or a web server.

use crate::appliance::host::Root;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{BufReader, Read};
use std::sync::Arc;
use std::time::Duration;
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

/// The operator's own authorities, PEM. If there are any, nobody else is trusted.
pub const AUTHORITIES_KEPT: &str = "etc/dunlin/ca-certificates.crt";
/// Who is trusted for https: the first of these that is there.
const AUTHORITIES: [&str; 2] = [AUTHORITIES_KEPT, "etc/ssl/certs/ca-certificates.crt"];
const CONNECT: Duration = Duration::from_secs(30);
/// A server that sends nothing for so long has gone.
const SILENCE: Duration = Duration::from_secs(60);

/// `-`, `http://…`, `https://…`, or a path.
pub fn open(root: &Root, source: &str) -> Result<Box<dyn Read>> {
    if source == "-" {
        return Ok(Box::new(std::io::stdin()));
    }
    match source.split_once("://") {
        Some(("http" | "https", _)) => download(root, source),
        Some((scheme, _)) => {
            bail!("{scheme}:// is not known; expected a file, http:// or https://")
        }
        None => {
            let file = File::open(source).with_context(|| source.to_owned())?;
            Ok(Box::new(BufReader::new(file)))
        }
    }
}

fn download(root: &Root, url: &str) -> Result<Box<dyn Read>> {
    let mut config = ureq::Agent::config_builder()
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(SILENCE))
        .timeout_per_read(Some(SILENCE))
        .user_agent(concat!("dunlin/", env!("CARGO_PKG_VERSION")));
    if url.starts_with("https://") {
        config = config.tls_config(tls(root)?).https_only(true);
    }
    let agent: ureq::Agent = config.build().into();
    let answer = agent.get(url).call().with_context(|| url.to_owned())?;
    Ok(Box::new(answer.into_body().into_reader()))
}

fn tls(root: &Root) -> Result<TlsConfig> {
    let file = AUTHORITIES.into_iter().find(|file| root.exists(file));
    let file = file.context("https needs certificates of authorities: none in /etc/ssl/certs")?;
    let pem = root.read_bytes(file).with_context(|| format!("/{file}"))?;
    let certificates: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    Ok(TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::Specific(Arc::new(certificates)))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build())
}
