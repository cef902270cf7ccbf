//! Files in async tasks (target P1).
//!
//! The cells of umcg call `std::fs` in the task, and so do those whose name says so.

use std::{
    fs::{self, File},
    future::Future,
    io::{self, Read, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    pin::Pin,
};

use crate::{
    clock::Clock,
    report::Row,
    runner::{Effort, Group},
    system::{System, Systems, Tokio, Umcg},
};

const PAGE: usize = 4096;

pub(super) fn run(systems: &Systems, effort: &Effort) -> Vec<Row> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut groups = vec![
        warm(systems, folder.path()),
        zero(systems),
        cold(systems, folder.path(), effort),
        fsync(systems, folder.path()),
        walk(systems, folder.path(), effort),
    ];
    groups
        .drain(..)
        .flat_map(|group| group.run(effort))
        .collect()
}

fn threads<S: System>(_: &'static S) -> &'static str {
    S::THREADS
}

/// Leaks the path, so that no cell has to count references to it.
fn leak(path: PathBuf) -> &'static Path {
    Box::leak(path.into_boxed_path())
}

/// Runs a future on a worker and waits for it.
fn on_worker<S: System, F>(system: &'static S, future: F) -> F::Output
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    system.block_on(async { system.spawn(future).await })
}

/// P1: reads a file of 4 KiB that is in the page cache, again and again.
pub(super) fn warm(systems: &Systems, folder: &Path) -> Group<'static> {
    const READS: u64 = 2000;
    let file = leak(folder.join("warm"));
    fs::write(file, [7; PAGE]).expect("a file");
    fn read_all(file: &Path) {
        for _ in 0..READS {
            assert_eq!(fs::read(file).expect("the file").len(), PAGE);
        }
    }
    let mut group = Group::new("read_4k", "read a warm file of 4 KiB", "read", READS);
    group.cell("std thread", "std-read", move |clock| {
        clock.time(|| {
            std::thread::spawn(move || read_all(file))
                .join()
                .expect("the thread");
        });
    });
    let umcg = systems.umcg;
    group.cell("umcg", Umcg::THREADS, move |clock| {
        clock.time(|| on_worker(umcg, async move { read_all(file) }));
    });
    let tokio = systems.tokio;
    group.cell("tokio, std::fs", Tokio::THREADS, move |clock| {
        clock.time(|| on_worker(tokio, async move { read_all(file) }));
    });
    group.cell("tokio::fs", Tokio::THREADS, move |clock| {
        clock.time(|| {
            on_worker(tokio, async move {
                for _ in 0..READS {
                    let text = tokio::fs::read(file).await.expect("the file");
                    assert_eq!(text.len(), PAGE);
                }
            });
        });
    });
    group.cell("tokio block_in_place", Tokio::THREADS, move |clock| {
        clock.time(|| {
            on_worker(tokio, async move {
                for _ in 0..READS {
                    let text = tokio::task::block_in_place(|| fs::read(file));
                    assert_eq!(text.expect("the file").len(), PAGE);
                }
            });
        });
    });
    let smol = systems.async_executor;
    group.cell("async-fs", threads(smol), move |clock: &mut Clock| {
        clock.time(|| {
            on_worker(smol, async move {
                for _ in 0..READS {
                    let text = async_fs::read(file).await.expect("the file");
                    assert_eq!(text.len(), PAGE);
                }
            });
        });
    });
    group
}

/// tokio's `fs.rs`: reads 4 KiB of `/dev/zero` 1000 times.
fn zero(systems: &Systems) -> Group<'static> {
    const BLOCKS: u64 = 1000;
    const DEV_ZERO: &str = "/dev/zero";
    fn read_all() {
        let mut file = File::open(DEV_ZERO).expect("the device");
        let mut buffer = [0; PAGE];
        for _ in 0..BLOCKS {
            file.read_exact(&mut buffer).expect("the device");
        }
    }
    let mut group = Group::new(
        "read_zero",
        "4 KiB of /dev/zero (tokio's fs)",
        "read",
        BLOCKS,
    );
    group.cell("std thread", "std-read", |clock| {
        clock.time(read_all);
    });
    let umcg = systems.umcg;
    group.cell("umcg", Umcg::THREADS, move |clock| {
        clock.time(|| on_worker(umcg, async { read_all() }));
    });
    let tokio = systems.tokio;
    group.cell("tokio::fs", Tokio::THREADS, move |clock| {
        clock.time(|| {
            tokio.block_on(async {
                use tokio::io::AsyncReadExt;
                let mut file = tokio::fs::File::open(DEV_ZERO).await.expect("the device");
                let mut buffer = [0; PAGE];
                for _ in 0..BLOCKS {
                    if file.read(&mut buffer).await.expect("the device") == 0 {
                        break;
                    }
                }
            });
        });
    });
    group.cell("tokio block_in_place", Tokio::THREADS, move |clock| {
        clock.time(|| {
            tokio.block_on(async {
                let mut file =
                    tokio::task::block_in_place(|| File::open(DEV_ZERO).expect("the device"));
                for _ in 0..BLOCKS {
                    let mut buffer = [0; PAGE];
                    tokio::task::block_in_place(|| {
                        file.read_exact(&mut buffer).expect("the device");
                    });
                }
            });
        });
    });
    group
}

/// Drops the clean pages of a file from the page cache.
pub(super) fn forget(file: &File) {
    // SAFETY: the call takes an open descriptor and no memory.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}

/// Makes a file and writes it to the disk, so that its pages are clean.
pub(super) fn written(path: &Path, size: usize) -> io::Result<File> {
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    let block: Vec<u8> = (0..PAGE).map(|i| i as u8).collect();
    for _ in 0..size / PAGE {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    Ok(file)
}

/// Reads files that are not in the page cache, in a task each. The folder has to be on a disk.
fn cold(systems: &Systems, folder: &Path, effort: &Effort) -> Group<'static> {
    const SIZE: usize = 64 << 10;
    let count = effort.pick(256, 64);
    let files: Vec<PathBuf> = (0..count)
        .map(|i| {
            let path = folder.join(format!("cold-{i}"));
            written(&path, SIZE).expect("a file");
            path
        })
        .collect();
    let files: &'static [PathBuf] = files.leak();
    let forget_all = move || {
        for path in files {
            forget(&File::open(path).expect("the file"));
        }
    };
    let read = |path: &'static PathBuf| {
        assert_eq!(fs::read(path).expect("the file").len(), SIZE);
    };
    let mut group = Group::new(
        "read_cold",
        format!("read {count} cold files of 64 KiB, a task each"),
        "file",
        count as u64,
    );
    macro_rules! direct {
        ($s:expr, $name:expr, $spawn:ident, $path:ident => $job:expr) => {{
            let s = $s;
            group.cell($name, threads(s), move |clock: &mut Clock| {
                forget_all();
                clock.time(|| {
                    s.block_on(async {
                        let tasks: Vec<_> = files.iter().map(|$path| s.$spawn($job)).collect();
                        for task in tasks {
                            task.await;
                        }
                    });
                });
            });
        }};
    }
    direct!(systems.umcg, "umcg", spawn, path => async move { read(path) });
    direct!(systems.tokio, "tokio, std::fs", spawn, path => async move { read(path) });
    direct!(systems.tokio, "tokio::fs", spawn, path => async move {
        assert_eq!(tokio::fs::read(path).await.expect("the file").len(), SIZE);
    });
    direct!(systems.async_executor, "async-fs", spawn, path => async move {
        assert_eq!(async_fs::read(path).await.expect("the file").len(), SIZE);
    });
    direct!(systems.threadpool, "threadpool(512)", spawn_blocking, path => move || read(path));
    group.cell("std thread", "std-read", move |clock| {
        forget_all();
        clock.time(|| files.iter().for_each(read));
    });
    group
}

/// Writes and syncs 64 files of 4 KiB, in a task each.
fn fsync(systems: &Systems, folder: &Path) -> Group<'static> {
    const FILES: usize = 64;
    let paths: Vec<PathBuf> = (0..FILES)
        .map(|i| folder.join(format!("sync-{i}")))
        .collect();
    let paths: &'static [PathBuf] = paths.leak();
    let write = |path: &'static PathBuf| {
        let mut file = File::create(path).expect("a file");
        file.write_all(&[7; PAGE]).expect("a disk with room");
        file.sync_all().expect("a disk");
    };
    let mut group = Group::new(
        "fsync",
        "write 64 files of 4 KiB and fsync, a task each",
        "file",
        FILES as u64,
    );
    macro_rules! direct {
        ($s:expr, $name:expr, $spawn:ident, $path:ident => $job:expr) => {{
            let s = $s;
            group.cell($name, threads(s), move |clock: &mut Clock| {
                clock.time(|| {
                    s.block_on(async {
                        let tasks: Vec<_> = paths.iter().map(|$path| s.$spawn($job)).collect();
                        for task in tasks {
                            task.await;
                        }
                    });
                });
            });
        }};
    }
    direct!(systems.umcg, "umcg", spawn, path => async move { write(path) });
    direct!(systems.tokio, "tokio, std::fs", spawn, path => async move { write(path) });
    direct!(systems.tokio, "tokio::fs", spawn, path => async move {
        use tokio::io::AsyncWriteExt;
        let mut file = tokio::fs::File::create(path).await.expect("a file");
        file.write_all(&[7; PAGE]).await.expect("a disk with room");
        file.sync_all().await.expect("a disk");
    });
    direct!(systems.async_executor, "async-executor unblock", spawn, path => async move {
        blocking::unblock(move || write(path)).await;
    });
    direct!(systems.threadpool, "threadpool(512)", spawn_blocking, path => move || write(path));
    group.cell("std thread", "std-write", move |clock| {
        clock.time(|| paths.iter().for_each(write));
    });
    group
}

/// Walks a tree of folders, with a task for each folder that asks each entry for its size. tokio's
/// issue 3664 is about this.
fn walk(systems: &Systems, folder: &Path, effort: &Effort) -> Group<'static> {
    const FILES: usize = 20;
    let folders = effort.pick(200, 50);
    let root = folder.join("tree");
    for i in 0..folders {
        let path = root.join(format!("{}", i % 10)).join(format!("{i}"));
        fs::create_dir_all(&path).expect("a folder");
        for j in 0..FILES {
            fs::write(path.join(format!("{j}")), b"x").expect("a file");
        }
    }
    let root = leak(root);
    let total = (folders * FILES) as u64;

    fn list(path: &Path) -> (u64, Vec<PathBuf>) {
        let (mut bytes, mut folders) = (0, Vec::new());
        for entry in fs::read_dir(path).expect("the folder").flatten() {
            let data = entry.metadata().expect("the entry");
            if data.is_dir() {
                folders.push(entry.path());
            } else {
                bytes += data.len();
            }
        }
        (bytes, folders)
    }
    type Sum = Pin<Box<dyn Future<Output = u64> + Send>>;
    fn direct<S: System>(system: &'static S, path: PathBuf) -> Sum {
        Box::pin(async move {
            let (mut bytes, folders) = list(&path);
            let tasks: Vec<_> = folders
                .into_iter()
                .map(|path| system.spawn(direct(system, path)))
                .collect();
            for task in tasks {
                bytes += task.await;
            }
            bytes
        })
    }
    fn with_tokio_fs(system: &'static Tokio, path: PathBuf) -> Sum {
        Box::pin(async move {
            let mut entries = tokio::fs::read_dir(&path).await.expect("the folder");
            let (mut bytes, mut tasks) = (0, Vec::new());
            while let Some(entry) = entries.next_entry().await.expect("the folder") {
                let data = entry.metadata().await.expect("the entry");
                if data.is_dir() {
                    tasks.push(system.spawn(with_tokio_fs(system, entry.path())));
                } else {
                    bytes += data.len();
                }
            }
            for task in tasks {
                bytes += task.await;
            }
            bytes
        })
    }

    let mut group = Group::new(
        "walk",
        format!("walk a warm tree of {folders} folders, {FILES} files each; a task a folder"),
        "file",
        total,
    );
    let umcg = systems.umcg;
    group.cell("umcg", Umcg::THREADS, move |clock| {
        let sum = clock.time(|| umcg.block_on(umcg.spawn(direct(umcg, root.into()))));
        assert_eq!(sum, total);
    });
    let tokio = systems.tokio;
    group.cell("tokio, std::fs", Tokio::THREADS, move |clock| {
        let sum = clock.time(|| tokio.block_on(tokio.spawn(direct(tokio, root.into()))));
        assert_eq!(sum, total);
    });
    group.cell("tokio::fs", Tokio::THREADS, move |clock| {
        let sum = clock.time(|| tokio.block_on(tokio.spawn(with_tokio_fs(tokio, root.into()))));
        assert_eq!(sum, total);
    });
    group.cell("std thread", "std-walk", move |clock| {
        fn sum(path: &Path) -> u64 {
            let (bytes, folders) = list(path);
            bytes + folders.iter().map(|path| sum(path)).sum::<u64>()
        }
        let sum = clock.time(|| sum(root));
        assert_eq!(sum, total);
    });
    group
}
