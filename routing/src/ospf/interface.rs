//! The interface state machine (RFC 2328 §9.1–9.3) and the election of the designated router
//! (§9.4) as pure functions.

use super::config::NetworkKind;
use serde::{Deserialize, Serialize};

/// State of an interface (§9.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    Down,
    Loopback,
    Waiting,
    PointToPoint,
    DrOther,
    Backup,
    Dr,
}

/// What happens to an interface (§9.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    InterfaceUp,
    WaitTimer,
    BackupSeen,
    NeighborChange,
    LoopInd,
    UnloopInd,
    InterfaceDown,
}

/// What an event leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing happens.
    Stay,
    /// A new state.
    Go(State),
    /// The election decides between DR, Backup and DR Other.
    Elect,
    /// As `Go`, after all neighbours were killed and timers stopped.
    Reset(State),
}

/// The machine of §9.3.
pub fn next(state: State, event: Event, network: NetworkKind, priority: u8) -> Next {
    use State::{Backup, Down, Dr, DrOther, Loopback, PointToPoint, Waiting};
    match (state, event) {
        (_, Event::InterfaceDown) => Next::Reset(Down),
        (_, Event::LoopInd) => Next::Reset(Loopback),
        (Down, Event::InterfaceUp) => match network {
            NetworkKind::PointToPoint => Next::Go(PointToPoint),
            NetworkKind::Broadcast if priority == 0 => Next::Go(DrOther),
            NetworkKind::Broadcast => Next::Go(Waiting),
        },
        (Loopback, Event::UnloopInd) => Next::Go(Down),
        (Waiting, Event::BackupSeen | Event::WaitTimer)
        | (DrOther | Backup | Dr, Event::NeighborChange) => Next::Elect,
        _ => Next::Stay,
    }
}

/// A router on the network, as the election sees it: itself or a neighbour in state 2-Way or
/// beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    pub router_id: u32,
    /// How it is named as DR: interface address (OSPFv2) or router ID (OSPFv3).
    pub name: u32,
    pub priority: u8,
    /// Whom it declares to be DR and Backup; 0: nobody.
    pub designated: u32,
    pub backup: u32,
}

/// Elects DR and Backup (§9.4); 0: nobody. `own` carries what this router declared before.
pub fn elect(own: Candidate, neighbors: &[Candidate]) -> (u32, u32) {
    let (designated, backup) = round(own, neighbors);
    // Step 4: the calculating router may only claim one role, so a change of its own role is put
    // into the lists and the steps are run again.
    let changed = |old: u32, new: u32| (old == own.name) != (new == own.name);
    if changed(own.designated, designated) || changed(own.backup, backup) {
        return round(Candidate { designated, backup, ..own }, neighbors);
    }
    (designated, backup)
}

fn round(own: Candidate, neighbors: &[Candidate]) -> (u32, u32) {
    let eligible =
        || neighbors.iter().chain(std::iter::once(&own)).filter(|router| router.priority > 0);
    let best = |routers: &mut dyn Iterator<Item = &Candidate>| {
        routers.max_by_key(|router| (router.priority, router.router_id)).map(|router| router.name)
    };
    let not_designated = || eligible().filter(|router| router.designated != router.name);
    // Step 2.
    let backup = best(&mut not_designated().filter(|router| router.backup == router.name))
        .or_else(|| best(&mut not_designated()))
        .unwrap_or(0);
    // Step 3.
    let designated =
        best(&mut eligible().filter(|router| router.designated == router.name)).unwrap_or(backup);
    (designated, backup)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every (state, event) of §9.3, on a broadcast network with priority 1.
    #[test]
    fn transition_table_is_whole() {
        use Event::{
            BackupSeen, InterfaceDown, InterfaceUp, LoopInd, NeighborChange, UnloopInd, WaitTimer,
        };
        use Next::{Elect, Go, Reset, Stay};
        use State::{Backup, Down, Dr, DrOther, Loopback, PointToPoint, Waiting};
        let events =
            [InterfaceUp, WaitTimer, BackupSeen, NeighborChange, LoopInd, UnloopInd, InterfaceDown];
        let (looped, down) = (Reset(Loopback), Reset(Down));
        let table = [
            (Down, [Go(Waiting), Stay, Stay, Stay, looped, Stay, down]),
            (Loopback, [Stay, Stay, Stay, Stay, looped, Go(Down), down]),
            (Waiting, [Stay, Elect, Elect, Stay, looped, Stay, down]),
            (PointToPoint, [Stay, Stay, Stay, Stay, looped, Stay, down]),
            (DrOther, [Stay, Stay, Stay, Elect, looped, Stay, down]),
            (Backup, [Stay, Stay, Stay, Elect, looped, Stay, down]),
            (Dr, [Stay, Stay, Stay, Elect, looped, Stay, down]),
        ];
        for (state, row) in table {
            for (event, expected) in events.into_iter().zip(row) {
                let seen = next(state, event, NetworkKind::Broadcast, 1);
                assert_eq!(seen, expected, "{state:?} {event:?}");
            }
        }
        let up = |network, priority| next(Down, InterfaceUp, network, priority);
        assert_eq!(up(NetworkKind::PointToPoint, 1), Go(PointToPoint));
        assert_eq!(up(NetworkKind::Broadcast, 0), Go(DrOther));
    }

    fn router(id: u32, priority: u8, designated: u32, backup: u32) -> Candidate {
        Candidate { router_id: id, name: id, priority, designated, backup }
    }

    #[test]
    fn election_follows_section_9_4() {
        let cases = [
            ("alone", router(1, 1, 0, 0), vec![], (1, 0)),
            ("alone with priority 0", router(1, 0, 0, 0), vec![], (0, 0)),
            ("higher ID wins", router(2, 1, 0, 0), vec![router(1, 1, 0, 0)], (2, 1)),
            ("priority beats ID", router(1, 9, 0, 0), vec![router(2, 1, 0, 0)], (1, 2)),
            ("DR is not displaced", router(3, 9, 0, 0), vec![router(2, 1, 2, 0)], (2, 3)),
            (
                "Backup is promoted when the DR is gone",
                router(2, 1, 0, 2),
                vec![router(1, 1, 0, 0), router(3, 1, 0, 0)],
                (2, 3),
            ),
            (
                "priority 0 looks on",
                router(9, 0, 0, 0),
                vec![router(2, 1, 2, 0), router(3, 1, 0, 3)],
                (2, 3),
            ),
            ("two DRs: the better stays", router(1, 1, 1, 0), vec![router(2, 1, 2, 0)], (2, 1)),
        ];
        for (what, own, neighbors, expected) in cases {
            assert_eq!(elect(own, &neighbors), expected, "{what}");
        }
    }
}
