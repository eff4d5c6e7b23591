//! The lab's own hosts do what tests rely on. Needs root: `cargo xtask test lab`.

use anyhow::{Context, Result, ensure};
use lab::http::{self, Download, Load};
use lab::{
    Bird, Fib, Frr, Lab, Netns, NextHops, Nginx, Prefix, Sniffer, cable, wait_for, wait_until,
};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);

/// Two hosts on one cable: `a` 10.0.0.1 and fd00::1, `b` 10.0.0.2 and fd00::2.
fn pair(lab: &Lab, a: &str, b: &str) -> Result<(Netns, Netns)> {
    let (a, b) = (lab.netns(a)?, lab.netns(b)?);
    cable(&a, "eth0", &b, "eth0")?;
    a.ip("addr add 10.0.0.1/24 dev eth0\naddr add fd00::1/64 dev eth0 nodad")?;
    b.ip("addr add 10.0.0.2/24 dev eth0\naddr add fd00::2/64 dev eth0 nodad")?;
    Ok((a, b))
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn a_dropped_lab_leaves_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let ns = lab.netns("a")?;
    let mut sleeper = ns.spawn("sleep", ns.command("sleep").arg("600"))?;
    // A process that nobody guards, with the namespace as its only trace.
    ns.run("sh", &["-c", "setsid sleep 600 >/dev/null 2>&1 &"])?;
    assert!(sleeper.ended().is_none());
    let pids = || {
        let out = Command::new("ip").args(["netns", "pids", ns.full_name()]).output();
        out.map_or(0, |o| String::from_utf8_lossy(&o.stdout).lines().count())
    };
    wait_until("both run", PATIENCE, || pids() == 2)?;
    let (path, dir) = (ns.path(), ns.dir()?);
    let stray = Command::new("ip").args(["netns", "pids", ns.full_name()]).output()?;
    drop((sleeper, ns, lab));
    assert!(!path.exists(), "{} is left", path.display());
    assert!(!dir.exists(), "{} is left", dir.display());
    for pid in String::from_utf8_lossy(&stray.stdout).lines() {
        // A zombie, waiting for whatever is process 1 here to reap it, has no program any more.
        let program = std::fs::read_link(format!("/proc/{pid}/exe"));
        assert!(program.is_err(), "process {pid} is left: {program:?}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn a_routing_table_is_watched() -> Result<()> {
    let lab = Lab::new()?;
    let (a, _b) = pair(&lab, "a", "b")?;
    let fib = Fib::watch(&a)?;
    let cases = [("192.0.2.10", "10.0.0.2", "10.0.0.3"), ("2001:db8::10", "fd00::2", "fd00::3")];
    for (vip, one, two) in cases {
        let prefix: Prefix = vip.parse()?;
        assert!(fib.next_hops(prefix).is_empty());
        let before = Instant::now();
        a.ip(&format!("route add {vip} nexthop via {one} weight 1 nexthop via {two} weight 3"))?;
        let added = fib.wait(prefix, PATIENCE, |hops| hops.len() == 2)?;
        assert!(added >= before);
        let hops = fib.next_hops(prefix);
        assert_eq!(hops.get(&one.parse()?), Some(&1));
        assert_eq!(hops.get(&two.parse()?), Some(&3));
        a.ip(&format!("route replace {vip} via {one}"))?;
        let replaced = fib.wait(prefix, PATIENCE, |hops| hops.len() == 1)?;
        a.ip(&format!("route del {vip}"))?;
        let gone = fib.wait(prefix, PATIENCE, NextHops::is_empty)?;
        assert!(added < replaced && replaced < gone);
        let last = fib.changes(prefix, before).pop().map(|c| c.next_hops.len());
        assert_eq!(last, Some(0));
    }
    let never = fib.wait("198.51.100.1".parse()?, Duration::from_millis(50), |h| !h.is_empty());
    assert!(never.is_err());
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn every_request_is_accounted_for() -> Result<()> {
    let lab = Lab::new()?;
    let (client, server) = pair(&lab, "client", "b1")?;
    let mut nginx = Nginx::start(&server)?;
    let sniffer = Sniffer::start(&server, 80)?;
    let targets: Vec<SocketAddr> = vec!["10.0.0.2:80".parse()?, "[fd00::2]:80".parse()?];
    let load = Load { targets: targets.clone(), rate: 200, timeout: Duration::from_secs(2) };
    let load = load.start(&client)?;
    wait_until("100 answers", PATIENCE, || load.so_far().ok() >= 100)?;
    let before_kill = Instant::now();
    nginx.kill()?;
    let killed = Instant::now();
    wait_until("50 failures", PATIENCE, || load.so_far().after(killed).len() >= 50)?;
    let before_up = Instant::now();
    nginx.up()?;
    let up = Instant::now();
    wait_until("50 more answers", PATIENCE, || load.so_far().after(up).ok() >= 50)?;
    let report = load.stop();

    let quiet = before_kill.checked_sub(Duration::from_millis(200)).unwrap_or(before_kill);
    let early = report.between(report.requests[0].started, quiet);
    assert_eq!(early.ok(), early.len(), "{:?}", early.failures());
    assert_eq!(report.between(killed, before_up).ok(), 0);
    let late = report.after(up);
    assert_eq!(late.ok(), late.len(), "{:?}", late.failures());
    for target in targets {
        assert!(report.to(target).ok() > 20, "{target}");
    }
    assert_eq!(report.by_backend().keys().collect::<Vec<_>>(), ["b1"]);
    // One connection per request, each seen on the wire, from ports of their own.
    let seen = sniffer.seen();
    assert!(seen.len() >= report.len(), "{} SYNs, {} requests", seen.len(), report.len());
    let mut ports: Vec<_> = seen.iter().map(|s| s.from).collect();
    ports.sort_unstable();
    ports.dedup();
    assert!(ports.len() >= report.len());
    // nginx answers, then logs: the last line may be on its way, and the kill may have come between
    // the two, once, for nginx is one process here.
    let logged = wait_for("the log", PATIENCE, || {
        let logged = nginx.log()?;
        ensure!(logged.len() + 1 >= report.ok(), "{} logged, {} ok", logged.len(), report.ok());
        Ok(logged)
    })?;
    assert!(logged.iter().all(|a| a.path == "/" && a.status == 200));
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn downloads_are_checked_byte_by_byte() -> Result<()> {
    let lab = Lab::new()?;
    let (client, server) = pair(&lab, "client", "b1")?;
    let mut nginx = Nginx::start(&server)?;
    let target = "10.0.0.2:80".parse()?;
    let fast = Download::start(&client, target, 0, PATIENCE)?;
    let done = fast.join()?;
    assert_eq!((done.backend.as_str(), done.bytes), ("b1", lab::DOWNLOAD));
    let slow = Download::start(&client, target, 64 << 10, PATIENCE)?;
    wait_until("first bytes", PATIENCE, || slow.received() > 0)?;
    nginx.kill()?;
    assert!(slow.join().is_err());
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn an_ill_backend_still_serves() -> Result<()> {
    let lab = Lab::new()?;
    let (client, server) = pair(&lab, "client", "b1")?;
    let nginx = Nginx::start(&server)?;
    let target: SocketAddr = "10.0.0.2:80".parse()?;
    let get = |path: &'static str| client.enter(move || http::get(target, path, PATIENCE).outcome);
    assert_eq!(get("/healthz")?, Ok("b1".into()));
    nginx.set_ill(true)?;
    assert_eq!(get("/healthz")?, Err(http::Failure::Status(503)));
    assert_eq!(get("/")?, Ok("b1".into()));
    nginx.set_ill(false)?;
    assert_eq!(get("/healthz")?, Ok("b1".into()));
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn frr_and_bird_exchange_routes() -> Result<()> {
    let lab = Lab::new()?;
    let (frr_host, bird_host) = pair(&lab, "tor", "peer")?;
    let fib = Fib::watch(&frr_host)?;
    let frr = Frr::start(
        &frr_host,
        &["bfdd", "bgpd"],
        "bfd\n profile lab\n  receive-interval 100\n  transmit-interval 100\n exit\nexit\n\
         router bgp 65000\n bgp router-id 10.0.0.1\n no bgp ebgp-requires-policy\n \
         neighbor 10.0.0.2 remote-as 65001\n neighbor 10.0.0.2 bfd profile lab\n \
         neighbor 10.0.0.2 timers connect 1\nexit\n",
    )?;
    assert!(frr.configure(&["router bgp 65000", "no such thing"]).is_err());
    let mut bird = Bird::start(
        &bird_host,
        "router id 10.0.0.2;\nprotocol device {}\n\
         protocol bfd { interface \"eth0\" { interval 100 ms; }; }\n\
         protocol static vips { ipv4; route 192.0.2.10/32 blackhole; }\n\
         protocol bgp tor {\n local 10.0.0.2 as 65001; neighbor 10.0.0.1 as 65000; bfd on;\n \
         connect delay time 1; error wait time 1, 1;\n ipv4 { import none; export where proto = \"vips\"; };\n}\n",
    )?;
    frr.wait_established("10.0.0.2", Duration::from_secs(20))?;
    let vip = "192.0.2.10".parse()?;
    let bird_address: IpAddr = "10.0.0.2".parse()?;
    fib.wait(vip, PATIENCE, |hops| hops.keys().eq([&bird_address]))?;
    wait_until("BFD", PATIENCE, || frr.bfd_state("10.0.0.2").is_ok_and(|s| s == "up"))?;
    assert_eq!(bird.state("tor")?, "Established");
    let killed = Instant::now();
    bird.process().kill()?;
    let gone = fib.wait(vip, PATIENCE, NextHops::is_empty)?;
    assert!(gone > killed);
    Ok(())
}

/// Not a test of its own: the victim of the next one.
#[test]
#[ignore = "run by a_killed_lab_leaves_nothing"]
fn victim() -> Result<()> {
    if std::env::var_os("LAB_VICTIM").is_none() {
        return Ok(());
    }
    let lab = Lab::new()?;
    let ns = lab.netns("a")?;
    let _sleeper = ns.spawn("sleep", ns.command("sleep").arg("600"))?;
    println!("up {}", lab.prefix());
    loop {
        std::thread::park();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn a_killed_lab_leaves_nothing() -> Result<()> {
    for signal in ["-KILL", "-INT"] {
        let mut victim = Command::new(std::env::current_exe()?)
            .args(["--exact", "victim", "--ignored", "--nocapture"])
            .env("LAB_VICTIM", "1")
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(victim.stdout.take().context("stdout")?).lines();
        let up = lines.map_while(Result::ok).find_map(|line| {
            let (_, prefix) = line.split_once("up ")?;
            Some(prefix.to_owned())
        });
        let prefix = up.context("the victim did not come up")?;
        let namespace = PathBuf::from(format!("/run/netns/{prefix}-a"));
        assert!(namespace.exists());
        let found = lab::list()?.into_iter().find(|l| l.prefix == prefix);
        assert_eq!(found.as_ref().map(|l| l.state), Some(lab::State::Running));
        assert!(lab::remove(&found.context("not listed")?).is_err());
        Command::new("kill").args([signal, &victim.id().to_string()]).status()?;
        victim.wait()?;
        wait_until("the janitor", PATIENCE, || {
            !namespace.exists() && lab::list().is_ok_and(|l| l.iter().all(|l| l.prefix != prefix))
        })?;
    }
    Ok(())
}
