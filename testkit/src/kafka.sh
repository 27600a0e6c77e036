# Runs a private Kafka, broker and controller in one process, for as long as the other end of standard input is open.
# The kernel closes that end however the one who started us dies, so nothing is left running after a `kill -9` either.
#
#   sh kafka.sh POM [--data FOLDER] [--port PORT] [--exec CONTROLLER_PORT | --fetch] [SETTING=VALUE ...]
#
# POM is deploy/kafka/pom.xml: Maven fetches the jars it names, once, into ${PARLANCE_CACHE:-~/.cache/parlance}.
# With `--fetch` that is all; with `--exec` it then becomes Kafka itself, on these two ports, instead of attending to it.
# The data lie in a temporary folder that goes with us, or in FOLDER, which stays. KAFKA_JAVA_OPTIONS tune the JVM.
#
# Says `ready 127.0.0.1:PORT` once Kafka answers there, or `failed: REASON`. A line of input then is an order: `stop`,
# `kill`, `pause` and `resume` are answered by `done`, `start` (the same data, the same port) as the first start, `pid` by
# the id of its process.

# Signals meant for the tests (Ctrl-C in a terminal) end them; the end of the input then ends us.
trap '' HUP INT TERM

server=
passing=
fail() {
    echo "failed: $1"
    end KILL
    exit 1
}

# Ends the server by a signal; one that does not heed it in time, or cannot, is killed.
end() {
    [ -n "$server" ] || return 0
    kill -"$1" "$server" 2>/dev/null
    kill -CONT "$server" 2>/dev/null
    tries=0
    while [ "$1" != KILL ] && kill -0 "$server" 2>/dev/null && [ "$tries" -lt 200 ]; do
        tries=$((tries + 1))
        sleep 0.05
    done
    kill -KILL "$server" 2>/dev/null
    wait "$server" 2>/dev/null
    server=
}

# Removes what shall not stay.
leave() {
    [ -z "$passing" ] || rm -rf "$passing"
}
trap leave EXIT

pom=$1
[ -f "$pom" ] || fail "there is no $pom"
shift
folder=
fixed=
own=
only_fetch=
settings=
while [ $# -gt 0 ]; do
    case $1 in
        --data) folder=$2; shift 2 ;;
        --port) fixed=$2; shift 2 ;;
        --exec) own=$2; shift 2 ;;
        --fetch) only_fetch=yes; shift ;;
        *=*) settings="$settings$1
"; shift ;;
        *) fail "what is $1?" ;;
    esac
done

command -v java >/dev/null || fail 'no Java is installed: apt-get install openjdk-17-jre-headless'
version=$(sed -n 's:.*<kafka\.version>\(.*\)</kafka\.version>.*:\1:p' "$pom")
cache=${PARLANCE_CACHE:-${HOME:?}/.cache/parlance}
mkdir -p "$cache" && cache=$(cd "$cache" && pwd) || fail "cannot make $cache"
jars=$cache/kafka-$version

# Fetches the jars under a passing name: a folder that bears its own is whole. One process at a time, for Maven's sake.
fetch() {
    flock -w 600 9 || return 1
    [ ! -d "$jars" ] || return 0
    command -v mvn >/dev/null || { echo 'no Maven is installed: apt-get install maven' >&2; return 1; }
    echo "fetching Kafka $version by Maven into $jars, once" >&2
    draft=$(mktemp -d "$jars.XXXXXX") || return 1
    mvn -B -q -Dstyle.color=never -f "$pom" dependency:copy-dependencies -DoutputDirectory="$draft" >&2 </dev/null 9>&- &&
        chmod 755 "$draft" && mv -T "$draft" "$jars" && return 0
    rm -rf "$draft"
    return 1
}
if [ ! -d "$jars" ]; then
    (fetch) 9>"$cache/kafka.lock" || fail "cannot fetch Kafka $version into $jars"
fi
[ -z "$only_fetch" ] || exit 0

if [ -z "$folder" ]; then
    folder=$(mktemp -d "${TMPDIR:-/tmp}/parlance-kafka-XXXXXX") || fail 'cannot make a temporary folder'
    passing=$folder
fi
mkdir -p "$folder" || fail "cannot make $folder"
cd "$folder" || fail "cannot enter $folder"
folder=$(pwd)

# A small JVM that starts soon, unless told otherwise. It logs what goes wrong, and that it is up.
jvm() {
    # Its own TERM it shall heed.
    trap - TERM
    # The options are several words.
    # shellcheck disable=SC2086
    exec java ${KAFKA_JAVA_OPTIONS:--Xms96m -Xmx448m -XX:+UseSerialGC -XX:TieredStopAtLevel=1} -Xshare:auto \
        -Djava.awt.headless=true -Dorg.slf4j.simpleLogger.showDateTime=true \
        -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
        -Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info \
        -cp "$jars/*" "$@" </dev/null
}

# The end of the log in one line, without the places in the code.
last() {
    grep -v '^[[:space:]]*at ' log | tail -n 5 | tr '\n' '|'
}

# Below the range that the kernel gives to outgoing connections.
some_port() {
    echo $((20000 + $(od -An -N2 -tu2 /dev/urandom) % 12000))
}

# Small topics of its own, for there is one broker; the data of a topic stay as long as that topic says.
configure() {
    cat >server.properties <<END
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
log.dirs=$folder/data
auto.create.topics.enable=false
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=4194304
num.network.threads=2
num.io.threads=4
$settings
END
}

# Runs the server on these ports until it answers.
run() {
    configure
    # Emptied here, not by what is begun beside us: what the server before said must not be taken for this one's word.
    : >log
    jvm kafka.Kafka server.properties >>log 2>&1 &
    server=$!
    tries=0
    until grep -q 'Kafka Server started' log; do
        tries=$((tries + 1))
        [ "$tries" -le 1200 ] || return 1
        kill -0 "$server" 2>/dev/null || return 1
        sleep 0.05
    done
}

# Nobody can hold a port for another: where it was taken, others are tried.
start() {
    attempts=0
    while :; do
        port=${fixed:-$(some_port)}
        controller=$(some_port)
        run && break
        end KILL
        attempts=$((attempts + 1))
        grep -q 'Address already in use\|Failed to bind' log && [ "$attempts" -lt 10 ] ||
            fail "kafka: $(last)"
        sleep 0.2
    done
    fixed=$port
    echo "ready 127.0.0.1:$port"
}

if [ ! -f data/meta.properties ]; then
    port=9092 controller=9093
    configure
    id=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n' | cut -c 1-22)
    (jvm kafka.tools.StorageTool format --config server.properties --cluster-id "$id" --ignore-formatted) >log 2>&1 ||
        fail "cannot format: $(last)"
fi
if [ -n "$own" ]; then
    port=${fixed:?} controller=$own
    configure
    jvm kafka.Kafka server.properties
fi
start

while read -r order; do
    case $order in
        start) start; continue ;;
        stop) end TERM ;;
        kill) end KILL ;;
        pause) kill -STOP "$server" ;;
        resume) kill -CONT "$server" ;;
        pid) echo "$server"; continue ;;
        *) fail "what is $order?" ;;
    esac
    echo done
done

# What stays is left in order; what does not may be cut off.
if [ -n "$passing" ]; then end KILL; else end TERM; fi
