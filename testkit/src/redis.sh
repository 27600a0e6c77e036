# Runs private Redis servers for as long as the other end of standard input is open, and leaves nothing behind.
# The kernel closes that end however the tests die, so this works after a panic and after `kill -9`.
#
#   sh -c "$(cat redis.sh)" redis.sh one PORT
#   sh -c "$(cat redis.sh)" redis.sh cluster PORT BUS_PORT PORT BUS_PORT PORT BUS_PORT
#
# Says `ready` once all servers answer (and agree that they are a cluster), or `failed: REASON`. Each line that it reads
# then is an order, `stop N`, `kill N`, `start N`, `pause N` or `resume N` for server N from 0 on, answered in the same way.

# Signals meant for the tests (Ctrl-C in a terminal) end them; the end of the input then ends us.
trap '' HUP INT TERM

end() {
    for number in $numbers; do
        eval "pid=\$pid_$number"
        [ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null
    done
    wait
    [ -z "${folder-}" ] || rm -rf "$folder"
}

fail() {
    echo "failed: $1"
    end
    exit 1
}

numbers=
command -v redis-server >/dev/null || fail 'no Redis server is installed: apt-get install redis-server'
folder=$(mktemp -d "${TMPDIR:-/tmp}/parlance-redis-XXXXXX") || fail 'cannot make a folder'
export LC_ALL=C

ask() {
    port=$1
    shift
    redis-cli -h 127.0.0.1 -p "$port" "$@" 2>/dev/null </dev/null
}

# Starts server N on the port it always had; waits until it answers.
start() {
    eval "port=\$port_$1 bus=\$bus_$1"
    set -- "$1" --port "$port" --bind 127.0.0.1 --dir "$folder/$1" --save '' --appendonly no --daemonize no
    [ -z "$bus" ] || set -- "$@" --cluster-enabled yes --cluster-port "$bus" --cluster-node-timeout 1000
    number=$1
    shift
    redis-server "$@" >>"$folder/$number/log" 2>&1 </dev/null &
    pid=$!
    eval "pid_$number=$pid"
    tries=500
    until [ "$(ask "$port" PING)" = PONG ]; do
        tries=$((tries - 1))
        kill -0 "$pid" 2>/dev/null && [ "$tries" -gt 0 ] || return 1
        sleep 0.02
    done
}

# Ends server N by this signal.
finish() {
    eval "pid=\$pid_$1"
    [ -n "$pid" ] || return 0
    kill "-$2" "$pid"
    wait "$pid" 2>/dev/null
    eval "pid_$1="
}

signal() {
    eval "pid=\$pid_$1"
    kill "-$2" "$pid"
}

kind=$1
shift
number=0
nodes=
while [ $# -gt 0 ]; do
    eval "port_$number=$1 bus_$number= pid_$number="
    nodes="$nodes 127.0.0.1:$1"
    if [ "$kind" = cluster ]; then
        eval "bus_$number=$2"
        shift
    fi
    shift
    mkdir "$folder/$number"
    numbers="$numbers $number"
    start "$number" || fail "redis-server: $(tail -n 3 "$folder/$number/log" | tr '\n' '|')"
    number=$((number + 1))
done
if [ "$kind" = cluster ]; then
    # shellcheck disable=SC2086
    made=$(redis-cli --cluster create $nodes --cluster-yes 2>&1 </dev/null) || fail "cluster: $(echo "$made" | tail -n 5 | tr '\n' '|')"
    for number in $numbers; do
        eval "port=\$port_$number"
        tries=500
        until ask "$port" CLUSTER INFO | grep -q '^cluster_state:ok'; do
            tries=$((tries - 1))
            [ "$tries" -gt 0 ] || fail 'the nodes do not agree on a cluster'
            sleep 0.02
        done
    done
fi
echo ready

while read -r order number; do
    case $order in
    stop) finish "$number" TERM ;;
    kill) finish "$number" KILL ;;
    start) start "$number" ;;
    pause) signal "$number" STOP ;;
    resume) signal "$number" CONT ;;
    *) false ;;
    esac && echo ready || echo "failed: $order $number"
done
end
