//! Keys of the listening sockets (TCP-MD5, TCP-AO), kept in step with who may dial in.

use super::registry::is_unnumbered;
use super::{Error, RangeConfig};
use crate::bgp::config::{AoKey, NeighborConfig, Password};
use crate::sockopt::{ao, set_tcp_md5};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use tokio::net::TcpListener;

/// How a neighbour's segments are signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Keys {
    Md5(Password),
    /// At least one.
    Ao(Vec<AoKey>),
}

impl Keys {
    pub fn of(config: &NeighborConfig) -> Option<Self> {
        if config.ao.is_empty() {
            return config.password.clone().map(Self::Md5);
        }
        Some(Self::Ao(config.ao.clone()))
    }

    /// For the addresses of `peers`. `dialling`: the socket is to connect, not to listen.
    pub fn set(&self, socket: impl AsFd, peers: IpNet, dialling: bool) -> io::Result<()> {
        match self {
            Self::Md5(key) => set_tcp_md5(socket, peers, key.as_bytes()),
            Self::Ao(keys) => keys.iter().enumerate().try_for_each(|(n, key)| {
                ao::add_key(socket.as_fd(), peers, key, dialling && n == 0)
            }),
        }
    }

    /// Takes back what is not in `new`. What was never set cannot be taken back, which is no harm.
    fn unset(&self, socket: impl AsFd, peers: IpNet, new: Option<&Self>) {
        match (self, new) {
            (Self::Md5(_), Some(Self::Md5(_))) => {}
            (Self::Md5(_), _) => drop(set_tcp_md5(socket, peers, &[])),
            (Self::Ao(keys), new) => {
                let stay = match new {
                    Some(Self::Ao(stay)) => stay.as_slice(),
                    _ => &[],
                };
                for key in keys.iter().filter(|key| !stay.contains(key)) {
                    drop(ao::delete_key(socket.as_fd(), peers, key));
                }
            }
        }
    }

    /// Sets what `old` has not. A listener that is new has none of `old`.
    fn add(&self, socket: impl AsFd, peers: IpNet, old: Option<&Self>) -> io::Result<()> {
        let (Self::Ao(keys), Some(Self::Ao(old))) = (self, old) else {
            return self.set(socket, peers, false);
        };
        for key in keys {
            match ao::add_key(socket.as_fd(), peers, key, false) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && old.contains(key) => {
                }
                result => result?,
            }
        }
        Ok(())
    }
}

/// By whom they are for. An unnumbered neighbour's address is not known yet: it can be dialled
/// with a key, but not dial in.
pub(super) type Holders = BTreeMap<IpNet, Keys>;

pub(super) fn holders<'a>(
    neighbors: impl Iterator<Item = &'a NeighborConfig>,
    ranges: &[RangeConfig],
) -> Holders {
    let neighbors = neighbors.filter(|n| !is_unnumbered(n));
    let neighbors = neighbors.map(|n| (IpNet::from(n.address), Keys::of(n)));
    let ranges = ranges.iter().map(|r| (r.prefix, Keys::of(&r.template)));
    ranges.chain(neighbors).filter_map(|(who, keys)| Some((who, keys?))).collect()
}

/// Whether the kernel can do what is asked for, before anything is changed: a box without TCP-AO
/// must not find out when the session does not come up.
pub(super) fn check<'a>(
    neighbors: impl Iterator<Item = &'a NeighborConfig>,
    ranges: &'a [RangeConfig],
) -> Result<(), Error> {
    for config in neighbors.chain(ranges.iter().map(|r| &r.template)) {
        for key in &config.ao {
            ao::probe(key).map_err(Error::TcpAo)?;
        }
        if config.password.is_some() && !config.ao.is_empty() {
            return Err(Error::TwoKeys);
        }
    }
    Ok(())
}

/// Brings the listeners' keys from `old` to `new`, all of them or none.
pub(super) fn exchange(
    sockets: &BTreeMap<SocketAddr, Arc<TcpListener>>,
    old: &Holders,
    new: &Holders,
) -> Result<(), Error> {
    for (done, (&address, socket)) in sockets.iter().enumerate() {
        let Err((neighbor, source)) = replace(address, socket, old, new) else { continue };
        for (&address, socket) in sockets.iter().take(done + 1) {
            // These were all set a moment ago.
            if let Err((who, error)) = replace(address, socket, new, old) {
                tracing::error!(neighbor = %who, %address, %error, "a TCP key was not set back");
            }
        }
        return Err(Error::Key { neighbor, address, source });
    }
    Ok(())
}

fn replace(
    address: SocketAddr,
    socket: &TcpListener,
    old: &Holders,
    new: &Holders,
) -> Result<(), (IpNet, io::Error)> {
    let fits = |who: &IpNet| who.addr().is_ipv4() == address.is_ipv4();
    // First out with the old: MD5 and AO do not go together, nor do two keys with one ID.
    for (who, keys) in old.iter().filter(|(who, _)| fits(who)) {
        keys.unset(socket, *who, new.get(who));
    }
    for (who, keys) in new.iter().filter(|(who, _)| fits(who)) {
        keys.add(socket, *who, old.get(who)).map_err(|error| (*who, error))?;
    }
    Ok(())
}
