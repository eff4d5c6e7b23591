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
    keys: &["node", "dataplane", "port", "route", "local", "bfd", "bgp", "service"],
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
        "stall-after",
    ],
};

pub const PORT: Section =
    Section { name: "port", keys: &["name", "device", "control", "addresses", "mtu", "mac"] };

pub const ROUTE: Section = Section { name: "route", keys: &["to", "via"] };

pub const LOCAL: Section = Section { name: "local", keys: &["addresses"] };

pub const BFD: Section = Section { name: "bfd", keys: &["min-tx", "min-rx", "multiplier"] };

pub const BGP: Section =
    Section { name: "bgp", keys: &["asn", "listen", "communities", "drain-wait", "neighbor"] };

pub const NEIGHBOR: Section = Section {
    name: "bgp.neighbor",
    keys: &[
        "address",
        "asn",
        "description",
        "port",
        "passive",
        "source",
        "password",
        "hold-time",
        "connect-retry",
        "ttl-security",
        "multihop",
        "bfd",
        "import",
        "shutdown",
    ],
};

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

pub const BACKEND: Section = Section { name: "service.backend", keys: &["address", "weight"] };

/// Every section, in the order of the manual.
pub const SECTIONS: &[&Section] = &[
    &ROOT, &NODE, &DATAPLANE, &PORT, &ROUTE, &LOCAL, &BFD, &BGP, &NEIGHBOR, &SERVICE, &TIMEOUTS,
    &CHECK, &BACKEND,
];
