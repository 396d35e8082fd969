//! The yardstick: plain ZeroMQ. One DEALER, connected to every peer's ROUTER: it deals the N copies
//! of a question round-robin, one to each, and collects the answers.

use std::ffi::{CString, c_char, c_int, c_void};

use crate::{PAYLOAD, Scatter};

const DEALER: c_int = 5;
const ROUTER: c_int = 6;
const SNDMORE: c_int = 2;

#[link(name = "zmq")]
unsafe extern "C" {
    fn zmq_ctx_new() -> *mut c_void;
    fn zmq_socket(context: *mut c_void, kind: c_int) -> *mut c_void;
    fn zmq_connect(socket: *mut c_void, address: *const c_char) -> c_int;
    fn zmq_bind(socket: *mut c_void, address: *const c_char) -> c_int;
    fn zmq_send(socket: *mut c_void, bytes: *const c_void, length: usize, flags: c_int) -> c_int;
    fn zmq_recv(socket: *mut c_void, bytes: *mut c_void, length: usize, flags: c_int) -> c_int;
}

struct Socket(*mut c_void);

impl Socket {
    fn new(kind: c_int) -> Self {
        // SAFETY: the context lives as long as the process.
        let socket = unsafe { zmq_socket(zmq_ctx_new(), kind) };
        assert!(!socket.is_null(), "no ZeroMQ socket");
        Self(socket)
    }

    fn send(&self, bytes: &[u8], flags: c_int) {
        // SAFETY: the pointer and the length are those of `bytes`, which ZeroMQ copies.
        let sent = unsafe { zmq_send(self.0, bytes.as_ptr().cast(), bytes.len(), flags) };
        assert_eq!(sent as usize, bytes.len());
    }

    fn receive(&self, bytes: &mut [u8]) -> usize {
        // SAFETY: ZeroMQ writes at most `bytes.len()` bytes.
        let length = unsafe { zmq_recv(self.0, bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        assert!(length >= 0, "nothing received");
        length as usize
    }
}

fn address(port: u16) -> CString {
    CString::new(format!("tcp://127.0.0.1:{port}")).expect("no NUL")
}

pub struct Asker {
    socket: Socket,
    peers: usize,
}

impl Asker {
    pub fn new(ports: &[u16]) -> Self {
        let socket = Socket::new(DEALER);
        for &port in ports {
            // SAFETY: the address is a C string that ZeroMQ copies.
            assert_eq!(unsafe { zmq_connect(socket.0, address(port).as_ptr()) }, 0);
        }
        // The dealer deals to links that are not up yet, too (they get it later), so nothing is lost.
        Self {
            socket,
            peers: ports.len(),
        }
    }
}

impl Scatter for Asker {
    fn round(&mut self, number: u64) {
        let mut buffer = [0; PAYLOAD];
        buffer[..8].copy_from_slice(&number.to_be_bytes());
        for _ in 0..self.peers {
            self.socket.send(&buffer, 0);
        }
        for _ in 0..self.peers {
            self.socket.receive(&mut buffer);
            assert_eq!(buffer[..8], number.to_be_bytes());
        }
    }
}

pub fn serve(port: u16) -> ! {
    let socket = Socket::new(ROUTER);
    // SAFETY: the address is a C string that ZeroMQ copies.
    assert_eq!(unsafe { zmq_bind(socket.0, address(port).as_ptr()) }, 0);
    println!("ready");
    let (mut identity, mut buffer) = ([0; 256], [0; PAYLOAD]);
    loop {
        let name = socket.receive(&mut identity);
        let length = socket.receive(&mut buffer);
        socket.send(&identity[..name], SNDMORE);
        socket.send(&buffer[..length], 0);
    }
}
