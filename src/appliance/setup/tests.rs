//! Where configurations come from, and the wizard as somebody at a console sees it.

use super::wizard::{Talk, run};
use super::{boot, sources::CONFIG};
use crate::appliance::fake::{DATA, MANAGEMENT, Machine};
use crate::config::Config;
use crate::config::model::{Device, NicName};
use std::io::Cursor;

const VALID: &str = "[node]\nname = \"lb7\"\n[[port]]\nname = \"wan0\"\ndevice = \"0000:00:03.0\"\n\
                     addresses = [\"10.1.1.2/24\"]\n";
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 ops\n";

fn machine() -> Machine {
    Machine::new().with(MANAGEMENT).with(DATA)
}

fn drive(machine: &Machine, label: &str, files: &[(&str, &str)]) {
    machine.write(&format!("dev/disk/by-label/{label}"), "");
    for (name, content) in files {
        machine.write(&format!("dev/disk/by-label/{label}.content/{name}"), content);
    }
}

fn booted(machine: &Machine) -> (String, bool) {
    let mut log = Vec::new();
    let result = boot(&machine.host(), &mut log);
    let log = String::from_utf8(log).unwrap();
    match result {
        Ok(()) => (log, true),
        Err(error) => (format!("{log}{error:#}"), false),
    }
}

#[test]
fn a_config_drive_is_taken_once_with_keys_network_and_name() {
    let machine = machine();
    let network = "[management]\ninterface = \"mac:52:54:00:00:00:01\"\n";
    let files = [
        ("dunlin.toml", VALID),
        ("authorized_keys", KEY),
        ("ca-certificates.crt", "-----BEGIN CERTIFICATE-----\n"),
        ("hostname", "rack7\n"),
        ("network.toml", network),
    ];
    drive(&machine, "CIDATA", &files);
    let (log, done) = booted(&machine);
    assert!(done && log.contains("from the config drive CIDATA: node lb7"), "{log}");
    assert!(machine.read(CONFIG).starts_with(VALID), "{}", machine.read(CONFIG));
    assert_eq!(machine.read("var/lib/dunlin/ssh/authorized_keys"), KEY);
    let authorities = machine.read("etc/dunlin/ca-certificates.crt");
    assert!(authorities.starts_with("-----BEGIN CERTIFICATE-----\n"), "{authorities}");
    assert_eq!(machine.read("proc/sys/kernel/hostname"), "rack7");
    let unit = machine.read("run/systemd/network/10-dunlin-management.network");
    assert!(unit.contains("MACAddress=52:54:00:00:00:01"), "{unit}");

    // The next boot: another drive is mentioned, the state is used.
    std::fs::remove_dir_all(machine.path("run")).unwrap();
    drive(&machine, "DUNLIN", &[("dunlin.toml", &VALID.replace("lb7", "lb8"))]);
    let (log, done) = booted(&machine);
    assert!(done && log.contains("config drive DUNLIN says something else and is NOT taken"));
    assert!(machine.read(CONFIG).contains("lb7"), "{log}");
    assert_eq!(machine.read("var/lib/dunlin/ssh/authorized_keys"), KEY, "kept in the state");
}

#[test]
fn what_is_not_valid_is_told_and_the_next_source_is_asked() {
    let machine = machine();
    drive(&machine, "DUNLIN", &[("dunlin.toml", "[node]\nnam = \"x\"\n")]);
    machine.write("run/credentials/@system/dunlin.toml", VALID);
    machine.write("run/credentials/@system/dunlin.authorized_keys", KEY);
    let (log, done) = booted(&machine);
    assert!(done, "{log}");
    assert!(log.contains("config drive DUNLIN is NOT VALID and not taken"), "{log}");
    assert!(log.contains("did you mean \"name\"?"), "{log}");
    assert!(log.contains("from the credential dunlin.toml: node lb7"), "{log}");
    assert_eq!(machine.read("var/lib/dunlin/ssh/authorized_keys"), KEY);
}

#[test]
fn a_broken_configuration_leaves_the_machine_reachable() {
    let machine = machine();
    machine.write(CONFIG, &format!("{VALID}[management]\ninterface = \"enp0s2\"\n"));
    assert!(booted(&machine).1);
    machine.write(CONFIG, "[node\n");
    std::fs::remove_dir_all(machine.path("run")).unwrap();
    let (log, done) = booted(&machine);
    assert!(!done && log.contains("the configuration is not valid"), "{log}");
    let unit = machine.read("run/systemd/network/10-dunlin-management.network");
    assert!(unit.contains("Name=enp0s2"), "{unit}");
}

#[test]
fn nothing_and_nobody_is_an_error_that_says_what_to_do() {
    let (log, done) = booted(&machine());
    assert!(!done && log.contains("no console to ask on: give a config drive"), "{log}");
}

/// What somebody types, and what the screen shows.
fn wizard(machine: &Machine, answers: &str) -> (String, Option<Config>) {
    let mut screen = Vec::new();
    let found = {
        let mut talk = Talk::new(Cursor::new(answers.to_owned()), &mut screen);
        run(&machine.host(), &mut talk)
    };
    (String::from_utf8(screen).unwrap(), found.ok().map(|found| found.config))
}

const ANSWERS: &str = "\n\n192.0.2.5/24\n192.0.2.1\n192.0.2.53\nnone\n\
                       lb1\nwan0\n10.1.1.2/24 fd00:1::2/64\n65001\n10.1.1.1, fd00:1::1\n65000\n\n\n\
                       10.9.1.0/29 fd00:9::/125\n192.0.2.10\nweb\n80\n10.2.0.11 10.2.0.12:8080\n\n";

#[test]
fn the_wizard_asks_what_is_needed_and_writes_a_valid_file() {
    let (screen, config) = wizard(&machine(), ANSWERS);
    let config = config.unwrap_or_else(|| panic!("{screen}"));
    let management = config.management.unwrap();
    assert!(matches!(management.interface, NicName::Mac(mac) if mac.0[5] == 1), "{screen}");
    assert!(!management.dhcp && management.gateways.len() == 1);
    assert!(matches!(config.ports[0].device, Device::Mac(mac) if mac.0[5] == 2), "{screen}");
    assert_eq!(config.ports[0].addresses.len(), 2);
    assert_eq!(config.routes.len(), 2, "a default route of each family: {screen}");
    assert_eq!(config.bgp.unwrap().neighbors.len(), 2);
    assert_eq!(config.services[0].backends.len(), 2);
    assert_eq!(config.dataplane.workers, [1]);
    assert!(screen.contains("enp0s2") && screen.contains("up, 10 Gbit/s"), "{screen}");
}

#[test]
fn a_wrong_answer_is_refused_at_once_and_asked_again() {
    let rest = ANSWERS.strip_prefix("\n\n").unwrap();
    let rest = rest.replace("65001\n", "23456\nabc\n65001\n");
    let answers = format!("9\n1\n7\n2\n192.0.2.5/33\n{rest}");
    let (screen, config) = wizard(&machine(), &answers);
    assert!(config.is_some(), "{screen}");
    assert!(screen.contains("Expected 1 to 2, or none."), "{screen}");
    assert!(screen.contains("7 is none of: 2"), "{screen}");
    assert!(screen.contains("192.0.2.5/33 is not an address with prefix length"), "{screen}");
    assert_eq!(screen.matches("Expected the AS number of a network").count(), 2, "{screen}");
}

#[test]
fn what_contradicts_itself_begins_again_with_the_answers_as_defaults() {
    // The VIP is the port's own address; the second round changes that alone.
    let first = ANSWERS.replace("\n192.0.2.10\n", "\n10.1.1.2\n");
    let first = first.strip_suffix('\n').unwrap();
    let again = format!("{}192.0.2.10\n\n\n\n\n", "\n".repeat(15));
    let (screen, config) = wizard(&machine(), &format!("{first}{again}"));
    assert!(screen.contains("It is not valid:"), "{screen}");
    assert!(screen.contains("10.1.1.2 is already an address of port \"wan0\""), "{screen}");
    let config = config.unwrap_or_else(|| panic!("{screen}"));
    assert_eq!(config.services[0].vips[0].to_string(), "192.0.2.10");
}

#[test]
fn a_console_that_goes_away_leaves_nothing_behind() {
    let machine = machine();
    let lines: Vec<&str> = ANSWERS.lines().collect();
    for count in 0..lines.len() {
        let (screen, config) = wizard(&machine, &lines[..count].join("\n"));
        assert!(config.is_none(), "{count} answers: {screen}");
    }
    assert!(!machine.path(CONFIG).exists());
}
