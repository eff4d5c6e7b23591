//! The tables of the document and the keys each may hold.
//!
//! The readers refuse every key that is not listed here; docs/configuration.md and
//! docs/example.toml are tested to mention each one.

/// A kind of table in the document.
#[derive(Debug, PartialEq, Eq)]
pub struct Section {
    /// Name as in a header, e.g. `service.check`; empty for the document itself.
    pub name: &'static str,
    pub keys: &'static [&'static str],
}

pub const ROOT: Section = Section {
    name: "",
    keys: &[
        "node",
        "dataplane",
        "port",
        "route",
        "local",
        "management",
        "announce",
        "cluster",
        "bfd",
        "bgp",
        "ospf",
        "ospf3",
        "service",
    ],
};

pub const NODE: Section = Section { name: "node", keys: &["name", "router-id", "api-socket"] };

pub const DATAPLANE: Section = Section {
    name: "dataplane",
    keys: &[
        "workers",
        "poll",
        "max-sleep",
        "max-flows",
        "memory",
        "hugepages",
        "file-prefix",
        "mbufs",
        "steering",
        "stall-after",
    ],
};

pub const PORT: Section =
    Section { name: "port", keys: &["name", "device", "control", "addresses", "mtu", "mac"] };

pub const ROUTE: Section = Section { name: "route", keys: &["to", "via"] };

pub const LOCAL: Section = Section { name: "local", keys: &["addresses"] };

pub const MANAGEMENT: Section = Section {
    name: "management",
    keys: &["interface", "dhcp", "addresses", "gateways", "dns", "ssh-keys"],
};

pub const ANNOUNCE: Section = Section {
    name: "announce",
    keys: &[
        "drain-wait",
        "communities",
        "large-communities",
        "extended-communities",
        "link-bandwidth",
        "med",
        "local-preference",
        "prepend",
        "next-hop",
        "ospf",
    ],
};

pub const ANNOUNCE_OSPF: Section = Section { name: "announce.ospf", keys: &["cost", "type"] };

pub const CLUSTER: Section = Section {
    name: "cluster",
    keys: &["address", "port", "peers", "key", "max-questions", "max-adopted", "drain-flows"],
};

pub const BFD: Section = Section { name: "bfd", keys: &["min-tx", "min-rx", "multiplier"] };

pub const BGP: Section =
    Section { name: "bgp", keys: &["asn", "listen", "neighbor", "listen-range"] };

pub const NEIGHBOR: Section = Section {
    name: "bgp.neighbor",
    keys: &[
        "address",
        "interface",
        "asn",
        "description",
        "port",
        "passive",
        "source",
        "password",
        "ao",
        "hold-time",
        "connect-retry",
        "graceful-restart",
        "ttl-security",
        "multihop",
        "bfd",
        "families",
        "extended-next-hop",
        "next-hop",
        "role",
        "role-strict",
        "import",
        "max-prefixes",
        "shutdown",
    ],
};

pub const LISTEN_RANGE: Section = Section {
    name: "bgp.listen-range",
    keys: &[
        "prefix",
        "max-peers",
        "asn",
        "description",
        "password",
        "ao",
        "hold-time",
        "graceful-restart",
        "ttl-security",
        "multihop",
        "bfd",
        "families",
        "extended-next-hop",
        "next-hop",
        "role",
        "role-strict",
        "import",
        "max-prefixes",
    ],
};

pub const NEIGHBOR_AO: Section =
    Section { name: "bgp.neighbor.ao", keys: &["id", "send-id", "recv-id", "algorithm", "key"] };

pub const NEIGHBOR_RESTART: Section =
    Section { name: "bgp.neighbor.graceful-restart", keys: &["restart-time"] };

pub const NEIGHBOR_BFD: Section =
    Section { name: "bgp.neighbor.bfd", keys: &["min-tx", "min-rx", "multiplier", "auth"] };

pub const NEIGHBOR_BFD_AUTH: Section =
    Section { name: "bgp.neighbor.bfd.auth", keys: &["type", "key-id", "key"] };

pub const OSPF: Section =
    Section { name: "ospf", keys: &["area", "area-type", "bfd", "interface"] };

pub const OSPF_INTERFACE: Section = Section {
    name: "ospf.interface",
    keys: &[
        "name",
        "network",
        "cost",
        "hello-interval",
        "dead-interval",
        "retransmit-interval",
        "transmit-delay",
        "priority",
        "mtu-ignore",
        "passive",
        "auth",
    ],
};

pub const OSPF_AUTH: Section =
    Section { name: "ospf.interface.auth", keys: &["type", "key-id", "key"] };

pub const OSPF3: Section =
    Section { name: "ospf3", keys: &["area", "area-type", "bfd", "interface"] };

pub const OSPF3_INTERFACE: Section = Section {
    name: "ospf3.interface",
    keys: &[
        "name",
        "instance-id",
        "network",
        "cost",
        "hello-interval",
        "dead-interval",
        "retransmit-interval",
        "transmit-delay",
        "priority",
        "mtu-ignore",
        "passive",
        "auth",
    ],
};

pub const OSPF3_AUTH: Section =
    Section { name: "ospf3.interface.auth", keys: &["type", "key-id", "key"] };

pub const SERVICE: Section = Section {
    name: "service",
    keys: &[
        "name",
        "vips",
        "protocol",
        "port",
        "ports",
        "scheduler",
        "on-no-backend",
        "min-healthy",
        "timeouts",
        "check",
        "announce",
        "backend",
    ],
};

pub const TIMEOUTS: Section =
    Section { name: "service.timeouts", keys: &["syn", "established", "closing", "udp"] };

pub const CHECK: Section = Section {
    name: "service.check",
    keys: &[
        "type", "path", "host", "status", "body", "interval", "timeout", "rise", "fall", "port",
    ],
};

pub const SERVICE_ANNOUNCE: Section = Section {
    name: "service.announce",
    keys: &[
        "communities",
        "large-communities",
        "extended-communities",
        "link-bandwidth",
        "med",
        "local-preference",
        "prepend",
        "next-hop",
        "ospf",
    ],
};

pub const SERVICE_ANNOUNCE_OSPF: Section =
    Section { name: "service.announce.ospf", keys: &["cost", "type"] };

pub const BACKEND: Section = Section { name: "service.backend", keys: &["address", "weight"] };

/// Every section, in the order of the manual.
pub const SECTIONS: &[&Section] = &[
    &ROOT,
    &NODE,
    &DATAPLANE,
    &PORT,
    &ROUTE,
    &LOCAL,
    &MANAGEMENT,
    &ANNOUNCE,
    &ANNOUNCE_OSPF,
    &CLUSTER,
    &BFD,
    &BGP,
    &NEIGHBOR,
    &NEIGHBOR_AO,
    &NEIGHBOR_RESTART,
    &NEIGHBOR_BFD,
    &NEIGHBOR_BFD_AUTH,
    &LISTEN_RANGE,
    &OSPF,
    &OSPF_INTERFACE,
    &OSPF_AUTH,
    &OSPF3,
    &OSPF3_INTERFACE,
    &OSPF3_AUTH,
    &SERVICE,
    &TIMEOUTS,
    &CHECK,
    &SERVICE_ANNOUNCE,
    &SERVICE_ANNOUNCE_OSPF,
    &BACKEND,
];
