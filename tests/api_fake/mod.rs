//! A node that answers the API with fixed data, the real server in front of it, and a temporary
//! socket. The data is a bad night: a stalled worker, a dead backend, a session that will not come
//! up, so that the output shows what an operator would look at.
#![allow(dead_code)] // Each test binary uses its own part.

mod data;
pub mod http;
mod ospf;
mod routing;

use dunlin::api::model::{
    AnnounceInfo, BackendInfo, BfdInfo, BgpInfo, ClusterInfo, ConfigInfo, DrainRequest,
    DrainResult, DropInfo, FlowFilter, FlowList, OspfInfo, PortInfo, ReloadResult, Scope,
    ServiceInfo, Status, WorkerInfo,
};
use dunlin::api::{self, ApiError, Node};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;

/// Fixed answers, which a test may change, and a record of what was asked of the node.
#[derive(Debug)]
pub struct Fake {
    pub status: Status,
    pub services: Vec<ServiceInfo>,
    pub backends: Vec<BackendInfo>,
    pub flows: Vec<dunlin::api::model::FlowInfo>,
    pub bgp: Option<BgpInfo>,
    pub bfd: BfdInfo,
    pub ospf: Vec<OspfInfo>,
    pub cluster: Option<ClusterInfo>,
    pub ports: Vec<PortInfo>,
    pub drops: Vec<DropInfo>,
    pub announce: Vec<AnnounceInfo>,
    pub reload: Result<ReloadResult, ApiError>,
    pub done: Mutex<Vec<String>>,
}

impl Fake {
    /// A healthy node with nothing configured.
    pub fn empty() -> Self {
        let mut fake = Self::bad_night();
        fake.status = data::quiet_status();
        fake.services.clear();
        fake.backends.clear();
        fake.flows.clear();
        fake.bfd = BfdInfo::default();
        fake.ospf.clear();
        fake.cluster = None;
        fake.ports.clear();
        fake.announce.clear();
        for drop in &mut fake.drops {
            drop.count = 0;
            drop.per_worker.clear();
        }
        if let Some(bgp) = &mut fake.bgp {
            bgp.neighbors.clear();
            bgp.unknown_peers = 0;
            bgp.kernel = dunlin::api::model::KernelTcpDrops::default();
        }
        fake.reload = Ok(ReloadResult { changes: Vec::new(), needs_restart: Vec::new() });
        fake
    }

    pub fn bad_night() -> Self {
        Self {
            status: data::status(),
            services: data::services(),
            backends: data::backends(),
            flows: data::flows(),
            bgp: Some(routing::bgp()),
            bfd: routing::bfd(),
            ospf: ospf::ospf(),
            cluster: Some(data::cluster()),
            ports: data::ports(),
            drops: data::drops(),
            announce: routing::announce(),
            reload: Ok(data::reload()),
            done: Mutex::new(Vec::new()),
        }
    }

    fn record(&self, what: String) {
        self.done.lock().expect("not poisoned").push(what);
    }

    /// What was asked of the node, in order.
    pub fn done(&self) -> Vec<String> {
        self.done.lock().expect("not poisoned").clone()
    }
}

impl Node for Fake {
    async fn status(&self) -> Result<Status, ApiError> {
        Ok(self.status.clone())
    }

    async fn services(&self) -> Result<Vec<ServiceInfo>, ApiError> {
        Ok(self.services.clone())
    }

    async fn backends(&self) -> Result<Vec<BackendInfo>, ApiError> {
        Ok(self.backends.clone())
    }

    async fn flows(&self, filter: FlowFilter) -> Result<FlowList, ApiError> {
        self.record(format!("{filter:?}"));
        let matching = self.flows.iter().filter(|flow| filter.matches(flow));
        Ok(FlowList {
            matched: matching.clone().count() as u64,
            flows: matching.take(filter.limit).cloned().collect(),
            total: self.flows.len() as u64,
        })
    }

    async fn bgp(&self) -> Result<Option<BgpInfo>, ApiError> {
        Ok(self.bgp.clone())
    }

    async fn bfd(&self) -> Result<BfdInfo, ApiError> {
        Ok(self.bfd.clone())
    }

    async fn ospf(&self) -> Result<Vec<OspfInfo>, ApiError> {
        Ok(self.ospf.clone())
    }

    async fn cluster(&self) -> Result<Option<ClusterInfo>, ApiError> {
        Ok(self.cluster.clone())
    }

    async fn ports(&self) -> Result<Vec<PortInfo>, ApiError> {
        Ok(self.ports.clone())
    }

    async fn workers(&self) -> Result<Vec<WorkerInfo>, ApiError> {
        Ok(self.status.workers.clone())
    }

    async fn drops(&self) -> Result<Vec<DropInfo>, ApiError> {
        Ok(self.drops.clone())
    }

    async fn announce(&self) -> Result<Vec<AnnounceInfo>, ApiError> {
        Ok(self.announce.clone())
    }

    async fn config(&self) -> Result<ConfigInfo, ApiError> {
        Ok(data::config())
    }

    async fn drain(&self, scope: Scope, request: DrainRequest) -> Result<DrainResult, ApiError> {
        self.record(format!("drain {scope:?} {:?}", request.reason));
        Ok(DrainResult {
            flows_left: (scope == Scope::Node).then_some(1204),
            changes: vec![match scope {
                Scope::Node => "draining the node: preference lowered, withdrawn in 5s".to_owned(),
                Scope::Service(name) => format!("draining service {name}"),
                Scope::Backend(selector) => format!("draining backend {selector} of service web"),
            }],
        })
    }

    async fn undrain(&self, scope: Scope) -> Result<DrainResult, ApiError> {
        self.record(format!("undrain {scope:?}"));
        Ok(DrainResult { changes: Vec::new(), flows_left: None })
    }

    async fn reload(&self) -> Result<ReloadResult, ApiError> {
        self.record("reload".to_owned());
        self.reload.clone()
    }
}

/// A directory of this test's own, removed at the end.
#[derive(Debug)]
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("dunlin-api-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("temporary directory");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running server on a socket of its own, on its own runtime, so that plain tests can use it.
#[derive(Debug)]
pub struct Served {
    pub node: Arc<Fake>,
    socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    _scratch: Scratch,
}

impl Served {
    pub fn new(fake: Fake) -> Self {
        let scratch = Scratch::new();
        let socket = scratch.0.join("api.sock");
        let node = Arc::new(fake);
        let (stop, stopped) = oneshot::channel::<()>();
        let (bound, ready) = std::sync::mpsc::channel();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("runtime");
        let (served, path) = (Arc::clone(&node), socket.clone());
        let thread = std::thread::spawn(move || {
            runtime.block_on(async move {
                let listener = api::bind(&path).expect("bind");
                bound.send(()).expect("test waits");
                let stopped = async { drop(stopped.await) };
                api::serve_on(served, listener, stopped).await;
            });
        });
        ready.recv().expect("server thread");
        Self { node, socket, stop: Some(stop), thread: Some(thread), _scratch: scratch }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Stop, wait for the end, and panic if the server did.
    pub fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server does not panic");
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the server panicked");
        }
    }
}
