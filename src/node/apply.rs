//! A configuration's protocols, applied all or not at all.
//!
//! Every part is asked first whether it would take its share. Only BGP can still refuse then, since
//! it needs sockets and the kernel's consent to keys; so it goes first, and undoes what it began.

use routing::bfd::{BfdHandle, SessionConfig};
use routing::ospf::{self, OspfHandle};
use routing::speaker::{SpeakerConfig, SpeakerHandle};

/// What the protocols are to do.
#[derive(Debug)]
pub struct Plan {
    pub speaker: SpeakerConfig,
    pub bfd: Vec<SessionConfig>,
    /// In the order of the handles.
    pub ospf: Vec<ospf::Config>,
}

/// # Errors
/// Why one of them refuses its part, in words. Everything is then as it was.
pub async fn apply(
    plan: Plan,
    speaker: &SpeakerHandle,
    bfd: &BfdHandle,
    ospf: &[OspfHandle],
) -> Result<(), String> {
    for (handle, config) in ospf.iter().zip(&plan.ospf) {
        handle.check_config(config.clone()).await.map_err(|error| error.to_string())?;
    }
    bfd.check_sessions(plan.bfd.clone()).await.map_err(|error| error.to_string())?;
    speaker.reconfigure(plan.speaker).map_err(|error| error.to_string())?;
    // Consented to; what fails now has ended, and is beyond a reload's help.
    if let Err(error) = bfd.set_sessions(plan.bfd).await {
        tracing::error!(%error, "BFD does not follow the new configuration");
    }
    for (handle, config) in ospf.iter().zip(plan.ospf) {
        if let Err(error) = handle.set_config(config).await {
            tracing::error!(%error, "OSPF does not follow the new configuration");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use routing::bgp::config::{NeighborConfig, RemoteAs};
    use routing::ospf::{AreaKind, Version};
    use routing::speaker::Speaker;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::net::TcpListener;
    use tokio::sync::watch;

    const PEER: Ipv4Addr = Ipv4Addr::new(127, 0, 77, 1);

    fn plan() -> Plan {
        let router_id = Ipv4Addr::new(10, 0, 0, 1);
        let neighbor = NeighborConfig {
            passive: true,
            description: "new".to_owned(),
            ..NeighborConfig::new(PEER.into(), RemoteAs::External)
        };
        Plan {
            speaker: SpeakerConfig {
                router_id,
                asn: 65001,
                listen: Vec::new(),
                neighbors: vec![neighbor],
                ranges: Vec::new(),
            },
            bfd: vec![SessionConfig {
                peer: PEER.into(),
                local: None,
                interface: None,
                multihop: true,
                min_tx: Duration::from_millis(300),
                min_rx: Duration::from_millis(300),
                multiplier: 3,
                auth: None,
            }],
            ospf: vec![ospf::Config {
                version: Version::V2,
                router_id,
                area: Ipv4Addr::UNSPECIFIED,
                area_kind: AreaKind::Normal,
                interfaces: vec![ospf::InterfaceConfig::new("nowhere0")],
            }],
        }
    }

    struct Bench {
        speaker: SpeakerHandle,
        bfd: BfdHandle,
        ospf: Vec<OspfHandle>,
    }

    impl Bench {
        fn start() -> Self {
            let Plan { speaker, ospf, .. } = plan();
            let (_, wanted) = watch::channel(Arc::default());
            let speaker = SpeakerConfig { neighbors: Vec::new(), ..speaker };
            let ospf = ospf.into_iter().map(|config| {
                let config = ospf::Config { interfaces: Vec::new(), ..config };
                OspfHandle::spawn(config, None).unwrap()
            });
            Self {
                speaker: Speaker::spawn(speaker, wanted).unwrap(),
                bfd: BfdHandle::spawn().unwrap(),
                ospf: ospf.collect(),
            }
        }

        async fn apply(&self, plan: Plan) -> Result<(), String> {
            apply(plan, &self.speaker, &self.bfd, &self.ospf).await
        }

        /// Neighbours, BFD sessions and OSPF interfaces.
        async fn size(&self) -> (usize, usize, usize) {
            let ospf = self.ospf[0].status().await.unwrap();
            let bfd = self.bfd.status().await.unwrap();
            (self.speaker.status().neighbors.len(), bfd.sessions.len(), ospf.interfaces.len())
        }
    }

    #[tokio::test]
    async fn whichever_part_refuses_nothing_is_changed() {
        let taken = TcpListener::bind((Ipv4Addr::new(127, 0, 77, 2), 0)).await.unwrap();
        let taken = taken.local_addr().unwrap();
        type Spoil = fn(&mut Plan, SocketAddr);
        let spoils: [(&str, Spoil); 4] = [
            ("cannot listen", |plan, taken| plan.speaker.listen = vec![taken]),
            ("multiplier", |plan, _| plan.bfd[0].multiplier = 0),
            ("cannot change", |plan, _| plan.ospf[0].router_id = PEER),
            ("cost", |plan, _| plan.ospf[0].interfaces[0].cost = 0),
        ];
        for (reason, spoil) in spoils {
            let bench = Bench::start();
            let mut spoilt = plan();
            spoil(&mut spoilt, taken);
            let error = bench.apply(spoilt).await.expect_err(reason);
            assert!(error.contains(reason), "{error}");
            assert_eq!(bench.size().await, (0, 0, 0), "{reason}");
            bench.apply(plan()).await.unwrap();
            assert_eq!(bench.size().await, (1, 1, 1), "{reason}");
        }
    }
}
