//! The node's state and its decisions: events → state → tables, announcements.

pub mod announce;
pub mod kernel;
pub mod lips;
pub mod liveness;
pub mod owner;
mod paths;
pub mod slots;
pub mod state;
mod tables;
#[cfg(test)]
mod tests;
pub mod view;
