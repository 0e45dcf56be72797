# shellcheck shell=bash
# The director's books: every packet that came in has left, was handed to the kernel, or was dropped for a reason.

# One counter out of `uvsctl --json stats`, on standard input.
counter() { jq -r --arg name "$1" '[.counters[], .drops[] | select(.name == $name) | .value] | add // 0'; }

# Reads the terms of the law of conservation (on HOST, `director` where none is named): BOOKS_IN, BOOKS_OUT, BOOKS_TEXT; IMBALANCE is the daemon's own sum.
read_books() {
    local stats received injected generated transmitted punted dropped
    stats=$(on "${1:-director}" 'uvsctl --json stats')
    received=$(counter received <<<"$stats")
    injected=$(counter injected <<<"$stats")
    generated=$(counter generated <<<"$stats")
    transmitted=$(counter transmitted <<<"$stats")
    punted=$(jq '[.counters[] | select(.name | startswith("punted_")) | .value] | add' <<<"$stats")
    dropped=$(jq '[.drops[].value] | add' <<<"$stats")
    IMBALANCE=$(jq .imbalance <<<"$stats")
    BOOKS_IN=$((received + injected + generated))
    BOOKS_OUT=$((transmitted + punted + dropped))
    BOOKS_TEXT="received $received + injected $injected + generated $generated = $BOOKS_IN; transmitted $transmitted + punted $punted + dropped $dropped = $BOOKS_OUT"
}

balanced() { read_books "$@" && ((BOOKS_IN > 0 && BOOKS_IN == BOOKS_OUT && IMBALANCE == 0)); }

# True when the books balance. While frames are held or counters are being read a few may be in flight: three seconds.
conserved() {
    wait_until 3 balanced "$@" || { bad "$BOOKS_TEXT; the daemon's own imbalance: $IMBALANCE" && return 1; }
    note "$BOOKS_TEXT"
}

# What was dropped, by reason, in one line.
drops_in_words() {
    on director 'uvsctl --json stats' |
        jq -r '[.drops[] | select(.value > 0) | "\(.name) \(.value)"] | if length == 0 then "nothing" else join(", ") end'
}

# How long changes took to be published, and then to be used by every worker.
publish_times() {
    on director 'uvsctl --json stats' | jq -r '
        def times: "p50 \(.p50_us) µs, p99 \(.p99_us) µs, greatest \(.max_us) µs (\(.count) times)";
        "apply         \(.apply | times)", "grace period  \(.grace_period | times)"' | quote
}

# sum_of FIELD: of all destinations of all services.
sum_of() { on director 'uvsctl --json stats' | jq --arg field "$1" '[.destinations[][$field]] | add'; }
