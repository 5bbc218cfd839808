#!/bin/sh
# Set up everything forkd needs in this checkout: Debian packages, .venv, Python packages.
#   tools/setup.sh run     what `forkd run` needs
#   tools/setup.sh test    that, and what the tests need
# As root missing Debian packages are installed; otherwise they are named and nothing is guessed.
set -eu
cd "$(dirname "$0")/.."
what=${1:-run}

# libcap-dev, python3-dev, gcc: python-prctl has no wheel and is compiled. libseccomp2: the policy compiler.
packages="libcap-dev libseccomp2 gcc libc6-dev"
if [ "$what" = test ]; then
    # Clients, servers and senders that the tests start.
    packages="$packages swaks postfix curl make util-linux systemd libcap2-bin openssl haproxy mount e2fsprogs btrfs-progs msmtp dovecot-core dovecot-lmtpd clamav-daemon perl"
    # What manual pages must pass.
    packages="$packages man-db mandoc"
    # promtool: what metrics and alert rules must pass.
    packages="$packages prometheus"
    packages="$packages libnet-ssleay-perl libio-socket-ssl-perl libauthen-sasl-perl libnet-dns-perl"
    # nodemailer, from npm, where there is no npm yet.
    command -v npm >/dev/null || packages="$packages nodejs npm"
    # What Exim is linked with: its own package and Postfix' exclude each other, so it is unpacked below.
    packages="$packages libgnutls-dane0 libidn12 libnsl2 libpcre2-8-0 libdb5.3"
fi

# The interpreter must be one that dropped uids can reach: root's own (pyenv under /root) is not.
reachable() {
    path=$(readlink -f "$(command -v "$1")") || return 1
    [ "$(id -u)" != 0 ] && return 0
    while [ "$path" != / ]; do
        case $(stat -c %A "$path") in *[xt]) ;; *) return 1 ;; esac
        path=$(dirname "$path")
    done
}
new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

if [ -z "${PYTHON:-}" ]; then
    for PYTHON in python3 /usr/bin/python3 python3.13 python3.12 python3.11 ""; do
        [ -n "$PYTHON" ] && new_enough "$PYTHON" && reachable "$PYTHON" && break
    done
    if [ -z "$PYTHON" ]; then
        PYTHON=python3
        new_enough python3 || { echo "forkd needs Python 3.11 or newer as python3 (or PYTHON=/path/to/python make …)" >&2; exit 1; }
    fi
fi
case $(readlink -f "$(command -v "$PYTHON")") in
/usr/bin/*) packages="$packages python3-venv python3-dev" ;;
esac

missing=""
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "Debian packages are missing; install them with:" >&2
        echo "    sudo apt-get install$missing" >&2
        exit 1
    fi
    echo "installing Debian packages:$missing"
    export DEBIAN_FRONTEND=noninteractive
    # Only smtp-source and smtp-sink are wanted of postfix: no configuration, so its daemon does not start.
    case "$missing" in *postfix*) echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections ;; esac
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of words
    apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

# Exim for the tests that need a real sender: unpacked, not installed; as root only, as its user must exist.
if [ "$what" = test ] && [ "$(id -u)" = 0 ] && [ ! -x .venv/debian/exim4/usr/sbin/exim4 ]; then
    getent passwd Debian-exim >/dev/null ||
        useradd --system --user-group --home-dir /nonexistent --shell /usr/sbin/nologin Debian-exim
    folder=$(mktemp -d)
    chmod 755 "$folder"
    if (cd "$folder" && { apt-get download -qq exim4-daemon-light || { apt-get update -qq && apt-get download -qq exim4-daemon-light; }; } 2>/dev/null); then
        mkdir -p .venv/debian/exim4
        dpkg -x "$folder"/exim4-daemon-light_*.deb .venv/debian/exim4
    else
        echo "exim4-daemon-light cannot be downloaded: tests that need Exim are skipped" >&2
    fi
    rm -r "$folder"
fi

stamp=.venv/.forkd-$what
if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ] || [ constraints.txt -nt "$stamp" ]; then
    if [ ! -x .venv/bin/python ]; then
        echo "making .venv with $PYTHON ($("$PYTHON" -V))"
        "$PYTHON" -m venv .venv
    fi
    extra=""
    [ "$what" = test ] && extra="[dev]"
    echo "installing Python packages"
    .venv/bin/python -m pip install -q --disable-pip-version-check --use-pep517 -c constraints.txt -e ".$extra"
    touch "$stamp"
fi

# The published test vectors of SPF (RFC 7208's suite) and DKIM lie in the sources of pyspf and dkimpy.
if [ "$what" = test ] && [ ! -d .venv/vectors ]; then
    folder=$(mktemp -d .venv/vectors-XXXXXX)
    .venv/bin/python -m pip download -q --disable-pip-version-check --no-deps --no-binary :all: \
        -c constraints.txt -d "$folder" pyspf dkimpy
    for archive in "$folder"/*.tar.gz; do tar -xzf "$archive" -C "$folder"; done
    chmod 755 "$folder"
    mv "$folder" .venv/vectors
fi
