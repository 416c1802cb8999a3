#!/usr/bin/env bash
# Installs what the build needs on Debian 12: system packages, and a .venv with the pinned torch.
# setup.sh [LIST...], where a LIST names more packages. Safe to run again: it installs only what is missing. Needs root
# (or sudo) the first time.
set -euo pipefail
cd "$(dirname "$0")/.."

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

mapfile -t packages < <(cat scripts/packages.txt "$@" | grep -v '^#')
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ "${#missing[@]}" -gt 0 ]; then
  echo "setup: installing ${#missing[@]} system packages" >&2
  as_root apt-get update -q
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
fi

# The stamp holds the requirements it was made from, so that a changed pin installs again.
stamp=.venv/requirements.stamp
if ! cmp -s scripts/requirements.txt "$stamp"; then
  echo "setup: installing the pinned torch into .venv (about 5 GB)" >&2
  python3 -m venv .venv
  .venv/bin/python -m pip install --quiet --requirement scripts/requirements.txt
  cp scripts/requirements.txt "$stamp"
fi
echo "setup: done" >&2
