//! The neighbour state machine (RFC 2328 §10.1–10.3) as a pure function.
//!
//! Attempt and its Start event exist on NBMA networks only, which are not supported; the table
//! keeps them so that it can be compared with the RFC.

use serde::{Deserialize, Serialize};

/// State of a neighbour (§10.1), ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum State {
    Down,
    Attempt,
    Init,
    TwoWay,
    ExStart,
    Exchange,
    Loading,
    Full,
}

/// What happens to a neighbour (§10.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    HelloReceived,
    Start,
    TwoWayReceived,
    NegotiationDone,
    ExchangeDone,
    BadLsReq,
    LoadingDone,
    AdjOk,
    SeqNumberMismatch,
    OneWay,
    KillNbr,
    InactivityTimer,
    LlDown,
}

/// What the router does about it, besides changing the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Nothing,
    /// Restart the inactivity timer.
    RestartTimer,
    /// Send a first Hello (NBMA).
    Greet,
    /// Begin a database exchange: raise the DD sequence number, claim to be master, send an empty
    /// Database Description until answered.
    BeginExchange,
    /// List the database for the neighbour.
    ListDatabase,
    /// Clear the lists, then `BeginExchange`.
    RestartExchange,
    /// Clear the lists of the adjacency.
    ClearLists,
    /// Clear the lists and forget the neighbour.
    Forget,
}

/// What the machine needs to know of the circumstances.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// §10.4: point-to-point, or one of the two is DR or Backup.
    pub adjacency_wanted: bool,
    /// The request list is empty.
    pub nothing_to_request: bool,
}

/// The machine of §10.3: next state and action. Total: what the RFC does not list does nothing.
pub fn next(state: State, event: Event, context: Context) -> (State, Action) {
    use State::{Attempt, Down, ExStart, Exchange, Full, Init, Loading, TwoWay};
    match (state, event) {
        (_, Event::KillNbr | Event::LlDown | Event::InactivityTimer) => (Down, Action::Forget),
        (Down, Event::Start) => (Attempt, Action::Greet),
        (Down | Attempt, Event::HelloReceived) => (Init, Action::RestartTimer),
        (_, Event::HelloReceived) => (state, Action::RestartTimer),
        (Init, Event::TwoWayReceived) if context.adjacency_wanted => {
            (ExStart, Action::BeginExchange)
        }
        (Init, Event::TwoWayReceived) => (TwoWay, Action::Nothing),
        (ExStart, Event::NegotiationDone) => (Exchange, Action::ListDatabase),
        (Exchange, Event::ExchangeDone) if context.nothing_to_request => (Full, Action::Nothing),
        (Exchange, Event::ExchangeDone) => (Loading, Action::Nothing),
        (Loading, Event::LoadingDone) => (Full, Action::Nothing),
        (TwoWay, Event::AdjOk) if context.adjacency_wanted => (ExStart, Action::BeginExchange),
        (ExStart | Exchange | Loading | Full, Event::AdjOk) if !context.adjacency_wanted => {
            (TwoWay, Action::ClearLists)
        }
        (Exchange | Loading | Full, Event::SeqNumberMismatch | Event::BadLsReq) => {
            (ExStart, Action::RestartExchange)
        }
        (TwoWay | ExStart | Exchange | Loading | Full, Event::OneWay) => (Init, Action::ClearLists),
        _ => (state, Action::Nothing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every (state, event) of §10.3, with an adjacency wanted and something to request; then the
    /// rows that depend on these.
    #[test]
    fn transition_table_is_whole() {
        use Action::{
            BeginExchange, ClearLists, Forget, Greet, ListDatabase, Nothing, RestartExchange,
            RestartTimer,
        };
        use Event as E;
        use State::{Attempt, Down, ExStart, Exchange, Full, Init, Loading, TwoWay};
        let states = [Down, Attempt, Init, TwoWay, ExStart, Exchange, Loading, Full];
        let stay = || states.map(|state| (state, Nothing));
        // The row of an event: unchanged but for the cells given.
        let row = |cells: &[(State, State, Action)]| {
            let mut row = stay();
            for (from, to, action) in cells {
                row[*from as usize] = (*to, *action);
            }
            row
        };
        let restart = |event| {
            let cells = [Exchange, Loading, Full].map(|from| (from, ExStart, RestartExchange));
            (event, row(&cells))
        };
        let down = |event| (event, states.map(|_| (Down, Forget)));
        let table = [
            (
                E::HelloReceived,
                [
                    (Init, RestartTimer),
                    (Init, RestartTimer),
                    (Init, RestartTimer),
                    (TwoWay, RestartTimer),
                    (ExStart, RestartTimer),
                    (Exchange, RestartTimer),
                    (Loading, RestartTimer),
                    (Full, RestartTimer),
                ],
            ),
            (E::Start, row(&[(Down, Attempt, Greet)])),
            (E::TwoWayReceived, row(&[(Init, ExStart, BeginExchange)])),
            (E::NegotiationDone, row(&[(ExStart, Exchange, ListDatabase)])),
            (E::ExchangeDone, row(&[(Exchange, Loading, Nothing)])),
            restart(E::BadLsReq),
            (E::LoadingDone, row(&[(Loading, Full, Nothing)])),
            (E::AdjOk, row(&[(TwoWay, ExStart, BeginExchange)])),
            restart(E::SeqNumberMismatch),
            (
                E::OneWay,
                row(&[TwoWay, ExStart, Exchange, Loading, Full].map(|s| (s, Init, ClearLists))),
            ),
            down(E::KillNbr),
            down(E::InactivityTimer),
            down(E::LlDown),
        ];
        let context = Context { adjacency_wanted: true, nothing_to_request: false };
        for (event, row) in table {
            for (state, expected) in states.into_iter().zip(row) {
                assert_eq!(next(state, event, context), expected, "{state:?} {event:?}");
            }
        }
        let unwanted = Context { adjacency_wanted: false, ..context };
        assert_eq!(next(Init, E::TwoWayReceived, unwanted), (TwoWay, Nothing));
        assert_eq!(next(TwoWay, E::AdjOk, unwanted), (TwoWay, Nothing));
        for state in [ExStart, Exchange, Loading, Full] {
            assert_eq!(next(state, E::AdjOk, unwanted), (TwoWay, ClearLists));
        }
        let empty = Context { nothing_to_request: true, ..context };
        assert_eq!(next(Exchange, E::ExchangeDone, empty), (Full, Nothing));
    }
}
