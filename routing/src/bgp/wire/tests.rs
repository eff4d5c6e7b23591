//! NOTIFICATION codes for wrong bytes (RFC 4271 §6, RFC 7606), by the byte; shapes of what we
//! send. Round trips and independent decoders: `tests/bgp_codec.rs`.

use super::*;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr};

/// Hex with spaces; `M` is the marker.
fn bytes(hex: &str) -> Vec<u8> {
    let hex = hex.replace('M', &"ff".repeat(16)).replace(char::is_whitespace, "");
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

fn decode(wire: &[u8], ctx: DecodeContext) -> Result<Option<Message>, Notification> {
    match next_frame(wire, false)? {
        Some(frame) => Message::decode(&frame, ctx).map(Some),
        None => Ok(None),
    }
}

/// An UPDATE with these attributes and this NLRI.
fn update(attributes: &str, nlri: &str) -> Vec<u8> {
    let (attributes, nlri) = (bytes(attributes), bytes(nlri));
    let mut wire = bytes("M 0000 02 0000");
    wire.extend_from_slice(&(attributes.len() as u16).to_be_bytes());
    wire.extend_from_slice(&attributes);
    wire.extend_from_slice(&nlri);
    let len = (wire.len() as u16).to_be_bytes();
    wire[16..18].copy_from_slice(&len);
    wire
}

#[test]
fn wrong_bytes_get_the_notification_the_rfc_names() {
    let cases: &[(&str, &str, (u8, u8), &str)] = &[
        ("marker not all ones", "00ffffffffffffffffffffffffffffff 0013 04", (1, 1), ""),
        ("length below the header's", "M 0012 04", (1, 2), "0012"),
        ("length above 4096", "M 1001 02", (1, 2), "1001"),
        ("KEEPALIVE with a body", "M 0014 04 00", (1, 2), "0014"),
        ("OPEN too short", "M 001c 01", (1, 2), "001c"),
        ("UPDATE too short", "M 0016 02", (1, 2), "0016"),
        ("NOTIFICATION too short", "M 0014 03", (1, 2), "0014"),
        ("type 0", "M 0013 00", (1, 3), "00"),
        ("type 6", "M 0013 06", (1, 3), "06"),
        ("version 3", "M 001d 01 03 fde8 005a 0a000001 00", (2, 1), "0004"),
        ("AS 0 (RFC 7607)", "M 001d 01 04 0000 005a 0a000001 00", (2, 2), ""),
        ("four-octet AS 0", "M 0025 01 04 5ba0 005a 0a000001 08 02 06 41 04 00000000", (2, 2), ""),
        ("identifier 0.0.0.0", "M 001d 01 04 fde8 005a 00000000 00", (2, 3), ""),
        ("hold time 1", "M 001d 01 04 fde8 0001 0a000001 00", (2, 6), ""),
        ("hold time 2", "M 001d 01 04 fde8 0002 0a000001 00", (2, 6), ""),
        ("unknown parameter", "M 001f 01 04 fde8 005a 0a000001 02 01 00", (2, 4), ""),
        ("parameters shorter than said", "M 001d 01 04 fde8 005a 0a000001 04", (2, 0), ""),
        ("parameter past the end", "M 001f 01 04 fde8 005a 0a000001 02 02 05", (2, 0), ""),
        (
            "capability past its parameter",
            "M 0021 01 04 fde8 005a 0a000001 04 02 02 01 04",
            (2, 0),
            "",
        ),
        (
            "four-octet AS of three octets",
            "M 0024 01 04 fde8 005a 0a000001 07 02 05 41 03 000001",
            (2, 0),
            "",
        ),
        ("withdrawn routes past the end", "M 0017 02 0005 0000", (3, 1), ""),
        ("attributes past the end", "M 0017 02 0000 0005", (3, 1), ""),
        ("withdrawn prefix of 33 bits", "M 001d 02 0006 21 0a000001 00 0000", (3, 10), ""),
        ("ROUTE-REFRESH of three octets", "M 0016 05 000100", (7, 1), "000100"),
        ("ROUTE-REFRESH of five octets", "M 0018 05 0001000100", (7, 1), "0001000100"),
    ];
    for (what, hex, code, data) in cases {
        let error = decode(&bytes(hex), DecodeContext::default()).expect_err(what);
        assert_eq!((error.code, error.subcode), *code, "{what}: {error}");
        assert_eq!(error.data, bytes(data), "{what}: data");
    }
}

#[test]
fn a_message_is_awaited_until_whole() {
    let whole = bytes("M 0013 04");
    for n in 0..whole.len() {
        assert_eq!(next_frame(&whole[..n], false), Ok(None), "{n} octets");
    }
    let frame = next_frame(&whole, false).unwrap().unwrap();
    assert_eq!((frame.kind, frame.len), (MessageKind::Keepalive, 19));
    let long = bytes("M ffff 02");
    assert_eq!(next_frame(&long, true), Ok(None), "RFC 8654: 65535 octets where agreed");
    assert!(next_frame(&bytes("M 1001 01"), true).is_err(), "but never an OPEN");
}

const ORIGIN: &str = "400101 00";
const PATH: &str = "400206 0201 0000fde8";
const HOP: &str = "400304 0a000001";

/// What becomes of `10.1.2.0/24` announced with these attributes.
#[derive(Debug, PartialEq)]
enum Fate {
    Announced,
    Withdrawn,
    Discarded(u32),
    Reset(u8, u8),
}

fn fate(attributes: &str, ctx: DecodeContext) -> Fate {
    match decode(&update(attributes, "18 0a0102"), ctx) {
        Err(n) => Fate::Reset(n.code, n.subcode),
        Ok(Some(Message::Update(u))) => match (u.reach.len(), u.withdrawn.len(), u.discarded) {
            (1, 0, 0) => Fate::Announced,
            (1, 0, n) => Fate::Discarded(n),
            (0, 1, _) if u.treated_as_withdraw.is_some() => Fate::Withdrawn,
            other => panic!("{attributes}: {other:?}"),
        },
        other => panic!("{attributes}: {other:?}"),
    }
}

#[test]
fn malformed_attributes_are_treated_as_rfc_7606_says() {
    use Fate::{Announced, Discarded, Reset, Withdrawn};
    let base = format!("{ORIGIN} {PATH} {HOP}");
    let with = |more: &str| format!("{base} {more}");
    let cases: &[(&str, String, Fate)] = &[
        ("all well", base.clone(), Announced),
        ("ORIGIN missing", format!("{PATH} {HOP}"), Withdrawn),
        ("AS_PATH missing", format!("{ORIGIN} {HOP}"), Withdrawn),
        ("NEXT_HOP missing", format!("{ORIGIN} {PATH}"), Withdrawn),
        ("§7.1 ORIGIN of two octets", format!("400102 0000 {PATH} {HOP}"), Withdrawn),
        ("§7.1 ORIGIN 3", format!("400101 03 {PATH} {HOP}"), Withdrawn),
        ("§7.2 empty segment", format!("{ORIGIN} 400202 0200 {HOP}"), Withdrawn),
        ("§7.2 segment past the end", format!("{ORIGIN} 400206 0202 0000fde8 {HOP}"), Withdrawn),
        ("§7.2 segment type 5", format!("{ORIGIN} 400206 0501 0000fde8 {HOP}"), Withdrawn),
        ("§7.3 NEXT_HOP of five octets", format!("{ORIGIN} {PATH} 400305 0a00000100"), Withdrawn),
        ("§7.4 MED of three octets", with("800403 000001"), Withdrawn),
        ("§7.5 LOCAL_PREF from outside", with("400504 00000064"), Discarded(1)),
        ("§7.6 ATOMIC_AGGREGATE with a value", with("400601 00"), Discarded(1)),
        ("§7.7 AGGREGATOR of six octets", with("c00706 fde80a000001"), Discarded(1)),
        ("§7.8 COMMUNITIES of three octets", with("c00803 000001"), Withdrawn),
        ("§7.8 COMMUNITIES empty", with("c00800"), Withdrawn),
        ("§7.9 ORIGINATOR_ID from outside", with("800901 00"), Discarded(1)),
        ("§7.10 CLUSTER_LIST from outside", with("800a01 00"), Discarded(1)),
        ("§7.11 MP_REACH_NLRI cut short", with("800e03 000201"), Reset(3, 9)),
        ("§7.11 next hop of 15 octets", with("800e05 000201 0f00"), Reset(3, 9)),
        ("§7.12 MP_UNREACH_NLRI cut short", with("800f02 0002"), Reset(3, 9)),
        ("§7.12 prefix of 129 bits", with("800f04 000201 81"), Reset(3, 9)),
        ("§7.14 EXTENDED COMMUNITIES of seven", with("c01007 00000000000000"), Withdrawn),
        ("RFC 8092 LARGE COMMUNITY of eight", with("c02008 0000000000000000"), Withdrawn),
        ("RFC 6793 AS4_PATH from a four-octet speaker", with("c01106 020100000001"), Discarded(1)),
        ("§3 c ORIGIN marked optional", format!("c00101 00 {PATH} {HOP}"), Withdrawn),
        ("§3 c MED marked transitive", with("c00404 00000001"), Withdrawn),
        ("§3 g MED twice: the first counts", with("800404 00000001 800404 00000002"), Discarded(1)),
        ("§3 g MP_UNREACH_NLRI twice", with("800f03 000201 800f03 000201"), Reset(3, 1)),
        ("§4 attribute past the list", with("c008ff 0000"), Withdrawn),
        ("§4 half an attribute head", with("c0"), Withdrawn),
        ("unknown optional attribute", with("c06302 0000"), Announced),
        ("unknown well-known attribute", with("406300"), Reset(3, 2)),
        ("unknown family in MP_REACH_NLRI", with("800e05 001901 0000"), Announced),
    ];
    for (what, attributes, expected) in cases {
        assert_eq!(fate(attributes, DecodeContext::default()), *expected, "{what}");
    }
    let internal = DecodeContext { internal: true, ..DecodeContext::default() };
    assert_eq!(fate(&with("400504 00000064"), internal), Announced, "LOCAL_PREF within the AS");
    assert_eq!(fate(&with("400503 000064"), internal), Withdrawn, "§7.5 of three octets");
    assert_eq!(fate(&with("800903 000000"), internal), Withdrawn, "§7.9 of three octets");
    assert_eq!(fate(&with("800a05 0000000000"), internal), Withdrawn, "§7.10 of five octets");
}

#[test]
fn invalid_prefixes_end_the_session() {
    let base = format!("{ORIGIN} {PATH} {HOP}");
    for nlri in ["21 0a00000100", "18 0a01"] {
        let error = decode(&update(&base, nlri), DecodeContext::default()).unwrap_err();
        assert_eq!((error.code, error.subcode), (3, 10), "{nlri}");
    }
}

#[test]
fn a_path_through_a_two_octet_speaker_is_made_whole() {
    // AS_PATH 65000 23456 23456, AS4_PATH 4200000001 4200000002 (RFC 6793 §4.2.3).
    let attributes = "400101 00 400208 0203 fde8 5ba0 5ba0 400304 0a000001 \
                      c0110a 0202 fa56ea01 fa56ea02";
    let ctx = DecodeContext { four_octet_as: false, ..DecodeContext::default() };
    let Ok(Some(Message::Update(update))) = decode(&update(attributes, "18 0a0102"), ctx) else {
        panic!("not an UPDATE");
    };
    let path = &update.attributes.as_path;
    assert_eq!(path.hops(), 3);
    assert_eq!(path.first(), Some(65000));
    assert!(path.contains(4_200_000_001) && path.contains(4_200_000_002));
    assert!(!path.contains(u32::from(AS_TRANS)));
}

#[test]
fn end_of_rib_is_the_empty_update_of_a_family() {
    for (family, hex) in [
        (Family::Ipv4Unicast, "M 0017 02 0000 0000"),
        (Family::Ipv6Unicast, "M 001d 02 0000 0006 800f03 000201"),
    ] {
        let mut wire = Vec::new();
        encode_end_of_rib(family, &mut wire);
        assert_eq!(wire, bytes(hex));
        let Ok(Some(Message::Update(update))) = decode(&wire, DecodeContext::default()) else {
            panic!("not an UPDATE");
        };
        assert_eq!(update.end_of_rib, Some(family));
    }
}

#[test]
fn a_full_message_holds_what_fits_and_no_more() {
    let prefixes: Vec<IpNet> =
        (0..2000u32).map(|i| IpNet::from(IpAddr::from(Ipv4Addr::from(i)))).collect();
    let next_hop = NextHop { address: IpAddr::V4(Ipv4Addr::LOCALHOST), link_local: None };
    let template =
        AnnounceTemplate::new(Family::Ipv4Unicast, &Attributes::default(), next_hop, true);
    let mut rest = prefixes.iter().peekable();
    let mut wire = Vec::new();
    let n = template.encode(&mut rest, MAX_MESSAGE, &mut wire);
    assert_eq!(n, (MAX_MESSAGE - template.overhead()) / 5);
    assert!(wire.len() <= MAX_MESSAGE && wire.len() > MAX_MESSAGE - 5);
    assert_eq!(rest.peek(), Some(&&prefixes[n]), "the next one is still there");
    let huge = Attributes { communities: vec![(1, 1); 20_000], ..Attributes::default() };
    let template = AnnounceTemplate::new(Family::Ipv4Unicast, &huge, next_hop, true);
    assert_eq!(template.encode(&mut rest, MAX_EXTENDED_MESSAGE, &mut wire), 0);
}

#[test]
fn an_administrative_message_is_cut_at_a_character() {
    let text = "é".repeat(200);
    let n = Notification::shutdown(cease::ADMIN_SHUTDOWN, &text);
    assert_eq!(n.data.len(), 255, "length octet and 127 characters of two");
    assert_eq!(n.shutdown_message(), Some("é".repeat(127)));
    assert_eq!(Notification::shutdown(cease::ADMIN_SHUTDOWN, "").data, b"");
    let hostile =
        Notification::with_data(code::CEASE, cease::ADMIN_RESET, b"\x05a\x1b[2J".to_vec());
    assert_eq!(hostile.shutdown_message().unwrap(), "a\u{fffd}[2J", "no terminal escapes");
    let short = Notification::with_data(code::CEASE, cease::ADMIN_RESET, vec![9, b'x']);
    assert_eq!(short.shutdown_message(), None);
}

#[test]
fn extended_optional_parameters_are_read() {
    // RFC 9072: 255, 255, two octets of length; the same capability twice over.
    let wire = bytes("M 0029 01 04 fde8 005a 0a000001 ff ff 0009 02 0006 41 04 00010000");
    let Ok(Some(Message::Open(open))) = decode(&wire, DecodeContext::default()) else {
        panic!("not an OPEN");
    };
    assert_eq!(open.asn, 65536);
    assert!(open.capabilities.families.ipv4, "the default family");
}

#[test]
fn a_long_prepend_is_split_into_segments() {
    let path = AsPath::repeated(65001, 256);
    assert_eq!(path.0.len(), 2);
    assert_eq!(path.hops(), 256);
}
