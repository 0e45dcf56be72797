# shellcheck shell=bash
# The director's books: every packet that came in has left, was handed to the kernel, or was dropped for a reason.

# The terms of the law of conservation, as shell assignments.
BOOKS='"received=\(.received) injected=\(.injected) generated=\(.generated) transmitted=\(.transmitted) punted=\(.punted) dropped=\(.dropped) in_flight=\(.in_flight // 0)"'

read_books() {
    local received injected generated transmitted punted dropped in_flight
    eval "local $(on director 'uvsctl --json stats' | jq -r "$BOOKS")"
    BOOKS_IN=$((received + injected + generated))
    BOOKS_OUT=$((transmitted + punted + dropped + in_flight))
    BOOKS_TEXT="received $received + injected $injected + generated $generated = $BOOKS_IN; transmitted $transmitted + punted $punted + dropped $dropped + in flight $in_flight = $BOOKS_OUT"
}

balanced() { read_books && ((BOOKS_IN > 0 && BOOKS_IN == BOOKS_OUT)); }

# True when the books balance; counters of workers are read one after the other, so it is given three seconds of rest.
conserved() {
    wait_until 3 balanced || { bad "$BOOKS_TEXT" && return 1; }
    note "$BOOKS_TEXT"
}

# How long changes took to be published and workers to pass, as the daemon measured it.
publish_times() { note "publish times: later"; }
answers_bypassed_director() { true; }
