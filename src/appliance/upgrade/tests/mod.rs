//! Upgrades on a disk of files: what is refused before anything is written, what boots afterwards, and
//! what boots when the power fails before any of the steps.

mod world;

use super::disk::{Disk, Part, Slot};
use super::install::roll_back;
use super::{Options, bundle, install, rollback, upgrade};
use crate::appliance::record::Record;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePublicKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use std::time::Duration;
use world::{Fused, NoNode, Unsynced, Version, World};

const QUIET: Options = Options { force: false, reboot: false, drain: Duration::ZERO };

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// Install a bundle; what was said, or why not.
fn put(world: &World, disk: &mut dyn Disk, bundle: &[u8], force: bool) -> Result<String, String> {
    let mut said = Vec::new();
    match install(&world.host.root, disk, &NoNode, bundle, force, &mut said) {
        Ok(_) => Ok(String::from_utf8(said).unwrap()),
        Err(error) => Err(format!("{error:#}")),
    }
}

/// A world in which both slots are full: 0.2.0 runs in B, 0.1.0 is in A.
fn upgraded() -> (World, Version, Version) {
    let (old, new) = (Version::build("0.1.0"), Version::build("0.2.0"));
    let world = World::flashed(&old);
    put(&world, &mut world.disk(), &new.bundle(None), false).unwrap();
    assert_eq!(world.boot().as_deref(), Some("0.2.0"));
    world.bless("0.2.0");
    world.start(&new);
    (world, old, new)
}

#[test]
fn an_upgrade_is_tried_once_and_stays_when_it_is_blessed() {
    let (world, ..) = upgraded();
    assert_eq!(world.menu(), ["dunlin_0.2.0.efi", "dunlin_0.1.0.efi"]);
    assert_eq!(world.running().slot, Slot::B);
    assert_eq!(world.boot_bios().as_deref(), Some("0.2.0"));
    for _ in 0..3 {
        assert_eq!(world.boot().as_deref(), Some("0.2.0"));
    }
    // The next one goes to the other slot, and the oldest version goes.
    let third = Version::build("0.3.0");
    let said = put(&world, &mut world.disk(), &third.bundle(None), false).unwrap();
    assert!(said.contains("Version 0.2.0 runs in slot b; 0.3.0 goes to slot a."), "{said}");
    assert_eq!(world.menu(), ["dunlin_0.3.0+1.efi", "dunlin_0.2.0.efi"]);
    let record = Record::load(&world.host.root).unwrap();
    assert_eq!((record.from.as_str(), record.to.as_str()), ("0.2.0", "0.3.0"));
}

#[test]
fn a_version_that_does_not_come_up_is_tried_once() {
    let (old, new) = (Version::build("0.1.0"), Version::build("0.2.0"));
    let world = World::flashed(&old);
    put(&world, &mut world.disk(), &new.bundle(None), false).unwrap();
    assert_eq!(world.boot().as_deref(), Some("0.2.0"), "the attempt; nobody blesses it");
    for _ in 0..3 {
        assert_eq!(world.boot().as_deref(), Some("0.1.0"));
    }
    // A byte of the slot flips: the same, by the initrd.
    put(&world, &mut world.disk(), &new.bundle(None), false).unwrap();
    world.disk().write(Slot::B, Part::Root, 77, b"X").unwrap();
    assert_eq!(world.boot().as_deref(), Some("0.1.0"));
}

#[test]
fn what_is_not_right_is_refused_before_anything_is_written() {
    let (old, new) = (Version::build("0.1.0"), Version::build("0.2.0"));
    let world = World::flashed(&old);
    let pem = key(1).verifying_key().to_public_key_pem(LineEnding::LF).unwrap();
    world.machine.write("usr/share/dunlin/release-key.pem", &pem);
    let signed = |version: &Version| version.bundle(Some(&key(1)));
    let altered = new.manifest().replace("0.2.0", "0.2.1");
    let mut flipped = new.bundle_with(&new.manifest(), Some(&key(1)));
    flipped[520] ^= 1;
    let large = Version { root: vec![7; 65 << 10], ..new.clone() };
    let own = Version { version: "0.9.0".into(), ..old.clone() };
    let cases = [
        (new.bundle(None), "is not signed"),
        (new.bundle(Some(&key(2))), "is NOT signed by the builder"),
        (flipped, "is NOT signed by the builder"),
        (new.bundle_with(&altered, None), "is not signed"),
        (signed(&Version::build("0.1.0")), "version 0.1.0 is the one that runs"),
        (signed(&Version::build("0.0.9")), "is older than 0.1.0, which runs; --force takes it"),
        (signed(&large), "root.squashfs has 66560 bytes, and its partition only 65536"),
        (signed(&own), "the very system that runs"),
        (signed(&Version { version: "0.2.0+9".into(), ..new.clone() }), "is not a version"),
        (signed(&Version { root_hash: "0".into(), ..new.clone() }), "root_hash is not one"),
        (b"not a tar".to_vec(), "manifest.json"),
        (Vec::new(), "the bundle ends before manifest.json"),
    ];
    for (bundle, expected) in cases {
        let mut disk = Fused::new(&world, usize::MAX, Unsynced::Arrives);
        let refusal = put(&world, &mut disk, &bundle, false).unwrap_err();
        assert!(refusal.contains(expected), "{refusal}\n--- expected\n{expected}");
        assert_eq!(disk.steps, 0, "{expected}: nothing is written");
    }
    let said = put(&world, &mut world.disk(), &signed(&new), false).unwrap();
    assert!(said.contains("Signed by the builder"), "{said}");
    // A key that cannot be read is not the same as none.
    world.machine.write("usr/share/dunlin/release-key.pem", "nonsense");
    assert!(put(&world, &mut world.disk(), &new.bundle(None), false).is_err());
}

#[test]
fn a_file_that_is_not_what_the_manifest_says_never_becomes_the_next_boot() {
    let (world, _, _) = upgraded();
    let new = Version::build("0.3.0");
    let other = Version::build("0.4.0");
    let manifest = new.manifest();
    let cases = [
        (Version { root: other.root.clone(), ..new.clone() }, "root.squashfs has SHA-256"),
        (
            Version { verity: vec![b'0'; new.verity.len()], ..new.clone() },
            "root.verity has SHA-256",
        ),
        (Version { kernel: vec![0; new.kernel.len()], ..new.clone() }, "dunlin.efi has SHA-256"),
    ];
    for (wrong, expected) in cases {
        let bundle = wrong.bundle_with(&manifest, None);
        let refusal = put(&world, &mut world.disk(), &bundle, false).unwrap_err();
        assert!(refusal.contains(expected), "{refusal}");
        assert_eq!(world.menu(), ["dunlin_0.2.0.efi"]);
    }
    // A kernel image that starts another system than the one beside it.
    let mixed = Version { kernel: other.kernel, ..new.clone() };
    let refusal = put(&world, &mut world.disk(), &mixed.bundle(None), false).unwrap_err();
    assert!(refusal.contains("starts another system"), "{refusal}");
    // Cut off anywhere.
    let whole = new.bundle(None);
    for length in (0..whole.len() - 1024).step_by(997) {
        assert!(put(&world, &mut world.disk(), &whole[..length], false).is_err(), "{length}");
        assert_eq!(world.boot().as_deref(), Some("0.2.0"), "{length}");
    }
}

/// Cut the power before every step of `change`, with either fate of what was not synced.
fn cut_everywhere(
    prepare: impl Fn() -> World,
    versions: [&str; 2],
    change: impl Fn(&World, &mut dyn Disk) -> Result<String, String>,
) {
    for unsynced in [Unsynced::Arrives, Unsynced::IsLost] {
        for left in 0.. {
            let world = prepare();
            let mut disk = Fused::new(&world, left, unsynced);
            let result = change(&world, &mut disk);
            let finished = disk.steps <= left;
            disk.after();
            let bios = world.boot_bios();
            let why = format!("{unsynced:?}, before step {left}: {result:?}, {:?}", world.menu());
            for booted in [bios, world.boot()] {
                let booted = booted.unwrap_or_else(|| panic!("nothing boots: {why}"));
                assert!(versions.contains(&booted.as_str()), "{booted} boots: {why}");
                if finished {
                    assert_eq!(booted, versions[1], "{why}");
                }
            }
            // Nobody judged it good, so the one before comes next, and keeps coming.
            for _ in 0..3 {
                let again = world.boot();
                assert!(again.is_some(), "nothing boots any more: {why}");
                assert!(!finished || again.as_deref() == Some(versions[0]), "{again:?}: {why}");
            }
            if finished {
                result.unwrap_or_else(|error| panic!("{error}: {why}"));
                assert!(left > 5, "the power was cut at several steps");
                break;
            }
            assert!(result.is_err(), "{why}");
        }
    }
}

#[test]
fn a_power_cut_before_any_step_of_an_upgrade_leaves_a_machine_that_boots() {
    let new = Version::build("0.3.0").bundle(None);
    let flashed = || World::flashed(&Version::build("0.2.0"));
    cut_everywhere(flashed, ["0.2.0", "0.3.0"], |world, disk| put(world, disk, &new, false));
    cut_everywhere(
        || upgraded().0,
        ["0.2.0", "0.3.0"],
        |world, disk| put(world, disk, &new, false),
    );
}

#[test]
fn a_power_cut_before_any_step_of_a_downgrade_leaves_a_machine_that_boots() {
    let older = Version::build("0.0.5").bundle(None);
    cut_everywhere(
        || upgraded().0,
        ["0.2.0", "0.0.5"],
        |world, disk| put(world, disk, &older, true),
    );
}

#[test]
fn a_power_cut_before_any_step_of_a_rollback_leaves_a_machine_that_boots() {
    let back = |world: &World, disk: &mut dyn Disk| {
        roll_back(disk, &world.running()).map_err(|error| format!("{error:#}"))
    };
    cut_everywhere(|| upgraded().0, ["0.2.0", "0.1.0"], back);
}

#[test]
fn a_rollback_stays_and_another_one_goes_forward_again() {
    let (world, old, new) = upgraded();
    let mut said = Vec::new();
    rollback(&world.host, &NoNode, QUIET, &mut said).unwrap();
    assert_eq!(world.boot().as_deref(), Some("0.1.0"), "{}", String::from_utf8_lossy(&said));
    world.bless("0.1.0");
    world.start(&old);
    for _ in 0..3 {
        assert_eq!(world.boot().as_deref(), Some("0.1.0"), "it stays");
        assert_eq!(world.boot_bios().as_deref(), Some("0.1.0"));
    }
    rollback(&world.host, &NoNode, QUIET, &mut said).unwrap();
    assert_eq!(world.boot().as_deref(), Some("0.2.0"));
    world.bless("0.2.0");
    world.start(&new);
    assert_eq!(world.boot().as_deref(), Some("0.2.0"));
    // What is damaged is not gone back to.
    world.disk().write(Slot::A, Part::Root, 5, b"X").unwrap();
    let refusal = format!("{:#}", rollback(&world.host, &NoNode, QUIET, &mut said).unwrap_err());
    assert!(refusal.contains("version 0.1.0 is damaged"), "{refusal}");
    assert_eq!(world.boot().as_deref(), Some("0.2.0"));
}

#[test]
fn there_is_nothing_to_roll_back_to_on_a_fresh_image() {
    let world = World::flashed(&Version::build("0.1.0"));
    let refusal = rollback(&world.host, &NoNode, QUIET, &mut Vec::new()).unwrap_err();
    assert!(refusal.to_string().contains("there is no other version"), "{refusal}");
}

#[test]
fn a_version_on_trial_is_not_built_upon_unless_forced() {
    let (old, new) = (Version::build("0.1.0"), Version::build("0.2.0"));
    let world = World::flashed(&old);
    put(&world, &mut world.disk(), &new.bundle(None), false).unwrap();
    assert_eq!(world.boot().as_deref(), Some("0.2.0"));
    world.start(&new);
    let third = Version::build("0.3.0").bundle(None);
    let refusal = put(&world, &mut world.disk(), &third, false).unwrap_err();
    assert!(refusal.contains("is itself on trial (dunlin_0.2.0+0-1.efi)"), "{refusal}");
    put(&world, &mut world.disk(), &third, true).unwrap();
    assert_eq!(world.menu(), ["dunlin_0.3.0+1.efi", "dunlin_0.2.0.efi"]);
}

#[test]
fn a_bundle_comes_from_a_file_or_a_web_server_and_one_upgrade_runs_at_a_time() {
    let (world, ..) = upgraded();
    let file = world.machine.path("new.bundle");
    std::fs::write(&file, Version::build("0.3.0").bundle(None)).unwrap();
    let (file, mut said) = (file.to_str().unwrap().to_owned(), Vec::new());
    upgrade(&world.host, &NoNode, &file, QUIET, &mut said).unwrap();
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("WARNING: this system was built without a key"), "{said}");
    assert!(said.contains("Not rebooting. When it suits"), "{said}");
    assert_eq!(world.boot().as_deref(), Some("0.3.0"));
    world.bless("0.3.0");
    world.start(&Version::build("0.3.0"));

    let served = serve(Version::build("0.4.0").bundle(None));
    let held = super::lock(&world.host.root).unwrap();
    let refusal = upgrade(&world.host, &NoNode, &served, QUIET, &mut Vec::new()).unwrap_err();
    assert!(refusal.to_string().contains("under way"), "{refusal}");
    drop(held);
    upgrade(&world.host, &NoNode, &served, QUIET, &mut Vec::new()).unwrap();
    assert_eq!(world.boot().as_deref(), Some("0.4.0"));
    let refusal = upgrade(&world.host, &NoNode, "ftp://x/y", QUIET, &mut Vec::new()).unwrap_err();
    assert!(refusal.to_string().contains("expected a file, http:// or https://"), "{refusal}");
}

/// A web server for one request; its address.
fn serve(content: Vec<u8>) -> String {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        assert!(client.read(&mut request).unwrap() > 0);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", content.len());
        client.write_all(head.as_bytes()).unwrap();
        client.write_all(&content).unwrap();
    });
    format!("http://{address}/dunlin.bundle")
}

#[test]
fn sections_of_anything_are_found_or_not_but_never_crash() {
    let image = Version::build("0.1.0").kernel;
    assert!(super::bios::command_line(&image).unwrap().starts_with("roothash="));
    for length in 0..image.len() {
        let _ = super::bios::root_hash(&image[..length]);
    }
    for at in 0..0x100 {
        let mut broken = image.clone();
        broken[at] = 0xff;
        let _ = super::bios::root_hash(&broken);
    }
    assert_eq!(bundle::hex(&[0, 255]), "00ff");
}
