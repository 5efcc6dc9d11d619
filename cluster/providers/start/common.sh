# What all machines of a cluster do first. Above this stand the values of one machine, what it does at
# its end, and how it reaches its cloud.
# It runs three times: as the machine's start script, which begins the other two and ends at once;
# as `start.sh deadline`, which ends the machine when its time is over; and as `start.sh work`.
HOME=/root
EVO=/opt/evo
LOG=$EVO/log.txt
export HOME
umask 077
mkdir -p "$EVO"

say() {
    printf '%s %s\n' "$(date -u +%FT%TZ)" "$*"
}

end_machine() {
    say 'the machine ends'
    shutdown -h now || poweroff -f
}

# Say a command, again and again for a minute: rights and names take a while to be known.
patiently() {
    local attempt
    for attempt in 1 2 3 4 5 6 7 8 9 10; do
        if "$@"; then
            return 0
        fi
        say "attempt $attempt failed: ${*:1:3}" >&2
        sleep 6
    done
    return 1
}

upload_log() {
    store "$LOG" "$LOG_NAME" || say 'the log was not stored'
    [ -z "${LOGS:-}" ] || send_log || say 'the log was not sent'
}

# What of a run is not in the user's MongoDB, and how it has ended: that last, for it says that all is
# stored.
store_results() {
    if [ -z "$STORE_URL" ] && [ -d "$EVO/runs" ]; then
        store_folder runs || true
    fi
    upload_log
    if [ -e "$EVO/state.txt" ]; then
        store "$EVO/state.txt" state.txt || true
    fi
}

# A run leaves a checkpoint when it is told to end, and the script that waits for it does the rest.
stop_work() {
    local attempt
    [ -e "$EVO/experiment.pid" ] || return 0
    kill "$(cat "$EVO/experiment.pid")" || return 0
    for attempt in {1..90}; do
        [ ! -e "$EVO/state.txt" ] || return 0
        sleep 1
    done
    say "the run has not ended after $attempt seconds"
}

# Run this script again, on its own, whether there is systemd or not. With it, the end of the machine
# also comes if it was started again meanwhile.
detach() {
    local unit=evo-$1.service
    if [ -d /run/systemd/system ]; then
        printf '[Service]\nExecStart=%s %s\n[Install]\nWantedBy=multi-user.target\n' \
            "$EVO/start.sh" "$1" >"/etc/systemd/system/$unit"
        [ "$1" != deadline ] || systemctl --quiet enable "$unit"
        systemctl start --no-block "$unit"
    else
        setsid nohup "$EVO/start.sh" "$1" </dev/null >/dev/null 2>&1 &
    fi
}

fetch_code() {
    local bundle=$EVO/bundle.tar.gz
    patiently fetch "$BUNDLE" "$bundle"
    printf '%s  %s\n' "$SHA256" "$bundle" | sha256sum -c --quiet -
    rm -rf "$EVO/code"
    mkdir "$EVO/code"
    tar -xf "$bundle" -C "$EVO/code"
}

# Python and what the code needs, unless the image has them: an image is prepared by one launch.
install_python() {
    local base=python3 wanted
    wanted=$(sha256sum <"$EVO/code/requirements.txt" | cut -c1-64)
    if [ -e "$EVO/installed" ] && [ "$(cat "$EVO/installed")" = "$wanted" ]; then
        return
    fi
    if command -v dnf >/dev/null; then
        patiently dnf -qy install python3.12 tar gzip
        base=python3.12
    elif command -v apt-get >/dev/null; then
        patiently apt-get -qq update
        patiently apt-get -qqy install python3-venv
    fi
    [ -x "$EVO/venv/bin/python" ] || "$base" -m venv "$EVO/venv"
    grep -v '^-e' "$EVO/code/requirements.txt" >"$EVO/requirements.txt"
    # Wheels of torch without what graphics cards need are a tenth of the size.
    patiently "$EVO/venv/bin/python" -m pip install -q -r "$EVO/requirements.txt" \
        --extra-index-url https://download.pytorch.org/whl/cpu
    printf '%s\n' "$wanted" >"$EVO/installed"
}

prepare() {
    install_tools
    fetch_code
    install_python
    export PATH="$EVO/venv/bin:$PATH" PYTHONPATH="$EVO/code" PYTHONUNBUFFERED=1
    export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NUMEXPR_NUM_THREADS=1
    export XDG_RUNTIME_DIR="$EVO/run" EVO_RUNS="$EVO/runs"
    export EVO_REDIS_PASSWORD_FILE="$EVO/redis-password"
    patiently parameter "$PASSWORD" >"$EVO_REDIS_PASSWORD_FILE"
    cd "$EVO/code"
}

keep_log_stored() {
    while sleep 30; do
        upload_log
    done
}

case "${1:-}" in
'')
    # An image that was made of such a machine has all this from its first life.
    rm -rf "$LOG" "$EVO/run" "$EVO/runs" "$EVO/state.txt" "$EVO/experiment.pid" "$EVO/sent"
    mkdir "$EVO/run"
    cp -- "$0" "$EVO/start.sh"
    chmod 700 "$EVO/start.sh"
    patiently instance >"$EVO/instance"
    detach deadline
    detach work
    exit 0
    ;;
deadline)
    until self=$(instance); do
        sleep 10
    done
    [ "$self" = "$(cat "$EVO/instance")" ] || exit 0
    exec >>"$LOG" 2>&1
    # In short steps: the clock of a machine that has just started may still be set right.
    while left=$((DEADLINE - $(date +%s))) && [ "$left" -gt 0 ]; do
        sleep "$((left < 10 ? left : 10))"
    done
    say 'the time is over'
    stop_work || true
    wrap_up || true
    end_machine
    exit 0
    ;;
esac
exec >>"$LOG" 2>&1
