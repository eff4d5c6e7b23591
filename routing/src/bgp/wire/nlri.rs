//! Prefixes as they travel: a length in bits and as many octets as it needs (RFC 4271 §4.3).

use super::{Family, Reader};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// All prefixes of `bytes`; `None` if one is longer than its family allows or cut short.
/// Bits beyond the prefix length are cleared (RFC 4271 §4.3: their value is irrelevant).
pub(super) fn decode(bytes: &[u8], family: Family) -> Option<Vec<IpNet>> {
    let mut prefixes = Vec::new();
    let mut r = Reader(bytes);
    while !r.is_empty() {
        let bits = r.u8()?;
        let octets = r.take(usize::from(bits).div_ceil(8))?;
        prefixes.push(match family {
            Family::Ipv4Unicast => {
                let address = padded::<4>(octets)?;
                IpNet::V4(Ipv4Net::new(address.into(), bits).ok()?.trunc())
            }
            Family::Ipv6Unicast => {
                let address = padded::<16>(octets)?;
                IpNet::V6(Ipv6Net::new(address.into(), bits).ok()?.trunc())
            }
        });
    }
    Some(prefixes)
}

pub(super) fn encode(prefix: &IpNet, out: &mut Vec<u8>) {
    let bits = prefix.prefix_len();
    let octets = usize::from(bits).div_ceil(8);
    out.push(bits);
    match prefix.trunc() {
        IpNet::V4(p) => out.extend_from_slice(&p.addr().octets()[..octets]),
        IpNet::V6(p) => out.extend_from_slice(&p.addr().octets()[..octets]),
    }
}

/// Octets [`encode`] writes.
pub(super) fn encoded_len(prefix: &IpNet) -> usize {
    1 + usize::from(prefix.prefix_len()).div_ceil(8)
}

fn padded<const N: usize>(octets: &[u8]) -> Option<[u8; N]> {
    let mut address = [0; N];
    address.get_mut(..octets.len())?.copy_from_slice(octets);
    Some(address)
}
