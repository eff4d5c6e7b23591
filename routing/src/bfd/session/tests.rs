//! The transition table whole, and the timer rules one by one. Two sessions against each other are
//! in tests/bfd_simulation.rs.

use super::*;

const FAST: Timers = Timers { min_tx_us: 50_000, min_rx_us: 50_000, multiplier: 3 };

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn session(timers: Timers) -> Session {
    Session::new(11, timers, None, 1, Duration::ZERO)
}

/// A packet of a peer with 50 ms × 3, that has heard us.
fn from_peer(state: State) -> Control {
    Control {
        diagnostic: Diagnostic::None,
        state,
        poll: false,
        is_final: false,
        control_plane_independent: false,
        demand: false,
        detect_multiplier: 3,
        my_discriminator: 22,
        your_discriminator: 11,
        desired_min_tx_us: 50_000,
        required_min_rx_us: 50_000,
        required_min_echo_rx_us: 0,
    }
}

fn give(session: &mut Session, control: &Control, now: Instant) -> Result<(), Discard> {
    let bytes = control.encode(0);
    session.handle_packet(&Packet::parse(&bytes).unwrap(), now)
}

fn sent(session: &mut Session) -> Vec<Control> {
    std::iter::from_fn(|| session.poll_transmit())
        .map(|packet| Packet::parse(packet.bytes()).unwrap().control)
        .collect()
}

/// Up at 10 ms, its poll sequence answered at 20 ms, all output drained.
fn up(timers: Timers) -> Session {
    let mut session = session(timers);
    give(&mut session, &from_peer(State::Init), ms(10)).unwrap();
    assert_eq!(session.state(), State::Up);
    sent(&mut session);
    give(&mut session, &Control { is_final: true, ..from_peer(State::Up) }, ms(20)).unwrap();
    sent(&mut session);
    while session.poll_event().is_some() {}
    assert!(!session.is_polling());
    session
}

/// Every (state, input): RFC 5880 §6.8.6, §6.8.4, §6.8.16.
#[test]
fn transition_table_is_whole() {
    use Input::{AdminUp, DetectionTimeExpired, Received};
    use State::{AdminDown, Down, Init, Up};
    let failure = |cause| Some((Down, Diagnostic::NeighborSignaledDown, cause));
    let expired = Some((Down, Diagnostic::DetectionTimeExpired, Cause::DetectionTimeExpired));
    let to_up = Some((Up, Diagnostic::None, Cause::Handshake));
    let to_admin = Some((AdminDown, Diagnostic::AdministrativelyDown, Cause::LocalAdminDown));
    let table = [
        (AdminDown, Received(AdminDown), None),
        (AdminDown, Received(Down), None),
        (AdminDown, Received(Init), None),
        (AdminDown, Received(Up), None),
        (AdminDown, DetectionTimeExpired, None),
        (AdminDown, Input::AdminDown, None),
        (AdminDown, AdminUp, Some((Down, Diagnostic::None, Cause::LocalAdminUp))),
        (Down, Received(AdminDown), None),
        (Down, Received(Down), Some((Init, Diagnostic::None, Cause::Handshake))),
        (Down, Received(Init), to_up),
        (Down, Received(Up), None),
        (Down, DetectionTimeExpired, None),
        (Down, Input::AdminDown, to_admin),
        (Down, AdminUp, None),
        (Init, Received(AdminDown), failure(Cause::NeighborAdminDown)),
        (Init, Received(Down), None),
        (Init, Received(Init), to_up),
        (Init, Received(Up), to_up),
        (Init, DetectionTimeExpired, expired),
        (Init, Input::AdminDown, to_admin),
        (Init, AdminUp, None),
        (Up, Received(AdminDown), failure(Cause::NeighborAdminDown)),
        (Up, Received(Down), failure(Cause::NeighborDown)),
        (Up, Received(Init), None),
        (Up, Received(Up), None),
        (Up, DetectionTimeExpired, expired),
        (Up, Input::AdminDown, to_admin),
        (Up, AdminUp, None),
    ];
    let mut seen = std::collections::HashSet::new();
    for (state, input, next) in table {
        assert_eq!(transition(state, input), next, "{state:?} {input:?}");
        seen.insert(format!("{state:?} {input:?}"));
    }
    assert_eq!(seen.len(), 4 * 7, "a row is missing or doubled");
}

#[test]
fn only_up_to_down_without_admin_down_is_a_failure() {
    use State::{AdminDown, Down, Init, Up};
    let states = [AdminDown, Down, Init, Up];
    let inputs = states.map(Input::Received).into_iter().chain([
        Input::DetectionTimeExpired,
        Input::AdminDown,
        Input::AdminUp,
    ]);
    let mut failures = Vec::new();
    for input in inputs {
        for state in states {
            if let Some((new, _, cause)) = transition(state, input)
                && is_failure(state, new, cause, Diagnostic::None)
            {
                failures.push((state, input));
            }
        }
    }
    assert_eq!(failures, [(Up, Input::Received(Down)), (Up, Input::DetectionTimeExpired)]);
}

#[test]
fn is_slow_until_up_then_polls_for_the_configured_interval() {
    let mut session = session(FAST);
    assert_eq!(session.advertised_us(), (1_000_000, 50_000));
    give(&mut session, &from_peer(State::Down), ms(5)).unwrap();
    let packets = sent(&mut session);
    assert_eq!(packets[0].state, State::Init);
    assert_eq!((packets[0].desired_min_tx_us, packets[0].poll), (1_000_000, false));
    give(&mut session, &from_peer(State::Up), ms(10)).unwrap();
    let packets = sent(&mut session);
    assert_eq!(packets[0].state, State::Up);
    assert_eq!((packets[0].desired_min_tx_us, packets[0].poll), (50_000, true));
    assert_eq!(session.transmit_interval_us(), 50_000, "a shorter interval applies at once");
}

#[test]
fn every_poll_is_answered_at_once_and_never_with_a_poll() {
    let mut session = session(FAST);
    give(&mut session, &Control { poll: true, ..from_peer(State::Init) }, ms(10)).unwrap();
    let packets = sent(&mut session);
    assert!(packets[0].is_final && !packets[0].poll);
    assert!(packets[1].poll && !packets[1].is_final);
    assert_eq!(packets.len(), 2);
}

#[test]
fn longer_interval_waits_for_the_final() {
    let mut session = up(FAST);
    session.set_timers(Timers { min_tx_us: 300_000, ..FAST }, ms(30));
    let packets = sent(&mut session);
    assert!(packets[0].poll && packets[0].desired_min_tx_us == 300_000);
    assert_eq!(session.transmit_interval_us(), 50_000);
    give(&mut session, &Control { is_final: true, ..from_peer(State::Up) }, ms(40)).unwrap();
    assert_eq!(session.transmit_interval_us(), 300_000);
    assert_eq!(session.state(), State::Up);
    assert_eq!(session.poll_event(), None, "a change of timers is no flap");
}

#[test]
fn shorter_detection_waits_for_the_final() {
    let slow = Timers { min_rx_us: 300_000, ..FAST };
    let mut session = up(slow);
    assert_eq!(session.detection_time(), ms(900));
    session.set_timers(FAST, ms(30));
    assert_eq!(session.detection_time(), ms(900));
    give(&mut session, &Control { is_final: true, ..from_peer(State::Up) }, ms(40)).unwrap();
    assert_eq!(session.detection_time(), ms(150));
    assert_eq!(session.next_timeout().map(|at| at <= ms(190)), Some(true));
}

#[test]
fn second_change_waits_for_the_first_poll_sequence() {
    let mut session = up(FAST);
    session.set_timers(Timers { min_tx_us: 300_000, ..FAST }, ms(30));
    session.set_timers(Timers { min_tx_us: 400_000, ..FAST }, ms(31));
    assert_eq!(sent(&mut session)[0].desired_min_tx_us, 300_000);
    give(&mut session, &Control { is_final: true, ..from_peer(State::Up) }, ms(40)).unwrap();
    let packets = sent(&mut session);
    assert!(packets[0].poll && packets[0].desired_min_tx_us == 400_000);
    assert_eq!(session.transmit_interval_us(), 300_000);
}

#[test]
fn silence_is_detected_after_the_peers_multiplier_times_the_larger_interval() {
    // (our min rx ms, peer's desired tx ms, peer's multiplier, detection ms)
    for (min_rx, peer_tx, multiplier, detection) in
        [(50, 50, 3, 150), (300, 50, 3, 900), (50, 300, 2, 600), (10, 1000, 5, 5000)]
    {
        let mut session = up(Timers { min_rx_us: min_rx * 1000, ..FAST });
        let control = Control {
            desired_min_tx_us: peer_tx * 1000,
            detect_multiplier: multiplier,
            ..from_peer(State::Up)
        };
        give(&mut session, &control, ms(100)).unwrap();
        session.handle_timeout(ms(99 + detection));
        assert_eq!(session.state(), State::Up);
        session.handle_timeout(ms(100 + detection));
        assert_eq!(session.state(), State::Down);
        let event = session.poll_event().unwrap();
        assert!(event.is_failure());
        assert_eq!(event.diagnostic, Diagnostic::DetectionTimeExpired);
        let packet = sent(&mut session).pop().unwrap();
        assert_eq!((packet.your_discriminator, packet.desired_min_tx_us), (0, 1_000_000));
    }
}

#[test]
fn a_peer_that_begins_its_session_anew_is_no_failure_but_its_detection_is() {
    for (diagnostic, failure) in [
        (Diagnostic::NeighborSignaledDown, false),
        (Diagnostic::DetectionTimeExpired, true),
        (Diagnostic::PathDown, true),
        (Diagnostic::None, true),
    ] {
        let mut session = up(FAST);
        let control = Control { diagnostic, ..from_peer(State::Down) };
        give(&mut session, &control, ms(30)).unwrap();
        let event = session.poll_event().unwrap();
        assert_eq!((event.old, event.new), (State::Up, State::Down));
        assert_eq!(event.is_failure(), failure, "{diagnostic}");
    }
}

#[test]
fn admin_down_of_the_peer_is_no_failure_and_its_silence_afterwards_neither() {
    let mut session = up(FAST);
    give(&mut session, &from_peer(State::AdminDown), ms(30)).unwrap();
    let event = session.poll_event().unwrap();
    assert_eq!((event.old, event.new), (State::Up, State::Down));
    assert!(!event.is_failure());
    session.handle_timeout(ms(5000));
    assert_eq!(session.poll_event(), None);
    assert_eq!(session.counters().failures, 0);
}

#[test]
fn admin_down_is_told_again_until_the_peer_has_understood() {
    let mut session = up(FAST);
    session.set_admin_down(true, ms(30));
    let packet = sent(&mut session).pop().unwrap();
    assert_eq!(packet.state, State::AdminDown);
    assert_eq!(packet.diagnostic, Diagnostic::AdministrativelyDown);
    assert!(session.is_saying_farewell());
    let mut copies = 1;
    while session.is_saying_farewell() {
        let at = session.next_timeout().unwrap();
        assert!(at <= ms(30 + 150), "within the peer's detection time");
        session.handle_timeout(at);
        copies += sent(&mut session).len();
    }
    assert_eq!(copies, 3);
    assert!(session.next_timeout().unwrap() > ms(500), "then slow");

    let mut session = up(FAST);
    session.set_admin_down(true, ms(30));
    sent(&mut session);
    assert_eq!(give(&mut session, &from_peer(State::Down), ms(31)), Err(Discard::AdminDown));
    assert!(!session.is_saying_farewell());
    session.set_admin_down(false, ms(2000));
    assert_eq!(session.state(), State::Down);
}

#[test]
fn zero_required_min_rx_silences_periodic_packets_but_not_finals() {
    let mut session = up(FAST);
    let mut control = Control { required_min_rx_us: 0, ..from_peer(State::Up) };
    give(&mut session, &control, ms(30)).unwrap();
    session.handle_timeout(ms(100));
    assert_eq!(sent(&mut session), []);
    control.poll = true;
    give(&mut session, &control, ms(110)).unwrap();
    assert_eq!(sent(&mut session).len(), 1);
}

#[test]
fn demand_mode_of_the_peer_silences_us_while_both_are_up() {
    let mut session = up(FAST);
    give(&mut session, &Control { demand: true, ..from_peer(State::Up) }, ms(30)).unwrap();
    session.handle_timeout(ms(170));
    assert_eq!(sent(&mut session), []);
    session.set_timers(Timers { min_tx_us: 60_000, ..FAST }, ms(170));
    assert_eq!(sent(&mut session).len(), 1, "a poll sequence is sent all the same");
}

#[test]
fn jitter_is_within_the_limits_of_section_6_8_7() {
    for (multiplier, least, most) in [(3, 75, 100), (1, 75, 90)] {
        let mut session = up(Timers { multiplier, ..FAST });
        let (mut shortest, mut longest) = (u64::MAX, 0);
        let mut last = None;
        for _ in 0..2000 {
            let at = session.next_timeout().unwrap();
            session.handle_timeout(at);
            if !sent(&mut session).is_empty() {
                if let Some(last) = last {
                    let gap = at.saturating_sub(last).as_micros() as u64;
                    (shortest, longest) = (shortest.min(gap), longest.max(gap));
                }
                last = Some(at);
            }
            give(&mut session, &from_peer(State::Up), at).unwrap();
        }
        assert!(shortest >= 500 * least && shortest < 500 * (least + 1), "{shortest}");
        assert!(longest <= 500 * most && longest > 500 * (most - 1), "{longest}");
    }
}

#[test]
fn authentication_must_match_in_both_directions() {
    use super::super::auth::AuthType;
    let config = AuthConfig { kind: AuthType::KeyedSha1, key_id: 1, secret: b"k".to_vec() };
    let mut keyed = Session::new(11, FAST, Some(config.clone()), 1, Duration::ZERO);
    let refused = give(&mut keyed, &from_peer(State::Down), ms(1));
    assert_eq!(refused, Err(Discard::Auth(AuthError::Missing)));
    let mut peer = Session::new(22, FAST, Some(config), 2, Duration::ZERO);
    peer.handle_timeout(ms(1000));
    let packet = peer.poll_transmit().unwrap();
    let packet = Packet::parse(packet.bytes()).unwrap();
    assert_eq!(keyed.handle_packet(&packet, ms(1001)), Ok(()));
    let refused = session(FAST).handle_packet(&packet, ms(1001));
    assert_eq!(refused, Err(Discard::Auth(AuthError::Unexpected)));
    assert_eq!(keyed.counters().dropped_auth, 1);
}
