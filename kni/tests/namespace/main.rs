//! The mirror and the control interface against a real kernel.
//!
//! Each test makes two network namespaces, each on a thread of its own, joined by veth pairs: ours
//! (`ka`, `kb`) and the neighbour's (`pa`, `pb`). They have no name and vanish with their threads.

mod control;
mod mirror;
mod routes;
mod support;
