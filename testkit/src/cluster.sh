# Runs a private PostgreSQL for as long as the other end of standard input is open, and leaves nothing behind.
# The kernel closes that end however the tests die, so this works after a panic and after `kill -9`.
#
#   sh -c "$(cat cluster.sh)" cluster.sh [SETTING=VALUE ...]
#
# Says `ready FOLDER` once the superuser `postgres` can connect through the socket in FOLDER, or `failed: REASON`. With
# CLUSTER_PRIMARY in the environment, the folder of another one, it is a streaming replica of that. Lines of input: `crash` kills the first process
# and starts another on the same data, `ready FOLDER` again; `kill` kills it, `killed`; `start` starts another, `ready`.

# Signals meant for the tests (Ctrl-C in a terminal) end them; the end of the input then ends us.
trap '' HUP INT TERM

fail() {
    echo "failed: $1"
    [ -z "${folder-}" ] || rm -rf "$folder"
    exit 1
}

for setting; do
    set -- "$@" -c "$setting"
    shift
done

# The newest of Debian's, else the one on PATH.
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -rV | head -n 1)
[ -x "$bin/initdb" ] || bin=$(dirname "$(readlink -f "$(command -v initdb || echo /none/initdb)")")
[ -x "$bin/initdb" ] || fail 'no PostgreSQL server is installed: apt-get install postgresql'

# Closed to others: whoever gets at the socket is a superuser. Its path has to fit 107 bytes.
parent=${TMPDIR:-/tmp}
[ ${#parent} -le 70 ] || parent=/tmp
folder=$(mktemp -d "$parent/parlance-test-XXXXXX") || fail "cannot make a folder in $parent"

# PostgreSQL refuses to run as root.
as=
if [ "$(id -u)" = 0 ]; then
    as='setpriv --reuid=postgres --regid=postgres --clear-groups'
    chown postgres "$folder" || fail 'there is no account `postgres` to run PostgreSQL as'
fi

export LC_ALL=C
unset PGDATA PGPORT PGHOST PGUSER PGOPTIONS
cd "$folder" || fail "cannot enter $folder"
if [ "${CLUSTER_PRIMARY-}" ]; then
    $as "$bin/pg_basebackup" --pgdata="$folder/data" --host="$CLUSTER_PRIMARY" --username=postgres --checkpoint=fast \
        --write-recovery-conf --no-sync >log 2>&1 </dev/null || fail "pg_basebackup: $(tail -n 5 log | tr '\n' '|')"
else
    $as "$bin/initdb" --pgdata="$folder/data" --username=postgres --auth=trust --encoding=UTF8 --locale=C \
        --no-sync --no-instructions >log 2>&1 </dev/null || fail "initdb: $(tail -n 5 log | tr '\n' '|')"
fi

# Runs the server until it takes connections. What a killed one left behind may be in its way for a moment.
serve() {
    tries=0
    while :; do
        $as "$bin/postgres" -D "$folder/data" -c unix_socket_directories="$folder" -c listen_addresses= "$@" \
            >>log 2>&1 </dev/null &
        server=$!
        while kill -0 "$server" 2>/dev/null; do
            if "$bin/pg_isready" --quiet --host="$folder"; then
                echo "ready $folder"
                return
            fi
            sleep 0.02
        done
        tries=$((tries + 1))
        [ "$crashed" ] && [ "$tries" -le 200 ] || fail "postgres: $(tail -n 5 log | tr '\n' '|')"
        sleep 0.05
    done
}
crashed=
serve "$@"

while read -r order; do
    case $order in
        crash | kill)
            crashed=yes
            kill -KILL "$server"
            wait "$server" 2>/dev/null
            if [ "$order" = crash ]; then serve "$@"; else echo killed; fi
            ;;
        start) serve "$@" ;;
        *) echo "failed: what is $order?" ;;
    esac
done
kill -QUIT "$server" 2>/dev/null
wait "$server" 2>/dev/null
rm -rf "$folder"
