//! What changes from one configuration to the next, and which changes a running node can take.
//!
//! In: two valid configurations. Out: a list of changes, by object (a service, a backend, a port,
//! a neighbor …) and field. `Display` is for people: it is what a reload logs and what
//! `dunlind --check` prints. Secrets are compared, never shown.

mod compare;
mod routing;
mod show;

use super::model::{Config, Peer};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::net::IpAddr;

/// When a change takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// On reload, without touching established flows.
    Live,
    /// Only when the process starts again.
    Restart,
}

/// The object that changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    Node,
    Dataplane,
    Port(String),
    Route(IpNet),
    /// A prefix of local addresses.
    Local(IpNet),
    Announce,
    Cluster,
    Bfd,
    Bgp,
    Neighbor(Peer),
    ListenRange(IpNet),
    /// `ospf` or `ospf3`.
    Ospf(&'static str),
    OspfInterface {
        ospf: &'static str,
        name: String,
    },
    Service(String),
    Backend {
        service: String,
        address: IpAddr,
        port: Option<u16>,
    },
}

/// How it changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Kind {
    Added,
    Removed,
    /// One field. `values` is what it was and what it becomes; `None`: not to be shown.
    Field {
        name: &'static str,
        values: Option<(String, String)>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Change {
    pub subject: Subject,
    pub kind: Kind,
    pub effect: Effect,
}

/// Every change, in the order of the manual.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Diff {
    changes: Vec<Change>,
}

/// The changes that lead from `old` to `new`. The order in which objects and list entries are
/// written does not count.
pub fn diff(old: &Config, new: &Config) -> Diff {
    let mut diff = Diff::default();
    compare::configs(&mut diff, old, new);
    diff
}

/// What a node that runs `old` can become without a restart when it is given `new`: the live
/// changes made, the others left as they were.
///
/// The two halves come from valid documents, but may contradict each other (a new VIP that is an
/// address of a port which only a restart removes), so a node that applies this should say that a
/// restart is due.
pub fn live_part(old: &Config, new: &Config) -> Config {
    compare::live_part(old, new)
}

impl Diff {
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The changes that a reload cannot apply.
    pub fn restarts(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.effect == Effect::Restart)
    }

    pub fn needs_restart(&self) -> bool {
        self.restarts().next().is_some()
    }

    /// A field that a reload applies, and that is not shown.
    fn hidden<T: PartialEq>(&mut self, subject: &Subject, name: &'static str, old: &T, new: &T) {
        if old != new {
            self.push(subject.clone(), Kind::Field { name, values: None }, Effect::Live);
        }
    }

    /// A field that only a restart applies, and that is not shown.
    fn hidden_fixed<T: PartialEq>(
        &mut self,
        subject: &Subject,
        name: &'static str,
        old: &T,
        new: &T,
    ) {
        if old != new {
            self.push(subject.clone(), Kind::Field { name, values: None }, Effect::Restart);
        }
    }

    fn push(&mut self, subject: Subject, kind: Kind, effect: Effect) {
        self.changes.push(Change { subject, kind, effect });
    }

    /// A field that a reload applies.
    fn field<T: PartialEq>(
        &mut self,
        subject: &Subject,
        name: &'static str,
        old: &T,
        new: &T,
        show: impl Fn(&T) -> String,
    ) {
        if old != new {
            let values = Some((show(old), show(new)));
            self.push(subject.clone(), Kind::Field { name, values }, Effect::Live);
        }
    }

    /// A field that only a restart applies.
    fn fixed<T: PartialEq>(
        &mut self,
        subject: &Subject,
        name: &'static str,
        old: &T,
        new: &T,
        show: impl Fn(&T) -> String,
    ) {
        if old != new {
            let values = Some((show(old), show(new)));
            self.push(subject.clone(), Kind::Field { name, values }, Effect::Restart);
        }
    }

    /// Objects with a key: which come, which go, and what `changed` finds in those that stay.
    fn objects<K: Ord, V>(
        &mut self,
        old: &[V],
        new: &[V],
        key: impl Fn(&V) -> K,
        subject: impl Fn(&K) -> Subject,
        effect: Effect,
        changed: impl Fn(&mut Self, &Subject, &V, &V),
    ) {
        let (old, new) = (index(old, &key), index(new, &key));
        for key in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
            match (old.get(key), new.get(key)) {
                (Some(old), Some(new)) => changed(self, &subject(key), old, new),
                (Some(_), None) => self.push(subject(key), Kind::Removed, effect),
                (None, _) => self.push(subject(key), Kind::Added, effect),
            }
        }
    }
}

fn index<K: Ord, V>(items: &[V], key: impl Fn(&V) -> K) -> BTreeMap<K, &V> {
    items.iter().map(|item| (key(item), item)).collect()
}

impl Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("node"),
            Self::Dataplane => f.write_str("dataplane"),
            Self::Port(name) => write!(f, "port {name}"),
            Self::Route(prefix) => write!(f, "route {prefix}"),
            Self::Local(prefix) => write!(f, "local {prefix}"),
            Self::Announce => f.write_str("announce"),
            Self::Cluster => f.write_str("cluster"),
            Self::Bfd => f.write_str("bfd"),
            Self::Bgp => f.write_str("bgp"),
            Self::Neighbor(peer) => write!(f, "bgp neighbor {peer}"),
            Self::ListenRange(prefix) => write!(f, "bgp listen-range {prefix}"),
            Self::Ospf(ospf) => f.write_str(ospf),
            Self::OspfInterface { ospf, name } => write!(f, "{ospf} interface {name}"),
            Self::Service(name) => write!(f, "service {name}"),
            Self::Backend { service, address, port } => {
                write!(f, "service {service}: backend ")?;
                match port {
                    Some(port) => write!(f, "{}", std::net::SocketAddr::new(*address, *port)),
                    None => write!(f, "{address}"),
                }
            }
        }
    }
}

impl Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Added => write!(f, "{} added", self.subject)?,
            Kind::Removed => write!(f, "{} removed", self.subject)?,
            Kind::Field { name, values: None } => write!(f, "{}: {name} changed", self.subject)?,
            Kind::Field { name, values: Some((old, new)) } => {
                write!(f, "{}: {name} {old} → {new}", self.subject)?;
            }
        }
        match self.effect {
            Effect::Live => Ok(()),
            Effect::Restart => f.write_str(" (needs a restart)"),
        }
    }
}

/// One change per line, without a trailing newline.
impl Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.changes.is_empty() {
            return f.write_str("no changes");
        }
        for (index, change) in self.changes.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{change}")?;
        }
        Ok(())
    }
}
