//! `tutord serve`.

use anyhow::Context as _;
use axum::Router;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::open_with;
use super::starting::while_starting;
use crate::app::App;
use crate::config::Config;
use crate::server;

pub(super) async fn run(config: Config) -> anyhow::Result<()> {
    // Before anything is opened, migrated or begun.
    let listener = server::bind(&config)?;
    let (watch, plans) = config.watch.build();
    // It may have to wait for another process that migrates: until then it lives, and is not ready.
    let prepare = async {
        let store = open_with(&config.database, config.store_options(&watch)).await?;
        let applied = store.migrate().await.context("migrating the database")?;
        if !applied.is_empty() {
            tracing::info!(migrations = applied.join(", "), "migrated the database");
        }
        // At each start: an earlier one may have been killed in between.
        super::catalogue::load_built_in(store.as_ref()).await?;
        Ok::<_, anyhow::Error>(store)
    };
    let (listener, store) = while_starting(listener, prepare).await?;
    warn(&config);
    let app = App::new(config, (watch, plans), store, false)?;
    until_signal(app, listener, Router::new()).await
}

/// Warns of settings that suit a trial and no more.
fn warn(config: &Config) {
    if config.mail.smtp_url.is_none() {
        let directory = config.database.data_dir.join("mail");
        tracing::warn!(directory = %directory.display(), "SMTP_URL is not set: mails are written to files and reach nobody");
    }
    if config.http.lacks_public_url() {
        tracing::warn!(
            public_url = %config.http.public_url(),
            "PUBLIC_URL is not set, but other machines can connect: links in mails lead to the recipient's own machine"
        );
    }
}

/// Serves until SIGINT or SIGTERM; `further` routes are not part of the API.
pub(super) async fn until_signal(app: App, listener: TcpListener, further: Router<App>) -> anyhow::Result<()> {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        app.stop().await;
        anyhow::bail!("SIGINT and SIGTERM can't be waited for");
    };
    let shutdown = app.shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping: no new connections, open requests may end");
        shutdown.cancel();
    });
    let llm = app.config.llm.model_name();
    tracing::info!(
        address = listener.local_addr().map(tracing::field::display).ok(),
        database = app.store.backend(),
        model = if llm.is_empty() { "not configured" } else { llm },
        "serving"
    );
    app.serve_with(listener, further).await;
    Ok(())
}
