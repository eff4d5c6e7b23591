//! The BGP codec against itself and against two independent decoders: whatever we send means the
//! same to `netgauze-bgp-pkt` and `rustbgpd-wire` as to us. Garbage never panics, and what is
//! accepted of it survives a round trip.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::codec::BgpCodec;
use netgauze_bgp_pkt::community::Community;
use netgauze_bgp_pkt::path_attribute as netgauze;
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use routing::bgp::wire::{
    AnnounceTemplate, AsPath, Attributes, Capabilities, DecodeContext, Families, Family,
    GracefulRestart, MAX_EXTENDED_MESSAGE, MAX_MESSAGE, Message, NextHop, Notification, Open,
    Origin, Role, RouteRefresh, Segment, Update, encode_withdrawal, next_frame,
};
use rustbgpd_wire as rustbgpd;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tokio_util::bytes::{Bytes, BytesMut};
use tokio_util::codec::Decoder;

/// What an UPDATE means, in nobody's vocabulary.
#[derive(Debug, Default, PartialEq)]
struct Meaning {
    announced: Vec<IpNet>,
    withdrawn: Vec<IpNet>,
    next_hop: Option<(IpAddr, Option<Ipv6Addr>)>,
    origin: Option<u8>,
    /// Segment type and ASes.
    path: Vec<(u8, Vec<u32>)>,
    med: Option<u32>,
    local_preference: Option<u32>,
    communities: Vec<u32>,
    extended: Vec<[u8; 8]>,
    large: Vec<(u32, u32, u32)>,
    only_to_customer: Option<u32>,
}

fn ours(wire: &[u8], ctx: DecodeContext) -> Meaning {
    let frame = next_frame(wire, true).unwrap().unwrap();
    assert_eq!(frame.len, wire.len(), "one message");
    let Message::Update(update) = Message::decode(&frame, ctx).unwrap() else {
        panic!("not an UPDATE");
    };
    assert_eq!(update.treated_as_withdraw, None);
    let Update { withdrawn, reach, attributes: a, .. } = update;
    let announces = !reach.is_empty();
    Meaning {
        withdrawn,
        next_hop: reach.first().map(|r| (r.next_hop.address, r.next_hop.link_local)),
        announced: reach.into_iter().flat_map(|r| r.prefixes).collect(),
        origin: announces.then_some(a.origin as u8),
        path: a.as_path.0.into_iter().map(segment).collect(),
        med: a.med,
        local_preference: a.local_preference,
        communities: a
            .communities
            .iter()
            .map(|&(h, l)| u32::from(h) << 16 | u32::from(l))
            .collect(),
        extended: a.extended_communities,
        large: a.large_communities,
        only_to_customer: a.only_to_customer,
    }
}

fn segment(segment: Segment) -> (u8, Vec<u32>) {
    match segment {
        Segment::Set(a) => (1, a),
        Segment::Sequence(a) => (2, a),
        Segment::ConfedSequence(a) => (3, a),
        Segment::ConfedSet(a) => (4, a),
    }
}

fn netgauze(wire: &[u8]) -> Meaning {
    use netgauze::PathAttributeValue as Value;
    let mut buffer = BytesMut::from(wire);
    let (message, errors) = BgpCodec::new(true).decode(&mut buffer).unwrap().unwrap();
    assert!(errors.path_attr_errors().is_empty(), "{errors:?}");
    assert!(errors.non_unicast_update_nlri().is_empty(), "{errors:?}");
    let BgpMessage::Update(update) = message else { panic!("not an UPDATE") };
    let mut m = Meaning {
        announced: update.nlri().iter().map(|n| n.network().address().into()).collect(),
        withdrawn: update.withdraw_routes().iter().map(|n| n.network().address().into()).collect(),
        ..Meaning::default()
    };
    for attribute in update.path_attributes() {
        match attribute.value() {
            Value::Origin(origin) => m.origin = Some(*origin as u8),
            Value::AsPath(netgauze::AsPath::As4PathSegments(segments)) => {
                let all = segments.iter();
                m.path = all.map(|s| (s.segment_type().into(), s.as_numbers().to_vec())).collect();
            }
            Value::NextHop(hop) => m.next_hop = Some((hop.next_hop().into(), None)),
            Value::MultiExitDiscriminator(med) => m.med = Some(med.metric()),
            Value::LocalPreference(p) => m.local_preference = Some(p.metric()),
            Value::Communities(c) => {
                m.communities = c.communities().iter().map(Community::value).collect();
            }
            Value::ExtendedCommunities(c) => {
                // Parsed into kinds there; the octets are compared by the other decoder.
                m.extended = vec![[0; 8]; c.communities().len()];
            }
            Value::LargeCommunities(c) => {
                let all = c.communities().iter();
                m.large =
                    all.map(|c| (c.global_admin(), c.local_data1(), c.local_data2())).collect();
            }
            Value::OnlyToCustomer(asn) => m.only_to_customer = Some(asn.asn()),
            Value::MpReach(netgauze::MpReach::Ipv4Unicast { next_hop, next_hop_local, nlri }) => {
                m.next_hop = Some((*next_hop, *next_hop_local));
                m.announced = nlri.iter().map(|n| n.network().address().into()).collect();
            }
            Value::MpReach(netgauze::MpReach::Ipv6Unicast {
                next_hop_global,
                next_hop_local,
                nlri,
            }) => {
                m.next_hop = Some(((*next_hop_global).into(), *next_hop_local));
                m.announced = nlri.iter().map(|n| n.network().address().into()).collect();
            }
            Value::MpUnreach(netgauze::MpUnreach::Ipv6Unicast { nlri }) => {
                m.withdrawn = nlri.iter().map(|n| n.network().address().into()).collect();
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    m
}

fn rustbgpd(wire: &[u8]) -> Meaning {
    use rustbgpd::PathAttribute as Attribute;
    let mut buffer = Bytes::copy_from_slice(wire);
    let message = rustbgpd::decode_message(&mut buffer, u16::MAX).unwrap();
    let rustbgpd::Message::Update(update) = message else { panic!("not an UPDATE") };
    let update = update.parse(true, false, &[]).unwrap();
    let v4 = |p: rustbgpd::Ipv4Prefix| IpNet::V4(Ipv4Net::new(p.addr, p.len).unwrap());
    let any = |p: rustbgpd::Prefix| match p {
        rustbgpd::Prefix::V4(p) => v4(p),
        rustbgpd::Prefix::V6(p) => IpNet::V6(Ipv6Net::new(p.addr, p.len).unwrap()),
    };
    let mut m = Meaning {
        announced: update.announced.iter().map(|n| v4(n.prefix)).collect(),
        withdrawn: update.withdrawn.iter().map(|n| v4(n.prefix)).collect(),
        ..Meaning::default()
    };
    for attribute in update.attributes {
        match attribute {
            Attribute::Origin(origin) => m.origin = Some(origin as u8),
            Attribute::AsPath(path) => {
                m.path = path
                    .segments
                    .into_iter()
                    .map(|s| match s {
                        rustbgpd::AsPathSegment::AsSet(a) => (1, a),
                        rustbgpd::AsPathSegment::AsSequence(a) => (2, a),
                    })
                    .collect();
            }
            Attribute::NextHop(hop) => m.next_hop = Some((hop.into(), None)),
            Attribute::Med(med) => m.med = Some(med),
            Attribute::LocalPref(p) => m.local_preference = Some(p),
            Attribute::Communities(c) => m.communities = c,
            Attribute::ExtendedCommunities(c) => {
                m.extended = c.iter().map(|c| c.as_u64().to_be_bytes()).collect();
            }
            Attribute::LargeCommunities(c) => {
                m.large =
                    c.iter().map(|c| (c.global_admin, c.local_data1, c.local_data2)).collect();
            }
            Attribute::OnlyToCustomer(asn) => m.only_to_customer = Some(asn),
            Attribute::MpReachNlri(reach) => {
                m.next_hop = Some((reach.next_hop, reach.link_local_next_hop));
                m.announced = reach.announced.iter().map(|n| any(n.prefix)).collect();
            }
            Attribute::MpUnreachNlri(unreach) => {
                m.withdrawn = unreach.withdrawn.iter().map(|n| any(n.prefix)).collect();
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    m
}

/// All three agree.
fn compare(wire: &[u8]) -> Meaning {
    let internal =
        DecodeContext { internal: true, extended_next_hop: true, ..DecodeContext::default() };
    let meaning = ours(wire, internal);
    assert_eq!(rustbgpd(wire), meaning);
    let blurred = Meaning { extended: vec![[0; 8]; meaning.extended.len()], ..netgauze(wire) };
    let expected = Meaning { extended: blurred.extended.clone(), ..ours(wire, internal) };
    assert_eq!(blurred, expected);
    meaning
}

fn v4_prefix() -> impl Strategy<Value = IpNet> {
    // netgauze refuses multicast in unicast NLRI.
    (any::<u32>(), 1..=32u8).prop_map(|(bits, len)| {
        let address = Ipv4Addr::from(bits & 0x7fff_ffff);
        IpNet::V4(Ipv4Net::new(address, len).unwrap().trunc())
    })
}

fn v6_prefix() -> impl Strategy<Value = IpNet> {
    (any::<u128>(), 3..=128u8).prop_map(|(bits, len)| {
        let address = Ipv6Addr::from(bits >> 3 | 1 << 125);
        IpNet::V6(Ipv6Net::new(address, len).unwrap().trunc())
    })
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let large = btree_set((any::<u32>(), any::<u32>(), any::<u32>()), 0..40);
    let communities = (
        vec((any::<u16>(), any::<u16>()), 0..80),
        vec(any::<[u8; 8]>(), 0..40),
        large.prop_map(|l| l.into_iter().collect()),
    );
    (
        0..3u8,
        vec((any::<bool>(), vec(1..=u32::MAX, 1..70)), 0..4),
        option::of(any::<u32>()),
        option::of(any::<u32>()),
        communities,
        option::of(1..=u32::MAX),
    )
        .prop_map(|(origin, path, med, preference, communities, otc)| Attributes {
            origin: [Origin::Igp, Origin::Egp, Origin::Incomplete][usize::from(origin)],
            as_path: AsPath(
                path.into_iter()
                    .map(|(set, a)| if set { Segment::Set(a) } else { Segment::Sequence(a) })
                    .collect(),
            ),
            med,
            local_preference: preference,
            communities: communities.0,
            extended_communities: communities.1,
            large_communities: communities.2,
            only_to_customer: otc,
        })
}

fn next_hop(v6: bool) -> impl Strategy<Value = NextHop> {
    (any::<u32>(), any::<u64>(), option::of(any::<u64>())).prop_map(move |(a, b, ll)| NextHop {
        address: if v6 {
            Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(b)).into()
        } else {
            Ipv4Addr::from(a & 0x7fff_ffff).into()
        },
        link_local: ll.filter(|_| v6).map(|l| Ipv6Addr::from(0xfe80 << 112 | u128::from(l))),
    })
}

/// Packs everything, message after message; what the decoders understood, in order.
fn announce(template: &AnnounceTemplate, prefixes: &BTreeSet<IpNet>, max: usize) -> Vec<Meaning> {
    let mut rest = prefixes.iter().peekable();
    let mut meanings = Vec::new();
    while rest.peek().is_some() {
        let mut wire = Vec::new();
        let n = template.encode(&mut rest, max, &mut wire);
        assert!(n > 0, "{} octets of overhead leave room", template.overhead());
        assert!(wire.len() <= max);
        meanings.push(compare(&wire));
    }
    meanings
}

fn check_announcement(
    family: Family,
    attributes: &Attributes,
    next_hop: NextHop,
    prefixes: &BTreeSet<IpNet>,
    max: usize,
) {
    let template = AnnounceTemplate::new(family, attributes, next_hop, true);
    let meanings = announce(&template, prefixes, max);
    let all: Vec<IpNet> = meanings.iter().flat_map(|m| m.announced.iter().copied()).collect();
    assert_eq!(all, prefixes.iter().copied().collect::<Vec<_>>());
    for m in meanings {
        assert_eq!(m.next_hop, Some((next_hop.address, next_hop.link_local)));
        assert_eq!(m.med, attributes.med);
        assert_eq!(m.extended, attributes.extended_communities);
        assert_eq!(m.path.len(), attributes.as_path.0.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn three_decoders_agree_on_ipv4(
        attributes in attributes(),
        hop in next_hop(false),
        prefixes in btree_set(v4_prefix(), 1..900),
    ) {
        check_announcement(Family::Ipv4Unicast, &attributes, hop, &prefixes, MAX_MESSAGE);
    }

    #[test]
    fn three_decoders_agree_on_ipv6(
        attributes in attributes(),
        hop in next_hop(true),
        prefixes in btree_set(v6_prefix(), 1..300),
    ) {
        check_announcement(Family::Ipv6Unicast, &attributes, hop, &prefixes, MAX_MESSAGE);
    }

    #[test]
    fn three_decoders_agree_on_ipv4_over_ipv6(
        attributes in attributes(),
        hop in next_hop(true),
        prefixes in btree_set(v4_prefix(), 1..300),
    ) {
        check_announcement(Family::Ipv4Unicast, &attributes, hop, &prefixes, MAX_EXTENDED_MESSAGE);
    }

    #[test]
    fn three_decoders_agree_on_withdrawals(
        v4 in btree_set(v4_prefix(), 1..900),
        v6 in btree_set(v6_prefix(), 1..300),
    ) {
        for (family, prefixes) in [(Family::Ipv4Unicast, &v4), (Family::Ipv6Unicast, &v6)] {
            let mut rest = prefixes.iter().peekable();
            let mut gone = Vec::new();
            while rest.peek().is_some() {
                let mut wire = Vec::new();
                prop_assert!(encode_withdrawal(family, &mut rest, MAX_MESSAGE, &mut wire) > 0);
                prop_assert!(wire.len() <= MAX_MESSAGE);
                gone.extend(compare(&wire).withdrawn);
            }
            prop_assert_eq!(gone, prefixes.iter().copied().collect::<Vec<_>>());
        }
    }

    /// Toward a two-octet speaker the real path travels in AS4_PATH (RFC 6793 §4.2.2).
    #[test]
    fn a_two_octet_speaker_learns_the_real_path(asn in 1..=u32::MAX, count in 1..300usize) {
        let attributes = Attributes { as_path: AsPath::repeated(asn, count), ..Attributes::default() };
        let hop = NextHop { address: IpAddr::V4(Ipv4Addr::LOCALHOST), link_local: None };
        let template = AnnounceTemplate::new(Family::Ipv4Unicast, &attributes, hop, false);
        let prefix: IpNet = "192.0.2.0/24".parse().unwrap();
        let mut wire = Vec::new();
        template.encode(&mut [prefix].iter().peekable(), MAX_MESSAGE, &mut wire);
        let ctx = DecodeContext { four_octet_as: false, ..DecodeContext::default() };
        let path = ours(&wire, ctx).path;
        prop_assert_eq!(path.iter().map(|(_, a)| a.len()).sum::<usize>(), count);
        prop_assert!(path.iter().all(|(_, a)| a.iter().all(|a| *a == asn)));
    }

    #[test]
    fn open_survives_a_round_trip(
        asn in 1..=u32::MAX,
        hold_time in prop_oneof![Just(0), 3..=u16::MAX],
        // netgauze refuses multicast identifiers, which RFC 6286 allows.
        id in 1..0xe000_0000u32,
        flags in any::<[bool; 6]>(),
        role in option::of(0..5u8),
        restart in option::of((any::<bool>(), 0..4096u16, any::<bool>())),
    ) {
        use Role::{Customer, Peer, Provider, RouteServer, RouteServerClient};
        let open = Open {
            asn,
            hold_time,
            router_id: Ipv4Addr::from(id),
            capabilities: Capabilities {
                families: Families { ipv4: !flags[0], ipv6: flags[0] || flags[1] },
                four_octet_as: true,
                route_refresh: flags[2],
                enhanced_route_refresh: flags[3],
                extended_message: flags[4],
                extended_next_hop: flags[5],
                graceful_restart: restart.map(|(restarting, restart_time, v4)| GracefulRestart {
                    restarting,
                    restart_time,
                    preserved: Families { ipv4: v4, ipv6: false },
                }),
                role: role.map(|r| {
                    [Provider, RouteServer, RouteServerClient, Customer, Peer][usize::from(r)]
                }),
                unknown: Vec::new(),
            },
        };
        let mut wire = Vec::new();
        open.encode(&mut wire);
        let frame = next_frame(&wire, false).unwrap().unwrap();
        prop_assert_eq!(Message::decode(&frame, DecodeContext::default()), Ok(Message::Open(open.clone())));

        let (message, _) = BgpCodec::new(true).decode(&mut BytesMut::from(&wire[..])).unwrap().unwrap();
        let BgpMessage::Open(theirs) = message else { panic!("not an OPEN") };
        prop_assert_eq!(theirs.my_asn4(), asn);
        prop_assert_eq!(theirs.hold_time(), hold_time);
        prop_assert_eq!(theirs.bgp_id(), open.router_id);

        let theirs = rustbgpd::decode_message(&mut Bytes::from(wire), 4096).unwrap();
        let rustbgpd::Message::Open(theirs) = theirs else { panic!("not an OPEN") };
        prop_assert_eq!(theirs.four_byte_as(), asn);
        prop_assert_eq!(theirs.bgp_identifier, open.router_id);
    }

    #[test]
    fn short_messages_mean_the_same_to_all(code in 1..9u8, subcode in any::<u8>(), data in vec(any::<u8>(), 0..100)) {
        let ours = Notification::with_data(code, subcode, data);
        let mut wire = Vec::new();
        ours.encode(&mut wire);
        let frame = next_frame(&wire, false).unwrap().unwrap();
        prop_assert_eq!(Message::decode(&frame, DecodeContext::default()), Ok(Message::Notification(ours.clone())));
        let theirs = rustbgpd::decode_message(&mut Bytes::from(wire), 4096).unwrap();
        let rustbgpd::Message::Notification(theirs) = theirs else { panic!("not a NOTIFICATION") };
        prop_assert_eq!(theirs.code.as_u8(), code);
        prop_assert_eq!((theirs.subcode, &theirs.data[..]), (subcode, &ours.data[..]));

        for (family, subtype) in [(Family::Ipv4Unicast, 0), (Family::Ipv6Unicast, 1)] {
            let mut wire = Vec::new();
            RouteRefresh::encode(family, subtype, &mut wire);
            let frame = next_frame(&wire, false).unwrap().unwrap();
            let expected = Message::RouteRefresh(RouteRefresh { family: Some(family), subtype });
            prop_assert_eq!(Message::decode(&frame, DecodeContext::default()), Ok(expected));
            let theirs = rustbgpd::decode_message(&mut Bytes::from(wire), 4096).unwrap();
            let rustbgpd::Message::RouteRefresh(theirs) = theirs else { panic!("another type") };
            prop_assert_eq!(theirs.afi_raw, family.afi());
            prop_assert_eq!((theirs.subtype_raw, theirs.safi_raw), (subtype, 1));
        }
    }

    /// Whatever the body, decoding answers.
    #[test]
    fn garbage_is_answered(kind in 1..6u8, body in vec(any::<u8>(), 0..300), four in any::<bool>(), internal in any::<bool>()) {
        let mut wire = vec![0xff; 16];
        wire.extend_from_slice(&(body.len() as u16 + 19).to_be_bytes());
        wire.push(kind);
        wire.extend_from_slice(&body);
        let ctx = DecodeContext { four_octet_as: four, internal, extended_next_hop: four, ..DecodeContext::default() };
        if let Ok(Some(frame)) = next_frame(&wire, false) {
            let _ = Message::decode(&frame, ctx);
        }
    }
}
