#!/bin/sh
# What a host does to become a worker of scitq. The server fills in what stands between @ signs.
# It may be run again: what is done is not done twice.
set -eu
umask 077
FOLDER='@FOLDER@'
mkdir -p "$FOLDER"
cd "$FOLDER"
# An image may be one of a host that was a worker: what that left is not this one's.
if [ "$(cat name 2>/dev/null)" != '@NAME@' ]; then
  if [ -e store ] && [ -e /etc/systemd/system/scitq-worker.service ]; then
    systemctl stop --no-block scitq-worker || true
    systemctl kill -s KILL scitq-worker || true
  fi
  rm -rf store
  printf '%s' '@NAME@' >name
fi
cat >authority.pem <<'PEM'
@AUTHORITY@
PEM
printf '%s' '@TICKET@.@FINGERPRINT@' >ticket
printf 'Authorization: Bearer %s\n' '@TICKET@' >header

# say PHASE WORDS: what people see in `scitq worker events`. It may fail: a host is not lost for want of a word.
say() {
  curl -sS --max-time 10 --cacert authority.pem -H @header --data-binary "$1 $2" \
    'https://@SERVER@/boot/progress' >/dev/null 2>&1 || true
}

missing() { ! command -v "$1" >/dev/null 2>&1; }

install() {
  if ! missing apt-get; then
    DEBIAN_FRONTEND=noninteractive apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y install "$@"
  elif ! missing dnf; then
    dnf -q -y install "$@"
  elif ! missing zypper; then
    zypper -q -n install "$@"
  else
    return 1
  fi
}

if missing curl; then
  if [ '@INSTALL@' = yes ]; then install curl ca-certificates; fi
fi
say booted "on $(uname -n)"

# is FILE SHA256: whether the file is that one.
is() { printf '%s  %s\n' "$2" "$1" | sha256sum -c - >/dev/null 2>&1; }

fetch() {
  curl -sS --fail --connect-timeout 20 --speed-limit 1000 --speed-time 60 --cacert authority.pem -H @header -o "$1" "https://@SERVER@$2"
}

if [ ! -x scitq-worker ] || ! is scitq-worker '@SHA256@'; then
  # The server may be starting again, or be many hosts' at once.
  tries=0
  until fetch scitq-worker.part /boot/worker; do
    tries=$((tries + 1))
    [ $tries -lt 20 ] || exit 1
    sleep 15
  done
  # Since this script was made, the server may have got a newer one.
  if ! is scitq-worker.part '@SHA256@' && ! { fetch sha256 /boot/sha256 && is scitq-worker.part "$(cat sha256)"; }; then
    say failed 'the worker that was fetched is not the one that was promised'
    rm -f scitq-worker.part
    exit 1
  fi
  chmod 755 scitq-worker.part
  mv scitq-worker.part scitq-worker
  say fetched 'the worker, and its SHA-256 is right'
fi

if [ '@INSTALL@' = yes ]; then
  if missing docker; then
    say installing docker
    install docker.io || install docker || say failed 'docker could not be installed; bare tasks can be run'
    systemctl enable --now docker >/dev/null 2>&1 || service docker start >/dev/null 2>&1 || true
  fi
  if missing rclone; then
    say installing rclone
    (curl -sS --fail --max-time 120 https://rclone.org/install.sh | sh) >/dev/null 2>&1 ||
      install rclone || say failed 'rclone could not be installed; remotes cannot be used'
  fi
fi

set -- ./scitq-worker --server '@SERVER@' --token-file ticket --store "$FOLDER/store" --name '@NAME@' \
  --concurrency '@CONCURRENCY@' --prefetch '@PREFETCH@' --metadata '@METADATA@' @SHARE@
say joining 'the worker starts'
if [ '@FOREGROUND@' = yes ]; then
  exec "$@"
fi
if [ -d /run/systemd/system ] && [ "$(id -u)" = 0 ]; then
  cat >/etc/systemd/system/scitq-worker.service <<UNIT
[Unit]
Description=scitq worker
After=network-online.target docker.service
[Service]
WorkingDirectory=$FOLDER
ExecStart=$FOLDER/scitq-worker --server @SERVER@ --token-file ticket --store $FOLDER/store --name @NAME@ --concurrency @CONCURRENCY@ --prefetch @PREFETCH@ --metadata @METADATA@ @SHARE@
Restart=on-failure
RestartSec=5
KillMode=process
TimeoutStopSec=infinity
[Install]
WantedBy=multi-user.target
UNIT
  systemctl daemon-reload
  systemctl enable --now scitq-worker
else
  setsid "$@" >worker.log 2>&1 </dev/null &
  echo $! >worker.pid
fi
