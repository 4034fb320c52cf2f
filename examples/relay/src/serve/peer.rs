//! The other end of a connection.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use crate::serve::unread::AnswersUnderWay;

/// The other end of the connection, among a request's extensions until it is let in.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    /// The name of a caller that brings no token, for the layers that share between callers.
    pub(crate) name: Arc<str>,
    pub(crate) under_way: AnswersUnderWay,
}

impl Peer {
    /// Takes the address of a connection, and the time for which an answer on it may be unread.
    pub(crate) fn new(address: IpAddr, unread_timeout: Duration) -> Self {
        let (address, name) = (address.to_canonical(), name_of(address).into());
        Self { address, name, under_way: AnswersUnderWay::new(unread_timeout) }
    }
}

/// Returns the name of an address: itself, or of IPv6 the network of 64 bits, all addresses of which are one caller's.
fn name_of(address: IpAddr) -> String {
    match network(address) {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(network) => format!("{network}/64"),
    }
}

/// Returns what counts as one address. Who has one of IPv6 has as a rule all of its /64.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_without_a_token_is_known_by_its_address_or_network() {
        for (address, name) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ] {
            assert_eq!(name_of(address.parse().unwrap()), name);
        }
    }
}
