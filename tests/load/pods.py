"""From a pod's creation to Ready, as a watcher sees it. See docs/performance.md.

usage: pods.py SERVER CA TOKEN IMAGE [ROUNDS]
"""
import http.client, json, ssl, statistics, sys, threading, time, urllib.parse

server, ca, token, image = sys.argv[1:5]
rounds = int(sys.argv[5]) if len(sys.argv) > 5 else 20
host = urllib.parse.urlparse(server).netloc
context = ssl.create_default_context(cafile=ca)
headers = {"Authorization": "Bearer " + token, "Content-Type": "application/json"}
path = "/api/v1/namespaces/default/pods"


def ask(method, path, body=None):
    connection = http.client.HTTPSConnection(host, context=context)
    connection.request(method, path, json.dumps(body) if body else None, headers)
    return connection.getresponse()


def pod(name):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"load": "pods"}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": image, "imagePullPolicy": "IfNotPresent"}]}}


def ready(names):
    """Creates the pods, and gives each one's seconds from the first request to Ready."""
    watch = ask("GET", path + "?watch=true&labelSelector=load%3Dpods")
    begun, seen = time.monotonic(), {}
    creating = threading.Thread(target=lambda: [ask("POST", path, pod(name)).read() for name in names])
    creating.start()
    while len(seen) < len(names):
        event = json.loads(watch.readline())
        name = event["object"]["metadata"]["name"]
        conditions = event["object"].get("status", {}).get("conditions", [])
        if name in names and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
            seen.setdefault(name, time.monotonic() - begun)
    creating.join()
    for name in names:
        ask("DELETE", f"{path}/{name}").read()
    return list(seen.values())


run = int(time.time())
times = sorted(t for i in range(rounds) for t in ready([f"p-{run}-{i}"]))
print(f"one pod at a time, {rounds} rounds: p50 {statistics.median(times) * 1e3:.0f} ms, most {times[-1] * 1e3:.0f} ms")
many = ready([f"m-{run}-{i}" for i in range(30)])
print(f"30 pods at once: all Ready after {max(many) * 1e3:.0f} ms")
