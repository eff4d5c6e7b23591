//! Sets up the kernel's side of a control interface by netlink: MAC, MTU, up, addresses, settings.

use super::{sysctl, validate_mac, validate_mtu, validate_name};
use crate::error::Error;
use crate::netlink::{Events, NLM_F_CREATE, NLM_F_EXCL, Netlink};
use crate::raw;
use crate::wire::{LinkInfo, Message};
use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::RouteNetlinkMessage as Request;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{info, warn};

/// How long [`Configurator::configure`] waits for the interface to appear.
const WAIT: Duration = Duration::from_secs(5);
const RTNLGRP_LINK: u32 = 1;

/// Sets up control interfaces, and remembers which addresses it set. One per process.
#[derive(Debug)]
pub struct Configurator {
    netlink: Netlink,
    /// By interface name: its index, and the addresses that we set on it. An interface that was
    /// recreated has another index, and none of them.
    ours: BTreeMap<String, (u32, BTreeSet<IpNet>)>,
}

impl Configurator {
    /// In the network namespace of this thread. Must be called in a tokio runtime.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { netlink: Netlink::open()?, ours: BTreeMap::new() })
    }

    /// Wait (at most 5 s) for the interface that DPDK makes, then give it its MAC, MTU, settings
    /// and addresses, and set it up. Returns its index. Call it again with other values to change
    /// them: unchanged ones are not touched. The addresses can be bound at once; the kernel's own
    /// link-local address follows a moment later.
    ///
    /// The device should be started: starting it sets the interface up, stopping it sets it down.
    ///
    /// Addresses are reconciled by difference. Removed is only what an earlier call had set:
    /// addresses that someone else manages, and link-local ones, stay.
    pub async fn configure(
        &mut self,
        name: &str,
        mac: [u8; 6],
        mtu: u16,
        addresses: &[IpNet],
    ) -> Result<u32, Error> {
        validate_name(name)?;
        validate_mac(mac)?;
        validate_mtu(mtu)?;
        let link = self.wait_for(name, WAIT).await?;
        // Before the interface is up: duplicate address detection starts then.
        let missing = sysctl::write(name)?;
        if !missing.is_empty() {
            warn!(interface = name, settings = ?missing, "not known to this kernel");
        }
        if let Err(error) = raw::disable_offloads(name) {
            warn!(interface = name, %error, "cannot turn off offloads");
        }
        self.set_link(&link, mac, mtu).await?;
        self.reconcile(name, link.ifindex, addresses).await?;
        Ok(link.ifindex)
    }

    /// Tell the kernel whether the port has a link, so that its own sockets and routes, and whoever
    /// watches the interface, see it. A TAP otherwise has carrier as long as the process runs.
    ///
    /// The DPDK device must be started: a TAP without queues refuses (EPERM).
    pub async fn set_carrier(&mut self, ifindex: u32, carrier: bool) -> Result<(), Error> {
        let attributes = vec![LinkAttribute::Carrier(u8::from(carrier))];
        self.change_link("set the carrier", ifindex, None, attributes).await
    }

    async fn wait_for(&mut self, name: &str, wait: Duration) -> Result<LinkInfo, Error> {
        let deadline = Instant::now() + wait;
        // Subscribe, then look: the interface cannot appear in between unseen.
        let mut events = Events::open(&[RTNLGRP_LINK], 1 << 20)?;
        loop {
            if let Some(link) = self.find(name).await? {
                return Ok(link);
            }
            match tokio::time::timeout_at(deadline, events.next()).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(Error::Socket(error)),
                Err(_) => {
                    return Err(Error::NoInterface { name: name.to_owned(), waited: wait });
                }
            }
        }
    }

    async fn find(&mut self, name: &str) -> Result<Option<LinkInfo>, Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.netlink.request("find an interface", Request::GetLink(message), 0).await {
            Ok(answer) => Ok(answer.into_iter().find_map(|message| match message {
                Message::Link(link) if link.name == name => Some(link),
                _ => None,
            })),
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn set_link(&mut self, link: &LinkInfo, mac: [u8; 6], mtu: u16) -> Result<(), Error> {
        let index = link.ifindex;
        let mut up = link.up;
        if link.mac != Some(mac) {
            // The IPv6 link-local address is made of the MAC when the interface comes up.
            if up {
                self.change_link("set an interface down", index, Some(false), vec![]).await?;
                up = false;
            }
            let attributes = vec![LinkAttribute::Address(mac.to_vec())];
            self.change_link("set the MAC address", index, None, attributes).await?;
        }
        if link.mtu != u32::from(mtu) {
            let attributes = vec![LinkAttribute::Mtu(u32::from(mtu))];
            self.change_link("set the MTU", index, None, attributes).await?;
        }
        if !up {
            self.change_link("set an interface up", index, Some(true), vec![]).await?;
        }
        Ok(())
    }

    async fn change_link(
        &mut self,
        what: &'static str,
        ifindex: u32,
        up: Option<bool>,
        attributes: Vec<LinkAttribute>,
    ) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        message.attributes = attributes;
        if let Some(up) = up {
            message.header.change_mask = LinkFlags::Up;
            message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        }
        self.netlink.request(what, Request::SetLink(message), 0).await.map(|_| ())
    }

    async fn reconcile(
        &mut self,
        name: &str,
        ifindex: u32,
        addresses: &[IpNet],
    ) -> Result<(), Error> {
        let wanted: BTreeSet<IpNet> = addresses.iter().copied().collect();
        let present = self.addresses(ifindex).await?;
        // Kept up to date at every step: the caller may give up on us at any of them.
        let (index, ours) = self.ours.entry(name.to_owned()).or_default();
        if *index != ifindex {
            *index = ifindex;
            ours.clear();
        }
        let mut missing = Vec::new();
        for change in changes(&wanted, &present, ours) {
            match change {
                Change::Add(address) => {
                    let request = Request::NewAddress(address_message(ifindex, address));
                    let flags = NLM_F_CREATE | NLM_F_EXCL;
                    match self.netlink.request("add an address", request, flags).await {
                        Ok(_) => {
                            info!(interface = name, %address, "address added");
                            ours.insert(address);
                        }
                        Err(error) => missing.push(format!("{address} ({error})")),
                    }
                }
                Change::Remove(address) => {
                    let request = Request::DelAddress(address_message(ifindex, address));
                    match self.netlink.request("remove an address", request, 0).await {
                        Err(error) if error.errno() != Some(libc::EADDRNOTAVAIL) => {
                            warn!(interface = name, %address, %error, "address not removed");
                        }
                        _ => {
                            info!(interface = name, %address, "address removed");
                            ours.remove(&address);
                        }
                    }
                }
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::Addresses { name: name.to_owned(), missing: missing.join(", ") })
    }

    async fn addresses(&mut self, ifindex: u32) -> Result<BTreeSet<IpNet>, Error> {
        let request = Request::GetAddress(AddressMessage::default());
        let all = self.netlink.dump("list addresses", request).await?;
        Ok(all
            .into_iter()
            .filter_map(|message| match message {
                Message::Address(info) if info.ifindex == ifindex => Some(info.net),
                _ => None,
            })
            .collect())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Add(IpNet),
    Remove(IpNet),
}

/// What to change so that all of `wanted` are there, and none of `ours` that are not wanted.
///
/// New ones first, so that the interface is never without an address; but the kernel refuses an
/// IPv6 address that it has with another prefix length, so such a one makes place before.
fn changes(
    wanted: &BTreeSet<IpNet>,
    present: &BTreeSet<IpNet>,
    ours: &BTreeSet<IpNet>,
) -> Vec<Change> {
    let link_local = |net: &IpNet| match net {
        IpNet::V6(net) => net.addr().is_unicast_link_local(),
        IpNet::V4(_) => false,
    };
    let add: Vec<IpNet> = wanted.difference(present).copied().collect();
    let (before, after): (Vec<IpNet>, Vec<IpNet>) = ours
        .difference(wanted)
        .filter(|net| present.contains(net) && !link_local(net))
        .partition(|net| add.iter().any(|other| other.addr() == net.addr()));
    let before = before.into_iter().map(Change::Remove);
    let after = after.into_iter().map(Change::Remove);
    before.chain(add.into_iter().map(Change::Add)).chain(after).collect()
}

fn address_message(ifindex: u32, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = ifindex;
    message.header.prefix_len = net.prefix_len();
    match net.addr() {
        IpAddr::V4(_) => message.header.family = AddressFamily::Inet,
        IpAddr::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            message.header.flags = AddressHeaderFlags::Nodad;
        }
    }
    message.attributes =
        vec![AddressAttribute::Local(net.addr()), AddressAttribute::Address(net.addr())];
    message
}

#[cfg(test)]
mod tests;
