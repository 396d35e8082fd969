//! Changes at a server, by what Redis has for clients that cache: broadcast invalidation
//! (`CLIENT TRACKING … BCAST`). It needs no setting of the server, and costs nothing when nobody
//! watches. A message names keys, each once per turn of the server's loop; what they hold now is read.

use super::layout::Layout;
use super::record;
use super::server::{Server, get};
use crate::backend::{Event, Inbox, Watch};
use crate::error::Error;
use crate::pattern::Pattern;
use parking_lot::Mutex;
use redis::{Connection, RedisResult};
use std::sync::Arc;

/// All watches of an estate.
#[derive(Default)]
pub(super) struct Watches {
    open: Mutex<Vec<(Arc<Inbox>, Arc<Stop>)>>,
}

/// Wakes the threads of one watch, by a message to themselves.
struct Stop {
    channel: String,
    senders: Mutex<Vec<Connection>>,
}

const INVALIDATED: &str = "__redis__:invalidate";

impl Watches {
    pub fn begin(
        &self,
        server: &Arc<Server>,
        layout: &Layout,
        pattern: Pattern,
    ) -> Result<Watch, Error> {
        let inbox = Arc::new(Inbox::default());
        let stop = Arc::new(Stop {
            channel: format!("{}stop:{:p}", layout.prefix, Arc::as_ptr(&inbox)),
            senders: Mutex::default(),
        });
        for url in server.places()? {
            let failed = |error: redis::RedisError| server.failed(&error);
            let (listener, sender) =
                tracked(&url, &layout.prefix, &stop.channel).map_err(failed)?;
            stop.senders.lock().push(sender);
            let follower = Follower {
                server: server.clone(),
                layout: layout.clone(),
                pattern: pattern.clone(),
                inbox: inbox.clone(),
                stop: stop.channel.clone(),
            };
            std::thread::Builder::new()
                .name("estate-watch".into())
                .spawn(move || follower.run(listener))
                .map_err(|error| Error::Backend {
                    url,
                    what: format!("no thread can be started: {error}"),
                    remedy: "raise the limit on threads",
                })?;
        }
        self.open.lock().push((inbox.clone(), stop.clone()));
        Ok(Watch::new(inbox, move || stop.now()))
    }

    pub fn end(&self) {
        for (inbox, stop) in self.open.lock().drain(..) {
            stop.now();
            inbox.end();
        }
    }
}

impl Stop {
    fn now(&self) {
        for mut sender in self.senders.lock().drain(..) {
            // If this fails, so has the listener's connection.
            let _: RedisResult<u64> = redis::cmd("PUBLISH")
                .arg(&self.channel)
                .arg("")
                .query(&mut sender);
        }
    }
}

/// A connection that hears of changes of all keys with the prefix, and the one that asked for it,
/// which has to stay.
fn tracked(url: &str, prefix: &str, stop: &str) -> RedisResult<(Connection, Connection)> {
    let client = redis::Client::open(url)?;
    let (mut listener, mut sender) = (client.get_connection()?, client.get_connection()?);
    let id: u64 = redis::cmd("CLIENT").arg("ID").query(&mut listener)?;
    redis::cmd("CLIENT")
        .arg("TRACKING")
        .arg("ON")
        .arg("REDIRECT")
        .arg(id)
        .arg("BCAST")
        .arg("PREFIX")
        .arg(prefix)
        .query::<()>(&mut sender)?;
    for channel in [INVALIDATED, stop] {
        let mut command = redis::cmd("SUBSCRIBE");
        command.arg(channel);
        listener.send_packed_command(&command.get_packed_command())?;
        listener.recv_response()?;
    }
    Ok((listener, sender))
}

struct Follower {
    server: Arc<Server>,
    layout: Layout,
    pattern: Pattern,
    inbox: Arc<Inbox>,
    stop: String,
}

impl Follower {
    fn run(&self, mut listener: Connection) {
        while let Ok(message) = listener.recv_response() {
            let Ok((_, channel, places)) =
                redis::from_redis_value::<(String, String, redis::Value)>(message)
            else {
                continue;
            };
            if channel == self.stop {
                return;
            }
            // Without keys: the whole database was emptied.
            let places: Vec<Vec<u8>> = redis::from_redis_value(places).unwrap_or_default();
            if places.iter().any(|place| self.report(place).is_err()) {
                break;
            }
        }
        self.inbox.end();
    }

    fn report(&self, place: &[u8]) -> Result<(), Error> {
        let Some((node, key)) = self.layout.parse(place) else {
            return Ok(());
        };
        if !self.pattern.matches(key) {
            return Ok(());
        }
        let node: Arc<str> = node.into();
        let record: Option<Vec<u8>> = self.server.ask(&get(place))?;
        self.inbox.put(Event {
            item: record.and_then(|bytes| record::parse(key, node.clone(), &bytes)),
            node,
            key: key.to_owned(),
        });
        Ok(())
    }
}
