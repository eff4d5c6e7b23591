use super::*;

fn spec(requested: Requested) -> Spec {
    Spec {
        index: 1,
        name: "port1".into(),
        mac: [0x02, 0, 0, 0xab, 0xcd, 0xef],
        mtu: 1500,
        requested,
    }
}

/// What opens and what does not, on any machine.
const OPENS: &str = "/dev/null";
const MISSING: &str = "/dev/does-not-exist";

#[test]
fn the_kind_is_what_is_asked_for_or_else_what_there_is() {
    struct Case {
        requested: Requested,
        vhost_net: &'static str,
        expected: Option<Kind>,
    }
    let cases = [
        Case { requested: Requested::Auto, vhost_net: OPENS, expected: Some(Kind::VhostNet) },
        Case { requested: Requested::Auto, vhost_net: MISSING, expected: Some(Kind::Tap) },
        Case { requested: Requested::VhostNet, vhost_net: OPENS, expected: Some(Kind::VhostNet) },
        Case { requested: Requested::VhostNet, vhost_net: MISSING, expected: None },
        Case { requested: Requested::Tap, vhost_net: OPENS, expected: Some(Kind::Tap) },
    ];
    for Case { requested, vhost_net, expected } in cases {
        let planned = plan_with(&spec(requested), Path::new(vhost_net), Path::new(OPENS));
        let kind = planned.as_ref().ok().map(|plan| plan.kind);
        assert_eq!(kind, expected, "{requested:?} with {vhost_net}");
        if let Err(error) = planned {
            assert!(error.to_string().contains(vhost_net), "{error}");
        }
    }
}

#[test]
fn falling_back_says_why() {
    let plan = plan_with(&spec(Requested::Auto), Path::new(MISSING), Path::new(OPENS));
    let why = plan.expect("falls back").why;
    assert!(why.starts_with(MISSING) && why.contains("No such file"), "{why}");
}

#[test]
fn no_kind_works_without_tun() {
    for requested in [Requested::Auto, Requested::VhostNet, Requested::Tap] {
        let error = plan_with(&spec(requested), Path::new(OPENS), Path::new(MISSING));
        assert!(matches!(error, Err(Error::Device { .. })), "{requested:?}: {error:?}");
    }
}

#[test]
fn device_strings() {
    assert_eq!(
        vdev(Kind::VhostNet, &spec(Requested::Auto)),
        "virtio_user1,path=/dev/vhost-net,queues=1,queue_size=1024,iface=port1,\
         mac=02:00:00:ab:cd:ef"
    );
    assert_eq!(
        vdev(Kind::Tap, &spec(Requested::Auto)),
        "net_tap1,iface=port1,mac=02:00:00:ab:cd:ef"
    );
}

#[test]
fn names_that_the_kernel_dpdk_or_sysctl_would_misread_are_refused() {
    for good in ["a", "port0", "enp3s0f1", "dp-0_1.2", "fifteen-bytes-x"] {
        assert!(validate_name(good).is_ok(), "{good}");
    }
    let bad = [
        "",
        "sixteen-bytes-xx",
        "a/b",
        "a b",
        "a,mac=x",
        "a=b",
        "dtap%d",
        "a:1",
        ".",
        "..",
        "all",
        "default",
        "port\0",
        "pört",
    ];
    for bad in bad {
        assert!(matches!(validate_name(bad), Err(Error::InvalidName(_))), "{bad}");
    }
}

#[test]
fn macs_and_mtus_that_cannot_be_are_refused() {
    assert!(validate_mac([0; 6]).is_err());
    assert!(validate_mac([0xff; 6]).is_err());
    assert!(validate_mac([0x01, 0, 0x5e, 0, 0, 1]).is_err());
    assert!(validate_mac([0x02, 0, 0, 0, 0, 1]).is_ok());
    assert!(validate_mtu(1279).is_err());
    assert!(validate_mtu(1280).is_ok());
}
