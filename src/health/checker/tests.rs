//! The driver over paused time and probes that are scripts; one test over real sockets.

use super::*;
use crate::health::{CheckSpec, Probe};
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::time::{sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);

/// What the scripted probes do, and a record of what was asked of them.
#[derive(Debug, Clone, Default)]
struct Script {
    outcome: Arc<Mutex<HashMap<SocketAddr, Outcome>>>,
    duration: Duration,
    starts: Arc<Mutex<Vec<(SocketAddr, Instant)>>>,
    running: Arc<AtomicUsize>,
    most_running: Arc<AtomicUsize>,
}

/// Counts a probe as running, until it ends or is aborted.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Script {
    fn lasting(duration: Duration) -> Self {
        Self { duration, ..Self::default() }
    }

    fn set(&self, target: &Target, outcome: Outcome) {
        self.outcome.lock().unwrap().insert(target.address, outcome);
    }

    /// Without an outcome set, probes pass.
    async fn run(self, target: Arc<Target>) -> Outcome {
        self.starts.lock().unwrap().push((target.address, Instant::now()));
        let running = self.running.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_running.fetch_max(running, Ordering::Relaxed);
        let _running = Running(Arc::clone(&self.running));
        sleep(self.duration).await;
        let outcome = self.outcome.lock().unwrap().get(&target.address).cloned();
        let outcome = outcome.unwrap_or_else(pass);
        assert_ne!(outcome, fail("panic"), "as the script says");
        outcome
    }

    fn starts(&self) -> Vec<Instant> {
        self.starts.lock().unwrap().iter().map(|(_, at)| *at).collect()
    }

    fn spawn(&self, room: usize, most: usize) -> (CheckerHandle, mpsc::Receiver<HealthEvent>) {
        let (sender, receiver) = mpsc::channel(room);
        let script = self.clone();
        let handle = Checker::spawn_with(sender, most, move |target| script.clone().run(target));
        (handle, receiver)
    }
}

fn pass() -> Outcome {
    Outcome::Passed("fine".to_owned())
}

fn fail(reason: &str) -> Outcome {
    Outcome::Failed(reason.to_owned())
}

fn target(number: u32) -> Target {
    let address = SocketAddr::new(std::net::Ipv4Addr::from(0x0a00_0000 + number).into(), 80);
    let check = CheckSpec {
        probe: Probe::Tcp,
        interval: SECOND,
        timeout: SECOND / 2,
        rise: 2,
        fall: 2,
        port: None,
    };
    Target { address, check, source: None }
}

fn state(handle: &CheckerHandle) -> State {
    let status = handle.status();
    assert_eq!(status.len(), 1);
    status[0].state
}

#[tokio::test(start_paused = true)]
async fn probes_keep_their_schedule_and_do_not_drift() {
    let script = Script::lasting(SECOND * 3 / 10);
    let (handle, mut events) = script.spawn(16, 16);
    handle.set_targets([target(1)]);
    sleep(SECOND * 21 / 2).await;
    let starts = script.starts();
    assert_eq!(starts.len(), 11);
    for pair in starts.windows(2) {
        // Timers of tokio are exact to a millisecond.
        let gap = pair[1] - pair[0];
        assert!(gap.abs_diff(SECOND) <= Duration::from_millis(1), "{gap:?}");
    }
    assert!((starts[10] - starts[0]).abs_diff(SECOND * 10) <= Duration::from_millis(2));
    let event = events.recv().await.unwrap();
    assert_eq!((event.target, event.healthy, &*event.reason), (target(1), true, "fine"));
    assert!(events.try_recv().is_err(), "told once");
    let status = &handle.status()[0];
    assert_eq!((status.passed, status.failed, status.state), (11, 0, State::Healthy));
    assert_eq!(status.latency.map(|latency| latency.as_millis()), Some(300));
}

#[tokio::test(start_paused = true)]
async fn a_target_has_one_probe_in_flight_even_if_it_takes_longer_than_the_interval() {
    let script = Script::lasting(SECOND * 5 / 2);
    let (handle, _events) = script.spawn(16, 16);
    handle.set_targets([target(1)]);
    sleep(SECOND * 11).await;
    assert_eq!(script.most_running.load(Ordering::Relaxed), 1);
    assert_eq!(script.starts().len(), 5, "back to back, no burst");
}

#[tokio::test(start_paused = true)]
async fn the_state_turns_by_rise_and_fall() {
    let script = Script::default();
    let (handle, mut events) = script.spawn(16, 16);
    let target = target(1);
    script.set(&target, fail("connection refused"));
    handle.set_targets([target.clone()]);
    let event = events.recv().await.unwrap();
    assert_eq!((event.healthy, &*event.reason), (false, "connection refused"));
    script.set(&target, pass());
    let turned = Instant::now();
    assert!(events.recv().await.unwrap().healthy);
    assert_eq!(turned.elapsed().as_millis() / 10, 200, "rise of 2 takes 2 intervals");
    script.set(&target, fail("status 503"));
    assert!(!events.recv().await.unwrap().healthy);
    assert_eq!(handle.status()[0].reason, "status 503");
}

#[tokio::test(start_paused = true)]
async fn targets_that_stay_keep_state_and_schedule_and_those_removed_stop() {
    let script = Script::lasting(SECOND / 5);
    let (handle, mut events) = script.spawn(16, 16);
    handle.set_targets([target(1)]);
    assert!(events.recv().await.unwrap().healthy);
    let before = script.starts();

    handle.set_targets([target(1), target(2)]);
    assert_eq!(events.recv().await.unwrap().target, target(2), "nothing about the first");
    let starts = script.starts.lock().unwrap().clone();
    let of_first = starts.iter().filter(|(address, _)| *address == target(1).address);
    let next = of_first.map(|(_, at)| *at).nth(before.len()).unwrap();
    assert!((next - before[before.len() - 1]).abs_diff(SECOND) <= Duration::from_millis(1));

    // In the middle of a probe: it is aborted, and nothing of the target remains.
    while script.running.load(Ordering::Relaxed) == 0 {
        sleep(Duration::from_millis(10)).await;
    }
    handle.set_targets([]);
    sleep(Duration::from_millis(10)).await;
    assert_eq!(script.running.load(Ordering::Relaxed), 0);
    assert!(handle.status().is_empty());
    let count = script.starts().len();
    sleep(SECOND * 5).await;
    assert_eq!(script.starts().len(), count);
}

#[tokio::test(start_paused = true)]
async fn a_changed_check_takes_over_the_state_of_its_address() {
    let script = Script::default();
    let (handle, mut events) = script.spawn(16, 16);
    handle.set_targets([target(1)]);
    assert!(events.recv().await.unwrap().healthy);

    let mut changed = target(1);
    changed.check.interval = SECOND * 2;
    let probes = script.starts().len();
    handle.set_targets([changed.clone()]);
    let event = events.recv().await.unwrap();
    assert_eq!((event.target, event.healthy), (changed.clone(), true));
    assert_eq!(script.starts().len(), probes, "told before it was probed");

    // It still takes `fall` failures to turn.
    script.set(&changed, fail("gone"));
    sleep(SECOND).await;
    assert_eq!(state(&handle), State::Healthy);
    assert!(!events.recv().await.unwrap().healthy);

    // Another address begins unknown.
    handle.set_targets([target(2)]);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(state(&handle), State::Unknown);
}

#[tokio::test(start_paused = true)]
async fn states_that_disagree_are_not_taken_over() {
    let script = Script::default();
    let (handle, mut events) = script.spawn(16, 16);
    let (mut slow, mut changed) = (target(1), target(1));
    slow.check.rise = 100;
    changed.check.fall = 1;
    handle.set_targets([target(1), slow]);
    assert!(events.recv().await.unwrap().healthy);
    handle.set_targets([changed]);
    while handle.status().len() != 1 {
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(state(&handle), State::Unknown);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_targets_do_not_fire_together_and_a_few_do_not_wait() {
    let script = Script::default();
    let (handle, _events) = script.spawn(16, 100_000);
    let start = Instant::now();
    handle.set_targets((0..10_000).map(target));
    sleep(SECOND + Duration::from_millis(2)).await;
    let mut slots = [0; 10];
    let mut seen = HashSet::new();
    for (address, at) in script.starts.lock().unwrap().iter() {
        if seen.insert(*address) {
            slots[((*at - start).as_millis() / 100).min(9) as usize] += 1;
        }
    }
    assert_eq!(seen.len(), 10_000);
    // 1 000 ± 30 each is what uniform spread gives; 6 standard deviations.
    assert!(slots.iter().all(|count| (800..1200).contains(count)), "{slots:?}");

    let script = Script::default();
    let (handle, _events) = script.spawn(16, 16);
    handle.set_targets((0..5).map(target));
    sleep(Duration::from_millis(7)).await;
    assert_eq!(script.starts().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn probes_in_flight_are_bounded_and_all_get_their_turn() {
    let script = Script::lasting(SECOND / 10);
    let (handle, _events) = script.spawn(16, 4);
    handle.set_targets((0..100).map(target));
    sleep(SECOND * 6).await;
    assert_eq!(script.most_running.load(Ordering::Relaxed), 4);
    let status = handle.status();
    assert_eq!(status.len(), 100);
    assert!(status.iter().all(|status| status.passed >= 2), "nobody starves");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_sleeps_stops_no_check_and_reads_the_newest_state() {
    let script = Script::default();
    let (handle, mut events) = script.spawn(1, 16);
    let targets = [target(1), target(2), target(3)];
    handle.set_targets(targets.clone());
    sleep(SECOND * 3).await;
    for target in &targets {
        script.set(target, fail("down"));
    }
    sleep(SECOND * 3).await;
    assert!(handle.status().iter().all(|status| status.state == State::Unhealthy));
    // One event was in the channel and one place was reserved; the others were never told that
    // they were healthy, so they are told only what is true now.
    let mut last = HashMap::new();
    let mut count = 0;
    while let Ok(Some(event)) = timeout(SECOND / 10, events.recv()).await {
        last.insert(event.target.address, event.healthy);
        count += 1;
    }
    assert_eq!(last.len(), 3);
    assert!(last.values().all(|healthy| !healthy));
    assert_eq!(count, 4, "healthy once for the first, unhealthy for each");
}

#[tokio::test(start_paused = true)]
async fn what_this_node_cannot_probe_counts_for_nothing() {
    let script = Script::default();
    let (handle, mut events) = script.spawn(16, 16);
    let target = target(1);
    handle.set_targets([target.clone()]);
    assert!(events.recv().await.unwrap().healthy);
    let passed = handle.status()[0].passed;
    for outcome in [Outcome::Inconclusive("no descriptors".to_owned()), fail("panic")] {
        script.set(&target, outcome);
        sleep(SECOND * 10).await;
        let status = &handle.status()[0];
        assert_eq!((status.state, status.passed, status.failed), (State::Healthy, passed, 0));
    }
    script.set(&target, fail("down"));
    assert!(!events.recv().await.unwrap().healthy, "checks go on");
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_its_handles_or_its_reader() {
    for drop_handle in [true, false] {
        let script = Script::lasting(SECOND / 10);
        let (handle, events) = script.spawn(16, 16);
        handle.set_targets([target(1)]);
        sleep(SECOND * 2).await;
        let kept = if drop_handle {
            drop(handle);
            (None, Some(events))
        } else {
            drop(events);
            (Some(handle), None)
        };
        sleep(Duration::from_millis(1)).await;
        let count = script.starts().len();
        sleep(SECOND * 5).await;
        assert_eq!(script.starts().len(), count);
        drop(kept);
    }
}

#[tokio::test]
async fn a_refused_connection_turns_the_state_within_one_interval() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut target = target(1);
    target.address = listener.local_addr().unwrap();
    target.check.fall = 1;
    target.check.rise = 1;
    let (sender, mut events) = mpsc::channel(16);
    let handle = Checker::spawn(sender);
    handle.set_targets([target]);
    assert!(events.recv().await.unwrap().healthy);
    drop(listener);
    let closed = Instant::now();
    let event = events.recv().await.unwrap();
    assert_eq!((event.healthy, &*event.reason), (false, "connection refused"));
    // The slack is for a busy machine; two intervals would be too late.
    assert!(closed.elapsed() < SECOND * 19 / 10, "{:?}", closed.elapsed());
}
