#!/bin/bash
# Makes a private CA and the certificates of a cluster, or what of them is missing:
#
#   deploy/certs.sh [--days N] [--issue ROLE:NAME] [FOLDER [HOST...]]
#   deploy/certs.sh --renew [--days N] [FOLDER [HOST...]]
#
# FOLDER is ./certs by default. HOST... are the names and addresses by which workers and clients call the orchestrator
# (localhost 127.0.0.1 orchestrator by default). The subject of a certificate says who has it (CN) and what he may do
# (OU): docs/security.md. Beside those of the cluster, --issue makes one for a user or a machine: `--issue submit:alice`
# makes alice.crt and alice.key; roles are worker, admin, submit, read.
#
# --renew gives all certificates in FOLDER another term of N days (365 by default), with their keys as they are. Each
# file is replaced at once, so that running programs, which look every few seconds, never see half of a pair. The CA lasts
# ten years.
set -euo pipefail

die() { echo "certs.sh: $*" >&2; exit 2; }

days=365 renew="" issue=""
while [[ ${1:-} == --* ]]; do
  case $1 in
    --renew) renew=yes; shift ;;
    --days) days=${2:?}; shift 2 ;;
    --issue) issue=${2:?}; shift 2 ;;
    *) die "unknown option $1" ;;
  esac
done
folder=${1:-certs}
[[ $# -gt 0 ]] && shift
hosts=("$@")
umask 077
mkdir -p "$folder"
cd "$folder"

quietly() { local said; said=$(openssl "$@" 2>&1) || die "openssl $1: $said"; }

new_key() { quietly genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key"; }

# DNS:localhost,IP:127.0.0.1
alternative_names() {
  local host names=
  for host in "$@"; do
    if [[ $host =~ ^[0-9.]+$ || $host == *:* ]]; then names+=",IP:$host"; else names+=",DNS:$host"; fi
  done
  echo "${names#,}"
}

# sign NAME ROLE HOST...: makes NAME.crt for NAME.key. The orchestrator and workers serve, too.
sign() {
  local name=$1 role=$2 usage=clientAuth; shift 2
  [[ $role == orchestrator || $role == worker ]] && usage=serverAuth,clientAuth
  quietly req -new -key "$name.key" -subj "/CN=$name/OU=$role" -out "$name.csr"
  printf '%s\n' basicConstraints=critical,CA:FALSE keyUsage=critical,digitalSignature "extendedKeyUsage=$usage" \
    "subjectAltName=$(alternative_names "$@")" subjectKeyIdentifier=hash authorityKeyIdentifier=keyid > "$name.ext"
  quietly x509 -req -in "$name.csr" -CA ca.crt -CAkey ca.key -set_serial "0x$(openssl rand -hex 16)" -days "$days" \
    -sha256 -extfile "$name.ext" -out "$name.new"
  rm "$name.csr" "$name.ext"
  chmod 644 "$name.new"
  mv "$name.new" "$name.crt"
  echo "$name.crt: $role, until $(openssl x509 -in "$name.crt" -noout -enddate | cut -d= -f2)"
}

make() {
  local name=$1; shift
  [[ -e $name.crt ]] && return
  [[ -e $name.key ]] || new_key "$name"
  sign "$name" "$@"
}

# The hosts that a certificate was made for.
hosts_of() { openssl x509 -in "$1.crt" -noout -ext subjectAltName | grep -oP '(?<=DNS:|IP Address:)[^, ]+'; }

make_ca() {
  [[ -e ca.crt ]] && return
  new_key ca
  quietly req -x509 -key ca.key -subj "/CN=gpipe CA" -days 3650 -sha256 -addext basicConstraints=critical,CA:TRUE \
    -addext keyUsage=critical,keyCertSign,cRLSign -out ca.crt
  chmod 644 ca.crt
}

renew_all() {
  local file name subject role known
  [[ -e ca.key ]] || die "$folder has no ca.key"
  for file in *.crt; do
    name=${file%.crt}
    [[ $name == ca ]] && continue
    subject=$(openssl x509 -in "$file" -noout -subject -nameopt multiline)
    role=$(sed -n 's/^ *organizationalUnitName *= //p' <<< "$subject")
    if [[ $role == orchestrator && ${#hosts[@]} -gt 0 ]]; then
      sign "$name" "$role" "${hosts[@]}"
    else
      mapfile -t known < <(hosts_of "$name")
      sign "$name" "$role" "${known[@]}"
    fi
  done
}

if [[ $renew ]]; then
  renew_all
  exit
fi
make_ca
if [[ $issue ]]; then
  [[ $issue =~ ^(worker|admin|submit|read):([A-Za-z0-9._-]+)$ ]] || die "--issue $issue: must be ROLE:NAME"
  name=${BASH_REMATCH[2]}
  [[ -e $name.crt ]] && die "$folder/$name.crt is there already"
  make "$name" "${BASH_REMATCH[1]}" "$name"
  exit
fi
[[ ${#hosts[@]} -gt 0 ]] || hosts=(localhost 127.0.0.1 orchestrator)
make orchestrator orchestrator "${hosts[@]}"
make worker worker worker
make client submit client
make admin admin admin
make read read read
