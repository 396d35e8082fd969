//! What comes from outside the cluster is refused and counted, and harms nobody.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use flowferry_estate::fabric::mesh::frame::{Frame, Greeting};
use flowferry_estate::fabric::{Fabric, NodeId};

use crate::rig::{Member, Running, eventually};

/// A connection that says what the test wants.
pub struct Puppet(TcpStream);

impl Puppet {
    fn dial(address: &str) -> Self {
        Self(TcpStream::connect(address).unwrap())
    }

    /// Joins as `name` and falls silent.
    pub fn greet(address: &str, name: &str) -> Self {
        Self::greet_from(address, name, greeting(name).listen)
    }

    /// The same, listening at `listen`.
    pub fn greet_from(address: &str, name: &str, listen: SocketAddr) -> Self {
        let mut puppet = Self::dial(address);
        puppet.say(&Frame::Hello(Greeting {
            listen,
            ..greeting(name)
        }));
        assert_eq!(puppet.kind(), 2, "welcomed");
        puppet.say(&Frame::Ready);
        puppet
    }

    /// The kind of the next frame.
    fn kind(&mut self) -> u8 {
        let mut head = [0; 5];
        self.0.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes(head[..4].try_into().unwrap()) as usize;
        self.0.read_exact(&mut vec![0; length - 1]).unwrap();
        head[4]
    }

    fn say(&mut self, frame: &Frame<'_>) {
        let mut bytes = Vec::new();
        frame.emit(&mut bytes);
        self.0.write_all(&bytes).unwrap();
    }

    /// Waits until the other side has closed.
    fn wait_for_end(mut self) {
        let mut rest = Vec::new();
        // A reset is as good as an end.
        let _ = self.0.read_to_end(&mut rest);
    }
}

fn greeting(name: &str) -> Greeting {
    Greeting {
        cluster: "test".into(),
        node: NodeId::new(name, 1),
        listen: "127.0.0.1:9".parse().unwrap(),
        peers: Vec::new(),
    }
}

fn talks(first: &Running) {
    let second = Member::new("b").peer(first).start();
    eventually("it is let in", || second.names().contains(&"a".to_owned()));
    second.mesh.send(&second.mesh.members(), b"well");
    eventually("members still talk", || first.heard("b") == [b"well"]);
}

#[test]
fn noise_wait_for_end() {
    let first = Member::new("a").start();
    let noises: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\0\0\0\0",
        b"\xff\xff\xff\xff\x07",
        b"\0\0\0\x02\x63\0",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
    ];
    for (n, noise) in noises.iter().enumerate() {
        let mut puppet = Puppet::dial(&first.address());
        puppet.0.write_all(noise).unwrap();
        puppet.wait_for_end();
        eventually("it is counted", || {
            first.mesh.statistics().refused == n as u64 + 1
        });
    }
    talks(&first);
}

#[test]
fn a_message_before_the_greeting_is_not_believed() {
    let first = Member::new("a").start();
    for frame in [
        Frame::Message(b"forged"),
        Frame::Bye,
        Frame::Ready,
        Frame::Retire,
    ] {
        let mut puppet = Puppet::dial(&first.address());
        puppet.say(&frame);
        puppet.wait_for_end();
    }
    let mut hasty = Puppet::dial(&first.address());
    hasty.say(&Frame::Hello(greeting("x")));
    hasty.say(&Frame::Message(b"forged"));
    hasty.wait_for_end();
    talks(&first);
    assert!(first.heard("x").is_empty());
}

#[test]
fn a_dialler_that_never_gets_ready_is_no_member() {
    // What a process finds in its queue that was stopped while others dialled it.
    let first = Member::new("a").start();
    let mut puppet = Puppet::dial(&first.address());
    puppet.say(&Frame::Hello(greeting("x")));
    drop(puppet);
    talks(&first);
    assert!(first.lost().iter().all(|(name, _)| name != "x"));
}

#[test]
fn silent_connections_do_not_keep_members_out() {
    let first = Member::new("a")
        .failure_after(std::time::Duration::from_millis(100))
        .start();
    let _idle: Vec<_> = (0..200).map(|_| Puppet::dial(&first.address())).collect();
    talks(&first);
}

#[test]
fn of_two_that_claim_a_name_at_once_one_is_refused() {
    // Both are welcomed, then both are ready: the second has to hear that it is not let in.
    let first = Member::new("a").start();
    let mut puppets: Vec<_> = (0..2).map(|_| Puppet::dial(&first.address())).collect();
    for (incarnation, puppet) in puppets.iter_mut().enumerate() {
        let mut greeting = greeting("twin");
        greeting.node.incarnation = incarnation as u64;
        puppet.say(&Frame::Hello(greeting));
        assert_eq!(puppet.kind(), 2, "welcomed");
    }
    let kinds: Vec<_> = puppets
        .iter_mut()
        .map(|puppet| {
            puppet.say(&Frame::Ready);
            puppet.kind()
        })
        .collect();
    assert_eq!(kinds, [3, 4], "one is ready, the other refused");
    assert_eq!(first.mesh.members()[0].incarnation, 0);
}
