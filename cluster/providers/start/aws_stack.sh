# What a machine of a CloudFormation stack has to find out, and what ends with it. The stack itself
# stays: its group of workers is left with no machines, and its logs can be read until it is deleted.
mkdir -p /opt/evo
[ $# -gt 0 ] || echo "$(($(date +%s) + HOURS * 3600))" >/opt/evo/deadline
DEADLINE=$(cat /opt/evo/deadline)
read -ra CONFIG <<<"$CONFIG_WORDS"
[ -z "$ENVIRONMENT" ] || CONFIG+=("env_name=$ENVIRONMENT")
WORKERS=${WORKERS:-$(nproc)}
NO_MACHINES=(--min-size 0 --max-size 0 --desired-capacity 0)

# AWS ends all workers when the time is over, also if no head is left to do it. The stack makes their
# group after the head, so it may take a while to be there.
end_group_in_time() {
    until aws autoscaling put-scheduled-update-group-action --region "$REGION" \
        --auto-scaling-group-name "$GROUP" --scheduled-action-name 'the time is over' \
        --start-time "$(date -u -d "@$DEADLINE" +%FT%TZ)" "${NO_MACHINES[@]}"; do
        sleep 20
    done
}

wrap_up() {
    aws autoscaling update-auto-scaling-group --auto-scaling-group-name "$GROUP" "${NO_MACHINES[@]}" || true
    if [ "$ROLE" = head ]; then
        store_results
    else
        upload_log
    fi
}

# New lines of the log in AWS's words; fails if there are none.
NEW_LINES='
import json, pathlib, sys, time
log, sent, events = (pathlib.Path(name) for name in sys.argv[1:])
begin = int(sent.read_text()) if sent.exists() else 0
with log.open("rb") as file:
    file.seek(begin)
    lines = file.read(400_000).splitlines(keepends=True)[:5000]
now = int(time.time() * 1000)
said = [line.decode(errors="replace").rstrip() for line in lines]
events.write_text(json.dumps([{"timestamp": now, "message": line} for line in said if line]))
sent.with_suffix(".next").write_text(str(begin + sum(map(len, lines))))
sys.exit(not any(said))
'

# Send what the log has got since the last time; lines that could not be sent come with the next.
send_log() {
    local stream
    stream=$(cat "$EVO/instance")
    aws logs create-log-stream --log-group-name "$LOGS" --log-stream-name "$stream" 2>/dev/null || true
    while python3 -c "$NEW_LINES" "$LOG" "$EVO/sent" "$EVO/events.json"; do
        aws logs put-log-events --log-group-name "$LOGS" --log-stream-name "$stream" \
            --log-events "file://$EVO/events.json" --output text >/dev/null || return 1
        mv "$EVO/sent.next" "$EVO/sent"
    done
}

if [ "$ROLE ${1:-}" = 'head work' ]; then
    end_group_in_time >/dev/null 2>&1 &
fi
