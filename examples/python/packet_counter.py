"""A distributed packet counter: any instance says how many packets all of them have seen.

packet_counter.py NODE HOST:PORT [PEER…]
"""

import socket
import sys

from flowferry import estate

node, listen, *peers = sys.argv[1:]
with (
    estate.open(cluster="counter", node=node, listen=listen, peers=peers) as es,
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as packets,
):
    packets.bind(("127.0.0.1", 0))
    print(packets.getsockname()[1], flush=True)
    seen = es.item("packets")  # found once, for the packet path
    while True:
        data, sender = packets.recvfrom(2048)
        seen.add(1)
        es.flow(f"{sender[0]}:{sender[1]}").add("packets")
        if data == b"total?":
            total = es.get_global("packets", "sum")
            packets.sendto(f"{total}".encode(), sender)
