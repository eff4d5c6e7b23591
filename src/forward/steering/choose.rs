//! Which way of steering to use, from what the ports offer and the operator wishes.
//!
//! Pure: who asks the devices is `node`. Every way is right on every port, so a wish that cannot
//! be met costs speed, never service: the best that can be had is used, and every port says why.

use super::layout::{MOST_FUNCTIONS, Plan};
use super::rss::{Hashed, RssFunction, RssOffer, TRANSPORTS};
use super::{Replies, Requests, Steering};
use crate::packet::Transport;
use std::fmt::Write as _;
use std::sync::Arc;

/// What the operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wish {
    /// What most ports can do; of equals, flow rules.
    #[default]
    Auto,
    FlowRules,
    Rss,
    Software,
}

/// What a port can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortOffer {
    pub name: String,
    /// Receive queues; queue `n` is polled by worker `n`.
    pub queues: u16,
    /// It spreads packets over its queues by a hash over addresses and ports, known or not.
    pub spreads: bool,
    /// How; or why that is not known.
    pub rss: Result<RssOffer, String>,
    /// Rules that lead a LIP to a queue were made and removed again; or why not.
    pub flow_rules: Result<(), String>,
}

/// How replies that arrive on a port reach their worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// There is one worker.
    Single,
    FlowRules,
    Rss,
    Software,
}

/// The way in use on one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortSteering {
    pub mode: Mode,
    /// Why, for the operator.
    pub reason: String,
}

/// What was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub steering: Steering,
    /// In the order of the offers.
    pub ports: Vec<PortSteering>,
    /// The wish could not be met on every port.
    pub disappointed: bool,
}

/// Choose. `lips`: how many local addresses there are, IPv4 and IPv6.
pub fn choose(wish: Wish, offers: &[PortOffer], workers: u16, lips: [usize; 2]) -> Choice {
    if workers <= 1 {
        let single = PortSteering { mode: Mode::Single, reason: "there is one worker".to_owned() };
        let ports = vec![single; offers.len()];
        return Choice { steering: Steering::default(), ports, disappointed: false };
    }
    let functions = Functions::of(offers, workers);
    let rules = rules(offers, workers, lips);
    let ruled = rules.iter().filter(|rule| rule.is_ok()).count();
    let hashed = functions.of_port.iter().filter(|port| port.is_ok()).count();
    let mode = match wish {
        Wish::FlowRules | Wish::Auto if ruled > 0 && (wish != Wish::Auto || ruled >= hashed) => {
            Mode::FlowRules
        }
        Wish::Rss | Wish::Auto | Wish::FlowRules if hashed > 0 => Mode::Rss,
        Wish::Rss if ruled > 0 => Mode::FlowRules,
        _ => Mode::Software,
    };
    let (replies, ports) = match mode {
        Mode::FlowRules => (Replies::FlowRules, with_rules(&rules)),
        Mode::Rss => with_rss(wish, &functions, &rules, workers),
        Mode::Single | Mode::Software => (Replies::Software, in_software(wish, &functions, &rules)),
    };
    let requests = functions.requests(offers);
    let steered = |(port, steering): (usize, &PortSteering)| match &replies {
        Replies::Software => [false; 4],
        Replies::FlowRules => [steering.mode == Mode::FlowRules; 4],
        Replies::Rss(plan) => TRANSPORTS.map(|transport| plan.steers(port, transport)),
    };
    let steered = ports.iter().enumerate().map(steered).collect();
    let wanted = match wish {
        Wish::Auto => None,
        Wish::FlowRules => Some(Mode::FlowRules),
        Wish::Rss => Some(Mode::Rss),
        Wish::Software => Some(Mode::Software),
    };
    let disappointed = wanted.is_some_and(|mode| ports.iter().any(|port| port.mode != mode));
    Choice { steering: Steering { requests, replies, steered }, ports, disappointed }
}

/// The hashes that the ports have, each once.
struct Functions {
    all: Vec<RssFunction>,
    /// By port: which one, or why none is known.
    of_port: Vec<Result<u8, String>>,
}

impl Functions {
    fn of(offers: &[PortOffer], workers: u16) -> Self {
        let mut all: Vec<RssFunction> = Vec::new();
        let mut of_port = Vec::new();
        for offer in offers {
            let function = offer
                .rss
                .as_ref()
                .map_err(Clone::clone)
                .and_then(|rss| RssFunction::new(rss, offer.queues, workers));
            of_port.push(function.and_then(|function| {
                if let Some(known) = all.iter().position(|other| *other == function) {
                    return Ok(known as u8);
                }
                if all.len() == MOST_FUNCTIONS {
                    return Err(format!("{MOST_FUNCTIONS} other ports hash differently already"));
                }
                all.push(function);
                Ok(all.len() as u8 - 1)
            }));
        }
        Self { all, of_port }
    }

    /// Where a hash is known, requests are owned by that of the first such port; a port with
    /// another hash, or with none, has them handed over.
    fn requests(&self, offers: &[PortOffer]) -> Requests {
        let reference = self.all.first().cloned().map(Arc::new);
        let receiver = offers
            .iter()
            .zip(&self.of_port)
            .map(|(offer, function)| match reference {
                Some(_) => *function == Ok(0),
                None => offer.spreads,
            })
            .collect();
        Requests { receiver, reference }
    }
}

/// By port: whether flow rules can be used.
fn rules(offers: &[PortOffer], workers: u16, lips: [usize; 2]) -> Vec<Result<(), String>> {
    let too_few = lips.into_iter().zip(["IPv4", "IPv6"]).find_map(|(count, family)| {
        (1..usize::from(workers)).contains(&count).then(|| {
            format!(
                "flow rules need a local address for each of {workers} workers, \
                 and there are only {count} of {family}"
            )
        })
    });
    let rules = |offer: &PortOffer| {
        offer.flow_rules.clone().map_err(|error| format!("no flow rules: {error}"))?;
        match &too_few {
            Some(reason) => Err(reason.clone()),
            None if offer.queues < workers => Err(format!(
                "flow rules need a queue for each of {workers} workers, and it has {}",
                offer.queues
            )),
            None => Ok(()),
        }
    };
    offers.iter().map(rules).collect()
}

fn with_rules(rules: &[Result<(), String>]) -> Vec<PortSteering> {
    let port = |rule: &Result<(), String>| match rule {
        Ok(()) => PortSteering {
            mode: Mode::FlowRules,
            reason: "the NIC took a rule for every local address".to_owned(),
        },
        Err(why) => PortSteering { mode: Mode::Software, reason: why.clone() },
    };
    rules.iter().map(port).collect()
}

fn with_rss(
    wish: Wish,
    functions: &Functions,
    rules: &[Result<(), String>],
    workers: u16,
) -> (Replies, Vec<PortSteering>) {
    let of_port = functions.of_port.iter().map(|f| f.as_ref().ok().copied()).collect();
    let plan = Plan::new(functions.all.clone(), of_port, workers);
    let ports = (0..)
        .zip(&functions.of_port)
        .zip(rules)
        .map(|((port, function), rule)| {
            let mut reason = match function {
                Ok(number) => format!(
                    "the reply's hash is known in advance, {} entries lead to {workers} workers",
                    1u32 << functions.all[usize::from(*number)].bits()
                ),
                Err(why) => why.clone(),
            };
            let left: Vec<&str> = TRANSPORTS
                .into_iter()
                .filter(|&transport| !plan.steers(port, transport))
                .map(name)
                .collect();
            let mode = if left.len() == TRANSPORTS.len() { Mode::Software } else { Mode::Rss };
            if let Ok(number) = function {
                let function = &functions.all[usize::from(*number)];
                let coarse = |t: &Transport| function.hashed(*t) == Hashed::Addresses;
                let coarse: Vec<&str> = TRANSPORTS.into_iter().filter(coarse).map(name).collect();
                if !left.is_empty() {
                    let _ = write!(reason, "; in software: {}", left.join(", "));
                }
                if !coarse.is_empty() {
                    let _ = write!(reason, "; by addresses only: {}", coarse.join(", "));
                }
                if functions.all.len() > 1 {
                    reason.push_str("; ports hash differently and share the local ports");
                }
            }
            if wish != Wish::Rss
                && let Err(why) = rule
            {
                let _ = write!(reason, " ({why})");
            }
            PortSteering { mode, reason }
        })
        .collect();
    (Replies::Rss(Arc::new(plan)), ports)
}

fn in_software(
    wish: Wish,
    functions: &Functions,
    rules: &[Result<(), String>],
) -> Vec<PortSteering> {
    let port = |(function, rule): (&Result<u8, String>, &Result<(), String>)| {
        let mut reasons = Vec::new();
        if wish == Wish::Software {
            reasons.push("configured".to_owned());
        } else {
            reasons.extend(rule.as_ref().err().cloned());
            reasons.extend(function.as_ref().err().cloned());
        }
        PortSteering { mode: Mode::Software, reason: reasons.join("; ") }
    };
    functions.of_port.iter().zip(rules).map(port).collect()
}

const fn name(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp4 => "UDP over IPv4",
        Transport::Tcp4 => "TCP over IPv4",
        Transport::Udp6 => "UDP over IPv6",
        Transport::Tcp6 => "TCP over IPv6",
    }
}
