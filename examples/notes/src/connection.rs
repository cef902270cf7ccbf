//! A connection in plain blocking style: a loop that reads a request and writes its answer. When
//! the service stops, all connections end after the requests that they have begun.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::store::{Answer, Request, Store};

/// The largest request in bytes, head and body together.
pub const MAX_REQUEST: usize = 16 * 1024;

/// The open connections of a service.
#[derive(Clone, Debug, Default)]
pub struct Connections(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified when a connection ends.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The service stops: no connection begins, and each open one ends after its request.
    stopping: bool,
    /// The number that the latest connection got.
    latest: u64,
    /// The socket of each open connection, shared with the thread that serves it. `stop` ends its
    /// reads. The socket is not duplicated, so a connection takes one file descriptor.
    open: HashMap<u64, Arc<TcpStream>>,
}

/// The entry of a connection in `State::open`. The entry is removed when this is dropped, so that a
/// connection whose thread panics does not hold up the end of the service.
struct Entry<'a> {
    connections: &'a Connections,
    number: u64,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.connections.state().open.remove(&self.number);
        self.connections.0.ended.notify_all();
    }
}

impl Connections {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves a connection until the peer closes it or the service stops. Blocks.
    ///
    /// A request that cannot be understood is answered with an error and ends the connection.
    ///
    /// # Errors
    /// The socket's.
    pub fn serve(&self, stream: TcpStream, store: &Store) -> io::Result<()> {
        let stream = Arc::new(stream);
        let entry = {
            let mut state = self.state();
            if state.stopping {
                return Ok(());
            }
            state.latest += 1;
            let number = state.latest;
            state.open.insert(number, Arc::clone(&stream));
            Entry {
                connections: self,
                number,
            }
        };
        let result = serve(&stream, store, || self.state().stopping);
        drop(entry);
        result
    }

    /// Stops the service: no connection begins from now on, and each open connection ends after the
    /// request that it has begun. Waits until all of them have ended. Returns false if some have
    /// not within `patience`; those are closed.
    #[must_use]
    pub fn stop(&self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        let mut state = self.state();
        state.stopping = true;
        for stream in state.open.values() {
            // A connection that waits for a request now reads the end of the stream. An error means
            // that the peer has closed the connection already.
            let _ = stream.shutdown(Shutdown::Read);
        }
        while !state.open.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                for stream in state.open.values() {
                    let _ = stream.shutdown(Shutdown::Both);
                }
                return false;
            }
            state = self
                .0
                .ended
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }
}

fn serve(mut stream: &TcpStream, store: &Store, stopping: impl Fn() -> bool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(4096);
    loop {
        match parse(&buffer) {
            Parsed::Whole { length, request } => {
                let answer = match request {
                    Some(request) => store.answer(request),
                    None => (404, "there is nothing here".into()),
                };
                buffer.drain(..length);
                stream.write_all(&response(&answer))?;
                if stopping() {
                    return Ok(());
                }
            }
            Parsed::Part if buffer.len() < MAX_REQUEST => {
                let have = buffer.len();
                buffer.resize(have + 4096, 0);
                let got = stream.read(&mut buffer[have..])?;
                buffer.truncate(have + got);
                if got == 0 {
                    return Ok(());
                }
            }
            Parsed::Part => return refuse(stream, 413, "the request is too long"),
            Parsed::Invalid => return refuse(stream, 400, "this is not a valid request"),
        }
    }
}

/// Answers with an error, and then ends the connection.
///
/// If the socket were closed while the peer still sends, the kernel would reset the connection, and
/// the peer might lose the answer. So this reads and discards a bounded amount first.
fn refuse(mut stream: &TcpStream, status: u16, reason: &str) -> io::Result<()> {
    stream.write_all(&response(&(status, reason.into())))?;
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut discarded = [0; 4096];
    for _ in 0..64 {
        if stream.read(&mut discarded)? == 0 {
            break;
        }
    }
    Ok(())
}

fn response((status, body): &Answer) -> Vec<u8> {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        413 => "Content Too Large",
        _ => "Internal Server Error",
    };
    let length = body.len();
    format!("HTTP/1.1 {status} {reason}\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}

/// What a buffer begins with.
#[derive(Debug, PartialEq, Eq)]
enum Parsed<'a> {
    /// A whole request of `length` bytes. `request` is `None` if this service has nothing under
    /// that method and path.
    Whole {
        length: usize,
        request: Option<Request<'a>>,
    },
    /// The beginning of a request, or nothing yet.
    Part,
    /// Something that cannot become a request.
    Invalid,
}

fn parse(buffer: &[u8]) -> Parsed<'_> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(buffer) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Parsed::Part,
        Err(_) => return Parsed::Invalid,
    };
    let mut body = 0;
    for header in &*request.headers {
        if header.name.eq_ignore_ascii_case("content-length") {
            let value = str::from_utf8(header.value).ok();
            match value.and_then(|text| text.trim().parse::<usize>().ok()) {
                Some(length) => body = length,
                None => return Parsed::Invalid,
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            // A body without a length is not supported.
            return Parsed::Invalid;
        }
    }
    let length = head.saturating_add(body);
    let Some(text) = buffer.get(head..length) else {
        return Parsed::Part;
    };
    let Ok(text) = str::from_utf8(text) else {
        return Parsed::Invalid;
    };
    let path = request.path.unwrap_or("");
    let number = |prefix: &str| path.strip_prefix(prefix)?.parse::<u32>().ok();
    let request = match request.method {
        Some("GET") => number("/notes/")
            .map(|id| Request::Read(id.into()))
            .or_else(|| number("/slow/").map(|id| Request::Slow(id.into())))
            .or_else(|| number("/burn/").map(|time| Request::burn(time.into()))),
        Some("POST") if path == "/notes" => Some(Request::Add(text)),
        _ => None,
    };
    Parsed::Whole { length, request }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole<'a>(text: &'a str, request: Option<Request<'a>>) {
        let length = text.len();
        assert_eq!(
            parse(text.as_bytes()),
            Parsed::Whole { length, request },
            "{text:?}"
        );
        for end in 0..length {
            assert_eq!(
                parse(&text.as_bytes()[..end]),
                Parsed::Part,
                "{text:?}, {end}"
            );
        }
    }

    #[test]
    fn each_request_is_recognised_and_no_part_of_it_is() {
        whole("GET /notes/7 HTTP/1.1\r\n\r\n", Some(Request::Read(7)));
        whole(
            "GET /slow/8 HTTP/1.1\r\nhost: x\r\n\r\n",
            Some(Request::Slow(8)),
        );
        whole("GET /burn/9 HTTP/1.1\r\n\r\n", Some(Request::Burn(9)));
        whole(
            "POST /notes HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
            Some(Request::Add("hello")),
        );
    }

    #[test]
    fn unknown_paths_and_methods_are_whole_requests() {
        for head in [
            "GET /notes/x",
            "GET /notes/-1",
            "GET /",
            "DELETE /notes/1",
            "POST /notes/1",
        ] {
            whole(&format!("{head} HTTP/1.1\r\n\r\n"), None);
        }
    }

    #[test]
    fn the_second_of_two_requests_is_left() {
        let first = "POST /notes HTTP/1.1\r\ncontent-length: 2\r\n\r\nab";
        let both = format!("{first}GET /notes/1 HTTP/1.1\r\n\r\n");
        assert_eq!(
            parse(both.as_bytes()),
            Parsed::Whole {
                length: first.len(),
                request: Some(Request::Add("ab"))
            }
        );
    }

    #[test]
    fn invalid_requests_are_found() {
        for text in [
            &b"\0\0\0\0"[..],
            b"POST /notes HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
            b"POST /notes HTTP/1.1\r\ncontent-length: many\r\n\r\n",
            b"POST /notes HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
            b"POST /notes HTTP/1.1\r\ncontent-length: 1\r\n\r\n\xff",
        ] {
            assert_eq!(parse(text), Parsed::Invalid, "{text:?}");
        }
    }

    #[test]
    fn no_length_overflows() {
        let text = format!(
            "POST /notes HTTP/1.1\r\ncontent-length: {}\r\n\r\nx",
            usize::MAX
        );
        assert_eq!(parse(text.as_bytes()), Parsed::Part);
    }
}
