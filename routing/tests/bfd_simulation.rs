//! Two BFD sessions over a virtual clock and a link that loses, delays, reorders and doubles
//! packets: thousands of seeded runs. A failing run prints its seed; `DUNLIN_SEED=n` replays it
//! alone, `DUNLIN_RUNS=n` runs more seeds.

use routing::bfd::auth::{AuthConfig, AuthType};
use routing::bfd::packet::{Packet, State};
use routing::bfd::session::{Cause, Event, Session, Timers};
use std::collections::BTreeMap;
use std::time::Duration;

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Clone, Copy, Debug)]
struct Link {
    loss_percent: u64,
    double_percent: u64,
    min_delay: Duration,
    /// Added uniformly.
    jitter: Duration,
    /// Packets may overtake each other. A peer's old Down that arrives after its Up takes the
    /// session down, by the letter of §6.8.6, so a link that does this is not a good one.
    reorders: bool,
    cut: bool,
}

impl Link {
    fn good(delay_us: u64, jitter_us: u64) -> Self {
        Self {
            loss_percent: 0,
            double_percent: 0,
            min_delay: Duration::from_micros(delay_us),
            jitter: Duration::from_micros(jitter_us),
            reorders: false,
            cut: false,
        }
    }
}

struct World {
    now: Duration,
    sides: [Session; 2],
    link: Link,
    /// In flight, by arrival and a running number: (to, bytes).
    flying: BTreeMap<(Duration, u64), (usize, Vec<u8>)>,
    sent: u64,
    /// The last arrival planned, by destination.
    last_arrival: [Duration; 2],
    rng: Rng,
    events: Vec<(usize, Event)>,
}

impl World {
    fn new(seed: u64, link: Link, timers: [Timers; 2], auth: Option<AuthConfig>) -> Self {
        let mut rng = Rng(seed);
        let mut side = |n: usize| {
            Session::new(n as u32 + 1, timers[n], auth.clone(), rng.next(), Duration::ZERO)
        };
        let sides = [side(0), side(1)];
        Self {
            now: Duration::ZERO,
            sides,
            link,
            flying: BTreeMap::new(),
            sent: 0,
            last_arrival: [Duration::ZERO; 2],
            rng,
            events: Vec::new(),
        }
    }

    fn drain(&mut self) {
        for from in 0..2 {
            while let Some(packet) = self.sides[from].poll_transmit() {
                if self.link.cut {
                    continue;
                }
                let copies = 1 + u64::from(self.rng.chance(self.link.double_percent));
                for _ in 0..copies {
                    if self.rng.chance(self.link.loss_percent) {
                        continue;
                    }
                    let jitter = self.rng.below(self.link.jitter.as_nanos() as u64 + 1);
                    let mut at = self.now + self.link.min_delay + Duration::from_nanos(jitter);
                    let last = &mut self.last_arrival[1 - from];
                    if !self.link.reorders {
                        at = at.max(*last);
                    }
                    *last = at.max(*last);
                    self.sent += 1;
                    self.flying.insert((at, self.sent), (1 - from, packet.bytes().to_vec()));
                }
            }
            while let Some(event) = self.sides[from].poll_event() {
                self.events.push((from, event));
            }
        }
    }

    /// Lets the world run until `end`.
    fn run(&mut self, end: Duration) {
        loop {
            let arrival = self.flying.keys().next().map(|(at, _)| *at);
            let timers = self.sides.iter().filter_map(Session::next_timeout).min();
            let Some(next) = arrival.into_iter().chain(timers).min() else {
                break;
            };
            // A timer may be overdue only because nothing ran it yet.
            let next = next.max(self.now);
            if next > end {
                break;
            }
            self.now = next;
            if arrival.is_some_and(|at| at <= next) {
                let (_, (to, bytes)) = self.flying.pop_first().expect("just seen");
                let packet = Packet::parse(&bytes).expect("our own packet");
                // A refusal (old sequence number, AdminDown) is part of the play.
                let _ = self.sides[to].handle_packet(&packet, next);
            } else {
                for side in &mut self.sides {
                    side.handle_timeout(next);
                }
            }
            self.drain();
        }
        self.now = end;
    }

    fn states(&self) -> [State; 2] {
        [self.sides[0].state(), self.sides[1].state()]
    }

    fn failures(&self) -> Vec<&(usize, Event)> {
        self.events.iter().filter(|(_, event)| event.is_failure()).collect()
    }
}

fn timers(rng: &mut Rng) -> Timers {
    let interval = |rng: &mut Rng| [10_000, 50_000, 100_000, 300_000][rng.below(4) as usize];
    Timers {
        min_tx_us: interval(rng),
        min_rx_us: interval(rng),
        multiplier: 2 + rng.below(4) as u8,
    }
}

fn auth(rng: &mut Rng) -> Option<AuthConfig> {
    let kind = match rng.below(3) {
        0 => return None,
        1 => AuthType::KeyedSha1,
        _ => AuthType::MeticulousKeyedSha1,
    };
    Some(AuthConfig { kind, key_id: 1, secret: b"a tern is no gull".to_vec() })
}

/// Runs `play` for every seed, or for the one in `DUNLIN_SEED`.
fn seeds(count: u64, play: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let count = number("DUNLIN_RUNS").unwrap_or(count);
    let range = number("DUNLIN_SEED").map_or(0..count, |seed| seed..seed + 1);
    for seed in range {
        let outcome = std::panic::catch_unwind(|| play(seed));
        assert!(outcome.is_ok(), "failed with DUNLIN_SEED={seed}");
    }
}

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn good_link_comes_up_stays_up_and_a_cut_is_noticed_in_time() {
    seeds(2000, |seed| {
        let mut rng = Rng(seed ^ 0xA5A5);
        let pair = [timers(&mut rng), timers(&mut rng)];
        let auth = auth(&mut rng);
        // At most 4 ms late where the shortest detection time is 20 ms and packets go every 10 ms.
        let mut link = Link::good(rng.below(2000), rng.below(2000));
        link.double_percent = rng.below(20);
        let mut world = World::new(seed, link, pair, auth);
        world.run(5 * SECOND);
        assert_eq!(world.states(), [State::Up; 2]);
        for side in &world.sides {
            assert!(!side.is_polling(), "poll sequence answered");
            assert_eq!(side.advertised_us(), (side.timers().min_tx_us, side.timers().min_rx_us));
        }
        for n in 0..2 {
            let expected = pair[n].min_tx_us.max(pair[1 - n].min_rx_us);
            assert_eq!(world.sides[n].transmit_interval_us(), expected);
            let silence = u64::from(expected) * u64::from(pair[n].multiplier);
            assert_eq!(world.sides[1 - n].detection_time(), Duration::from_micros(silence));
        }
        world.run(20 * SECOND);
        assert_eq!(world.failures(), Vec::<&(usize, Event)>::new(), "false Down");
        world.link.cut = true;
        let cut_at = world.now;
        let detection = [0, 1].map(|n| world.sides[n].detection_time());
        let flight = link.min_delay + link.jitter;
        world.run(cut_at + detection[0].max(detection[1]) + flight + MS);
        for n in 0..2 {
            let down = world.sides[n].last_down().expect("noticed");
            assert_eq!(down.cause, Cause::DetectionTimeExpired);
            assert!(down.at <= cut_at + detection[n] + flight, "side {n} late");
            // The last packet left at most one interval before the cut.
            let interval = detection[n] / u32::from(pair[1 - n].multiplier);
            assert!(down.at + interval >= cut_at + detection[n], "side {n} early");
        }
        world.link.cut = false;
        world.run(world.now + 10 * SECOND);
        assert_eq!(world.states(), [State::Up; 2], "back after the repair");
    });
}

#[test]
fn lossy_reordering_link_ends_up_once_it_is_good_again() {
    seeds(2000, |seed| {
        let mut rng = Rng(seed ^ 0x5A5A);
        let pair = [timers(&mut rng), timers(&mut rng)];
        let auth = auth(&mut rng);
        let mut link = Link::good(rng.below(50_000), rng.below(400_000));
        link.loss_percent = rng.below(70);
        link.double_percent = rng.below(30);
        link.reorders = true;
        let mut world = World::new(seed, link, pair, auth);
        for _ in 0..20 {
            // The operator changes things in the middle of it.
            world.run(world.now + Duration::from_millis(rng.below(3000)));
            let now = world.now;
            let side = &mut world.sides[rng.below(2) as usize];
            match rng.below(4) {
                0 => side.set_timers(timers(&mut rng), now),
                1 => side.set_admin_down(true, now),
                2 => side.set_admin_down(false, now),
                _ => {}
            }
            world.drain();
        }
        world.link = Link::good(1000, 0);
        let now = world.now;
        for side in &mut world.sides {
            side.set_admin_down(false, now);
        }
        world.drain();
        // The longest detection time (5 × 1 s) and twice that for the peer's sequence number to be
        // forgotten, with the slow start.
        world.run(now + 25 * SECOND);
        assert_eq!(world.states(), [State::Up; 2]);
        let before = world.failures().len();
        world.run(world.now + 10 * SECOND);
        assert_eq!(world.failures().len(), before, "false Down on a good link");
        for n in 0..2 {
            let [ours, theirs] = [n, 1 - n].map(|n| world.sides[n].timers());
            let expected = ours.min_tx_us.max(theirs.min_rx_us);
            assert_eq!(world.sides[n].transmit_interval_us(), expected);
        }
    });
}

#[test]
fn change_of_timers_while_up_never_flaps() {
    seeds(2000, |seed| {
        let mut rng = Rng(seed ^ 0x1234);
        let link = Link::good(rng.below(1500), rng.below(1500));
        let pair = [timers(&mut rng), timers(&mut rng)];
        let mut world = World::new(seed, link, pair, None);
        world.run(5 * SECOND);
        for _ in 0..20 {
            world.run(world.now + Duration::from_micros(rng.below(1_000_000)));
            let now = world.now;
            // The multiplier takes effect at once and without a poll (§6.8.3 covers intervals
            // only), so it is left alone here.
            let side = rng.below(2) as usize;
            let multiplier = world.sides[side].timers().multiplier;
            let wanted = Timers { multiplier, ..timers(&mut rng) };
            world.sides[side].set_timers(wanted, now);
            world.drain();
        }
        world.run(world.now + 5 * SECOND);
        assert_eq!(world.failures(), Vec::<&(usize, Event)>::new());
        assert_eq!(world.states(), [State::Up; 2]);
    });
}

#[test]
fn orderly_stop_is_never_read_as_a_failure_even_if_a_packet_is_lost() {
    seeds(2000, |seed| {
        let mut rng = Rng(seed ^ 0x4321);
        let pair = [timers(&mut rng), timers(&mut rng)];
        let mut world = World::new(seed, Link::good(1000, 0), pair, auth(&mut rng));
        world.run(5 * SECOND);
        world.run(world.now + Duration::from_micros(rng.below(400_000)));
        world.link.cut = seed.is_multiple_of(2);
        let now = world.now;
        world.sides[0].set_admin_down(true, now);
        world.drain();
        world.link.cut = false;
        // Until the stopping side has nothing more to say: then its process may end.
        while world.sides[0].is_saying_farewell() {
            world.run(world.now + MS);
        }
        world.link.cut = true;
        world.run(world.now + 10 * SECOND);
        assert_eq!(world.failures(), Vec::<&(usize, Event)>::new());
        assert_eq!(world.sides[1].last_down().map(|e| e.cause), Some(Cause::NeighborAdminDown));
    });
}
