# What all machines of a cluster do first. Above this stand the values of one machine.
# It runs three times: as the machine's start script, which begins the other two and ends at once;
# as `start.sh deadline`, which ends the machine when its time is over; and as `start.sh work`.
HOME=/root
EVO=/opt/evo
LOG=$EVO/log.txt
METADATA=http://169.254.169.254/latest
export HOME AWS_DEFAULT_REGION="$REGION" AWS_PAGER=''
umask 077
mkdir -p "$EVO"

say() {
    printf '%s %s\n' "$(date -u +%FT%TZ)" "$*"
}

end_machine() {
    say 'the machine ends'
    shutdown -h now || poweroff -f
}

# Say a command to AWS, again and again for a minute: rights and names take a while to be known.
patiently() {
    local attempt
    for attempt in 1 2 3 4 5 6 7 8 9 10; do
        if "$@"; then
            return 0
        fi
        say "attempt $attempt failed: $1 $2 $3" >&2
        sleep 6
    done
    return 1
}

# With a token, as version 2 of the metadata service wants it.
metadata() {
    local token
    token=$(curl -sf -m 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$METADATA/api/token") || return 1
    curl -sf -m 5 -H "X-aws-ec2-metadata-token: $token" "$METADATA/$1"
}

parameter() {
    aws ssm get-parameter --name "$1" --with-decryption --query Parameter.Value --output text
}

upload_log() {
    aws s3 cp "$LOG" "s3://$BUCKET/$RUNS$LOG_NAME" --only-show-errors || say 'the log was not stored'
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
    patiently aws s3 cp "s3://$BUCKET/$BUNDLE" "$bundle" --only-show-errors
    printf '%s  %s\n' "$SHA256" "$bundle" | sha256sum -c --quiet -
    rm -rf "$EVO/code"
    mkdir "$EVO/code"
    tar -xzf "$bundle" -C "$EVO/code"
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
    if ! command -v aws >/dev/null && command -v apt-get >/dev/null; then
        patiently apt-get -qq update
        patiently apt-get -qqy install awscli
    fi
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
    rm -rf "$LOG" "$EVO/run" "$EVO/runs" "$EVO/state.txt" "$EVO/experiment.pid"
    mkdir "$EVO/run"
    cp -- "$0" "$EVO/start.sh"
    chmod 700 "$EVO/start.sh"
    patiently metadata meta-data/instance-id >"$EVO/instance"
    detach deadline
    detach work
    exit 0
    ;;
deadline)
    until instance=$(metadata meta-data/instance-id); do
        sleep 10
    done
    [ "$instance" = "$(cat "$EVO/instance")" ] || exit 0
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
