//! The loop: take tables, receive, forward, transmit, count, beat.
