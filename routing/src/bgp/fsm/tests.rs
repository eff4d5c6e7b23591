//! The table whole: every pair of state and event.

use super::{Action, Event, State, transition};
use std::collections::BTreeMap;

/// `state event -> next: actions`. A pair that is not listed changes nothing.
const TABLE: &str = "
Idle Start -> Connect: StartConnectRetry Dial
Idle StartPassive -> Active:
Idle Accepted -> OpenSent: SendOpen

Connect Stop -> Idle: Close
Connect ConnectRetryExpires -> Connect: Close StartConnectRetry Dial
Connect Dialled -> OpenSent: SendOpen
Connect ConnectionFails -> Active: Close StartConnectRetry
Connect CollisionLost -> Idle: Close

Active Stop -> Idle: Close
Active ConnectRetryExpires -> Connect: StartConnectRetry Dial
Active Accepted -> OpenSent: SendOpen
Active CollisionLost -> Idle: Close

OpenSent Stop -> Idle: Notify Close
OpenSent HoldExpires -> Idle: Notify Close BackOff
OpenSent SendHoldExpires -> Idle: Notify Close BackOff
OpenSent ConnectionFails -> Active: Close StartConnectRetry
OpenSent OpenReceived -> OpenConfirm: Confirm
OpenSent Malformed -> Idle: Notify Close BackOff
OpenSent CollisionLost -> Idle: Notify Close
OpenSent NotificationReceived -> Idle: Close BackOff
OpenSent KeepaliveReceived -> Idle: Notify Close BackOff
OpenSent UpdateReceived -> Idle: Notify Close BackOff
OpenSent RefreshReceived -> Idle: Notify Close BackOff

OpenConfirm Stop -> Idle: Notify Close
OpenConfirm HoldExpires -> Idle: Notify Close BackOff
OpenConfirm KeepaliveExpires -> OpenConfirm: SendKeepalive
OpenConfirm SendHoldExpires -> Idle: Notify Close BackOff
OpenConfirm ConnectionFails -> Idle: Close BackOff
OpenConfirm OpenReceived -> Idle: Notify Close BackOff
OpenConfirm Malformed -> Idle: Notify Close BackOff
OpenConfirm CollisionLost -> Idle: Notify Close
OpenConfirm NotificationReceived -> Idle: Close BackOff
OpenConfirm KeepaliveReceived -> Established: RestartHold Up
OpenConfirm UpdateReceived -> Idle: Notify Close BackOff
OpenConfirm RefreshReceived -> Idle: Notify Close BackOff

Established Stop -> Idle: Down Notify Close
Established HoldExpires -> Idle: Down Notify Close BackOff
Established KeepaliveExpires -> Established: SendKeepalive
Established SendHoldExpires -> Idle: Down Notify Close BackOff
Established ConnectionFails -> Idle: Down Close BackOff
Established OpenReceived -> Idle: Down Notify Close BackOff
Established Malformed -> Idle: Down Notify Close BackOff
Established CollisionLost -> Idle: Down Notify Close
Established NotificationReceived -> Idle: Down Close BackOff
Established KeepaliveReceived -> Established: RestartHold
Established UpdateReceived -> Established: RestartHold Deliver
Established RefreshReceived -> Established: Deliver
Established BfdDown -> Idle: Down Notify Close BackOff
";

#[test]
fn every_state_and_event_is_as_the_table_says() {
    let table: BTreeMap<&str, &str> = TABLE.lines().filter_map(|l| l.split_once(" -> ")).collect();
    let mut listed = 0;
    for state in State::ALL {
        for event in Event::ALL {
            let pair = format!("{state:?} {event:?}");
            let got = transition(state, event);
            let expected = table.get(pair.as_str());
            listed += usize::from(expected.is_some());
            let expected = expected.map_or(format!("{state:?}:"), |e| (*e).to_owned());
            let actions: Vec<_> = got.actions.iter().map(|a| format!(" {a:?}")).collect();
            assert_eq!(format!("{:?}:{}", got.next, actions.concat()), expected, "{pair}");
        }
    }
    assert_eq!(listed, table.len(), "a line of the table names no state or event");
}

#[test]
fn what_is_opened_is_closed() {
    for state in State::ALL {
        for event in Event::ALL {
            let t = transition(state, event);
            let does = |action| t.actions.contains(&action);
            let pair = format!("{state:?} {event:?}");
            let up = t.next == State::Established && state != State::Established;
            let down = state == State::Established && t.next != State::Established;
            assert_eq!(does(Action::Up), up, "{pair}: up exactly on entering Established");
            assert_eq!(does(Action::Down), down, "{pair}: down exactly on leaving it");
            let had_connection = state >= State::OpenSent || state == State::Connect;
            let keeps = t.next >= State::OpenSent || t.next == State::Connect;
            if had_connection && !keeps {
                assert!(does(Action::Close), "{pair}: the connection is closed");
            }
            if does(Action::Notify) {
                assert!(state >= State::OpenSent, "{pair}: there is one to say it on");
                assert!(does(Action::Close), "{pair}: and nothing is said after it");
                assert_ne!(event, Event::NotificationReceived, "{pair}: never in reply to one");
            }
        }
    }
}
