//! Turning a frame around: what a peer that answers does to it, and the least that a forwarder can.

/// Swap MAC addresses, IP addresses and ports. Checksums stay right.
#[inline(always)]
pub fn swap(frame: &mut [u8]) {
    let (at, len) = match frame.get(12..14) {
        Some([0x08, 0x00]) => (26, 4),
        Some([0x86, 0xdd]) => (22, 16),
        _ => return,
    };
    let ports = at + 2 * len;
    if frame.len() < ports + 4 {
        return;
    }
    swap_halves::<6>(&mut frame[..12]);
    if len == 4 {
        swap_halves::<4>(&mut frame[26..34]);
    } else {
        swap_halves::<16>(&mut frame[22..54]);
    }
    swap_halves::<2>(&mut frame[ports..ports + 4]);
}

#[inline(always)]
fn swap_halves<const N: usize>(bytes: &mut [u8]) {
    let Some((first, second)) = bytes.split_first_chunk_mut::<N>() else {
        return;
    };
    if let Some(second) = second.first_chunk_mut::<N>() {
        std::mem::swap(first, second);
    }
}
