//! The node's state and its decisions: events → state → tables, announcements.
