//! Fields of `rte_mbuf`, by the offsets that the installed headers give.
//!
//! bindgen could lay the structure out, but the names of its anonymous unions differ from version
//! to version; the field names in C do not. Each function compiles to one load or store.
//!
//! # Safety
//! Every function: `m` points to a live mbuf, which no other thread writes meanwhile; those that
//! store: which the caller owns.

use crate::bindings as b;
use crate::rte_mbuf;

macro_rules! field {
    ($(#[$doc:meta])* $get:ident, $kind:ty, $offset:ident) => {
        $(#[$doc])*
        #[inline(always)]
        pub unsafe fn $get(m: *const rte_mbuf) -> $kind {
            // SAFETY: the offset and the type of the field are the headers'; the caller vouches
            // for the mbuf. mbufs are cache-line aligned and so are their fields.
            unsafe { m.byte_add(b::$offset as usize).cast::<$kind>().read() }
        }
    };
    ($(#[$doc:meta])* $get:ident, $(#[$setdoc:meta])* $set:ident, $kind:ty, $offset:ident) => {
        field!($(#[$doc])* $get, $kind, $offset);
        $(#[$setdoc])*
        #[inline(always)]
        pub unsafe fn $set(m: *mut rte_mbuf, value: $kind) {
            // SAFETY: as for the getter; the caller owns the mbuf.
            unsafe { m.byte_add(b::$offset as usize).cast::<$kind>().write(value) }
        }
    };
}

field!(
    /// Start of the segment's buffer.
    buf_addr, *mut u8, DPDK_SYS_MBUF_BUF_ADDR
);
field!(
    /// Offset of the data in the buffer, bytes.
    data_off, u16, DPDK_SYS_MBUF_DATA_OFF
);
field!(
    /// Data in this segment, bytes.
    data_len, u16, DPDK_SYS_MBUF_DATA_LEN
);
field!(
    /// Data in all segments, bytes.
    pkt_len, u32, DPDK_SYS_MBUF_PKT_LEN
);
field!(
    /// Offload flags, receive and transmit (`DPDK_SYS_RX_*`, `DPDK_SYS_TX_*`).
    ol_flags,
    /// See [`ol_flags`].
    set_ol_flags, u64, DPDK_SYS_MBUF_OL_FLAGS
);
field!(
    /// RSS hash; meaningful if `ol_flags` has `DPDK_SYS_RX_RSS_HASH`.
    rss_hash, u32, DPDK_SYS_MBUF_RSS_HASH
);
field!(
    /// Header lengths for transmit offloads, as bit fields (`DPDK_SYS_TX_*_SHIFT`).
    tx_offload,
    /// See [`tx_offload`].
    set_tx_offload, u64, DPDK_SYS_MBUF_TX_OFFLOAD
);

/// First byte of the frame.
#[inline(always)]
pub unsafe fn data(m: *const rte_mbuf) -> *mut u8 {
    // SAFETY: the caller vouches for the mbuf; its data lies in its buffer.
    unsafe { buf_addr(m).add(usize::from(data_off(m))) }
}
