//! The floor: one UDP socket, a datagram to each peer, an answer from each; no thread, no framing.

use std::net::UdpSocket;

use crate::{PAYLOAD, Scatter};

pub struct Asker {
    socket: UdpSocket,
    ports: Vec<u16>,
}

impl Asker {
    pub fn new(ports: &[u16]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        Self {
            socket,
            ports: ports.to_vec(),
        }
    }
}

impl Scatter for Asker {
    fn round(&mut self, number: u64) {
        let mut buffer = [0; PAYLOAD];
        buffer[..8].copy_from_slice(&number.to_be_bytes());
        for &port in &self.ports {
            self.socket
                .send_to(&buffer, ("127.0.0.1", port))
                .expect("sent");
        }
        for _ in 0..self.ports.len() {
            self.socket.recv(&mut buffer).expect("answered");
            assert_eq!(buffer[..8], number.to_be_bytes());
        }
    }
}

pub fn serve(port: u16) -> ! {
    let socket = UdpSocket::bind(("127.0.0.1", port)).expect("own port");
    println!("ready");
    let mut buffer = [0; PAYLOAD];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).expect("asked");
        let _ = socket.send_to(&buffer[..length], from);
    }
}
