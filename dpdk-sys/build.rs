//! Generates the bindings to the system's libdpdk and compiles the C wrappers.
//!
//! Nothing generated is kept in git: the installed headers decide. Without DPDK, `--features stub` or
//! `UVS_DPDK_STUB=1` builds the hand-written declarations of `src/stub.rs` instead.

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Oldest DPDK that the bindings were proven with.
const DPDK_MINIMUM: &str = "22.11";

/// Bound functions, alphabetically. Static inlines (`rte_eth_rx_burst` …) get a C wrapper each.
const FUNCTIONS: &[&str] = &[
    "rte_dev_probe",
    "rte_dev_remove",
    "rte_eal_cleanup",
    "rte_eal_get_runtime_dir",
    "rte_eal_init",
    "rte_eal_remote_launch",
    "rte_eal_wait_lcore",
    "rte_eth_allmulticast_disable",
    "rte_eth_allmulticast_enable",
    "rte_eth_dev_close",
    "rte_eth_dev_configure",
    "rte_eth_dev_default_mac_addr_set",
    "rte_eth_dev_get_mtu",
    "rte_eth_dev_get_name_by_port",
    "rte_eth_dev_get_port_by_name",
    "rte_eth_dev_info_get",
    "rte_eth_dev_rss_hash_conf_get",
    "rte_eth_dev_rss_hash_update",
    "rte_eth_dev_rss_reta_query",
    "rte_eth_dev_rss_reta_update",
    "rte_eth_dev_set_mtu",
    "rte_eth_dev_socket_id",
    "rte_eth_dev_start",
    "rte_eth_dev_stop",
    "rte_eth_find_next",
    "rte_eth_link_get_nowait",
    "rte_eth_macaddr_get",
    "rte_eth_promiscuous_disable",
    "rte_eth_promiscuous_enable",
    "rte_eth_promiscuous_get",
    "rte_eth_rx_burst",
    "rte_eth_rx_queue_setup",
    "rte_eth_stats_get",
    "rte_eth_stats_reset",
    "rte_eth_tx_burst",
    "rte_eth_tx_queue_setup",
    "rte_eth_xstats_get",
    "rte_eth_xstats_get_names",
    "rte_get_next_lcore",
    "rte_get_tsc_hz",
    "rte_lcore_cpuset",
    "rte_lcore_id",
    "rte_mempool_avail_count",
    "rte_mempool_free",
    "rte_mempool_in_use_count",
    "rte_pktmbuf_alloc",
    "rte_pktmbuf_alloc_bulk",
    "rte_pktmbuf_free",
    "rte_pktmbuf_free_bulk",
    "rte_pktmbuf_linearize",
    "rte_pktmbuf_pool_create_by_ops",
    "rte_rdtsc",
    "rte_version",
    "uvs_log_redirect",
    "uvs_rte_errno",
];

/// Plain integer macros whose values are the installed build's choice.
const VARIABLES: &[&str] =
    &["RTE_MAX_ETHPORTS", "RTE_MAX_LCORE", "RTE_MEMPOOL_CACHE_MAX_SIZE", "RTE_PKTMBUF_HEADROOM"];

/// Types that no bound function names but the safe layer uses.
const TYPES: &[&str] = &["rte_eth_rss_reta_entry64"];

/// Packed types with over-aligned members, which bindgen cannot lay out (rust-bindgen#2179), and types
/// of which only pointers are handled.
const OPAQUE: &[&str] = &[
    "rte_arp_hdr",
    "rte_arp_ipv4",
    "rte_device",
    "rte_ecpri_.*",
    "rte_eth_dcb_.*",
    "rte_eth_vmdq_.*",
    "rte_gtp_psc_generic_hdr",
    "rte_l2tpv2_.*",
    "rte_mempool",
];

fn main() -> ExitCode {
    println!("cargo::rustc-check-cfg=cfg(dpdk_stub)");
    println!("cargo::rerun-if-env-changed=UVS_DPDK_STUB");
    for file in ["build.rs", "wrapper.h", "shim.h", "shim.c", "src/constants.rs"] {
        println!("cargo::rerun-if-changed={file}");
    }
    let stub = env::var_os("CARGO_FEATURE_STUB").is_some()
        || env::var_os("UVS_DPDK_STUB").is_some_and(|value| !value.is_empty() && value != "0");
    if stub {
        println!("cargo::rustc-cfg=dpdk_stub");
        return ExitCode::SUCCESS;
    }
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in error.to_string().lines() {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let dpdk = pkg_config::Config::new().atleast_version(DPDK_MINIMUM).probe("libdpdk").map_err(|error| {
        format!(
            "DPDK {DPDK_MINIMUM} or newer is needed and pkg-config does not find it. On Debian: \
             apt-get install libdpdk-dev pkg-config. Without DPDK, for documentation and clippy only: \
             --features dpdk-sys/stub or UVS_DPDK_STUB=1.\npkg-config said: {error}"
        )
    })?;

    // pkg-config's crate keeps directories and definitions only; `-include` and `-march` are not in its
    // lists, and both change what the headers declare.
    let mut flags: Vec<String> =
        dpdk.include_paths.iter().map(|path| format!("-I{}", path.display())).collect();
    // _GNU_SOURCE: CPU sets and fopencookie.
    flags.extend(["-include", "rte_config.h", "-D_GNU_SOURCE", "-DALLOW_EXPERIMENTAL_API"].map(String::from));
    if env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("x86_64") {
        flags.push("-march=corei7".to_owned());
    }

    let wrappers = out.join("static_fns.c");
    generate(&flags, &out, &wrappers)?;
    let asserts = out.join("asserts.c");
    fs::write(&asserts, constant_assertions(&fs::read_to_string("src/constants.rs")?)?)?;
    compile(&flags, &[Path::new("shim.c"), &wrappers, &asserts])
}

fn generate(flags: &[String], out: &Path, wrappers: &Path) -> Result<(), Box<dyn Error>> {
    let mut builder = bindgen::Builder::default()
        .header("wrapper.h")
        .clang_args(flags)
        .use_core()
        .rust_edition(bindgen::RustEdition::Edition2024)
        .prepend_enum_name(false)
        .derive_default(true)
        .layout_tests(true)
        .generate_comments(false)
        .wrap_static_fns(true)
        .wrap_static_fns_path(wrappers)
        .allowlist_recursively(true);
    for name in FUNCTIONS {
        builder = builder.allowlist_function(format!("^{name}$"));
    }
    for name in VARIABLES {
        builder = builder.allowlist_var(format!("^{name}$"));
    }
    for name in TYPES {
        builder = builder.allowlist_type(format!("^{name}$"));
    }
    for name in OPAQUE {
        builder = builder.opaque_type(name);
    }
    // bindgen panics when it cannot load libclang; the default hook's backtrace would bury the advice.
    panic::set_hook(Box::new(|_| {}));
    let generated = panic::catch_unwind(panic::AssertUnwindSafe(move || builder.generate()));
    let _ = panic::take_hook();
    let bindings = generated.map_err(|cause| {
        let text = cause
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| cause.downcast_ref::<&str>().copied())
            .unwrap_or("no reason given");
        format!(
            "the bindings to DPDK could not be generated, most likely because libclang is missing. On \
             Debian: apt-get install libclang-dev (or set LIBCLANG_PATH).\nbindgen said: {text}"
        )
    })??;
    bindings.write_to_file(out.join("bindings.rs"))?;
    Ok(())
}

/// One `_Static_assert` per `pub const NAME: TYPE = VALUE;` line of `constants.rs`.
fn constant_assertions(source: &str) -> Result<String, Box<dyn Error>> {
    let mut text = String::from("#include \"wrapper.h\"\n");
    for line in source.lines() {
        let Some(rest) = line.strip_prefix("pub const ") else { continue };
        let (name, rest) = rest.split_once(": ").ok_or("constants.rs: a constant without a type")?;
        let (kind, rest) = rest.split_once(" = ").ok_or("constants.rs: a constant without a value")?;
        let value = rest.trim_end_matches(';').replace('_', "");
        let cast = if kind == "u64" { "unsigned long long" } else { "unsigned int" };
        writeln!(
            text,
            "_Static_assert(({cast})({name}) == {value}ull, \"{name} differs from src/constants.rs\");"
        )?;
    }
    Ok(text)
}

fn compile(flags: &[String], sources: &[&Path]) -> Result<(), Box<dyn Error>> {
    let mut build = cc::Build::new();
    build.include(".").files(sources).opt_level(2).warnings(false);
    for flag in flags {
        build.flag(flag);
    }
    build.try_compile("uvs_dpdk_shim").map_err(|error| {
        format!(
            "the C wrappers for DPDK could not be compiled. A C compiler is needed (on Debian: apt-get \
             install gcc libc6-dev); a failed assertion means that src/constants.rs does not fit this \
             DPDK.\n{error}"
        )
        .into()
    })
}
