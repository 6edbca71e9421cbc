#!/usr/bin/env bash
# A real Slurm of three nodes on this machine: slurm_world.sh start|stop|down|up FOLDER. `down` and `up` are the controller's.
# Clients are told of it by SLURM_CONF=FOLDER/slurm.conf.
set -euo pipefail
action=$1 folder=$2
export SLURM_CONF=$folder/slurm.conf PATH=$PATH:/usr/sbin:/sbin LC_ALL=C

alive() {
  local state
  state=$(sed -E 's/^.*\) (.).*/\1/' "/proc/$1/stat" 2>/dev/null) || return 1
  [ -n "$state" ] && [ "$state" != Z ]
}
stop_file() {
  local pid tries=200
  [ -s "$1" ] || return 0
  pid=$(tr -dc 0-9 <"$1")
  kill "$pid" 2>/dev/null || true
  while alive "$pid" && [ $tries -gt 0 ]; do
    sleep 0.05
    tries=$((tries - 1))
  done
  if alive "$pid"; then kill -9 "$pid" 2>/dev/null || true; fi
  rm -f "$1"
}
wait_until() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.1
  done
}
nodes_are_idle() { [ "$(timeout 5 sinfo -h -o %T 2>/dev/null | sort -u)" = idle ]; }

start() {
  local host user ports key=$folder/munge
  host=$(hostname -s) user=$(id -un)
  mkdir -p "$folder"/{munge,state,spool,log}
  chmod 700 "$key"
  head -c 128 /dev/urandom >"$key/key"
  chmod 600 "$key/key"
  munged --force --key-file="$key/key" --socket="$key/socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/log/munge" --seed-file="$key/seed" 2>/dev/null
  # Free a moment ago: Slurm takes no 0.
  read -r -a ports < <(python3 - <<'PY'
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
print(*(s.getsockname()[1] for s in sockets))
PY
  )
  cat >"$SLURM_CONF" <<CONF
ClusterName=scitq
SlurmctldHost=$host(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket=$key/socket
CredType=cred/munge
SlurmUser=$user
SlurmdUser=$user
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.%n.pid
SlurmctldLogFile=$folder/log/slurmctld
SlurmdLogFile=$folder/log/slurmd.%n
SlurmctldPort=${ports[0]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,sched_min_interval=1000
ReturnToService=2
KillWait=3
SlurmdTimeout=30
SlurmctldTimeout=10
MessageTimeout=5
MpiDefault=none
SwitchType=switch/none
PropagateResourceLimits=NONE
NodeName=n[1-2] NodeHostname=$host NodeAddr=127.0.0.1 Port=[${ports[1]}-$((ports[1] + 1))] CPUs=2 RealMemory=4000 TmpDisk=20480 State=UNKNOWN
NodeName=n3 NodeHostname=$host NodeAddr=127.0.0.1 Port=${ports[3]} CPUs=1 RealMemory=2048 TmpDisk=10240 State=UNKNOWN
PartitionName=main Nodes=n[1-3] Default=YES MaxTime=INFINITE State=UP
PartitionName=short Nodes=n3 MaxTime=30:00 State=UP
CONF
  sed -i -E "s/Port=\[[0-9-]+\]/Port=[${ports[1]},${ports[2]}]/" "$SLURM_CONF"
  up
  local node
  for node in n1 n2 n3; do slurmd -N $node 2>>"$folder/log/start"; done
  wait_until 40 nodes_are_idle || { tail -n 5 "$folder"/log/* >&2; exit 1; }
}
up() { slurmctld -i 2>>"$folder/log/start"; }

case $action in
  start) start ;;
  up) up && wait_until 20 eval 'timeout 5 squeue -h >/dev/null 2>&1' ;;
  down) stop_file "$folder/slurmctld.pid" ;;
  stop)
    timeout 10 scancel --user "$(id -un)" 2>/dev/null || true
    wait_until 10 eval '[ -z "$(timeout 5 squeue -h 2>/dev/null)" ]' || true
    for name in slurmd.n1 slurmd.n2 slurmd.n3 slurmctld munged; do stop_file "$folder/$name.pid"; done
    ;;
esac
