//! Flow rules: a NIC told to put what is sent to an address into one receive queue.

use super::device::Device;
use super::eal::with_log;
use super::error::DpdkError;
use super::port::DpdkPort;
use crate::forward::tables::Protocol;
use dpdk_sys as sys;
use std::ffi::CStr;
use std::net::IpAddr;
use std::ptr::NonNull;
use std::sync::Arc;

/// A rule in the NIC; removed when dropped. Keeps the port open.
#[derive(Debug)]
pub struct FlowRule {
    device: Arc<Device>,
    flow: NonNull<sys::rte_flow>,
}

// SAFETY: a handle that only `rte_flow_destroy` takes, which any thread may call; the device's lock
// keeps calls apart.
unsafe impl Send for FlowRule {}

impl DpdkPort {
    /// Lead what is sent to this address, of this protocol or of any, to a receive queue. The
    /// error has the driver's own words. Workers may poll meanwhile.
    ///
    /// Drivers say yes to rules that they cannot have, so there is no asking in advance: make it.
    pub fn lead_to_queue(
        &self,
        destination: IpAddr,
        protocol: Option<Protocol>,
        queue: u16,
    ) -> Result<FlowRule, DpdkError> {
        let address = match destination {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let mut error = 0;
        let mut message = std::ptr::null();
        let _alone = self.device.control();
        let (flow, log) = with_log(|| {
            // SAFETY: the port is open and started as long as self; the address has as many bytes
            // as its family; the out pointers are valid.
            unsafe {
                sys::dpdk_sys_flow_to_queue(
                    self.device.id(),
                    i32::from(destination.is_ipv6()),
                    address.as_ptr(),
                    protocol.map_or(0, |protocol| protocol as u8),
                    queue,
                    &raw mut error,
                    &raw mut message,
                )
            }
        });
        if let Some(flow) = NonNull::new(flow) {
            return Ok(FlowRule { device: Arc::clone(&self.device), flow });
        }
        let mut words = log;
        if !message.is_null() {
            // SAFETY: not null, and the drivers' messages are static strings.
            let message = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
            words.insert(0, message);
        }
        Err(DpdkError::call("no flow rule", error, words, ""))
    }
}

/// The rules that lead everything of TCP and UDP for one LIP to one queue.
#[derive(Debug)]
pub struct LipRules(#[expect(dead_code, reason = "kept for their drop")] Vec<FlowRule>);

impl LipRules {
    /// One rule for each protocol, since to many NICs (i40e, for one) a rule without a protocol is
    /// about what is neither TCP nor UDP; one for all where the driver takes only that.
    pub fn make(port: &DpdkPort, lip: IpAddr, queue: u16) -> Result<Self, DpdkError> {
        let of = |protocol| port.lead_to_queue(lip, protocol, queue);
        let both = [Protocol::Tcp, Protocol::Udp].map(|protocol| of(Some(protocol)));
        let both: Result<Vec<FlowRule>, DpdkError> = both.into_iter().collect();
        match both {
            Ok(rules) => Ok(Self(rules)),
            Err(error) => of(None).map(|rule| Self(vec![rule])).map_err(|_| error),
        }
    }

    /// Whether the port takes rules for all these LIPs at once: they are made and removed.
    pub fn probe(
        port: &DpdkPort,
        lips: impl Iterator<Item = (IpAddr, u16)>,
    ) -> Result<(), DpdkError> {
        lips.map(|(lip, queue)| Self::make(port, lip, queue)).collect::<Result<Vec<_>, _>>()?;
        Ok(())
    }
}

impl Drop for FlowRule {
    fn drop(&mut self) {
        let _alone = self.device.control();
        let mut error = sys::rte_flow_error::default();
        // SAFETY: the rule is of this port, which is open and started as long as self, and this
        // was its only handle.
        let (rc, log) = with_log(|| unsafe {
            sys::rte_flow_destroy(self.device.id(), self.flow.as_ptr(), &raw mut error)
        });
        if rc < 0 {
            tracing::warn!(device = self.device.name, rc, ?log, "a flow rule was not removed");
        }
    }
}
