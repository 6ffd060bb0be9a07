#!/usr/bin/python3
"""guestbook frontend|primary|replica: three programs on port 8080 that keep one book, as upstream's test image has them.

Whoever fills in is sent by the frontend to the primary, whoever reads to a replica. A replica tells the primary where it
is, takes over the whole book, and is told of each entry."""
import http.server
import json
import os
import sys
import threading
import time
import urllib.parse
import urllib.request

ROLE, PORT, BOOK, REPLICAS, LOCK = sys.argv[1], 8080, {}, set(), threading.Lock()


def ask(server, path, **query):
    url = f"http://{server}:{PORT}{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.load(answer)


def frontend(path, query):
    if query["cmd"] == "set":
        return ask("agnhost-primary", "/set", key=query["key"], value=query["value"])
    return ask("agnhost-replica", "/get", key=query["key"])


def store(path, query):
    with LOCK:
        if path == "/get":
            return {"data": BOOK.get(query["key"], "")}
        if path == "/register":
            REPLICAS.add(query["host"])
            return BOOK
        BOOK[query["key"]] = query["value"]
        for replica in REPLICAS:
            ask(replica, "/set", key=query["key"], value=query["value"])
        return {"message": "Updated"}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        try:
            status, said = 200, (frontend if ROLE == "frontend" else store)(url.path, query)
        except OSError as error:
            status, said = 500, {"error": str(error)}
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = http.server.ThreadingHTTPServer(("", PORT), Handler)
threading.Thread(target=server.serve_forever).start()
while ROLE == "replica":
    try:
        # What was told since goes before what the primary had then.
        BOOK.update({**ask("agnhost-primary", "/register", host=os.environ["POD_IP"]), **BOOK})
        break
    except OSError:
        time.sleep(0.2)
