//! The node behind its API: questions go to the task and to the workers, answers come back.

use super::sharing::Sharing;
use super::task::{Ask, Task};
use super::{shown, shown_ospf};
use crate::api::model::{
    AnnounceInfo, AnnouncePeer, BackendInfo, BackendSelector, BfdInfo, BgpInfo, BgpSummary,
    ClusterInfo, ConfigInfo, DrainRequest, DrainResult, DropInfo, FlowFilter, FlowList, OspfInfo,
    OspfNeighborState, PortInfo, ReloadResult, Scope, ServiceInfo, Status, WorkerInfo,
};
use crate::api::{ApiError, Node};
use crate::control::owner::DrainScope;
use crate::control::view;
use crate::forward::tables::ServiceId;
use crate::worker::Command;
use ipnet::IpNet;
use routing::bgp::fsm::State;
use routing::ospf::{InstanceStatus, OspfError, Version};
use routing::speaker::NeighborStatus;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};

/// Implements the API's [`Node`].
pub struct Handle {
    pub asks: mpsc::Sender<Ask>,
    pub workers: Vec<SyncSender<Command>>,
    /// Describes the ports now; asks the devices.
    pub ports: Box<dyn Fn() -> Vec<PortInfo> + Send + Sync>,
    pub started: Instant,
    /// `None`: flows are not shared with other nodes.
    pub sharing: Option<Sharing>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("started", &self.started).finish_non_exhaustive()
    }
}

impl Handle {
    /// Run `question` on the task.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Task) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        let ask: Ask = Box::new(move |task| {
            // Whoever asked may have gone.
            let _ = reply.send(question(task));
        });
        let stopped = || ApiError::unavailable("the node is stopping", "try again when it is back");
        self.asks.send(ask).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())
    }

    async fn ospf_statuses(&self) -> Result<Vec<InstanceStatus>, ApiError> {
        let handles = self.ask(|task| task.outlets.ospf.clone()).await?;
        let mut statuses = Vec::with_capacity(handles.len());
        for handle in handles {
            let ended = |error: OspfError| ApiError::unavailable(error.to_string(), "see the log");
            statuses.push(handle.status().await.map_err(ended)?);
        }
        Ok(statuses)
    }

    async fn bfd_status(&self) -> Result<Option<routing::bfd::BfdStatus>, ApiError> {
        let bfd = self.ask(|task| task.bfd.clone()).await?;
        Ok(bfd.status().await.ok())
    }
}

impl Node for Handle {
    async fn status(&self) -> Result<Status, ApiError> {
        let uptime_s = self.started.elapsed().as_secs();
        let ospf = self.ospf_statuses().await?;
        self.ask(move |task| status(task, uptime_s, &ospf)).await
    }

    async fn services(&self) -> Result<Vec<ServiceInfo>, ApiError> {
        self.ask(|task| view::services(&task.owner, task.pulse.workers())).await
    }

    async fn backends(&self) -> Result<Vec<BackendInfo>, ApiError> {
        self.ask(|task| {
            let checks = checks(task);
            view::backends(&task.owner, task.pulse.workers(), &checks, Instant::now())
        })
        .await
    }

    async fn flows(&self, filter: FlowFilter) -> Result<FlowList, ApiError> {
        let (names, total) =
            self.ask(|task| (service_names(task), view::flows(task.pulse.workers()))).await?;
        let peers = self.sharing.as_ref().map_or(&[][..], |sharing| &sharing.stats.peers[..]);
        let names = Arc::new(names);
        let mut list = FlowList { total, ..FlowList::default() };
        for (worker, commands) in (0u16..).zip(&self.workers) {
            let (reply, answer) = oneshot::channel();
            let (wanted, names_there) = (filter.clone(), Arc::clone(&names));
            let room = filter.limit.saturating_sub(list.flows.len());
            let command = Command::Flows {
                filter: Box::new(move |flow| {
                    super::flows::matches(&wanted, flow, names_there.get(&ServiceId(flow.service)))
                }),
                limit: room,
                reply,
            };
            commands.try_send(command).map_err(|_| {
                ApiError::unavailable(
                    format!("worker {worker} does not take questions"),
                    "it is stalled or already listing flows; see `dunlin workers`",
                )
            })?;
            let page = answer.await.map_err(|_| {
                ApiError::unavailable(format!("worker {worker} did not answer"), "see the log")
            })?;
            list.matched += page.matched;
            list.flows.extend(page.flows.into_iter().map(|flow| {
                let service = names.get(&ServiceId(flow.service)).cloned().unwrap_or_default();
                super::flows::info(&flow, service, peers)
            }));
        }
        Ok::<_, ApiError>(list)
    }

    async fn bgp(&self) -> Result<Option<BgpInfo>, ApiError> {
        let bfd = self.bfd_status().await?;
        self.ask(move |task| {
            shown::bgp(task.owner.state().config(), &task.speaker.status(), bfd.as_ref())
        })
        .await
    }

    async fn bfd(&self) -> Result<BfdInfo, ApiError> {
        let status = self.bfd_status().await?;
        status.as_ref().map(shown::bfd).ok_or_else(|| {
            ApiError::unavailable("the BFD thread has ended", "see the log; restart the node")
        })
    }

    async fn ospf(&self) -> Result<Vec<OspfInfo>, ApiError> {
        Ok(self.ospf_statuses().await?.iter().map(shown_ospf::ospf).collect())
    }

    async fn cluster(&self) -> Result<Option<ClusterInfo>, ApiError> {
        let Some(sharing) = &self.sharing else {
            return Ok(None);
        };
        let workers = self.ask(|task| task.pulse.workers().to_vec()).await?;
        Ok(Some(sharing.info(&workers)))
    }

    async fn ports(&self) -> Result<Vec<PortInfo>, ApiError> {
        Ok((self.ports)())
    }

    async fn workers(&self) -> Result<Vec<WorkerInfo>, ApiError> {
        self.ask(|task| workers(task)).await
    }

    async fn drops(&self) -> Result<Vec<DropInfo>, ApiError> {
        self.ask(|task| view::drops(task.pulse.workers())).await
    }

    async fn announce(&self) -> Result<Vec<AnnounceInfo>, ApiError> {
        let (mut list, speaker, peers) = self
            .ask(|task| {
                let status = task.speaker.status();
                (view::announce(&task.owner), task.speaker.clone(), status.neighbors)
            })
            .await?;
        for peer in &peers {
            // A link-local or unnumbered neighbour is known by the address it is connected to.
            let address = peer.remote.map_or(peer.address, |remote| remote.ip());
            let told =
                speaker.announced(address, peer.interface.as_deref()).await.unwrap_or_default();
            let told: HashMap<IpNet, IpAddr> =
                told.iter().map(|route| (route.prefix, route.next_hop)).collect();
            let refused: HashMap<IpNet, &String> =
                peer.unannounceable.iter().map(|(prefix, why)| (*prefix, why)).collect();
            for entry in &mut list {
                entry.peers.push(bgp_peer(peer, &told, &refused, entry));
            }
        }
        for status in self.ospf_statuses().await? {
            let v4 = status.version == Version::V2;
            for entry in list.iter_mut().filter(|entry| entry.prefix.addr().is_ipv4() == v4) {
                let neighbors = status.interfaces.iter().flat_map(|i| &i.neighbors);
                let peers = neighbors.map(|neighbor| ospf_peer(&status, neighbor, entry));
                entry.peers.extend(peers.collect::<Vec<_>>());
            }
        }
        Ok(list)
    }

    async fn config(&self) -> Result<ConfigInfo, ApiError> {
        self.ask(|task| ConfigInfo {
            file: task.config_file.display().to_string(),
            loaded_at: unix(task.config_loaded_at),
            toml: super::redact(&task.config_text),
        })
        .await
    }

    async fn drain(&self, scope: Scope, request: DrainRequest) -> Result<DrainResult, ApiError> {
        self.ask(move |task| {
            let mut changes = Vec::new();
            let left = view::own_flows(task.pulse.workers());
            let flows_left = (scope == Scope::Node).then_some(left);
            for scope in scopes(task, &scope)? {
                let sentence = format!("{} drains", describe(&scope));
                if task.owner.drain(scope, request.reason.clone(), Instant::now()) {
                    changes.push(sentence);
                }
            }
            Ok(DrainResult { changes, flows_left })
        })
        .await?
    }

    async fn undrain(&self, scope: Scope) -> Result<DrainResult, ApiError> {
        self.ask(move |task| {
            let mut changes = Vec::new();
            for scope in scopes(task, &scope)? {
                if task.owner.undrain(&scope) {
                    changes.push(format!("{} is back in service", describe(&scope)));
                }
            }
            Ok(DrainResult { changes, flows_left: None })
        })
        .await?
    }

    async fn reload(&self) -> Result<ReloadResult, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.ask(|task| task.reloads.push(reply)).await?;
        answer
            .await
            .map_err(|_| ApiError::unavailable("the node is stopping", "nothing was changed"))?
    }
}

/// `told`: what the peer was told, with next hops; `refused`: what it cannot be told, and why.
fn bgp_peer(
    peer: &NeighborStatus,
    told: &HashMap<IpNet, IpAddr>,
    refused: &HashMap<IpNet, &String>,
    entry: &AnnounceInfo,
) -> AnnouncePeer {
    let route = told.get(&entry.prefix);
    let refused = refused.get(&entry.prefix);
    let reason = match refused {
        Some(why) => (*why).clone(),
        None if route.is_some() || !entry.wanted => String::new(),
        None if peer.admin_down => "session is shut down".to_owned(),
        None if peer.state == State::Established => "still being sent".to_owned(),
        None => format!("session is {}", peer.state.name()),
    };
    AnnouncePeer {
        name: shown::neighbor_name(peer),
        address: peer.address,
        protocol: "bgp".to_owned(),
        sent: route.is_some(),
        next_hop: route.copied(),
        reason,
    }
}

/// OSPF floods: a full neighbour that owes no acknowledgment has all that was originated.
fn ospf_peer(
    status: &InstanceStatus,
    neighbor: &routing::ospf::NeighborStatus,
    entry: &AnnounceInfo,
) -> AnnouncePeer {
    let prefix = entry.prefix.to_string();
    let refused = status.refused.iter().find(|(other, _)| *other == prefix);
    let state = shown_ospf::neighbor_state(neighbor.state);
    let reason = match refused {
        Some((_, why)) => why.clone(),
        None if !entry.wanted => String::new(),
        None if state != OspfNeighborState::Full => format!("adjacency is {state}"),
        None if neighbor.unacknowledged > 0 => "not all acknowledged yet".to_owned(),
        None => String::new(),
    };
    let protocol = if status.version == Version::V2 { "ospf" } else { "ospf3" };
    AnnouncePeer {
        name: neighbor.router_id.to_string(),
        address: neighbor.address,
        protocol: protocol.to_owned(),
        sent: entry.wanted && reason.is_empty(),
        next_hop: None,
        reason,
    }
}

fn status(task: &mut Task, uptime_s: u64, ospf: &[InstanceStatus]) -> Status {
    let owner = &task.owner;
    let config = Arc::clone(owner.state().config());
    let speaker = task.speaker.status();
    let established =
        speaker.neighbors.iter().filter(|n| n.state == routing::bgp::fsm::State::Established);
    let summary = BgpSummary {
        neighbors: speaker.neighbors.len() as u64,
        established: established.count() as u64,
    };
    let mut others: Vec<String> = speaker
        .neighbors
        .iter()
        .filter(|n| !n.admin_down && n.state != routing::bgp::fsm::State::Established)
        .map(|n| format!("BGP session with {} is {}", shown::neighbor_name(n), n.state.name()))
        .collect();
    others.extend(ospf.iter().filter_map(no_adjacency));
    others.extend(task.config_error.iter().map(|error| format!("last reload refused: {error}")));
    let backends = view::backends(owner, task.pulse.workers(), &checks(task), Instant::now());
    let healthy = backends
        .iter()
        .filter(|backend| backend.state == crate::api::model::BackendState::Healthy)
        .count();
    Status {
        name: config.node.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        router_id: config.node.router_id,
        pid: std::process::id(),
        uptime_s,
        config_file: task.config_file.display().to_string(),
        config_loaded_at: unix(task.config_loaded_at),
        config_age_s: task.config_loaded_at.elapsed().unwrap_or_default().as_secs(),
        config_error: task.config_error.clone(),
        tables_epoch: owner.state().epoch(),
        drain: view::drain(owner, task.pulse.workers(), Instant::now()),
        health: view::health(owner, others),
        services: view::services(owner, task.pulse.workers()).len() as u64,
        backends_healthy: healthy as u64,
        backends_total: backends.len() as u64,
        workers: workers(task),
        vips: view::vips(owner),
        bgp: config.bgp.is_some().then_some(summary),
    }
}

fn no_adjacency(status: &InstanceStatus) -> Option<String> {
    let mut neighbors = status.interfaces.iter().flat_map(|interface| &interface.neighbors);
    let full = neighbors.any(|n| shown_ospf::neighbor_state(n.state) == OspfNeighborState::Full);
    (!full).then(|| format!("OSPFv{} has no full neighbour", status.version as u8))
}

fn workers(task: &Task) -> Vec<WorkerInfo> {
    view::workers(&task.owner, task.pulse.workers(), (task.clock)(), task.pulse.busy())
}

fn checks(task: &Task) -> view::Checks {
    let status = task.outlets.checker.status();
    status.into_iter().map(|status| ((*status.target).clone(), status)).collect()
}

fn service_names(task: &Task) -> HashMap<ServiceId, String> {
    let services = task.owner.state().services.values();
    services.map(|service| (service.id, service.config.name.clone())).collect()
}

/// What the API's scope means here; an error if there is no such thing.
fn scopes(task: &Task, scope: &Scope) -> Result<Vec<DrainScope>, ApiError> {
    match scope {
        Scope::Node => Ok(vec![DrainScope::Node]),
        Scope::Service(name) => {
            let config = task.owner.state().config();
            if config.services.iter().any(|service| service.name == *name) {
                Ok(vec![DrainScope::Service(name.clone())])
            } else {
                let known = config.services.iter().map(|service| service.name.clone());
                Err(ApiError::not_found("service", name, known))
            }
        }
        Scope::Backend(selector) => backend_scopes(task, selector),
    }
}

fn backend_scopes(task: &Task, selector: &BackendSelector) -> Result<Vec<DrainScope>, ApiError> {
    let all = view::backend_addresses(&task.owner);
    let meant: Vec<SocketAddr> = all.iter().copied().filter(|a| selector.matches(a)).collect();
    if meant.is_empty() {
        return Err(ApiError::not_found("backend", &selector.to_string(), all));
    }
    Ok(meant.into_iter().map(DrainScope::Backend).collect())
}

fn describe(scope: &DrainScope) -> String {
    match scope {
        DrainScope::Node => "the node".to_owned(),
        DrainScope::Service(name) => format!("service {name}"),
        DrainScope::Backend(address) => format!("backend {address}"),
    }
}

fn unix(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
