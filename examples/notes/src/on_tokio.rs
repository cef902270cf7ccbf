//! The same service on tokio: axum, with each call that blocks in `spawn_blocking`.

use std::{
    future::{Future, IntoFuture, poll_fn},
    io,
    net::{SocketAddr, TcpListener},
    pin::pin,
    task::Poll,
    time::Duration,
};

use anyhow::Context;
use axum::{
    Router,
    extract::{DefaultBodyLimit, Path, State},
    http::StatusCode,
    routing::{get, post},
    serve::ListenerExt,
};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    connection::MAX_REQUEST,
    store::{Answer, Request, Store},
};

type Reply = (StatusCode, String);

async fn blocking(answer: impl FnOnce() -> Answer + Send + 'static) -> Reply {
    match tokio::task::spawn_blocking(answer).await {
        Ok((status, body)) => (
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            body,
        ),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn read(State(store): State<Store>, Path(id): Path<u32>) -> Reply {
    blocking(move || store.answer(Request::Read(id.into()))).await
}

async fn slow(State(store): State<Store>, Path(id): Path<u32>) -> Reply {
    blocking(move || store.answer(Request::Slow(id.into()))).await
}

async fn burn(State(store): State<Store>, Path(time): Path<u32>) -> Reply {
    blocking(move || store.answer(Request::burn(time.into()))).await
}

async fn add(State(store): State<Store>, text: String) -> Reply {
    blocking(move || store.answer(Request::Add(&text))).await
}

/// Serves until SIGINT or SIGTERM, and then ends after the requests that have begun. Calls
/// `listening` when the signals are handled.
///
/// # Errors
/// The runtime's or the listener's, or some requests took longer than `patience` when the service
/// stopped.
pub fn serve(
    listener: TcpListener,
    store: Store,
    patience: Duration,
    listening: impl FnOnce(SocketAddr),
) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/notes/{id}", get(read))
        .route("/slow/{id}", get(slow))
        .route("/burn/{time}", get(burn))
        .route("/notes", post(add))
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .with_state(store);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("tokio's runtime cannot be built")?;
    let result = runtime.block_on(async {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?.tap_io(|stream| {
            // As on the other systems. An error means that the peer has gone already.
            let _ = stream.set_nodelay(true);
        });
        let stop = signalled()?;
        let also_stop = signalled()?;
        let mut serve = pin!(
            axum::serve(listener, router)
                .with_graceful_shutdown(stop)
                .into_future()
        );
        let mut late = pin!(async {
            also_stop.await;
            tokio::time::sleep(patience).await;
        });
        listening(address);
        poll_fn(|cx| {
            if let Poll::Ready(result) = serve.as_mut().poll(cx) {
                return Poll::Ready(result.map_err(anyhow::Error::from));
            }
            late.as_mut().poll(cx).map(|()| {
                Err(anyhow::anyhow!(
                    "some requests took longer than {patience:?}"
                ))
            })
        })
        .await
    });
    // When a request took too long, its closure may still run. Do not wait for that.
    runtime.shutdown_background();
    result
}

/// Handles SIGINT and SIGTERM from now on. The future is ready when one of them has come.
fn signalled() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(poll_fn(move |cx| {
        if interrupt.poll_recv(cx).is_ready() || terminate.poll_recv(cx).is_ready() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }))
}
