# shellcheck shell=bash
# Namespaces need root; building does not.

as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -- "$@"
    else
        die "root is needed for: $* (neither root nor sudo here)"
    fi
}

# Runs the calling script again as root, unless it is already; to be called before anything was set up.
become_root() {
    ((EUID != 0)) || return 0
    command -v sudo >/dev/null || die "this needs root, or sudo: it makes network namespaces"
    exec sudo -- env PATH="$PATH" NO_COLOR="${NO_COLOR:-}" UVS_BIN="$(bin_directory)" "$0" "$@"
}
