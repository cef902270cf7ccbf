//! Descriptors that are closed, replaced and reused while workers wait for them.
//!
//! The kernel's `recv` keeps its file: it goes on to wait for the old connection, whatever becomes
//! of the number. So every connection carries its own tag here, and no reader gets another's.

use std::{
    io::Write,
    os::{
        fd::{AsRawFd, FromRawFd, IntoRawFd, RawFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use umcg::{Handle, JoinHandle, Runtime};
use umcg_tests::{
    eventually, isolated,
    runtime::{SERVERS, runtime_with},
};

use crate::support::{Tid, yield_cpu};

/// What happens to the descriptor while a worker waits for it.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Closed. Its number is free for others.
    Close,
    /// Closed, while another descriptor of the same file stays open.
    CloseDuplicated,
    /// Replaced by `dup2` or `dup3` with another connection.
    Dup2,
    Dup3,
    /// Closed by its range.
    CloseRange,
    /// Left alone.
    Nothing,
}

const FATES: [Fate; 6] = [
    Fate::Close,
    Fate::CloseDuplicated,
    Fate::Dup2,
    Fate::Dup3,
    Fate::CloseRange,
    Fate::Nothing,
];

/// `recv` of one tag by the number alone, as C has it.
fn receive_tag(fd: RawFd) -> u64 {
    let mut tag = [0_u8; 8];
    // SAFETY: room for eight bytes.
    let received = unsafe { libc::recv(fd, tag.as_mut_ptr().cast(), tag.len(), 0) };
    assert_eq!(received, 8, "{}", std::io::Error::last_os_error());
    u64::from_le_bytes(tag)
}

/// A connection of which one end is a number.
fn connection() -> (RawFd, UnixStream) {
    let (here, there) = UnixStream::pair().expect("a socket pair");
    (here.into_raw_fd(), there)
}

fn close(fd: RawFd) {
    // SAFETY: the caller's own.
    assert_eq!(unsafe { libc::close(fd) }, 0);
}

/// A worker waits for a connection while its descriptor has this fate. Then each connection gets
/// its tag, and each reader has to get its own.
fn round(handle: &Handle, fate: Fate, tag: u64) {
    let (fd, mut peer) = connection();
    let (tid, (sender, receiver)) = (Tid::default(), mpsc::channel());
    let tells = tid.clone();
    let reader = handle.spawn_blocking(move || {
        tells.tell();
        sender.send(receive_tag(fd)).expect("somebody waits");
    });
    eventually("the reader waits for its connection", || tid.asleep());
    // Who else has the number afterwards, and what is sent there.
    let mut other = None;
    let mut duplicate = None;
    // SAFETY: descriptors of this round.
    unsafe {
        match fate {
            Fate::Nothing => {}
            Fate::Close => close(fd),
            Fate::CloseDuplicated => {
                duplicate = Some(libc::dup(fd));
                close(fd);
            }
            Fate::CloseRange => {
                let (first, last) = (fd as u32, fd as u32);
                assert_eq!(libc::close_range(first, last, 0), 0);
            }
            Fate::Dup2 | Fate::Dup3 => {
                let (new, peer) = connection();
                let result = match fate {
                    Fate::Dup2 => libc::dup2(new, fd),
                    _ => libc::dup3(new, fd, libc::O_CLOEXEC),
                };
                assert_eq!(result, fd);
                close(new);
                other = Some((fd, peer));
            }
        }
    }
    // It takes the lowest number that is free, which may be the one that was closed.
    let (next, mut next_peer) = connection();
    next_peer
        .write_all(&(tag + 1).to_le_bytes())
        .expect("a connection");
    if let Some((_, peer)) = &mut other {
        peer.write_all(&(tag + 2).to_le_bytes())
            .expect("a connection");
    }
    let sent = peer.write_all(&tag.to_le_bytes());
    assert!(
        sent.is_ok(),
        "{fate:?}: the reader's connection is gone: {sent:?}"
    );
    assert_eq!(receiver.recv().expect("a tag"), tag, "{fate:?}");
    reader.join().expect("the reader");
    // Nobody has read what was for others.
    assert_eq!(receive_tag(next), tag + 1, "{fate:?}");
    close(next);
    if let Some((fd, _)) = other {
        assert_eq!(receive_tag(fd), tag + 2, "{fate:?}");
        close(fd);
    }
    match (fate, duplicate) {
        (_, Some(duplicate)) => close(duplicate),
        (Fate::Nothing, _) => close(fd),
        _ => {}
    }
}

/// Tasks that always want the slot, so that a worker which waits gives its own away.
fn others(runtime: &Runtime, stop: &Arc<AtomicBool>) -> Vec<JoinHandle<()>> {
    (0..3)
        .map(|_| {
            let stop = Arc::clone(stop);
            runtime.spawn_blocking(move || {
                while !stop.load(SeqCst) {
                    yield_cpu();
                    umcg::thread::yield_now();
                }
            })
        })
        .collect()
}

#[test]
fn no_byte_reaches_another_reader_when_descriptors_are_closed_and_reused() {
    let seconds = std::env::var("UMCG_STRESS_SECONDS").map_or(3, |text| {
        text.parse().expect("UMCG_STRESS_SECONDS is a number")
    });
    isolated(seconds + 60, || {
        let end = Instant::now() + Duration::from_secs(seconds);
        let tags = Arc::new(AtomicU64::new(0));
        let mut first = true;
        while first || Instant::now() < end {
            for servers in SERVERS {
                let runtime = runtime_with(servers);
                let stop = Arc::new(AtomicBool::new(false));
                let others = others(&runtime, &stop);
                // Rounds by ordinary threads and by tasks, side by side: they take each other's
                // numbers.
                let drivers: Vec<_> = (0..3)
                    .map(|me| {
                        let (handle, tags) = (runtime.handle().clone(), Arc::clone(&tags));
                        thread::spawn(move || {
                            for k in 0..24 {
                                let fate = FATES[(me + k) % FATES.len()];
                                let tag = tags.fetch_add(10, SeqCst);
                                let theirs = handle.clone();
                                if k % 3 == 0 {
                                    let task =
                                        handle.spawn_blocking(move || round(&theirs, fate, tag));
                                    task.join().expect("a round");
                                } else {
                                    round(&theirs, fate, tag);
                                }
                            }
                        })
                    })
                    .collect();
                for driver in drivers {
                    driver.join().expect("its rounds");
                }
                stop.store(true, SeqCst);
                for other in others {
                    other.join().expect("it ends");
                }
            }
            first = false;
        }
        println!("{} rounds", tags.load(SeqCst) / 10);
    });
}

/// The other end of the connection, and the end of it, reach a reader whose descriptor was closed.
#[test]
fn a_reader_whose_descriptor_was_closed_sees_the_end_of_its_connection() {
    isolated(60, || {
        for servers in SERVERS {
            let runtime = runtime_with(servers);
            let stop = Arc::new(AtomicBool::new(false));
            let others = others(&runtime, &stop);
            let (fd, peer) = connection();
            let tid = Tid::default();
            let tells = tid.clone();
            let reader = runtime.spawn_blocking(move || {
                tells.tell();
                let mut byte = 0_u8;
                // SAFETY: room for one byte.
                unsafe { libc::recv(fd, (&raw mut byte).cast(), 1, 0) }
            });
            eventually("the reader waits for its connection", || tid.asleep());
            close(fd);
            // SAFETY: a new descriptor, nobody else's.
            let reused = unsafe { UnixStream::from_raw_fd(connection().0) };
            drop(peer);
            assert_eq!(reader.join().expect("the reader"), 0);
            assert!(reused.as_raw_fd() >= 0);
            stop.store(true, SeqCst);
            for other in others {
                other.join().expect("it ends");
            }
        }
    });
}
