# shellcheck shell=bash
# Building the daemon, its tools and the library for LVS's own tools, and finding them.

# For these scripts only: uvsd takes UVS_* for settings.
declare +x UVS_BIN

# Directory of uvsd, uvsctl and libuvs_ipvs.so: $UVS_BIN, or the release build.
bin_directory() { echo "${UVS_BIN:-${CARGO_TARGET_DIR:-$REPOSITORY/target}/release}"; }

build_release() {
    local started
    started=$(now_ms)
    title "Building uvsd, uvsctl and libuvs_ipvs.so (release; several minutes the first time)"
    (cd "$REPOSITORY" && cargo_build_release) || die "the build failed; its messages are above"
    good "built in $((($(now_ms) - started) / 1000)) s"
}

# The libraries, because one of them is what LVS's tools are run with.
cargo_build_release() { cargo build --release --locked --bins --lib; }

# Puts them into PATH, and before the distribution's ipvsadm the wrapper that an operator would have installed.
require_binaries() {
    local file
    for file in uvsd uvsctl libuvs_ipvs.so; do
        [[ -e $(bin_directory)/$file ]] || die "$(bin_directory)/$file is missing: build first, or leave --no-build away"
    done
    PATH=$REPOSITORY/scripts/wrappers:$(bin_directory):$PATH
}
