//! `tutord catalogue`: loads exercises and achievements from files.

use std::path::PathBuf;

use tutord_core::Store;
use tutord_core::model::CatalogueCounts;

use super::open;
use crate::config::DatabaseSettings;
use crate::exercises::catalogue::Catalogue;

#[derive(Debug, clap::Subcommand)]
pub(super) enum CatalogueCommand {
    /// Load exercises and achievements from a TOML file, or from all TOML files of a directory, in one transaction.
    Load {
        /// The TOML file, or a directory of TOML files.
        path: PathBuf,
        #[command(flatten)]
        database: DatabaseSettings,
    },
}

pub(super) async fn run(command: CatalogueCommand) -> anyhow::Result<()> {
    let CatalogueCommand::Load { path, database } = command;
    // Validates all files before it opens the database.
    let catalogue = Catalogue::read(&path)?;
    let store = open(&database).await?;
    let pending = store.pending_migrations().await?;
    if !pending.is_empty() {
        anyhow::bail!("migrations are pending ({}); run `tutord migrate` first", pending.join(", "));
    }
    load(&catalogue, store.as_ref()).await
}

/// Loads the built-in catalogue, unless the database has this version already.
pub(super) async fn load_built_in(store: &dyn Store) -> anyhow::Result<()> {
    match Catalogue::built_in()?.load_built_in(store).await? {
        Some(loaded) => report(&loaded),
        None => tracing::debug!("the catalogue is up to date"),
    }
    Ok(())
}

async fn load(catalogue: &Catalogue, store: &dyn Store) -> anyhow::Result<()> {
    report(&catalogue.load(store).await?);
    Ok(())
}

fn report(loaded: &CatalogueCounts) {
    tracing::info!(loaded.created, loaded.updated, loaded.unchanged, "loaded the catalogue");
}
