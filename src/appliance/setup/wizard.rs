//! The wizard: asks only what a node cannot do without, and writes the file that one would have
//! written by hand.
//!
//! In: lines from whoever sits at the console. Out: a document that the node's parser accepts. Each
//! answer is checked at once, by the functions that read the document; the document as a whole at the
//! end, and then the answers are the defaults of the next round.

use super::sources::Found;
use crate::appliance::host::Host;
use crate::appliance::machine::cores;
use crate::appliance::machine::inventory::Inventory;
use crate::appliance::nic::Nic;
use crate::cli::table::{Style, Table, Tone};
use crate::config::{Config, value};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, BufRead, Read, Write};
use std::net::IpAddr;

/// Longest answer, bytes.
const MAX_LINE: u64 = 4096;

/// A conversation: questions out, answers in.
#[derive(Debug)]
pub struct Talk<R, W> {
    input: R,
    output: W,
    /// The last answer to each question, which is the default when it is asked again.
    answers: BTreeMap<String, String>,
}

impl<R: BufRead, W: Write> Talk<R, W> {
    pub fn new(input: R, output: W) -> Self {
        Self { input, output, answers: BTreeMap::new() }
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.output, "{text}")
    }

    /// Ask until the answer passes `check`; an empty answer means the default.
    fn ask<T>(
        &mut self,
        key: &str,
        question: &str,
        default: &str,
        check: impl Fn(&str) -> Result<T, String>,
    ) -> io::Result<T> {
        loop {
            let default = self.answers.get(key).map_or(default, String::as_str).to_owned();
            match default.is_empty() {
                true => write!(self.output, "{question}: ")?,
                false => write!(self.output, "{question} [{default}]: ")?,
            }
            self.output.flush()?;
            let line = self.line()?;
            let answer = if line.is_empty() { default } else { line };
            match check(&answer) {
                Ok(value) => {
                    self.answers.insert(key.to_owned(), answer);
                    return Ok(value);
                }
                Err(fault) => writeln!(self.output, "  {fault}")?,
            }
        }
    }

    pub fn yes(&mut self, key: &str, question: &str, default: bool) -> io::Result<bool> {
        let default = if default { "yes" } else { "no" };
        self.ask(key, question, default, |text| match text.to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(true),
            "n" | "no" => Ok(false),
            _ => Err("Answer yes or no.".to_owned()),
        })
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        let read = (&mut self.input).take(MAX_LINE).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let text = String::from_utf8_lossy(&line);
        // Arrow keys and the like leave escape sequences; they are no part of any answer.
        Ok(text.trim().chars().filter(|c| !c.is_control()).collect())
    }
}

/// What was answered.
#[derive(Debug, Default)]
struct Answers {
    name: String,
    management: Option<ManagementAnswers>,
    ports: Vec<PortAnswers>,
    gateways: Vec<IpAddr>,
    asn: String,
    routers: Vec<(IpAddr, String)>,
    local: Vec<IpNet>,
    service: Option<ServiceAnswers>,
    workers: Vec<u16>,
    memory_mib: u64,
}

#[derive(Debug)]
struct ManagementAnswers {
    interface: String,
    addresses: Vec<IpNet>,
    gateways: Vec<IpAddr>,
    dns: Vec<IpAddr>,
    key: Option<String>,
}

#[derive(Debug)]
struct PortAnswers {
    name: String,
    device: String,
    addresses: Vec<IpNet>,
}

#[derive(Debug)]
struct ServiceAnswers {
    name: String,
    vips: Vec<IpAddr>,
    port: u16,
    backends: Vec<(IpAddr, Option<u16>)>,
}

/// Ask, until there is a valid document that the operator agrees with. Errors: the console has gone
/// away (end of file), or there is nothing to set up.
pub fn run<R: BufRead, W: Write>(host: &Host, talk: &mut Talk<R, W>) -> anyhow::Result<Found> {
    let inventory = Inventory::take(&host.root);
    talk.say("\nThis node has no configuration. A few questions, then it starts.")?;
    talk.say("Press Enter to take what is in brackets.\n")?;
    loop {
        let answers = questions(talk, &inventory)?;
        let document = document(&answers);
        talk.say("\nThis is the configuration, /etc/dunlin/dunlin.toml:\n")?;
        talk.say(&document)?;
        let source = "wizard";
        match Config::parse(&document, "dunlin.toml") {
            Err(errors) => {
                talk.say(&format!("It is not valid:\n{errors}\nOnce more, please.\n"))?;
            }
            Ok(config) => {
                // Asked anew each time.
                talk.answers.remove("write");
                if talk.yes("write", "Write it and start the node?", true)? {
                    let source = source.to_owned();
                    return Ok(Found {
                        source,
                        document,
                        config,
                        keys: None,
                        authorities: None,
                        hostname: None,
                    });
                }
            }
        }
    }
}

fn questions<R: BufRead, W: Write>(
    talk: &mut Talk<R, W>,
    inventory: &Inventory,
) -> anyhow::Result<Answers> {
    let nics = &inventory.nics;
    if nics.is_empty() {
        anyhow::bail!("this machine has no network card that the kernel knows of");
    }
    talk.say(&nic_table(inventory))?;
    let numbers = 1..=nics.len();
    let first_up = nics.iter().position(has_link).unwrap_or(0) + 1;
    let management = talk.ask(
        "management",
        "Management NIC: a number, or none",
        &if nics.len() > 1 { first_up.to_string() } else { "none".to_owned() },
        |text| match text.parse() {
            _ if text == "none" => Ok(None),
            Ok(number) if numbers.contains(&number) => Ok(Some(number)),
            _ => Err(format!("Expected 1 to {}, or none.", nics.len())),
        },
    )?;
    let free: Vec<usize> = numbers.filter(|number| Some(*number) != management).collect();
    let all = free.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let data = talk.ask("data", "Data ports: numbers", &all, |text| {
        let chosen = list(text, |word| {
            let number = word.parse().ok().filter(|number| free.contains(number));
            number.ok_or_else(|| format!("{word} is none of: {all}"))
        })?;
        match chosen.is_empty() || (1..chosen.len()).any(|i| chosen[..i].contains(&chosen[i])) {
            true => Err("Expected at least one number, each once.".to_owned()),
            false => Ok(chosen),
        }
    })?;
    let management = management.map(|number| self::management(talk, inventory, &nics[number - 1]));
    let mut answers = Answers { management: management.transpose()?, ..Answers::default() };
    let suffix = inventory.mac_of(&nics[data[0] - 1]).unwrap_or_default().replace(':', "");
    let default = format!("dunlin-{}", suffix.get(6..).unwrap_or("1"));
    answers.name = talk.ask("name", "Name of this node", &default, value::name)?;
    for (index, number) in data.iter().enumerate() {
        answers.ports.push(port(talk, inventory, &nics[number - 1], index)?);
    }
    routing(talk, &mut answers)?;
    answers.service = service(talk)?;
    let addresses: Vec<String> = data.iter().map(|n| nics[n - 1].address.clone()).collect();
    (answers.workers, answers.memory_mib) = cores::proposal(inventory, &addresses);
    Ok(answers)
}

fn has_link(nic: &Nic) -> bool {
    nic.interface.as_ref().is_some_and(|interface| interface.carrier == Some(true))
}

fn nic_table(inventory: &Inventory) -> String {
    let mut table = Table::default()
        .number("NO")
        .text("PCI")
        .text("NIC")
        .text("MAC")
        .text("MADE BY")
        .text("DRIVER")
        .text("LINK");
    for (index, nic) in inventory.nics.iter().enumerate() {
        let name = nic.interface.as_ref().map_or("", |interface| interface.name.as_str());
        table
            .row()
            .cell((index + 1).to_string())
            .cell(&nic.address)
            .cell(name)
            .cell(inventory.mac_of(nic).unwrap_or_default())
            .cell(nic.vendor_name())
            .toned(Tone::Plain, nic.driver.as_deref().unwrap_or("none"))
            .cell(nic.link_text());
    }
    table.render(Style::default())
}

/// By MAC address where there is one: it survives a card that moves to another slot.
fn device_of(inventory: &Inventory, nic: &Nic) -> String {
    let mac = inventory.mac_of(nic);
    mac.map_or_else(|| nic.address.clone(), |mac| format!("mac:{mac}"))
}

fn management<R: BufRead, W: Write>(
    talk: &mut Talk<R, W>,
    inventory: &Inventory,
    nic: &Nic,
) -> io::Result<ManagementAnswers> {
    let question = "Management address with length, or dhcp";
    let addresses = talk.ask("management-address", question, "dhcp", |text| match text {
        "dhcp" => Ok(Vec::new()),
        text => addresses(text),
    })?;
    let (mut gateways, mut dns) = (Vec::new(), Vec::new());
    if !addresses.is_empty() {
        let question = "Management gateway, or none";
        gateways = talk.ask("management-gateway", question, "none", hosts)?;
        dns = talk.ask("dns", "Name servers, or none", "none", hosts)?;
    }
    let key = talk.ask(
        "key",
        "SSH public key for root, or none (then the console is the only way in)",
        "none",
        |text| match text {
            "none" => Ok(None),
            text if text.starts_with("ssh-") || text.contains("ecdsa") => Ok(Some(text.to_owned())),
            _ => Err("Expected a line like: ssh-ed25519 AAAA… you@example.org".to_owned()),
        },
    )?;
    Ok(ManagementAnswers { interface: device_of(inventory, nic), addresses, gateways, dns, key })
}

fn port<R: BufRead, W: Write>(
    talk: &mut Talk<R, W>,
    inventory: &Inventory,
    nic: &Nic,
    index: usize,
) -> io::Result<PortAnswers> {
    let device = device_of(inventory, nic);
    let default = if index == 0 { "wan0".to_owned() } else { format!("lan{}", index - 1) };
    let name = talk.ask(
        &format!("port-{device}"),
        &format!("Name of data port {} ({device})", nic.address),
        &default,
        value::interface_name,
    )?;
    let addresses = talk.ask(
        &format!("addresses-{device}"),
        &format!("Addresses of {name} with length, like 10.1.1.2/24 fd00:1::2/64"),
        "",
        addresses,
    )?;
    Ok(PortAnswers { name, device, addresses })
}

fn routing<R: BufRead, W: Write>(talk: &mut Talk<R, W>, answers: &mut Answers) -> io::Result<()> {
    answers.asn = talk.ask("asn", "AS number of this node", "", as_number)?;
    let question = "Addresses of the ToR routers (BGP with BFD)";
    let routers = talk.ask("routers", question, "", |text| match hosts(text) {
        Ok(routers) if routers.is_empty() => Err("Expected at least one.".to_owned()),
        other => other,
    })?;
    let mut default = String::new();
    for router in &routers {
        let question = format!("AS number of {router}");
        let asn = talk.ask(&format!("asn-{router}"), &question, &default, as_number)?;
        default.clone_from(&asn);
        answers.routers.push((*router, asn));
    }
    let first = |v4: bool| routers.iter().find(|r| r.is_ipv4() == v4).map(ToString::to_string);
    let default = [first(true), first(false)].into_iter().flatten().collect::<Vec<_>>().join(" ");
    answers.gateways = talk.ask("gateways", "Default gateways, or none", &default, hosts)?;
    let question =
        "Local addresses (LIPs) toward the backends, only for this node, like 10.9.1.0/29";
    answers.local = talk.ask("local", question, "", |text| match list(text, value::prefix) {
        Ok(prefixes) if prefixes.is_empty() => Err("Expected at least one prefix.".to_owned()),
        other => other,
    })?;
    Ok(())
}

fn service<R: BufRead, W: Write>(talk: &mut Talk<R, W>) -> io::Result<Option<ServiceAnswers>> {
    let vips = talk.ask("vips", "First VIP, or none to add services later", "none", hosts)?;
    if vips.is_empty() {
        return Ok(None);
    }
    let name = talk.ask("service", "Name of its service", "web", value::name)?;
    let port = talk.ask("service-port", "TCP port", "80", |text| {
        let port = text.parse::<u16>().ok().filter(|port| *port > 0);
        port.ok_or_else(|| "Expected 1 to 65535.".to_owned())
    })?;
    let question = "Backends, with ports if they differ, like 10.2.0.11 10.2.0.12:8080";
    let backends =
        talk.ask("backends", question, "", |text| match list(text, value::endpoint) {
            Ok(backends) if backends.is_empty() => Err("Expected at least one.".to_owned()),
            other => other,
        })?;
    Ok(Some(ServiceAnswers { name, vips, port, backends }))
}

/// Words, divided by spaces or commas.
fn list<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    let words = text.split([' ', ',']).filter(|word| !word.is_empty());
    words.map(|word| parse(word).map_err(|fault| format!("{word} {fault}"))).collect()
}

fn addresses(text: &str) -> Result<Vec<IpNet>, String> {
    let addresses = list(text, value::interface_address)?;
    match addresses.is_empty() {
        true => Err("Expected an address with its length, like 10.1.1.2/24.".to_owned()),
        false => Ok(addresses),
    }
}

fn hosts(text: &str) -> Result<Vec<IpAddr>, String> {
    if text == "none" { Ok(Vec::new()) } else { list(text, value::unicast) }
}

fn as_number(text: &str) -> Result<String, String> {
    let number = text.parse::<u32>().ok();
    match number.filter(|asn| ![0, 23_456, 65_535, u32::MAX].contains(asn)) {
        Some(asn) => Ok(asn.to_string()),
        None => Err("Expected the AS number of a network, like 65001.".to_owned()),
    }
}

/// The answers as the operator would have written them.
fn document(answers: &Answers) -> String {
    let mut text =
        String::from("# Written by `dunlin setup`. The manual: docs/configuration.md\n\n");
    // Writing to a String cannot fail.
    let _ = writeln!(text, "[node]\nname = {:?}", answers.name);
    if !answers.ports.iter().flat_map(|port| &port.addresses).any(|net| net.addr().is_ipv4()) {
        // BGP needs one all the same; it only has to be unique.
        let _ = writeln!(text, "router-id = \"{}\"", router_id(&answers.name));
    }
    let workers: Vec<String> = answers.workers.iter().map(u16::to_string).collect();
    let _ = writeln!(
        text,
        "\n[dataplane]\nworkers = [{}]\nmemory = \"{}MiB\"\n{}",
        workers.join(", "),
        answers.memory_mib,
        if answers.memory_mib < 256 { "mbufs = 16384\nmax-flows = 200_000\n" } else { "" }
    );
    if let Some(management) = &answers.management {
        let _ = writeln!(text, "[management]\ninterface = {:?}", management.interface);
        for (key, list) in [
            ("addresses", quoted(&management.addresses)),
            ("gateways", quoted(&management.gateways)),
            ("dns", quoted(&management.dns)),
            ("ssh-keys", quoted(management.key.as_slice())),
        ] {
            if list != "[]" {
                let _ = writeln!(text, "{key} = {list}");
            }
        }
        text.push('\n');
    }
    for port in &answers.ports {
        let (name, device, addresses) = (&port.name, &port.device, quoted(&port.addresses));
        let _ = writeln!(
            text,
            "[[port]]\nname = {name:?}\ndevice = {device:?}\naddresses = {addresses}\n"
        );
    }
    for (v4, to) in [(true, "0.0.0.0/0"), (false, "::/0")] {
        let via: Vec<_> = answers.gateways.iter().filter(|via| via.is_ipv4() == v4).collect();
        if !via.is_empty() {
            let _ = writeln!(text, "[[route]]\nto = {to:?}\nvia = {}\n", quoted(&via));
        }
    }
    let _ = writeln!(text, "[local]\naddresses = {}\n", quoted(&answers.local));
    let _ = writeln!(text, "[bgp]\nasn = {}\n", answers.asn);
    for (address, asn) in &answers.routers {
        let _ =
            writeln!(text, "[[bgp.neighbor]]\naddress = \"{address}\"\nasn = {asn}\nbfd = true\n");
    }
    if let Some(service) = &answers.service {
        let ServiceAnswers { name, vips, port, backends } = service;
        let vips = quoted(vips);
        let _ = writeln!(
            text,
            "[[service]]\nname = {name:?}\nvips = {vips}\nprotocol = \"tcp\"\nport = {port}\n\
             check = {{ type = \"tcp\" }}"
        );
        let backends = backends.iter().map(|(address, port)| match port {
            Some(port) => std::net::SocketAddr::new(*address, *port).to_string(),
            None => address.to_string(),
        });
        let backends = backends.map(|address| format!("    {{ address = \"{address}\" }},\n"));
        let _ = writeln!(text, "backend = [\n{}]", backends.collect::<String>());
    }
    text
}

/// From the name (FNV-1a), in 10.0.0.0/8 so that it looks like an address.
fn router_id(name: &str) -> std::net::Ipv4Addr {
    let hash = name
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (0x0a00_0000 | (hash & 0x00ff_ffff).max(1)).into()
}

fn quoted<T: ToString>(items: &[T]) -> String {
    let items: Vec<_> = items.iter().map(|item| format!("{:?}", item.to_string())).collect();
    format!("[{}]", items.join(", "))
}
