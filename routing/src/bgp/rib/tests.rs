//! Adj-RIB-Out: what is sent is what changed, packed, withdrawals first, only the latest state.

use super::*;
use crate::Announcement;
use crate::bgp::wire::{DecodeContext, Message, Update, next_frame};

fn context() -> ExportContext {
    ExportContext {
        local_asn: 65001,
        internal: false,
        four_octet_as: true,
        max_message: 4096,
        families: Families::BOTH,
        extended_next_hop: false,
        next_hop_v4: Some(Ipv4Addr::new(10, 0, 0, 1)),
        next_hop_v6: None,
        only_to_customer: false,
        enhanced_refresh: true,
    }
}

/// With an IPv6 next hop too.
fn dual_stack() -> ExportContext {
    let address = IpAddr::V6("2001:db8::1".parse().unwrap());
    ExportContext { next_hop_v6: Some(NextHop { address, link_local: None }), ..context() }
}

fn wanted(prefixes: &[&str]) -> Wanted {
    prefixes.iter().map(|p| (p.parse().unwrap(), Announcement::default())).collect()
}

/// The same attributes for all.
fn change(mut wanted: Wanted, change: impl Fn(&mut BgpAttributes)) -> Wanted {
    for announcement in wanted.values_mut() {
        change(&mut announcement.bgp);
    }
    wanted
}

fn with_med(prefixes: &[&str], med: u32) -> Wanted {
    let wanted = wanted(prefixes);
    change(wanted, |bgp| bgp.med = Some(med))
}

/// All that is due, in words.
fn say(rib: &mut AdjRibOut) -> Vec<String> {
    let mut wire = Vec::new();
    rib.poll_updates(usize::MAX, &mut wire);
    read(&wire)
}

fn read(mut wire: &[u8]) -> Vec<String> {
    let join = |p: &[IpNet]| p.iter().map(IpNet::to_string).collect::<Vec<_>>().join(" ");
    let ctx = DecodeContext { extended_next_hop: true, ..DecodeContext::default() };
    let mut said = Vec::new();
    while let Some(frame) = next_frame(wire, true).unwrap() {
        said.push(match Message::decode(&frame, ctx).unwrap() {
            Message::Update(Update { end_of_rib: Some(family), .. }) => format!("end {family:?}"),
            Message::Update(u) if u.reach.is_empty() => format!("withdraw {}", join(&u.withdrawn)),
            Message::Update(u) => format!("announce {}", join(&u.reach[0].prefixes)),
            Message::RouteRefresh(r) => format!("refresh {} {:?}", r.subtype, r.family.unwrap()),
            other => panic!("{other:?}"),
        });
        wire = &wire[frame.len..];
    }
    said
}

const END: [&str; 2] = ["end Ipv4Unicast", "end Ipv6Unicast"];

#[test]
fn a_new_session_is_told_everything_then_end_of_rib() {
    let mut rib = AdjRibOut::new(dual_stack(), &wanted(&["192.0.2.1/32", "2001:db8:1::/48"]));
    let said = say(&mut rib);
    assert_eq!(said[..2], ["announce 192.0.2.1/32", "announce 2001:db8:1::/48"]);
    assert_eq!(said[2..], END);
    assert!(rib.is_settled());
    assert_eq!(say(&mut rib), [""; 0], "and nothing twice");
}

#[test]
fn only_differences_are_said() {
    let mut rib = AdjRibOut::new(context(), &wanted(&["192.0.2.1/32", "192.0.2.2/32"]));
    say(&mut rib);
    rib.handle_wanted(&wanted(&["192.0.2.2/32", "192.0.2.3/32"]));
    assert_eq!(say(&mut rib), ["withdraw 192.0.2.1/32", "announce 192.0.2.3/32"]);
    rib.handle_wanted(&with_med(&["192.0.2.2/32", "192.0.2.3/32"], 7));
    assert_eq!(say(&mut rib), ["announce 192.0.2.2/32 192.0.2.3/32"], "replaced, in one message");
}

#[test]
fn a_flap_while_the_peer_does_not_read_is_not_said() {
    let mut rib = AdjRibOut::new(context(), &wanted(&["192.0.2.1/32"]));
    say(&mut rib);
    for _ in 0..1000 {
        rib.handle_wanted(&wanted(&[]));
        rib.handle_wanted(&with_med(&["192.0.2.1/32"], 9));
        rib.handle_wanted(&wanted(&["192.0.2.1/32"]));
    }
    assert!(rib.is_settled());
    assert_eq!(say(&mut rib), [""; 0]);
    rib.handle_wanted(&wanted(&[]));
    rib.handle_wanted(&with_med(&["192.0.2.1/32"], 9));
    assert_eq!(say(&mut rib), ["announce 192.0.2.1/32"], "the last state alone");
}

#[test]
fn a_withdrawal_overtakes_announcements_that_wait() {
    let many: Wanted = (0..5000u32)
        .map(|n| (IpNet::from(IpAddr::from(Ipv4Addr::from(n))), Announcement::default()))
        .collect();
    let mut rib = AdjRibOut::new(context(), &wanted(&["192.0.2.1/32"]));
    say(&mut rib);
    rib.handle_wanted(&many);
    let mut wire = Vec::new();
    assert_eq!(rib.poll_updates(1, &mut wire), 1, "no more than the limit and one message");
    assert_eq!(read(&wire), ["withdraw 192.0.2.1/32"]);
    wire.clear();
    rib.poll_updates(1, &mut wire);
    assert!(wire.len() > 4000 && wire.len() <= 4096, "packed");
    let told: Vec<IpNet> = rib.told().map(|(p, _)| *p).collect();
    assert!(told.len() > 700 && told.len() < 5000);
    // Half told, and now nothing is wanted: what was told is taken back, the rest never said.
    rib.handle_wanted(&wanted(&[]));
    let said = say(&mut rib);
    assert_eq!(said.len(), 1);
    assert_eq!(said[0].split(' ').count() - 1, told.len());
}

#[test]
fn a_refresh_says_it_all_again_between_markers() {
    let both = wanted(&["192.0.2.1/32", "2001:db8:1::/48"]);
    let mut rib = AdjRibOut::new(dual_stack(), &both);
    say(&mut rib);
    rib.handle_refresh(Family::Ipv4Unicast);
    rib.handle_refresh(Family::Ipv4Unicast);
    let expected = ["refresh 1 Ipv4Unicast", "announce 192.0.2.1/32", "refresh 2 Ipv4Unicast"];
    assert_eq!(say(&mut rib), expected);
    rib.handle_refresh(Family::Ipv6Unicast);
    rib.handle_wanted(&wanted(&["192.0.2.1/32"]));
    let said = say(&mut rib);
    let expected = ["withdraw 2001:db8:1::/48", "refresh 1 Ipv6Unicast", "refresh 2 Ipv6Unicast"];
    assert_eq!(said, expected, "a route lost meanwhile is withdrawn");
    let mut plain = AdjRibOut::new(ExportContext { enhanced_refresh: false, ..context() }, &both);
    say(&mut plain);
    plain.handle_refresh(Family::Ipv4Unicast);
    assert_eq!(say(&mut plain), ["announce 192.0.2.1/32"]);
}

#[test]
fn what_cannot_be_said_is_named() {
    let cases: [(&str, ExportContext, Wanted, &str); 4] = [
        ("no next hop", context(), wanted(&["2001:db8:1::/48"]), "no IPv6 next hop"),
        (
            "no family",
            ExportContext { families: Families { ipv4: true, ipv6: false }, ..dual_stack() },
            wanted(&["2001:db8:1::/48"]),
            "family not negotiated",
        ),
        (
            "too long",
            context(),
            change(wanted(&["192.0.2.1/32"]), |bgp| bgp.communities = vec![(1, 1); 2000]),
            "attributes longer than a message",
        ),
        (
            "wrong family",
            context(),
            change(wanted(&["192.0.2.1/32"]), |bgp| bgp.next_hop = "2001:db8::9".parse().ok()),
            "next hop of another family",
        ),
    ];
    for (what, ctx, wanted, reason) in cases {
        let rib = AdjRibOut::new(ctx, &wanted);
        let reasons: Vec<_> = rib.unannounceable().values().copied().collect();
        assert_eq!(reasons, [reason], "{what}");
        assert_eq!(rib.told_count(), 0);
    }
}

/// The attributes of the only UPDATE said.
fn attributes(ctx: ExportContext, bgp: BgpAttributes) -> Update {
    let prefix: IpNet = "192.0.2.1/32".parse().unwrap();
    let wanted = Wanted::from([(prefix, Announcement { bgp, ospf: None })]);
    let mut rib = AdjRibOut::new(ctx, &wanted);
    let mut wire = Vec::new();
    rib.poll_updates(1, &mut wire);
    let frame = next_frame(&wire, true).unwrap().unwrap();
    let ctx =
        DecodeContext { internal: ctx.internal, extended_next_hop: true, ..Default::default() };
    match Message::decode(&frame, ctx).unwrap() {
        Message::Update(update) => update,
        other => panic!("{other:?}"),
    }
}

#[test]
fn attributes_are_those_of_the_session() {
    let bgp = BgpAttributes {
        med: Some(5),
        local_preference: Some(200),
        prepend: 2,
        link_bandwidth: Some(1_250_000.0.into()),
        communities: vec![(65535, 0)],
        ..BgpAttributes::default()
    };
    let external = attributes(context(), bgp.clone()).attributes;
    assert_eq!(external.as_path, AsPath::repeated(65001, 3));
    assert_eq!(external.local_preference, None, "not to be told outside");
    assert_eq!(external.med, Some(5));
    assert_eq!(external.communities, [(65535, 0)]);
    let [kind, subtype, hi, lo, bandwidth @ ..] = external.extended_communities[0];
    assert_eq!([kind, subtype], [0x40, 0x04]);
    assert_eq!(u16::from_be_bytes([hi, lo]), 65001);
    assert_eq!(f32::from_be_bytes(bandwidth).to_bits(), 1_250_000f32.to_bits());
    assert_eq!(external.only_to_customer, None);

    let internal = attributes(ExportContext { internal: true, ..context() }, bgp).attributes;
    assert_eq!(internal.as_path, AsPath::default(), "our AS would be a loop");
    assert_eq!(internal.local_preference, Some(200));

    let seller = ExportContext { only_to_customer: true, ..context() };
    let marked = attributes(seller, BgpAttributes::default()).attributes;
    assert_eq!(marked.only_to_customer, Some(65001), "RFC 9234 §5");
}

#[test]
fn next_hops_are_self_or_set_or_extended() {
    let next_hop = |ctx, bgp| attributes(ctx, bgp).reach[0].next_hop.address;
    let none = BgpAttributes::default();
    assert_eq!(next_hop(context(), none.clone()), IpAddr::from([10, 0, 0, 1]));
    let set = BgpAttributes { next_hop: Some(IpAddr::from([10, 9, 9, 9])), ..none.clone() };
    assert_eq!(next_hop(context(), set), IpAddr::from([10, 9, 9, 9]));
    let extended = ExportContext { extended_next_hop: true, ..dual_stack() };
    let v6: IpAddr = "2001:db8::1".parse().unwrap();
    assert_eq!(next_hop(extended, none.clone()), v6, "RFC 8950 where agreed");
    assert_eq!(next_hop(dual_stack(), none), IpAddr::from([10, 0, 0, 1]), "else not");
}
