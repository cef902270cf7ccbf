//! Files from async tasks (P1, B2).

use std::{fs, io::Write, path::Path};

use crate::{
    clock::Clock,
    report::Row,
    runner::{Effort, Group},
    system::{System, Systems, Tokio, Umcg},
};

pub(super) fn run(systems: &Systems, effort: &Effort) -> Vec<Row> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    warm(systems, folder.path()).run(effort)
}

/// P1: a file of 4 KiB in the page cache, read whole, one after the other.
pub(super) fn warm(systems: &Systems, folder: &Path) -> Group<'static> {
    const READS: u64 = 2000;
    const SIZE: usize = 4096;
    let file = folder.join("warm");
    fs::File::create(&file)
        .and_then(|mut file| file.write_all(&[7; SIZE]))
        .expect("a file");
    // Leaked: two dozen bytes, so that no cell has to count references.
    let file: &'static Path = Box::leak(file.into_boxed_path());
    let mut group = Group::new("read_4k", "read a warm file of 4 KiB", "read", READS);
    fn read_all(file: &Path) {
        for _ in 0..READS {
            assert_eq!(fs::read(file).expect("the file").len(), SIZE);
        }
    }
    fn in_task<S: System>(system: &'static S, file: &'static Path) {
        system.block_on(async { system.spawn(async move { read_all(file) }).await });
    }
    group.cell("std thread", "std-read", move |clock| {
        clock.time(|| {
            std::thread::spawn(move || read_all(file))
                .join()
                .expect("the thread");
        });
    });
    let umcg = systems.umcg;
    group.cell("umcg", Umcg::THREADS, move |clock| {
        clock.time(|| in_task(umcg, file));
    });
    let tokio = systems.tokio;
    group.cell("tokio, blocking its worker", Tokio::THREADS, move |clock| {
        clock.time(|| in_task(tokio, file));
    });
    group.cell("tokio::fs", Tokio::THREADS, move |clock| {
        clock.time(|| {
            tokio.block_on(async {
                tokio
                    .spawn(async move {
                        for _ in 0..READS {
                            let text = tokio::fs::read(file).await.expect("the file");
                            assert_eq!(text.len(), SIZE);
                        }
                    })
                    .await;
            });
        });
    });
    group.cell("tokio block_in_place", Tokio::THREADS, move |clock| {
        clock.time(|| {
            tokio.block_on(async {
                tokio
                    .spawn(async move {
                        for _ in 0..READS {
                            let text = tokio::task::block_in_place(|| fs::read(file));
                            assert_eq!(text.expect("the file").len(), SIZE);
                        }
                    })
                    .await;
            });
        });
    });
    let smol = systems.async_executor;
    group.cell("async-fs", threads(smol), move |clock: &mut Clock| {
        clock.time(|| {
            smol.block_on(async {
                smol.spawn(async move {
                    for _ in 0..READS {
                        let text = async_fs::read(file).await.expect("the file");
                        assert_eq!(text.len(), SIZE);
                    }
                })
                .await;
            });
        });
    });
    group
}

fn threads<S: System>(_: &'static S) -> &'static str {
    S::THREADS
}
