//! Probes of real servers on loopback, which the tests make themselves.

use super::*;
use crate::health::CheckSpec;
use std::net::IpAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Long enough for any probe here that is to end by itself, however busy the machine.
const PATIENT: Duration = Duration::from_secs(20);
/// For probes that are to run into it.
const SHORT: Duration = Duration::from_millis(100);

fn target(address: SocketAddr, probe: Probe, timeout: Duration) -> Target {
    let check = CheckSpec { probe, interval: timeout, timeout, rise: 1, fall: 1, port: None };
    Target { address, check, source: None }
}

fn get(status: &[u16], body: Option<&str>) -> Probe {
    Probe::Http {
        path: "/healthz?full=1".to_owned(),
        host: None,
        status: status.to_vec(),
        body: body.map(str::to_owned),
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Reads a request to its end.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(request).unwrap()
}

/// Answers one request with `response`, then closes. Gives the request.
async fn answer(listener: TcpListener, response: Vec<u8>) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let request = read_request(&mut stream).await;
    // The probe may have seen enough and be gone.
    let _ = stream.write_all(&response).await;
    request
}

async fn probe_answer(probe_spec: Probe, response: &[u8]) -> Outcome {
    let (listener, address) = listen().await;
    let server = tokio::spawn(answer(listener, response.to_vec()));
    let outcome = probe(&target(address, probe_spec, PATIENT)).await;
    server.await.unwrap();
    outcome
}

fn passed(reason: &str) -> Outcome {
    Outcome::Passed(reason.to_owned())
}

fn failed(reason: &str) -> Outcome {
    Outcome::Failed(reason.to_owned())
}

#[tokio::test]
async fn responses_pass_or_fail_with_a_reason() {
    let head = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
    let long_body = format!("{}{}needle", head(""), "x".repeat(MAX_BODY));
    let late_body = format!("{}{}needle", head(""), "x".repeat(MAX_BODY - 6));
    let cases: &[(&str, Probe, &str, Outcome)] = &[
        ("wanted status", get(&[200], None), &head("Content-Length: 0\r\n"), passed("status 200")),
        (
            "one of several",
            get(&[200, 204], None),
            "HTTP/1.1 204 No Content\r\n\r\n",
            passed("status 204"),
        ),
        (
            "other status",
            get(&[200, 204], None),
            "HTTP/1.1 503 Service Unavailable\r\n\r\n",
            failed("status 503, expected 200 or 204"),
        ),
        (
            "a redirect is not followed",
            get(&[200], None),
            "HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n",
            failed("status 302, expected 200"),
        ),
        (
            "interim response first",
            get(&[200], None),
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            passed("status 200"),
        ),
        (
            "body by length",
            get(&[200], Some("ready")),
            &(head("Content-Length: 9\r\n") + "is ready."),
            passed("status 200"),
        ),
        (
            "body until close",
            get(&[200], Some("ready")),
            &(head("") + "is ready."),
            passed("status 200"),
        ),
        (
            "text across chunks",
            get(&[200], Some("ready")),
            &(head("Transfer-Encoding: chunked\r\n") + "2\r\nre\r\n1\r\na\r\n2\r\ndy\r\n0\r\n\r\n"),
            passed("status 200"),
        ),
        (
            "other body",
            get(&[200], Some("ready")),
            &(head("Content-Length: 8\r\n") + "starting"),
            failed("body does not contain \"ready\""),
        ),
        (
            "no body",
            get(&[200], Some("ready")),
            &head("Content-Length: 0\r\n"),
            failed("body does not contain \"ready\""),
        ),
        (
            "body cut short",
            get(&[200], Some("ready")),
            &(head("Content-Length: 100\r\n") + "not yet"),
            failed("connection closed before the response was complete"),
        ),
        ("text at the limit", get(&[200], Some("needle")), &late_body, passed("status 200")),
        (
            "text beyond the limit",
            get(&[200], Some("needle")),
            &long_body,
            failed("body does not contain \"needle\" in its first 64 KiB"),
        ),
        (
            "closed without a word",
            get(&[200], None),
            "",
            failed("connection closed before the response was complete"),
        ),
        (
            "cut in the head",
            get(&[200], None),
            "HTTP/1.1 200 OK\r\nServ",
            failed("connection closed before the response was complete"),
        ),
        (
            "not HTTP",
            get(&[200], None),
            "SSH-2.0-OpenSSH\r\n\r\n",
            failed("the response is not HTTP"),
        ),
        (
            "endless head",
            get(&[200], None),
            &format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(4 * MAX_HEAD)),
            failed("the head of the response is larger than 32 KiB"),
        ),
    ];
    for (name, spec, response, expected) in cases {
        assert_eq!(probe_answer(spec.clone(), response.as_bytes()).await, *expected, "{name}");
    }
}

#[tokio::test]
async fn the_request_is_what_servers_expect() {
    for (host, shown) in [(Some("www.example.org"), Some("www.example.org")), (None, None)] {
        let (listener, address) = listen().await;
        let server = tokio::spawn(answer(listener, b"HTTP/1.1 200 OK\r\n\r\n".to_vec()));
        let spec = Probe::Http {
            path: "/healthz?full=1".to_owned(),
            host: host.map(str::to_owned),
            status: vec![200],
            body: None,
        };
        assert_eq!(probe(&target(address, spec, PATIENT)).await, passed("status 200"));
        let request = server.await.unwrap().to_ascii_lowercase();
        assert!(request.starts_with("get /healthz?full=1 http/1.1\r\n"), "{request}");
        let shown = shown.map_or(address.to_string(), str::to_owned);
        assert!(request.contains(&format!("\r\nhost: {shown}\r\n")), "{request}");
        assert!(request.contains("\r\nuser-agent: dunlin/"), "{request}");
        assert!(request.contains("\r\nconnection: close\r\n"), "{request}");
    }
}

#[test]
fn the_default_host_omits_the_port_of_http() {
    for (address, host) in [
        ("10.0.0.1:80", "10.0.0.1"),
        ("10.0.0.1:8080", "10.0.0.1:8080"),
        ("[fd00::1]:80", "[fd00::1]"),
        ("[fd00::1]:8080", "[fd00::1]:8080"),
    ] {
        assert_eq!(default_host(address.parse().unwrap()), host);
    }
}

#[tokio::test]
async fn a_tcp_probe_connects_from_its_source_and_leaves_with_a_reset() {
    let (listener, address) = listen().await;
    let mut spec = target(address, Probe::Tcp, PATIENT);
    let source: IpAddr = "127.0.0.2".parse().unwrap();
    spec.source = Some(source);
    assert_eq!(probe(&spec).await, passed("connected"));
    let (mut stream, peer) = listener.accept().await.unwrap();
    assert_eq!(peer.ip(), source);
    let error = stream.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn the_check_may_name_another_port() {
    let (_listener, address) = listen().await;
    let elsewhere = SocketAddr::new(address.ip(), 9);
    let mut spec = target(elsewhere, Probe::Tcp, PATIENT);
    spec.check.port = Some(address.port());
    assert_eq!(probe(&spec).await, passed("connected"));
}

#[tokio::test]
async fn ipv6_targets_are_probed_like_ipv4() {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut spec = target(address, Probe::Tcp, PATIENT);
    spec.source = Some(address.ip());
    assert_eq!(probe(&spec).await, passed("connected"));
    drop(listener.accept().await.unwrap());
    let server = tokio::spawn(answer(listener, b"HTTP/1.1 200 OK\r\n\r\n".to_vec()));
    spec.check.probe = get(&[200], None);
    assert_eq!(probe(&spec).await, passed("status 200"));
    assert!(server.await.unwrap().contains(&format!("{address}\r\n")));
}

#[tokio::test]
async fn no_connection_gives_the_systems_reason() {
    let (listener, address) = listen().await;
    drop(listener);
    for spec in [Probe::Tcp, get(&[200], None)] {
        let outcome = probe(&target(address, spec, PATIENT)).await;
        assert_eq!(outcome, failed("connection refused"));
    }
    let mut spec = target(address, Probe::Tcp, PATIENT);
    spec.source = Some("192.0.2.1".parse().unwrap());
    let Outcome::Failed(reason) = probe(&spec).await else { panic!("not failed") };
    assert!(reason.starts_with("source 192.0.2.1: Cannot assign requested address"), "{reason}");
}

#[tokio::test]
async fn a_connection_that_is_reset_fails() {
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        stream.set_zero_linger().unwrap();
    });
    let outcome = probe(&target(address, get(&[200], None), PATIENT)).await;
    assert_eq!(outcome, failed("connection reset"));
    server.await.unwrap();
}

#[tokio::test]
async fn one_timeout_covers_connect_response_and_body() {
    // A backlog of 0 holds one connection; the SYN of the next one stays unanswered.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let _first = std::net::TcpStream::connect(address).unwrap();
    let outcome = probe(&target(address, Probe::Tcp, SHORT)).await;
    assert_eq!(outcome, failed("timeout after 100 ms, connecting"));

    // Accepted by the kernel, answered by nobody.
    let (_silent, address) = listen().await;
    let outcome = probe(&target(address, get(&[200], None), SHORT)).await;
    assert_eq!(outcome, failed("timeout after 100 ms, waiting for the response"));

    // One byte of body after the other, for ever.
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let outcome = probe(&target(address, get(&[200], Some("needle")), SHORT)).await;
    assert_eq!(outcome, failed("timeout after 100 ms, reading the body"));
    // The probe's reset ends the server's writing.
    server.await.unwrap();
}
