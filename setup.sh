#!/bin/sh
# Installs Toolhone into .venv beside this file and checks the installation. Run it again at any time.
#
#   ./setup.sh                 Toolhone and what it needs (torch is large)
#   ./setup.sh --dev           and what its tests and checks need
#   ./setup.sh --peers         and what the benchmarks measure against
#   PYTHON=/path/to/python3.11 ./setup.sh        with this Python instead of the first suitable one
#
# It works from any folder. --no-check skips the check at the end (make uses it).
# Exit code: 0 installed, 1 something that is needed is broken, 2 the installation failed.

set -eu

usage() { sed -n 's/^# \{0,1\}//; 2,10p' "$here/setup.sh"; }
fail() { echo "setup: $1" >&2; exit 2; }

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd) || exit 2
cd "$here"

what=. stamp=.venv/.installed-core check=yes
for argument in "$@"; do
    case $argument in
        --dev) what='.[dev]' stamp=.venv/.installed-dev ;;
        --peers) what='.[dev,peers]' stamp=.venv/.installed-peers ;;
        --no-check) check=no ;;
        -h | --help) usage; exit 0 ;;
        *) fail "unknown option '$argument'; options: --dev, --peers, --no-check, --help" ;;
    esac
done

fits() { command -v "$1" >/dev/null 2>&1 && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        fits "$PYTHON" || fail "PYTHON=$PYTHON is no Python 3.11 or newer; name another, or leave PYTHON out"
        return
    fi
    for PYTHON in python3.11 python3.12 python3.13 python3 python; do
        if fits "$PYTHON"; then return; fi
    done
    fail "Toolhone needs Python 3.11 or newer, and none was found; install one, or name it: PYTHON=/path/to/python3.11 ./setup.sh"
}

if [ -e .venv ] && ! fits .venv/bin/python; then
    fail "$here/.venv holds no working Python 3.11 or newer (its Python may have moved); remove that folder and run setup.sh again"
fi
if [ ! -e .venv ]; then
    find_python
    echo "Creating .venv with $("$PYTHON" --version 2>&1) ..."
    if ! "$PYTHON" -m venv .venv; then
        rm -rf .venv
        fail "$PYTHON cannot create .venv: its module venv is missing (on Debian and Ubuntu: apt install python3-venv), or the disk is full"
    fi
fi

if [ -e "$stamp" ] && [ -z "$(find pyproject.toml constraints -newer "$stamp")" ] && .venv/bin/python -c 'import toolhone' 2>/dev/null
then
    [ "$check" = no ] || echo "Already installed in $here/.venv; remove that folder to start again."
else
    echo "Installing Toolhone ($what) into .venv (torch is large) ..."
    set --
    for file in constraints/*.txt; do set -- "$@" --constraint "$file"; done
    install() { .venv/bin/python -m pip install --quiet --disable-pip-version-check "$@"; }
    case $what in *dev*) all="${what%]},mlx,tinker]" ;; *) all=$what ;; esac
    install "$@" --editable "$all" || {
        [ "$all" != "$what" ] && echo "setup: without the backends MLX and Tinker if they alone fail; their tests skip then" >&2 &&
            install "$@" --editable "$what"
    } || fail "the installation failed; the lines above say why (often the network or a full disk). Run setup.sh again to continue"
    touch .venv/.installed-core "$stamp"
fi

[ "$check" = yes ] || exit 0
.venv/bin/toolhone check || { echo "setup: installed, but something that is needed is broken; see above" >&2; exit 1; }
echo
echo "Next:   $here/.venv/bin/toolhone demo          (or: . $here/.venv/bin/activate   and then: toolhone demo)"
