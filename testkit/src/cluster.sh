# Runs a private PostgreSQL for as long as the other end of standard input is open, and leaves nothing behind.
# The kernel closes that end however the tests die, so this works after a panic and after `kill -9`.
#
#   cluster.sh BIN DIR [SETTING=VALUE ...]
bin=$1 dir=$2
shift 2
for setting; do
    set -- "$@" -c "$setting"
    shift
done

# Signals meant for the tests (Ctrl-C in a terminal) end them; the end of the input then ends us.
trap '' HUP INT TERM

if "$bin/initdb" --pgdata="$dir/data" --username=postgres --auth=trust --encoding=UTF8 --locale=C \
    --no-sync --no-instructions >"$dir/log" 2>&1 </dev/null; then
    "$bin/postgres" -D "$dir/data" -c unix_socket_directories="$dir" "$@" >>"$dir/log" 2>&1 </dev/null &
    server=$!
    echo started
    cat >/dev/null
    kill -QUIT "$server"
    wait "$server"
else
    echo failed
    cat >/dev/null
fi
rm -rf "$dir"
