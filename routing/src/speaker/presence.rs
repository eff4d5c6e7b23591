//! Neighbours whose addresses the configuration does not hold: who they are now. Whoever has them
//! followed by BFD reads it as the latest value.

use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::watch;

/// An unnumbered neighbour that was found, or one that dialled in from a range.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DynamicPeer {
    pub address: IpAddr,
    /// Of a link-local address.
    pub interface: Option<String>,
    /// Where it dialled in from; `None` if it is unnumbered.
    pub range: Option<IpNet>,
}

/// All of them.
pub type DynamicPeers = Arc<BTreeSet<DynamicPeer>>;

/// Where peer tasks enter themselves.
#[derive(Debug, Default)]
pub(super) struct Presence {
    peers: watch::Sender<DynamicPeers>,
}

impl Presence {
    pub fn subscribe(&self) -> watch::Receiver<DynamicPeers> {
        self.peers.subscribe()
    }

    fn replace(&self, old: Option<&DynamicPeer>, new: Option<&DynamicPeer>) {
        if old == new {
            return;
        }
        self.peers.send_modify(|peers| {
            let peers = Arc::make_mut(peers);
            if let Some(old) = old {
                peers.remove(old);
            }
            peers.extend(new.cloned());
        });
    }
}

/// The entry of one peer task: gone with the task, however it ends.
#[derive(Debug)]
pub(super) struct Present {
    presence: Arc<Presence>,
    peer: Option<DynamicPeer>,
}

impl Present {
    pub fn new(presence: Arc<Presence>) -> Self {
        Self { presence, peer: None }
    }

    /// This is the neighbour now.
    pub fn set(&mut self, peer: Option<DynamicPeer>) {
        self.presence.replace(self.peer.as_ref(), peer.as_ref());
        self.peer = peer;
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_moves_and_goes_with_its_task() {
        let presence = Arc::<Presence>::default();
        let peers = presence.subscribe();
        let peer = |address: &str| DynamicPeer {
            address: address.parse().unwrap(),
            interface: Some("eth0".to_owned()),
            range: None,
        };
        let mut one = Present::new(Arc::clone(&presence));
        let mut other = Present::new(presence);
        one.set(Some(peer("fe80::1")));
        other.set(Some(peer("fe80::2")));
        one.set(Some(peer("fe80::3")));
        assert_eq!(**peers.borrow(), BTreeSet::from([peer("fe80::2"), peer("fe80::3")]));
        drop(one);
        assert_eq!(**peers.borrow(), BTreeSet::from([peer("fe80::2")]));
        other.set(None);
        assert!(peers.borrow().is_empty());
    }
}
