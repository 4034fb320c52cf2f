//! The address of the server, and the three ways to find it: itself, by Sentinel, as a Cluster.

use std::fmt;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, TlsMode, io::tcp::TcpSettings};

use super::error::RedisStoreError;

/// The port of a server, where the address has none.
const SERVER_PORT: u16 = 6379;
/// The port of a Sentinel, where the address has none.
const SENTINEL_PORT: u16 = 26379;
/// The most servers that an address may name.
const MAX_HOSTS: usize = 64;

/// The address of the server.
#[derive(Clone)]
pub(super) enum ServerAddress {
    /// One server.
    Single(Box<ConnectionInfo>),
    /// The master that one of these Sentinels names.
    Sentinel { sentinels: Vec<ConnectionAddr>, master: Box<str>, tls: Option<TlsMode>, login: RedisConnectionInfo },
    /// A Cluster of which these nodes are known.
    Cluster(Vec<ConnectionInfo>),
    #[cfg(test)]
    Sim(super::sim::SimAddress),
}

impl ServerAddress {
    /// Reads an address. No message repeats it, because it may have a password.
    pub(super) fn parse(text: &str) -> Result<Self, RedisStoreError> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(RedisStoreError::scheme(message("the scheme is missing")));
        };
        if rest.is_empty() {
            return Err(refuse("the host is missing"));
        }
        let (family, way) = match scheme.split_once('+') {
            Some((family, way)) => (family, Some(way)),
            None => (scheme, None),
        };
        let tls = match family {
            "redis" | "valkey" => None,
            "rediss" | "valkeys" => Some(TlsMode::Secure),
            "unix" => None,
            _ => return Err(RedisStoreError::scheme(message("the scheme is unknown"))),
        };
        match way {
            None | Some("unix") => {
                // The parts of its message that may repeat the address are left out.
                let info = text.into_connection_info().map_err(|error| refuse(error.category()))?;
                let info = info.set_tcp_settings(tcp_settings());
                match info.addr() {
                    ConnectionAddr::TcpTls { insecure: true, .. } => Err(refuse("TLS that checks nothing is refused")),
                    _ => Ok(Self::Single(Box::new(info))),
                }
            }
            Some("sentinel") => {
                let Hosts { hosts, login, path } = Hosts::parse(rest, SENTINEL_PORT, tls)?;
                let (master, db) = path.split_once('/').unwrap_or((path, ""));
                if master.is_empty() {
                    return Err(refuse("the master's name is missing"));
                }
                let login = match db {
                    "" => login,
                    db => login.set_db(db.parse().map_err(|_| refuse("the database is no number"))?),
                };
                Ok(Self::Sentinel { sentinels: hosts, master: unescape(master)?.into(), tls, login })
            }
            Some("cluster") => {
                let Hosts { hosts, login, path } = Hosts::parse(rest, SERVER_PORT, tls)?;
                if !path.is_empty() {
                    return Err(refuse("a Cluster has no databases"));
                }
                let nodes: Result<Vec<_>, _> =
                    hosts.into_iter().map(IntoConnectionInfo::into_connection_info).collect();
                let nodes = nodes.map_err(|error| refuse(error.category()))?;
                let with =
                    |node: ConnectionInfo| node.set_redis_settings(login.clone()).set_tcp_settings(tcp_settings());
                Ok(Self::Cluster(nodes.into_iter().map(with).collect()))
            }
            Some(_) => Err(RedisStoreError::scheme(message("the scheme is unknown"))),
        }
    }

    /// Returns whether a connection needs TLS.
    pub(super) fn has_tls(&self) -> bool {
        let is_tls = |address: &ConnectionAddr| matches!(address, ConnectionAddr::TcpTls { .. });
        match self {
            Self::Single(info) => is_tls(info.addr()),
            Self::Sentinel { sentinels, .. } => sentinels.iter().any(is_tls),
            Self::Cluster(nodes) => nodes.iter().any(|node| is_tls(node.addr())),
            #[cfg(test)]
            Self::Sim(_) => false,
        }
    }
}

/// Returns the settings of a socket. The crate's own default leaves Nagle's algorithm on, which holds a question back until
/// the one before it is answered.
pub(super) fn tcp_settings() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

/// Says the hosts only.
impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |hosts: &mut dyn Iterator<Item = &ConnectionAddr>| {
            hosts.map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        match self {
            Self::Single(info) => write!(f, "{}", info.addr()),
            Self::Sentinel { sentinels, master, .. } => {
                write!(f, "master {master} by the Sentinels {}", join(&mut sentinels.iter()))
            }
            Self::Cluster(nodes) => write!(f, "Cluster {}", join(&mut nodes.iter().map(ConnectionInfo::addr))),
            #[cfg(test)]
            Self::Sim(_) => f.write_str("sim"),
        }
    }
}

impl fmt::Debug for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerAddress({self})")
    }
}

/// The part of an address that names several hosts: `[user:pass@]host:port,host:port[/path]`.
struct Hosts<'a> {
    hosts: Vec<ConnectionAddr>,
    login: RedisConnectionInfo,
    path: &'a str,
}

impl<'a> Hosts<'a> {
    fn parse(text: &'a str, default_port: u16, tls: Option<TlsMode>) -> Result<Self, RedisStoreError> {
        if text.contains(['?', '#']) {
            return Err(refuse("what follows the path is not understood"));
        }
        // A password may have an `@` that nobody has escaped.
        let (login, places) = match text.rsplit_once('@') {
            Some((login, places)) => (Some(login), places),
            None => (None, text),
        };
        let (places, path) = places.split_once('/').unwrap_or((places, ""));
        let mut settings = RedisConnectionInfo::default();
        if let Some(login) = login {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            if !user.is_empty() {
                settings = settings.set_username(unescape(user)?);
            }
            if !password.is_empty() {
                settings = settings.set_password(unescape(password)?);
            }
        }
        let hosts: Result<Vec<_>, _> = places.split(',').map(|place| host(place, default_port, tls)).collect();
        let hosts = hosts?;
        if hosts.len() > MAX_HOSTS {
            return Err(refuse("it names more than 64 hosts"));
        }
        Ok(Self { hosts, login: settings, path: path.trim_end_matches('/') })
    }
}

/// Reads `host`, `host:port`, `[v6]` or `[v6]:port`.
fn host(place: &str, default_port: u16, tls: Option<TlsMode>) -> Result<ConnectionAddr, RedisStoreError> {
    let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or_else(|| refuse("a port is no number"))?)),
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    if host.is_empty() {
        return Err(refuse("a host is missing"));
    }
    let port = port.map_or(Ok(default_port), |port| port.parse().map_err(|_| refuse("a port is no number")))?;
    let host = host.to_owned();
    Ok(match tls {
        None => ConnectionAddr::Tcp(host, port),
        Some(_) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
    })
}

/// Decodes `%40` and the like.
fn unescape(text: &str) -> Result<String, RedisStoreError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let code = after.get(..2).and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        bytes.push(code.ok_or_else(|| refuse("a % has no two digits after it"))?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|_| refuse("it is no UTF-8"))
}

fn refuse(why: &str) -> RedisStoreError {
    RedisStoreError::address(message(why))
}

fn message(why: &str) -> String {
    format!(
        "this is not the address of a Redis or Valkey: {why}; it is redis://[user:password@]host[:port][/database], \
         rediss:// for TLS, unix:///path, redis+sentinel://host:port,host:port/master[/database] or \
         redis+cluster://host:port,host:port"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        ServerAddress::parse(text).map_or_else(|error| format!("error: {error}"), |address| address.to_string())
    }

    #[test]
    fn one_server_is_read_as_its_client_reads_it() {
        assert_eq!(said("redis://h"), "h:6379");
        assert_eq!(said("valkey://h:7/2"), "h:7");
        assert_eq!(said("rediss://u:p@h:7"), "h:7");
        assert_eq!(said("unix:///run/redis.sock"), "/run/redis.sock");
        assert!(said("rediss://h:7/#insecure").contains("checks nothing"));
    }

    #[test]
    fn nagle_is_off_for_one_server_and_for_a_cluster() {
        let ServerAddress::Single(info) = ServerAddress::parse("redis://h").unwrap() else { panic!() };
        assert!(info.tcp_settings().nodelay());
        let ServerAddress::Cluster(nodes) = ServerAddress::parse("redis+cluster://a,b:2").unwrap() else { panic!() };
        assert!(nodes.iter().all(|node| node.tcp_settings().nodelay()));
    }

    #[test]
    fn several_hosts_have_one_login() {
        let address = ServerAddress::parse("redis+sentinel://us%40r:p%3aw@a,b:5,[::1]:7/my-master/3").unwrap();
        assert_eq!(address.to_string(), "master my-master by the Sentinels a:26379,b:5,::1:7");
        let ServerAddress::Sentinel { login, sentinels, .. } = address else { panic!() };
        assert_eq!((login.username(), login.password(), login.db()), (Some("us@r"), Some("p:w"), 3));
        assert_eq!(sentinels.len(), 3);
        assert_eq!(said("rediss+cluster://:pw@a,b:5"), "Cluster a:6379,b:5");
        let has_tls = |text| ServerAddress::parse(text).unwrap().has_tls();
        assert!(["rediss://a", "rediss+sentinel://a/m", "valkeys+cluster://a"].into_iter().all(has_tls));
        assert!(!["redis://a", "redis+sentinel://a/m", "redis+cluster://a", "unix:///a"].into_iter().any(has_tls));
    }

    #[test]
    fn a_wrong_address_is_refused_and_its_password_is_not_repeated() {
        for wrong in [
            "",
            "redis",
            "redis://",
            "http://secret@h",
            "redis+ftp://:secret@h",
            "redis+sentinel://:secret@h:1",
            "redis+sentinel://:secret@h:x/m",
            "redis+sentinel://:secret@h:1/m/x",
            "redis+cluster://:secret@h:1/3",
            "redis+cluster://:secret@,h",
            "redis+cluster://:%zz@h",
            "redis://:secret@h/x",
            "redis://:secret@h?protocol=secret",
        ] {
            let error = ServerAddress::parse(wrong).unwrap_err();
            assert!(
                error.is_address() != error.is_scheme() && !error.to_string().contains("secret"),
                "{wrong}: {error}"
            );
        }
        let address = ServerAddress::parse("redis://user:secret@h").unwrap();
        assert!(!format!("{address:?} {address}").contains("secret"));
    }
}
