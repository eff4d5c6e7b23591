//! One frame as the packet path sees it: bytes, and what the port said about them.

/// What a port found out about a checksum on receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checksum {
    /// The port did not look. Whoever depends on the checksum must verify it.
    #[default]
    Unknown,
    Good,
    Bad,
}

/// What the port reported with a received frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RxMeta {
    /// RSS hash, if the port computed one.
    pub rss_hash: Option<u32>,
    /// IPv4 header checksum.
    pub ip_checksum: Checksum,
    /// TCP or UDP checksum.
    pub l4_checksum: Checksum,
}

/// Checksums left to the port on transmit. Set only where the port has the capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TxOffload {
    /// Length of everything before the IP header (Ethernet and VLAN tags), bytes.
    pub l2_len: u8,
    /// Length of the IP header including options or extension headers, bytes.
    pub l3_len: u16,
    /// The port computes the IPv4 header checksum.
    pub ipv4: bool,
    /// The port completes the TCP or UDP checksum from a pseudo-header sum.
    pub l4: bool,
}

/// An owned frame. Dropping it frees it.
///
/// The packet path is generic over this, so it runs over DPDK mbufs, captured packets and plain
/// buffers alike.
pub trait Frame: Send {
    /// The contiguous first part, beginning at the Ethernet header. Headers must lie in it whole;
    /// a frame whose headers do not is malformed to us.
    fn data(&self) -> &[u8];
    fn data_mut(&mut self) -> &mut [u8];
    /// Length of the whole frame in bytes; more than `data().len()` if it has further segments.
    fn total_len(&self) -> usize {
        self.data().len()
    }
    fn rx_meta(&self) -> RxMeta {
        RxMeta::default()
    }
    /// Leave checksums to the port. Only called where [`crate::port::Caps`] says it can.
    fn set_tx_offload(&mut self, _offload: TxOffload) {}
    /// Hint to bring the first cache line of the headers closer.
    fn prefetch(&self) {}
}

/// A plain buffer is a frame without anything the port said about it.
impl Frame for Vec<u8> {
    fn data(&self) -> &[u8] {
        self
    }

    fn data_mut(&mut self) -> &mut [u8] {
        self
    }
}
