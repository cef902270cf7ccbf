//! Tasks that communicate by the kernel: socket pairs, an echo server, name look-ups.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, ToSocketAddrs},
    os::unix::net::UnixStream,
};

use crate::{
    clock::Clock,
    report::Row,
    runner::{Effort, Group},
    system::{System, Systems, Tokio},
};

pub(super) fn run(systems: &Systems, effort: &Effort) -> Vec<Row> {
    [
        pairs(systems, effort),
        echo(systems, effort),
        names(systems, effort),
    ]
    .into_iter()
    .flat_map(|group| group.run(effort))
    .collect()
}

fn threads<S: System>(_: &'static S) -> &'static str {
    S::THREADS
}

/// Waits for all these tasks.
fn all<S: System>(system: &'static S, tasks: Vec<S::Task<()>>) {
    system.block_on(async {
        for task in tasks {
            task.await;
        }
    });
}

/// Blocking ping-pong on socket pairs. tokio and async-io use their own sockets, which wait by
/// epoll.
fn pairs(systems: &Systems, effort: &Effort) -> Group<'static> {
    const PAIRS: usize = 50;
    let pings: usize = effort.pick(200, 50);

    fn play(mut stream: UnixStream, pings: usize, first: bool) {
        let mut byte = [0];
        for _ in 0..pings {
            if first {
                stream.write_all(&byte).expect("a partner");
            }
            stream.read_exact(&mut byte).expect("a partner");
            if !first {
                stream.write_all(&byte).expect("a partner");
            }
        }
    }
    let mut group = Group::new(
        "socket_pairs",
        format!("{PAIRS} socket pairs, {pings} pings each, one way"),
        "message",
        (2 * PAIRS * pings) as u64,
    );
    macro_rules! blocking {
        ($s:expr, $name:expr, $spawn:ident, $wrap:expr) => {{
            let s = $s;
            group.cell($name, threads(s), move |clock: &mut Clock| {
                clock.time(|| {
                    let mut tasks = Vec::with_capacity(2 * PAIRS);
                    for _ in 0..PAIRS {
                        let (a, b) = UnixStream::pair().expect("sockets");
                        tasks.push(s.$spawn($wrap(move || play(a, pings, true))));
                        tasks.push(s.$spawn($wrap(move || play(b, pings, false))));
                    }
                    all(s, tasks);
                });
            });
        }};
    }
    // Makes the closure a future that blocks. Systems of closures take the closure itself.
    async fn future(f: impl FnOnce() + Send + 'static) {
        f();
    }
    blocking!(systems.umcg, "umcg", spawn, future);
    blocking!(
        systems.std_threads,
        "std threads",
        spawn_blocking,
        std::convert::identity
    );
    blocking!(
        systems.threadpool,
        "threadpool(512)",
        spawn_blocking,
        std::convert::identity
    );
    blocking!(
        systems.tokio,
        "tokio spawn_blocking",
        spawn_blocking,
        std::convert::identity
    );

    let tokio = systems.tokio;
    group.cell("tokio::net", Tokio::THREADS, move |clock| {
        use tokio::{
            io::{AsyncReadExt, AsyncWriteExt},
            net::UnixStream,
        };
        async fn play(mut stream: UnixStream, pings: usize, first: bool) {
            let mut byte = [0];
            for _ in 0..pings {
                if first {
                    stream.write_all(&byte).await.expect("a partner");
                }
                stream.read_exact(&mut byte).await.expect("a partner");
                if !first {
                    stream.write_all(&byte).await.expect("a partner");
                }
            }
        }
        clock.time(|| {
            let _entered = tokio.runtime().enter();
            let mut tasks = Vec::with_capacity(2 * PAIRS);
            for _ in 0..PAIRS {
                let (a, b) = UnixStream::pair().expect("sockets");
                tasks.push(tokio.spawn(play(a, pings, true)));
                tasks.push(tokio.spawn(play(b, pings, false)));
            }
            all(tokio, tasks);
        });
    });
    let smol = systems.async_executor;
    group.cell("async-io", threads(smol), move |clock: &mut Clock| {
        use async_io::Async;
        use futures_lite::{AsyncReadExt, AsyncWriteExt};
        async fn play(mut stream: Async<UnixStream>, pings: usize, first: bool) {
            let mut byte = [0];
            for _ in 0..pings {
                if first {
                    stream.write_all(&byte).await.expect("a partner");
                }
                stream.read_exact(&mut byte).await.expect("a partner");
                if !first {
                    stream.write_all(&byte).await.expect("a partner");
                }
            }
        }
        clock.time(|| {
            let mut tasks = Vec::with_capacity(2 * PAIRS);
            for _ in 0..PAIRS {
                let (a, b) = Async::<UnixStream>::pair().expect("sockets");
                tasks.push(smol.spawn(play(a, pings, true)));
                tasks.push(smol.spawn(play(b, pings, false)));
            }
            all(smol, tasks);
        });
    });
    group
}

/// A TCP server on the loopback interface that echoes 64 bytes, with a blocking task for each
/// connection, or with tokio's sockets. The clients are the same plain threads for all systems.
fn echo(systems: &Systems, effort: &Effort) -> Group<'static> {
    const CLIENTS: usize = 16;
    const SIZE: usize = 64;
    let requests: usize = effort.pick(300, 100);

    fn clients(listener: &TcpListener, requests: usize) -> Vec<std::thread::JoinHandle<()>> {
        let address = listener.local_addr().expect("an address");
        (0..CLIENTS)
            .map(|_| {
                std::thread::spawn(move || {
                    let mut stream = TcpStream::connect(address).expect("the server");
                    stream.set_nodelay(true).expect("a socket");
                    let mut buffer = [7; SIZE];
                    for _ in 0..requests {
                        stream.write_all(&buffer).expect("the server");
                        stream.read_exact(&mut buffer).expect("the server");
                    }
                })
            })
            .collect()
    }
    fn serve(mut stream: TcpStream) {
        stream.set_nodelay(true).expect("a socket");
        let mut buffer = [0; SIZE];
        while stream.read_exact(&mut buffer).is_ok() {
            if stream.write_all(&buffer).is_err() {
                break;
            }
        }
    }
    let mut group = Group::new(
        "tcp_echo",
        format!("TCP echo, {CLIENTS} clients on plain threads, {requests} requests each"),
        "request",
        (CLIENTS * requests) as u64,
    );
    macro_rules! blocking {
        ($s:expr, $name:expr, $spawn:ident, $stream:ident => $job:expr) => {{
            let s = $s;
            group.cell($name, threads(s), move |clock: &mut Clock| {
                let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
                clock.time(|| {
                    let clients = clients(&listener, requests);
                    let tasks: Vec<_> = (0..CLIENTS)
                        .map(|_| {
                            let ($stream, _) = listener.accept().expect("a client");
                            s.$spawn($job)
                        })
                        .collect();
                    all(s, tasks);
                    for client in clients {
                        client.join().expect("a client");
                    }
                });
            });
        }};
    }
    blocking!(systems.umcg, "umcg", spawn, stream => async move { serve(stream) });
    blocking!(systems.std_threads, "std threads", spawn_blocking, stream => move || serve(stream));
    blocking!(systems.threadpool, "threadpool(512)", spawn_blocking, stream => move || serve(stream));
    let tokio = systems.tokio;
    group.cell("tokio::net", Tokio::THREADS, move |clock| {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        clock.time(|| {
            let _entered = tokio.runtime().enter();
            let clients = clients(&listener, requests);
            let tasks: Vec<_> = (0..CLIENTS)
                .map(|_| {
                    let (stream, _) = listener.accept().expect("a client");
                    stream.set_nodelay(true).expect("a socket");
                    stream.set_nonblocking(true).expect("a socket");
                    let mut stream = tokio::net::TcpStream::from_std(stream).expect("a socket");
                    tokio.spawn(async move {
                        let mut buffer = [0; SIZE];
                        while stream.read_exact(&mut buffer).await.is_ok() {
                            if stream.write_all(&buffer).await.is_err() {
                                break;
                            }
                        }
                    })
                })
                .collect();
            all(tokio, tasks);
            for client in clients {
                client.join().expect("a client");
            }
        });
    });
    group
}

/// `getaddrinfo` of localhost, which uses no network, but a library that reads files and may block.
fn names(systems: &Systems, effort: &Effort) -> Group<'static> {
    let count = effort.pick(1000, 200);
    fn resolve() {
        let mut found = ("localhost", 80).to_socket_addrs().expect("localhost");
        assert!(found.next().is_some());
    }
    let mut group = Group::new(
        "dns",
        format!("{count} look-ups of localhost, in a task each"),
        "lookup",
        count as u64,
    );
    macro_rules! cell {
        ($s:expr, $name:expr, $spawn:ident, $job:expr) => {{
            let s = $s;
            group.cell($name, threads(s), move |clock: &mut Clock| {
                clock.time(|| {
                    let tasks: Vec<_> = (0..count).map(|_| s.$spawn($job)).collect();
                    all(s, tasks);
                });
            });
        }};
    }
    cell!(systems.umcg, "umcg", spawn, async { resolve() });
    cell!(systems.tokio, "tokio::net::lookup_host", spawn, async {
        let mut found = tokio::net::lookup_host(("localhost", 80))
            .await
            .expect("localhost");
        assert!(found.next().is_some());
    });
    cell!(systems.tokio, "tokio, std::net", spawn, async { resolve() });
    cell!(
        systems.async_executor,
        "async-executor unblock",
        spawn_blocking,
        resolve
    );
    cell!(
        systems.threadpool,
        "threadpool(512)",
        spawn_blocking,
        resolve
    );
    group.cell("std thread", "std-dns", move |clock| {
        clock.time(|| (0..count).for_each(|_| resolve()));
    });
    group
}
