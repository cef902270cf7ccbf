//! The load against a little server that behaves in a given way.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use super::*;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Starts a server that runs `serve` for each connection, with the connection's number.
fn server(serve: impl Fn(usize, TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let (serve, stream) = (serve.clone(), stream.unwrap());
            thread::spawn(move || serve(number, stream));
        }
    });
    address
}

/// Reads one request. The load never sends two at a time. Returns false at the end of the stream.
fn read_request(stream: &mut TcpStream) -> bool {
    let mut request = Vec::new();
    let mut byte = [0; 1024];
    loop {
        match stream.read(&mut byte) {
            Ok(0) | Err(_) => return false,
            Ok(got) => request.extend_from_slice(&byte[..got]),
        }
        let text = String::from_utf8_lossy(&request);
        if text.ends_with("\r\n\r\n") || text.ends_with("20 letters") {
            return true;
        }
    }
}

fn answer_all(_: usize, mut stream: TcpStream) {
    while read_request(&mut stream) && stream.write_all(ANSWER).is_ok() {}
}

fn options(address: SocketAddr) -> Options {
    Options {
        connections: 4,
        duration: Duration::from_millis(300),
        warm_up: Duration::from_millis(50),
        limit: Duration::from_secs(10),
        ..Options::new(address)
    }
}

/// Returns the error of a load as text.
fn error(options: &Options) -> String {
    format!("{:#}", run(options).unwrap_err())
}

#[test]
fn the_closed_loop_sends_the_whole_mix() {
    let report = run(&Options {
        pid: Some(std::process::id()),
        ..options(server(answer_all))
    })
    .unwrap();
    let names: Vec<&str> = report.kinds.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["read", "slow", "insert"]);
    let parts: u64 = report.kinds.iter().map(|(_, kind)| kind.requests).sum();
    assert_eq!(report.all.requests, parts);
    assert!(report.all.rate > 0.0 && report.all.p50 <= report.all.max);
    let service = report.service.as_ref().unwrap();
    assert!(service.switches_per_request.unwrap() > 0.0 && service.threads > 0);
    // What a program prints and what another one reads are the same.
    let text = serde_json::to_string(&report).unwrap();
    let read: Report = serde_json::from_str(&text).unwrap();
    assert_eq!(format!("{read}"), format!("{report}"));
}

#[test]
fn the_open_loop_measures_exactly_the_requests_that_were_due() {
    let report = run(&Options {
        rate: Some(1000.0),
        ..options(server(answer_all))
    })
    .unwrap();
    assert_eq!(report.all.requests, 300);
    assert_eq!(report.unanswered, 0);
}

#[test]
fn a_stall_delays_all_requests_that_are_due_meanwhile() {
    // The only connection stalls for 200 ms before its tenth answer.
    let address = server(|_, mut stream| {
        for number in 0.. {
            if !read_request(&mut stream) {
                break;
            }
            if number == 10 {
                thread::sleep(Duration::from_millis(200));
            }
            if stream.write_all(ANSWER).is_err() {
                break;
            }
        }
    });
    let report = run(&Options {
        connections: 1,
        rate: Some(1000.0),
        warm_up: Duration::ZERO,
        duration: Duration::from_millis(400),
        ..options(address)
    })
    .unwrap();
    assert_eq!(report.all.requests, 400);
    // At least the 200 requests of the stall were delayed, the mean of them by 100 ms. A load that
    // counts from the time of sending sees one slow request.
    assert!(report.all.p90 > 50.0, "{report}");
}

#[test]
fn a_rate_that_is_too_high_is_reported_and_ends() {
    let address = server(|_, mut stream| {
        while read_request(&mut stream) {
            thread::sleep(Duration::from_millis(20));
            if stream.write_all(ANSWER).is_err() {
                break;
            }
        }
    });
    let report = run(&Options {
        connections: 1,
        rate: Some(2000.0),
        warm_up: Duration::ZERO,
        duration: Duration::from_millis(200),
        limit: Duration::from_secs(1),
        ..options(address)
    })
    .unwrap();
    assert_eq!(report.all.requests, 400);
    assert!(report.unanswered > 300, "{report}");
    assert!(report.all.max >= 1000.0, "{report}");
}

#[test]
fn each_request_has_a_new_connection_if_asked_for() {
    // Serves one request per connection, and then expects the end of the stream.
    let address = server(|_, mut stream| {
        assert!(read_request(&mut stream));
        stream.write_all(ANSWER).unwrap();
        if read_request(&mut stream) {
            // A second request: this answer is invalid, and fails the test.
            stream.write_all(b"second request\r\n\r\n").unwrap();
        }
    });
    let report = run(&Options {
        new: true,
        ..options(address)
    })
    .unwrap();
    assert!(report.all.requests > 4);
}

#[test]
fn burners_are_apart_from_the_mix() {
    let report = run(&Options {
        burners: 2,
        mix: "1,0,0".parse().unwrap(),
        ..options(server(answer_all))
    })
    .unwrap();
    let names: Vec<&str> = report.kinds.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["read", "burn"]);
    assert_eq!(report.all.requests, report.kinds[0].1.requests);
}

#[test]
fn idle_connections_are_opened_and_one_more() {
    let report = run(&Options {
        idle: 100,
        pid: Some(std::process::id()),
        ..options(server(answer_all))
    })
    .unwrap();
    let idle = report.idle.unwrap();
    assert_eq!(idle.connections, 100);
    assert!(idle.ramp_seconds > 0.0 && idle.next_ms > 0.0 && idle.memory_mib.is_some());
    assert!(report.all.requests > 0);
}

#[test]
fn a_service_that_serves_too_few_idle_connections_is_an_error() {
    let address = server(|number, stream| {
        if number < 50 {
            answer_all(number, stream);
        } else {
            loop {
                thread::park();
            }
        }
    });
    let error = error(&Options {
        idle: 100,
        limit: Duration::from_millis(500),
        ..options(address)
    });
    assert!(
        error.contains("idle connections: connection number 51: no answer within"),
        "{error}"
    );
}

#[test]
fn a_service_that_closes_is_an_error() {
    let error = error(&options(server(|_, mut stream| {
        read_request(&mut stream);
    })));
    assert!(error.contains("connection number"), "{error}");
    assert!(error.contains("the service closed it"), "{error}");
}

#[test]
fn garbage_is_an_error() {
    let error = error(&options(server(|_, mut stream| {
        read_request(&mut stream);
        stream.write_all(b"garbage\r\n\r\n").unwrap();
        read_request(&mut stream);
    })));
    assert!(error.contains("is invalid"), "{error}");
}

#[test]
fn more_than_an_answer_is_an_error() {
    let error = error(&options(server(|_, mut stream| {
        read_request(&mut stream);
        stream.write_all(&[ANSWER, ANSWER].concat()).unwrap();
        read_request(&mut stream);
    })));
    assert!(error.contains("more than an answer"), "{error}");
}

#[test]
fn a_service_that_does_not_answer_is_an_error_after_the_limit() {
    let error = error(&Options {
        limit: Duration::from_millis(300),
        ..options(server(|_, _stream| {
            loop {
                thread::park();
            }
        }))
    });
    assert!(error.contains("no answer within 300ms"), "{error}");
}

#[test]
fn no_service_is_an_error() {
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let error = error(&options(address));
    assert!(error.contains("cannot connect"), "{error}");
}

#[test]
fn a_mix_is_three_numbers() {
    assert_eq!("45,45,10".parse::<Mix>().unwrap(), Mix::default());
    for wrong in [
        "",
        "1",
        "1,2",
        "1,2,3,4",
        "0,0,0",
        "1,-1,3",
        "a,b,c",
        "4294967295,4294967295,1",
    ] {
        assert!(wrong.parse::<Mix>().is_err(), "{wrong:?}");
    }
}
