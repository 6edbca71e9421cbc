"""What a booting host asks of its server: GET /boot/worker, POST /boot/progress, with a ticket, over TLS.

boot_server.py FOLDER: FOLDER holds cert.pem, key.pem, ticket and worker. The port is written to FOLDER/port, what hosts
say to FOLDER/progress.
"""

import http.server
import os
import ssl
import sys

folder = sys.argv[1]
ticket = open(os.path.join(folder, "ticket")).read()
worker = open(os.path.join(folder, "worker"), "rb").read()


class Boot(http.server.BaseHTTPRequestHandler):
    def answer(self, code, body=b""):
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def allowed(self):
        if self.headers.get("Authorization") == "Bearer " + ticket:
            return True
        self.answer(401)
        return False

    def do_GET(self):
        if self.allowed():
            self.answer(200, worker) if self.path == "/boot/worker" else self.answer(404)

    def do_POST(self):
        said = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.allowed():
            with open(os.path.join(folder, "progress"), "ab") as progress:
                progress.write(said + b"\n")
            self.answer(200)

    def log_message(self, *words):
        pass


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem"))
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Boot)
# Each handshake in its connection's own thread: one slow host keeps no other waiting.
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
with open(os.path.join(folder, "port.part"), "w") as port:
    port.write(str(server.server_address[1]))
os.rename(os.path.join(folder, "port.part"), os.path.join(folder, "port"))
server.serve_forever()
