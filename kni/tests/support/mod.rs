//! Network namespaces on threads of their own, and `ip` run within them.

use nix::sched::{CloneFlags, unshare};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;

/// Ours is the calling thread's. Two veth pairs join it with the peer's.
pub struct Lab {
    pub peer: Namespace,
}

/// Run a test in a namespace of its own, on a runtime of one thread: what it awaits runs there too.
pub fn in_namespace(test: impl AsyncFnOnce(&Lab) + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace (needs root)");
        without_dad();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime");
        runtime.block_on(async {
            let lab = Lab {
                peer: Namespace::new(),
            };
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
        ip(&format!(
            "link add {here} type veth peer name {there} netns {peer}"
        ));
        ip(&format!("addr add {v4}.1/24 dev {here}"));
        ip(&format!("addr add {v6}:1/64 dev {here} nodad"));
        ip(&format!("link set {here} up"));
        self.peer.ip(&format!("addr add {v4}.2/24 dev {there}"));
        self.peer
            .ip(&format!("addr add {v6}:2/64 dev {there} nodad"));
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
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(commands.as_bytes())
        .expect("ip reads");
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
            ready
                .send(nix::unistd::gettid().as_raw())
                .expect("the test waits");
            for job in queue {
                job();
            }
        });
        let thread = started.recv().expect("the thread started");
        Self {
            jobs: Some(jobs),
            thread,
            join: Some(join),
        }
    }

    pub fn ip(&self, arguments: &str) -> String {
        let (answer, wait) = mpsc::channel();
        let arguments = arguments.to_owned();
        let job = move || drop(answer.send(ip_output(&arguments)));
        self.jobs
            .as_ref()
            .expect("open")
            .send(Box::new(job))
            .expect("the thread runs");
        wait.recv().expect("the command succeeded")
    }

    pub fn mac(&self, interface: &str) -> [u8; 6] {
        let shown = self.ip(&format!("link show dev {interface}"));
        let mut words = shown
            .split_whitespace()
            .skip_while(|word| *word != "link/ether")
            .skip(1);
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
