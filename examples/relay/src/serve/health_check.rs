//! The question whether a relay lives, for containers without a shell: `relay --health-check`.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// The longest time for each step. Docker waits 30 s by default, Kubernetes 1 s.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks the relay that listens on this address whether it is alive.
pub(crate) fn health_check(listen: SocketAddr) -> Result<(), String> {
    let address = SocketAddr::new(
        match listen.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        },
        listen.port(),
    );
    if address.port() == 0 {
        return Err("listen has port 0, which is any free one: nobody knows which to ask".to_owned());
    }
    let asked = || {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        write!(stream, "GET /healthz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(head)
    };
    match asked().map_err(|error: std::io::Error| format!("{address} does not answer: {error}"))? {
        head if head == *b"HTTP/1.1 200" => Ok(()),
        head => Err(format!("{address} answers {:?}", String::from_utf8_lossy(&head))),
    }
}
