//! The calls of `/dev/umcg`, one function each: `kernel/umcg_uapi.h` in Rust.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::AsRawFd,
};

/// The version of the interface that this library implements.
pub(super) const ABI_VERSION: u32 = 0;

/// `struct umcg_register` of the header.
#[repr(C)]
struct RegisterArg {
    this: u64,
    flags: u32,
    pad: u32,
}

/// `struct umcg_wait` of the header.
#[repr(C)]
struct WaitArg {
    deadline_ns: u64,
    flags: u32,
    pad: u32,
}

/// `struct umcg_stat` of the header: the counters of a server, and of the process's group.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Stat {
    tid: u32,
    live: u32,
    pub(super) dispatches: u64,
    pub(super) blocks: u64,
    pub(super) preempted: u64,
    pub(super) longest_block_ns: u64,
    gates: u64,
    requeues: u64,
    user_returns: u64,
    deferred: u64,
}

const WRITE: u32 = 1;
const READ: u32 = 2;

/// `_IOC` of asm-generic/ioctl.h, which x86-64 and aarch64 use.
const fn request(direction: u32, number: u32, size: usize) -> libc::Ioctl {
    (direction << 30 | (size as u32) << 16 | (b'U' as u32) << 8 | number) as libc::Ioctl
}

const REGISTER: libc::Ioctl = request(WRITE, 1, size_of::<RegisterArg>());
const UNREGISTER: libc::Ioctl = request(WRITE, 2, size_of::<u64>());
const WAIT: libc::Ioctl = request(WRITE, 3, size_of::<WaitArg>());
const PREEMPT: libc::Ioctl = request(WRITE, 4, size_of::<u32>());
const CURRENT: libc::Ioctl = request(READ | WRITE, 5, size_of::<u32>());
const STAT: libc::Ioctl = request(READ | WRITE, 6, size_of::<Stat>());
const VERSION: libc::Ioctl = request(READ, 7, size_of::<u32>());
const CHECK: libc::Ioctl = request(0, 8, 0);

/// The open device file.
#[derive(Debug)]
pub(super) struct Node(File);

impl Node {
    /// Opens the device. The file is closed on exec.
    pub(super) fn open() -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(super::PATH)?;
        Ok(Self(file))
    }

    /// Makes one call and returns the errno if it fails. Repeats a call that a signal interrupted.
    fn call<T>(&self, request: libc::Ioctl, argument: *mut T) -> Result<(), i32> {
        loop {
            // SAFETY: `argument` is of the type that `request` takes: each caller below pairs the
            // two, and `Node` is open on the device that defines the requests.
            let result = unsafe { libc::ioctl(self.0.as_raw_fd(), request, argument) };
            if result >= 0 {
                return Ok(());
            }
            // SAFETY: a read of the calling thread's own errno.
            match unsafe { *libc::__errno_location() } {
                libc::EINTR => {}
                errno => return Err(errno),
            }
        }
    }

    pub(super) fn version(&self) -> Result<u32, i32> {
        let mut version = u32::MAX;
        self.call(VERSION, &raw mut version).map(|()| version)
    }

    /// Registers the calling thread. From here on the kernel reads and writes the task at
    /// `address`.
    ///
    /// # Safety
    /// The task stays valid until `unregister` has returned or the thread has ended.
    pub(super) unsafe fn register(&self, address: u64, flags: u32) -> Result<(), i32> {
        let mut argument = RegisterArg {
            this: address,
            flags,
            pad: 0,
        };
        self.call(REGISTER, &raw mut argument)
    }

    pub(super) fn unregister(&self, address: u64) -> Result<(), i32> {
        let mut argument = address;
        self.call(UNREGISTER, &raw mut argument)
    }

    pub(super) fn wait(&self, deadline_ns: u64, flags: u32) -> Result<(), i32> {
        let mut argument = WaitArg {
            deadline_ns,
            flags,
            pad: 0,
        };
        self.call(WAIT, &raw mut argument)
    }

    pub(super) fn preempt(&self, tid: u32) -> Result<(), i32> {
        let mut argument = tid;
        self.call(PREEMPT, &raw mut argument)
    }

    pub(super) fn current(&self, server_tid: u32) -> Result<u32, i32> {
        let mut argument = server_tid;
        self.call(CURRENT, &raw mut argument).map(|()| argument)
    }

    pub(super) fn stat(&self, server_tid: u32) -> Result<Stat, i32> {
        let mut stat = Stat {
            tid: server_tid,
            ..Stat::default()
        };
        self.call(STAT, &raw mut stat).map(|()| stat)
    }

    /// Fails if the calling thread is not registered, or is a worker whose server is gone.
    pub(super) fn check(&self) -> Result<(), i32> {
        self.call::<u8>(CHECK, core::ptr::null_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_those_of_the_header() {
        // The values that gcc computes from kernel/umcg_uapi.h on x86-64.
        assert_eq!(REGISTER as u32, 0x4010_5501);
        assert_eq!(UNREGISTER as u32, 0x4008_5502);
        assert_eq!(WAIT as u32, 0x4010_5503);
        assert_eq!(PREEMPT as u32, 0x4004_5504);
        assert_eq!(CURRENT as u32, 0xc004_5505);
        assert_eq!(STAT as u32, 0xc048_5506);
        assert_eq!(VERSION as u32, 0x8004_5507);
        assert_eq!(CHECK as u32, 0x5508);
    }
}
