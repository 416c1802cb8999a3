#!/usr/bin/env bash
# Makes a base image for deploy/Dockerfile out of Debian's packages, where no registry of images is at hand:
# base_image.sh [TAG, default gpipe-base:bookworm]. Needs root, debootstrap and Docker. An image that is there stays.
set -euo pipefail
tag=${1:-gpipe-base:bookworm}
if docker image inspect "$tag" >/dev/null 2>&1; then exit; fi

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase --include=ca-certificates bookworm "$root" >&2
cat >"$root/etc/apt/sources.list" <<'LIST'
deb http://deb.debian.org/debian bookworm main
deb http://deb.debian.org/debian bookworm-updates main
deb http://deb.debian.org/debian-security bookworm-security main
LIST

# What Debian's slim images leave out, too.
cat >"$root/etc/dpkg/dpkg.cfg.d/slim" <<'CFG'
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/man/*
path-exclude /usr/share/locale/*
CFG
find "$root/usr/share/doc" -type f ! -name copyright -delete
find "$root/usr/share/doc" -mindepth 1 -type d -empty -delete
rm -rf "$root"/usr/share/{man,locale,info}/* "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*.log
tar --create --directory "$root" --numeric-owner . | docker import --change 'CMD ["bash"]' - "$tag"
