//! TCP as far as timeouts need it: which segment moves a flow to which state.
//!
//! Sequence numbers are not followed, so a forged RST or FIN shortens a flow's timeout but never
//! stops its packets.

use super::flows::{Direction, State};
use crate::packet::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};

/// Whether a segment opens a connection (RFC 9293 §3.5): SYN and none of ACK, RST, FIN.
pub(super) const fn opens(flags: u8) -> bool {
    flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN) == TCP_SYN
}

/// Whether a segment can leave an established flow's state unchanged without looking further.
#[inline(always)]
pub(super) const fn plain(flags: u8) -> bool {
    flags & (TCP_SYN | TCP_RST | TCP_FIN) == 0
}

/// The state after a segment with these flags.
pub(super) const fn next(state: State, direction: Direction, flags: u8) -> State {
    if flags & TCP_RST != 0 {
        return State::Reset;
    }
    let syn = flags & TCP_SYN != 0;
    let ack = flags & TCP_ACK != 0;
    let fin = flags & TCP_FIN != 0 && !syn;
    match (state, direction) {
        (State::SynSent, Direction::Reply) if syn && ack => State::SynReceived,
        (State::SynReceived | State::Established, Direction::Request) if fin => State::FinClient,
        (State::SynReceived | State::Established, Direction::Reply) if fin => State::FinServer,
        (State::SynReceived, Direction::Request) if ack && !syn => State::Established,
        (State::FinClient, Direction::Reply) if fin => State::Closing,
        (State::FinServer, Direction::Request) if fin => State::Closing,
        _ => state,
    }
}

#[cfg(test)]
mod tests {
    use super::Direction::{Reply, Request};
    use super::*;

    /// A sentence, and segments with the state after each.
    type Case = (&'static str, &'static [(Direction, u8, State)]);

    const FIN_ACK: u8 = TCP_FIN | TCP_ACK;
    const SYN_ACK: u8 = TCP_SYN | TCP_ACK;

    #[test]
    fn plain_segments_change_nothing_after_the_handshake() {
        use State::{Closing, Established, FinClient, FinServer, Reset};
        for state in [Established, FinClient, FinServer, Closing, Reset] {
            assert!(state.stays());
            for flags in (0..=u8::MAX).filter(|&flags| plain(flags)) {
                for direction in [Request, Reply] {
                    assert_eq!(next(state, direction, flags), state, "{flags:#x}");
                }
            }
        }
        for state in [State::SynSent, State::SynReceived, State::Udp, State::Free] {
            assert!(!state.stays(), "{state:?}");
        }
    }

    #[test]
    fn connections_from_beginning_to_end() {
        let cases: &[Case] = &[
            (
                "client closes first",
                &[
                    (Request, TCP_SYN, State::SynSent),
                    (Reply, SYN_ACK, State::SynReceived),
                    (Reply, SYN_ACK, State::SynReceived),
                    (Request, TCP_ACK, State::Established),
                    (Request, TCP_ACK, State::Established),
                    (Reply, TCP_ACK, State::Established),
                    (Request, FIN_ACK, State::FinClient),
                    (Request, FIN_ACK, State::FinClient),
                    (Reply, TCP_ACK, State::FinClient),
                    (Reply, FIN_ACK, State::Closing),
                    (Request, TCP_ACK, State::Closing),
                ],
            ),
            (
                "server closes first, right after the handshake's second segment",
                &[
                    (Reply, SYN_ACK, State::SynReceived),
                    (Reply, FIN_ACK, State::FinServer),
                    (Request, FIN_ACK, State::Closing),
                ],
            ),
            ("refused", &[(Reply, TCP_RST | TCP_ACK, State::Reset)]),
            (
                "a reset flow stays reset",
                &[
                    (Request, TCP_RST, State::Reset),
                    (Reply, SYN_ACK, State::Reset),
                    (Request, TCP_ACK, State::Reset),
                ],
            ),
            (
                "nothing but SYN-ACK answers a SYN",
                &[
                    (Request, TCP_ACK, State::SynSent),
                    (Reply, TCP_ACK, State::SynSent),
                    (Reply, FIN_ACK, State::SynSent),
                    (Request, FIN_ACK, State::SynSent),
                    (Reply, TCP_SYN, State::SynSent),
                ],
            ),
            (
                "SYN with FIN does not close",
                &[
                    (Reply, SYN_ACK, State::SynReceived),
                    (Request, TCP_SYN | TCP_FIN, State::SynReceived),
                ],
            ),
        ];
        for (name, steps) in cases {
            let mut state = State::SynSent;
            for (number, &(direction, flags, expected)) in steps.iter().enumerate() {
                state = next(state, direction, flags);
                assert_eq!(state, expected, "{name}, step {number}");
            }
        }
    }

    #[test]
    fn plain_segments_do_not_move_an_established_flow() {
        for flags in 0..=255 {
            for direction in [Request, Reply] {
                let moved = next(State::Established, direction, flags) != State::Established;
                assert!(!moved || !plain(flags), "{flags:#x}");
            }
        }
    }

    #[test]
    fn only_a_bare_syn_opens() {
        let opening: Vec<u8> = (0..0x20).filter(|&flags| opens(flags)).collect();
        assert_eq!(opening, [TCP_SYN, TCP_SYN | 0x08]);
    }
}
