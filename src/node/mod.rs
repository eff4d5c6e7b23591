//! Puts a node together from its configuration, runs it, and takes it apart in the right order.
//!
//! Order of the start: ports and control interfaces, workers with empty announcements, the kernel's
//! view, then checks and sessions. Nothing is announced until the owner finds that it can be served.
//! Order of the end: lower the preference, withdraw, let flows end if other nodes carry them on, say
//! goodbye to the peers, stop the workers.

mod apply;
mod buffers;
mod dataplane;
mod flows;
mod handle;
mod kernel;
mod outlets;
mod places;
mod ports;
mod pulse;
mod sharing;
mod shown;
mod shown_ospf;
mod speaking;
mod steering;
mod task;

use crate::api;
use crate::appliance::host::Root;
use crate::config::Config;
use crate::control::owner::Owner;
use crate::forward::Tables;
use crate::forward::tables::TablesSpec;
use crate::health::Checker;
use anyhow::{Context, Result};
use dataplane::{Dataplane, Opened};
use handle::Handle;
use kernel::Interfaces;
use kni::control::Configurator;
use kni::mirror::{Mirror, MirrorConfig, RouteSource};
use outlets::Outlets;
use pulse::Pulse;
use routing::bfd::BfdHandle;
use routing::ospf::OspfHandle;
use routing::speaker::{DynamicPeers, Speaker};
use sharing::Sharing;
use std::collections::BTreeSet;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};
use task::{Inputs, Task};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

/// Threads of the control plane. BFD has its own; workers are no tokio threads.
const CONTROL_THREADS: usize = 2;
/// Events that may wait for the task. Senders wait then; nothing is lost.
const BACKLOG: usize = 1024;

/// Run a node until it is told to stop (SIGTERM or SIGINT).
pub fn run(config_file: &Path) -> Result<()> {
    let config_text =
        std::fs::read_to_string(config_file).with_context(|| config_file.display().to_string())?;
    let config = Config::load(config_file)?;
    if config.management.is_some() && !Root::system().is_appliance() {
        tracing::info!("[management] is for the appliance, and ignored here");
    }
    let opened = Opened::open(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the control plane")?;
    let dataplane = runtime.block_on(serve(config_file, config_text, config, opened))?;
    dataplane.stop();
    Ok(())
}

async fn serve(
    config_file: &Path,
    config_text: String,
    config: Config,
    opened: Opened,
) -> Result<Dataplane> {
    let started = Instant::now();
    let config = Arc::new(config);
    let listener = api::bind(&config.node.api_socket)?;
    let specs = opened.specs();
    let mut configurator = Configurator::open().context("netlink")?;
    for (port, spec) in config.ports.iter().zip(&specs) {
        configurator
            .configure(&port.name, spec.mac.0, port.mtu, &port.addresses)
            .await
            .with_context(|| format!("control interface {}", port.name))?;
    }
    let names = config.ports.iter().map(|port| port.name.clone()).collect();
    let (mirror, snapshots) = Mirror::spawn(MirrorConfig::new(names)).context("netlink")?;
    mirror.install_routes(RouteSource::Static, speaking::static_routes(&config));

    let empty = TablesSpec { ports: specs.clone(), ..TablesSpec::default() };
    let tables = Arc::new(Tables::build(&empty, None)?);
    let (neighbours, wanted_neighbours) = mpsc::channel(BACKLOG);
    let mut dataplane = opened.start(&config, tables, &neighbours)?;

    let sharing = Sharing::start(&config, &mut dataplane)?;
    let (health_sender, health) = mpsc::channel(BACKLOG);
    let (wanted, wanted_receiver) = watch::channel(Arc::default());
    let speaker = Speaker::spawn(speaking::speaker_config(&config), wanted_receiver)?;
    let bfd = BfdHandle::spawn()?;
    let (ask_sender, asks) = mpsc::channel(BACKLOG);
    let inputs = Inputs {
        asks,
        health,
        snapshots,
        wanted_neighbours,
        imported: speaker.imported(),
        dynamic_peers: speaker.dynamic_peers(),
        bfd: bfd.subscribe(),
    };
    let dynamic_peers = DynamicPeers::default();
    bfd.set_sessions(speaking::bfd_sessions(&config, &dynamic_peers)).await?;
    let ospf = speaking::ospf_configs(&config)
        .into_iter()
        .map(|(config, timers)| {
            OspfHandle::spawn(config, timers.map(|timers| (bfd.clone(), timers)))
        })
        .collect::<Result<_, _>>()?;
    let clock = dataplane.clock;
    let workers = config.dataplane.workers.len() as u16;
    let task = Task {
        owner: Owner::new(Arc::clone(&config), specs, workers),
        outlets: Outlets {
            published: Arc::clone(&dataplane.published),
            wanted,
            ospf,
            checker: Checker::spawn(health_sender),
            mirror,
            interfaces: Interfaces::default(),
            rules: steering::Rules::new(&dataplane.ports, workers),
            in_use: BTreeSet::new(),
        },
        pulse: Pulse::new(dataplane.workers.clone(), config.dataplane.stall_after),
        speaker,
        bfd,
        dynamic_peers,
        settled: false,
        configurator,
        clock: Box::new(move || clock.now_ns()),
        links: dataplane.ports.iter().map(ports::link_probe).collect(),
        config_file: config_file.to_owned(),
        config_text,
        config_loaded_at: SystemTime::now(),
        config_error: None,
        reloads: Vec::new(),
    };
    let handle = Arc::new(Handle {
        asks: ask_sender,
        workers: dataplane.commands.clone(),
        ports: ports::describer(&dataplane.ports),
        started,
        sharing,
    });
    let (api_stop, api_stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(api::serve_on(Arc::clone(&handle), listener, async {
        // Dropping the sender says the same.
        let _ = api_stopped.await;
    }));
    let reloads = tokio::spawn(reload_on_hangup(Arc::clone(&handle)));
    let stop = stop_signal()?;
    notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!(node = config.node.name, "dunlind runs");
    task.run(inputs, stop).await;
    reloads.abort();
    drop(api_stop);
    // The server ends by itself within its grace; a panic there is in the log.
    let _ = served.await;
    Ok(dataplane)
}

/// SIGTERM or SIGINT: drain, then end. A second one: end now, as a crash would.
fn stop_signal() -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("stopping: draining first; signal again to stop at once");
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            tracing::warn!("stopped at once");
            std::process::exit(1);
        });
    })
}

async fn reload_on_hangup(handle: Arc<Handle>) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    while hangup.recv().await.is_some() {
        // The outcome is logged, and shown by `dunlin status`.
        let _ = api::Node::reload(&*handle).await;
    }
}

/// Tell systemd. Without systemd nobody listens, which is fine.
fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd not notified");
    }
}

/// The document with every password and key replaced.
fn redact(text: &str) -> String {
    let Ok(mut document) = text.parse::<toml::Table>() else { return String::new() };
    redact_table(&mut document);
    document.to_string()
}

fn redact_table(table: &mut toml::Table) {
    for (key, value) in table.iter_mut() {
        match value {
            toml::Value::String(secret) if key == "password" || key == "key" => {
                "(hidden)".clone_into(secret);
            }
            toml::Value::Table(inner) => redact_table(inner),
            toml::Value::Array(items) => {
                for inner in items.iter_mut().filter_map(toml::Value::as_table_mut) {
                    redact_table(inner);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn passwords_are_hidden_wherever_they_stand() {
        let text = "[bgp]\npassword = \"a1\"\n[[bgp.neighbor]]\npassword = \"b2\"\nport = 179\n\
                    bfd = { auth = { key-id = 1, key = \"c3\" } }\n\
                    [[ospf.interface]]\nauth = [{ type = \"md5\", key = \"d4\" }]\n";
        let shown = super::redact(text);
        assert!(!["a1", "b2", "c3", "d4"].iter().any(|secret| shown.contains(secret)), "{shown}");
        assert!(shown.contains("port = 179") && shown.contains("md5"), "{shown}");
        assert_eq!(super::redact("not = = toml"), "");
    }
}
