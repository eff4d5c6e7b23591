//! From arguments to an exit code.

use super::args::{Arguments, Command, FlowArguments, ScopeArguments, Task};
use super::table::Style;
use super::view;
use crate::api::client::{Client, ClientError, decode, encode};
use crate::api::model::{
    AnnounceInfo, BackendInfo, BfdInfo, BfdSessionInfo, BgpInfo, ConfigInfo, DrainRequest,
    DrainResult, DropInfo, FlowList, HealthState, OspfInfo, OspfNeighborInfo, PortInfo,
    ReloadResult, ServiceInfo, Status, WorkerInfo,
};
use clap::Parser;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

/// `dunlin status` found the node degraded or draining.
const NOT_HEALTHY: u8 = 3;
const ERROR: u8 = 1;
const USAGE: u8 = 2;

/// Parse the process's arguments, do what they say, and tell how it went.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(help) => {
            let code = if help.use_stderr() { USAGE } else { 0 };
            // If nobody reads the help there is nobody to tell.
            let _ = help.print();
            return ExitCode::from(code);
        }
    };
    if arguments.watch.is_some() && matches!(arguments.command, Task::Machine(_)) {
        return fail("--watch is for commands that only show the node", USAGE);
    }
    let command = match &arguments.command {
        Task::Node(command) => command,
        Task::Machine(command) => return crate::appliance::run(command, &arguments),
    };
    if arguments.watch.is_some() && !command.is_question() {
        return fail("--watch is for commands that only show", USAGE);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(run(&arguments, command)),
        Err(error) => fail(&format!("cannot start: {error}"), ERROR),
    }
}

async fn run(arguments: &Arguments, command: &Command) -> ExitCode {
    let Some(seconds) = arguments.watch else {
        return match answer(arguments, command).await {
            Ok((text, code)) => print(&text, code),
            Err(error) => fail(&error.to_string(), ERROR),
        };
    };
    let terminal = io::stdout().is_terminal();
    loop {
        let text = match answer(arguments, command).await {
            Ok((text, _)) => text,
            Err(error) => format!("{error}\n"),
        };
        let screen = if terminal { repaint(&text) } else { text };
        if let Err(code) = write(&screen) {
            return code;
        }
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}

/// From the top left, clearing the rest of each line and then of the screen: no flicker.
fn repaint(text: &str) -> String {
    format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))
}

fn print(text: &str, code: u8) -> ExitCode {
    match write(text) {
        Ok(()) => ExitCode::from(code),
        Err(code) => code,
    }
}

/// A reader that has gone away (`| head`) has seen all it wanted: not an error.
fn write(text: &str) -> Result<(), ExitCode> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ExitCode::SUCCESS),
        Err(error) => Err(fail(&format!("cannot write: {error}"), ERROR)),
    }
}

fn fail(message: &str, code: u8) -> ExitCode {
    // Line by line: what a node says may have several, and none may hold control characters.
    let lines: Vec<String> = message.lines().map(view::printable).collect();
    let _ = writeln!(io::stderr(), "dunlin: {}", lines.join("\n"));
    ExitCode::from(code)
}

/// What to print, and the exit code that goes with it.
async fn answer(arguments: &Arguments, command: &Command) -> Result<(String, u8), ClientError> {
    let client = Client::new(&arguments.socket);
    let (body, as_it_is) = match request(command) {
        Request::Get(path) => (client.get_raw(&path).await?, false),
        Request::Post(path, body) => (client.post_raw(&path, body).await?, false),
        Request::Text(path) => (client.get_raw(&path).await?, true),
    };
    let code = match command {
        Command::Status => match decode::<Status>(&body)?.health.state {
            HealthState::Ok => 0,
            HealthState::Degraded | HealthState::Draining => NOT_HEALTHY,
        },
        _ => 0,
    };
    if as_it_is || arguments.json {
        let mut text = String::from_utf8_lossy(&body).into_owned();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        return Ok((text, code));
    }
    let style = Style::of_stdout();
    show(command, &body, style).map(|text| (text, code))
}

enum Request {
    Get(String),
    Post(String, Vec<u8>),
    /// Not JSON: printed as it comes.
    Text(String),
}

fn request(command: &Command) -> Request {
    let get = |path: &str| Request::Get(format!("/v1/{path}"));
    match command {
        Command::Status => get("status"),
        Command::Services => get("services"),
        Command::Backends { service: None } => get("backends"),
        Command::Backends { service: Some(name) } => {
            get(&format!("backends?service={}", encode(name)))
        }
        Command::Flows(filter) => get(&flow_query(filter)),
        Command::Bgp { neighbor: None } => get("bgp"),
        Command::Bgp { neighbor: Some(address) } => get(&format!("bgp/{}", encode(address))),
        Command::Bfd { peer: None } => get("bfd"),
        Command::Bfd { peer: Some(peer) } => get(&format!("bfd/{}", encode(&peer.to_string()))),
        Command::Ospf { neighbor: None } => get("ospf"),
        Command::Ospf { neighbor: Some(address) } => {
            get(&format!("ospf/{}", encode(&address.to_string())))
        }
        Command::Cluster => get("cluster"),
        Command::Ports => get("ports"),
        Command::Workers => get("workers"),
        Command::Drops { .. } => get("drops"),
        Command::Announce { prefix: None } => get("announce"),
        Command::Announce { prefix: Some(prefix) } => {
            get(&format!("announce?prefix={}", encode(prefix)))
        }
        Command::Config => get("config"),
        Command::Metrics => Request::Text("/v1/metrics".to_owned()),
        Command::Drain { scope, reason } => {
            let body = DrainRequest { reason: reason.clone() };
            // A string in a struct always serializes.
            let body = serde_json::to_vec(&body).unwrap_or_default();
            Request::Post(scope_path(scope, "drain"), body)
        }
        Command::Undrain { scope } => Request::Post(scope_path(scope, "undrain"), Vec::new()),
        Command::Reload => Request::Post("/v1/reload".to_owned(), Vec::new()),
    }
}

fn flow_query(filter: &FlowArguments) -> String {
    let parts = [
        ("client", filter.client.map(|f| f.to_string())),
        ("vip", filter.vip.map(|f| f.to_string())),
        ("backend", filter.backend.map(|f| f.to_string())),
        ("service", filter.service.clone()),
        ("protocol", filter.protocol.clone()),
        ("state", filter.state.map(|s| s.to_string())),
        ("limit", Some(filter.limit.to_string())),
    ];
    let given = parts
        .into_iter()
        .filter_map(|(name, value)| value.map(|v| format!("{name}={}", encode(&v))));
    format!("flows?{}", given.collect::<Vec<_>>().join("&"))
}

fn scope_path(scope: &ScopeArguments, verb: &str) -> String {
    match (&scope.service, &scope.backend) {
        (Some(name), _) => format!("/v1/services/{}/{verb}", encode(name)),
        (None, Some(backend)) => format!("/v1/backends/{}/{verb}", encode(&backend.to_string())),
        (None, None) => format!("/v1/{verb}"),
    }
}

fn show(command: &Command, body: &[u8], style: Style) -> Result<String, ClientError> {
    Ok(match command {
        Command::Status => view::status(&decode::<Status>(body)?, style),
        Command::Services => view::services(&decode::<Vec<ServiceInfo>>(body)?, style),
        Command::Backends { .. } => view::backends(&decode::<Vec<BackendInfo>>(body)?, style),
        Command::Flows(_) => view::flows(&decode::<FlowList>(body)?, style),
        Command::Bgp { neighbor: None } => view::bgp(&decode::<BgpInfo>(body)?, style),
        Command::Bgp { neighbor: Some(_) } => view::neighbor(&decode(body)?, style),
        Command::Bfd { peer: None } => view::bfd(&decode::<BfdInfo>(body)?, style),
        Command::Bfd { peer: Some(_) } => {
            view::bfd_sessions(&decode::<Vec<BfdSessionInfo>>(body)?, style)
        }
        Command::Ospf { neighbor: None } => view::ospf(&decode::<Vec<OspfInfo>>(body)?, style),
        Command::Ospf { neighbor: Some(_) } => {
            view::ospf_neighbors(&decode::<Vec<OspfNeighborInfo>>(body)?, style)
        }
        Command::Cluster => view::cluster(&decode(body)?, style),
        Command::Ports => view::ports(&decode::<Vec<PortInfo>>(body)?, style),
        Command::Workers => view::workers(&decode::<Vec<WorkerInfo>>(body)?, style),
        Command::Drops { all } => view::drops(&decode::<Vec<DropInfo>>(body)?, *all, style),
        Command::Announce { .. } => view::announce(&decode::<Vec<AnnounceInfo>>(body)?, style),
        Command::Config => view::config(&decode::<ConfigInfo>(body)?),
        Command::Metrics => String::from_utf8_lossy(body).into_owned(),
        Command::Drain { .. } | Command::Undrain { .. } => {
            view::drained(&decode::<DrainResult>(body)?)
        }
        Command::Reload => view::reloaded(&decode::<ReloadResult>(body)?, style),
    })
}
