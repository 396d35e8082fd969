from flowferry.testbed import Testbed
from flowferry.controller import Platform
import time, json
with Testbed("try", instances=2) as bed:
    with Platform(bed, settling_ms=300) as p:
        c=p.client
        print(c.status(), c.switches())
        print(c.instances()); print(c.rules())
        print(bed.run("h1", ["ping","-c3","-i0.2",bed.hosts["h2"].ip4]).stdout[-200:])
        print(c.flows())
        try:
            print(json.dumps(c.move("icmp","i2",wait=True,timeout=10, strategy="reroute"),indent=1))
        except Exception as e: print("E",e)
        print(bed.run("h1", ["ping","-c3","-i0.2",bed.hosts["h2"].ip4]).stdout[-200:])
        print(c.flows())
        for s in bed.switches: print(*bed.ovs.dump_entries(s), sep="\n")
        print(p.controller.log.read_text())
