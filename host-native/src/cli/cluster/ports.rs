//! Which ports the nodes of a cluster on this machine have.

use std::net::{Ipv4Addr, UdpSocket};

use super::folder::NodeEntry;
use crate::cli::exit::Failure;

/// Gives a port to every node that has none, or whose port is taken now: the lowest that are free from
/// `first` on. What is remembered is kept where it can be, so that clients with an old address still
/// find the cluster.
///
/// # Errors
/// There are not enough.
pub(super) fn choose(nodes: &mut [NodeEntry], first: u16) -> Result<(), Failure> {
    // Sockets are held until all ports are chosen, so that no port is chosen twice.
    let mut held = Vec::new();
    for node in nodes.iter_mut() {
        match bind(node.port) {
            Some(socket) => held.push(socket),
            None => node.port = 0,
        }
    }
    let mut candidates = first..=u16::MAX;
    for node in nodes.iter_mut().filter(|node| node.port == 0) {
        let free = candidates.by_ref().find_map(|port| bind(port).map(|socket| (port, socket)));
        let (port, socket) = free.ok_or_else(|| {
            Failure::configuration(format!("no UDP port from {first} on is free on 127.0.0.1"))
        })?;
        node.port = port;
        held.push(socket);
    }
    Ok(())
}

fn bind(port: u16) -> Option<UdpSocket> {
    (port != 0).then(|| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_ports_are_left_out() {
        let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("one is free");
        let port = taken.local_addr().expect("it is bound").port();
        let node = |id, port| NodeEntry { id, port, started: false };
        let mut nodes = [node(0, port), node(1, 0), node(2, 0)];
        choose(&mut nodes, 20_000).expect("some are free");
        let mut ports = nodes.map(|node| node.port);
        assert!(!ports.contains(&port), "{ports:?}");
        ports.sort_unstable();
        assert!(ports[0] >= 20_000 && ports[0] < ports[1] && ports[1] < ports[2], "{ports:?}");
    }
}
