"""A stand-in for a cloud of OpenStack: as much of keystone, nova, glance and neutron as its own client asks for to
list flavors and to make, list and delete servers.

    openstack_standin.py FOLDER

It listens on a port of loopback that the system gives out, written to FOLDER/port. FOLDER/mode, a word, says how it
behaves: "refused" takes no password, "garbage" answers what is not JSON, "silent" never answers, "quota" has no more
instances, "gone" lists what cannot be deleted any more, "split" has a part that does not answer. What it has is in
FOLDER/servers.json, and FOLDER/requests has a line for each request.
"""
import base64, json, os, sys, threading, time, uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

folder = sys.argv[1]
lock = threading.RLock()
FLAVORS = [
    ("11", "b2-7", 2, 7168, 50, {}),
    ("12", "c2-full", 8, 16384, 100, {}),
    ("13", "c2-broken", 8, 16384, 100, {}),
    ("14", "a100-1", 16, 122880, 200, {"pci_passthrough:alias": "a100:2"}),
    ("15", "no-price", 4, 8192, 20, {}),
    ("16", "c2-slow", 4, 8192, 20, {}),
]
IMAGE = {"id": str(uuid.uuid4()), "name": "Debian 12", "status": "active", "visibility": "public"}
NETWORK = {"id": str(uuid.uuid4()), "name": "private", "status": "ACTIVE", "subnets": []}
GROUP = {"id": str(uuid.uuid4()), "name": "inside", "security_group_rules": [], "description": ""}
servers = {}


def keep():
    with lock:
        text = json.dumps(list(servers.values()))
        with open(folder + "/servers.json.new", "w") as file:
            file.write(text)
        os.rename(folder + "/servers.json.new", folder + "/servers.json")


def mode():
    try:
        with open(folder + "/mode") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""


def made(body):
    flavor = next(f for f in FLAVORS if f[0] == body["flavorRef"])
    identity = str(uuid.uuid4())
    server = {
        "id": identity, "name": body["name"], "status": "BUILD", "OS-EXT-STS:task_state": "scheduling",
        "OS-EXT-STS:vm_state": "building", "OS-EXT-STS:power_state": 0, "tenant_id": "p", "user_id": "u",
        "metadata": body.get("metadata", {}), "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "updated": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "addresses": {}, "links": [],
        "image": {"id": IMAGE["id"], "links": []}, "flavor": {"id": flavor[0], "links": []}, "security_groups": [
            {"name": GROUP["name"] if group["name"] == GROUP["id"] else group["name"]}
            for group in body.get("security_groups", [])],
        "key_name": body.get("key_name"), "OS-EXT-AZ:availability_zone": "nova", "hostId": "", "config_drive": "",
        "os-extended-volumes:volumes_attached": [], "adminPass": "wxyz-secret", "user_data": base64.b64decode(
            body.get("user_data", "")).decode(), "network": body.get("networks"), "flavor_name": flavor[1],
        "looks": 0,
    }
    servers[identity] = server
    keep()
    return server


def looked(server):
    """A server gets on a little each time that somebody looks."""
    server["looks"] += 1
    if server["status"] != "BUILD" or server["looks"] < 2:
        return
    if server["flavor_name"] == "c2-full":
        server.update({"status": "ERROR", "OS-EXT-STS:vm_state": "error", "OS-EXT-STS:task_state": None, "fault": {
            "code": 500, "created": server["created"],
            "message": "No valid host was found. There are not enough hosts available."}})
    elif server["flavor_name"] == "c2-broken":
        server.update({"status": "ERROR", "OS-EXT-STS:vm_state": "error", "OS-EXT-STS:task_state": None, "fault": {
            "code": 500, "created": server["created"], "message": "Build of instance aborted: its disk is full"}})
    elif server["flavor_name"] == "c2-slow":
        server["OS-EXT-STS:task_state"] = "spawning"
    else:
        server.update({"status": "ACTIVE", "OS-EXT-STS:vm_state": "active", "OS-EXT-STS:task_state": None,
                       "OS-EXT-STS:power_state": 1, "addresses": {"private": [
                           {"addr": "10.0.0.%d" % (len(servers) + 3), "version": 4, "OS-EXT-IPS:type": "fixed"}]}})
    keep()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, code, value=None, headers=()):
        content = b"" if value is None else value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, text in headers:
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(content)

    def refuse(self, code, kind, message):
        self.answer(code, {kind: {"code": code, "message": message}})

    def handle_any(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        path, _, query = self.path.partition("?")
        path = path.rstrip("/")
        with open(folder + "/requests", "a") as file:
            file.write("%s %s\n" % (self.command, self.path))
        base = "http://" + self.headers["Host"]
        now = mode()
        if now == "silent":
            time.sleep(600)
        if now == "garbage" and path.startswith("/compute/v2.1/"):
            return self.answer(200, b"<html>It works!</html>")
        if path == "/identity/v3" or path == "/identity":
            return self.answer(200, {"version": {
                "id": "v3.14", "status": "stable", "updated": "2020-04-07T00:00:00Z",
                "links": [{"rel": "self", "href": base + "/identity/v3/"}], "media-types": []}})
        if path == "/identity/v3/auth/tokens":
            return self.token(base, json.loads(body), now)
        if path == "/compute/v2.1" or path == "/compute":
            return self.answer(200, {"version": {
                "id": "v2.1", "status": "CURRENT", "version": "2.90", "min_version": "2.1",
                "updated": "2013-07-23T11:33:21Z", "links": [{"rel": "self", "href": base + "/compute/v2.1/"}]}})
        if path == "/image":
            return self.answer(300, {"versions": [{"id": "v2.9", "status": "CURRENT", "links": [
                {"rel": "self", "href": base + "/image/v2/"}]}]})
        if path == "/network":
            return self.answer(200, {"versions": [{"id": "v2.0", "status": "CURRENT", "links": [
                {"rel": "self", "href": base + "/network/v2.0/"}]}]})
        if path.startswith("/image/v2/images"):
            return self.pick(path[len("/image/v2/images"):], query, [IMAGE], "image")
        if path.startswith("/network/v2.0/networks"):
            return self.pick(path[len("/network/v2.0/networks"):], query, [NETWORK], "network")
        if path.startswith("/network/v2.0/security-groups"):
            return self.pick(path[len("/network/v2.0/security-groups"):], query, [GROUP], "security_group")
        if path.startswith("/compute/v2.1/"):
            with lock:
                return self.compute(path[len("/compute/v2.1/"):].split("/"), query, body, now)
        self.refuse(404, "itemNotFound", "There is no " + path)

    do_GET = do_POST = do_DELETE = do_PUT = handle_any

    def token(self, base, body, now):
        password = body["auth"]["identity"].get("password", {}).get("user", {}).get("password")
        if now == "refused" or password != "right":
            return self.refuse(401, "error", "The request you have made requires authentication.")
        ends = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(time.time() + 3600))
        catalog = [
            {"type": kind, "name": kind, "id": kind, "endpoints": [
                {"id": kind + region, "interface": "public", "region": region, "region_id": region, "url": base + path}
                for region in ("north", "south")]}
            for kind, path in (("identity", "/identity"), ("compute", "/compute/v2.1"), ("image", "/image"),
                               ("network", "/network"))]
        self.answer(201, {"token": {
            "methods": ["password"], "expires_at": ends, "issued_at": ends, "catalog": catalog, "audit_ids": ["a"],
            "user": {"id": "u", "name": "somebody", "domain": {"id": "default", "name": "Default"}},
            "project": {"id": "p", "name": "some", "domain": {"id": "default", "name": "Default"}},
            "roles": [{"id": "r", "name": "member"}], "is_domain": False}}, [("X-Subject-Token", "token")])

    def pick(self, rest, query, all_of_them, kind):
        plural = kind + "s"
        if rest.strip("/"):
            found = [one for one in all_of_them if one["id"] == rest.strip("/")]
            if not found:
                return self.refuse(404, "itemNotFound", "No %s %s" % (kind, rest))
            return self.answer(200, found[0] if kind == "image" else {kind: found[0]})
        from urllib.parse import parse_qs
        wanted = parse_qs(query).get("name")
        self.answer(200, {plural: [one for one in all_of_them if not wanted or one["name"] in wanted]})

    def compute(self, parts, query, body, now):
        base = "http://" + self.headers["Host"]
        if parts[0] == "flavors":
            shown = [{
                "id": f[0], "name": f[1], "vcpus": f[2], "ram": f[3], "disk": f[4], "swap": "", "rxtx_factor": 1.0,
                "OS-FLV-EXT-DATA:ephemeral": 0, "os-flavor-access:is_public": True, "OS-FLV-DISABLED:disabled": False,
                "links": [], "extra_specs": f[5], "description": None} for f in FLAVORS]
            if len(parts) == 3:
                return self.answer(200, {"extra_specs": next(f[5] for f in FLAVORS if f[0] == parts[1])})
            if len(parts) == 2 and parts[1] != "detail":
                found = [f for f in shown if f["id"] == parts[1]]
                if not found:
                    return self.refuse(404, "itemNotFound", "Flavor %s could not be found." % parts[1])
                return self.answer(200, {"flavor": found[0]})
            return self.answer(200, {"flavors": shown})
        if parts[0] == "servers" and self.command == "POST":
            if now == "quota":
                return self.refuse(
                    403, "forbidden", "Quota exceeded for cores, instances: Requested 2, 1, but already used 20, 10 "
                    "of 20, 10 cores, instances")
            return self.answer(202, {"server": made(json.loads(body)["server"])})
        if parts[0] == "servers" and (len(parts) == 1 or parts[1] == "detail"):
            from urllib.parse import parse_qs
            import re
            pattern = re.compile(parse_qs(query).get("name", [""])[0])
            found = [server for server in servers.values() if pattern.search(server["name"])]
            for server in found:
                looked(server)
            if now == "split":
                found.append({"id": str(uuid.uuid4()), "status": "UNKNOWN", "tenant_id": "p", "created": "", "links": []})
            return self.answer(200, {"servers": found})
        if parts[0] == "servers":
            server = servers.get(parts[1])
            if server is None or (now == "gone" and self.command == "DELETE"):
                return self.refuse(404, "itemNotFound", "Instance %s could not be found." % parts[1])
            if self.command == "DELETE":
                del servers[parts[1]]
                keep()
                return self.answer(204)
            looked(server)
            return self.answer(200, {"server": server})
        self.refuse(404, "itemNotFound", "There is no " + "/".join(parts))


class Server(ThreadingHTTPServer):
    daemon_threads = True


service = Server(("127.0.0.1", 0), Handler)
keep()
with open(folder + "/port.new", "w") as file:
    file.write(str(service.server_address[1]))
os.rename(folder + "/port.new", folder + "/port")
service.serve_forever()
