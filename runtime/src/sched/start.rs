//! How the threads of a runtime come to be.

use std::{
    io,
    sync::{Arc, mpsc},
    thread::{Builder, JoinHandle},
};

use umcg_sys::Provider;

use super::{Config, Shared, server, spawner::NoWorker};
use crate::{error::BuildError, events};

/// The threads that live as long as the runtime.
#[derive(Debug)]
pub(crate) struct Threads {
    pub(super) handles: Vec<JoinHandle<()>>,
}

impl Shared {
    /// Starts the servers, the maker of workers, and one worker for each server.
    ///
    /// # Errors
    /// A thread could not be made, or a server not be registered. What was started is ended
    /// again.
    pub(crate) fn start(
        config: Config,
        provider: Arc<dyn Provider>,
        why: String,
    ) -> Result<(Arc<Self>, Threads), BuildError> {
        let shared = Arc::new_cyclic(|this| Self::new(config, provider, why, this.clone()));
        let mut threads = Threads {
            handles: Vec::new(),
        };
        if let Err(error) = shared.start_threads(&mut threads) {
            shared.stop();
            shared.abandon();
            shared.wait_for_threads(None);
            shared.join(threads);
            return Err(error);
        }
        events::started(
            &shared.provider.kind().to_string(),
            &shared.why,
            &shared.provider.describe(),
            shared.config.servers,
            shared.config.max_workers,
        );
        Ok((shared, threads))
    }

    fn start_threads(self: &Arc<Self>, threads: &mut Threads) -> Result<(), BuildError> {
        let name = &self.config.thread_name;
        for index in 0..self.servers.len() {
            let (tell, told) = mpsc::sync_channel(1);
            let shared = Arc::clone(self);
            let name = format!("{name}-s{index}");
            let handle = self.start_thread(Builder::new().name(name), move || {
                server::run::main(shared, index, |outcome| {
                    // The other end waits for it.
                    let _ = tell.send(outcome);
                });
            })?;
            threads.handles.push(handle);
            match told.recv() {
                Ok(Ok(())) => {}
                Ok(Err(source)) => {
                    return Err(BuildError::Register {
                        server: index,
                        source,
                    });
                }
                Err(mpsc::RecvError) => unreachable!("a server ended before it registered"),
            }
        }
        let shared = Arc::clone(self);
        // It runs destructors of the application in the end, as workers do.
        let spawner = Builder::new()
            .name(format!("{name}-spawner"))
            .stack_size(self.config.stack_size);
        let spawner = self.start_thread(spawner, move || shared.run_spawner())?;
        threads.handles.push(spawner);
        for server in &self.servers {
            match self.add_worker(server) {
                Ok(()) => {}
                // Fewer workers than servers: the others take a worker where they find one.
                Err(NoWorker::Limit) => break,
                Err(NoWorker::Thread(source)) => return Err(BuildError::Thread(source)),
            }
        }
        Ok(())
    }

    fn start_thread(
        &self,
        thread: Builder,
        main: impl FnOnce() + Send + 'static,
    ) -> Result<JoinHandle<()>, BuildError> {
        self.lifecycle.add_thread();
        thread.spawn(main).map_err(|error: io::Error| {
            self.lifecycle.remove_thread();
            BuildError::Thread(error)
        })
    }
}
