//! Hosts in network namespaces, for Dunlin's demo and tests.
//!
//! A [`Lab`] owns namespaces and files; a [`Netns`] runs commands, processes and threads inside
//! one. On top stand the hosts: [`Frr`] and [`Bird`] as [`Router`], [`Nginx`] backends, [`Dunlind`]
//! nodes, and [`Fabric`], which plugs them together the way the demo and the failover tests want
//! them. What happens is measured where it counts: [`Fib`] watches the router's kernel routing
//! table, [`http`] keeps the fate of every request, [`Sniffer`] sees who is sent connections,
//! [`freeze()`] hangs one thread. [`vm`] has whole machines. [`story`] is the demo's scenario, step by step, and [`appliance`] that of the
//! bootable image.
//!
//! Everything is undone when dropped, and by a janitor process should the owner be killed.
//! Nothing waits for time, only for conditions. Needs root and the packages that
//! `cargo xtask setup` installs.

pub mod appliance;
mod bird;
pub mod fabric;
mod fib;
mod freeze;
mod frr;
pub mod http;
mod lab;
mod netns;
mod nginx;
mod node;
mod process;
mod router;
mod sniff;
mod stall;
pub mod story;
pub mod tls;
pub mod udp;
pub mod vm;
mod wait;

pub use bird::Bird;
pub use fabric::Fabric;
pub use fib::{Change, Fib, NextHops, Prefix, Table};
pub use freeze::{Frozen, freeze, threads};
pub use frr::Frr;
pub use lab::{Found, KEEP_LOGS, Lab, ROOT, State, list, remove};
pub use netns::{Netns, cable};
pub use nginx::{Access, DOWNLOAD, Nginx};
pub use node::{Backend, Binaries, Dunlind};
pub use process::Process;
pub use router::Router;
pub use sniff::{Sniffer, Syn};
pub use stall::StallWatch;
pub use wait::{wait_for, wait_until};
