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

# True when the arithmetic expression holds.
holds() { (($1)); }
