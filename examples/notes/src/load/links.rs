//! Many connections on one thread, without blocking.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use polling::{Event, Events, PollMode, Poller};
use socket2::{Domain, Socket, Type};

use super::Kind;

/// A request that a connection is busy with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) kind: Kind,
    /// When it was due. Its latency counts from here.
    pub(crate) due: Instant,
    /// When the connection began with it. Its time limit counts from here.
    begun: Instant,
}

/// A request that was answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    /// The number of its connection.
    pub(crate) link: usize,
    pub(crate) sent: Sent,
    pub(crate) at: Instant,
}

#[derive(Debug, Default)]
struct Link {
    stream: Option<TcpStream>,
    /// Whether the poller reports that the socket is writable, and not that it is readable.
    awaits_writable: bool,
    sent: Option<Sent>,
    output: Vec<u8>,
    /// The number of bytes of `output` that the kernel has taken.
    written: usize,
    input: Vec<u8>,
}

/// A fixed number of connections, each of which is busy with one request at most.
#[derive(Debug)]
pub(crate) struct Links {
    address: SocketAddr,
    poller: Poller,
    events: Events,
    links: Vec<Link>,
    limit: Duration,
    /// When the time limits of all connections are checked next.
    next_check: Instant,
}

impl Links {
    /// Makes `count` connections, which connect with their first request. A request that is not
    /// answered within `limit` is an error.
    pub(crate) fn new(address: SocketAddr, count: usize, limit: Duration) -> anyhow::Result<Self> {
        Ok(Self {
            address,
            poller: Poller::new()?,
            events: Events::new(),
            links: (0..count).map(|_| Link::default()).collect(),
            limit,
            next_check: Instant::now(),
        })
    }

    /// Begins a request on a connection that is not busy. Connects first if it is not connected.
    pub(crate) fn begin(
        &mut self,
        link: usize,
        kind: Kind,
        due: Instant,
        text: &str,
    ) -> anyhow::Result<()> {
        let Self { poller, links, .. } = self;
        let state = &mut links[link];
        debug_assert!(state.sent.is_none());
        state.sent = Some(Sent {
            kind,
            due,
            begun: Instant::now(),
        });
        state.output.clear();
        state.output.extend_from_slice(text.as_bytes());
        state.written = 0;
        state.input.clear();
        if state.stream.is_none() {
            let stream = connect(self.address)
                .with_context(|| format!("cannot connect to {}", self.address))?;
            // The connection is established when the socket is writable.
            // SAFETY: the stream leaves the poller in `close` before it is dropped, or is dropped
            // together with the poller.
            unsafe { poller.add_with_mode(&stream, Event::writable(link), PollMode::Level)? };
            state.awaits_writable = true;
            state.stream = Some(stream);
            return Ok(());
        }
        state.send(poller, link).with_context(|| describe(link))
    }

    /// Closes a connection that is not busy. Its next request opens a new one.
    pub(crate) fn close(&mut self, link: usize) -> anyhow::Result<()> {
        if let Some(stream) = self.links[link].stream.take() {
            self.poller.delete(&stream)?;
        }
        Ok(())
    }

    /// Waits for answers until `deadline`, and adds those that have come to `answered`.
    pub(crate) fn wait(
        &mut self,
        deadline: Instant,
        answered: &mut Vec<Answered>,
    ) -> anyhow::Result<()> {
        let now = Instant::now();
        if now >= self.next_check {
            self.check_limits(now)?;
            self.next_check = now + (self.limit / 10).min(Duration::from_millis(100));
        }
        let timeout = deadline.min(self.next_check).saturating_duration_since(now);
        self.events.clear();
        match self.poller.wait(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            result => result?,
        };
        for event in self.events.iter() {
            let link = event.key;
            let state = &mut self.links[link];
            if state.awaits_writable {
                state.send(&self.poller, link)
            } else {
                state.receive().map(|sent| {
                    answered.extend(sent.map(|sent| Answered {
                        link,
                        sent,
                        at: Instant::now(),
                    }));
                })
            }
            .with_context(|| describe(link))?;
        }
        Ok(())
    }

    /// Returns the requests that are not answered.
    pub(crate) fn busy(&self) -> impl Iterator<Item = Sent> {
        self.links.iter().filter_map(|link| link.sent)
    }

    fn check_limits(&self, now: Instant) -> anyhow::Result<()> {
        for (number, link) in self.links.iter().enumerate() {
            if let Some(sent) = link.sent {
                ensure!(
                    now.saturating_duration_since(sent.begun) < self.limit,
                    "{}: no answer within {:?} to {:?}",
                    describe(number),
                    self.limit,
                    String::from_utf8_lossy(&link.output)
                        .lines()
                        .next()
                        .unwrap_or_default(),
                );
            }
        }
        Ok(())
    }
}

fn describe(link: usize) -> String {
    format!("connection number {}", link + 1)
}

/// Begins to connect.
fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

impl Link {
    /// Sends what the kernel takes of the request.
    fn send(&mut self, poller: &Poller, link: usize) -> anyhow::Result<()> {
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        if self.awaits_writable
            && let Some(error) = stream.take_error()?
        {
            return Err(error).context("cannot connect, or cannot send");
        }
        while self.written < self.output.len() {
            match stream.write(&self.output[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("cannot send"),
            }
        }
        let awaits_writable = self.written < self.output.len();
        if awaits_writable != self.awaits_writable {
            let event = if awaits_writable {
                Event::writable(link)
            } else {
                Event::readable(link)
            };
            poller.modify_with_mode(&*stream, event, PollMode::Level)?;
            self.awaits_writable = awaits_writable;
        }
        Ok(())
    }

    /// Reads what has come. Returns the request if its answer is complete.
    fn receive(&mut self) -> anyhow::Result<Option<Sent>> {
        let Some(stream) = &mut self.stream else {
            return Ok(None);
        };
        let mut part = [0; 4096];
        let got = match stream.read(&mut part) {
            Ok(0) => bail!("the service closed it"),
            Ok(got) => got,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error).context("cannot receive"),
        };
        self.input.extend_from_slice(&part[..got]);
        let Some(sent) = self.sent else {
            bail!(
                "the service sent something that is no answer: {}",
                self.shown()
            );
        };
        match answer_length(&self.input) {
            Ok(Some(length)) if length < self.input.len() => {
                bail!("the service sent more than an answer: {}", self.shown())
            }
            Ok(Some(_)) => {
                self.sent = None;
                Ok(Some(sent))
            }
            Ok(None) => Ok(None),
            Err(error) => Err(error.context(format!("the answer {} is invalid", self.shown()))),
        }
    }

    /// The beginning of what has come, for errors.
    fn shown(&self) -> String {
        let part = &self.input[..self.input.len().min(80)];
        format!("{:?}", String::from_utf8_lossy(part))
    }
}

/// The longest answer that is accepted.
const MAX_ANSWER: usize = 1 << 20;

/// Returns the length of the answer that `input` begins with, or `None` if it is not complete.
/// Anything else than a successful answer is an error.
fn answer_length(input: &[u8]) -> anyhow::Result<Option<usize>> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(input)? else {
        ensure!(input.len() <= MAX_ANSWER, "its head does not end");
        return Ok(None);
    };
    ensure!(response.code == Some(200), "its status is not 200");
    let body = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .context("it has no length")?;
    let body: usize = str::from_utf8(body.value)?
        .trim()
        .parse()
        .context("its length is not a number")?;
    ensure!(body <= MAX_ANSWER, "it is too long");
    Ok((input.len() >= head + body).then_some(head + body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_with_its_last_byte() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        for end in 0..text.len() {
            assert_eq!(answer_length(&text[..end]).unwrap(), None, "{end}");
        }
        assert_eq!(answer_length(text).unwrap(), Some(text.len()));
    }

    #[test]
    fn what_is_no_successful_answer_is_an_error() {
        for text in [
            &b"garbage\r\n\r\n"[..],
            b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n",
        ] {
            assert!(answer_length(text).is_err(), "{text:?}");
        }
    }
}
