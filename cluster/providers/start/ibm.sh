# How a machine on IBM Cloud knows itself, and reaches what is stored for its cluster: by links that are
# good for one object each, until the cluster's time is over. It has no rights beyond these.

# By standard input, so that no link stands in a list of processes.
call() {
    local link=$1
    shift
    printf 'url = "%s"\n' "$link" | curl -sSf --retry 3 -m 600 -K - "$@"
}

instance() {
    cat /sys/class/dmi/id/product_uuid 2>/dev/null || cat /etc/machine-id
}

address() {
    hostname -I | cut -d ' ' -f 1
}

# Says why there is no more work to take: workers stop with the run, unless they are to stay.
taken_back() {
    [ -n "$ENDED_LINK" ] && call "$ENDED_LINK" -o /dev/null 2>/dev/null && echo 'the run has ended'
}

leave() {
    end_machine
    sleep infinity
}

parameter() {
    call "$1"
}

fetch() {
    call "$1" -o "$2"
}

store() {
    local link=$LOG_LINK
    case "$2" in
    state.txt) link=$STATE_LINK ;;
    runs.tar.gz) link=$RUNS_LINK ;;
    esac
    call "$link" -o /dev/null -T "$1"
}

# A folder beside the log, as one file.
store_folder() {
    tar -czf "$EVO/$1.tar.gz" -C "$EVO" "$1" && store "$EVO/$1.tar.gz" "$1.tar.gz"
}

install_tools() {
    if ! command -v curl >/dev/null; then
        patiently apt-get -qq update
        patiently apt-get -qqy install curl
    fi
}
