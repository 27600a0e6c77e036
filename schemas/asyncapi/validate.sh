# Holds AsyncAPI documents against the official parser: exits with 0 if it finds nothing wrong in them, not even a warning.
#
#   sh validate.sh [DOCUMENT ...]
#
# npm fetches the parser, at the versions and hashes of package-lock.json and without running any of its scripts, once, into
# ${PARLANCE_CACHE:-~/.cache/parlance}. Without a document that is all.

fail() {
    echo "failed: $1" >&2
    exit 2
}

here=$(cd "$(dirname "$0")" && pwd) || fail "cannot enter the folder of $0"
command -v node >/dev/null || fail 'no Node.js is installed: apt-get install nodejs npm'
cache=${PARLANCE_CACHE:-${HOME:?}/.cache/parlance}
mkdir -p "$cache" && cache=$(cd "$cache" && pwd) || fail "cannot make $cache"
parser=$cache/asyncapi-$(cat "$here/package.json" "$here/package-lock.json" | sha256sum | cut -c 1-16)

# Fetches it under a passing name: a folder that bears its own is whole. One process at a time.
fetch() {
    flock -w 600 9 || return 1
    [ ! -d "$parser" ] || return 0
    command -v npm >/dev/null || { echo 'no npm is installed: apt-get install npm' >&2; return 1; }
    echo "fetching AsyncAPI's parser by npm into $parser, once" >&2
    draft=$(mktemp -d "$parser.XXXXXX") || return 1
    cp "$here/package.json" "$here/package-lock.json" "$here/.npmrc" "$draft" &&
        npm ci --prefix "$draft" --ignore-scripts --no-audit --no-fund --loglevel error >&2 </dev/null 9>&- &&
        chmod 755 "$draft" && mv -T "$draft" "$parser" && return 0
    rm -rf "$draft"
    return 1
}
if [ ! -d "$parser" ]; then
    (fetch) 9>"$cache/asyncapi.lock" || fail "cannot fetch AsyncAPI's parser into $parser"
fi
[ $# -gt 0 ] || exit 0
exec node "$here/validate.mjs" "$parser" "$@"
