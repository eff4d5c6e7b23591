//! Adj-RIB-Out: what one peer has been told, brought to the latest wanted state by difference
//! (RFC 4271 §3.2, §9.2).
//!
//! In: the wanted announcements, and how far the peer can take more bytes. Out: UPDATEs, packed
//! per attribute set, withdrawals first. Changes are not queued: a prefix that flaps while the
//! peer does not read costs nothing, only its last state is sent. There is no minimum interval
//! between advertisements (RFC 4271 §9.2.1.1 leaves it configurable; ours is 0).

use super::wire::{
    AnnounceTemplate, AsPath, Attributes, Families, Family, NextHop, RouteRefresh,
    encode_end_of_rib, encode_withdrawal, encoded_prefix_len,
};
use crate::{BgpAttributes, Wanted};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// What an established session settles for its announcements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportContext {
    pub local_asn: u32,
    pub internal: bool,
    pub four_octet_as: bool,
    /// Longest message the peer takes.
    pub max_message: usize,
    pub families: Families,
    /// IPv4 routes may carry an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
    /// Next hop self, per family; `None` where this side has no such address.
    pub next_hop_v4: Option<Ipv4Addr>,
    pub next_hop_v6: Option<NextHop>,
    /// Add ONLY_TO_CUSTOMER with our AS (RFC 9234 §5, egress).
    pub only_to_customer: bool,
    /// The peer agreed to markers around a refresh (RFC 7313).
    pub enhanced_refresh: bool,
}

/// What marks the end of the announcements under way in a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    EndOfRib,
    EndOfRefresh,
}

/// Adj-RIB-Out of one established session.
#[derive(Debug)]
pub struct AdjRibOut {
    ctx: ExportContext,
    wanted: BTreeMap<IpNet, Arc<AnnounceTemplate>>,
    told: BTreeMap<IpNet, Arc<AnnounceTemplate>>,
    /// Told, but to be said again: the peer asked for a refresh.
    again: BTreeSet<IpNet>,
    withdraw: BTreeSet<IpNet>,
    announce: BTreeMap<Arc<AnnounceTemplate>, BTreeSet<IpNet>>,
    markers: BTreeMap<Family, Marker>,
    /// End-of-RIB has to wait.
    held: bool,
    /// Refresh beginnings to send before any announcement.
    begin: Vec<Family>,
    unannounceable: BTreeMap<IpNet, &'static str>,
}

impl AdjRibOut {
    /// A session that has just come up: nothing told, End-of-RIB due in every family.
    pub fn new(ctx: ExportContext, wanted: &Wanted) -> Self {
        let mut rib = Self {
            ctx,
            wanted: BTreeMap::new(),
            told: BTreeMap::new(),
            again: BTreeSet::new(),
            withdraw: BTreeSet::new(),
            announce: BTreeMap::new(),
            markers: ctx.families.iter().map(|f| (f, Marker::EndOfRib)).collect(),
            held: false,
            begin: Vec::new(),
            unannounceable: BTreeMap::new(),
        };
        rib.handle_wanted(wanted);
        rib
    }

    /// No End-of-RIB until [`Self::release_end_of_rib`]: what is wanted is not complete yet.
    pub fn hold_end_of_rib(&mut self) {
        self.held = true;
    }

    pub fn release_end_of_rib(&mut self) {
        self.held = false;
    }

    /// Takes the latest wanted state; what it replaces is forgotten.
    pub fn handle_wanted(&mut self, wanted: &Wanted) {
        let mut cache: HashMap<(Family, &BgpAttributes), Result<_, &'static str>> = HashMap::new();
        self.wanted.clear();
        self.unannounceable.clear();
        for (prefix, announcement) in wanted {
            // Host bits do not travel, so they must not make two of one.
            let prefix = &prefix.trunc();
            let family = Family::of(prefix);
            if !self.ctx.families.contains(family) {
                self.unannounceable.insert(*prefix, "family not negotiated");
                continue;
            }
            let template = cache
                .entry((family, &announcement.bgp))
                .or_insert_with(|| self.ctx.template(family, &announcement.bgp).map(Arc::new));
            match template {
                Ok(t) if t.overhead() + encoded_prefix_len(prefix) <= self.ctx.max_message => {
                    self.wanted.insert(*prefix, Arc::clone(t));
                }
                Ok(_) => {
                    self.unannounceable.insert(*prefix, "attributes longer than a message");
                }
                Err(reason) => {
                    self.unannounceable.insert(*prefix, *reason);
                }
            }
        }
        self.reconcile();
    }

    /// The peer asks for everything again (RFC 2918, RFC 7313 §4). Asking twice while the first
    /// answer is under way just starts it again: no request makes anything grow.
    pub fn handle_refresh(&mut self, family: Family) {
        if !self.ctx.families.contains(family) {
            return;
        }
        // What was told stays told, so that a withdrawal still finds it.
        self.again.extend(self.told.keys().filter(|p| Family::of(p) == family));
        if self.ctx.enhanced_refresh {
            if !self.begin.contains(&family) {
                self.begin.push(family);
            }
            // The first table's End-of-RIB is still owed if it was.
            self.markers.entry(family).or_insert(Marker::EndOfRefresh);
        }
        self.reconcile();
    }

    /// Appends UPDATEs to `out` until it holds `limit` octets or nothing is left to say.
    /// One message may exceed the limit. Returns how many messages were written.
    pub fn poll_updates(&mut self, limit: usize, out: &mut Vec<u8>) -> u32 {
        let mut messages = 0;
        while out.len() < limit {
            if !self.next_message(out) {
                break;
            }
            messages += 1;
        }
        messages
    }

    /// Nothing left to send.
    pub fn is_settled(&self) -> bool {
        self.withdraw.is_empty()
            && self.announce.is_empty()
            && self.markers.is_empty()
            && self.begin.is_empty()
    }

    /// What the peer has been told, with its next hop.
    pub fn told(&self) -> impl Iterator<Item = (&IpNet, &AnnounceTemplate)> {
        self.told.iter().map(|(prefix, template)| (prefix, &**template))
    }

    pub fn told_count(&self) -> usize {
        self.told.len()
    }

    /// What is wanted but cannot be said to this peer, and why.
    pub fn unannounceable(&self) -> &BTreeMap<IpNet, &'static str> {
        &self.unannounceable
    }

    fn next_message(&mut self, out: &mut Vec<u8>) -> bool {
        // Withdrawals cannot wait for anything: traffic follows a route that is gone.
        if let Some(family) = self.withdraw.first().map(Family::of) {
            let max = self.ctx.max_message;
            // A prefix takes at least one octet.
            let same_family = self.withdraw.iter().take_while(|p| Family::of(p) == family);
            let due: Vec<IpNet> = same_family.take(max).copied().collect();
            let n = encode_withdrawal(family, &mut due.iter().peekable(), max, out);
            for prefix in &due[..n] {
                self.withdraw.remove(prefix);
                self.told.remove(prefix);
                self.again.remove(prefix);
            }
            return true;
        }
        if let Some(family) = self.begin.pop() {
            RouteRefresh::encode(family, RouteRefresh::BEGIN, out);
            return true;
        }
        if let Some(mut entry) = self.announce.first_entry() {
            let template = Arc::clone(entry.key());
            let due = entry.get_mut();
            let n = template.encode(&mut due.iter().peekable(), self.ctx.max_message, out);
            for _ in 0..n {
                if let Some(prefix) = due.pop_first() {
                    self.again.remove(&prefix);
                    self.told.insert(prefix, Arc::clone(&template));
                }
            }
            // Every prefix queued was checked to fit; an empty set has had its turn.
            if due.is_empty() || n == 0 {
                entry.remove();
            }
            return true;
        }
        let due = |marker: &Marker| !(self.held && *marker == Marker::EndOfRib);
        let Some((family, marker)) =
            self.markers.iter().find(|(_, marker)| due(marker)).map(|(f, m)| (*f, *m))
        else {
            return false;
        };
        self.markers.remove(&family);
        match marker {
            Marker::EndOfRib => encode_end_of_rib(family, out),
            Marker::EndOfRefresh => RouteRefresh::encode(family, RouteRefresh::END, out),
        }
        true
    }

    /// Works out what is to be said from what is wanted and what was told.
    fn reconcile(&mut self) {
        self.withdraw =
            self.told.keys().filter(|p| !self.wanted.contains_key(p)).copied().collect();
        self.announce.clear();
        for (prefix, template) in &self.wanted {
            if self.told.get(prefix) != Some(template) || self.again.contains(prefix) {
                self.announce.entry(Arc::clone(template)).or_default().insert(*prefix);
            }
        }
    }
}

impl ExportContext {
    fn template(
        &self,
        family: Family,
        wanted: &BgpAttributes,
    ) -> Result<AnnounceTemplate, &'static str> {
        let next_hop = self.next_hop(family, wanted.next_hop)?;
        let mut extended_communities = wanted.extended_communities.clone();
        if let Some(bandwidth) = wanted.link_bandwidth {
            extended_communities.push(link_bandwidth(self.local_asn, bandwidth.get()));
        }
        let attributes = Attributes {
            as_path: if self.internal {
                // Our own AS in it would make every iBGP peer drop the route as a loop.
                AsPath::default()
            } else {
                AsPath::repeated(self.local_asn, 1 + usize::from(wanted.prepend))
            },
            med: wanted.med,
            local_preference: self.internal.then(|| wanted.local_preference.unwrap_or(100)),
            communities: wanted.communities.clone(),
            extended_communities,
            large_communities: wanted.large_communities.clone(),
            only_to_customer: self.only_to_customer.then_some(self.local_asn),
            ..Attributes::default()
        };
        Ok(AnnounceTemplate::new(family, &attributes, next_hop, self.four_octet_as))
    }

    fn next_hop(&self, family: Family, wanted: Option<IpAddr>) -> Result<NextHop, &'static str> {
        let own_v4 =
            || self.next_hop_v4.map(|a| NextHop { address: IpAddr::V4(a), link_local: None });
        match (family, wanted) {
            (Family::Ipv4Unicast, Some(address @ IpAddr::V4(_)))
            | (Family::Ipv6Unicast, Some(address @ IpAddr::V6(_))) => {
                Ok(NextHop { address, link_local: None })
            }
            (Family::Ipv4Unicast, Some(address)) if self.extended_next_hop => {
                Ok(NextHop { address, link_local: None })
            }
            (_, Some(_)) => Err("next hop of another family"),
            (Family::Ipv6Unicast, None) => self.next_hop_v6.ok_or("no IPv6 next hop"),
            // RFC 8950: where it was negotiated the session's IPv6 address serves both families.
            (Family::Ipv4Unicast, None) => (self.next_hop_v6.filter(|_| self.extended_next_hop))
                .or_else(own_v4)
                .ok_or("no IPv4 next hop"),
        }
    }
}

/// The link bandwidth extended community, octets per second
/// (draft-ietf-idr-link-bandwidth §2: non-transitive, two-octet AS specific).
fn link_bandwidth(asn: u32, bandwidth: f32) -> [u8; 8] {
    let [hi, lo] = u16::try_from(asn).unwrap_or(super::wire::AS_TRANS).to_be_bytes();
    let [a, b, c, d] = bandwidth.to_be_bytes();
    [0x40, 0x04, hi, lo, a, b, c, d]
}

#[cfg(test)]
mod tests;
