# shellcheck shell=bash
# Claims and their proof.

CHECKS=0

# claim SENTENCE COMMAND…: prints the sentence with a tick when COMMAND succeeds, else ends the script with it.
claim() {
    local sentence=$1
    shift
    "$@" || die "not so: $sentence"
    CHECKS=$((CHECKS + 1))
    good "$sentence"
}

# within SECONDS SENTENCE COMMAND…: claims that COMMAND holds within SECONDS, and says how long that took.
within() {
    local seconds=$1 sentence=$2 started
    shift 2
    started=$(now_ms)
    wait_until "$seconds" "$@" || die "not so within $seconds s: $sentence"
    claim "$sentence (after $(($(now_ms) - started)) ms)" true
}

# True when the arithmetic expression holds.
holds() { (($1)); }
