//! The node, asked through its API by commands that are not asynchronous themselves.

use crate::api::client::{Client, ClientError, decode};
use crate::api::model::{
    BfdInfo, BfdState, BgpInfo, BgpState, DrainRequest, DrainResult, OspfInfo, OspfNeighborState,
    PortInfo, Status,
};
use anyhow::{Context, Result};
use hyper::StatusCode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::Path;

/// What the appliance's commands want of the node.
pub trait Node: Debug {
    fn status(&self) -> Result<Status>;
    fn sessions(&self) -> Result<Sessions>;
    fn ports(&self) -> Result<Vec<PortInfo>>;
    fn drain(&self, reason: &str) -> Result<()>;
}

/// Who the node has sessions with that are up, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sessions {
    pub bgp: BTreeSet<String>,
    pub bfd: BTreeSet<String>,
    pub ospf: BTreeSet<String>,
}

impl Sessions {
    /// Those of `before` that are not up now: `BGP 10.1.1.1`.
    pub fn missing(&self, before: &Self) -> Vec<String> {
        let kinds = [
            ("BGP", &before.bgp, &self.bgp),
            ("BFD", &before.bfd, &self.bfd),
            ("OSPF", &before.ospf, &self.ospf),
        ];
        let missing = kinds.into_iter().flat_map(|(kind, before, now)| {
            before.difference(now).map(move |name| format!("{kind} {name}"))
        });
        missing.collect()
    }

    pub fn count(&self) -> usize {
        self.bgp.len() + self.bfd.len() + self.ospf.len()
    }
}

/// The node on this machine.
#[derive(Debug)]
pub struct Local {
    runtime: tokio::runtime::Runtime,
    client: Client,
}

impl Local {
    pub fn new(socket: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self { runtime: runtime.context("cannot start")?, client: Client::new(socket) })
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.runtime.block_on(self.client.get(path))
    }

    /// `None`: the node does not have that part.
    fn get_part<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>> {
        match self.get(path) {
            Ok(value) => Ok(Some(value)),
            Err(ClientError::Refused(StatusCode::NOT_FOUND, _)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Node for Local {
    fn status(&self) -> Result<Status> {
        Ok(self.get("/v1/status")?)
    }

    fn sessions(&self) -> Result<Sessions> {
        let bgp: Option<BgpInfo> = self.get_part("/v1/bgp")?;
        let bfd: Option<BfdInfo> = self.get_part("/v1/bfd")?;
        let ospf: Option<Vec<OspfInfo>> = self.get_part("/v1/ospf")?;
        let bgp = bgp.into_iter().flat_map(|bgp| bgp.neighbors);
        let bfd = bfd.into_iter().flat_map(|bfd| bfd.sessions);
        let ospf = ospf.into_iter().flatten().flat_map(|ospf| ospf.neighbors);
        Ok(Sessions {
            bgp: bgp
                .filter(|neighbor| neighbor.state == BgpState::Established)
                .map(|neighbor| neighbor.name)
                .collect(),
            bfd: bfd
                .filter(|session| session.state == BfdState::Up)
                .map(|session| session.peer.to_string())
                .collect(),
            ospf: ospf
                .filter(|neighbor| neighbor.state == OspfNeighborState::Full)
                .map(|n| format!("v{} {} on {}", n.version, n.router_id, n.interface))
                .collect(),
        })
    }

    fn ports(&self) -> Result<Vec<PortInfo>> {
        Ok(self.get("/v1/ports")?)
    }

    fn drain(&self, reason: &str) -> Result<()> {
        let body = serde_json::to_vec(&DrainRequest { reason: reason.to_owned() })?;
        let answer = self.runtime.block_on(self.client.post_raw("/v1/drain", body))?;
        decode::<DrainResult>(&answer)?;
        Ok(())
    }
}
