# What the head does: hold redis, run the experiment, and end all of the cluster after it.
main() {
    local address code=0 server
    prepare
    address=$(metadata meta-data/local-ipv4)
    if [ -n "$STORE_URL" ]; then
        MONGO_URL=$(patiently parameter "$STORE_URL")
        export MONGO_URL
    fi
    keep_log_stored &
    python es/head.py run-server --host "$address" --port "$PORT" &
    server=$!
    until python es/head.py status >/dev/null 2>&1; do
        kill -0 "$server"
        sleep 1
    done
    say "head on $address: $EXPERIMENT with ${CONFIG[*]}"
    python -u "$EXPERIMENT/experiment.py" with "${CONFIG[@]}" local=False &
    printf '%s\n' "$!" >"$EVO/experiment.pid"
    wait "$!" || code=$?
    python -m store.server stop || true
    STATE="ended with exit code $code"
    [ "$code" -ne 0 ] || STATE='done'
    kill "$server"
    wait "$server" || true
}

finish() {
    trap - EXIT
    say "$STATE"
    printf '%s\n' "$STATE" >"$EVO/state.txt"
    if [ -n "$KEEP" ]; then
        upload_log
        say 'the machines stay until their time is over'
        exit 0
    fi
    wrap_up
    end_machine
    exit 0
}

STATE='failed before the run began'
trap finish EXIT
main
