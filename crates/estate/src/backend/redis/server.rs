//! Connections to a Redis or a Redis Cluster: as many as there are threads that ask at once.

use crate::error::Error;
use parking_lot::Mutex;
use redis::cluster::{ClusterClient, ClusterConnection, cluster_pipe};
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{
    Client, Cmd, Connection, ConnectionLike, FromRedisValue, Pipeline, RedisResult, Value,
};
use std::time::Duration;

/// Commands in one batch: some milliseconds of a server, some 100 kB of memory for small items.
const BATCH: usize = 2000;

enum Kind {
    One(Client),
    Cluster(ClusterClient),
}

enum Link {
    One(Connection),
    Cluster(Box<ClusterConnection>),
}

/// A server, or servers, and the connections to them that are free.
pub(super) struct Server {
    kind: Kind,
    url: String,
    timeout: Duration,
    free: Mutex<Vec<Link>>,
}

impl Server {
    /// `url` is `redis://…`, `redis+unix://…` or `redis+cluster://…`; connects once, to see whether
    /// somebody is there.
    pub fn connect(url: &str, timeout: Duration) -> Result<Self, Error> {
        let kind = match url.strip_prefix("redis+cluster://") {
            Some(places) => {
                let nodes = places.split(',').map(|place| format!("redis://{place}"));
                ClusterClient::builder(nodes)
                    .connection_timeout(timeout)
                    .response_timeout(timeout)
                    .retries(8)
                    .build()
                    .map(Kind::Cluster)
            }
            None => Client::open(url).map(Kind::One),
        };
        let server = Self {
            kind: kind.map_err(|error| Error::Options {
                what: "backend",
                given: url.to_owned(),
                why: error.to_string(),
            })?,
            url: url.to_owned(),
            timeout,
            free: Mutex::default(),
        };
        let _: String = server.ask(&redis::cmd("PING"))?;
        Ok(server)
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn is_cluster(&self) -> bool {
        matches!(self.kind, Kind::Cluster(_))
    }

    /// One command.
    pub fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        self.try_ask(command).map_err(|error| self.failed(&error))
    }

    /// One command whose refusal the caller reads.
    pub fn try_ask<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        self.with(|link| match link {
            Link::One(connection) => command.query(connection),
            Link::Cluster(connection) => command.query(&mut **connection),
        })
    }

    /// Many commands, in batches; the answers in their order.
    pub fn ask_all<T: FromRedisValue>(&self, commands: &[Cmd]) -> Result<Vec<T>, Error> {
        let mut answers = Vec::with_capacity(commands.len());
        for batch in commands.chunks(BATCH) {
            answers.extend(
                self.with(|link| match link {
                    Link::One(connection) => {
                        let mut pipe = Pipeline::with_capacity(batch.len());
                        batch.iter().for_each(|command| {
                            pipe.add_command(command.clone());
                        });
                        pipe.query::<Vec<T>>(connection)
                    }
                    Link::Cluster(connection) => {
                        let mut pipe = cluster_pipe();
                        batch.iter().for_each(|command| {
                            pipe.add_command(command.clone());
                        });
                        pipe.query::<Vec<T>>(connection)
                    }
                })
                .map_err(|error| self.failed(&error))?,
            );
        }
        Ok(answers)
    }

    /// What is at these places: MGET on one server, a batch of GETs where they lie on many.
    pub fn get_all(&self, places: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        if places.is_empty() {
            return Ok(Vec::new());
        }
        if self.is_cluster() {
            let gets: Vec<Cmd> = places.iter().map(get).collect();
            return self.ask_all(&gets);
        }
        let mut found = Vec::with_capacity(places.len());
        for batch in places.chunks(BATCH) {
            found.extend(self.ask::<Vec<Option<Vec<u8>>>>(redis::cmd("MGET").arg(batch))?);
        }
        Ok(found)
    }

    /// Shows pages of keys that match a glob; one key may come twice, as SCAN says.
    pub fn scan(
        &self,
        glob: &str,
        mut page: impl FnMut(Vec<Vec<u8>>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let masters = match self.kind {
            Kind::One(_) => vec![None],
            Kind::Cluster(_) => self.masters()?.into_iter().map(Some).collect(),
        };
        for master in masters {
            let mut cursor = 0_u64;
            loop {
                let mut command = redis::cmd("SCAN");
                command
                    .arg(cursor)
                    .arg("MATCH")
                    .arg(glob)
                    .arg("COUNT")
                    .arg(BATCH);
                let (next, keys): (u64, Vec<Vec<u8>>) = match &master {
                    None => self.ask(&command)?,
                    Some(at) => self.ask_at(&command, at)?,
                };
                page(keys)?;
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The masters of the cluster that have keys.
    pub fn masters(&self) -> Result<Vec<(String, u16)>, Error> {
        let answer = self
            .with(|link| match link {
                Link::One(connection) => redis::cmd("CLUSTER").arg("SLOTS").query(connection),
                Link::Cluster(connection) => connection.route_command(
                    redis::cmd("CLUSTER").arg("SLOTS"),
                    RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random),
                ),
            })
            .map_err(|error| self.failed(&error))?;
        let Value::Array(shards) = answer else {
            return Err(self.odd("CLUSTER SLOTS"));
        };
        let mut masters = Vec::new();
        for shard in shards {
            let Value::Array(parts) = shard else {
                return Err(self.odd("CLUSTER SLOTS"));
            };
            let Some(Value::Array(place)) = parts.get(2) else {
                return Err(self.odd("CLUSTER SLOTS"));
            };
            let (Some(Ok(host)), Some(Ok(port))) = (
                place.first().map(String::from_redis_value_ref),
                place.get(1).map(u16::from_redis_value_ref),
            ) else {
                return Err(self.odd("CLUSTER SLOTS"));
            };
            if !masters.contains(&(host.clone(), port)) {
                masters.push((host, port));
            }
        }
        Ok(masters)
    }

    /// Addresses of all servers that have keys, for a connection of one's own to each.
    pub fn places(&self) -> Result<Vec<String>, Error> {
        let Some(first) = self.url.strip_prefix("redis+cluster://") else {
            return Ok(vec![self.url.clone()]);
        };
        let credentials = first
            .rsplit_once('@')
            .map_or("", |(credentials, _)| credentials);
        let at = if credentials.is_empty() { "" } else { "@" };
        Ok(self
            .masters()?
            .into_iter()
            .map(|(host, port)| format!("redis://{credentials}{at}{host}:{port}"))
            .collect())
    }

    fn ask_at<T: FromRedisValue>(&self, command: &Cmd, at: &(String, u16)) -> Result<T, Error> {
        let (host, port) = at.clone();
        let routing = RoutingInfo::SingleNode(SingleNodeRoutingInfo::ByAddress { host, port });
        self.with(|link| match link {
            Link::One(connection) => command.query(connection),
            Link::Cluster(connection) => connection
                .route_command(command, routing.clone())
                .and_then(|value| Ok(T::from_redis_value(value)?)),
        })
        .map_err(|error| self.failed(&error))
    }

    /// Runs `job` on a free connection, or on a new one. A connection that is older than its server
    /// says so at its first use: then a new one is tried, once.
    fn with<T>(&self, job: impl Fn(&mut Link) -> RedisResult<T>) -> RedisResult<T> {
        let old = self.free.lock().pop();
        let fresh = old.is_none();
        let mut link = match old {
            Some(link) => link,
            None => self.open()?,
        };
        let mut result = job(&mut link);
        if let Err(error) = &result
            && !fresh
            && error.is_connection_dropped()
            && !error.is_timeout()
        {
            link = self.open()?;
            result = job(&mut link);
        }
        let usable = match &link {
            Link::One(connection) => connection.is_open(),
            Link::Cluster(_) => true,
        };
        if usable && !result.as_ref().is_err_and(|error| error.is_io_error()) {
            self.free.lock().push(link);
        }
        result
    }

    fn open(&self) -> RedisResult<Link> {
        Ok(match &self.kind {
            Kind::One(client) => {
                let connection = client.get_connection_with_timeout(self.timeout)?;
                connection.set_read_timeout(Some(self.timeout))?;
                connection.set_write_timeout(Some(self.timeout))?;
                Link::One(connection)
            }
            Kind::Cluster(client) => Link::Cluster(Box::new(client.get_connection()?)),
        })
    }

    pub fn failed(&self, error: &redis::RedisError) -> Error {
        Error::Backend {
            url: self.url.clone(),
            what: error.to_string().replace(['\r', '\n'], " "),
            remedy: if error.is_io_error() {
                "see whether the server runs and can be reached, or give it a longer timeout"
            } else {
                "see the server's log"
            },
        }
    }

    fn odd(&self, command: &str) -> Error {
        Error::Backend {
            url: self.url.clone(),
            what: format!("{command} was answered in an unknown form"),
            remedy: "is it a Redis of version 6.2 or newer?",
        }
    }
}

pub(super) fn get(place: impl redis::ToRedisArgs) -> Cmd {
    let mut command = redis::cmd("GET");
    command.arg(place);
    command
}

/// A script with its keys; the caller adds the arguments.
pub(super) fn script(text: &str, keys: &[impl redis::ToRedisArgs]) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(text).arg(keys.len()).arg(keys);
    command
}
