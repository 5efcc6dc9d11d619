# What ends with the head, beside the machine itself; each of it may be gone already.
wrap_up() {
    local cluster="s3://$BUCKET/$RUNS"
    aws autoscaling delete-auto-scaling-group --auto-scaling-group-name "$GROUP" --force-delete || true
    aws ec2 delete-launch-template --launch-template-name "$GROUP" >/dev/null || true
    [ -z "$STORE_URL" ] || aws ssm delete-parameter --name "$STORE_URL" || true
    aws s3 rm "s3://$BUCKET/$BUNDLE" --only-show-errors || true
    if [ -z "$STORE_URL" ] && [ -d "$EVO/runs" ]; then
        aws s3 cp --recursive "$EVO/runs" "${cluster}runs/" --only-show-errors || true
    fi
    if [ -e "$EVO/state.txt" ]; then
        aws s3 cp "$EVO/state.txt" "${cluster}state.txt" --only-show-errors || true
    fi
    upload_log
}

# The run leaves a checkpoint when it is told to end, and the script that waits for it does the rest.
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
