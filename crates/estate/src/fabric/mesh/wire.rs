//! Receiving: accepts, dials, greets, and hands messages to the listener, on the thread whose turn it
//! is (see `turns`).
//!
//! A connection goes through these stages; only from `Linked` on is anything it says believed.
//!
//! ```text
//! dialer:    Connecting ──▶ Greeting ──Welcome──▶ (Contending) ──▶ Welcomed ──Ready──▶ Linked ──▶ Retired
//! acceptor:                 Greeting ──Hello────▶ (Contending) ──▶ Welcomed ──Ready──▶ Linked ──▶ Retired
//! ```
//! *Contending*: a living link to another incarnation of the same name is there. That member is
//! asked for a sign of life (`Ping`); if it gives one, the new connection is refused, and if it
//! does not, the old one has failed and the new one takes its place.
//!
//! *Ready* goes both ways, the dialer's first: the dialer counts as let in only when the acceptor has
//! had the last word on its name.
//!
//! *Retired*: two members that dial each other at the same time get two links. Both keep the one
//! that the lesser `NodeId` dialled; each says `Retire` on the other one and closes it when it has
//! heard the same, so that nothing on its way is lost.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::absent::Absent;
use super::book::Book;
use super::connection::{Connection, Stage};
use super::frame::{FRAME_MAX, Frame, GREETING_MAX};
use super::link::{Link, READ_AT_ONCE, Reading};
use super::tls::{self, Identity};
use super::{FabricError, Listener, NodeId, Order, Shared};
use crate::fabric::Why;

pub const WAKE: Token = Token(0);
const ACCEPT: Token = Token(1);
const FIRST: usize = 2;
/// Most connections that have not been greeted yet.
const STRANGERS_MAX: usize = 128;
/// How long a new member waits to be dialled by those who hear that it is there.
const FIRST_BEACON: Duration = Duration::from_millis(250);
/// So many times `failure_after` a member's address has to refuse connections to prove its end.
const REFUSALS: u32 = 5;
/// How long a goodbye may take.
pub const GOODBYE: Duration = Duration::from_millis(250);

/// What it starts with.
pub struct Parts {
    pub poll: Poll,
    pub listener: TcpListener,
    pub peers: Vec<SocketAddr>,
    pub identity: Option<Identity>,
    pub inbox: Receiver<Order>,
}

/// The sockets, and how far each is.
pub struct Wire {
    pub(super) shared: Arc<Shared>,
    pub(super) listener: Arc<dyn Listener>,
    poll: Poll,
    events: Events,
    /// Where bytes are read to, made once: clearing it for each read would cost more than the read.
    room: Box<[u8]>,
    accept: mio::net::TcpListener,
    identity: Option<Identity>,
    inbox: Receiver<Order>,
    pub(super) book: Book,
    pub(super) absent: Absent,
    pub(super) connections: HashMap<Token, Connection>,
    /// The link that is used to each member, by its name.
    pub(super) current: HashMap<Arc<str>, (NodeId, Token)>,
    next: usize,
    started: Instant,
    looked: Instant,
    /// Something has changed that [`Wire::look_around`] should see to at once.
    pub(super) restless: bool,
    /// The first round is over: this node is in, or has given up.
    pub(super) joined: bool,
    /// Another node of our name has introduced itself before we were in.
    pub(super) claimed: Option<FabricError>,
    /// The last one that was linked of each name.
    pub(super) incarnations: HashMap<Arc<str>, u64>,
    closing: bool,
}

impl Wire {
    pub fn new(shared: Arc<Shared>, parts: Parts, listener: Arc<dyn Listener>) -> io::Result<Self> {
        let now = Instant::now();
        let mut book = Book::default();
        for peer in parts.peers {
            book.learn(peer, true, now);
        }
        let mut accept = mio::net::TcpListener::from_std(parts.listener);
        let registry = parts.poll.registry();
        registry.register(&mut accept, ACCEPT, Interest::READABLE)?;
        Ok(Self {
            shared,
            listener,
            poll: parts.poll,
            events: Events::with_capacity(256),
            room: vec![0; READ_AT_ONCE].into(),
            accept,
            identity: parts.identity,
            inbox: parts.inbox,
            book,
            absent: Absent::default(),
            connections: HashMap::new(),
            current: HashMap::new(),
            next: FIRST,
            started: now,
            looked: now,
            restless: true,
            joined: false,
            claimed: None,
            incarnations: HashMap::new(),
            closing: false,
        })
    }

    /// The epoll set.
    pub fn sockets(&self) -> &impl AsRawFd {
        &self.poll
    }

    /// Waits so long for the sockets, and does what they and the time ask for. Returns whether there
    /// is to be another round.
    pub fn round(&mut self, most: Duration) -> bool {
        let pause = self.shared.pause();
        let most = if self.restless { Duration::ZERO } else { most };
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        match self.poll.poll(&mut events, Some(most)) {
            Ok(()) => {}
            Err(why) if why.kind() == io::ErrorKind::Interrupted => events.clear(),
            Err(_) => self.closing = true,
        }
        for event in &events {
            match event.token() {
                WAKE => self.orders(),
                ACCEPT => self.accept(),
                token => {
                    if event.is_writable() {
                        self.writable(token);
                    }
                    if event.is_readable() || event.is_error() || event.is_read_closed() {
                        self.readable(token);
                    }
                }
            }
        }
        self.events = events;
        if !self.closing && (self.restless || self.looked.elapsed() >= pause) {
            self.restless = false;
            self.look_around(pause);
        }
        !self.closing
    }

    fn orders(&mut self) {
        while let Ok(order) = self.inbox.try_recv() {
            match order {
                Order::Learn(address) => self.book.learn(address, false, Instant::now()),
                Order::Close => self.closing = true,
            }
            self.restless = true;
        }
    }

    /// Dials who is due, gives up who is silent or slow.
    fn look_around(&mut self, pause: Duration) {
        let now = Instant::now();
        let limit = self.shared.options.failure_after;
        // Silence is ours, not the peers', if this thread was busy or stopped: read first.
        let away = now.duration_since(self.looked) > pause * 4;
        self.looked = now;
        if !away {
            let failed: Vec<_> = self
                .connections
                .iter()
                .filter_map(|(token, c)| Some((*token, c.failed(now, limit)?)))
                .collect();
            for (token, why) in failed {
                if let Some(address) = self.connections.get(&token).and_then(|c| c.dialled) {
                    self.tried(address, false);
                }
                self.end(token, &Why::Failed(why), None);
            }
        }
        self.settle_contests(now);
        for address in self.book.due(now) {
            if let Err(why) = self.dial(address) {
                self.tried(address, why.kind() == io::ErrorKind::ConnectionRefused);
                self.book.broken(address, None, now);
            }
        }
        if !self.joined && self.first_round_is_over(now) {
            self.joined = true;
            let refusal = self.claimed.take().or_else(|| self.book.fatal());
            self.shared.over(refusal.map_or(Ok(()), Err));
        }
    }

    fn first_round_is_over(&self, now: Instant) -> bool {
        let elapsed = now.duration_since(self.started);
        let options = &self.shared.options;
        // Our first beacon has them dial us.
        let listening = options.scouting.is_some() && elapsed < FIRST_BEACON;
        let trying = !self.book.all_tried() || self.is_greeting();
        let tries = options.failure_after * 2;
        self.claimed.is_some() || elapsed > tries || !(trying || listening)
    }

    /// Somebody is about to link up with us, or to refuse us.
    fn is_greeting(&self) -> bool {
        let strangers = self.connections.values().filter(|c| c.is_stranger());
        strangers
            .into_iter()
            .any(|c| matches!(c.stage, Stage::Welcomed(_)))
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.accept.accept() {
            let strangers = self
                .connections
                .values()
                .filter(|c| c.is_stranger())
                .count();
            let tls = self.identity.as_ref().map(tls::accept).transpose();
            match tls {
                Ok(tls) if strangers < STRANGERS_MAX => {
                    let _ = self.register(stream, tls, None);
                }
                _ => {
                    self.shared.refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn dial(&mut self, address: SocketAddr) -> io::Result<()> {
        let tls = self.identity.as_ref().map(tls::dial).transpose();
        let tls = tls.map_err(io::Error::other)?;
        self.register(TcpStream::connect(address)?, tls, Some(address))
    }

    fn register(
        &mut self,
        mut stream: TcpStream,
        tls: Option<rustls::Connection>,
        dialled: Option<SocketAddr>,
    ) -> io::Result<()> {
        let token = Token(self.next);
        self.next += 1;
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, token, both)?;
        let link = Arc::new(Link::new(stream, tls));
        self.connections
            .insert(token, Connection::new(link, dialled));
        Ok(())
    }

    fn writable(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(&token) else {
            return;
        };
        if let (Stage::Connecting, Some(address)) = (&connection.stage, connection.dialled) {
            match connection.link.connected() {
                Ok(()) => {
                    connection.stage = Stage::Greeting;
                    let hello = Frame::Hello(self.greeting());
                    self.connections[&token].link.send(&hello);
                    self.tried(address, false);
                }
                Err(why) if why.kind() == io::ErrorKind::NotConnected => {}
                Err(why) => {
                    self.tried(address, why.kind() == io::ErrorKind::ConnectionRefused);
                    self.end(token, &Why::Failed(why.to_string()), None);
                }
            }
        } else {
            connection.link.writable();
        }
    }

    /// An attempt to connect is over: whether the system of the peer refuses it.
    fn tried(&mut self, address: SocketAddr, refused: bool) {
        let (now, long) = (Instant::now(), self.shared.options.failure_after * REFUSALS);
        if let Some(member) = self.absent.tried(address, refused, now, long) {
            self.listener.died(&member);
        }
    }

    fn readable(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(&token) else {
            return;
        };
        if matches!(connection.stage, Stage::Connecting) {
            return self.writable(token);
        }
        let before = connection.input.len();
        let outcome = connection.link.read(&mut self.room, &mut connection.input);
        let received = connection.input.len() - before;
        if received > 0 {
            connection.heard = Instant::now();
            let counter = &self.shared.bytes_received;
            counter.fetch_add(received as u64, Ordering::Relaxed);
            self.parse(token);
        }
        let why = match outcome {
            Ok(Reading::Open) => return,
            Ok(Reading::Ended) => "it closed the link without a goodbye".to_owned(),
            Err(why) => why.to_string(),
        };
        let refusal = self.rejected_by_tls(token, &why);
        self.end(token, &Why::Failed(why), refusal);
    }

    /// Handles the frames that are all there.
    pub(super) fn parse(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(&token) else {
            return;
        };
        let mut input = std::mem::take(&mut connection.input);
        let mut offset = 0;
        while let Some(connection) = self.connections.get(&token) {
            let most = match connection.stage {
                Stage::Linked(_) | Stage::Retired(_) => FRAME_MAX,
                Stage::Contending { .. } | Stage::Closing if input.len() <= GREETING_MAX => break,
                _ => GREETING_MAX,
            };
            match Frame::parse(&input[offset..], most) {
                Ok(None) => break,
                Ok(Some((frame, length))) => {
                    offset += length;
                    self.frame(token, frame);
                }
                Err(why) => {
                    self.shared.refused.fetch_add(1, Ordering::Relaxed);
                    let refusal = self.rejected_by_tls(token, &why.to_string());
                    self.end(
                        token,
                        &Why::Failed(format!("it sent no frame: {why}")),
                        refusal,
                    );
                }
            }
        }
        if let Some(connection) = self.connections.get_mut(&token) {
            input.drain(..offset);
            connection.input = input;
        }
    }

    /// Says goodbye and waits a moment for the others to hear it: closing a socket with unread
    /// bytes would reset the link, and the goodbye would be lost with it.
    pub fn goodbye(mut self) {
        self.shared.over(Ok(()));
        self.shared.links.write().clear();
        self.connections
            .retain(|_, c| matches!(c.stage, Stage::Linked(_)));
        for connection in self.connections.values() {
            connection.link.send(&Frame::Bye);
            connection.link.writable();
            connection.link.shut_writing();
        }
        let deadline = Instant::now() + GOODBYE;
        while !self.connections.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.poll.poll(&mut self.events, Some(left)).is_err() {
                break;
            }
            for event in &self.events {
                if let Some(connection) = self.connections.get_mut(&event.token()) {
                    connection.input.clear();
                    let outcome = connection.link.read(&mut self.room, &mut connection.input);
                    if !matches!(outcome, Ok(Reading::Open)) {
                        self.connections.remove(&event.token());
                    }
                }
            }
        }
    }
}
