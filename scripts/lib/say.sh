# shellcheck shell=bash
# Talking to the person at the terminal, and running what is shown.

if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
    BOLD=$'\e[1m' DIM=$'\e[2m' RED=$'\e[31m' GREEN=$'\e[32m' YELLOW=$'\e[33m' BLUE=$'\e[34m' PLAIN=$'\e[0m'
else
    BOLD='' DIM='' RED='' GREEN='' YELLOW='' BLUE='' PLAIN=''
fi

title() { printf '\n%s== %s%s\n' "$BOLD" "$*" "$PLAIN"; }
note() { printf '   %s\n' "$*"; }
quiet_note() { printf '   %s%s%s\n' "$DIM" "$*" "$PLAIN"; }
good() { printf ' %s✓%s %s\n' "$GREEN" "$PLAIN" "$*"; }
warn() { printf ' %s!%s %s\n' "$YELLOW" "$PLAIN" "$*" >&2; }
bad() { printf ' %s✗%s %s\n' "$RED" "$PLAIN" "$*" >&2; }

# Ends the script; the exit trap cleans up.
die() {
    bad "$*"
    exit 1
}

# What follows on standard input, indented.
quote() { sed 's/^/   | /'; }

# Prints COMMAND as an operator would type it on HOST, then runs it there and quotes its output.
show() {
    local host=$1 command=$2 status=0
    printf '   %s%s#%s %s%s%s\n' "$BLUE" "$host" "$PLAIN" "$BOLD" "$command" "$PLAIN"
    on "$host" "$command" 2>&1 | quote || status=$?
    ((status == 0)) || die "on $host this failed with status $status: $command"
}

# Calls COMMAND every 50 ms until it succeeds; fails after SECONDS.
wait_until() {
    local seconds=$1 deadline
    shift
    deadline=$(($(now_ms) + seconds * 1000))
    until "$@" >/dev/null 2>&1; do
        (($(now_ms) < deadline)) || return 1
        sleep 0.05
    done
}

now_ms() {
    local now=${EPOCHREALTIME/[.,]/}
    echo $((now / 1000))
}
