"""A cloud whose hosts are network namespaces: moto's EC2, and for each instance that it says runs, a namespace in which
root runs the user data, as cloud-init would. When the instance is terminated, whatever runs in there is killed.

  PYTHON cloud.py FOLDER            PYTHON is the one that has moto

All it tells and is told is in FOLDER:
  ready            {"endpoint", "address"}: of the services, and by which hosts reach this machine
  hosts/ID.log     what a host's user data printed
  hosts/ID.notice  written by the test: what the host's metadata service says of its being taken back
SIGTERM ends it, with all hosts.
"""

import http.server
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

# What starts tests may have blocked signals, and what is started would inherit that.
signal.pthread_sigmask(signal.SIG_SETMASK, [])

METADATA = "169.254.169.254"
# The host has its own /var/lib and its own processes; the rest is this machine's.
BOOT = 'mount --bind "$1/lib" /var/lib && cd / && sh "$1/user-data"; while :; do sleep 60; done'


class Metadata(http.server.BaseHTTPRequestHandler):
    """What a host is told of itself, and only of being taken back."""

    def do_PUT(self):
        self.answer(200, "token")

    def do_GET(self):
        try:
            with open(sys.argv[2]) as notice:
                self.answer(200, notice.read())
        except FileNotFoundError:
            self.answer(404, "")

    def answer(self, status, text):
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


if sys.argv[1] == "metadata":
    http.server.ThreadingHTTPServer((METADATA, 80), Metadata).serve_forever()


import base64  # noqa: E402

import boto3  # noqa: E402
from moto.server import ThreadedMotoServer  # noqa: E402

folder = sys.argv[1]
number = random.randrange(1 << 14)
bridge = f"sqb{number}"
network = f"10.{220 + number // 4096}.{number // 16 % 256}"
hosts = {}


def run(*arguments, check=True):
    return subprocess.run(arguments, check=check, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout


def boot(ec2, instance):
    place = len(hosts) + 2
    space = f"sqh{number}-{place}"
    home = f"{folder}/hosts/{instance}"
    os.makedirs(f"{home}/lib")
    data = ec2.describe_instance_attribute(InstanceId=instance, Attribute="userData")["UserData"]["Value"]
    with open(f"{home}/user-data", "wb") as file:
        file.write(base64.b64decode(data))
    run("ip", "netns", "add", space)
    near = f"sqn{number}x{place}"
    run("ip", "link", "add", near, "type", "veth", "peer", "name", "eth0", "netns", space)
    run("ip", "link", "set", near, "master", bridge, "up")
    for words in (
        ["addr", "add", f"{network}.{place}/24", "dev", "eth0"], ["link", "set", "eth0", "up"],
        ["link", "set", "lo", "up"], ["addr", "add", f"{METADATA}/32", "dev", "lo"],
    ):
        run("ip", "-n", space, *words)
    log = open(f"{home}.log", "ab")
    inside = ["ip", "netns", "exec", space]
    for words in (
        [sys.executable, os.path.abspath(__file__), "metadata", f"{home}.notice"],
        ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", BOOT, "host", home],
    ):
        subprocess.Popen(inside + words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    hosts[instance] = space


def kill(instance):
    space = hosts[instance]
    if space is None:
        return
    while pids := run("ip", "netns", "pids", space, check=False).split():
        for pid in pids:
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.05)
    run("ip", "netns", "del", space, check=False)
    hosts[instance] = None


over = threading.Event()
for name in (signal.SIGTERM, signal.SIGINT):
    signal.signal(name, lambda *_: over.set())
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
endpoint = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
ec2 = boto3.client(
    "ec2", endpoint_url=endpoint, region_name="eu-west-1", aws_access_key_id="cloud", aws_secret_access_key="cloud")
try:
    run("ip", "link", "add", bridge, "type", "bridge")
    run("ip", "addr", "add", f"{network}.1/24", "dev", bridge)
    run("ip", "link", "set", bridge, "up")
    with open(f"{folder}/ready.part", "w") as file:
        json.dump({"endpoint": endpoint, "address": f"{network}.1"}, file)
    os.rename(f"{folder}/ready.part", f"{folder}/ready")
    while not over.wait(0.2):
        running = {
            instance["InstanceId"]
            for reservation in ec2.describe_instances()["Reservations"]
            for instance in reservation["Instances"]
            if instance["State"]["Name"] == "running"
        }
        for instance in running - hosts.keys():
            boot(ec2, instance)
        for instance in hosts.keys() - running:
            kill(instance)
finally:
    for instance in hosts:
        kill(instance)
    run("ip", "link", "del", bridge, check=False)
    os._exit(0)
