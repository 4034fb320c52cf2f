//! A generator of calls at a fixed rate: a call begins when its time has come, whether or not the one before has ended.
//!
//! A generator that waits for each answer sends less while a server is slow, and so misses the very calls that would have waited
//! (coordinated omission). Here a call's time runs from the moment at which it was due: one that waits for its connection has
//! waited.

use std::{
    io::{Error, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use crate::servers::{STAMP, micros};

/// The times of many calls, in microseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times {
    /// From the moment at which a call was due to the answer's last byte.
    pub(crate) whole: Vec<f64>,
    /// From the moment at which a call was due to its first event.
    pub(crate) first: Vec<f64>,
    /// From the upstream's making of an event to its arrival.
    pub(crate) events: Vec<f64>,
}

impl Times {
    fn add(&mut self, other: Self) {
        self.whole.extend(other.whole);
        self.first.extend(other.first);
        self.events.extend(other.events);
    }
}

/// The load: so many calls a second, over so many connections, for so long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) rate: f64,
    pub(crate) connections: usize,
    pub(crate) lasts: Duration,
}

impl Load {
    /// Makes the calls, each connection in its turn, and returns their times.
    pub(crate) fn run(self, address: SocketAddr, path: &str, body: &str) -> Result<Times, Error> {
        let request = request(address, path, body);
        let each = ((self.rate * self.lasts.as_secs_f64()) as usize / self.connections).max(1);
        let barrier = Barrier::new(self.connections);
        let times = thread::scope(|scope| {
            let running: Vec<_> = (0..self.connections)
                .map(|nth| {
                    let (request, barrier) = (&request, &barrier);
                    scope.spawn(move || {
                        let connection = connect(address);
                        barrier.wait();
                        let begun = now();
                        let mut connection = connection?;
                        let mut times = Times::default();
                        for call in 0..each {
                            let turn = (call * self.connections + nth) as f64;
                            let due = begun + Duration::from_secs_f64(turn / self.rate);
                            thread::sleep(due.saturating_duration_since(now()));
                            one_call(&mut connection, request, due, &mut times)?;
                        }
                        Ok::<_, Error>(times)
                    })
                })
                .collect();
            running.into_iter().map(|thread| thread.join().expect("a thread that ends")).collect::<Vec<_>>()
        });
        let mut all = Times::default();
        for each in times {
            all.add(each?);
        }
        Ok(all)
    }
}

fn connect(address: SocketAddr) -> Result<TcpStream, Error> {
    let connection = TcpStream::connect(address)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(connection)
}

/// Returns a POST in HTTP/1.1.
pub(crate) fn request(address: SocketAddr, path: &str, body: &str) -> Vec<u8> {
    let len = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\nx-goog-api-key: nobody\r\ncontent-length: {len}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Makes a call on a connection, and adds its times.
fn one_call(connection: &mut TcpStream, request: &[u8], due: Instant, times: &mut Times) -> Result<(), Error> {
    let micros_since = |begun: Instant| begun.elapsed().as_nanos() as f64 / 1e3;
    connection.write_all(request)?;
    let mut answer = Vec::with_capacity(8192);
    let mut seen = 0;
    let mut has_begun = false;
    let mut piece = [0; 16_384];
    loop {
        let read = connection.read(&mut piece)?;
        if read == 0 {
            return Err(Error::new(ErrorKind::UnexpectedEof, "the connection ended within an answer"));
        }
        answer.extend_from_slice(&piece[..read]);
        let arrived = micros();
        for sent in stamps(&answer[seen..]) {
            if !has_begun {
                times.first.push(micros_since(due));
            }
            has_begun = true;
            times.events.push(arrived.saturating_sub(sent) as f64);
        }
        // An event that is cut is looked at again with its other half.
        seen = answer.iter().rposition(|byte| *byte == b'\n').map_or(seen, |line| seen.max(line + 1));
        if is_whole(&answer)? {
            times.whole.push(micros_since(due));
            return Ok(());
        }
    }
}

/// Returns the times that the whole lines of a piece name.
fn stamps(piece: &[u8]) -> impl Iterator<Item = u64> {
    let whole = piece.iter().rposition(|byte| *byte == b'\n').map_or(0, |line| line + 1);
    let text = String::from_utf8_lossy(&piece[..whole]).into_owned();
    let times: Vec<_> = text
        .split(STAMP)
        .skip(1)
        .filter_map(|rest| rest.split(|next: char| !next.is_ascii_digit()).next()?.parse().ok())
        .collect();
    times.into_iter()
}

/// Returns whether an answer has come to its end; an error if it is none of 200.
fn is_whole(answer: &[u8]) -> Result<bool, Error> {
    let Some(head) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return Ok(false) };
    let (head, body) = (String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase(), &answer[head + 4..]);
    if !head.starts_with("http/1.1 200") {
        let text = String::from_utf8_lossy(answer);
        return Err(Error::other(format!("not answered with 200 but {text}")));
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    Ok(length
        .map_or_else(|| body.ends_with(b"\r\n0\r\n\r\n") || body == b"0\r\n\r\n", |length: usize| body.len() >= length))
}

/// Returns a percentile, in place of which a mean would hide the slow calls.
pub(crate) fn percentile(times: &[f64], percent: usize) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

#[expect(clippy::disallowed_methods, reason = "real time is what is measured")]
fn now() -> Instant {
    Instant::now()
}
