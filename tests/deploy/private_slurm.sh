#!/usr/bin/env bash
# A Slurm cluster of two nodes on this machine, with its own munge, on loopback: private_slurm.sh FOLDER COMMAND...
# runs COMMAND with it and stops it again. Needs root, and Debian's slurmctld, slurmd, slurm-client and munge.
set -euo pipefail
folder=$1
shift
host=$(hostname -s)
mkdir -p "$folder"/{state,log}
export SLURM_CONF=$folder/slurm.conf

cat >"$SLURM_CONF" <<CONF
ClusterName=private
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=26817
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=5
StateSaveLocation=$folder/state
SlurmctldPidFile=$folder/slurmctld.pid
SlurmctldLogFile=$folder/log/slurmctld
SlurmdPidFile=$folder/%n.pid
SlurmdLogFile=$folder/log/%n
SlurmdSpoolDir=$folder/spool-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
JobRequeue=1
KillWait=20
ReturnToService=2
NodeName=node[0-1] NodeHostname=$host NodeAddr=127.0.0.1 Port=[26818-26819] CPUs=2 RealMemory=4000
PartitionName=all Nodes=ALL Default=YES State=UP
CONF

# Daemons in the foreground, so that they can be stopped by their ids.
daemons=()
stop() {
  for pid in "${daemons[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait || true
}
trap stop EXIT
dd if=/dev/urandom of="$folder/munge.key" bs=128 count=1 status=none
chmod 400 "$folder/munge.key"
munged --foreground --socket "$folder/munge.socket" --key-file "$folder/munge.key" --pid-file "$folder/munge.pid" \
  --log-file "$folder/log/munge" --seed-file "$folder/munge.seed" 2>"$folder/log/munge.err" & daemons+=($!)
until [ -S "$folder/munge.socket" ]; do sleep 0.1; done
slurmctld -D 2>"$folder/log/slurmctld.err" & daemons+=($!)
for node in node0 node1; do
  mkdir -p "$folder/spool-$node"
  slurmd -D -N "$node" 2>"$folder/log/$node.err" & daemons+=($!)
done
until [ "$(sinfo --noheader --format %D --states idle 2>/dev/null)" = 2 ]; do
  kill -0 "${daemons[@]}"
  sleep 0.2
done
"$@"
