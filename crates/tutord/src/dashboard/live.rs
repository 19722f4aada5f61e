//! The route `/ops/live`, which updates open pages by server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::sse::{Event, Sse};
use futures_util::stream::unfold;
use querywatch_axum::News;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::MissedTickBehavior;

use super::page::PageRequest;
use super::state::DashboardState;
use crate::auth::Admin;
use crate::http::error::ApiError;
use crate::http::query::Query;

/// The maximum number of live pages.
const MAX_LIVE_PAGES: usize = 16;
/// The interval between two updates of a page.
const UPDATE_INTERVAL: Duration = Duration::from_secs(2);
/// The maximum duration of a stream. Afterwards the browser reconnects and authenticates again.
const MAX_DURATION: Duration = Duration::from_mins(5);

/// Limits the number of live pages.
#[derive(Debug)]
pub struct LivePages(Arc<Semaphore>);

impl Default for LivePages {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_LIVE_PAGES)))
    }
}

/// Streams an update at once, and then every two seconds.
pub(super) async fn live(
    State(state): State<DashboardState>,
    Admin(_): Admin,
    Query(request): Query<PageRequest>,
) -> Result<impl IntoResponse, ApiError> {
    let permit = Arc::clone(&state.live_pages.0).try_acquire_owned();
    let permit = permit
        .map_err(|_| ApiError::overloaded(format!("too many live pages: at most {MAX_LIVE_PAGES} can be open")))?;
    // The channel holds one update: a slow client skips updates instead of receiving old ones.
    let (sender, receiver) = mpsc::channel(1);
    let task = state.clone();
    state.background.spawn(async move {
        let _permit = permit;
        feed(&task, &request, &sender).await;
    });
    let events = unfold(receiver, async |mut receiver| Some((Ok::<_, Infallible>(receiver.recv().await?), receiver)));
    Ok(Sse::new(events))
}

/// Sends updates until the client disconnects, the server shuts down, or the stream expires.
async fn feed(state: &DashboardState, request: &PageRequest, client: &mpsc::Sender<Event>) {
    let mut ticks = tokio::time::interval(UPDATE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = tokio::time::sleep(MAX_DURATION);
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = state.background.shutdown.cancelled() => return,
            () = client.closed() => return,
            () = &mut end => return,
            _ = ticks.tick() => {}
        }
        if client.capacity() == 0 {
            continue;
        }
        let Some(view) = request.view(state).await else { continue };
        match Event::default().event("snapshot").json_data(view.update(News::of(&state.watch))) {
            Ok(event) => {
                if let Err(TrySendError::Closed(_)) = client.try_send(event) {
                    return;
                }
            }
            Err(error) => tracing::error!(%error, "could not serialize a live page"),
        }
    }
}
