#!/bin/bash
# A real Slurm on this machine alone: munge, one controller and two nodes of two cores and one pretended GPU, all on loopback.
#   tests/slurm_cluster.sh FOLDER COMMAND...
# runs COMMAND (sinfo, sbatch and squeue work in it) and exits as it does. It needs root and Debian's slurm-wlm and munge.
# Everything lives in a mount and process namespace of its own, so nothing of the machine's own /etc/slurm is touched and
# no daemon outlives this script, even if it is killed. FOLDER gets configuration, keys and logs; FOLDER/ready appears when
# both nodes are idle. Others enter with the id of this script's child: `nsenter --mount --pid --target ID COMMAND...`.
set -euo pipefail
if [[ "${1:-}" != --inside ]]; then
  [[ $# -ge 2 ]] || { sed -n 2,7p "$0" >&2; exit 2; }
  mkdir -p "$1"
  rm -f "$1/ready"
  exec unshare --mount --propagation private --pid --fork --kill-child --mount-proc "$0" --inside "$@"
fi
shift
folder=$(cd "$1" && pwd)
shift
cd /

rm -rf "$folder"/{etc,munge,state,spool} # of an earlier cluster, whose nodes would count as lost
mkdir -p "$folder"/{etc,munge,state,spool} /etc/slurm
mount --bind "$folder/etc" /etc/slurm
chmod 711 "$folder/munge"
dd if=/dev/urandom of="$folder/munge/key" bs=1024 count=1 status=none
chmod 400 "$folder/munge/key"
munged --force --num-threads=2 --key-file="$folder/munge/key" --socket="$folder/munge/socket" --pid-file="$folder/munge/pid" \
  --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"

cat > /etc/slurm/slurm.conf <<CONF
ClusterName=loopback
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=${SLURM_TEST_PORT:-17000}
SlurmUser=root
SlurmdUser=root
AuthInfo=socket=$folder/munge/socket
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,batch_sched_delay=1
ReturnToService=2
MinJobAge=300
GresTypes=gpu
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd-%n.log
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port=$((${SLURM_TEST_PORT:-17000} + 1)) CPUs=2 RealMemory=8000 Gres=gpu:1
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port=$((${SLURM_TEST_PORT:-17000} + 2)) CPUs=2 RealMemory=8000 Gres=gpu:1
PartitionName=main Nodes=n1,n2 Default=YES State=UP
CONF
echo "NodeName=n1,n2 Name=gpu File=/dev/null" > /etc/slurm/gres.conf

slurmctld -D >"$folder/slurmctld.out" 2>&1 &
for node in n1 n2; do slurmd -D -N "$node" >"$folder/slurmd-$node.out" 2>&1 & done
for _ in {1..120}; do
  [[ $(sinfo --noheader --Node --format %t 2>/dev/null | grep -c idle) == 2 ]] && break
  sleep 0.25
done
if [[ $(sinfo --noheader --Node --format %t 2>/dev/null | grep -c idle) != 2 ]]; then
  echo "Slurm's nodes are not idle after 30 s; the ends of its logs:" >&2
  tail -n 5 "$folder"/*.log "$folder"/*.out >&2
  exit 1
fi
touch "$folder/ready"
"$@"
