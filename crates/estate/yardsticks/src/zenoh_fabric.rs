//! Zenoh, set for low delay: peers configured directly, no scouting, `lowlatency` transport without
//! priorities, no batching, express messages, one runtime thread of each kind.
//!
//! Two ways to ask: a query on a wildcard that every peer answers, and a put that every peer
//! subscribes to, answered by a put of its own.

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use zenoh::qos::{CongestionControl, Priority};
use zenoh::query::{ConsolidationMode, QueryTarget};
use zenoh::{Config, Session, Wait};

use crate::{PAYLOAD, Scatter};

fn session(listen: Option<u16>, connect: &[u16]) -> Session {
    // SAFETY: called before any other thread of this program is there.
    if std::env::var_os("ZENOH_RUNTIME").is_none() {
        // SAFETY: as above.
        unsafe {
            std::env::set_var(
                "ZENOH_RUNTIME",
                "(app: (worker_threads: 1), acc: (worker_threads: 1), net: (worker_threads: 1), \
                 tx: (worker_threads: 1), rx: (worker_threads: 1))",
            );
        }
    }
    let endpoints = |ports: &[u16]| {
        let list: Vec<_> = ports
            .iter()
            .map(|p| format!("\"tcp/127.0.0.1:{p}\""))
            .collect();
        format!("[{}]", list.join(","))
    };
    let mut config = Config::default();
    let listening = listen.map_or("[]".into(), |port| endpoints(&[port]));
    for (key, value) in [
        ("mode", "\"peer\""),
        ("listen/endpoints", listening.as_str()),
        ("connect/endpoints", endpoints(connect).as_str()),
        ("scouting/multicast/enabled", "false"),
        ("scouting/gossip/enabled", "false"),
        ("transport/unicast/qos/enabled", "false"),
        ("transport/unicast/lowlatency", "true"),
        ("transport/link/tx/queue/batching/enabled", "false"),
        ("transport/link/tx/lease", "1000"),
    ] {
        config
            .insert_json5(key, value)
            .unwrap_or_else(|why| panic!("{key}={value}: {why}"));
    }
    zenoh::open(config).wait().expect("a Zenoh session")
}

pub struct Asker {
    session: Session,
    peers: usize,
    replies: Option<Receiver<u64>>,
    _subscriber: Option<zenoh::pubsub::Subscriber<()>>,
}

impl Asker {
    pub fn queries(ports: &[u16]) -> Self {
        let asker = Self {
            session: session(None, ports),
            peers: ports.len(),
            replies: None,
            _subscriber: None,
        };
        asker.until_all_answer();
        asker
    }

    pub fn puts(ports: &[u16]) -> Self {
        let session = session(None, ports);
        let (sender, replies) = channel();
        let subscriber = session
            .declare_subscriber("yard/reply")
            .callback(move |sample| {
                let bytes = sample.payload().to_bytes();
                let _ = sender.send(u64::from_be_bytes(bytes[..8].try_into().expect("eight")));
            })
            .wait()
            .expect("a subscriber");
        let asker = Self {
            session,
            peers: ports.len(),
            replies: Some(replies),
            _subscriber: Some(subscriber),
        };
        asker.until_all_answer();
        std::thread::sleep(Duration::from_millis(500)); // subscriptions travel by themselves
        asker
    }

    /// A query can return at once with no reply while a peer is not routed to yet.
    fn until_all_answer(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.ask(0) < self.peers {
            assert!(Instant::now() < deadline, "not all Zenoh peers answer");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn ask(&self, number: u64) -> usize {
        let mut payload = [0; PAYLOAD];
        payload[..8].copy_from_slice(&number.to_be_bytes());
        let (sender, replies) = channel();
        self.session
            .get("yard/node/*")
            .payload(payload.to_vec())
            .target(QueryTarget::All)
            .consolidation(ConsolidationMode::None)
            .congestion_control(CongestionControl::Block)
            .priority(Priority::RealTime)
            .express(true)
            .callback(move |reply| {
                let _ = sender.send(reply.result().is_ok());
            })
            .wait()
            .expect("asked");
        replies
            .iter()
            .take(self.peers)
            .filter(|answered| *answered)
            .count()
    }
}

impl Scatter for Asker {
    fn round(&mut self, number: u64) {
        let Some(replies) = &self.replies else {
            assert_eq!(self.ask(number), self.peers);
            return;
        };
        let mut payload = [0; PAYLOAD];
        payload[..8].copy_from_slice(&number.to_be_bytes());
        self.session
            .put("yard/ask", payload.to_vec())
            .express(true)
            .congestion_control(CongestionControl::Block)
            .priority(Priority::RealTime)
            .wait()
            .expect("put");
        for _ in 0..self.peers {
            assert_eq!(replies.recv().expect("a reply"), number);
        }
    }
}

pub fn serve(port: u16, connect: &[u16]) -> ! {
    let session = session(Some(port), connect);
    let key = format!("yard/node/{port}");
    let own = key.clone();
    let _queryable = session
        .declare_queryable(&key)
        .callback(move |query| {
            let payload = query
                .payload()
                .map(|p| p.to_bytes().to_vec())
                .unwrap_or_default();
            let _ = query.reply(own.as_str(), payload).express(true).wait();
        })
        .wait()
        .expect("a queryable");
    let answering = session.clone();
    let _subscriber = session
        .declare_subscriber("yard/ask")
        .callback(move |sample| {
            let _ = answering
                .put("yard/reply", sample.payload().to_bytes().to_vec())
                .express(true)
                .congestion_control(CongestionControl::Block)
                .priority(Priority::RealTime)
                .wait();
        })
        .wait()
        .expect("a subscriber");
    println!("ready");
    loop {
        std::thread::park();
    }
}
