//! Encoded by `netlink-packet-route`, decoded here.

use super::*;
use proptest::prelude::*;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::RouteNetlinkMessage as Encoded;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteLwEnCapType, RouteLwTunnelEncap, RouteMessage,
    RouteMetric, RouteNextHop, RouteNextHopFlags, RouteProtocol, RouteType, RouteVia,
};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn encode(message: Encoded) -> Vec<u8> {
    let mut message = NetlinkMessage::from(message);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// The single message of a datagram, and how much of it was malformed.
fn read(bytes: &[u8]) -> (Result<Message, Malformed>, u64) {
    let mut malformed = 0;
    let mut all = messages(bytes);
    let (header, payload) = all.next().expect("a message").expect("a good header");
    assert!(all.next().is_none());
    (decode(header.kind, payload, &mut malformed), malformed)
}

fn good(message: Encoded) -> Message {
    let (message, malformed) = read(&encode(message));
    assert_eq!(malformed, 0);
    message.expect("decodes")
}

fn link_message() -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = 7;
    message.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
    message.attributes = vec![
        LinkAttribute::IfName("port0".into()),
        LinkAttribute::TxQueueLen(1000),
        LinkAttribute::Mtu(1500),
        LinkAttribute::Address(MAC.to_vec()),
    ];
    message
}

fn route_message(family: AddressFamily, attributes: Vec<RouteAttribute>) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family,
        destination_prefix_length: if family == AddressFamily::Inet { 24 } else { 48 },
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Bgp,
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    message.attributes = attributes;
    message
}

fn route_of(family: AddressFamily, attributes: Vec<RouteAttribute>) -> RawRoute {
    match good(Encoded::NewRoute(route_message(family, attributes))) {
        Message::Route(route) => route,
        other => panic!("{other:?}"),
    }
}

fn v4(text: &str) -> RouteAddress {
    RouteAddress::Inet(text.parse().expect("address"))
}

fn v6(text: &str) -> RouteAddress {
    RouteAddress::Inet6(text.parse().expect("address"))
}

fn hop(ifindex: u32, hops: u8, flags: RouteNextHopFlags, via: RouteAttribute) -> RouteNextHop {
    let mut hop = RouteNextHop::default();
    hop.interface_index = ifindex;
    hop.hops = hops;
    hop.flags = flags;
    hop.attributes = vec![via];
    hop
}

#[test]
fn a_link_is_its_name_mac_mtu_and_flags() {
    let expected = LinkInfo {
        ifindex: 7,
        name: "port0".into(),
        mac: Some(MAC),
        mtu: 1500,
        up: true,
        carrier: true,
    };
    assert_eq!(good(Encoded::NewLink(link_message())), Message::Link(expected));
    assert_eq!(good(Encoded::DelLink(link_message())), Message::LinkGone { ifindex: 7 });
}

#[test]
fn a_bridge_losing_a_port_is_not_a_link_going_away() {
    let mut message = link_message();
    message.header.interface_family = AddressFamily::Bridge;
    assert_eq!(good(Encoded::DelLink(message)), Message::Other);
}

#[test]
fn a_link_with_one_bad_attribute_is_still_a_link() {
    let mut bytes = encode(Encoded::NewLink(link_message()));
    // Make the MTU (header 16, link header 16, name 4 + 6 padded to 12, queue length 8) two bytes
    // long. What follows is then read at the same place, thanks to the padding.
    let at = 16 + 16 + 12 + 8;
    assert_eq!(bytes[at + 2], IFLA_MTU as u8);
    bytes[at] = 6;
    let (message, malformed) = read(&bytes);
    let Ok(Message::Link(link)) = message else { panic!("{message:?}") };
    assert_eq!((link.mtu, link.mac, malformed), (0, Some(MAC), 1));
    // A length that runs past the end hides the rest, but not what was before.
    bytes[at] = 0xff;
    let (message, malformed) = read(&bytes);
    let Ok(Message::Link(link)) = message else { panic!("{message:?}") };
    assert_eq!((link.name.as_str(), link.mac, malformed), ("port0", None, 1));
}

#[test]
fn an_address_is_the_local_one_and_usable_once_checked() {
    struct Case {
        what: &'static str,
        flags: AddressFlags,
        usable: bool,
    }
    let cases = [
        Case { what: "permanent", flags: AddressFlags::Permanent, usable: true },
        Case { what: "tentative", flags: AddressFlags::Tentative, usable: false },
        Case {
            what: "optimistic (RFC 4429)",
            flags: AddressFlags::Tentative.union(AddressFlags::Optimistic),
            usable: true,
        },
        Case { what: "duplicate", flags: AddressFlags::Dadfailed, usable: false },
    ];
    for case in cases {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet6;
        message.header.prefix_len = 64;
        message.header.index = 7;
        message.header.flags = AddressHeaderFlags::from_bits_retain(case.flags.bits() as u8);
        message.attributes = vec![
            AddressAttribute::Address("2001:db8::1".parse().expect("address")),
            AddressAttribute::Flags(case.flags),
        ];
        let Message::Address(info) = good(Encoded::NewAddress(message)) else { panic!() };
        assert_eq!(info.net, "2001:db8::1/64".parse().expect("prefix"), "{}", case.what);
        assert_eq!(
            (info.usable, info.gone, info.ifindex),
            (case.usable, false, 7),
            "{}",
            case.what
        );
    }
    // Point to point: IFA_ADDRESS is the other end.
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = 32;
    message.attributes = vec![
        AddressAttribute::Address("192.0.2.2".parse().expect("address")),
        AddressAttribute::Local("192.0.2.1".parse().expect("address")),
    ];
    let Message::Address(info) = good(Encoded::DelAddress(message)) else { panic!() };
    assert_eq!((info.net, info.gone), ("192.0.2.1/32".parse().expect("prefix"), true));
}

#[test]
fn a_neighbour_is_its_address_mac_and_state() {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = 7;
    message.header.state = NeighbourState::Stale;
    message.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::Inet([192, 0, 2, 2].into())),
        NeighbourAttribute::LinkLayerAddress(MAC.to_vec()),
        NeighbourAttribute::Probes(3),
    ];
    let expected = NeighbourInfo {
        gone: false,
        ifindex: 7,
        address: [192, 0, 2, 2].into(),
        mac: Some(MAC),
        state: 4,
    };
    assert_eq!(good(Encoded::NewNeighbour(message.clone())), Message::Neighbour(expected.clone()));
    let gone = NeighbourInfo { gone: true, ..expected.clone() };
    assert_eq!(good(Encoded::DelNeighbour(message.clone())), Message::Neighbour(gone));
    // Infiniband and the like: not an Ethernet address.
    message.attributes[1] = NeighbourAttribute::LinkLayerAddress(vec![0; 20]);
    let other = NeighbourInfo { mac: None, ..expected };
    assert_eq!(good(Encoded::NewNeighbour(message.clone())), Message::Neighbour(other));
    // Bridge forwarding entries are not neighbours.
    message.header.family = AddressFamily::Bridge;
    message.attributes.clear();
    assert_eq!(good(Encoded::NewNeighbour(message)), Message::Other);
}

#[test]
fn a_route_with_one_gateway() {
    let route = route_of(
        AddressFamily::Inet,
        vec![
            RouteAttribute::Destination(v4("203.0.113.0")),
            RouteAttribute::Gateway(v4("192.0.2.2")),
            RouteAttribute::Oif(7),
            RouteAttribute::Priority(20),
            RouteAttribute::Metrics(vec![RouteMetric::Mtu(1400)]),
            // Beyond what fits the header's byte.
            RouteAttribute::Table(1000),
        ],
    );
    assert_eq!(route.prefix, "203.0.113.0/24".parse().expect("prefix"));
    assert_eq!((route.metric, route.table, route.protocol, route.kind), (20, 1000, 186, 1));
    let expected = RawNextHop { via: Some([192, 0, 2, 2].into()), ifindex: 7, weight: 1, flags: 0 };
    assert_eq!(route.next_hops, [expected]);
}

#[test]
fn a_default_route_has_no_destination() {
    let mut message =
        route_message(AddressFamily::Inet6, vec![RouteAttribute::Gateway(v6("fe80::1"))]);
    message.header.destination_prefix_length = 0;
    let Message::Route(route) = good(Encoded::NewRoute(message)) else { panic!() };
    assert_eq!(route.prefix, "::/0".parse().expect("prefix"));
}

#[test]
fn multipath_has_weights_flags_and_gateways_of_either_family() {
    let via6 = RouteAttribute::Via(RouteVia::Inet6("fe80::2".parse().expect("address")));
    let route = route_of(
        AddressFamily::Inet,
        vec![
            RouteAttribute::Destination(v4("203.0.113.0")),
            RouteAttribute::MultiPath(vec![
                hop(7, 2, RouteNextHopFlags::empty(), RouteAttribute::Gateway(v4("192.0.2.2"))),
                hop(8, 255, RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown, via6),
            ]),
        ],
    );
    let expected = [
        RawNextHop { via: Some([192, 0, 2, 2].into()), ifindex: 7, weight: 3, flags: 0 },
        RawNextHop {
            via: Some("fe80::2".parse().expect("address")),
            ifindex: 8,
            weight: 256,
            flags: RTNH_F_DEAD | RTNH_F_LINKDOWN,
        },
    ];
    assert_eq!(route.next_hops, expected);
}

#[test]
fn tunnels_and_next_hop_objects_are_noticed() {
    let destination = RouteAttribute::Destination(v6("2001:db8::"));
    let object = route_of(AddressFamily::Inet6, vec![destination.clone(), RouteAttribute::NhId(5)]);
    assert_eq!((object.next_hop_id, object.next_hops.len()), (Some(5), 0));
    let tunnel = route_of(
        AddressFamily::Inet6,
        vec![
            destination,
            RouteAttribute::Oif(7),
            RouteAttribute::Encap(vec![RouteLwTunnelEncap::Other(
                rtnetlink::packet_core::DefaultNla::new(1, vec![0; 4]),
            )]),
            RouteAttribute::EncapType(RouteLwEnCapType::Mpls),
        ],
    );
    assert!(tunnel.encap);
}

#[test]
fn a_route_with_an_unreadable_gateway_is_refused() {
    let mut bytes = encode(Encoded::NewRoute(route_message(
        AddressFamily::Inet,
        vec![RouteAttribute::Gateway(v4("192.0.2.2"))],
    )));
    bytes[16 + 12] = 7;
    assert_eq!(read(&bytes).0, Err(Malformed));
}

#[test]
fn a_removed_route_is_only_its_table() {
    let message = route_message(AddressFamily::Inet, vec![RouteAttribute::Oif(7)]);
    assert_eq!(good(Encoded::DelRoute(message)), Message::RouteGone { table: 254 });
}

#[test]
fn the_kernels_words_come_with_its_errno() {
    // errno, the request's header, then NLMSGERR_ATTR_MSG.
    let mut payload = (-101i32).to_ne_bytes().to_vec();
    payload.extend([0; 16]);
    payload.extend(20u16.to_ne_bytes());
    payload.extend(1u16.to_ne_bytes());
    payload.extend(b"Nexthop is gone\0");
    let header = Header { kind: NLMSG_ERROR, flags: 0x200, sequence: 1 };
    assert_eq!(outcome(header, &payload), Ok((101, "Nexthop is gone".to_owned())));
    let done = Header { kind: NLMSG_DONE, flags: 0, sequence: 1 };
    assert_eq!(outcome(done, &[]), Ok((0, String::new())));
    assert_eq!(outcome(header, &[1, 2]), Err(Malformed));
}

#[test]
fn several_messages_share_a_datagram_and_one_cut_short_ends_it() {
    let mut bytes = encode(Encoded::NewLink(link_message()));
    let one = bytes.len();
    bytes.extend(encode(Encoded::DelLink(link_message())));
    assert_eq!(messages(&bytes).flatten().count(), 2);
    for cut in 1..one {
        let all: Vec<_> = messages(&bytes[..one + cut]).collect();
        assert_eq!((all.len(), all[0].is_ok(), all[1].is_ok()), (2, true, false), "cut at {cut}");
    }
}

#[test]
fn the_encoder_of_the_tests_agrees_with_itself() {
    let bytes = encode(Encoded::NewLink(link_message()));
    let back = NetlinkMessage::<Encoded>::deserialize(&bytes).expect("decodes");
    assert!(matches!(back.payload, NetlinkPayload::InnerMessage(Encoded::NewLink(_))));
}

proptest! {
    /// Whatever the bytes: no panic, no endless loop, and at most one error, the last item.
    #[test]
    fn garbage_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let mut malformed = 0;
        let all: Vec<_> = messages(&bytes).collect();
        prop_assert!(all.len() <= bytes.len() / 16 + 1);
        prop_assert!(all.iter().rev().skip(1).all(Result::is_ok));
        for (header, payload) in all.into_iter().flatten() {
            let _ = decode(header.kind, payload, &mut malformed);
            let _ = outcome(header, payload);
        }
    }

    /// Payloads of every kind that we read, with garbage after a plausible beginning.
    #[test]
    fn garbage_attributes_are_survived(
        kind in prop::sample::select(vec![16u16, 17, 20, 21, 24, 25, 28, 29, 104]),
        family in prop::sample::select(vec![0u8, 2, 10, 7]),
        bytes in proptest::collection::vec(any::<u8>(), 0..256),
        attributes in proptest::collection::vec(
            (0u16..32, proptest::collection::vec(any::<u8>(), 0..24)), 0..8),
    ) {
        let mut payload = bytes;
        payload.resize(if kind < 20 { 16 } else { 12 }, 0);
        payload[0] = family;
        for (kind, value) in attributes {
            payload.extend((value.len() as u16 + 4).to_ne_bytes());
            payload.extend(kind.to_ne_bytes());
            payload.extend(&value);
            payload.resize(payload.len().next_multiple_of(4), 0);
        }
        let mut malformed = 0;
        if let Ok(Message::Route(route)) = decode(kind, &payload, &mut malformed) {
            prop_assert!(route.next_hops.iter().all(|hop| (1..=256).contains(&hop.weight)));
        }
    }
}
