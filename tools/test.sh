#!/bin/sh
# Run pytest with the given arguments, where every user can reach what is tested.
# Two processes share the tests (pytest-xdist); `tools/test.sh -n 0 …` runs them in one, as --pdb does.
# As root the tests start forkd as other users too; a checkout below a private folder is copied for them.
set -eu
cd "$(dirname "$0")/.."
here=$(pwd -P)

reachable() {
    path=$1
    while [ "$path" != / ]; do
        case $(stat -c %A "$path") in *[xt]) ;; *) return 1 ;; esac
        path=$(dirname "$path")
    done
}

# worksteal: who is done first takes half of what the other has left.
set -- -n 2 --dist worksteal "$@"
if [ "$(id -u)" != 0 ] || reachable "$here/forkd"; then
    exec .venv/bin/python -m pytest "$@"
fi
copy=$(mktemp -d /var/tmp/forkd-tests-XXXXXX)
trap 'rm -rf "$copy"' EXIT
echo "other users cannot reach $here: testing a copy in $copy"
cp -a . "$copy/"
chmod -R go+rX "$copy"
cd "$copy"
status=0
PYTHONPATH="$copy" .venv/bin/python -m pytest "$@" || status=$?
exit "$status"
