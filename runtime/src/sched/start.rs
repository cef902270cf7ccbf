//! How the threads of a runtime are started.

use std::{
    io,
    sync::{Arc, mpsc},
    thread::{Builder, JoinHandle},
};

use umcg_sys::Provider;

use super::{Config, Shared, server, spawner::NoWorker};
use crate::{error::BuildError, events};

/// The threads that live as long as the runtime: servers and the worker spawner.
#[derive(Debug)]
pub(crate) struct Threads {
    /// For [`Shared::join`].
    pub(super) handles: Vec<JoinHandle<()>>,
}

impl Shared {
    /// Starts the servers, the worker spawner, and one worker for each server.
    ///
    /// # Errors
    /// If a thread could not be made, or a server could not be registered. The threads that were
    /// started have ended then.
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
            shared.stop_poller();
            shared.wait_for_threads(None);
            shared.join(threads);
            return Err(error);
        }
        events::started(
            &shared.provider.kind().to_string(),
            &shared.why,
            &shared.describe(),
            shared.config.servers,
            shared.config.max_workers,
        );
        Ok((shared, threads))
    }

    fn start_threads(self: &Arc<Self>, threads: &mut Threads) -> Result<(), BuildError> {
        let name = &self.config.thread_name;
        for index in 0..self.servers.len() {
            let (send, receive) = mpsc::sync_channel(1);
            let shared = Arc::clone(self);
            let name = format!("{name}-s{index}");
            let handle = self.start_thread(Builder::new().name(name), move || {
                server::run::main(shared, index, |outcome| {
                    // The receiver is below, and waits.
                    let _ = send.send(outcome);
                });
            })?;
            threads.handles.push(handle);
            match receive.recv() {
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
        if self.reactor.is_some() {
            let shared = Arc::clone(self);
            let poller = Builder::new()
                .name(format!("{name}-io"))
                .stack_size(self.config.stack_size);
            let poller = self.start_thread(poller, move || shared.run_poller())?;
            threads.handles.push(poller);
        }
        let shared = Arc::clone(self);
        // At the end of the runtime it runs destructors of the application, as workers do.
        let spawner = Builder::new()
            .name(format!("{name}-spawner"))
            .stack_size(self.config.stack_size);
        let spawner = self.start_thread(spawner, move || shared.run_spawner())?;
        threads.handles.push(spawner);
        for server in &self.servers {
            match self.add_worker(server) {
                Ok(()) => {}
                // There are fewer workers than servers. The other servers steal one where they can.
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
