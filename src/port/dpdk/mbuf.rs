//! One frame in a DPDK packet buffer.

use crate::packet::{Checksum, Frame, RxMeta, TxOffload};
use crate::port::Burst;
use dpdk_sys as sys;
use dpdk_sys::mbuf as field;
use std::fmt;
use std::ptr::NonNull;

/// An owned packet buffer (`rte_mbuf`), with the segments chained to it. Dropping it gives it back
/// to its pool.
///
/// Layout: one non-null pointer, so that a burst of them is what drivers fill in and take.
#[repr(transparent)]
pub struct Mbuf(NonNull<sys::rte_mbuf>);

// SAFETY: an mbuf is plain memory with one owner; returning it to its pool is allowed on any
// thread.
unsafe impl Send for Mbuf {}

impl Mbuf {
    /// # Safety
    /// `mbuf` is live and owned by nobody else, and its pool lives as long as the environment.
    pub(super) unsafe fn from_raw(mbuf: NonNull<sys::rte_mbuf>) -> Self {
        Self(mbuf)
    }

    /// Make the frame `len` bytes longer at its end and return the new, unspecified bytes. `None`
    /// if the buffer has not so much room.
    pub fn append(&mut self, len: u16) -> Option<&mut [u8]> {
        // SAFETY: the mbuf is live and ours.
        let start = unsafe { sys::dpdk_sys_pktmbuf_append(self.0.as_ptr(), len) };
        let start = NonNull::new(start.cast::<u8>())?;
        // SAFETY: DPDK just made these bytes part of the frame; they are initialised memory of the
        // pool, borrowed from self.
        Some(unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), usize::from(len)) })
    }

    /// The whole frame in one piece, copied. For captures and tests; not on the packet path.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.total_len()];
        // SAFETY: the mbuf is live and the vector has room for its whole length. A chain that is
        // shorter than its pkt_len leaves zeros, which no valid mbuf has.
        unsafe {
            sys::dpdk_sys_pktmbuf_read(
                self.0.as_ptr(),
                0,
                bytes.len() as u32,
                bytes.as_mut_ptr().cast(),
            );
        }
        bytes
    }

    /// Free all frames of a burst at once: cheaper than one by one.
    pub fn free_burst(burst: &mut Burst<Self>) {
        // SAFETY: Mbuf is a transparent pointer to an owned mbuf; after the call the burst's
        // length is 0, so none is freed again.
        unsafe {
            let count = burst.len();
            burst.set_len(0);
            sys::rte_pktmbuf_free_bulk(burst.as_mut_ptr().cast(), count as u32);
        }
    }
}

impl Drop for Mbuf {
    fn drop(&mut self) {
        // SAFETY: live and ours, and gone after this.
        unsafe { sys::dpdk_sys_pktmbuf_free(self.0.as_ptr()) }
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mbuf").field("total_len", &self.total_len()).finish_non_exhaustive()
    }
}

impl Frame for Mbuf {
    #[inline(always)]
    fn data(&self) -> &[u8] {
        let m = self.0.as_ptr();
        // SAFETY: the first segment's data lies in its buffer, which lives as long as self.
        unsafe { std::slice::from_raw_parts(field::data(m), usize::from(field::data_len(m))) }
    }

    #[inline(always)]
    fn data_mut(&mut self) -> &mut [u8] {
        let m = self.0.as_ptr();
        // SAFETY: as in `data`. Received and allocated mbufs are direct: nobody shares the bytes.
        unsafe { std::slice::from_raw_parts_mut(field::data(m), usize::from(field::data_len(m))) }
    }

    #[inline(always)]
    fn total_len(&self) -> usize {
        // SAFETY: live mbuf.
        unsafe { field::pkt_len(self.0.as_ptr()) as usize }
    }

    #[inline(always)]
    fn rx_meta(&self) -> RxMeta {
        let m = self.0.as_ptr();
        // SAFETY: live mbuf.
        let (flags, hash) = unsafe { (field::ol_flags(m), field::rss_hash(m)) };
        // A port that verifies no checksums says nothing about them: one question instead of four.
        if flags & (sys::DPDK_SYS_RX_IP_CKSUM_MASK | sys::DPDK_SYS_RX_L4_CKSUM_MASK) == 0 {
            let rss_hash = (flags & sys::DPDK_SYS_RX_RSS_HASH != 0).then_some(hash);
            return RxMeta { rss_hash, ..RxMeta::default() };
        }
        RxMeta {
            rss_hash: (flags & sys::DPDK_SYS_RX_RSS_HASH != 0).then_some(hash),
            ip_checksum: checksum(
                flags & sys::DPDK_SYS_RX_IP_CKSUM_MASK,
                sys::DPDK_SYS_RX_IP_CKSUM_GOOD,
                sys::DPDK_SYS_RX_IP_CKSUM_BAD,
            ),
            l4_checksum: checksum(
                flags & sys::DPDK_SYS_RX_L4_CKSUM_MASK,
                sys::DPDK_SYS_RX_L4_CKSUM_GOOD,
                sys::DPDK_SYS_RX_L4_CKSUM_BAD,
            ),
        }
    }

    /// The checksum field of the TCP or UDP header must hold the pseudo-header's sum, not
    /// complemented; that of the IPv4 header zero. DPDK counts at most 127 bytes before the IP
    /// header and 511 of it (DPDK Programmer's Guide, mbuf library, "Meta
    /// information").
    #[inline]
    fn set_tx_offload(&mut self, offload: TxOffload) {
        let (flags, lengths) = tx_request(self.data(), offload);
        let m = self.0.as_ptr();
        // SAFETY: live and ours.
        unsafe {
            let kept = field::ol_flags(m) & !sys::DPDK_SYS_TX_REQUESTS;
            field::set_ol_flags(m, kept | flags);
            field::set_tx_offload(m, lengths);
        }
    }

    #[inline(always)]
    fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch reads nothing architecturally; the mbuf is live.
        unsafe {
            use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(field::data(self.0.as_ptr()).cast());
        }
    }
}

#[inline(always)]
fn checksum(found: u64, good: u64, bad: u64) -> Checksum {
    // Both bits set is a value of its own: the checksum is wrong in the packet but its data was
    // verified (virtio's partial checksums). Nobody should look at the field, so nobody must
    // take it for wrong either.
    match found {
        f if f == good => Checksum::Good,
        f if f == bad => Checksum::Bad,
        f if f == good | bad => Checksum::Good,
        _ => Checksum::Unknown,
    }
}

/// Offload flags and header lengths for DPDK. The address family and the protocol, which DPDK
/// wants by name, are read from the headers.
fn tx_request(frame: &[u8], offload: TxOffload) -> (u64, u64) {
    let l2 = usize::from(offload.l2_len);
    let header = frame.get(l2..).unwrap_or_default();
    let v4 = header.first().is_some_and(|byte| byte >> 4 == 4);
    let protocol = if v4 {
        header.get(9).copied()
    } else {
        last_next_header(header, usize::from(offload.l3_len))
    };
    let mut flags = if v4 { sys::DPDK_SYS_TX_IPV4 } else { sys::DPDK_SYS_TX_IPV6 };
    if v4 && offload.ipv4 {
        flags |= sys::DPDK_SYS_TX_IP_CKSUM;
    }
    let l4_len = match protocol {
        Some(6) if offload.l4 => {
            flags |= sys::DPDK_SYS_TX_TCP_CKSUM;
            20
        }
        Some(17) if offload.l4 => {
            flags |= sys::DPDK_SYS_TX_UDP_CKSUM;
            8
        }
        _ => 0,
    };
    // Fields of 7, 9 and 8 bits.
    let lengths = (u64::from(offload.l2_len) & 0x7f) << sys::DPDK_SYS_TX_L2_LEN_SHIFT
        | (u64::from(offload.l3_len) & 0x1ff) << sys::DPDK_SYS_TX_L3_LEN_SHIFT
        | l4_len << sys::DPDK_SYS_TX_L4_LEN_SHIFT;
    (flags, lengths)
}

/// The protocol after an IPv6 header with its extension headers (RFC 8200 §4), which together are
/// `l3_len` bytes long. `None` if the chain does not end there.
fn last_next_header(header: &[u8], l3_len: usize) -> Option<u8> {
    let mut next = *header.get(6)?;
    let mut at = 40;
    while at < l3_len {
        let extension = header.get(at..at + 2)?;
        at += match next {
            // Fragment header, RFC 8200 §4.5: fixed length.
            44 => 8,
            // Authentication header, RFC 4302 §2.2: in units of 4, minus 2.
            51 => (usize::from(extension[1]) + 2) * 4,
            _ => (usize::from(extension[1]) + 1) * 8,
        };
        next = extension[0];
    }
    (at == l3_len).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offload(l3_len: u16) -> TxOffload {
        TxOffload { l2_len: 14, l3_len, ipv4: true, l4: true }
    }

    #[test]
    fn ipv4_tcp_asks_for_both_checksums() {
        let mut frame = [0u8; 54];
        frame[14] = 0x45;
        frame[14 + 9] = 6;
        let (flags, lengths) = tx_request(&frame, offload(20));
        assert_eq!(
            flags,
            sys::DPDK_SYS_TX_IPV4 | sys::DPDK_SYS_TX_IP_CKSUM | sys::DPDK_SYS_TX_TCP_CKSUM
        );
        assert_eq!(lengths, 14 + (20 << 7) + (20 << 16));
    }

    #[test]
    fn ipv6_protocol_is_found_behind_extension_headers() {
        let mut frame = [0u8; 14 + 40 + 16 + 8];
        frame[14] = 0x60;
        frame[14 + 6] = 0; // hop-by-hop options
        frame[14 + 40] = 44; // then a fragment header
        frame[14 + 48] = 17;
        let (flags, lengths) = tx_request(&frame, offload(56));
        assert_eq!(flags, sys::DPDK_SYS_TX_IPV6 | sys::DPDK_SYS_TX_UDP_CKSUM);
        assert_eq!(lengths, 14 + (56 << 7) + (8 << 16));
    }

    #[test]
    fn a_chain_that_does_not_fit_asks_for_nothing() {
        let mut frame = [0u8; 14 + 40 + 8];
        frame[14] = 0x60;
        frame[14 + 41] = 200;
        let (flags, _) = tx_request(&frame, offload(48));
        assert_eq!(flags, sys::DPDK_SYS_TX_IPV6);
        assert_eq!(tx_request(&[], offload(20)).0, sys::DPDK_SYS_TX_IPV6);
    }

    #[test]
    fn checksum_bits_have_four_meanings() {
        let (good, bad) = (sys::DPDK_SYS_RX_L4_CKSUM_GOOD, sys::DPDK_SYS_RX_L4_CKSUM_BAD);
        assert_eq!(checksum(0, good, bad), Checksum::Unknown);
        assert_eq!(checksum(good, good, bad), Checksum::Good);
        assert_eq!(checksum(bad, good, bad), Checksum::Bad);
        assert_eq!(checksum(good | bad, good, bad), Checksum::Good);
    }
}
