//! The real service on each system.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use umcg_notes::{
    load::{self, Options},
    open_files,
    service::{Placement, Service},
};

/// Nothing here takes longer on a machine that works, however loaded it is.
const LIMIT: Duration = Duration::from_secs(30);

/// Defines each test for each system.
macro_rules! for_each_system {
    ($($test:ident),* $(,)?) => {
        mod umcg {
            $(#[test] fn $test() { super::$test("umcg") })*
        }
        mod threads {
            $(#[test] fn $test() { super::$test("threads") })*
        }
        mod tokio {
            $(#[test] fn $test() { super::$test("tokio") })*
        }
    };
}

for_each_system!(
    each_request_is_answered,
    invalid_requests_end_only_their_connection,
    a_load_runs,
    a_signal_under_load_ends_the_service_and_loses_no_request,
    idle_connections_do_not_hold_up_the_end,
);

fn start(on: &str) -> (Service, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(
        Path::new(env!("CARGO_BIN_EXE_notes")),
        on,
        &folder.path().join("notes.sqlite"),
        &Placement::default(),
    )
    .unwrap();
    (service, folder)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Reads an answer, its status and its body. `None`: the connection ended before its first byte.
fn answer(stream: &mut TcpStream) -> Option<(u16, String)> {
    let mut input = Vec::new();
    loop {
        let mut part = [0; 4096];
        let got = match stream.read(&mut part) {
            Ok(got) => got,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("{error}"),
        };
        if got == 0 {
            assert!(input.is_empty(), "part of an answer: {input:?}");
            return None;
        }
        input.extend_from_slice(&part[..got]);
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(head) = response.parse(&input).unwrap() else {
            continue;
        };
        let length = response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case("content-length"))
            .map_or(0, |header| {
                str::from_utf8(header.value).unwrap().parse().unwrap()
            });
        if input.len() >= head + length {
            let status = response.code.unwrap();
            return Some((status, String::from_utf8(input.split_off(head)).unwrap()));
        }
    }
}

fn ask(stream: &mut TcpStream, request: &str) -> (u16, String) {
    stream.write_all(request.as_bytes()).unwrap();
    answer(stream).unwrap_or_else(|| panic!("no answer to {request:?}"))
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: notes\r\n\r\n")
}

fn each_request_is_answered(on: &str) {
    let (service, _folder) = start(on);
    let stream = &mut connect(service.address());
    let (status, note) = ask(stream, &get("/notes/1"));
    assert!(
        status == 200 && note.starts_with("note "),
        "{status} {note}"
    );
    let text = "a note of mine";
    let post = format!(
        "POST /notes HTTP/1.1\r\nhost: notes\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    );
    let (status, id) = ask(stream, &post);
    assert_eq!(status, 200);
    assert_eq!(
        ask(stream, &get(&format!("/notes/{id}"))),
        (200, text.into())
    );
    let start = Instant::now();
    assert_eq!(
        ask(stream, &get(&format!("/slow/{id}"))),
        (200, text.into())
    );
    assert!(start.elapsed() >= Duration::from_millis(1));
    let start = Instant::now();
    assert_eq!(ask(stream, &get("/burn/20")).0, 200);
    assert!(start.elapsed() >= Duration::from_millis(20));
    assert_eq!(ask(stream, &get("/notes/4000000000")).0, 404);
    assert_eq!(ask(stream, &get("/nothing")).0, 404);
    // A request in two parts.
    let request = get("/notes/2");
    let (first, second) = request.split_at(20);
    stream.write_all(first.as_bytes()).unwrap();
    assert_eq!(
        ask(&mut connect(service.address()), &get("/notes/1")).0,
        200
    );
    assert_eq!(ask(stream, second).0, 200);
    service.stop().unwrap();
}

fn invalid_requests_end_only_their_connection(on: &str) {
    let (service, _folder) = start(on);
    let kept = &mut connect(service.address());
    assert_eq!(ask(kept, &get("/notes/1")).0, 200);

    let stream = &mut connect(service.address());
    assert_eq!(ask(stream, "\u{1}garbage\r\n\r\n").0, 400);
    assert_eq!(answer(stream), None);

    // Longer than the service takes. axum refuses it by its length, before it has come.
    let length = 1_000_000;
    let stream = &mut connect(service.address());
    let head = format!(
        "POST /notes HTTP/1.1\r\nhost: notes\r\ncontent-type: text/plain\r\n\
         content-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&vec![b'x'; 20_000]).unwrap();
    assert_eq!(answer(stream).unwrap().0, 413);

    // Half a request, and then nothing more.
    let stream = &mut connect(service.address());
    stream.write_all(b"GET /notes/1 HT").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    // Some servers say that this is no request, others just close.
    if let Some((status, _)) = answer(stream) {
        assert_eq!(status, 400);
    }

    // A peer that does not wait for its answer.
    let mut stream = connect(service.address());
    stream.write_all(get("/slow/1").as_bytes()).unwrap();
    drop(stream);

    assert_eq!(ask(kept, &get("/notes/1")).0, 200);
    service.stop().unwrap();
}

fn a_load_runs(on: &str) {
    let (service, _folder) = start(on);
    let report = load::run(&Options {
        connections: 16,
        duration: Duration::from_secs(1),
        warm_up: Duration::from_millis(100),
        idle: 8,
        pid: Some(service.pid()),
        ..Options::new(service.address())
    })
    .unwrap();
    assert_eq!(report.kinds.len(), 3, "{report}");
    assert!(report.all.rate > 0.0, "{report}");
    service.stop().unwrap();
}

/// Returns the CPU time of a process in clock ticks.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields = fields.split_whitespace().skip(11).take(2);
    fields.map(|field| field.parse::<u64>().unwrap()).sum()
}

/// Waits until `done` returns true.
fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < LIMIT, "timed out: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn a_signal_under_load_ends_the_service_and_loses_no_request(on: &str) {
    let (mut service, _folder) = start(on);
    let address = service.address();
    // A request that has begun for certain: it has used CPU time, and there is no other one.
    let mut long = connect(address);
    let before = cpu_ticks(service.pid());
    long.write_all(get("/burn/1000").as_bytes()).unwrap();
    wait_for("the long request begins", || {
        cpu_ticks(service.pid()) >= before + 5
    });
    // A load: each of these goes on until the service closes its connection.
    let answers = Arc::new(AtomicU64::new(0));
    let load: Vec<_> = (0..8)
        .map(|number| {
            let answers = Arc::clone(&answers);
            let mut stream = connect(address);
            thread::spawn(move || {
                let request = get(&format!("/slow/{}", number + 1));
                // An answer comes whole or not at all: `answer` checks that.
                while stream.write_all(request.as_bytes()).is_ok() {
                    match answer(&mut stream) {
                        Some((status, _)) => assert_eq!(status, 200),
                        None => break,
                    }
                    // Only counts; nothing else is read because of it.
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    wait_for("the load runs", || answers.load(Ordering::Relaxed) >= 16);
    let start = Instant::now();
    service.terminate().unwrap();
    assert_eq!(answer(&mut long), Some((200, "done".into())));
    for thread in load {
        thread.join().unwrap();
    }
    let status = service.wait(LIMIT).unwrap();
    assert!(status.success(), "{status}");
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(TcpStream::connect(address).is_err(), "it still listens");
}

/// A connection that waits for a request holds a worker. There are more of them than many systems
/// have threads for blocking calls by default.
#[test]
fn thousands_of_idle_connections_leave_room_for_one_more() {
    const IDLE: usize = 4200;
    open_files::raise_limit().unwrap();
    let files = fs::read_to_string("/proc/self/limits").unwrap();
    let files: Option<usize> = files
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|limits| limits.split_whitespace().next()?.parse().ok());
    if files.is_some_and(|files| files < IDLE + 100) {
        eprintln!("SKIPPED: only {files:?} files may be open");
        return;
    }
    let (service, _folder) = start("umcg");
    let report = load::run(&Options {
        connections: 0,
        idle: IDLE,
        limit: LIMIT,
        ..Options::new(service.address())
    })
    .unwrap();
    let idle = report.idle.unwrap();
    assert_eq!(idle.connections, IDLE);
    // Much less than this on a machine without other work.
    assert!(idle.next_ms < 1000.0, "{idle:?}");
}

fn idle_connections_do_not_hold_up_the_end(on: &str) {
    let (service, _folder) = start(on);
    let mut idle: Vec<TcpStream> = (0..4).map(|_| connect(service.address())).collect();
    for stream in &mut idle {
        assert_eq!(ask(stream, &get("/notes/1")).0, 200);
    }
    // One of them has sent half a request.
    idle[0].write_all(b"GET /notes/1 HT").unwrap();
    service.stop().unwrap();
    assert_eq!(answer(&mut idle[1]), None);
}
