//! Byte streams between two workers, with random calls, sizes, flags and signals: no byte is lost,
//! doubled or reordered.

mod common;

use std::{
    mem,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    sync::{
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use common::{Kind, Parker, handle, managed, outcome, pipe, set_option, set_timeout};
use libc::{c_int, c_void};
use proptest::prelude::*;

umcg_managed_calls::define!();

/// Between which descriptors the bytes go.
#[derive(Clone, Copy, Debug)]
enum Channel {
    Pipe,
    UnixStream,
    Tcp,
}

/// What kind of thread a side is.
#[derive(Clone, Copy, Debug)]
enum Side {
    Unmanaged,
    /// A worker that sleeps in its calls.
    Announcing,
    /// A worker that sleeps elsewhere where it may, and that is woken for nothing now and then.
    Parking,
}

impl Side {
    fn run<R>(self, f: impl FnOnce() -> R) -> R {
        match self {
            Self::Unmanaged => f(),
            Self::Announcing => managed(f).0,
            Self::Parking => Parker::new(|parks| parks % 3 == 0).run(f),
        }
    }
}

/// The four forms of a call that moves bytes.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// `recv` and `send`.
    Bytes,
    /// `read` and `write`.
    File,
    /// `readv` and `writev`.
    Parts,
    /// `recvmsg` and `sendmsg`.
    Message,
}

/// One call.
#[derive(Clone, Copy, Debug)]
struct Step {
    form: Form,
    size: usize,
    /// For the forms that take flags.
    flags: c_int,
}

/// One run. The steps of each side are repeated until all bytes were moved.
#[derive(Clone, Debug)]
struct Schedule {
    channel: Channel,
    sides: [Side; 2],
    sends: Vec<Step>,
    receives: Vec<Step>,
    /// How often all sends are made, if each of them is made in full.
    rounds: usize,
    /// The buffer of a sender's socket.
    buffer: c_int,
    /// Timeouts of a millisecond on both sides of a socket.
    timeouts: bool,
    /// Signals for both threads, with a handler that has `SA_RESTART` or has not.
    signals: Option<bool>,
}

fn step(flags: &'static [c_int]) -> impl Strategy<Value = Step> {
    let form = prop_oneof![
        4 => Just(Form::Bytes),
        1 => Just(Form::File),
        1 => Just(Form::Parts),
        2 => Just(Form::Message),
    ];
    let size = prop_oneof![1..16_usize, 1..5000_usize, 20_000..60_000_usize];
    (form, size, prop::sample::select(flags)).prop_map(|(form, size, flags)| Step {
        form,
        size,
        flags,
    })
}

fn schedule() -> impl Strategy<Value = Schedule> {
    let channel = prop::sample::select(&[Channel::Pipe, Channel::UnixStream, Channel::Tcp][..]);
    let side = || {
        prop_oneof![
            1 => Just(Side::Unmanaged),
            2 => Just(Side::Announcing),
            4 => Just(Side::Parking),
        ]
    };
    let sends = prop::collection::vec(step(&[0, 0, libc::MSG_DONTWAIT, libc::MSG_MORE]), 1..6);
    let receives = prop::collection::vec(
        step(&[
            0,
            0,
            0,
            libc::MSG_DONTWAIT,
            libc::MSG_PEEK,
            libc::MSG_WAITALL,
        ]),
        1..6,
    );
    (
        (channel, side(), side(), sends, receives),
        (
            1..8_usize,
            1_000..60_000,
            any::<bool>(),
            any::<Option<bool>>(),
        ),
    )
        .prop_map(
            |(
                (channel, sender, receiver, sends, receives),
                (rounds, buffer, timeouts, signals),
            )| {
                Schedule {
                    channel,
                    sides: [sender, receiver],
                    sends,
                    receives,
                    rounds,
                    buffer,
                    timeouts,
                    signals,
                }
            },
        )
}

/// The byte at each place of a stream.
fn byte(place: usize) -> u8 {
    (place.wrapping_mul(0x9e37_79b9) >> 13) as u8
}

/// The two parts in which a step passes its bytes.
fn parts(from: *mut c_void, count: usize) -> [libc::iovec; 2] {
    let first = count / 2;
    [
        libc::iovec {
            iov_base: from,
            iov_len: first,
        },
        libc::iovec {
            iov_base: from.wrapping_byte_add(first),
            iov_len: count - first,
        },
    ]
}

impl Step {
    fn sends(self, fd: RawFd, is_socket: bool, bytes: &[u8]) -> (i64, c_int) {
        let (from, count) = (bytes.as_ptr().cast::<c_void>(), bytes.len());
        let parts = parts(from.cast_mut(), count);
        let flags = self.flags | libc::MSG_NOSIGNAL;
        // SAFETY: readable bytes.
        outcome(unsafe {
            match self.form {
                Form::Bytes if is_socket => libc::send(fd, from, count, flags),
                Form::Message if is_socket => {
                    let mut message: libc::msghdr = mem::zeroed();
                    message.msg_iov = parts.as_ptr().cast_mut();
                    message.msg_iovlen = parts.len();
                    libc::sendmsg(fd, &raw const message, flags)
                }
                Form::Parts => libc::writev(fd, parts.as_ptr(), 2),
                _ => libc::write(fd, from, count),
            }
        } as i64)
    }

    fn receives(self, fd: RawFd, is_socket: bool, bytes: &mut [u8]) -> (i64, c_int) {
        let (to, count) = (bytes.as_mut_ptr().cast::<c_void>(), bytes.len());
        let mut parts = parts(to, count);
        // SAFETY: writable bytes.
        outcome(unsafe {
            match self.form {
                Form::Bytes if is_socket => libc::recv(fd, to, count, self.flags),
                Form::Message if is_socket => {
                    let mut message: libc::msghdr = mem::zeroed();
                    message.msg_iov = parts.as_mut_ptr();
                    message.msg_iovlen = parts.len();
                    libc::recvmsg(fd, &raw mut message, self.flags)
                }
                Form::Parts => libc::readv(fd, parts.as_ptr(), 2),
                _ => libc::read(fd, to, count),
            }
        } as i64)
    }

    /// Whether the call looks at the bytes without taking them.
    fn peeks(self, is_socket: bool) -> bool {
        let takes_flags = is_socket && matches!(self.form, Form::Bytes | Form::Message);
        takes_flags && self.flags & libc::MSG_PEEK != 0
    }
}

/// A call that moved nothing may be repeated, after others had their turn.
fn again(errno: c_int) {
    assert!(
        errno == libc::EAGAIN || errno == libc::EINTR,
        "{}",
        std::io::Error::from_raw_os_error(errno)
    );
    thread::yield_now();
}

impl Schedule {
    fn total(&self) -> usize {
        let once: usize = self.sends.iter().map(|step| step.size).sum();
        (once * self.rounds).min(200_000)
    }

    fn is_socket(&self) -> bool {
        !matches!(self.channel, Channel::Pipe)
    }

    /// The end of the sender and that of the receiver.
    fn open(&self) -> (OwnedFd, OwnedFd) {
        let (sender, receiver) = match self.channel {
            Channel::Pipe => {
                let (out, into) = pipe();
                return (into, out);
            }
            Channel::UnixStream => Kind::UnixStream.pair(),
            Channel::Tcp => Kind::Tcp.pair(),
        };
        set_option(&sender, libc::SO_SNDBUF, &self.buffer);
        if self.timeouts {
            set_timeout(&sender, libc::SO_SNDTIMEO, Duration::from_millis(1));
            set_timeout(&receiver, libc::SO_RCVTIMEO, Duration::from_millis(1));
        }
        (sender, receiver)
    }

    /// Sends all bytes, and then the end of the stream.
    fn send_all(&self, fd: OwnedFd, bytes: &[u8]) {
        let mut place = 0;
        for step in self.sends.iter().cycle() {
            if place == bytes.len() {
                return;
            }
            let end = bytes.len().min(place + step.size);
            match step.sends(fd.as_raw_fd(), self.is_socket(), &bytes[place..end]) {
                (sent @ 1.., _) => place += sent as usize,
                (0, _) => panic!("nothing was sent by {step:?}"),
                (_, errno) => again(errno),
            }
            assert!(place <= end, "more was sent than {step:?} had");
        }
    }

    /// Receives to the end of the stream, and demands that each byte is the next one.
    fn receive_all(&self, fd: OwnedFd, bytes: &[u8]) {
        // A step that takes something, for schedules that only peek.
        let taking = Step {
            form: Form::File,
            size: 1000,
            flags: 0,
        };
        let mut place = 0;
        let mut buffer = vec![0; 60_000];
        for step in self.receives.iter().chain([&taking]).cycle() {
            let into = &mut buffer[..step.size];
            let (count, errno) = step.receives(fd.as_raw_fd(), self.is_socket(), into);
            match count {
                0 => {
                    assert_eq!(place, bytes.len(), "the end came early");
                    return;
                }
                1.. => {
                    let end = place + count as usize;
                    assert!(end <= bytes.len(), "more came than was sent");
                    let got = &into[..count as usize];
                    assert!(
                        got == &bytes[place..end],
                        "{step:?} at {place}: other bytes"
                    );
                    if !step.peeks(self.is_socket()) {
                        place = end;
                    }
                }
                _ => again(errno),
            }
        }
    }

    fn run(&self) {
        let bytes: Vec<u8> = (0..self.total()).map(byte).collect();
        let (sender, receiver) = self.open();
        if let Some(restarts) = self.signals {
            handle(
                libc::SIGUSR1,
                ignore,
                if restarts { libc::SA_RESTART } else { 0 },
            );
        }
        let over = AtomicBool::new(false);
        let (tell, tids) = mpsc::channel();
        thread::scope(|scope| {
            // Each side owns its end, so the other one does not wait for it if it fails.
            let sides = [
                scope.spawn({
                    let (tell, bytes) = (tell.clone(), &bytes);
                    move || {
                        tell.send(gettid()).unwrap();
                        self.sides[0].run(|| self.send_all(sender, bytes));
                    }
                }),
                scope.spawn({
                    let bytes = &bytes;
                    move || {
                        tell.send(gettid()).unwrap();
                        self.sides[1].run(|| self.receive_all(receiver, bytes));
                    }
                }),
            ];
            if self.signals.is_some() {
                let over = &over;
                scope.spawn(move || {
                    let tids: Vec<c_int> = tids.iter().collect();
                    while !over.load(SeqCst) {
                        for tid in &tids {
                            // An error says that the thread has ended.
                            // SAFETY: no memory is passed.
                            unsafe {
                                libc::syscall(libc::SYS_tgkill, libc::getpid(), *tid, libc::SIGUSR1)
                            };
                        }
                        // The signals are rare beside the calls.
                        thread::sleep(Duration::from_micros(50));
                    }
                });
            }
            let results = sides.map(thread::ScopedJoinHandle::join);
            over.store(true, SeqCst);
            for result in results {
                if let Err(panic) = result {
                    std::panic::resume_unwind(panic);
                }
            }
        });
    }
}

extern "C" fn ignore(_signal: c_int) {}

fn gettid() -> c_int {
    // SAFETY: no arguments.
    unsafe { libc::gettid() }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    })]

    #[test]
    fn each_byte_arrives_once_and_in_order(schedule in schedule()) {
        schedule.run();
    }
}
