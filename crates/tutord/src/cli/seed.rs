//! `tutord seed`: fills the database with generated rows, for benchmarks.

use std::time::Instant;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use tutord_core::operations::SeedPlan;

use super::open;
use crate::auth::hash_password;
use crate::config::DatabaseSettings;

/// The password of every generated student.
const PASSWORD: &str = "Seed-Pass-1";

#[derive(Debug, clap::Args)]
pub(super) struct SeedArgs {
    #[command(flatten)]
    database: DatabaseSettings,
    /// Number of students, all verified and with the same password.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    users: u64,
    /// Number of conversations, distributed unevenly over the students.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(0..=1_000_000_000))]
    conversations: u64,
    /// Number of messages, distributed unevenly over the conversations.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(0..=10_000_000_000))]
    messages: u64,
    /// Number of exercises.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(0..=10_000_000))]
    exercises: u64,
    /// Seed of the random generator; the same seed generates the same rows.
    #[arg(long, default_value_t = 42)]
    seed: u64,
}

pub(super) async fn run(args: SeedArgs) -> anyhow::Result<()> {
    if args.messages > 0 && args.conversations == 0 {
        anyhow::bail!("--messages requires --conversations of at least 1");
    }
    let store = open(&args.database).await?;
    store.migrate().await.context("migrating the database")?;
    let plan = SeedPlan {
        users: args.users,
        conversations: args.conversations,
        messages: args.messages,
        exercises: args.exercises,
        seed: args.seed,
        password_hash: hash_password(PASSWORD).map_err(|error| anyhow::anyhow!("argon2: {error}"))?,
    };
    let bar = ProgressBar::new(plan.rows())
        .with_style(ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} rows  {per_sec}  {eta} left")?);
    let began = Instant::now();
    let rows = store.seed(&plan, &|done| bar.set_position(done)).await.context("seeding the database")?;
    bar.finish_and_clear();
    say!(
        "Wrote {rows} rows to the {} database in {:.1} s: {} students, {} conversations, {} messages, {} exercises.",
        store.backend(),
        began.elapsed().as_secs_f64(),
        plan.users,
        plan.conversations,
        plan.messages,
        plan.exercises
    );
    say!("Log in as {} with {PASSWORD}.", plan.email(1));
    Ok(())
}
