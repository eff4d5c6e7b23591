//! What the API needs of a node: questions, and the few things an operator may do.

use super::error::ApiError;
use super::model::{
    AnnounceInfo, BackendInfo, BfdInfo, BgpInfo, ClusterInfo, ConfigInfo, DrainRequest,
    DrainResult, DropInfo, FlowFilter, FlowList, OspfInfo, PortInfo, ReloadResult, Scope,
    ServiceInfo, Status, WorkerInfo,
};
use std::future::Future;

/// The node as its API sees it. `control` implements it; tests use a fake.
///
/// Every method may be called at any time and concurrently. Questions must not change anything and
/// must not wait for workers longer than a few bursts; the API gives up after 30 s.
pub trait Node: Send + Sync + 'static {
    fn status(&self) -> impl Future<Output = Result<Status, ApiError>> + Send;

    /// One entry per service, VIP and port, in configuration order.
    fn services(&self) -> impl Future<Output = Result<Vec<ServiceInfo>, ApiError>> + Send;

    /// One entry per service and backend, in configuration order.
    fn backends(&self) -> impl Future<Output = Result<Vec<BackendInfo>, ApiError>> + Send;

    /// At most `filter.limit` flows that [`FlowFilter::matches`]; order is not defined.
    fn flows(&self, filter: FlowFilter) -> impl Future<Output = Result<FlowList, ApiError>> + Send;

    /// `None`: BGP is not configured.
    fn bgp(&self) -> impl Future<Output = Result<Option<BgpInfo>, ApiError>> + Send;

    fn bfd(&self) -> impl Future<Output = Result<BfdInfo, ApiError>> + Send;

    /// One entry for each configured version.
    fn ospf(&self) -> impl Future<Output = Result<Vec<OspfInfo>, ApiError>> + Send;

    /// `None`: flows are not shared with other nodes.
    fn cluster(&self) -> impl Future<Output = Result<Option<ClusterInfo>, ApiError>> + Send;

    fn ports(&self) -> impl Future<Output = Result<Vec<PortInfo>, ApiError>> + Send;

    fn workers(&self) -> impl Future<Output = Result<Vec<WorkerInfo>, ApiError>> + Send;

    /// Every reason, counted or not, in the order of [`crate::forward::DropReason::ALL`].
    fn drops(&self) -> impl Future<Output = Result<Vec<DropInfo>, ApiError>> + Send;

    /// Every prefix that is or could be announced.
    fn announce(&self) -> impl Future<Output = Result<Vec<AnnounceInfo>, ApiError>> + Send;

    /// The running configuration. Secrets must be replaced before they get here.
    fn config(&self) -> impl Future<Output = Result<ConfigInfo, ApiError>> + Send;

    /// Idempotent: draining what is draining changes nothing and says so. A service or backend in
    /// `scope` existed a moment ago; it may be gone ([`super::ErrorKind::NotFound`]).
    fn drain(
        &self,
        scope: Scope,
        request: DrainRequest,
    ) -> impl Future<Output = Result<DrainResult, ApiError>> + Send;

    /// Idempotent, as [`Node::drain`].
    fn undrain(&self, scope: Scope) -> impl Future<Output = Result<DrainResult, ApiError>> + Send;

    /// Read the configuration file again and apply the difference. A file that is not valid changes
    /// nothing and is [`super::ErrorKind::Unprocessable`].
    fn reload(&self) -> impl Future<Output = Result<ReloadResult, ApiError>> + Send;
}
