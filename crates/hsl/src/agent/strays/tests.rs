//! Two ends of a stream, with and without TLS: who is let in, and what is said to whom is not.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use flowferry_tls::{Files, Identity};
use flowferry_wire::{Key as Secret, KeyRing, Opener, Sealer};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};

use super::stream::Stream;
use super::{Received, Sender, Taker, certificate_name};
use crate::endpoint::{Part, Stray};
use crate::key::{Key, Side};

const FROM: u32 = 1;
const TO: u32 = 2;
const SECOND: u64 = 1_000_000_000;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("random")).expect("signed")
}

/// Files of an instance whose certificate `by` has signed, and which believes `whom`.
fn files(by: &Authority, whom: &Authority, instance: u32, last_year: i32) -> (PathBuf, Files) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("hsl-tls-{}-{number}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let key = KeyPair::generate().expect("random");
    let mut params = CertificateParams::new([certificate_name(instance)]).expect("a name");
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(last_year, 1, 1);
    let certificate = params.signed_by(&key, by).expect("signed");
    let files = Files {
        ca: folder.join("ca.pem"),
        certificate: folder.join("cert.pem"),
        key: folder.join("key.pem"),
    };
    fs::write(&files.ca, whom.pem()).expect("written");
    fs::write(&files.certificate, certificate.pem()).expect("written");
    fs::write(&files.key, key.serialize_pem()).expect("written");
    (folder, files)
}

fn identity(by: &Authority, whom: &Authority, instance: u32) -> Identity {
    until(by, whom, instance, 2100)
}

fn until(by: &Authority, whom: &Authority, instance: u32, last_year: i32) -> Identity {
    let (folder, files) = files(by, whom, instance, last_year);
    let identity = Identity::load(&files).expect("files that fit");
    fs::remove_dir_all(folder).expect("our own");
    identity
}

fn keys() -> KeyRing {
    KeyRing::new(1, Secret::new(vec![7; 32]).expect("long enough"))
}

/// Both ends of a connection, and what they have said.
struct Ends {
    sender: Option<Sender>,
    taker: Option<Taker>,
    sealer: Sealer,
    opener: Opener,
    began: Instant,
    /// Added to the clock.
    later: u64,
    sender_said: Option<String>,
    taker_said: Option<String>,
    received: Vec<Received>,
}

impl Ends {
    fn new(sender: Option<&Identity>, taker: Option<&Identity>) -> Ends {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let at = listener.local_addr().expect("bound");
        let sender = Sender::dial(at, Some(TO), sender, 0).expect("begun");
        let (socket, from) = listener.accept().expect("connected");
        Ends {
            sender: Some(sender),
            taker: Some(Taker::greet(socket, from, taker, TO, 99, 0).expect("greeted")),
            sealer: Sealer::new(FROM, 1),
            opener: Opener::new(TO),
            began: Instant::now(),
            later: 0,
            sender_said: None,
            taker_said: None,
            received: Vec::new(),
        }
    }

    /// Go on with both until `done`; whoever fails is closed.
    fn run(&mut self, done: impl Fn(&Ends) -> bool) {
        let keys = keys();
        while !done(self) {
            assert!(self.began.elapsed() < Duration::from_secs(20), "no end");
            let now = self.began.elapsed().as_nanos() as u64 + self.later;
            if let Some(sender) = &mut self.sender {
                let went = sender.advance(&keys, &mut self.sealer, now);
                let went = went.and_then(|_| sender.flush(&mut Vec::new()));
                if let Err(error) = went {
                    self.sender_said = Some(error.to_string());
                    self.sender = None;
                }
            }
            if let Some(taker) = &mut self.taker {
                match taker.receive(&keys, &mut self.opener, now) {
                    Ok(received) => {
                        self.received.extend(received);
                        let _ = taker.acknowledge();
                    }
                    Err(error) => {
                        self.taker_said = Some(error.to_string());
                        self.taker = None;
                    }
                }
            }
        }
    }

    fn is_trusted(&self) -> bool {
        self.taker.as_ref().is_some_and(Taker::is_trusted)
    }

    /// What both say when neither gets anywhere.
    fn refused(mut self) -> (String, String) {
        self.run(|ends| ends.sender_said.is_some() && ends.taker_said.is_some());
        assert!(self.received.is_empty());
        (
            self.sender_said.expect("said"),
            self.taker_said.expect("said"),
        )
    }
}

fn stray(length: usize) -> Stray {
    let frame = vec![0x5a; length];
    let key = Key::parse(&frame, Side::Upstream).expect("a header").key;
    Stray {
        hold: 1,
        key,
        part: Part::Captured,
        frame: frame.into(),
    }
}

/// Strays of many sizes arrive whole, in order, and are acknowledged.
fn carries(sender: Option<&Identity>, taker: Option<&Identity>) {
    const COUNT: usize = 2_000;
    let mut ends = Ends::new(sender, taker);
    ends.run(Ends::is_trusted);
    let lengths: Vec<usize> = (0..COUNT).map(|at| 64 + at * 7919 % 60_000).collect();
    let mut rest = lengths.iter();
    while ends.received.len() < COUNT {
        let to = ends.sender.as_mut().expect("open");
        while to.has_room()
            && let Some(length) = rest.next()
        {
            to.push(stray(*length));
        }
        let before = ends.received.len();
        ends.run(|ends| ends.received.len() > before);
    }
    ends.run(|ends| ends.sender.as_ref().is_some_and(Sender::is_idle));
    let got: Vec<usize> = ends
        .received
        .iter()
        .map(|one| match one {
            Received::Packet(Side::Upstream, frame) => frame.len(),
            _ => 0,
        })
        .collect();
    assert_eq!(got, lengths);
}

#[test]
fn strays_arrive_in_order_without_tls() {
    carries(None, None);
}

#[test]
fn strays_arrive_in_order_over_tls() {
    let ca = authority();
    carries(
        Some(&identity(&ca, &ca, FROM)),
        Some(&identity(&ca, &ca, TO)),
    );
}

#[test]
fn another_instances_certificate_is_refused_to_the_sender() {
    let ca = authority();
    let (sender, taker) = (identity(&ca, &ca, 3), identity(&ca, &ca, TO));
    let (_, said) = Ends::new(Some(&sender), Some(&taker)).refused();
    assert!(
        said.contains("instance 1") && said.contains("instance-1"),
        "{said}"
    );
}

#[test]
fn another_instances_certificate_is_refused_to_the_taker() {
    let ca = authority();
    let (sender, taker) = (identity(&ca, &ca, FROM), identity(&ca, &ca, 3));
    let (said, _) = Ends::new(Some(&sender), Some(&taker)).refused();
    assert!(
        said.contains("instance 2") && said.contains("instance-2"),
        "{said}"
    );
}

#[test]
fn another_authority_is_not_believed_by_either() {
    let (ours, theirs) = (authority(), authority());
    let ok = identity(&ours, &ours, FROM);
    // It believes us; we do not believe it.
    let (said, other) = Ends::new(Some(&ok), Some(&identity(&theirs, &ours, TO))).refused();
    assert!(said.contains("its certificate is not believed"), "{said}");
    assert!(
        other.contains("does not believe our certificate"),
        "{other}"
    );
    // We believe it; it does not believe us.
    let (said, other) = Ends::new(Some(&ok), Some(&identity(&ours, &theirs, TO))).refused();
    assert!(said.contains("does not believe our certificate"), "{said}");
    assert!(other.contains("its certificate is not believed"), "{other}");
}

#[test]
fn an_expired_certificate_is_refused_on_both_sides() {
    let ca = authority();
    let good = [identity(&ca, &ca, FROM), identity(&ca, &ca, TO)];
    let old = [until(&ca, &ca, FROM, 2021), until(&ca, &ca, TO, 2021)];
    let (said, _) = Ends::new(Some(&good[0]), Some(&old[1])).refused();
    assert!(said.contains("expired"), "{said}");
    let (told, said) = Ends::new(Some(&old[0]), Some(&good[1])).refused();
    assert!(said.contains("expired"), "{said}");
    assert!(told.contains("does not believe our certificate"), "{told}");
}

#[test]
fn plain_and_tls_refuse_each_other_and_say_why() {
    let ca = authority();
    let (from, to) = (identity(&ca, &ca, FROM), identity(&ca, &ca, TO));
    let (said, other) = Ends::new(Some(&from), None).refused();
    assert!(said.contains("does not speak TLS"), "{said}");
    assert!(other.contains("it speaks TLS; give both"), "{other}");
    // Each waits for the other to begin.
    let mut ends = Ends::new(None, Some(&to));
    ends.run(|ends| ends.sender.as_ref().is_some_and(|s| !s.unsent()));
    ends.later = 3 * SECOND;
    let (said, other) = ends.refused();
    assert!(said.contains("no greeting; give both ends `tls`"), "{said}");
    assert!(
        other.contains("no TLS came") && other.contains("give both"),
        "{other}"
    );
}

#[test]
fn who_is_not_the_instance_that_was_meant_is_told_apart() {
    for tls in [false, true] {
        let ca = authority();
        let (from, to) = (identity(&ca, &ca, FROM), identity(&ca, &ca, TO));
        let mut ends = Ends::new(tls.then_some(&from), tls.then_some(&to));
        let sender = ends.sender.as_mut().expect("open");
        sender.expect(3);
        let (said, _) = ends.refused();
        assert!(
            said.contains("instance 2 answers there, not instance 3"),
            "{said}"
        );
    }
}

#[test]
fn what_follows_the_end_of_tls_ends_the_stream() {
    let ca = authority();
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address: SocketAddr = listener.local_addr().expect("bound");
    let mut raw = TcpStream::connect(address).expect("listening");
    let (socket, _) = listener.accept().expect("connected");
    socket.set_nonblocking(true).expect("a socket");
    let mut stream = Stream::accepted(socket, Some(&identity(&ca, &ca, TO))).expect("begun");
    let mut tls = identity(&ca, &ca, FROM).dial().expect("begun");
    let (mut room, mut into) = (vec![0; 65_536], Vec::new());
    while tls.is_handshaking() || stream.is_shaking_hands() {
        while tls.wants_write() {
            tls.write_tls(&mut raw).expect("open");
        }
        let _ = stream.read(&mut room, &mut into);
        stream.send_on().expect("open");
        raw.set_read_timeout(Some(Duration::from_millis(1)))
            .expect("a socket");
        let mut some = [0; 4096];
        if let Ok(length) = raw.read(&mut some) {
            tls.read_tls(&mut &some[..length]).expect("room");
            tls.process_new_packets().expect("TLS");
        }
    }
    tls.send_close_notify();
    let mut end = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut end).expect("memory");
    }
    end.extend([0x17; 500]);
    raw.write_all(&end).expect("open");
    let deadline = Instant::now() + Duration::from_secs(20);
    let ended = loop {
        assert!(Instant::now() < deadline);
        match stream.read(&mut room, &mut into) {
            Ok(true) => {}
            Ok(false) => break true,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break true,
        }
    };
    assert!(ended && into.is_empty());
}
