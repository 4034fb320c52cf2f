//! Top-level settings of the server: its address, and the times that it gives.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use humantime::format_duration;
use tower_gemini::KeepAliveLayer;

use crate::config::{
    toml::{Section, Value},
    values::{duration, duration_or_zero},
};

const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8787);

/// The port next to the callers'. Only this machine's own programs reach it.
const OPERATOR_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8788);

/// nginx's `client_header_timeout` is 60 s, hyper's own is 30 s.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// The most connections, unless the process may open fewer files than twice that: about 200 MB, if all are used.
const MAX_CONNECTIONS: usize = 10_000;

/// Kubernetes waits 30 s before it kills.
const DRAIN: Duration = Duration::from_secs(25);

/// The time after which Kubernetes kills a program that it has told to end.
const KILLED: Duration = Duration::from_secs(30);

/// The time after which many proxies and load balancers cut a silent connection. Of nginx, of Heroku's router, which has
/// 55 s, and of AWS's load balancers it is the default.
const PROXIES: Duration = Duration::from_secs(55);

/// The server's settings.
#[derive(Clone, Copy)]
pub(crate) struct Server {
    /// The address on which it listens for callers.
    pub(crate) listen: SocketAddr,
    /// The address on which it shows operators what is going on, if it does.
    pub(crate) operator_listen: Option<SocketAddr>,
    /// The time in which the head of a request must arrive.
    pub(crate) header_timeout: Duration,
    /// The most connections of callers.
    pub(crate) max_connections: usize,
    /// The most connections of one address.
    pub(crate) max_connections_per_address: Option<usize>,
    /// The time for which it goes on accepting connections after it was told to end.
    pub(crate) lame_duck: Duration,
    /// The time that calls in flight may take after that.
    pub(crate) drain: Duration,
    /// The time of a stream's silence after which something is sent, if streams are kept alive.
    keep_alive: Option<Duration>,
}

impl Server {
    /// Reads the settings from the top level of the file.
    pub(crate) fn read(file: &mut Section<'_>) -> Self {
        let keep_alive = file.get_placed("keep_alive", keep_alive);
        if let Some((every, place)) = keep_alive.as_ref().filter(|(every, _)| *every >= PROXIES) {
            let remark = format!(
                "keep_alive is {}: many proxies cut connections that are silent for {}; about a third of their time, \
                 such as \"15s\", keeps streams alive",
                format_duration(*every),
                format_duration(PROXIES)
            );
            file.remark_at(place.clone(), remark);
        }
        let files = open_files();
        let max_connections = file.get("max_connections", connections);
        if let (Some(most), Some(files)) = (max_connections, files.filter(|files| max_connections > Some(*files))) {
            file.remark(format!(
                "max_connections is {most}, but the process may open {files} files only, and each connection is one: \
                 raise that limit (ulimit -n, LimitNOFILE)"
            ));
        }
        let keep_alive = keep_alive.map(|(every, _)| every);
        let lame_duck = file.get_placed("lame_duck", duration_or_zero);
        let drain = file.get("drain", duration_or_zero).unwrap_or(DRAIN);
        if let Some((lame_duck, place)) =
            lame_duck.as_ref().filter(|(lame_duck, _)| !lame_duck.is_zero() && *lame_duck + drain > KILLED)
        {
            let [whole, killed] = [*lame_duck + drain, KILLED].map(format_duration);
            let remark = format!(
                "lame_duck: with drain, the end takes up to {whole}, but Kubernetes kills after {killed} unless \
                 terminationGracePeriodSeconds is longer, and Docker after 10s"
            );
            file.remark_at(place.clone(), remark);
        }
        let lame_duck = lame_duck.map(|(lame_duck, _)| lame_duck).unwrap_or_default();
        Self {
            listen: file.get("listen", address).unwrap_or(LISTEN),
            operator_listen: file.get("operator_listen", address_or_false).unwrap_or(Some(OPERATOR_LISTEN)),
            header_timeout: file.get("header_timeout", duration).unwrap_or(HEADER_TIMEOUT),
            max_connections: max_connections.unwrap_or_else(|| usual_connections(files)),
            max_connections_per_address: file.get("max_connections_per_address", connections),
            lame_duck,
            drain,
            keep_alive,
        }
    }
}

impl Server {
    /// Returns the layer that keeps streams alive.
    pub(crate) fn keep_alive_layer(&self) -> Option<KeepAliveLayer> {
        self.keep_alive.map(KeepAliveLayer::new)
    }

    /// Describes that layer in a line, if there is one, as the others are described.
    pub(crate) fn describe_keep_alive(&self) -> Option<String> {
        self.keep_alive_layer().map(|layer| format!("{:<16}{layer}", "keep alive"))
    }
}

/// Returns the most connections by default: each may need another one to the upstream.
fn usual_connections(files: Option<usize>) -> usize {
    files.map_or(MAX_CONNECTIONS, |files| (files / 2).clamp(1, MAX_CONNECTIONS))
}

/// Returns how many files the process may open, where the system says it.
fn open_files() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn connections(value: &Value<'_>) -> Result<usize, String> {
    const RIGHT: &str = "a whole number of connections from 1, like 10000";
    match value.integer(RIGHT)? {
        0 => Err(format!("is 0, and so nobody could call; it is {RIGHT}")),
        number => usize::try_from(number).map_err(|_| format!("is {number}; it is {RIGHT}")),
    }
}

fn keep_alive(value: &Value<'_>) -> Result<Duration, String> {
    match duration(value)? {
        every if every < Duration::from_secs(1) => Err(format!(
            "{} is too often, each piece costs a packet; it is \"1s\" or more, such as \"15s\"",
            format_duration(every)
        )),
        every => Ok(every),
    }
}

fn address(value: &Value<'_>) -> Result<SocketAddr, String> {
    const RIGHT: &str =
        "an IP address and a port, like \"127.0.0.1:8787\" or \"[::1]:8787\"; port 0 takes any free one";
    let text = value.text(RIGHT)?;
    text.parse().map_err(|_| format!("{text:?} is not an address to listen on; it is {RIGHT}"))
}

fn address_or_false(value: &Value<'_>) -> Result<Option<SocketAddr>, String> {
    const RIGHT: &str = "an IP address and a port, like \"127.0.0.1:8788\", or false: operators' pages are not served";
    match value.boolean(RIGHT) {
        Ok(false) => Ok(None),
        Ok(true) => Err(format!("is true; it is {RIGHT}")),
        Err(_) => {
            let text = value.text(RIGHT)?;
            text.parse().map(Some).map_err(|_| format!("{text:?} is not an address to listen on; it is {RIGHT}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_half_of_the_open_files_for_the_upstream() {
        assert_eq!([None, Some(1_024), Some(1), Some(1 << 20)].map(usual_connections), [10_000, 512, 1, 10_000]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_says_how_many_files_may_be_open() {
        assert!(open_files().is_some_and(|files| files > 0));
    }
}
