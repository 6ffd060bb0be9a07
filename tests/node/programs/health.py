#!/usr/bin/python3
"""health PORT: says "probed" and SERVING to whoever asks by gRPC's health protocol (HTTP/2 without TLS, RFC 9113)."""
import socketserver
import struct
import sys

DATA, HEADERS, SETTINGS, PING, END_STREAM, END_HEADERS, ACK = 0, 1, 4, 6, 1, 4, 1
# RFC 7541: ":status: 200" stands in the static table at 8, "content-type" at 31; the rest is literal.
STATUS_OK = b"\x88\x0f\x10\x10application/grpc"
GRPC_OK = b"\x00\x0bgrpc-status\x010"


class Connection(socketserver.StreamRequestHandler):
    def frame(self, kind, flags, stream, payload=b""):
        self.wfile.write(struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload)

    def handle(self):
        if self.rfile.read(24) != b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":
            return
        self.frame(SETTINGS, 0, 0)
        while head := self.rfile.read(9):
            kind, flags, stream = struct.unpack(">BBI", head[3:])
            payload = self.rfile.read(int.from_bytes(head[:3], "big"))
            if kind in (SETTINGS, PING) and not flags & ACK:
                self.frame(kind, ACK, 0, payload if kind == PING else b"")
            elif kind in (DATA, HEADERS) and flags & END_STREAM:
                print("probed", flush=True)
                self.frame(HEADERS, END_HEADERS, stream, STATUS_OK)
                # Neither compressed, two bytes long, field 1 is SERVING.
                self.frame(DATA, 0, stream, b"\0\0\0\0\2\x08\1")
                self.frame(HEADERS, END_HEADERS | END_STREAM, stream, GRPC_OK)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True


Server(("", int(sys.argv[1])), Connection).serve_forever()
