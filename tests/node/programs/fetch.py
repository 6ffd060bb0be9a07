#!/usr/bin/python3
"""fetch URL [TIMES]: the bodies of that many answers, each over a connection of its own."""
import sys
import urllib.request

for _ in range(int(sys.argv[2]) if len(sys.argv) > 2 else 1):
    with urllib.request.urlopen(sys.argv[1], timeout=60) as answer:
        sys.stdout.write(answer.read().decode())
