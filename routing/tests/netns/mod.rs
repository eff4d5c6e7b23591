//! Two network namespaces joined by a cable, and the routing daemons to try ours against: FRR and
//! BIRD without systemd. Everything is removed on drop; only processes started here are killed.
// Each test file uses its own part of this.
#![allow(dead_code)]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Namespaces `us` and `peer`, with `eth0` in each: 10.9.0.1/24 and fd09::1/64 at our end,
/// 10.9.0.2 and fd09::2 at the peer's.
pub struct Net {
    pub us: String,
    pub peer: String,
    pub dir: PathBuf,
}

impl Net {
    /// `name` must be unique among the tests that run at once.
    pub fn new(name: &str) -> Self {
        let tag = format!("dl{}{name}", std::process::id());
        let net = Self {
            us: format!("{tag}-us"),
            peer: format!("{tag}-peer"),
            dir: std::env::temp_dir().join(&tag),
        };
        fs::create_dir_all(&net.dir).unwrap();
        run(&["ip", "netns", "add", &net.us]);
        run(&["ip", "netns", "add", &net.peer]);
        for ns in [&net.us, &net.peer] {
            for key in ["all", "default"] {
                // Addresses are usable at once.
                let set = format!("net.ipv6.conf.{key}.accept_dad=0");
                in_ns(ns, &["sysctl", "-qw", &set]);
            }
            in_ns(ns, &["ip", "link", "set", "lo", "up"]);
        }
        net.cable("eth0", "10.9.0", "fd09");
        net
    }

    /// Another cable: the interface has the same name at both ends; .1 and ::1 are ours.
    pub fn cable(&self, interface: &str, v4: &str, v6: &str) {
        let link = ["ip", "-n", &self.us, "link", "add", interface, "type", "veth", "peer"];
        run(&[&link[..], &["name", interface, "netns", &self.peer]].concat());
        for (ns, end) in [(&self.us, 1), (&self.peer, 2)] {
            let address = |address: String| {
                run(&["ip", "-n", ns, "addr", "add", &address, "dev", interface]);
            };
            address(format!("{v4}.{end}/24"));
            address(format!("{v6}::{end}/64"));
            run(&["ip", "-n", ns, "link", "set", interface, "up"]);
        }
    }

    /// Starts FRR's zebra and `daemons` at the peer's end with `config`.
    pub fn frr(&self, daemons: &[&str], config: &str) -> Frr {
        let dir = self.dir.join("frr");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("frr.conf"), config).unwrap();
        let path = dir.to_str().unwrap();
        run(&["chown", "-R", "frr:frr", path]);
        let mut frr = Frr { dir: dir.clone(), ns: self.peer.clone(), daemons: Vec::new() };
        for daemon in ["zebra"].iter().chain(daemons) {
            fs::write(dir.join(format!("{daemon}.conf")), "").unwrap();
            frr.start(daemon);
        }
        in_ns(&self.peer, &["vtysh", "--vty_socket", path, "--config_dir", path, "-b"]);
        frr
    }

    /// Starts BIRD at the peer's end with `config`.
    pub fn bird(&self, config: &str) -> Bird {
        let dir = self.dir.join("bird");
        fs::create_dir_all(&dir).unwrap();
        let path = dir.to_str().unwrap();
        fs::write(dir.join("bird.conf"), config).unwrap();
        run(&["chown", "-R", "bird:bird", path]);
        let file = |name: &str| format!("{path}/{name}");
        let (conf, control, pid) = (file("bird.conf"), file("bird.ctl"), file("pid"));
        let args = ["bird", "-c", &conf, "-s", &control, "-P", &pid, "-u", "bird", "-g", "bird"];
        in_ns(&self.peer, &args);
        Bird { ns: self.peer.clone(), control, pid }
    }

    /// Starts the example `name` of this crate at our end.
    pub fn ours(&self, name: &str, args: &[&str]) -> Ours {
        Self::example(&self.us, name, args)
    }

    /// Starts the example `name` of this crate at the peer's end.
    pub fn ours_as_peer(&self, name: &str, args: &[&str]) -> Ours {
        Self::example(&self.peer, name, args)
    }

    fn example(ns: &str, name: &str, args: &[&str]) -> Ours {
        build(name);
        let test = std::env::current_exe().unwrap();
        let target = test.parent().and_then(Path::parent).unwrap();
        let mut child = Command::new("ip")
            .args(["netns", "exec", ns])
            .arg(target.join("examples").join(name))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (lines, inbox) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    return;
                }
            }
        });
        Ours { child, lines: inbox }
    }
}

/// Builds an example, once per test binary.
fn build(name: &str) {
    static BUILT: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if !built.iter().any(|other| other == name) {
        run(&[env!("CARGO"), "build", "--quiet", "-p", "routing", "--example", name]);
        built.push(name.to_owned());
    }
}

/// Runs cases that wait for protocols more than for the CPU, `count` at a time. Each needs a [`Net`]
/// of its own.
pub fn at_once<T: Sync>(count: usize, cases: &[T], case: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| {
                while let Some(one) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    case(one);
                }
            });
        }
    });
}

impl Drop for Net {
    fn drop(&mut self) {
        for ns in [&self.us, &self.peer] {
            let _ = Command::new("ip").args(["netns", "del", ns]).status();
        }
        if std::thread::panicking() {
            eprintln!("logs are kept in {}", self.dir.display());
        } else {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// A running FRR.
pub struct Frr {
    dir: PathBuf,
    ns: String,
    daemons: Vec<String>,
}

impl Frr {
    fn start(&mut self, daemon: &str) {
        let path = self.dir.to_str().unwrap();
        let file = |suffix: &str| format!("{path}/{daemon}.{suffix}");
        run(&["chown", "frr:frr", &file("conf")]);
        let binary = format!("/usr/lib/frr/{daemon}");
        let (conf, pid, log) = (file("conf"), file("pid"), format!("file:{}", file("log")));
        let (zserv, control) = (format!("{path}/zserv.api"), format!("{path}/bfdd.sock"));
        let mut args = vec![binary.as_str(), "-d", "-f", &conf, "-i", &pid, "-z", &zserv];
        args.extend(["--vty_socket", path, "-A", "127.0.0.1", "--log", &log]);
        if daemon == "bfdd" {
            args.extend(["--bfdctl", &control]);
        }
        in_ns(&self.ns, &args);
        if !self.daemons.contains(&pid) {
            self.daemons.push(pid);
        }
    }

    /// Ends a daemon in good order.
    pub fn stop(&self, daemon: &str) {
        signal_file(&format!("{}/{daemon}.pid", self.dir.display()), Signal::SIGTERM);
    }

    pub fn signal(&self, daemon: &str, signal: Signal) {
        signal_file(&format!("{}/{daemon}.pid", self.dir.display()), signal);
    }

    /// Starts a daemon that was stopped, with the configuration it had.
    pub fn restart(&mut self, daemon: &str) {
        fs::copy(self.dir.join("frr.conf"), self.dir.join(format!("{daemon}.conf"))).unwrap();
        self.start(daemon);
    }

    /// Output of one vtysh command.
    pub fn show(&self, command: &str) -> String {
        let dir = self.dir.to_str().unwrap();
        in_ns(&self.ns, &["vtysh", "--vty_socket", dir, "--config_dir", dir, "-c", command])
    }

    /// Runs configuration lines.
    pub fn configure(&self, lines: &[&str]) {
        let dir = self.dir.to_str().unwrap();
        let mut args = vec!["vtysh", "--vty_socket", dir, "--config_dir", dir, "-c", "configure"];
        for line in lines {
            args.extend(["-c", line]);
        }
        in_ns(&self.ns, &args);
    }

    /// Waits until the output of `command` satisfies `done`; returns how long it took.
    pub fn wait(&self, command: &str, within: Duration, done: impl Fn(&str) -> bool) -> Duration {
        wait(command, within, || self.show(command), done)
    }
}

impl Drop for Frr {
    fn drop(&mut self) {
        self.daemons.iter().for_each(|file| end(file));
    }
}

/// A running BIRD.
pub struct Bird {
    ns: String,
    control: String,
    pid: String,
}

impl Bird {
    pub fn show(&self, command: &str) -> String {
        in_ns(&self.ns, &["birdc", "-s", &self.control, command])
    }

    pub fn wait(&self, command: &str, within: Duration, done: impl Fn(&str) -> bool) -> Duration {
        wait(command, within, || self.show(command), done)
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        end(&self.pid);
    }
}

/// Our process under test. `ip netns exec` replaces itself, so the child is the speaker.
pub struct Ours {
    child: Child,
    lines: Receiver<String>,
}

impl Ours {
    pub fn say(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// The next line that contains all of `words`; earlier lines are gone afterwards.
    pub fn hear(&self, words: &[&str], within: Duration) -> String {
        let deadline = Instant::now() + within;
        let mut heard = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no line with {words:?} within {within:?}; heard {heard:#?}");
            };
            if words.iter().all(|word| line.contains(word)) {
                return line;
            }
            heard.push(line);
        }
    }

    /// Everything said so far and not read.
    pub fn heard(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Closes standard input and waits for the end.
    pub fn finish(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command in a namespace; its standard output.
pub fn in_ns(ns: &str, args: &[&str]) -> String {
    run(&[&["ip", "netns", "exec", ns], args].concat())
}

/// Runs a command that must succeed; its standard output.
pub fn run(args: &[&str]) -> String {
    let Output { status, stdout, stderr } =
        Command::new(args[0]).args(&args[1..]).output().unwrap();
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{args:?}: {status}\n{stdout}{stderr}");
    stdout
}

fn wait(
    what: &str,
    within: Duration,
    look: impl Fn() -> String,
    done: impl Fn(&str) -> bool,
) -> Duration {
    let start = Instant::now();
    loop {
        let seen = look();
        if done(&seen) {
            return start.elapsed();
        }
        assert!(start.elapsed() < within, "{what}: not within {within:?}; last seen:\n{seen}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Ends the process named by a pid file of a daemon started here.
fn end(pid_file: &str) {
    signal_file(pid_file, Signal::SIGKILL);
}

fn signal_file(pid_file: &str, signal: Signal) {
    let pid = fs::read_to_string(pid_file).ok().and_then(|text| text.trim().parse().ok());
    if let Some(pid) = pid {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}
