//! The connection to the server: one to a server, or those to the nodes of a Cluster. Nothing is sent twice.

use std::{future::poll_fn, pin::Pin, task::Poll, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, RedisError, RedisResult, ServerErrorKind, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster::ClusterClientBuilder,
    cluster_async::ClusterConnection,
    sentinel::{SentinelClientBuilder, SentinelServerType},
};

use rustls::crypto::CryptoProvider;

use super::{
    address::{ServerAddress, tcp_settings},
    report::AwayReason,
    script::SCRIPT,
};

/// The time after which a connection that is being made is given up, and so is one that does not answer at all.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The commands that may wait for the connection's task. More wait for room, within their own time.
const BUFFER: usize = 1_024;

/// A connection to the server. Clones are the same connection.
#[derive(Clone)]
pub(super) struct Link {
    wire: Wire,
    sha: std::sync::Arc<str>,
}

#[derive(Clone)]
enum Wire {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
    #[cfg(test)]
    Sim(super::sim::SimLink),
}

impl Link {
    /// Connects. Whoever is the master is asked for anew each time.
    pub(super) async fn open(address: &ServerAddress) -> Result<Self, AwayReason> {
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, Self::wire(address)).await;
        let wire = match opened {
            Ok(Ok(wire)) => wire,
            Ok(Err(error)) => return Err(reason_of(&error)),
            Err(_) => return Err(AwayReason::Unreachable),
        };
        Ok(Self { wire, sha: redis::Script::new(SCRIPT).get_hash().into() })
    }

    async fn wire(address: &ServerAddress) -> RedisResult<Wire> {
        if address.has_tls() && CryptoProvider::get_default().is_none() {
            // The crate takes the process's provider, and panics where there is none, or two to choose from. Somebody else may
            // have set one since.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        // The time for an answer is ours: each call has its own.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(BUFFER);
        Ok(match address {
            ServerAddress::Single(info) => {
                let client = Client::open((**info).clone())?;
                Wire::Single(client.get_multiplexed_async_connection_with_config(&config).await?)
            }
            ServerAddress::Sentinel { sentinels, master, tls, login } => {
                let master = &**master;
                let mut client = SentinelClientBuilder::new(sentinels.clone(), master, SentinelServerType::Master)?
                    .set_client_to_redis_db(login.db())
                    .set_client_to_redis_tcp_settings(tcp_settings())
                    .set_client_to_sentinel_tcp_settings(tcp_settings());
                if let Some(user) = login.username() {
                    client = client.set_client_to_redis_username(user);
                }
                if let Some(password) = login.password() {
                    client = client.set_client_to_redis_password(password);
                }
                if let Some(tls) = tls {
                    client = client.set_client_to_redis_tls_mode(*tls);
                }
                Wire::Single(client.build()?.get_async_connection_with_config(&config).await?)
            }
            ServerAddress::Cluster(nodes) => {
                // A redirection to the slot's new node counts as a retry: one is followed, and soon.
                let client = ClusterClientBuilder::new(nodes.clone())
                    .retries(1)
                    .min_retry_wait(1)
                    .max_retry_wait(2)
                    .connection_timeout(CONNECT_TIMEOUT)
                    .response_timeout(CONNECT_TIMEOUT)
                    .tcp_settings(tcp_settings())
                    .build()?;
                Wire::Cluster(client.get_async_connection().await?)
            }
            #[cfg(test)]
            ServerAddress::Sim(address) => Wire::Sim(address.open().await?),
        })
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.wire, Wire::Cluster(_))
    }

    /// Sends one command.
    pub(super) async fn call(&self, command: &Cmd) -> RedisResult<Value> {
        let value = match self.wire.clone() {
            Wire::Single(mut wire) => wire.send_packed_command(command).await?,
            Wire::Cluster(mut wire) => wire.req_packed_command(command).await?,
            #[cfg(test)]
            Wire::Sim(wire) => wire.call_all(std::slice::from_ref(command)).await?.remove(0),
        };
        value.extract_error()
    }

    /// Sends several commands, and returns their replies in the same order; an error of the server's is a
    /// [`Value::ServerError`]. On one server they are carried out in their order.
    pub(super) async fn call_all(&self, commands: &[Cmd]) -> RedisResult<Vec<Value>> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        match self.wire.clone() {
            Wire::Single(mut wire) => {
                let mut pipeline = Pipeline::with_capacity(commands.len());
                for command in commands {
                    pipeline.add_command(command.clone());
                }
                wire.send_packed_commands(&pipeline, 0, commands.len()).await
            }
            #[cfg(test)]
            Wire::Sim(wire) => wire.call_all(commands).await,
            // A pipeline may go to one node only.
            Wire::Cluster(wire) => {
                let mut replies = Vec::with_capacity(commands.len());
                for some in commands.chunks(16) {
                    let calls = some.iter().map(|command| {
                        let (mut wire, command) = (wire.clone(), command.clone());
                        Box::pin(async move { wire.req_packed_command(&command).await }) as PinnedCall
                    });
                    replies.extend(join(calls.collect()).await);
                }
                replies.into_iter().map(as_value).collect()
            }
        }
    }

    /// Runs the script on a key, and returns its integers.
    pub(super) async fn run(&self, key: &str, argument: &[u8]) -> RedisResult<Vec<i64>> {
        match self.call(&self.script(key, argument)).await {
            // The server was restarted or has flushed its scripts. EVAL keeps the text, on that node of a Cluster, too.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                integers(self.call(&in_full(key, argument)).await?)
            }
            reply => integers(reply?),
        }
    }

    /// Returns the command that runs the script by its hash.
    pub(super) fn script(&self, key: &str, argument: &[u8]) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&*self.sha).arg(1).arg(key).arg(argument);
        command
    }
}

/// Returns the command that runs the script by its text.
pub(super) fn in_full(key: &str, argument: &[u8]) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(SCRIPT).arg(1).arg(key).arg(argument);
    command
}

type PinnedCall = Pin<Box<dyn Future<Output = RedisResult<Value>> + Send>>;

/// Awaits all of them at once.
async fn join(mut calls: Vec<PinnedCall>) -> Vec<RedisResult<Value>> {
    let mut replies: Vec<Option<RedisResult<Value>>> = calls.iter().map(|_| None).collect();
    poll_fn(|cx| {
        for (call, reply) in calls.iter_mut().zip(&mut replies) {
            if reply.is_none()
                && let Poll::Ready(value) = call.as_mut().poll(cx)
            {
                *reply = Some(value);
            }
        }
        if replies.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    replies.into_iter().flatten().collect()
}

/// Puts an error of the server's among the replies, as in a pipeline.
fn as_value(reply: RedisResult<Value>) -> RedisResult<Value> {
    match reply {
        Err(error) => match error.clone().into_server_errors() {
            Some(errors) if !errors.is_empty() => Ok(Value::ServerError(errors[0].1.clone())),
            _ => Err(error),
        },
        value => value,
    }
}

/// Returns the integers of an array. Read as signed numbers: as unsigned ones, the crate makes a large one of -1.
pub(super) fn integers(value: Value) -> RedisResult<Vec<i64>> {
    Ok(redis::from_redis_value::<Vec<i64>>(value)?)
}

/// Returns the reason for which an error of this kind means that the server does not count.
pub(super) fn reason_of(error: &RedisError) -> AwayReason {
    let says = |word: &str| error.code() == Some(word) || error.detail().is_some_and(|detail| detail.contains(word));
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::BusyLoading | ServerErrorKind::TryAgain | ServerErrorKind::ClusterDown) => {
            AwayReason::Busy
        }
        ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown) => AwayReason::ReadOnly,
        ErrorKind::Server(ServerErrorKind::NoPerm) | ErrorKind::AuthenticationFailed => AwayReason::Denied,
        _ if says("OOM") => AwayReason::OutOfMemory,
        _ if says("READONLY") => AwayReason::ReadOnly,
        _ if says("BUSY") => AwayReason::Busy,
        // A command inside of a script is denied in other words: Redis 7's and Valkey's, and those of 6.2.
        _ if says("ACL failure") || says("can't run this command") => AwayReason::Denied,
        _ if says("NOAUTH") || says("WRONGPASS") => AwayReason::Denied,
        _ if error.is_timeout() => AwayReason::TimedOut,
        _ if error.is_connection_refusal() => AwayReason::Unreachable,
        ErrorKind::MasterNameNotFoundBySentinel | ErrorKind::ClusterConnectionNotFound => AwayReason::Unreachable,
        _ if error.is_connection_dropped() || error.kind() == ErrorKind::Io => AwayReason::Disconnected,
        _ => AwayReason::Error,
    }
}

/// Returns whether the connection has to be made anew after a failure for that reason.
pub(super) fn is_broken(reason: AwayReason) -> bool {
    matches!(reason, AwayReason::Unreachable | AwayReason::Disconnected | AwayReason::ReadOnly | AwayReason::Denied)
}
