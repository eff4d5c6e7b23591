//! Finds libdpdk, generates the bindings and compiles the shim.
//!
//! Nothing here depends on the DPDK version: names that moved between versions are taken as
//! constants from the headers themselves (see c/wrapper.h).

use std::env;
use std::path::PathBuf;
use std::process::exit;

/// Oldest version tried. Debian 12 has 22.11, Debian 13 has 24.11.
const OLDEST: &str = "22.11";

/// What we call directly. The rest comes along by the libraries' own dependencies, and drivers are
/// plugins that EAL loads. `rte_log` is part of `rte_eal` before 24.03.
const LIBRARIES: &[&str] = &["rte_ethdev", "rte_mbuf", "rte_mempool", "rte_eal", "rte_log"];

const FUNCTIONS: &[&str] = &[
    "dpdk_sys_.*",
    "rte_version",
    "rte_strerror",
    "rte_eal_(init|cleanup|hotplug_add|hotplug_remove)",
    "rte_thread_(register|unregister)",
    "rte_openlog_stream",
    "rte_log_cur_msg_loglevel",
    "rte_get_tsc_hz",
    "rte_(malloc_socket|free|socket_id)",
    "rte_pktmbuf_(pool_create|free_bulk)",
    "rte_mempool_(avail_count|free)",
    "rte_eth_dev_(info_get|configure|start|stop|close|socket_id|is_valid_port)",
    "rte_eth_dev_(get_port_by_name|adjust_nb_rx_tx_desc)",
    "rte_eth_dev_(get_mtu|set_mtu|default_mac_addr_set)",
    "rte_eth_dev_(rss_reta_update|rss_reta_query|rss_hash_conf_get)",
    "rte_eth_dev_rx_intr_(ctl_q_get_fd|enable|disable)",
    "rte_eth_(rx|tx)_queue_setup",
    "rte_eth_(macaddr_get|promiscuous_enable|allmulticast_enable)",
    "rte_eth_(stats_get|xstats_get|xstats_get_names)",
    "rte_flow_destroy",
];

fn main() {
    println!("cargo:rerun-if-changed=c/wrapper.h");
    println!("cargo:rerun-if-changed=c/shim.c");

    let dpdk = match pkg_config::Config::new()
        .atleast_version(OLDEST)
        .cargo_metadata(false)
        .env_metadata(true)
        .probe("libdpdk")
    {
        Ok(found) => found,
        Err(error) => give_up(&error.to_string()),
    };
    for path in &dpdk.link_paths {
        println!("cargo:rustc-link-search=native={}", path.display());
    }
    for library in LIBRARIES.iter().filter(|l| dpdk.libs.iter().any(|d| d == **l)) {
        println!("cargo:rustc-link-lib=dylib={library}");
    }
    println!("cargo:version={}", dpdk.version);

    // `-include rte_config.h -march=...`: the crate pkg-config keeps only paths and defines.
    let flags = match other_cflags() {
        Ok(flags) => flags,
        Err(error) => give_up(&error),
    };
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    generate(&dpdk, &flags, &out);
    compile(&dpdk, &flags);
}

fn generate(dpdk: &pkg_config::Library, flags: &[String], out: &std::path::Path) {
    let mut builder = bindgen::Builder::default()
        .header("c/wrapper.h")
        .clang_args(dpdk.include_paths.iter().map(|p| format!("-I{}", p.display())))
        .clang_args(flags)
        // The vector types behind these are of no use to us and differ between compilers.
        .opaque_type("rte_mbuf")
        .opaque_type("rte_mempool")
        .opaque_type("rte_device")
        .no_copy("rte_eth_fp_ops")
        .allowlist_type("rte_eth_fp_ops")
        .allowlist_var("rte_eth_fp_ops")
        .allowlist_var("DPDK_SYS_.*")
        .layout_tests(false)
        .generate_comments(false)
        .derive_default(true)
        .use_core()
        .rust_edition(bindgen::RustEdition::Edition2024);
    for function in FUNCTIONS {
        builder = builder.allowlist_function(function);
    }
    let bindings = match builder.generate() {
        Ok(bindings) => bindings,
        Err(error) => give_up(&format!("bindgen: {error}")),
    };
    bindings.write_to_file(out.join("bindings.rs")).expect("OUT_DIR is writable");
}

fn compile(dpdk: &pkg_config::Library, flags: &[String]) {
    let mut build = cc::Build::new();
    build.file("c/shim.c").includes(&dpdk.include_paths).opt_level(3);
    for flag in flags {
        build.flag(flag);
    }
    // The headers' own warnings are not ours to fix.
    build.warnings(false).compile("dpdk_sys_shim");
}

/// The flags of `pkg-config --cflags` that are neither `-I` nor `-D`.
fn other_cflags() -> Result<Vec<String>, String> {
    let program = env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
    let output = std::process::Command::new(program)
        .args(["--cflags-only-other", "libdpdk"])
        .output()
        .map_err(|e| format!("pkg-config: {e}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

fn give_up(cause: &str) -> ! {
    eprintln!(
        "\ndpdk-sys needs the DPDK development files, version {OLDEST} or later, and libclang.\n\
         On Debian: `cargo xtask setup`, or `apt-get install libdpdk-dev libclang-dev pkg-config`.\n\
         To build without DPDK (packet path, control plane and their tests): \
         `cargo build --no-default-features`.\n\n\
         {cause}\n"
    );
    exit(1);
}
