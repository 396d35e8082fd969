"""One TCP stream of known bytes at full speed, each of them compared at the far end.

`python hsl_stream.py receive PORT` and `python hsl_stream.py send ADDRESS PORT`: the sender sends
until its stdin is closed; both then print, as JSON, how many bytes they sent or compared.
"""

import json
import random
import select
import socket
import sys
import time

#: Not a multiple of anything a segment could be long: bytes that moved are bytes that differ.
PERIOD = (1 << 20) + 4099
PATTERN = random.Random(20).randbytes(PERIOD)
CHUNK = 1 << 18


def send(address: str, port: int) -> dict[str, float]:
    """Send the pattern again and again."""
    twice = memoryview(PATTERN + PATTERN[:CHUNK])
    sent = 0
    with socket.create_connection((address, port), timeout=30) as stream:
        began = time.monotonic()
        while not select.select([sys.stdin], [], [], 0)[0]:
            at = sent % PERIOD
            sent += stream.send(twice[at : at + CHUNK])
        stream.shutdown(socket.SHUT_WR)
        answer = json.loads(stream.makefile().read())
    seconds = time.monotonic() - began
    return {"sent": sent, "seconds": seconds, **answer}


def receive(port: int) -> dict[str, float]:
    """Compare everything with the pattern; tell the sender how far it was right."""
    twice = PATTERN + PATTERN[:CHUNK]
    room = bytearray(CHUNK)
    received = wrong = 0
    with socket.create_server(("", port)) as server:
        print("listening", flush=True)
        stream = server.accept()[0]
    with stream:
        while length := stream.recv_into(room):
            at = received % PERIOD
            wrong += room[:length] != twice[at : at + length]
            received += length
        stream.sendall(json.dumps({"received": received, "wrong_reads": wrong}).encode())
    return {"received": received, "wrong_reads": wrong}


if __name__ == "__main__":
    if sys.argv[1] == "send":
        print(json.dumps(send(sys.argv[2], int(sys.argv[3]))))
    else:
        print(json.dumps(receive(int(sys.argv[2]))))
