# shellcheck shell=bash
# Building the daemon, and finding it.

# Directory of uvsd and uvsctl: $UVS_BIN, or the release build.
bin_directory() { echo "${UVS_BIN:-${CARGO_TARGET_DIR:-$REPOSITORY/target}/release}"; }

build_release() {
    local started
    started=$(now_ms)
    title "Building uvsd and uvsctl (release; several minutes the first time)"
    (cd "$REPOSITORY" && cargo build --release --locked --bins) || die "the build failed; its messages are above"
    good "built in $((($(now_ms) - started) / 1000)) s"
}

require_binaries() {
    local program
    for program in uvsd uvsctl; do
        [[ -x $(bin_directory)/$program ]] || die "$(bin_directory)/$program is missing: build first, or leave --no-build away"
    done
    PATH=$(bin_directory):$PATH
}
