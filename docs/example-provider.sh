#!/bin/sh
# A provider in some forty lines: its hosts are processes of the machine it runs on. docs/providers.md has the format.
set -eu
umask 077
hosts=${SCITQ_EXAMPLE_HOSTS:-$HOME/.scitq-hosts}
request=$(cat)
ask() { printf '%s' "$request" | jq -r ".$1"; }
refuse() { jq -n --arg class "$1" --arg message "$2" '{error: {$class, $message}}' && exit 1; }
runs() { [ -s "$hosts/$1/pid" ] && case $(ps -o stat= -p "$(cat "$hosts/$1/pid")") in '' | Z*) false ;; esac }
describe() { jq -n --arg key "$1" '{$key, id: $key, state: "running", address: "127.0.0.1"}'; }
mkdir -p "$hosts"
exec 9>"$hosts/lock" && flock 9 # one call at a time: the same order makes one host
case ${1:-} in
  flavors)
    memory=$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)
    jq -n --argjson cpu "$(nproc)" --argjson kb "$memory" \
      '{flavors: [{name: "process", $cpu, memory: ($kb / 1048576), disk: 10, price: 0}]}'
    ;;
  deploy)
    key=$(ask key) home=$hosts/$key
    [ "$(ask flavor)" = process ] || refuse unsupported "there are no hosts but of the flavor process"
    if ! runs "$key"; then
      [ "$(find "$hosts" -mindepth 1 -maxdepth 1 -type d | wc -l)" -lt 4 ] || refuse capacity "four processes are enough"
      mkdir -p "$home"
      ask pilot >"$home/boot.sh"
      SCITQ_FOLDER=$home setsid sh "$home/boot.sh" >"$home/log" 2>&1 </dev/null 9>&- &
      echo $! >"$home/pid"
    fi
    describe "$key" | jq '{instance: .}'
    ;;
  terminate)
    key=$(ask key)
    if runs "$key"; then kill -TERM "-$(cat "$hosts/$key/pid")"; fi
    tries=100
    while runs "$key" && [ $tries -gt 0 ]; do sleep 0.1 && tries=$((tries - 1)); done
    if runs "$key"; then kill -KILL "-$(cat "$hosts/$key/pid")"; fi
    rm -rf "${hosts:?}/$key"
    echo '{}'
    ;;
  instances)
    for home in "$hosts/$(ask prefix)"*; do
      if runs "${home##*/}"; then describe "${home##*/}"; fi
    done | jq -s '{instances: .}'
    ;;
  *) refuse misconfigured "asked for ${1:-nothing}" ;;
esac
