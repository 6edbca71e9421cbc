#!/bin/sh
# A machine that ssh reaches, for tests: ssh_machine.sh KEYS INDEX FOLDER ADDRESS PORT CPUS [NAME=VALUE...]. Becomes a real sshd,
# in a mount namespace of its own, where KEYS/diskINDEX stands in the place of FOLDER and no systemd is seen: what it is told to do
# touches nothing of this machine. Whoever has KEYS/key is let in as root, with these variables.
set -eu
keys=$1 index=$2 folder=$3 address=$4 port=$5 cpus=$6
shift 6
variables=$*
disk=$keys/disk$index key=$keys/host$index
mkdir -p /run/sshd "$disk" "$folder"
[ -e "$key" ] || ssh-keygen -q -t ed25519 -N '' -f "$key"
set -- /usr/sbin/sshd -D -e -f /dev/null -o "ListenAddress=$address" -o "Port=$port" -o "HostKey=$key" \
  -o PidFile=none -o "AuthorizedKeysFile=$keys/key.pub" -o UsePAM=no -o StrictModes=no -o PermitRootLogin=yes \
  -o PasswordAuthentication=no -o KbdInteractiveAuthentication=no
[ -z "$variables" ] || set -- "$@" -o "SetEnv=$variables"
exec unshare -m --propagation private sh -c '
  mount --bind "$1" "$2"
  [ ! -d /run/systemd/system ] || mount -t tmpfs none /run/systemd
  cpus=$3
  shift 3
  exec taskset -c "$cpus" "$@"' sh "$disk" "$folder" "$cpus" "$@"
