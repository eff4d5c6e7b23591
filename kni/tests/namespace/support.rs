//! Network namespaces on threads of their own, `ip` run within them, and what the tests expect.

use ipnet::IpNet;
use kni::mirror::{InstalledNextHop, Mirror, MirrorConfig, MirrorHandle, NextHop, Route, Snapshot};
use nix::sched::{CloneFlags, unshare};
use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;

/// Ours is the calling thread's. Two veth pairs join it with the peer's.
pub struct Lab {
    pub peer: Namespace,
}

/// Run a test in a namespace of its own, on a runtime of one thread: what it awaits runs there too.
pub fn in_namespace(test: impl AsyncFnOnce(&Lab) + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace (needs root)");
        without_dad();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let lab = Lab { peer: Namespace::new() };
            ip("link set lo up");
            lab.connect("ka", "pa", "192.0.2", "2001:db8:a:");
            lab.connect("kb", "pb", "198.51.100", "2001:db8:b:");
            test(&lab).await;
        });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

impl Lab {
    /// A veth pair: `.1`/`:1` here, `.2`/`:2` with the peer.
    pub fn connect(&self, here: &str, there: &str, v4: &str, v6: &str) {
        let peer = self.peer.thread;
        ip(&format!("link add {here} type veth peer name {there} netns {peer}"));
        ip(&format!("addr add {v4}.1/24 dev {here}"));
        ip(&format!("addr add {v6}:1/64 dev {here} nodad"));
        ip(&format!("link set {here} up"));
        self.peer.ip(&format!("addr add {v4}.2/24 dev {there}"));
        self.peer.ip(&format!("addr add {v6}:2/64 dev {there} nodad"));
        self.peer.ip(&format!("link set {there} up"));
    }
}

pub fn ip(arguments: &str) {
    ip_output(arguments);
}

/// Many commands at once, as fast as the kernel takes them.
pub fn ip_batch(commands: &str) {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("iproute2 is installed");
    child.stdin.take().expect("piped").write_all(commands.as_bytes()).expect("ip reads");
    assert!(child.wait().expect("ip ends").success(), "ip -batch");
}

/// Run `ip` in this thread's namespace.
pub fn ip_output(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .expect("iproute2 is installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn without_dad() {
    for setting in ["accept_dad", "dad_transmits"] {
        let path = format!("/proc/sys/net/ipv6/conf/default/{setting}");
        std::fs::write(path, "0").expect("sysctl");
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// A namespace kept by a thread, which runs what it is given.
pub struct Namespace {
    jobs: Option<mpsc::Sender<Job>>,
    /// Thread id, by which `ip` finds the namespace.
    thread: i32,
    join: Option<JoinHandle<()>>,
}

impl Namespace {
    fn new() -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, started) = mpsc::channel();
        let join = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace (needs root)");
            without_dad();
            ready.send(nix::unistd::gettid().as_raw()).expect("the test waits");
            for job in queue {
                job();
            }
        });
        let thread = started.recv().expect("the thread started");
        Self { jobs: Some(jobs), thread, join: Some(join) }
    }

    pub fn ip(&self, arguments: &str) -> String {
        let (answer, wait) = mpsc::channel();
        let arguments = arguments.to_owned();
        let job = move || drop(answer.send(ip_output(&arguments)));
        self.jobs.as_ref().expect("open").send(Box::new(job)).expect("the thread runs");
        wait.recv().expect("the command succeeded")
    }

    pub fn mac(&self, interface: &str) -> [u8; 6] {
        let shown = self.ip(&format!("link show dev {interface}"));
        let mut words = shown.split_whitespace().skip_while(|word| *word != "link/ether").skip(1);
        let bytes: Vec<u8> = words
            .next()
            .expect("a MAC address")
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16).expect("hex"))
            .collect();
        bytes.try_into().expect("six bytes")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(join) = self.join.take() {
            let _ = join.join();
        }
    }
}

pub type Snapshots = watch::Receiver<Arc<Snapshot>>;

pub fn spawn() -> (MirrorHandle, Snapshots) {
    Mirror::spawn(MirrorConfig::new(vec!["ka".into(), "kb".into()])).expect("mirror")
}

/// The first snapshot that is as expected.
pub async fn until(
    snapshots: &mut Snapshots,
    what: &str,
    expected: impl Fn(&Snapshot) -> bool,
) -> Arc<Snapshot> {
    let found = tokio::time::timeout(
        Duration::from_secs(10),
        snapshots.wait_for(|snapshot| expected(snapshot)),
    )
    .await
    .map(|found| found.expect("the mirror runs").clone());
    found.unwrap_or_else(|_| panic!("never: {what}\nlast: {:#?}", snapshots.borrow().clone()))
}

pub fn net(text: &str) -> IpNet {
    text.parse().expect("prefix")
}

pub fn address(text: &str) -> IpAddr {
    text.parse().expect("address")
}

pub fn index(snapshot: &Snapshot, name: &str) -> Option<u32> {
    snapshot.links.iter().find(|(_, link)| link.name == name).map(|(index, _)| *index)
}

pub fn route<'a>(snapshot: &'a Snapshot, prefix: &str) -> Option<&'a Route> {
    snapshot.routes.iter().find(|route| route.prefix == net(prefix))
}

pub fn gateways(snapshot: &Snapshot, prefix: &str) -> Vec<(String, u16)> {
    let hops = route(snapshot, prefix).map(|route| route.next_hops.as_slice()).unwrap_or_default();
    let text = |hop: &NextHop| hop.via.map_or("on-link".into(), |via| via.to_string());
    let mut gateways: Vec<_> = hops.iter().map(|hop| (text(hop), hop.weight)).collect();
    gateways.sort();
    gateways
}

pub fn vias(list: &[(&str, u16)]) -> Vec<(String, u16)> {
    list.iter().map(|(via, weight)| ((*via).to_owned(), *weight)).collect()
}

pub fn via(gateway: &str, weight: u16) -> InstalledNextHop {
    InstalledNextHop { via: Some(address(gateway)), ifindex: None, weight }
}
