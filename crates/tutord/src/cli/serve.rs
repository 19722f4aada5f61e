//! `tutord serve`: migrates the database and serves the API.

use anyhow::Context as _;
use axum::Router;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::open_with;
use super::starting::while_starting;
use crate::config::Config;
use crate::server;
use crate::state::AppState;

pub(super) async fn run(config: Config) -> anyhow::Result<()> {
    // Binds first, so that a port in use fails before the migrations.
    let listener = server::bind(&config)?;
    let (watch, plans) = config.watch.build();
    // The migrations may wait for another process. Meanwhile this process is alive but not ready.
    let prepare = async {
        let store = open_with(&config.database, config.store_options(&watch)).await?;
        let applied = store.migrate().await.context("migrating the database")?;
        if !applied.is_empty() {
            tracing::info!(migrations = applied.join(", "), "migrated the database");
        }
        // Loads the catalogue at each start, because an earlier start may have been killed before this step.
        super::catalogue::load_built_in(store.as_ref()).await?;
        Ok::<_, anyhow::Error>(store)
    };
    let (listener, store) = while_starting(listener, prepare).await?;
    warn(&config);
    let app = AppState::start(config, (watch, plans), store, false)?;
    until_signal(app, listener, Router::new()).await
}

/// Warns of defaults that are unsuitable for production.
fn warn(config: &Config) {
    if config.mail.smtp_url.is_none() {
        let directory = config.database.data_dir.join("mail");
        tracing::warn!(directory = %directory.display(), "SMTP_URL is not set: mails are written to files and not sent");
    }
    if config.http.lacks_public_url() {
        tracing::warn!(
            public_url = %config.http.public_url(),
            "PUBLIC_URL is not set, but other machines can connect: links in mails point to localhost; set PUBLIC_URL"
        );
    }
}

/// Serves until SIGINT or SIGTERM. Routes in `further` are not part of the API.
pub(super) async fn until_signal(app: AppState, listener: TcpListener, further: Router) -> anyhow::Result<()> {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        server::stop(app).await;
        anyhow::bail!("could not install handlers for SIGINT and SIGTERM");
    };
    let shutdown = app.background.shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("shutting down: draining open requests");
        shutdown.cancel();
    });
    let llm = app.config.llm.model_name();
    tracing::info!(
        address = listener.local_addr().map(tracing::field::display).ok(),
        database = app.operations.backend(),
        model = if llm.is_empty() { "not configured" } else { llm },
        "serving"
    );
    server::serve(app, listener, further).await;
    Ok(())
}
