#!/bin/bash
# Keeps `dualtrack serve` alive on the driver. dualtrack-init.sh starts it; SIGTERM ends it.
#
#   serve ends ─▶ wait, twice as long each time ─▶ serve
#   SIGTERM    ─▶ drain, for a bounded time ─▶ end serve, the same ─▶ the journal goes to DUALTRACK_RESCUE
set -u
umask 077

: "${DUALTRACK_DIR:?}" "${DUALTRACK_ADMIN_PORT:?}"
DRAIN_SECONDS="${DUALTRACK_DRAIN_SECONDS:-60}"
END_SECONDS="${DUALTRACK_END_SECONDS:-45}" # longer than shutdown.grace and shutdown.deliveries together
PAUSE_MIN="${DUALTRACK_PAUSE_MIN:-1}"
PAUSE_MAX="${DUALTRACK_PAUSE_MAX:-60}"
GOOD_SECONDS=300 # after so long the next failure is a new one
DUALTRACK="$DUALTRACK_DIR/venv/bin/dualtrack"
RESCUE="${DUALTRACK_RESCUE:-}"
ADMIN="http://127.0.0.1:$DUALTRACK_ADMIN_PORT"
UNREACHABLE=3 # the exit code of `dualtrack drain` that got no answer
child=
is_stopping=

log() {
    printf '%s supervisor: %s\n' "$(date -u +%FT%TZ)" "$*"
}

serve() { # in a session of its own: a signal to our group does not stop it before the drain
    setsid "$DUALTRACK" serve --config "$DUALTRACK_DIR/dualtrack.yaml" 9>&- &
    child=$!
    printf '%s\n' "$child" >"$DUALTRACK_DIR/serve.pid"
}

is_serving() {
    kill -0 "$child" 2>/dev/null
}

rest() { # a pause that a signal ends
    sleep "$1" 9>&- &
    wait $!
}

keep_serving() {
    local pause="$PAUSE_MIN" began code
    while [ -z "$is_stopping" ]; do
        began=$SECONDS
        serve
        while [ -z "$is_stopping" ] && is_serving; do # a mere `wait` would miss a signal that comes just before it
            rest 1
        done
        [ -z "$is_stopping" ] || return 0
        wait "$child"
        code=$?
        [ $((SECONDS - began)) -lt "$GOOD_SECONDS" ] || pause="$PAUSE_MIN"
        log "serve ended with code $code; again in $pause s"
        rest "$pause"
        pause=$((pause * 2 < PAUSE_MAX ? pause * 2 : PAUSE_MAX))
    done
}

drain() { # for DRAIN_SECONDS in all
    local end=$((SECONDS + DRAIN_SECONDS)) has_restarted="" code
    while :; do
        if ! is_serving; then # whoever ends all processes at once has ended serve too; its journal can still be delivered
            [ -z "$has_restarted" ] || return "$UNREACHABLE"
            has_restarted=yes
            serve
        fi
        setsid --wait "$DUALTRACK" drain --admin-url "$ADMIN" --timeout "$((end > SECONDS ? end - SECONDS : 1))s" 9>&-
        code=$?
        # no answer: serve starts, or ends, or is busy
        [ "$code" -eq "$UNREACHABLE" ] && [ "$SECONDS" -lt "$end" ] || return "$code"
        rest 0.5
    done
}

end_serve() {
    local end=$((SECONDS + END_SECONDS))
    is_serving && kill -TERM "$child"
    while is_serving; do
        [ "$SECONDS" -lt "$end" ] || kill -KILL "$child" # the journal stands that
        rest 0.5
    done
}

rescue() {
    [ -n "$RESCUE" ] && [ -e "$DUALTRACK_DIR/state/journal.db" ] || return 0
    local saved="$RESCUE/${DB_CLUSTER_ID:-cluster}.tar"
    # written in one go and named at the end: a volume is no disk
    if mkdir -p "$RESCUE" && tar -C "$DUALTRACK_DIR" -cf "$saved.part" state && mv "$saved.part" "$saved"; then
        log "the journal is in $saved"
    else
        log "the journal could not be written to $saved"
    fi
}

finish() {
    local code=0
    log "stopping: draining for up to $DRAIN_SECONDS s"
    drain || code=$?
    end_serve
    rescue # whatever the drain said: serve took writes until just now
    log "stopped; drain ended with code $code"
}

exec 9>"$DUALTRACK_DIR/lock"
flock --nonblock 9 || { log "another one runs"; exit 0; }
printf '%s\n' "$$" >"$DUALTRACK_DIR/supervisor.pid"
trap '' HUP
trap 'is_stopping=yes' TERM INT
keep_serving
trap : TERM INT # once is enough
finish
