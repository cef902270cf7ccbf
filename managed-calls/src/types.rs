//! The types in the signatures, for the module in which [`define!`](crate::define) puts them.

pub use libc::{
    c_char, c_int, c_long, c_uint, c_void, clockid_t, epoll_event, fd_set, id_t, idtype_t, iovec,
    mmsghdr, mode_t, mqd_t, msghdr, nfds_t, off_t, pid_t, pollfd, posix_spawn_file_actions_t,
    posix_spawnattr_t, pthread_attr_t, pthread_barrier_t, pthread_cond_t, pthread_mutex_t,
    pthread_rwlock_t, pthread_t, rusage, sem_t, sembuf, siginfo_t, sigset_t, size_t, sockaddr,
    socklen_t, ssize_t, timespec, timeval, useconds_t,
};

pub use crate::process::Strings;
#[cfg(not(target_feature = "crt-static"))]
pub use crate::start::ThreadMain;
