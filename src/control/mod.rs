//! The node's state and its decisions: events → state → tables, announcements.

pub mod announce;
pub mod slots;
