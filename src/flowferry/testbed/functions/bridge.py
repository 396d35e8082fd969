"""A Linux bridge: the kernel forwards, so the `kernel` shim fits in front of it."""

from flowferry.testbed import links
from flowferry.testbed.functions.site import Site


class Bridge:
    """Joins the two devices of an instance in the kernel."""

    name = "bridge"
    behind_veth = False

    def start(self, site: Site) -> None:
        """Make the bridge; it forwards when this returns."""
        links.bridge(site.namespace, "br0", [site.up, site.down], mtu=site.mtu)
