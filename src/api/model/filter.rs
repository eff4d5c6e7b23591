//! What a request may select: parsed once, at the border, into types that cannot be wrong.

use super::service::{FlowInfo, FlowState};
use crate::forward::tables::Protocol;
use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// Flows listed unless the request says otherwise.
pub const FLOW_LIMIT: usize = 1_000;

/// Most flows a request may ask for: about 30 MB of JSON.
pub const FLOW_LIMIT_MAX: usize = 100_000;

/// Matches addresses: a prefix or one address, and a port if it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressFilter {
    pub prefix: IpNet,
    /// `None`: any.
    pub port: Option<u16>,
}

impl AddressFilter {
    pub fn matches(&self, address: &SocketAddr) -> bool {
        self.prefix.contains(&address.ip()) && self.port.is_none_or(|port| port == address.port())
    }
}

impl FromStr for AddressFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(prefix) = text.parse::<IpNet>() {
            return Ok(Self { prefix: prefix.trunc(), port: None });
        }
        let (address, port) = parse_address(text).ok_or_else(|| {
            "expected ADDRESS, PREFIX/LENGTH or ADDRESS:PORT, e.g. 192.0.2.7, 10.0.0.0/8, \
             192.0.2.7:443 or [2001:db8::7]:443"
                .to_owned()
        })?;
        Ok(Self { prefix: address.into(), port })
    }
}

impl fmt::Display for AddressFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}", SocketAddr::new(self.prefix.addr(), port)),
            None if self.prefix.prefix_len() == self.prefix.max_prefix_len() => {
                write!(f, "{}", self.prefix.addr())
            }
            None => write!(f, "{}", self.prefix),
        }
    }
}

/// Names backends: every one on an address, or on one of its ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackendSelector {
    pub address: IpAddr,
    /// `None`: all ports.
    pub port: Option<u16>,
}

impl BackendSelector {
    pub fn matches(&self, address: &SocketAddr) -> bool {
        self.address == address.ip() && self.port.is_none_or(|port| port == address.port())
    }
}

impl FromStr for BackendSelector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, port) = parse_address(text).ok_or_else(|| {
            "expected ADDRESS or ADDRESS:PORT, e.g. 10.0.0.1, 10.0.0.1:80 or [2001:db8::1]:80"
                .to_owned()
        })?;
        Ok(Self { address, port })
    }
}

impl fmt::Display for BackendSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}", SocketAddr::new(self.address, port)),
            None => write!(f, "{}", self.address),
        }
    }
}

/// What a drain is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    Node,
    /// By name: all its VIPs and ports.
    Service(String),
    /// In every service that uses it.
    Backend(BackendSelector),
}

/// Selects flows. Every part that is given must match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowFilter {
    pub client: Option<AddressFilter>,
    pub vip: Option<AddressFilter>,
    pub backend: Option<AddressFilter>,
    pub service: Option<String>,
    pub protocol: Option<Protocol>,
    pub state: Option<FlowState>,
    /// 1..=[`FLOW_LIMIT_MAX`].
    pub limit: usize,
}

impl Default for FlowFilter {
    fn default() -> Self {
        Self {
            client: None,
            vip: None,
            backend: None,
            service: None,
            protocol: None,
            state: None,
            limit: FLOW_LIMIT,
        }
    }
}

impl FlowFilter {
    /// Whether a flow is selected; `limit` is not looked at.
    pub fn matches(&self, flow: &FlowInfo) -> bool {
        let within = |filter: &Option<AddressFilter>, address: &SocketAddr| {
            filter.is_none_or(|filter| filter.matches(address))
        };
        within(&self.client, &flow.client)
            && within(&self.vip, &flow.vip)
            && within(&self.backend, &flow.backend)
            && self.protocol.is_none_or(|p| p == flow.protocol)
            && self.state.is_none_or(|s| s == flow.state)
            && self.service.as_ref().is_none_or(|s| *s == flow.service)
    }
}

/// `ADDRESS`, `ADDRESS:PORT`, `[V6]` or `[V6]:PORT`.
fn parse_address(text: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some((address, None));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some((address.ip(), Some(address.port())));
    }
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    Some((IpAddr::V6(inner.parse().ok()?), None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_they_are_read() {
        let cases = [
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7:443", "192.0.2.7:443"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:443", "[2001:db8::7]:443"),
            ("::/0", "::/0"),
        ];
        for (text, printed) in cases {
            let filter: AddressFilter = text.parse().expect(text);
            assert_eq!(filter.to_string(), printed);
        }
        for bad in ["", "x", "1.2.3", "1.2.3.4:99999", "10.0.0.0/33", "[1.2.3.4]"] {
            let error = bad.parse::<AddressFilter>().expect_err(bad);
            assert!(error.starts_with("expected ADDRESS"), "{error}");
        }
        assert!("10.0.0.0/8".parse::<BackendSelector>().is_err());
    }

    #[test]
    fn every_part_of_a_filter_must_match() {
        let flow = FlowInfo {
            protocol: Protocol::Tcp,
            client: "198.51.100.9:4321".parse().expect("address"),
            vip: "203.0.113.1:443".parse().expect("address"),
            lip: "10.9.0.1:1024".parse().expect("address"),
            backend: "10.0.0.1:8443".parse().expect("address"),
            state: FlowState::Established,
            idle_ms: 0,
            worker: 0,
            service: "web".to_owned(),
            owner: None,
        };
        let all = FlowFilter {
            client: Some("198.51.100.0/24".parse().expect("filter")),
            vip: Some("203.0.113.1:443".parse().expect("filter")),
            backend: Some("10.0.0.1".parse().expect("filter")),
            service: Some("web".to_owned()),
            protocol: Some(Protocol::Tcp),
            state: Some(FlowState::Established),
            limit: 1,
        };
        assert!(FlowFilter::default().matches(&flow));
        assert!(all.matches(&flow));
        let wrong: [fn(&mut FlowFilter); 6] = [
            |f| f.client = "198.51.101.0/24".parse().ok(),
            |f| f.vip = "203.0.113.1:80".parse().ok(),
            |f| f.backend = "10.0.0.2".parse().ok(),
            |f| f.service = Some("www".to_owned()),
            |f| f.protocol = Some(Protocol::Udp),
            |f| f.state = Some(FlowState::Syn),
        ];
        for (index, spoil) in wrong.into_iter().enumerate() {
            let mut filter = all.clone();
            spoil(&mut filter);
            assert!(!filter.matches(&flow), "case {index}");
        }
    }
}
