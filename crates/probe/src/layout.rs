//! Which flow uses which addresses and ports: pure.
//!
//! Flow `f` goes from source `f / ports` to destination port `port + f % ports`. Neighbouring flows
//! share a source, so that one system call carries packets of many flows.

use crate::error::{Error, Result};
use std::net::{IpAddr, SocketAddr};

/// Destination ports used by default, and bound by a sink by default.
pub const PORTS: u16 = 64;

/// The flows of a run.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Addresses and ports to send from.
    pub sources: Vec<SocketAddr>,
    /// Where to.
    pub address: IpAddr,
    /// First destination port.
    pub port: u16,
    /// Destination ports.
    pub ports: u16,
}

impl Layout {
    /// Lay out `flows` flows over source addresses `from`, source ports from `source_port` on, and
    /// `ports` destination ports from `port` on.
    pub fn new(
        flows: u32,
        from: &[IpAddr],
        source_port: u16,
        address: IpAddr,
        port: u16,
        ports: u16,
    ) -> Result<Layout> {
        if u32::from(port) + u32::from(ports) > 0x1_0000 || port == 0 || ports == 0 {
            return Err(Error::Usage(format!(
                "{ports} destination ports from {port} on: there are only 1 to 65535"
            )));
        }
        if let Some(other) = from.iter().find(|f| f.is_ipv4() != address.is_ipv4()) {
            return Err(Error::Usage(format!(
                "{other} and {address} are not of one family"
            )));
        }
        let sources = flows.div_ceil(u32::from(ports));
        let per_address = sources.div_ceil(from.len() as u32);
        if u32::from(source_port) + per_address > 0x1_0000 || source_port == 0 {
            let what =
                format!("{flows} flows need {per_address} source ports from {source_port} on");
            return Err(Error::Usage(format!(
                "{what}, and there are only 1 to 65535; use more --ports"
            )));
        }
        let sources = (0..per_address as u16)
            .flat_map(|offset| {
                from.iter()
                    .map(move |from| SocketAddr::new(*from, source_port + offset))
            })
            .take(sources as usize)
            .collect();
        Ok(Layout {
            sources,
            address,
            port,
            ports,
        })
    }

    /// Index into `sources`, and offset of the destination port, of a flow.
    pub fn place(&self, flow: u32) -> (usize, usize) {
        let ports = u32::from(self.ports);
        ((flow / ports) as usize, (flow % ports) as usize)
    }

    /// Every destination, in order of port.
    pub fn targets(&self) -> impl Iterator<Item = SocketAddr> {
        (0..self.ports).map(|offset| SocketAddr::new(self.address, self.port + offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn every_flow_has_its_own_tuple() {
        let from = [ip("10.0.0.1"), ip("10.0.0.2")];
        let layout = Layout::new(20_000, &from, 20_000, ip("10.0.0.9"), 7000, 64).unwrap();
        assert_eq!(layout.sources.len(), 313);
        let targets: Vec<SocketAddr> = layout.targets().collect();
        let tuples: HashSet<_> = (0..20_000)
            .map(|flow| layout.place(flow))
            .map(|(source, target)| (layout.sources[source], targets[target]))
            .collect();
        assert_eq!(tuples.len(), 20_000);
    }

    #[test]
    fn too_few_ports_is_said() {
        let error = Layout::new(60_000, &[ip("::1")], 20_000, ip("::2"), 7000, 1).unwrap_err();
        assert!(error.to_string().contains("--ports"));
        assert!(Layout::new(1, &[ip("::1")], 20_000, ip("10.0.0.1"), 7000, 1).is_err());
        assert!(Layout::new(1, &[ip("::1")], 20_000, ip("::2"), 65_535, 2).is_err());
    }
}
