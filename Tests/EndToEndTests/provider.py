#!/usr/bin/env python3
"""A provider for `exec` whose hosts are processes, and which fails, or kills the server, where a test says so.

Below the folder in FLEET_FOLDER (beside this file's copy): `calls` has a line for each call, `made` one for each host,
`hosts/KEY` is a host with the number of its process. `mood` holds the class of an error that `deploy` answers (or
`garbage`). `deadly` holds VERB:MOMENT: there the server is killed, once.
"""
import json, os, signal, subprocess, sys, time

folder = os.path.dirname(os.path.abspath(__file__))
verb = sys.argv[1]
question = json.load(sys.stdin)
os.makedirs(f"{folder}/hosts", exist_ok=True)


def note(name, text):
    with open(f"{folder}/{name}", "a") as file:
        file.write(text + "\n")


def read(name):
    try:
        with open(f"{folder}/{name}") as file:
            return file.read().strip()
    except OSError:
        return ""


def moment(name):
    if read("deadly") == f"{verb}:{name}":
        os.remove(f"{folder}/deadly")
        note("deaths", f"{verb}:{name}")
        os.kill(os.getppid(), signal.SIGKILL)
        return True
    return False


def alive(number):
    try:
        with open(f"/proc/{number}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def answer(value):
    print(json.dumps(value), flush=True)
    moment("answered")
    sys.exit(0)


note("calls", f"{time.time():.3f} {verb} {question.get('key', '')}")
if moment("before"):
    sys.exit(1)
if verb == "flavors":
    answer({"flavors": [
        {"name": "small", "cpu": 2, "memory": 4, "price": 0.1},
        {"name": "big", "cpu": 8, "memory": 16, "price": 0.6},
    ]})
if verb == "deploy":
    mood, key = read("mood"), question["key"]
    if mood == "garbage":
        print("<html>502</html>")
        sys.exit(0)
    if mood:
        print(json.dumps({"error": {"class": mood, "message": f"told to be {mood}"}}))
        sys.exit(1)
    number = read(f"hosts/{key}")
    if not number:
        home = f"{folder}/home-{key}"
        os.makedirs(home)
        with open(f"{home}/pilot.sh", "w") as file:
            file.write(question["pilot"])
        log = open(f"{home}/log", "w")
        host = subprocess.Popen(
            ["sh", f"{home}/pilot.sh"], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, env={**os.environ, "SCITQ_FOLDER": home})
        number = str(host.pid)
        with open(f"{folder}/hosts/{key}", "w") as file:
            file.write(number)
        note("made", key)
    if moment("after"):
        sys.exit(1)
    answer({"instance": {"key": key, "id": key, "state": "running"}})
if verb == "terminate":
    number = read(f"hosts/{question['key']}")
    if number:
        try:
            os.killpg(int(number), signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.remove(f"{folder}/hosts/{question['key']}")
    if moment("after"):
        sys.exit(1)
    answer({})
if verb == "instances":
    found = []
    for key in sorted(os.listdir(f"{folder}/hosts")):
        if key.startswith(question["prefix"]) and alive(read(f"hosts/{key}")):
            found.append({"key": key, "id": key, "state": "running"})
    answer({"instances": found})
sys.exit(1)
