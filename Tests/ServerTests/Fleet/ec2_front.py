"""A cloud that can refuse: it stands before moto and answers some calls in its place.

Commands are lines of JSON on standard input, and each is answered by a line on standard output; the first line there is
the port. It ends, and moto with it, when standard input does.

  {"do": "refuse", "call": "RunInstances", "status": 500, "code": "…", "message": "…"}
  {"do": "garble", "call": "…"}   answers what no service would
  {"do": "stall", "call": "…"}    does it, and never says so
  {"do": "print", "call": "…", "text": "…"}   answers this
  {"do": "clear"}                 all calls go to moto again
  {"do": "seen"}                  the calls since the last time it was asked
"""

import http.client
import http.server
import json
import re
import signal
import subprocess
import sys
import threading
import urllib.parse

# What starts tests may have blocked signals, and what is started would inherit that.
signal.pthread_sigmask(signal.SIG_SETMASK, [])

orders = {}
seen = []
lock = threading.Lock()
over = threading.Event()
moto = subprocess.Popen(
    ["moto_server", "-H", "127.0.0.1", "-p", "0"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE, text=True)
behind = 0
for line in moto.stderr:
    found = re.search(r"Running on http://127\.0\.0\.1:(\d+)", line)
    if found:
        behind = int(found.group(1))
        break


def swallow():
    for _ in moto.stderr:
        pass


threading.Thread(target=swallow, daemon=True).start()


class Front(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        target = self.headers.get("x-amz-target")
        fields = {} if target else dict(urllib.parse.parse_qsl(body.decode()))
        call = target.split(".")[-1] if target else fields.get("Action", "")
        with lock:
            seen.append({"call": call, **fields})
            order = orders.get(call, {})
        kind = order.get("do")
        if kind == "refuse":
            # Both manners of telling: of EC2, and of the services that speak JSON.
            if target:
                text = json.dumps({"__type": order["code"], "message": order["message"]})
            else:
                text = (
                    f"<?xml version='1.0'?><Response><Errors><Error><Code>{order['code']}</Code>"
                    f"<Message>{order['message']}</Message></Error></Errors><RequestID>r</RequestID></Response>")
            return self.answer(order["status"], text.encode())
        if kind == "garble":
            return self.answer(200, b"<html>\x00 it works")
        if kind == "print":
            return self.answer(200, order["text"].encode())
        link = http.client.HTTPConnection("127.0.0.1", behind, timeout=60)
        link.request("POST", self.path, body, dict(self.headers))
        reply = link.getresponse()
        content = reply.read()
        link.close()
        if kind == "stall":
            over.wait(60)
            self.close_connection = True
            return None
        return self.answer(reply.status, content)

    def answer(self, status, content):
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Front)
server.daemon_threads = True
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
            else:
                orders[command["call"]] = command
        print(json.dumps(reply), flush=True)
finally:
    over.set()
    moto.kill()
    moto.wait()
