//! The address of the server, and the three ways to find it: itself, by Sentinel, as a Cluster.

use std::{fmt, net::Ipv6Addr};

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
        let text = text.trim();
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(refuse("a blank, or a letter that is no ASCII, is written as %20 and the like"));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(RedisStoreError::scheme(message("the scheme is missing")));
        };
        let scheme = scheme.to_ascii_lowercase();
        let (family, way) = scheme.split_once('+').unwrap_or((&scheme, ""));
        let tls = match (family, way) {
            ("unix", "") | ("redis" | "valkey", "unix") => return unix(&scheme, rest),
            ("redis" | "valkey", "" | "sentinel" | "cluster") => None,
            ("rediss" | "valkeys", "" | "sentinel" | "cluster") => Some(TlsMode::Secure),
            _ => return Err(RedisStoreError::scheme(message("the scheme is unknown"))),
        };
        let default_port = if way == "sentinel" { SENTINEL_PORT } else { SERVER_PORT };
        let Hosts { hosts, login, path } = Hosts::parse(rest, default_port, tls)?;
        match way {
            "sentinel" => {
                let (master, db) = path.split_once('/').unwrap_or((path, ""));
                if master.is_empty() {
                    return Err(refuse("the master's name is missing, as /mymaster behind the hosts"));
                }
                let login = with_database(login, db)?;
                Ok(Self::Sentinel { sentinels: hosts, master: unescape(master)?.into(), tls, login })
            }
            "cluster" if !path.is_empty() => Err(refuse("a Cluster has no databases")),
            "cluster" => {
                let nodes: Result<_, _> = hosts.into_iter().map(|host| connection(host, login.clone())).collect();
                Ok(Self::Cluster(nodes?))
            }
            _ => {
                let mut hosts = hosts.into_iter();
                match (hosts.next(), hosts.next()) {
                    (Some(host), None) => Ok(Self::Single(Box::new(connection(host, with_database(login, path)?)?))),
                    _ => Err(refuse("several hosts are for redis+sentinel:// and redis+cluster:// only")),
                }
            }
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

/// Reads the address of a socket of this machine, as the crate does.
fn unix(scheme: &str, rest: &str) -> Result<ServerAddress, RedisStoreError> {
    if !rest.starts_with('/') {
        return Err(refuse("behind unix:// stands the path of a socket, from / on"));
    }
    // The parts of its message that may repeat the address are left out.
    let info = format!("{scheme}://{rest}").into_connection_info().map_err(|error| refuse(error.category()))?;
    Ok(ServerAddress::Single(Box::new(info)))
}

fn connection(host: ConnectionAddr, login: RedisConnectionInfo) -> Result<ConnectionInfo, RedisStoreError> {
    let info = host.into_connection_info().map_err(|error| refuse(error.category()))?;
    Ok(info.set_redis_settings(login).set_tcp_settings(tcp_settings()))
}

/// Chooses a database by its number; without one it is the first.
fn with_database(login: RedisConnectionInfo, number: &str) -> Result<RedisConnectionInfo, RedisStoreError> {
    match number {
        "" => Ok(login),
        number => match number.parse::<u32>() {
            Ok(number) => Ok(login.set_db(number.into())),
            Err(_) => Err(refuse("the database is no number")),
        },
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
        let end = text.find(['/', '?', '#']).unwrap_or(text.len());
        let (authority, path) = text.split_at(end);
        if path.contains('@') {
            return Err(refuse("a / ? or # in a user or a password is written as %2F, %3F or %23"));
        }
        if path.contains(['?', '#']) {
            return Err(refuse("what follows the path is not understood"));
        }
        // A password may have an `@` that nobody has escaped.
        let (login, places) = match authority.rsplit_once('@') {
            Some((login, places)) => (Some(login), places),
            None => (None, authority),
        };
        let path = path.strip_prefix('/').unwrap_or(path);
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
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let parts = rest.split_once(']').filter(|(host, _)| host.parse::<Ipv6Addr>().is_ok());
            let (host, port) = parts.ok_or_else(|| refuse("in [ ] stands no IPv6 address"))?;
            let no_port = || refuse("behind ] stands no port");
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or_else(no_port)?) })
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    if host.is_empty() {
        return Err(refuse("a host is missing"));
    }
    if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte)) {
        return Err(refuse("a host has characters that no name has"));
    }
    let port = match port.map(str::parse) {
        None => default_port,
        Some(Ok(port)) if port > 0 => port,
        Some(_) => return Err(refuse("a port is no number from 1 to 65535")),
    };
    let host = host.to_owned();
    Ok(match tls {
        None => ConnectionAddr::Tcp(host, port),
        Some(_) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
    })
}

/// Decodes `%40` and the like.
fn unescape(text: &str) -> Result<String, RedisStoreError> {
    let mut parts = text.split('%');
    let mut bytes = Vec::from(parts.next().unwrap_or_default());
    for part in parts {
        let code = part.get(..2).filter(|code| code.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let code = code.and_then(|code| u8::from_str_radix(code, 16).ok());
        bytes.push(code.ok_or_else(|| refuse("a % in a user or a password is written as %25"))?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
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
    fn one_server_has_a_login_and_a_database() {
        assert_eq!(said("redis://h"), "h:6379");
        assert_eq!(said("valkey://h:7/2"), "h:7");
        assert_eq!(said("rediss://u:p@h:7"), "h:7");
        assert_eq!(said("unix:///run/redis.sock"), "/run/redis.sock");
        assert_eq!(said(" REDIS://h/1\n"), "h:6379");
        assert_eq!(said("redis+unix:///run/redis.sock?db=2"), "/run/redis.sock");
        let ServerAddress::Single(info) = ServerAddress::parse("redis://us%40r:p@ss%3a@[::1]:7/3").unwrap() else {
            panic!()
        };
        let login = info.redis_settings();
        assert_eq!((login.username(), login.password(), login.db()), (Some("us@r"), Some("p@ss:"), 3));
        assert_eq!(info.addr().to_string(), "::1:7");
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
        for (wrong, says) in [
            ("", "scheme is missing"),
            ("redis", "scheme is missing"),
            (":secret@h:1", "scheme is missing"),
            ("http://secret@h", "scheme is unknown"),
            ("redis+ftp://:secret@h", "scheme is unknown"),
            ("unix+cluster://secret", "scheme is unknown"),
            ("unix://secret.sock", "from / on"),
            ("redis://", "a host is missing"),
            ("redis://:secret@", "a host is missing"),
            ("redis://:secret", "a host is missing"),
            ("redis+cluster://:secret@,h", "a host is missing"),
            ("redis://h:secret", "a port is no number from 1 to 65535"),
            ("redis://h:0", "a port is no number from 1 to 65535"),
            ("redis://h:65536", "a port is no number from 1 to 65535"),
            ("redis://h:", "a port is no number from 1 to 65535"),
            ("redis+sentinel://:secret@h:x/m", "a port is no number from 1 to 65535"),
            ("redis://[secret]", "no IPv6 address"),
            ("redis://[::1", "no IPv6 address"),
            ("redis://[::1]secret", "behind ]"),
            ("redis://secret!", "that no name has"),
            ("redis://secret h", "%20"),
            ("redis://a,b", "several hosts"),
            ("redis://:secret/of@h", "%2F"),
            ("redis://:secret#of@h", "%23"),
            ("redis://:secret%of@h", "%25"),
            ("redis+cluster://:secret%+1@h", "%25"),
            ("redis://:secret@h/x", "the database is no number"),
            ("redis://:secret@h/1/2", "the database is no number"),
            ("redis+sentinel://:secret@h:1/m/-1", "the database is no number"),
            ("redis+sentinel://:secret@h:1", "the master's name"),
            ("redis+cluster://:secret@h:1/3", "no databases"),
            ("redis://:secret@h?protocol=secret", "not understood"),
            ("rediss://h/#insecure", "not understood"),
        ] {
            let error = ServerAddress::parse(wrong).unwrap_err();
            assert_eq!(error.is_scheme(), says.starts_with("scheme"), "{wrong}");
            assert!(error.is_address() != error.is_scheme(), "{wrong}");
            let said = error.to_string();
            assert!(said.contains(says) && !said.contains("secret"), "{wrong}: {said}");
        }
        let address = ServerAddress::parse("redis://user:secret@h").unwrap();
        assert!(!format!("{address:?} {address}").contains("secret"));
    }
}
