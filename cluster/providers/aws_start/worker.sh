# What a machine of workers does: serve the head until it is told to end.
PROGRAM=''

serve() {
    "${WORKER[@]}" "--master_host=$HEAD" "--master_port=$PORT" "--num_workers=$WORKERS" &
    PROGRAM=$!
    while kill -0 "$PROGRAM" 2>/dev/null; do
        if metadata meta-data/spot/instance-action; then
            say 'this machine is taken back: its workers take no more work'
            kill "$PROGRAM"
            wait "$PROGRAM" || true
            upload_log
            sleep infinity
        fi
        sleep 5 &
        wait -n "$PROGRAM" "$!" || true
    done
}

main() {
    LOG_NAME="worker-$(metadata meta-data/instance-id).txt"
    prepare
    keep_log_stored &
    while true; do
        say "$WORKERS workers for $HEAD"
        serve
        say 'the workers have ended: starting them again'
        sleep 5
    done
}

failed() {
    trap - EXIT
    say 'this machine cannot work'
    upload_log
}

trap failed EXIT
main
