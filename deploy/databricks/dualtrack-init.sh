#!/bin/bash
# Cluster-scoped init script: dualtrack on the driver, and the way to it on every node. README.md beside this file.
#
#   driver   install ─▶ supervise ─▶ wait until it is ready      ─▶ point Spark at it
#   worker                           wait until the driver's is  ─▶ point Spark at it
#
# Whatever goes wrong, the cluster starts: the exit code is 0, the log says why, and MLflow goes where it went before.
# Secrets are in the environment (spark_env_vars); nothing here writes one to a disk.
set -u
umask 077

export DUALTRACK_DIR="${DUALTRACK_DIR:-/local_disk0/dualtrack}"          # on the node's own disk: the journal needs one
export DUALTRACK_PORT="${DUALTRACK_PORT:-5000}"
export DUALTRACK_ADMIN_PORT="${DUALTRACK_ADMIN_PORT:-5001}"
export DUALTRACK_HOST="${DUALTRACK_HOST:-${DB_CONTAINER_IP:-127.0.0.1}}" # what executors reach
SOURCE="${DUALTRACK_SOURCE:-}"                                            # the volume with the wheel and dualtrack.yaml
PYTHON="${DUALTRACK_PYTHON:-/databricks/python3/bin/python3}"
SPARK_ENV="${DUALTRACK_SPARK_ENV:-/databricks/spark/conf/spark-env.sh}"
RESCUE="${DUALTRACK_RESCUE:-}"
INSTALL_SECONDS="${DUALTRACK_INSTALL_SECONDS:-300}"
READY_SECONDS="${DUALTRACK_READY_SECONDS:-60}"
WORKER_SECONDS="${DUALTRACK_WORKER_SECONDS:-180}"
VENV="$DUALTRACK_DIR/venv"
URI="http://${DB_DRIVER_IP:-127.0.0.1}:$DUALTRACK_PORT"
MARK='# dualtrack'

log() {
    printf '%s dualtrack: %s\n' "$(date -u +%FT%TZ)" "$*"
}

# --- the driver -----------------------------------------------------------------------------------------------------

run_driver() {
    mkdir -p "$DUALTRACK_DIR/state" || return 1
    check_source && install_wheel && restore_state && start_supervisor && point_spark
}

check_source() {
    [ -n "${MLFLOW_TRACKING_TOKEN:-}" ] || { log "MLFLOW_TRACKING_TOKEN is not set: see spark_env_vars in README.md"; return 1; }
    [ -f "$SOURCE/dualtrack.yaml" ] || { log "no dualtrack.yaml in DUALTRACK_SOURCE ('$SOURCE')"; return 1; }
    [ -f "$SOURCE/dualtrack-supervise.sh" ] || { log "no dualtrack-supervise.sh in DUALTRACK_SOURCE ('$SOURCE')"; return 1; }
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { log "$PYTHON is not Python 3.11 or newer"; return 1; }
}

install_wheel() {
    local wheel sum
    wheel=$(find "$SOURCE" -maxdepth 1 -name 'dualtrack-*.whl' | sort -V | tail -n 1)
    [ -n "$wheel" ] || { log "no dualtrack-*.whl in DUALTRACK_SOURCE ('$SOURCE')"; return 1; }
    sum=$(sha256sum <"$wheel") || return 1
    if [ "$(cat "$DUALTRACK_DIR/installed" 2>/dev/null)" = "$sum" ]; then
        log "$(basename "$wheel") is installed"
        return 0
    fi
    log "installing $(basename "$wheel") into $VENV"
    if ! { make_venv && pip_install "$wheel"; } >"$DUALTRACK_DIR/install.log" 2>&1; then
        log "the installation failed; the end of $DUALTRACK_DIR/install.log:"
        tail -n 20 "$DUALTRACK_DIR/install.log"
        return 1
    fi
    printf '%s\n' "$sum" >"$DUALTRACK_DIR/installed"
}

make_venv() {
    rm -rf "$VENV"
    "$PYTHON" -m venv "$VENV" || "$PYTHON" -m virtualenv "$VENV" # some runtimes have no ensurepip
}

pip_install() {
    local from=()
    [ -d "$SOURCE/wheels" ] && from=(--no-index --find-links "$SOURCE/wheels") # a cluster without a way to an index
    timeout "$INSTALL_SECONDS" "$VENV/bin/python" -m pip install --no-input --disable-pip-version-check "${from[@]}" "$1"
}

restore_state() { # what the last stop of this cluster kept; only where there is no journal
    local saved="$RESCUE/${DB_CLUSTER_ID:-cluster}.tar" new="$DUALTRACK_DIR/restoring"
    if [ -z "$RESCUE" ] || [ ! -f "$saved" ] || [ -e "$DUALTRACK_DIR/state/journal.db" ]; then
        return 0
    fi
    rm -rf "$new" && mkdir "$new" || return 1
    # aside first: half a journal in its place would be taken for a whole one the next time
    if ! { tar -C "$new" -xf "$saved" && [ -e "$new/state/journal.db" ]; }; then
        log "$saved cannot be restored; it stays there"
        return 1
    fi
    rm -rf "$DUALTRACK_DIR/state" && mv "$new/state" "$DUALTRACK_DIR/state" && mv "$saved" "$saved.restored" || return 1
    log "restored the journal from $saved"
}

start_supervisor() {
    if is_supervised; then
        log "already running"
    else
        cp "$SOURCE/dualtrack.yaml" "$SOURCE/dualtrack-supervise.sh" "$DUALTRACK_DIR/" || return 1
        # a session of its own, and none of our streams: it outlives this script, and the cluster does not wait for it
        setsid nohup bash "$DUALTRACK_DIR/dualtrack-supervise.sh" </dev/null >"$DUALTRACK_DIR/serve.log" 2>&1 &
    fi
    await "$READY_SECONDS" is_settled
    if is_ready; then
        log "ready at $URI"
        return 0
    fi
    log "not ready; the end of $DUALTRACK_DIR/serve.log:"
    tail -n 20 "$DUALTRACK_DIR/serve.log"
    kill -TERM "$(cat "$DUALTRACK_DIR/supervisor.pid")" # nobody would be pointed at it
    return 1
}

is_supervised() { # the supervisor holds the lock as long as it lives
    [ -e "$DUALTRACK_DIR/lock" ] && ! flock --nonblock "$DUALTRACK_DIR/lock" true
}

is_settled() { # a wrong configuration is not worth the whole wait
    is_ready || [ "$(grep -c ' serve ended with code ' "$DUALTRACK_DIR/serve.log")" -ge 3 ]
}

is_ready() {
    curl --silent --fail --noproxy '*' --max-time 5 --output /dev/null "http://127.0.0.1:$DUALTRACK_ADMIN_PORT/readyz" && is_ours
}

# --- every node -----------------------------------------------------------------------------------------------------

run_worker() {
    if ! await "$WORKER_SECONDS" is_ours; then
        log "no dualtrack at $URI after $WORKER_SECONDS s; see the init script's log of the driver"
        return 1
    fi
    point_spark
}

is_ours() { # it says so on every answer, also to who has no token
    curl --silent --noproxy '*' --max-time 5 --output /dev/null --dump-header - "$URI/version" | grep -qi '^x-dualtrack:'
}

await() { # await SECONDS COMMAND
    local until=$((SECONDS + $1))
    until "$2"; do
        [ "$SECONDS" -lt "$until" ] || return 1
        sleep 0.5
    done
}

point_spark() {
    local line="export MLFLOW_TRACKING_URI=$URI DUALTRACK_URI=$URI $MARK"
    if ! grep -qsxF "$line" "$SPARK_ENV"; then
        if [ -e "$SPARK_ENV" ]; then # another port or address, from before
            sed --follow-symlinks -i "/^export MLFLOW_TRACKING_URI=.* $MARK\$/d" "$SPARK_ENV" || return 1
        fi
        printf '\n%s\n' "$line" >>"$SPARK_ENV" || return 1 # whatever was last may lack its newline
    fi
    log "MLFLOW_TRACKING_URI is $URI"
}

main() {
    if [ "${DB_IS_DRIVER:-}" = TRUE ]; then
        run_driver
    else
        run_worker
    fi
}

end() { # whatever ended it, a mistake in this script included
    [ -n "$is_done" ] || log "this node goes without dualtrack"
    exit 0
}

is_done=
trap end EXIT
main && is_done=yes
