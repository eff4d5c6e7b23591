//! Paths, methods and bodies: HTTP in, [`Node`] calls out.

mod body;

use super::error::{ApiError, ErrorKind};
use super::metrics;
use super::model::{
    AddressFilter, AnnounceInfo, BackendInfo, BackendSelector, BfdSessionInfo, BgpInfo,
    BgpNeighborInfo, ClusterInfo, DrainResult, FLOW_LIMIT, FLOW_LIMIT_MAX, FlowFilter, FlowState,
    OspfNeighborInfo, ReloadResult, Scope,
};
use super::node::Node;
use crate::forward::tables::Protocol;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use body::{drain_request, no_body};
use ipnet::IpNet;
use serde::Deserialize;
use std::convert::Infallible;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// From the request to the node's answer.
const NODE_TIMEOUT: Duration = Duration::from_secs(30);

/// Who is at the other end of the socket, for the log of what operators did.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    uid: Option<u32>,
    pid: Option<i32>,
}

impl Caller {
    pub(super) fn of(stream: &tokio::net::UnixStream) -> Self {
        let credentials = stream.peer_cred().ok();
        Self { uid: credentials.map(|c| c.uid()), pid: credentials.and_then(|c| c.pid()) }
    }
}

/// Everything the API answers, over any transport.
pub fn router<N: Node>(node: Arc<N>) -> Router {
    questions::<N>()
        .merge(actions::<N>())
        .fallback(|request: Request| async move { no_such_path(request.uri().path()) })
        .method_not_allowed_fallback(|request: Request| async move { wrong_method(&request) })
        .layer(middleware::from_fn(in_time))
        .with_state(node)
}

type Answer<T> = Result<Json<T>, ApiError>;

fn questions<N: Node>() -> Router<Arc<N>> {
    type S<N> = State<Arc<N>>;
    Router::new()
        .route("/v1/status", get(|State(n): S<N>| async move { n.status().await.map(Json) }))
        .route("/v1/services", get(|State(n): S<N>| async move { n.services().await.map(Json) }))
        .route("/v1/backends", get(backends::<N>))
        .route("/v1/flows", get(flows::<N>).layer(Extension(Listings::default())))
        .route("/v1/bgp", get(bgp::<N>))
        .route("/v1/bgp/{neighbor}", get(neighbor::<N>))
        .route("/v1/bfd", get(|State(n): S<N>| async move { n.bfd().await.map(Json) }))
        .route("/v1/bfd/{peer}", get(bfd_peer::<N>))
        .route("/v1/ospf", get(|State(n): S<N>| async move { n.ospf().await.map(Json) }))
        .route("/v1/ospf/{neighbor}", get(ospf_neighbor::<N>))
        .route("/v1/cluster", get(cluster::<N>))
        .route("/v1/ports", get(|State(n): S<N>| async move { n.ports().await.map(Json) }))
        .route("/v1/workers", get(|State(n): S<N>| async move { n.workers().await.map(Json) }))
        .route("/v1/drops", get(|State(n): S<N>| async move { n.drops().await.map(Json) }))
        .route("/v1/announce", get(announce::<N>))
        .route("/v1/config", get(|State(n): S<N>| async move { n.config().await.map(Json) }))
        .route("/v1/metrics", get(prometheus::<N>))
        // Where a scraper looks unless told otherwise.
        .route("/metrics", get(prometheus::<N>))
}

fn actions<N: Node>() -> Router<Arc<N>> {
    Router::new()
        .route("/v1/drain", post(drain_node::<N>))
        .route("/v1/undrain", post(undrain_node::<N>))
        .route("/v1/services/{name}/drain", post(drain_service::<N>))
        .route("/v1/services/{name}/undrain", post(undrain_service::<N>))
        .route("/v1/backends/{address}/drain", post(drain_backend::<N>))
        .route("/v1/backends/{address}/undrain", post(undrain_backend::<N>))
        .route("/v1/reload", post(reload::<N>))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct BackendQuery {
    service: Option<String>,
}

async fn backends<N: Node>(
    State(node): State<Arc<N>>,
    query: Result<Query<BackendQuery>, QueryRejection>,
) -> Answer<Vec<BackendInfo>> {
    let Query(query) = query.map_err(bad_query)?;
    let mut backends = node.backends().await?;
    if let Some(service) = query.service {
        known_service(node.as_ref(), &service).await?;
        backends.retain(|backend| backend.service == service);
    }
    Ok(Json(backends))
}

/// As it comes; every part is text, so that the errors are ours.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FlowQuery {
    client: Option<String>,
    vip: Option<String>,
    backend: Option<String>,
    service: Option<String>,
    protocol: Option<String>,
    state: Option<String>,
    limit: Option<String>,
}

/// Places for listings of flows. Each holds some 30 MB at most, for as long as its reader takes.
#[derive(Debug, Clone)]
struct Listings(Arc<Semaphore>);

impl Default for Listings {
    fn default() -> Self {
        const PLACES: usize = 4;
        Self(Arc::new(Semaphore::new(PLACES)))
    }
}

async fn flows<N: Node>(
    State(node): State<Arc<N>>,
    Extension(Listings(places)): Extension<Listings>,
    query: Result<Query<FlowQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(bad_query)?;
    let filter = flow_filter(query)?;
    if let Some(service) = &filter.service {
        known_service(node.as_ref(), service).await?;
    }
    // The semaphore is never closed.
    let place = places.acquire_owned().await.ok();
    let list = node.flows(filter).await?;
    let json = serde_json::to_vec(&list)
        .map_err(|error| ApiError::internal(format!("flows do not serialize: {error}")))?;
    let head =
        [(CONTENT_TYPE, "application/json".to_owned()), (CONTENT_LENGTH, json.len().to_string())];
    Ok((head, in_pieces(json.into(), place)).into_response())
}

/// A body that gives `place` back when the last piece is on its way, not when the answer is made.
fn in_pieces(json: Bytes, place: Option<OwnedSemaphorePermit>) -> Body {
    const PIECE: usize = 64 * 1024;
    let pieces = futures::stream::unfold((json, place), |(mut rest, place)| async move {
        let piece = rest.split_to(rest.len().min(PIECE));
        (!piece.is_empty()).then_some((Ok::<_, Infallible>(piece), (rest, place)))
    });
    Body::from_stream(pieces)
}

fn flow_filter(query: FlowQuery) -> Result<FlowFilter, ApiError> {
    Ok(FlowFilter {
        client: parameter::<AddressFilter>("client", query.client)?,
        vip: parameter::<AddressFilter>("vip", query.vip)?,
        backend: parameter::<AddressFilter>("backend", query.backend)?,
        service: query.service,
        protocol: match query.protocol.as_deref() {
            None => None,
            Some("tcp") => Some(Protocol::Tcp),
            Some("udp") => Some(Protocol::Udp),
            Some(other) => return Err(bad_parameter("protocol", other, "expected tcp or udp")),
        },
        state: parameter::<FlowState>("state", query.state)?,
        limit: match query.limit {
            None => FLOW_LIMIT,
            Some(text) => {
                text.parse().ok().filter(|limit| (1..=FLOW_LIMIT_MAX).contains(limit)).ok_or_else(
                    || {
                        let hint = format!("expected a number from 1 to {FLOW_LIMIT_MAX}");
                        bad_parameter("limit", &text, &hint)
                    },
                )?
            }
        },
    })
}

fn parameter<T: FromStr<Err = String>>(
    name: &str,
    text: Option<String>,
) -> Result<Option<T>, ApiError> {
    text.map(|text| text.parse().map_err(|hint: String| bad_parameter(name, &text, &hint)))
        .transpose()
}

async fn bgp<N: Node>(State(node): State<Arc<N>>) -> Answer<BgpInfo> {
    configured_bgp(node.as_ref()).await.map(Json)
}

async fn cluster<N: Node>(State(node): State<Arc<N>>) -> Answer<ClusterInfo> {
    let info = node.cluster().await?.ok_or_else(|| {
        ApiError::new(
            ErrorKind::NotFound,
            "flows are not shared with other nodes",
            "add a [cluster] section to the configuration and restart",
        )
    });
    info.map(Json)
}

async fn configured_bgp(node: &impl Node) -> Result<BgpInfo, ApiError> {
    node.bgp().await?.ok_or_else(|| {
        ApiError::new(
            ErrorKind::NotFound,
            "BGP is not configured",
            "add a [bgp] section to the configuration and reload",
        )
    })
}

async fn neighbor<N: Node>(
    State(node): State<Arc<N>>,
    Path(text): Path<String>,
) -> Answer<BgpNeighborInfo> {
    let bgp = configured_bgp(node.as_ref()).await?;
    let wanted = text.parse::<IpAddr>().ok();
    let known: Vec<String> = bgp.neighbors.iter().map(|n| n.name.clone()).collect();
    bgp.neighbors
        .into_iter()
        .find(|n| n.name == text || Some(n.address) == wanted)
        .map(Json)
        .ok_or_else(|| ApiError::not_found("neighbour", &text, known))
}

async fn bfd_peer<N: Node>(
    State(node): State<Arc<N>>,
    Path(text): Path<String>,
) -> Answer<Vec<BfdSessionInfo>> {
    let mut sessions = node.bfd().await?.sessions;
    let wanted = text.parse::<IpAddr>().ok();
    let known: Vec<IpAddr> = sessions.iter().map(|session| session.peer).collect();
    sessions.retain(|session| Some(session.peer) == wanted);
    if sessions.is_empty() {
        return Err(ApiError::not_found("BFD session with", &text, known));
    }
    Ok(Json(sessions))
}

async fn ospf_neighbor<N: Node>(
    State(node): State<Arc<N>>,
    Path(text): Path<String>,
) -> Answer<Vec<OspfNeighborInfo>> {
    let versions = node.ospf().await?;
    let mut neighbors: Vec<_> = versions.into_iter().flat_map(|ospf| ospf.neighbors).collect();
    let wanted = text.parse::<IpAddr>().ok();
    let known: Vec<_> = neighbors.iter().map(|neighbor| neighbor.router_id).collect();
    neighbors.retain(|neighbor| {
        wanted.is_some_and(|it| it == neighbor.address || it == IpAddr::V4(neighbor.router_id))
    });
    if neighbors.is_empty() {
        return Err(ApiError::not_found("OSPF neighbour", &text, known));
    }
    Ok(Json(neighbors))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AnnounceQuery {
    prefix: Option<String>,
}

async fn announce<N: Node>(
    State(node): State<Arc<N>>,
    query: Result<Query<AnnounceQuery>, QueryRejection>,
) -> Answer<Vec<AnnounceInfo>> {
    let Query(query) = query.map_err(bad_query)?;
    let mut list = node.announce().await?;
    if let Some(text) = query.prefix {
        let wanted = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let wanted = wanted.map_err(|_| {
            bad_parameter("prefix", &text, "expected a prefix or an address like 192.0.2.10")
        })?;
        let known: Vec<IpNet> = list.iter().map(|entry| entry.prefix).collect();
        list.retain(|entry| entry.prefix == wanted.trunc());
        if list.is_empty() {
            return Err(ApiError::not_found("prefix", &text, known));
        }
    }
    Ok(Json(list))
}

async fn prometheus<N: Node>(State(node): State<Arc<N>>) -> Result<Response, ApiError> {
    let snapshot = metrics::Snapshot {
        status: node.status().await?,
        services: node.services().await?,
        backends: node.backends().await?,
        bgp: node.bgp().await?,
        bfd: node.bfd().await?,
        ospf: node.ospf().await?,
        cluster: node.cluster().await?,
        ports: node.ports().await?,
        drops: node.drops().await?,
        announce: node.announce().await?,
    };
    let text = metrics::render(&snapshot);
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

async fn drain_node<N: Node>(State(node): State<Arc<N>>, request: Request) -> Answer<DrainResult> {
    drain(node.as_ref(), Scope::Node, request).await
}

async fn undrain_node<N: Node>(
    State(node): State<Arc<N>>,
    request: Request,
) -> Answer<DrainResult> {
    undrain(node.as_ref(), Scope::Node, request).await
}

async fn drain_service<N: Node>(
    State(node): State<Arc<N>>,
    Path(name): Path<String>,
    request: Request,
) -> Answer<DrainResult> {
    known_service(node.as_ref(), &name).await?;
    drain(node.as_ref(), Scope::Service(name), request).await
}

async fn undrain_service<N: Node>(
    State(node): State<Arc<N>>,
    Path(name): Path<String>,
    request: Request,
) -> Answer<DrainResult> {
    known_service(node.as_ref(), &name).await?;
    undrain(node.as_ref(), Scope::Service(name), request).await
}

async fn drain_backend<N: Node>(
    State(node): State<Arc<N>>,
    Path(address): Path<String>,
    request: Request,
) -> Answer<DrainResult> {
    let selector = known_backend(node.as_ref(), &address).await?;
    drain(node.as_ref(), Scope::Backend(selector), request).await
}

async fn undrain_backend<N: Node>(
    State(node): State<Arc<N>>,
    Path(address): Path<String>,
    request: Request,
) -> Answer<DrainResult> {
    let selector = known_backend(node.as_ref(), &address).await?;
    undrain(node.as_ref(), Scope::Backend(selector), request).await
}

async fn drain(node: &impl Node, scope: Scope, request: Request) -> Answer<DrainResult> {
    let caller = request.extensions().get::<Caller>().copied();
    let wanted = drain_request(&body::read(request).await?)?;
    let (uid, pid) = (caller.and_then(|c| c.uid), caller.and_then(|c| c.pid));
    tracing::info!(?scope, reason = %wanted.reason.escape_debug(), uid, pid, "API: drain");
    node.drain(scope, wanted).await.map(Json)
}

async fn undrain(node: &impl Node, scope: Scope, request: Request) -> Answer<DrainResult> {
    let caller = request.extensions().get::<Caller>().copied();
    no_body(&body::read(request).await?)?;
    let (uid, pid) = (caller.and_then(|c| c.uid), caller.and_then(|c| c.pid));
    tracing::info!(?scope, uid, pid, "API: undrain");
    node.undrain(scope).await.map(Json)
}

async fn reload<N: Node>(State(node): State<Arc<N>>, request: Request) -> Answer<ReloadResult> {
    let caller = request.extensions().get::<Caller>().copied();
    no_body(&body::read(request).await?)?;
    let (uid, pid) = (caller.and_then(|c| c.uid), caller.and_then(|c| c.pid));
    tracing::info!(uid, pid, "API: reload");
    node.reload().await.map(Json)
}

async fn known_service(node: &impl Node, name: &str) -> Result<(), ApiError> {
    let services = node.services().await?;
    if services.iter().any(|service| service.name == name) {
        return Ok(());
    }
    let known = services.into_iter().map(|service| service.name);
    Err(ApiError::not_found("service", name, known))
}

async fn known_backend(node: &impl Node, text: &str) -> Result<BackendSelector, ApiError> {
    let selector: BackendSelector =
        text.parse().map_err(|hint: String| bad_parameter("address", text, &hint))?;
    let backends = node.backends().await?;
    if backends.iter().any(|b| selector.matches(&b.address)) {
        return Ok(selector);
    }
    let known = backends.into_iter().map(|backend| backend.address);
    Err(ApiError::not_found("backend", text, known))
}

async fn in_time(request: Request, next: Next) -> Response {
    let answer = tokio::time::timeout(NODE_TIMEOUT, next.run(request)).await;
    answer.unwrap_or_else(|_| {
        ApiError::new(
            ErrorKind::NodeTimeout,
            format!("the node did not answer within {} s", NODE_TIMEOUT.as_secs()),
            "a worker or the control task is stuck: journalctl -u dunlin",
        )
        .into_response()
    })
}

fn bad_query(rejection: QueryRejection) -> ApiError {
    let text = rejection.body_text();
    let text = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
    ApiError::bad_request(
        format!("bad query: {text}"),
        "parameters are name=value, joined by &, each at most once",
    )
}

fn bad_parameter(name: &str, value: &str, hint: &str) -> ApiError {
    ApiError::bad_request(format!("{name}: {:?} is not valid", shorten(value)), hint)
}

fn no_such_path(path: &str) -> Response {
    ApiError::new(
        ErrorKind::NotFound,
        format!("no such path: {}", shorten(path)),
        "paths are /v1/status, services, backends, flows, bgp, bgp/NEIGHBOUR, bfd, cluster, ports, workers, \
         drops, announce, config, metrics; and by POST drain, undrain, reload, \
         services/NAME/drain, backends/ADDRESS/drain (or undrain)",
    )
    .into_response()
}

fn wrong_method(request: &Request<Body>) -> Response {
    let path = request.uri().path();
    let action = ["/drain", "/undrain", "/reload"].iter().any(|end| path.ends_with(end));
    let allowed = if action { "POST" } else { "GET, HEAD" };
    let error = ApiError::new(
        ErrorKind::MethodNotAllowed,
        format!("{} is not for {}", request.method(), shorten(path)),
        format!("use {allowed}"),
    );
    ([(ALLOW, allowed)], error).into_response()
}

/// What a client sent, echoed only so far.
fn shorten(text: &str) -> String {
    const MOST: usize = 100;
    let mut short: String = text.chars().take(MOST).collect();
    if text.chars().nth(MOST).is_some() {
        short.push('…');
    }
    short
}
