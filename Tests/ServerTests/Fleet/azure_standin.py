"""A stand-in for Azure: as much of its resource manager, its tokens and its list of prices as its own client asks for
to list sizes and to make, list and delete virtual machines.

    azure_standin.py FOLDER

It listens with TLS on a port of loopback that the system gives out, written to FOLDER/port; FOLDER/authority.pem is
who signs for it. Tokens are given out without TLS, as to a machine of Azure's own: FOLDER/tokens has that port.
FOLDER/mode, a word, says how it behaves: "refused" takes no token, "garbage" answers what is not JSON, "silent" never
answers, "quota" has no more cores, "stuck" fails a machine after its parts were made. What it has is in
FOLDER/resources.json, and FOLDER/requests has a line for each request.
"""
import base64, json, os, re, ssl, subprocess, sys, threading, time, uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote

folder = sys.argv[1]
lock = threading.RLock()
SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
TENANT = "66666666-7777-8888-9999-000000000000"
resources = {}  # By their ids in lower case.
deployments = {}


def sku(name, family, cpu, memory, spot=True, restricted=False, **more):
    capabilities = {"vCPUs": str(cpu), "MemoryGB": str(memory), "LowPriorityCapable": str(spot),
                    "CpuArchitectureType": "x64", "HyperVGenerations": "V1,V2", "PremiumIO": "True", **more}
    return {"resourceType": "virtualMachines", "name": name, "tier": "Standard", "family": family,
            "locations": ["westeurope"], "locationInfo": [{"location": "westeurope", "zones": []}],
            "capabilities": [{"name": key, "value": value} for key, value in capabilities.items()],
            "restrictions": [{"type": "Location", "values": ["westeurope"], "restrictionInfo": {
                "locations": ["westeurope"]}, "reasonCode": "NotAvailableForSubscription"}] if restricted else []}


SKUS = [
    sku("Standard_D2s_v5", "standardDSv5Family", 2, 8),
    sku("Standard_D8s_v5", "standardDSv5Family", 8, 32),
    sku("Standard_D2ps_v5", "standardDPSv5Family", 2, 8, CpuArchitectureType="Arm64"),
    sku("Standard_E4s_v5", "standardESv5Family", 4, 32, restricted=True),
    sku("Standard_B2s", "standardBSFamily", 2, 4, spot=False),
    sku("Standard_NC8as_T4_v3", "Standard NCASv3_T4 Family", 8, 56, GPUs="2"),
    sku("Standard_L8s_v3", "standardLSv3Family", 8, 64, NvmeDiskSizeInMiB="1831055"),
]


def price(name, words, amount, product="Virtual Machines Series", kind="Consumption", unit="1 Hour"):
    return {"armSkuName": name, "skuName": words, "productName": product, "retailPrice": amount, "type": kind,
            "unitOfMeasure": unit, "armRegionName": "westeurope", "serviceName": "Virtual Machines"}


PRICES = [
    [price("Standard_D2s_v5", "D2s v5", 0.115), price("Standard_D2s_v5", "D2s v5 Spot", 0.023),
     price("Standard_D2s_v5", "D2s v5 Low Priority", 0.010), price("Standard_D2s_v5", "D2s v5", 500.0, unit="1 Year"),
     price("Standard_D2s_v5", "D2s v5 Spot", 0.001, product="Virtual Machines Series Windows")],
    [price("Standard_D2ps_v5", "D2ps v5 Spot", 0.01), price("Standard_E4s_v5", "E4s v5 Spot", 0.05),
     price("Standard_B2s", "B2s", 0.048), price("Standard_NC8as_T4_v3", "NC8as T4 v3 Spot", 0.25),
     price("Standard_L8s_v3", "L8s v3 Spot", 0.15)],
]


def mode():
    try:
        with open(folder + "/mode") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""


def keep():
    with open(folder + "/resources.json.new", "w") as file:
        json.dump(list(resources.values()), file)
    os.rename(folder + "/resources.json.new", folder + "/resources.json")


def put(identity, body):
    kind = re.search(r"/providers/([^/]+/[^/]+)/([^/]+)$", identity)
    body = dict(body)
    body.update({"id": identity, "name": kind.group(2), "type": kind.group(1)})
    body.setdefault("properties", {})["provisioningState"] = "Succeeded"
    resources[identity.lower()] = body
    return body


def remove(identity):
    resource = resources.pop(identity.lower(), None)
    if resource and resource["type"] == "Microsoft.Compute/virtualMachines":
        for nic in resource["properties"]["networkProfile"]["networkInterfaces"]:
            if nic.get("properties", {}).get("deleteOption") == "Delete":
                resources.pop(nic["id"].lower(), None)
        disk = resource["properties"]["storageProfile"]["osDisk"]
        if disk.get("deleteOption") == "Delete":
            resources.pop((resource["group"] + "/providers/Microsoft.Compute/disks/" + resource["name"]).lower(), None)
    keep()
    return resource is not None


def in_use(identity):
    """Whether another resource names it."""
    return any(identity.lower() in json.dumps(other).lower() for key, other in resources.items()
               if key != identity.lower())


class Refusal(Exception):
    def __init__(self, code, word, message, inside=False):
        error = {"code": word, "message": message}
        if inside:
            error = {"code": "InvalidTemplateDeployment", "details": [error], "message":
                     "The template deployment is not valid according to the validation procedure. See inner errors."}
        self.code, self.content = code, {"error": error}


def deploy(group, name, template, parameters):
    """What a template has, in the order in which parts need each other."""
    def resolved(value):
        if isinstance(value, dict):
            return {key: resolved(one) for key, one in value.items()}
        if isinstance(value, list):
            return [resolved(one) for one in value]
        if isinstance(value, str):
            found = re.fullmatch(r"\[parameters\('(\w+)'\)\]", value)
            if found:
                return parameters[found.group(1)]["value"]
        return value

    parts = [resolved(part) for part in template["resources"]]
    error = None
    for part in sorted(parts, key=lambda part: part["type"].endswith("virtualMachines")):
        part.pop("dependsOn", None)
        identity = group + "/providers/" + part["type"] + "/" + part["name"]
        if part["type"] == "Microsoft.Compute/virtualMachines":
            part["group"] = group
            made = put(identity, part)
            put(group + "/providers/Microsoft.Compute/disks/" + part["name"], {"location": part["location"]})
            made["properties"].update({"vmId": str(uuid.uuid4()), "instanceView": {"statuses": [
                {"code": "PowerState/running", "displayStatus": "VM running"}]}})
            if mode() == "stuck":
                made["properties"]["provisioningState"] = "Failed"
                error = {"code": "DeploymentFailed", "message": "At least one resource deployment operation failed.",
                         "details": [{"code": "AllocationFailed", "message": "Allocation failed. We do not have "
                                      "sufficient capacity for the requested VM size in this region."}]}
        else:
            made = put(identity, part)
            if part["type"].endswith("publicIPAddresses"):
                made["properties"]["ipAddress"] = "192.0.2.%d" % (len(resources) + 1)
            if part["type"].endswith("networkInterfaces"):
                for configuration in made["properties"]["ipConfigurations"]:
                    configuration["properties"]["privateIPAddress"] = "10.0.0.%d" % (len(resources) + 3)
    keep()
    properties = {"provisioningState": "Failed" if error else "Succeeded", "timestamp": "2026-01-01T00:00:00Z",
                  "outputs": {}, "parameters": {}, "mode": "Incremental", "correlationId": str(uuid.uuid4())}
    if error:
        properties["error"] = error
    deployments[name] = {"id": group + "/providers/Microsoft.Resources/deployments/" + name, "name": name,
                         "type": "Microsoft.Resources/deployments", "properties": properties}


def check(template):
    """What the service says before it makes anything."""
    for part in template["resources"]:
        if part["type"] != "Microsoft.Compute/virtualMachines":
            continue
        size = part["properties"]["hardwareProfile"]["vmSize"]
        if size == "Standard_D8s_v5":
            raise Refusal(409, "SkuNotAvailable", "The requested VM size for resource 'Following SKUs have failed for "
                          "Capacity Restrictions: %s' is currently not available in location 'westeurope'." % size)
        if size not in [one["name"] for one in SKUS]:
            raise Refusal(400, "InvalidParameter", "The value %s provided for the VM size is not valid." % size)
        if mode() == "quota":
            raise Refusal(409, "QuotaExceeded", "Operation could not be completed as it results in exceeding approved "
                          "LowPriorityCores quota. Current Limit: 3, Current Usage: 2, Additional Required: 2", inside=True)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, code, value=None, headers=()):
        content = b"" if value is None else value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        for name, text in headers:
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(content)

    def handle_any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, _, query = self.path.partition("?")
        query = parse_qs(query)
        with open(folder + "/requests", "a") as file:
            file.write("%s %s\n" % (self.command, self.path))
        now = mode()
        if now == "silent":
            time.sleep(600)
        try:
            with lock:
                self.act(re.sub("/+", "/", unquote(path)).rstrip("/"), query, json.loads(body) if body else None, now)
        except Refusal as refusal:
            self.answer(refusal.code, refusal.content)

    do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = do_HEAD = handle_any

    def act(self, path, query, body, now):
        if path == "/prices":
            page = int(query.get("page", ["0"])[0])
            following = "https://%s/prices?page=%d" % (self.headers["Host"], page + 1)
            return self.answer(200, {"BillingCurrency": "USD", "Items": PRICES[page], "Count": len(PRICES[page]),
                                     "NextPageLink": following if page + 1 < len(PRICES) else None})
        base = "https://" + self.headers["Host"]
        if path == "/metadata/endpoints":
            return self.answer(200, {
                "name": "standin", "resourceManager": base, "portal": base, "graph": base, "graphAudience": base,
                "microsoftGraphResourceId": base, "media": base, "batch": base, "gallery": base,
                "activeDirectoryDataLake": base, "sqlManagement": base, "vmImageAliasDoc": base + "/aliases",
                "logAnalyticsResourceId": base, "suffixes": {}, "authentication": {
                    "loginEndpoint": base, "audiences": [base], "tenant": "common", "identityProvider": "AAD"}})
        if now == "garbage":
            return self.answer(200, b"<html>It works!</html>")
        if now == "refused" or not self.headers.get("Authorization", "").startswith("Bearer "):
            raise Refusal(401, "InvalidAuthenticationToken", "The access token is invalid.")
        home = "/subscriptions/" + SUBSCRIPTION
        if path == "/tenants":
            return self.answer(200, {"value": [{"id": "/tenants/" + TENANT, "tenantId": TENANT}]})
        if path == "/subscriptions":
            return self.answer(200, {"value": [{
                "id": home, "subscriptionId": SUBSCRIPTION, "displayName": "Some", "state": "Enabled",
                "tenantId": TENANT}]})
        if not path.lower().startswith(home):
            raise Refusal(404, "NotFound", "There is no " + path)
        rest = path[len(home):]
        if rest == "/providers/Microsoft.Compute/skus":
            return self.answer(200, {"value": SKUS})
        if rest == "/resources":
            return self.answer(200, {"value": self.filtered(query)})
        if re.fullmatch(r"/providers/Microsoft\.\w+", rest):
            return self.answer(200, {"id": path, "namespace": rest.split("/")[-1], "registrationState": "Registered",
                                     "resourceTypes": [{"resourceType": one, "locations": ["westeurope"],
                                                        "apiVersions": ["2023-09-01"]} for one in (
                                         "virtualMachines", "disks", "networkInterfaces", "publicIPAddresses",
                                         "virtualNetworks", "networkSecurityGroups")]})
        if "/publishers/" in rest:
            return self.image(path)
        if "/vmSizes" in rest:
            return self.answer(200, {"value": []})
        found = re.match(r"/resource[gG]roups/([^/]+)(.*)", rest)
        if not found:
            raise Refusal(404, "NotFound", "There is no " + path)
        if found.group(1) != "workers":
            raise Refusal(404, "ResourceGroupNotFound", "Resource group '%s' could not be found." % found.group(1))
        group = home + "/resourceGroups/workers"
        rest = found.group(2)
        if not rest:
            return self.answer(200, {"id": group, "name": "workers", "location": "westeurope", "properties": {
                "provisioningState": "Succeeded"}})
        deployment = re.fullmatch(r"/providers/Microsoft.Resources/deployments/([^/]+)(/[\w/]+)?", rest)
        if deployment:
            return self.deployment(group, deployment.group(1), deployment.group(2), body)
        identity = group + rest
        collection = re.fullmatch(r"/providers/([^/]+/[^/]+)", rest)
        if collection:
            return self.answer(200, {"value": [one for one in resources.values()
                                               if one["type"].lower() == collection.group(1).lower()]})
        if self.command == "DELETE":
            if in_use(identity):
                raise Refusal(409, "InUse", "%s is in use." % rest)
            return self.answer(200 if remove(identity) else 204)
        if rest.endswith("/instanceView"):
            return self.answer(200, resources[identity[:-len("/instanceView")].lower()]["properties"]["instanceView"])
        subnet = re.fullmatch(r"(.*/virtualNetworks/[^/]+)/subnets/([^/]+)", identity, re.IGNORECASE)
        if subnet and subnet.group(1).lower() in resources:
            return self.answer(200, {"id": identity, "name": subnet.group(2), "properties": {}})
        resource = resources.get(identity.lower())
        if resource is None:
            raise Refusal(404, "ResourceNotFound", "The Resource '%s' under resource group 'workers' was not found."
                          % rest.partition("/providers/")[2])
        self.answer(200, resource)

    def filtered(self, query):
        text = query.get("$filter", [""])[0]
        found = re.search(r"tagname eq '([^']*)'(?: and tagvalue eq '([^']*)')?", text)
        if not found:
            return list(resources.values())
        return [{key: one.get(key) for key in ("id", "name", "type", "location", "tags")} for one in resources.values()
                if (one.get("tags") or {}).get(found.group(1)) == found.group(2)]

    def image(self, path):
        if path.endswith("/versions"):
            return self.answer(200, [{"id": path + "/1.0.0", "name": "1.0.0", "location": "westeurope"}])
        self.answer(200, {"id": path, "name": "1.0.0", "location": "westeurope", "properties": {
            "hyperVGeneration": "V2", "osDiskImage": {"operatingSystem": "Linux"}, "dataDiskImages": [],
            "features": [], "architecture": "x64"}})

    def deployment(self, group, name, action, body):
        if action == "/validate":
            check(body["properties"]["template"])
            return self.answer(200, {"id": name, "name": name, "properties": {"provisioningState": "Succeeded"}})
        if self.command == "PUT":
            check(body["properties"]["template"])
            deploy(group, name, body["properties"]["template"], body["properties"].get("parameters") or {})
            return self.answer(201, dict(deployments[name], properties=dict(
                deployments[name]["properties"], provisioningState="Accepted")), [
                ("Retry-After", "0"), ("Azure-AsyncOperation", "https://%s%s/operationStatuses/1?api-version=2024-11-01"
                                       % (self.headers["Host"], deployments[name]["id"]))])
        if action == "/operationStatuses/1":
            properties = deployments[name]["properties"]
            return self.answer(200, {"status": properties["provisioningState"], **(
                {"error": properties["error"]} if "error" in properties else {})})
        if action:
            return self.answer(200, {"value": []})
        self.answer(200, deployments[name])


class Tokens(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        def part(value):
            return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

        ends = int(time.time()) + 86400
        token = ".".join([part({"alg": "none"}), part({"tid": TENANT, "oid": "o", "appid": "a", "exp": ends}), "c2lnbg"])
        content = json.dumps({"access_token": token, "expires_on": str(ends), "token_type": "Bearer", "client_id": "c",
                              "resource": "https://management.core.windows.net/"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class Server(ThreadingHTTPServer):
    daemon_threads = True


subprocess.run(
    ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
     "subjectAltName=IP:127.0.0.1", "-keyout", folder + "/key.pem", "-out", folder + "/authority.pem"],
    check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(folder + "/authority.pem", folder + "/key.pem")
service = Server(("127.0.0.1", 0), Handler)
service.socket = context.wrap_socket(service.socket, server_side=True)
tokens = Server(("127.0.0.1", 0), Tokens)
threading.Thread(target=tokens.serve_forever, daemon=True).start()
keep()
for name, port in (("tokens", tokens), ("port", service)):
    with open(folder + "/" + name + ".new", "w") as file:
        file.write(str(port.server_address[1]))
    os.rename(folder + "/" + name + ".new", folder + "/" + name)
service.serve_forever()
