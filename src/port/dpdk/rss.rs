//! Receive-side scaling: how the NIC spreads flows over its receive queues.
//!
//! Addresses and ports of TCP and UDP are hashed with a key of ours, and the redirection table
//! (RETA) spreads the hashes evenly. Drivers differ in what they take of this; what was granted is
//! read back, because whoever predicts the queue of a reply needs the real key and table.

use crate::forward::steering::{Hashed, RssOffer, TRANSPORTS};
use crate::packet::Transport;
use dpdk_sys as sys;

/// The key of Microsoft's RSS specification, whose test vectors every implementation is checked
/// against. Not symmetric: the two directions of a flow need not meet (FULLNAT gives them
/// different addresses anyway).
const KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// RSS as the port really does it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rss {
    /// Toeplitz key as read back; empty if the driver does not tell.
    pub key: Vec<u8>,
    /// What is hashed: `RTE_ETH_RSS_*` bits.
    pub hash_types: u64,
    /// Queue by hash modulo the length; empty if the driver does not tell.
    pub reta: Vec<u16>,
    /// The hash is Toeplitz, as far as the driver tells.
    pub toeplitz: bool,
}

impl Rss {
    /// As steering takes it; or why the queue of a packet cannot be told in advance.
    pub fn offer(&self) -> Result<RssOffer, String> {
        if !self.toeplitz {
            return Err("its hash is not Toeplitz".to_owned());
        }
        let hashed = TRANSPORTS.map(|transport| {
            let (ports, addresses) = match transport {
                Transport::Udp4 => (sys::DPDK_SYS_RSS_IPV4_UDP, sys::DPDK_SYS_RSS_IPV4),
                Transport::Tcp4 => (sys::DPDK_SYS_RSS_IPV4_TCP, sys::DPDK_SYS_RSS_IPV4),
                Transport::Udp6 => (sys::DPDK_SYS_RSS_IPV6_UDP, sys::DPDK_SYS_RSS_IPV6),
                Transport::Tcp6 => (sys::DPDK_SYS_RSS_IPV6_TCP, sys::DPDK_SYS_RSS_IPV6),
            };
            if self.hash_types & ports != 0 {
                Hashed::Ports
            } else if self.hash_types & addresses != 0 {
                Hashed::Addresses
            } else {
                Hashed::Nothing
            }
        });
        Ok(RssOffer { key: self.key.clone(), hashed, reta: self.reta.clone() })
    }
}

/// What to ask a device for. The key must live until the device is configured.
#[derive(Debug)]
pub(super) struct Request {
    key: Vec<u8>,
    hash_types: u64,
}

impl Request {
    /// `None` if the device cannot spread flows by hash.
    pub fn for_device(info: &sys::rte_eth_dev_info) -> Option<Self> {
        let wanted = sys::DPDK_SYS_RSS_IP | sys::DPDK_SYS_RSS_TCP | sys::DPDK_SYS_RSS_UDP;
        let hash_types = wanted & info.flow_type_rss_offloads;
        // Some drivers want longer keys (i40e: 52 bytes); 0 means that they do not say.
        let len = match info.hash_key_size {
            0 => KEY.len(),
            len => usize::from(len),
        };
        let key = KEY.iter().copied().cycle().take(len).collect();
        (hash_types != 0).then_some(Self { key, hash_types })
    }

    /// For `rte_eth_conf`; points into self.
    pub fn conf(&mut self) -> sys::rte_eth_rss_conf {
        rss_conf(&mut self.key, self.hash_types)
    }
}

/// Points to the key.
fn rss_conf(key: &mut [u8], hash_types: u64) -> sys::rte_eth_rss_conf {
    // Newer versions of DPDK have one more field.
    #[allow(clippy::needless_update)]
    sys::rte_eth_rss_conf {
        rss_key: key.as_mut_ptr(),
        rss_key_len: key.len() as u8,
        rss_hf: hash_types,
        ..Default::default()
    }
}

/// Spread the table evenly over `queues`, and read back what the port does.
///
/// # Safety
/// `port` is a started port, configured for RSS, and no other thread configures it.
pub(super) unsafe fn spread(port: u16, info: &sys::rte_eth_dev_info, queues: u16) -> Rss {
    // SAFETY: the caller's.
    unsafe {
        let reta = set_reta(port, usize::from(info.reta_size), queues);
        let mut key = vec![0u8; usize::from(info.hash_key_size).max(KEY.len())];
        let mut conf = rss_conf(&mut key, 0);
        let known = sys::rte_eth_dev_rss_hash_conf_get(port, &raw mut conf) >= 0;
        let (hash_types, length) = (conf.rss_hf, usize::from(conf.rss_key_len));
        let toeplitz = sys::dpdk_sys_rss_is_toeplitz(&raw const conf) != 0;
        // The driver wrote into it, and may have said how much.
        if known && length > 0 {
            key.truncate(length);
        } else if !known {
            key.clear();
        }
        Rss { key, hash_types, reta, toeplitz }
    }
}

/// # Safety
/// As for [`spread`].
unsafe fn set_reta(port: u16, size: usize, queues: u16) -> Vec<u16> {
    let group = sys::DPDK_SYS_RETA_GROUP as usize;
    let mut table: Vec<sys::rte_eth_rss_reta_entry64> = (0..size.div_ceil(group))
        .map(|g| {
            let mut entry = sys::rte_eth_rss_reta_entry64 { mask: u64::MAX, ..Default::default() };
            for (i, queue) in entry.reta.iter_mut().enumerate() {
                *queue = ((g * group + i) % usize::from(queues)) as u16;
            }
            entry
        })
        .collect();
    if table.is_empty() {
        return Vec::new();
    }
    // SAFETY: the table has an entry for each group of `size`; the port is the caller's.
    unsafe {
        let rc = sys::rte_eth_dev_rss_reta_update(port, table.as_mut_ptr(), size as u16);
        if rc < 0 {
            tracing::debug!(port, rc, "the driver keeps its own RSS redirection table");
        }
        if sys::rte_eth_dev_rss_reta_query(port, table.as_mut_ptr(), size as u16) < 0 {
            return Vec::new();
        }
    }
    table.iter().flat_map(|entry| entry.reta).take(size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::steering::Toeplitz;

    /// DPDK's own software implementation, on tuples of every length.
    #[test]
    fn the_hash_is_that_of_dpdk() {
        let mut state = 1u32;
        let mut byte = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let toeplitz = Toeplitz::new(&KEY);
        for words in [2, 3, 8, 9] {
            for _ in 0..500 {
                let input: Vec<u8> = (0..4 * words).map(|_| byte()).collect();
                let (chunks, _) = input.as_chunks::<4>();
                let mut tuple: Vec<u32> = chunks.iter().map(|c| u32::from_be_bytes(*c)).collect();
                // SAFETY: the tuple has so many words, and the key the 40 bytes that 9 words need.
                let theirs = unsafe {
                    sys::dpdk_sys_softrss(tuple.as_mut_ptr(), words as u32, KEY.as_ptr())
                };
                assert_eq!(toeplitz.part(0, &input), theirs, "{input:?}");
            }
        }
    }
}
