#!/bin/sh
# Installs Toolhone into .venv beside this file, without make, and looks at what is there. Run it again as often as you like.
#
#   ./setup.sh                 Toolhone and what it needs (torch is large)
#   ./setup.sh --dev           and what its tests and checks need
#   PYTHON=/path/to/python3.11 ./setup.sh        with this Python instead of the first fitting one
#
# Any folder may be the current one. Exit code: 0 all well, 1 something that is needed is broken, 2 it could not be installed.

set -eu

usage() { sed -n 's/^# \{0,1\}//; 2,8p' "$here/setup.sh"; }
fail() { echo "setup: $1" >&2; exit 2; }

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd) || exit 2
cd "$here"

what=. stamp=.venv/.installed-core
for argument in "$@"; do
    case $argument in
        --dev) what='.[dev]' stamp=.venv/.installed-dev ;;
        -h | --help) usage; exit 0 ;;
        *) fail "unknown option '$argument'; there are --dev and --help" ;;
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
    echo "Making .venv with $("$PYTHON" --version 2>&1) ..."
    if ! "$PYTHON" -m venv .venv; then
        rm -rf .venv
        fail "$PYTHON cannot make .venv: its module venv is missing (on Debian and Ubuntu: apt install python3-venv), or the disk is full"
    fi
fi

if [ -e "$stamp" ] && [ -z "$(find pyproject.toml constraints.txt -newer "$stamp")" ] && .venv/bin/python -c 'import toolhone' 2>/dev/null
then
    echo "Already installed in $here/.venv; remove that folder to begin anew."
else
    echo "Installing Toolhone into .venv (once; torch is large) ..."
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable "$what" ||
        fail "the installation failed; the lines above say why (often the network or a full disk). What was fetched is kept: run setup.sh again"
    touch .venv/.installed-core "$stamp"
fi

.venv/bin/toolhone check || { echo "setup: installed, but something that is needed is broken; see above" >&2; exit 1; }
echo
echo "Next:   $here/.venv/bin/toolhone demo          (or: . $here/.venv/bin/activate   and then: toolhone demo)"
