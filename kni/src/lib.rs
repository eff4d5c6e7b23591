//! Control interfaces, and the netlink mirror of what the kernel knows about them.
//!
//! A control interface is the kernel network interface that mirrors a port (what KNI was): the
//! kernel's TCP, ARP/ND, ICMP and our own routing sockets use the NIC through it.
