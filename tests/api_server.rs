//! The API over its real socket: every path, every refusal, and the socket itself.

#[path = "api_fake/mod.rs"]
mod api_fake;

use api_fake::http::ask;
use api_fake::{Fake, Scratch, Served};
use dunlin::api::model::FlowList;
use serde_json::Value;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;

#[test]
fn every_question_has_an_answer_in_its_type() {
    let served = Served::new(Fake::bad_night());
    let node = &served.node;
    let cases: [(&str, Value); 17] = [
        ("status", serde_json::to_value(&node.status).expect("json")),
        ("services", serde_json::to_value(&node.services).expect("json")),
        ("backends", serde_json::to_value(&node.backends).expect("json")),
        ("backends?service=dns", serde_json::to_value(&node.backends[4..]).expect("json")),
        ("bgp", serde_json::to_value(&node.bgp).expect("json")),
        (
            "bgp/2001:db8:1:0::fe",
            serde_json::to_value(node.bgp.as_ref().map(|b| &b.neighbors[1])).expect("json"),
        ),
        ("bfd", serde_json::to_value(&node.bfd).expect("json")),
        ("bfd/10.0.1.254", serde_json::to_value(&node.bfd.sessions[..1]).expect("json")),
        ("ospf", serde_json::to_value(&node.ospf).expect("json")),
        ("ospf/10.255.0.2", serde_json::to_value(&node.ospf[0].neighbors[1..]).expect("json")),
        ("announce?prefix=203.0.113.1", serde_json::to_value(&node.announce[..1]).expect("json")),
        ("cluster", serde_json::to_value(&node.cluster).expect("json")),
        ("ports", serde_json::to_value(&node.ports).expect("json")),
        ("workers", serde_json::to_value(&node.status.workers).expect("json")),
        ("drops", serde_json::to_value(&node.drops).expect("json")),
        ("announce", serde_json::to_value(&node.announce).expect("json")),
        (
            "flows?limit=1&state=syn",
            serde_json::to_value(FlowList {
                flows: vec![node.flows[1].clone()],
                matched: 1,
                total: 5,
            })
            .expect("json"),
        ),
    ];
    for (path, expected) in cases {
        let answer = ask(served.socket(), "GET", &format!("/v1/{path}"), "");
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert!(answer.head.contains("content-type: application/json"), "{path}");
        let body: Value = serde_json::from_str(&answer.body).expect(path);
        assert_eq!(body, expected, "{path}");
    }
    let config = ask(served.socket(), "GET", "/v1/config", "");
    assert!(config.body.contains("[node]"), "{}", config.body);
}

#[test]
fn every_flow_filter_selects() {
    let served = Served::new(Fake::bad_night());
    let cases = [
        ("", 5),
        ("?client=198.51.100.7", 2),
        ("?client=198.51.100.7:51034", 1),
        ("?client=198.51.100.0/24", 3),
        ("?client=2001:db8::/32", 1),
        ("?vip=203.0.113.1:443", 3),
        ("?vip=%5B2001:db8:f::1%5D:443", 1),
        ("?backend=10.0.0.53", 1),
        ("?service=dns", 1),
        ("?protocol=udp", 1),
        ("?state=established", 2),
        ("?state=established&client=0.0.0.0/0", 1),
        ("?limit=2", 2),
    ];
    for (query, count) in cases {
        let answer = ask(served.socket(), "GET", &format!("/v1/flows{query}"), "");
        let list: FlowList = serde_json::from_str(&answer.body).expect(query);
        assert_eq!(list.flows.len(), count, "{query}");
    }
}

#[test]
fn actions_reach_the_node_with_their_scope_and_reason() {
    let served = Served::new(Fake::bad_night());
    let cases = [
        ("drain", "", r#"drain Node """#),
        ("drain", r#" {"reason": "new \"kernel\""} "#, r#"drain Node "new \"kernel\"""#),
        ("drain", "{}", r#"drain Node """#),
        ("undrain", "", "undrain Node"),
        ("services/web/drain", "", r#"drain Service("web") """#),
        ("services/web/undrain", "{}", r#"undrain Service("web")"#),
        (
            "backends/10.0.0.3/drain",
            "",
            r#"drain Backend(BackendSelector { address: 10.0.0.3, port: None }) """#,
        ),
        (
            "backends/%5B2001:db8:b::4%5D%3A8443/undrain",
            "",
            r"undrain Backend(BackendSelector { address: 2001:db8:b::4, port: Some(8443) })",
        ),
        ("reload", "", "reload"),
    ];
    for (index, (path, body, done)) in cases.iter().enumerate() {
        let answer = ask(served.socket(), "POST", &format!("/v1/{path}"), body);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert_eq!(served.node.done().len(), index + 1, "{path}");
        assert_eq!(served.node.done()[index], *done, "{path}");
    }
}

#[test]
fn refusals_say_what_was_expected_and_change_nothing() {
    let served = Served::new(Fake::bad_night());
    let long_reason = format!(r#"{{"reason":"{}"}}"#, "x".repeat(300));
    let too_large = "x".repeat(64 * 1024 + 1);
    // Method, path, body, status, part of the error, part of the hint.
    let cases = [
        ("GET", "/", "", 404, "no such path: /", "/v1/status"),
        ("GET", "/v1/statu", "", 404, "no such path", "paths are"),
        ("GET", "/v2/status", "", 404, "no such path", "paths are"),
        ("POST", "/v1/status", "", 405, "POST is not for /v1/status", "use GET"),
        ("GET", "/v1/drain", "", 405, "GET is not for /v1/drain", "use POST"),
        ("DELETE", "/v1/reload", "", 405, "DELETE is not for", "use POST"),
        (
            "GET",
            "/v1/bgp/10.0.1.9",
            "",
            404,
            "no neighbour 10.0.1.9",
            "known: 10.0.1.250, 10.0.1.254",
        ),
        ("GET", "/v1/bgp/tor-a", "", 404, "no neighbour tor-a", "2001:db8:1::fe"),
        ("GET", "/v1/bgp/%ff", "", 400, "", ""),
        ("GET", "/v1/backends?service=www", "", 404, "no service www", "known: dns, web"),
        ("GET", "/v1/backends?servce=web", "", 400, "unknown field `servce`", "name=value"),
        ("GET", "/v1/flows?limit=0", "", 400, "limit: \"0\"", "from 1 to 100000"),
        ("GET", "/v1/flows?limit=100001", "", 400, "limit", "from 1 to 100000"),
        ("GET", "/v1/flows?limit=-1", "", 400, "limit", "from 1 to 100000"),
        ("GET", "/v1/flows?state=open", "", 400, "state: \"open\"", "syn, established"),
        ("GET", "/v1/flows?protocol=sctp", "", 400, "protocol", "tcp or udp"),
        ("GET", "/v1/flows?client=me", "", 400, "client: \"me\"", "192.0.2.7:443"),
        ("GET", "/v1/flows?service=www", "", 404, "no service www", "known: dns, web"),
        ("GET", "/v1/flows?limit=1&limit=2", "", 400, "duplicate field", "at most once"),
        ("POST", "/v1/services/www/drain", "", 404, "no service www", "known: dns, web"),
        ("POST", "/v1/backends/x/drain", "", 400, "address: \"x\"", "10.0.0.1:80"),
        (
            "POST",
            "/v1/backends/10.0.0.1:1/drain",
            "",
            404,
            "no backend 10.0.0.1:1",
            "10.0.0.1:8443",
        ),
        ("POST", "/v1/drain", "now", 400, "not a JSON object", "{\"reason\""),
        ("POST", "/v1/drain", "[\"x\"]", 400, "not a JSON object", "{\"reason\""),
        ("POST", "/v1/drain", "{\"reason\":", 400, "EOF", "{\"reason\""),
        ("POST", "/v1/drain", "{\"reason\":3}", 400, "invalid type", "{\"reason\""),
        ("POST", "/v1/drain", "{\"why\":\"\"}", 400, "unknown field `why`", "{\"reason\""),
        ("POST", "/v1/drain", &long_reason, 400, "300 bytes", "at most 255"),
        ("POST", "/v1/drain", &too_large, 413, "too large", "65536"),
        ("POST", "/v1/reload", "{\"file\":\"x\"}", 400, "takes no body", "expected no body"),
        ("POST", "/v1/undrain", "x", 400, "takes no body", "expected no body"),
    ];
    for (method, path, body, status, error, hint) in cases {
        let answer = ask(served.socket(), method, path, body);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        if error.is_empty() {
            continue;
        }
        let told = answer.error();
        assert!(told.error.contains(error), "{method} {path}: {told:?}");
        assert!(told.hint.contains(hint), "{method} {path}: {told:?}");
    }
    assert_eq!(served.node.done(), Vec::<String>::new());
}

#[test]
fn what_the_node_refuses_keeps_its_words_and_status() {
    let mut fake = Fake::bad_night();
    fake.reload = Err(dunlin::api::ApiError::unprocessable(
        "dunlin.toml line 3: node.name: expected a string",
        "nothing was changed",
    ));
    fake.bgp = None;
    let served = Served::new(fake);
    let answer = ask(served.socket(), "POST", "/v1/reload", "");
    assert_eq!(answer.status, 422);
    assert_eq!(answer.error().error, "dunlin.toml line 3: node.name: expected a string");
    let answer = ask(served.socket(), "GET", "/v1/bgp", "");
    assert_eq!((answer.status, answer.error().error.as_str()), (404, "BGP is not configured"));
    let metrics = ask(served.socket(), "GET", "/metrics", "");
    assert_eq!(metrics.status, 200);
    assert!(!metrics.body.contains("dunlin_bgp"), "no BGP, no families of it");
}

#[test]
fn metrics_keep_the_conventions() {
    let served = Served::new(Fake::bad_night());
    let answer = ask(served.socket(), "GET", "/metrics", "");
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    let (mut families, mut series) = (Vec::new(), Vec::new());
    let mut lines = answer.body.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').expect("HELP has a text");
            assert!(text.ends_with('.'), "{line}");
            let kind = lines.next().and_then(|l| l.strip_prefix(&format!("# TYPE {name} ")));
            let counter = kind.expect("TYPE follows HELP") == "counter";
            assert_eq!(counter, name.ends_with("_total"), "{name}");
            assert!(name.starts_with("dunlin_"), "{name}");
            assert!(!families.contains(&name), "{name} twice");
            families.push(name);
            continue;
        }
        let (name, value) = line.rsplit_once(' ').expect("a sample has a value");
        let family = name.split('{').next().expect("a name");
        assert_eq!(Some(&family), families.last(), "sample of another family");
        assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
        assert!(!series.contains(&name), "{name} twice");
        series.push(name);
    }
    assert!(families.len() > 40, "{}", families.len());
}

#[test]
fn the_socket_is_for_the_group_and_goes_with_the_server() {
    let mut served = Served::new(Fake::bad_night());
    let metadata = std::fs::symlink_metadata(served.socket()).expect("socket");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    let beside = std::fs::read_dir(served.socket().parent().expect("directory"));
    assert_eq!(beside.expect("readable").count(), 1, "no temporary names stay behind");
    served.stop();
    assert!(!served.socket().exists());
}

#[tokio::test]
async fn only_a_socket_that_nobody_listens_on_is_replaced() {
    let scratch = Scratch::new();
    let socket = scratch.0.join("made/for/it/api.sock");
    let first = dunlin::api::bind(&socket).expect("directories are made");
    let taken = dunlin::api::bind(&socket).expect_err("in use");
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    assert!(taken.to_string().contains("api.sock: another process listens"), "{taken}");
    drop(first);
    assert!(!socket.exists());

    // Left behind by a process that was killed.
    drop(UnixListener::bind(&socket).expect("bind"));
    assert!(socket.exists());
    let second = dunlin::api::bind(&socket).expect("stale socket replaced");
    // Taken away and bound by another since: not ours to remove.
    std::fs::remove_file(&socket).expect("removed");
    let other = UnixListener::bind(&socket).expect("bind");
    drop(second);
    assert!(socket.exists());
    drop(other);

    let file = scratch.0.join("file");
    std::fs::write(&file, "precious").expect("written");
    let refused = dunlin::api::bind(&file).expect_err("not a socket");
    assert_eq!(refused.kind(), std::io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read_to_string(&file).expect("still there"), "precious");
}
