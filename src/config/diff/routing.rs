//! What differs in announcements and in the protocols that carry them.

use super::{Diff, Effect, Kind, Subject, show};
use crate::config::model::{
    Attributes, Bgp, Config, Neighbor, NeighborBfd, Ospf, OspfInterface, Session,
};
use crate::config::value::{show_bit_rate, show_duration, show_extended_community};
use std::time::Duration;

pub(super) fn all(diff: &mut Diff, old: &Config, new: &Config) {
    let (subject, was, is) = (Subject::Announce, &old.announce, &new.announce);
    diff.field(&subject, "drain-wait", &was.drain_wait, &is.drain_wait, |d| show_duration(*d));
    attributes(diff, &subject, &was.defaults, &is.defaults);
    let (subject, was, is) = (Subject::Bfd, &old.bfd, &new.bfd);
    diff.field(&subject, "min-tx", &was.min_tx, &is.min_tx, |d| show_duration(*d));
    diff.field(&subject, "min-rx", &was.min_rx, &is.min_rx, |d| show_duration(*d));
    diff.field(&subject, "multiplier", &was.multiplier, &is.multiplier, u8::to_string);
    bgp(diff, old.bgp.as_ref(), new.bgp.as_ref());
    ospf(diff, "ospf", old.ospf.as_ref(), new.ospf.as_ref());
    ospf(diff, "ospf3", old.ospf3.as_ref(), new.ospf3.as_ref());
}

/// Attributes of announcements. Lists are sorted already.
pub(super) fn attributes(diff: &mut Diff, subject: &Subject, old: &Attributes, new: &Attributes) {
    fn shown<T>(value: Option<&Vec<T>>, show: impl Fn(&T) -> String) -> String {
        show::optional(value.map(|items| show::list(&items.iter().map(show).collect::<Vec<_>>())))
    }
    diff.field(subject, "communities", &old.communities, &new.communities, |items| {
        shown(items.as_ref(), |(asn, value)| format!("{asn}:{value}"))
    });
    diff.field(
        subject,
        "large-communities",
        &old.large_communities,
        &new.large_communities,
        |items| shown(items.as_ref(), |(a, b, c)| format!("{a}:{b}:{c}")),
    );
    diff.field(
        subject,
        "extended-communities",
        &old.extended_communities,
        &new.extended_communities,
        |items| shown(items.as_ref(), |octets| show_extended_community(*octets)),
    );
    diff.field(subject, "link-bandwidth", &old.link_bandwidth, &new.link_bandwidth, |rate| {
        show::optional(rate.map(show_bit_rate))
    });
    diff.field(subject, "med", &old.med, &new.med, |med| show::optional(*med));
    diff.field(
        subject,
        "local-preference",
        &old.local_preference,
        &new.local_preference,
        |preference| show::optional(*preference),
    );
    diff.field(subject, "prepend", &old.prepend, &new.prepend, |count| show::optional(*count));
    diff.field(subject, "next-hop", &old.next_hop, &new.next_hop, |hops| {
        show::optional(hops.as_ref().map(|hops| show::list(hops)))
    });
    diff.field(subject, "ospf", &old.ospf, &new.ospf, |ospf| {
        show::optional(ospf.as_ref().map(show::ospf))
    });
}

fn bgp(diff: &mut Diff, old: Option<&Bgp>, new: Option<&Bgp>) {
    let subject = Subject::Bgp;
    let (old, new) = match (old, new) {
        (Some(old), Some(new)) => (old, new),
        (None, None) => return,
        (Some(_), None) => return diff.push(subject, Kind::Removed, Effect::Restart),
        (None, Some(_)) => return diff.push(subject, Kind::Added, Effect::Restart),
    };
    diff.fixed(&subject, "asn", &old.asn, &new.asn, u32::to_string);
    diff.fixed(&subject, "listen", &old.listen_port, &new.listen_port, |port| {
        port.map_or("false".to_owned(), |port| port.to_string())
    });
    diff.objects(
        &old.neighbors,
        &new.neighbors,
        |neighbor| neighbor.peer.clone(),
        |peer| Subject::Neighbor(peer.clone()),
        Effect::Live,
        neighbor,
    );
    diff.objects(
        &old.ranges,
        &new.ranges,
        |range| range.prefix,
        |prefix| Subject::ListenRange(*prefix),
        Effect::Live,
        |diff, subject, old, new| {
            diff.field(subject, "max-peers", &old.max_peers, &new.max_peers, u32::to_string);
            bfd(diff, subject, old.bfd.as_ref(), new.bfd.as_ref());
            session(diff, subject, &old.session, &new.session);
        },
    );
}

fn neighbor(diff: &mut Diff, subject: &Subject, old: &Neighbor, new: &Neighbor) {
    diff.field(subject, "port", &old.port, &new.port, u16::to_string);
    diff.field(subject, "passive", &old.passive, &new.passive, bool::to_string);
    diff.field(subject, "source", &old.source, &new.source, |source| show::optional(*source));
    diff.field(subject, "connect-retry", &old.connect_retry, &new.connect_retry, |d| {
        show_duration(*d)
    });
    bfd(diff, subject, old.bfd.as_ref(), new.bfd.as_ref());
    diff.field(subject, "shutdown", &old.shutdown, &new.shutdown, |message| {
        show::optional(message.as_ref().map(show::text))
    });
    session(diff, subject, &old.session, &new.session);
}

fn bfd(diff: &mut Diff, subject: &Subject, old: Option<&NeighborBfd>, new: Option<&NeighborBfd>) {
    let duration = |d: &Option<Duration>| show::optional(d.map(show_duration));
    match (old, new) {
        (Some(old), Some(new)) => {
            diff.field(subject, "bfd min-tx", &old.min_tx, &new.min_tx, duration);
            diff.field(subject, "bfd min-rx", &old.min_rx, &new.min_rx, duration);
            diff.field(subject, "bfd multiplier", &old.multiplier, &new.multiplier, |count| {
                show::optional(*count)
            });
            diff.hidden(subject, "bfd auth", &old.auth, &new.auth);
        }
        (old, new) => {
            diff.field(subject, "bfd", &old.is_some(), &new.is_some(), bool::to_string);
        }
    }
}

fn session(diff: &mut Diff, subject: &Subject, old: &Session, new: &Session) {
    diff.field(subject, "asn", &old.remote_as, &new.remote_as, |asn| show::remote_as(*asn));
    diff.field(subject, "description", &old.description, &new.description, show::text);
    diff.hidden(subject, "password", &old.password, &new.password);
    diff.hidden(subject, "ao", &old.ao, &new.ao);
    diff.field(subject, "hold-time", &old.hold_time, &new.hold_time, |d| show_duration(*d));
    diff.field(subject, "ttl-security", &old.ttl_security, &new.ttl_security, bool::to_string);
    diff.field(subject, "multihop", &old.multihop, &new.multihop, |hops| show::optional(*hops));
    diff.field(subject, "families", &old.families, &new.families, |f| show::families(*f));
    diff.field(
        subject,
        "extended-next-hop",
        &old.extended_next_hop,
        &new.extended_next_hop,
        bool::to_string,
    );
    let hops = |session: &Session| (session.next_hop_v4, session.next_hop_v6);
    diff.field(subject, "next-hop", &hops(old), &hops(new), |(v4, v6)| {
        let hops = [v4.map(|hop| hop.to_string()), v6.map(|hop| hop.to_string())];
        show::list(&hops.into_iter().flatten().collect::<Vec<_>>())
    });
    diff.field(subject, "role", &old.role, &new.role, |role| {
        show::optional(role.as_ref().map(show::word))
    });
    diff.field(subject, "role-strict", &old.role_strict, &new.role_strict, bool::to_string);
    diff.field(subject, "import", &old.import, &new.import, show::import);
    diff.field(subject, "max-prefixes", &old.max_prefixes, &new.max_prefixes, u32::to_string);
    diff.field(
        subject,
        "graceful-restart",
        &old.graceful_restart,
        &new.graceful_restart,
        |seconds| show::optional(seconds.map(|s| show_duration(Duration::from_secs(u64::from(s))))),
    );
}

fn ospf(diff: &mut Diff, name: &'static str, old: Option<&Ospf>, new: Option<&Ospf>) {
    let subject = Subject::Ospf(name);
    let (old, new) = match (old, new) {
        (Some(old), Some(new)) => (old, new),
        (None, None) => return,
        (Some(_), None) => return diff.push(subject, Kind::Removed, Effect::Restart),
        (None, Some(_)) => return diff.push(subject, Kind::Added, Effect::Restart),
    };
    diff.fixed(&subject, "area", &old.area, &new.area, ToString::to_string);
    diff.fixed(&subject, "area-type", &old.area_kind, &new.area_kind, show::word);
    diff.fixed(&subject, "bfd", &old.bfd, &new.bfd, bool::to_string);
    diff.objects(
        &old.interfaces,
        &new.interfaces,
        |interface| interface.name.clone(),
        |interface| Subject::OspfInterface { ospf: name, name: interface.clone() },
        Effect::Live,
        ospf_interface,
    );
}

fn ospf_interface(diff: &mut Diff, subject: &Subject, old: &OspfInterface, new: &OspfInterface) {
    let seconds = |count: u64| show_duration(Duration::from_secs(count));
    diff.field(subject, "instance-id", &old.instance_id, &new.instance_id, u8::to_string);
    diff.field(subject, "network", &old.network, &new.network, show::word);
    diff.field(subject, "cost", &old.cost, &new.cost, u16::to_string);
    diff.field(subject, "hello-interval", &old.hello_interval, &new.hello_interval, |s| {
        seconds(u64::from(*s))
    });
    diff.field(subject, "dead-interval", &old.dead_interval, &new.dead_interval, |s| {
        seconds(u64::from(*s))
    });
    diff.field(
        subject,
        "retransmit-interval",
        &old.retransmit_interval,
        &new.retransmit_interval,
        |s| seconds(u64::from(*s)),
    );
    diff.field(subject, "transmit-delay", &old.transmit_delay, &new.transmit_delay, |s| {
        seconds(u64::from(*s))
    });
    diff.field(subject, "priority", &old.priority, &new.priority, u8::to_string);
    diff.field(subject, "mtu-ignore", &old.mtu_ignore, &new.mtu_ignore, bool::to_string);
    diff.field(subject, "passive", &old.passive, &new.passive, bool::to_string);
    diff.hidden(subject, "auth", &old.auth, &new.auth);
}

/// Of BGP, what a reload can apply.
pub(super) fn live_bgp(old: Option<&Bgp>, new: Option<&Bgp>) -> Option<Bgp> {
    match (old, new) {
        (Some(old), Some(new)) => {
            Some(Bgp { asn: old.asn, listen_port: old.listen_port, ..new.clone() })
        }
        (old, _) => old.cloned(),
    }
}

/// Of OSPF, likewise: the interfaces.
pub(super) fn live_ospf(old: Option<&Ospf>, new: Option<&Ospf>) -> Option<Ospf> {
    match (old, new) {
        (Some(old), Some(new)) => Some(Ospf { interfaces: new.interfaces.clone(), ..old.clone() }),
        (old, _) => old.cloned(),
    }
}
