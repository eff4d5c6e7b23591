//! Runs an [`Exchange`] on a UDP socket and the workers' rings. Decides nothing.

use super::exchange::{Exchange, ExchangeConfig};
use super::stats::ClusterStats;
use super::wire::MAX_DATAGRAM;
use crate::worker::sharing::{Report, TaskEnd};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Datagrams taken in before the workers are looked at again.
const DATAGRAMS_PER_TURN: usize = 64;
/// Of the socket, bytes: what many nodes ask at once when a router moves everything.
const BUFFER: usize = 4 << 20;

/// The socket that peers talk to. The address need not be there yet: it is set on a control
/// interface, and IPv6 addresses wait for their detection of duplicates.
pub fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv4() {
        socket.set_freebind_v4(true)?;
    } else {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    }
    // As much as the system allows; what does not fit is asked again.
    let _ = socket.set_recv_buffer_size(BUFFER);
    let _ = socket.set_send_buffer_size(BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Exchange flows with the peers until the task is aborted. `workers`: in order of their number;
/// they notify `news`.
pub fn spawn(
    socket: UdpSocket,
    config: ExchangeConfig,
    workers: Vec<TaskEnd>,
    news: Arc<Notify>,
    stats: Arc<ClusterStats>,
) -> JoinHandle<()> {
    let exchange = Exchange::new(config, Arc::clone(&stats), Instant::now());
    tokio::spawn(Driver { socket, exchange, workers, news, stats }.run())
}

struct Driver {
    socket: UdpSocket,
    exchange: Exchange,
    workers: Vec<TaskEnd>,
    news: Arc<Notify>,
    stats: Arc<ClusterStats>,
}

impl Driver {
    async fn run(mut self) {
        // One byte more than a datagram may have, so that longer ones are seen to be.
        let mut buffer = [0; MAX_DATAGRAM + 1];
        loop {
            let due = self.exchange.poll_timeout().map(tokio::time::Instant::from_std);
            let timeout = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.news.notified() => {}
                // An error is one of a datagram sent before (ICMP): there is nothing to do about it.
                _ = self.socket.readable() => self.receive(&mut buffer),
                () = timeout => self.exchange.handle_timeout(Instant::now()),
            }
            self.hear_workers();
            self.exchange.flush(Instant::now());
            self.order_workers();
            self.transmit();
            // Whatever comes in, the other tasks of the control plane run too.
            tokio::task::yield_now().await;
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) {
        let now = Instant::now();
        for _ in 0..DATAGRAMS_PER_TURN {
            match self.socket.try_recv_from(buffer) {
                Ok((length, from)) => {
                    self.exchange.handle_datagram(from, &buffer[..length], now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {}
            }
        }
    }

    fn hear_workers(&mut self) {
        for (number, worker) in (0u16..).zip(&mut self.workers) {
            while let Ok(report) = worker.reports.pop() {
                match report {
                    Report::Missing(key) => self.exchange.handle_missing(number, key),
                    Report::Found { ticket, mapping } => {
                        self.exchange.handle_found(ticket, mapping);
                    }
                }
            }
        }
    }

    fn order_workers(&mut self) {
        while let Some((number, order)) = self.exchange.poll_order() {
            let worker = self.workers.get_mut(usize::from(number));
            // A stalled worker: what it was to find is asked again, of it or another.
            if worker.is_none_or(|worker| worker.orders.push(order).is_err()) {
                self.stats.overloaded.add(1);
            }
        }
    }

    fn transmit(&mut self) {
        while let Some((to, datagram)) = self.exchange.poll_transmit() {
            let sent = self.socket.try_send_to(&datagram, to);
            if sent.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                self.stats.overloaded.add(1);
            }
        }
    }
}
