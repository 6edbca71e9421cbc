"""A stand-in for Compute Engine, as far as `gcloud compute` asks it for hosts: its own hosts, in memory, in two regions.

Commands are lines of JSON on standard input, and each is answered by a line on standard output; the first line there is
the port. It ends when standard input does. Calls are `zones`, `types`, `list`, `insert`, `delete`.

  {"do": "refuse", "call": "…", "status": 403, "code": "…", "message": "…"}   at once
  {"do": "fail", "call": "insert", "code": "…", "message": "…"}   later, as the end of an operation
  {"do": "garble", "call": "…"}   answers what no service would
  {"do": "stall", "call": "…"}    does it, and never says so
  {"do": "veil", "call": "list"}  one zone of the list cannot be reached
  {"do": "place", "name": "…", "labels": {…}, "status": "…"}   a host of somebody else's
  {"do": "clear"}                 all is well again
  {"do": "seen"}                  the calls since the last time it was asked
With "zone", a refusal or failure is that zone's alone.
"""

import email
import http.server
import itertools
import json
import re
import signal
import sys
import threading
import urllib.parse

# What starts tests may have blocked signals, and what is started would inherit that.
signal.pthread_sigmask(signal.SIG_SETMASK, [])

ZONES = ["europe-west1-b", "europe-west1-c", "europe-west4-a"]
TYPES = [
    {"name": "e2-standard-4", "guestCpus": 4, "memoryMb": 16384, "architecture": "X86_64"},
    {"name": "n2-standard-8", "guestCpus": 8, "memoryMb": 32768, "architecture": "X86_64"},
    {"name": "t2a-standard-4", "guestCpus": 4, "memoryMb": 16384, "architecture": "ARM64"},
    {
        "name": "a2-ultragpu-1g", "guestCpus": 12, "memoryMb": 174080, "architecture": "X86_64",
        "accelerators": [{"guestAcceleratorType": "nvidia-a100-80gb", "guestAcceleratorCount": 1}],
        "bundledLocalSsds": {"defaultInterface": "NVME", "partitionCount": 1},
    },
]
numbers = itertools.count(100)
hosts, operations, orders, seen = {}, {}, {}, []
lock = threading.Lock()
over = threading.Event()
root = ""


class Refusal(Exception):
    def __init__(self, status, code, message):
        self.status = status
        self.body = {
            "error": {
                "code": status, "message": message,
                "errors": [{"message": message, "domain": "global", "reason": code}],
            }
        }


def order_for(call, zone=""):
    order = orders.get(call, {})
    if order.get("zone", zone) != zone:
        return {}
    if order.get("do") == "refuse":
        raise Refusal(order["status"], order["code"], order["message"])
    return order


def place(project, zone, body):
    number = next(numbers)
    host = {
        **body, "kind": "compute#instance", "id": str(number), "zone": f"{root}/projects/{project}/zones/{zone}",
        "selfLink": f"{root}/projects/{project}/zones/{zone}/instances/{body['name']}",
    }
    host.setdefault("status", "RUNNING")
    host["networkInterfaces"] = [
        {"name": "nic0", "networkIP": f"10.0.0.{number}", "accessConfigs": [{"natIP": f"192.0.2.{number}"}]}
    ]
    hosts[(zone, body["name"])] = host
    return host


def operation(project, zone, kind, target, order):
    name = f"operation-{next(numbers)}"
    made = {
        "kind": "compute#operation", "id": str(next(numbers)), "name": name, "operationType": kind, "status": "DONE",
        "progress": 100, "targetLink": target, "zone": f"{root}/projects/{project}/zones/{zone}",
        "selfLink": f"{root}/projects/{project}/zones/{zone}/operations/{name}",
    }
    if order.get("do") == "fail":
        made["error"] = {"errors": [{"code": order["code"], "message": order["message"]}]}
        made["httpErrorStatusCode"] = 503
    operations[name] = made
    return made


def answer(method, path, body):
    """What is answered, and the order under which it was."""
    path = urllib.parse.urlparse(path).path.removeprefix("/compute/v1")
    match = re.fullmatch(r"/projects/([^/]+)(.*)", path)
    if not match:
        raise Refusal(404, "notFound", f"there is no {path}")
    project, rest = match.groups()
    here = f"{root}/projects/{project}"

    def note(call, **words):
        seen.append({"call": call, "project": project, **words})

    if rest == "/zones":
        note("zones")
        order = order_for("zones")
        items = [{"name": zone, "status": "UP", "selfLink": f"{here}/zones/{zone}"} for zone in ZONES]
        return {"kind": "compute#zoneList", "items": items}, order
    if rest == "/aggregated/instances":
        note("list")
        order = order_for("list")
        items = {}
        for (zone, _), host in hosts.items():
            items.setdefault(f"zones/{zone}", {"instances": []})["instances"].append(host)
        if order.get("do") == "veil":
            items[f"zones/{ZONES[0]}"] = {"warning": {"code": "UNREACHABLE", "message": f"no answer from {ZONES[0]}"}}
        return {"kind": "compute#instanceAggregatedList", "items": items}, order
    if match := re.fullmatch(r"/global/images/family/([^/]+)", rest):
        if match[1] == "nothing":
            raise Refusal(404, "notFound", f"The resource 'projects/{project}{rest}' was not found")
        return {"name": match[1], "selfLink": f"{here}/global/images/{match[1]}", "diskSizeGb": "10"}, {}
    match = re.fullmatch(r"/zones/([^/]+)(.*)", rest)
    if not match or match[1] not in ZONES:
        raise Refusal(404, "notFound", f"The resource 'projects/{project}{rest}' was not found")
    zone, rest = match.groups()
    if rest == "":
        return {"name": zone, "status": "UP", "selfLink": f"{here}/zones/{zone}"}, {}
    if rest == "/machineTypes":
        note("types", zone=zone)
        order = order_for("types", zone)
        # Without its zone, the client would leave a type out.
        items = [{**kind, "zone": zone, "selfLink": f"{here}/zones/{zone}/machineTypes/{kind['name']}"} for kind in TYPES]
        return {"kind": "compute#machineTypeList", "items": items}, order
    if match := re.fullmatch(r"/operations/([^/]+)(/wait)?", rest):
        return operations[match[1]], {}
    if rest == "/instances" and method == "POST":
        metadata = {item["key"]: item["value"] for item in body.get("metadata", {}).get("items", [])}
        note(
            "insert", zone=zone, name=body["name"], script=metadata.get("startup-script", ""),
            market=body.get("scheduling", {}).get("provisioningModel", ""),
            accounts=json.dumps(body.get("serviceAccounts", [])),
            disk=body["disks"][0].get("initializeParams", {}).get("diskSizeGb", ""))
        order = order_for("insert", zone)
        if (zone, body["name"]) in hosts:
            raise Refusal(
                409, "alreadyExists",
                f"The resource 'projects/{project}/zones/{zone}/instances/{body['name']}' already exists")
        if order.get("do") == "fail":
            return operation(project, zone, "insert", "", order), {}
        return operation(project, zone, "insert", place(project, zone, body)["selfLink"], order), order
    if match := re.fullmatch(r"/instances/([^/]+)", rest):
        host = hosts.get((zone, match[1]))
        if method == "DELETE":
            note("delete", zone=zone, name=match[1])
        order = order_for("delete" if method == "DELETE" else "get", zone)
        if not host:
            raise Refusal(404, "notFound", f"The resource 'projects/{project}/zones/{zone}{rest}' was not found")
        if method == "DELETE":
            del hosts[(zone, match[1])]
            return operation(project, zone, "delete", host["selfLink"], order), order
        return host, order
    raise Refusal(404, "notFound", f"there is no {path}")


class Service(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def one(self, method, path, raw):
        """Status and bytes; None: never."""
        try:
            with lock:
                reply, order = answer(method, path, json.loads(raw) if raw.strip() else {})
        except Refusal as refusal:
            return refusal.status, json.dumps(refusal.body)
        if order.get("do") == "stall":
            over.wait(60)
            return None
        return 200, "<html> it works" if order.get("do") == "garble" else json.dumps(reply)

    def do_GET(self):
        raw = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        kind = "application/json"
        if self.path.startswith("/batch"):
            parts = email.message_from_string(f"content-type: {self.headers['content-type']}\n\n{raw}").get_payload()
            replies = []
            for part in parts:
                head, _, body = part.get_payload().replace("\r\n", "\n").partition("\n\n")
                method, path = head.split()[:2]
                reply = self.one(method, path, body)
                if reply:
                    replies.append(
                        f"--part\r\nContent-Type: application/http\r\n"
                        f"Content-ID: <response-{part['Content-ID'].strip('<>')}>\r\n\r\nHTTP/1.1 {reply[0]} Said\r\n"
                        f"Content-Type: application/json\r\n\r\n{reply[1]}\r\n")
            reply = (200, "".join(replies) + "--part--\r\n")
            kind = 'multipart/mixed; boundary="part"'
        else:
            reply = self.one(self.command, self.path, raw)
        if reply is None:
            self.close_connection = True
            return
        content = reply[1].encode()
        self.send_response(reply[0])
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET
    do_DELETE = do_GET


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
server.daemon_threads = True
root = f"http://127.0.0.1:{server.server_address[1]}/compute/v1"
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_address[1], flush=True)
try:
    for line in sys.stdin:
        command = json.loads(line)
        reply = []
        with lock:
            if command["do"] == "clear":
                orders.clear()
            elif command["do"] == "seen":
                reply, seen = seen, []
            elif command["do"] == "place":
                place("project", ZONES[0], {key: command[key] for key in ("name", "labels", "status")})
            else:
                orders[command["call"]] = command
        print(json.dumps(reply), flush=True)
finally:
    over.set()
