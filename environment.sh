#!/usr/bin/env bash
# Usage: environment.sh FOLDER. Installs matlib and the pinned versions of constraints.txt there.
# A FOLDER that does not exist becomes a virtual environment. Called by make; safe to call again.
set -euo pipefail
cd "$(dirname "$0")"

env=$1
log="$env/matlib-install.log"
supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'

find_python() {
  local name
  for name in python3 python3.13 python3.12 python3.11 python; do
    if command -v "$name" >/dev/null 2>&1 && "$name" -c "$supported" >/dev/null 2>&1; then
      echo "$name"
      return 0
    fi
  done
  return 1
}

stage() {
  if grep -q '^Installing collected' "$log"; then
    echo "unpacking: $(du -sm "$env" | cut -f1) MB"
  else
    echo "downloading: $(grep -c '^Collecting' "$log") packages so far"
  fi
}

fail() {
  printf 'matlib: %s\n' "$@" >&2
  exit 1
}

if ! "$env/bin/python" -c '' >/dev/null 2>&1; then
  python=$(find_python) || fail \
    "Python 3.11, 3.12 or 3.13 is needed; found $(python3 --version 2>&1 || true)." \
    "Install one, or: conda env create -f environment.yml && conda activate matlib"
  echo "matlib: making a virtual environment in $env with $("$python" --version)"
  "$python" -m venv --clear "$env" || {
    rm -rf "$env"
    fail "$python cannot make virtual environments." \
      "On Debian and Ubuntu: apt install python3-venv. Then run the command again."
  }
fi
"$env/bin/python" -c "$supported" || fail \
  "the active environment $env has $("$env/bin/python" --version); 3.11 to 3.13 is needed." \
  "Deactivate it (then .venv is made) or activate another one."

echo "matlib: installing the pinned packages into $env (once: about 3 minutes, 6 GB)"
"$env/bin/python" -m pip install --disable-pip-version-check --progress-bar off \
  -c constraints.txt -e '.[all]' >"$log" 2>&1 &
pip=$!
trap 'kill "$pip" 2>/dev/null || true' EXIT
waited=0
while kill -0 "$pip" 2>/dev/null; do
  sleep 1
  waited=$((waited + 1))
  if ((waited % 20 == 0)); then
    printf '  %4d s  %s\n' "$waited" "$(stage)"
  fi
done
wait "$pip" || {
  grep -vE '^WARNING: ' "$log" | tail -n 15 >&2
  fail "the installation failed; the lines above are the end of $log." \
    "A network and 6 GB of free disk are needed. Then run the same command again."
}
echo "matlib: installed in $waited s"
