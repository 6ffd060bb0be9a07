#!/usr/bin/python3
"""lookup TYPE NAME: what the first name server says, a record a line. Names are completed as resolv.conf says."""
import ipaddress
import random
import socket
import struct
import sys

TYPES = {"A": 1, "CNAME": 5, "PTR": 12, "SRV": 33}


def settings():
    server, search, ndots = None, [], 1
    for words in (line.split() for line in open("/etc/resolv.conf")):
        if words[:1] == ["nameserver"] and server is None:
            server = words[1]
        elif words[:1] == ["search"]:
            search = words[1:]
        elif words[:1] == ["options"]:
            ndots = next((int(w[6:]) for w in words if w.startswith("ndots:")), ndots)
    return server, search, ndots


def name_at(data, at):
    labels, end = [], None
    while data[at]:
        if data[at] >= 0xC0:
            end = end or at + 2
            at = struct.unpack(">H", data[at:at + 2])[0] & 0x3FFF
            continue
        labels.append(data[at + 1:at + 1 + data[at]].decode())
        at += 1 + data[at]
    return ".".join(labels), end or at + 1


def ask(server, name, kind):
    number = random.randrange(65536)
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split("."))
    query = struct.pack(">6H", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", TYPES[kind], 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(2)
        sock.connect((server, 53))
        sock.send(query)
        data = sock.recv(4096)
    _, at = name_at(data, 12)
    at, out = at + 4, []
    for _ in range(struct.unpack(">H", data[6:8])[0]):
        _, at = name_at(data, at)
        what, _, _, length = struct.unpack(">2HIH", data[at:at + 10])
        at += 10
        if what == 1:
            out.append("A " + str(ipaddress.ip_address(data[at:at + 4])))
        elif what == 33:
            port = struct.unpack(">H", data[at + 4:at + 6])[0]
            out.append(f"SRV {port} {name_at(data, at + 6)[0]}")
        else:
            word = next(word for word, value in TYPES.items() if value == what)
            out.append(f"{word} {name_at(data, at)[0]}")
        at += length
    return out


def main():
    kind, name = sys.argv[1:]
    server, search, ndots = settings()
    if kind == "PTR":
        name, search = ipaddress.ip_address(name).reverse_pointer, []
    completed = [f"{name}.{suffix}" for suffix in search]
    names = [name] + completed if name.count(".") >= ndots else completed + [name]
    for name in names:
        found = ask(server, name, kind)
        if found:
            print("\n".join(found))
            return
    sys.exit("no such name")


main()
