//! Accounts and profiles.

use async_trait::async_trait;
use diesel::prelude::*;
use diesel::result::DatabaseErrorKind;
use diesel::result::Error::DatabaseError;
use diesel::sql_types::{Nullable, Text};
use diesel_async::RunQueryDsl;
use tutord_core::model::{Credentials, LearningProfile, NewUser, User, UserChanges};
use tutord_core::rules::address;
use tutord_core::schema::{address_collisions, backfills, users};
use tutord_core::store::{Loaded, Users};
use tutord_core::{Result, Timestamp};

use super::rows::user_row;
use super::{Adapter, Conn};
use crate::cached_statement::CachedStatement;

/// The number of users in a batch of the address backfill.
const BACKFILL_BATCH: i64 = 1_000;

diesel::define_sql_function! {
    /// The new text, or the present one if there is no new one.
    fn coalesce(new: Nullable<Text>, present: Text) -> Text;
}

diesel::define_sql_function! {
    /// The same for a text that may be missing.
    #[sql_name = "coalesce"]
    fn coalesce_nullable(new: Nullable<Text>, present: Nullable<Text>) -> Nullable<Text>;
}

#[async_trait]
impl Users for Adapter {
    async fn create_user(&self, new: NewUser) -> Result<User> {
        self.write(async |conn| {
            let user = diesel::insert_into(users::table)
                .values((
                    users::email_folded.eq(address::key(&new.email)),
                    users::email.eq(&new.email),
                    users::password_hash.eq(&new.password_hash),
                    users::name.eq(&new.name),
                    users::role.eq(new.role),
                    users::email_verified.eq(new.email_verified),
                    users::created_at.eq(new.created_at),
                    users::updated_at.eq(new.created_at),
                ))
                .returning(user_row())
                .get_result(conn)
                .await?;
            Ok(user)
        })
        .await
    }

    async fn user(&self, id: i64) -> Result<Option<Loaded<User>>> {
        self.read(async |conn| {
            let found = users::table.find(id).select(user_row()).first(conn).await.optional()?;
            Ok(found.map(Loaded::Fresh))
        })
        .await
    }

    async fn credentials(&self, email: &str) -> Result<Option<Credentials>> {
        self.read(async |conn| {
            // An account whose address collided with another in the new form keeps the old form, which was lower case.
            let (key, lower) = (address::key(email), email.to_lowercase());
            let found: Vec<(User, String, String)> = users::table
                .filter(users::email_folded.eq(&key).or(users::email_folded.eq(&lower)))
                .select((user_row(), users::password_hash, users::email_folded))
                .limit(2)
                .load(conn)
                .await?;
            let (user, password_hash, _) = match found.into_iter().max_by_key(|(_, _, folded)| *folded == lower) {
                Some(found) => found,
                None => return Ok(None),
            };
            Ok(Some(Credentials { user, password_hash }))
        })
        .await
    }

    async fn replace_password_hash(&self, id: i64, old: &str, new: &str) -> Result<()> {
        self.write(async |conn| {
            let unchanged = users::table.find(id).filter(users::password_hash.eq(old));
            CachedStatement(diesel::update(unchanged).set(users::password_hash.eq(new))).execute(conn).await?;
            Ok(())
        })
        .await
    }

    async fn address_collisions(&self, limit: i64) -> Result<Vec<i64>> {
        self.read(async |conn| {
            let ids = address_collisions::table
                .order(address_collisions::user_id)
                .limit(limit)
                .select(address_collisions::user_id)
                .load(conn)
                .await?;
            Ok(ids)
        })
        .await
    }

    async fn update_user(&self, id: i64, changes: UserChanges) -> Result<Option<User>> {
        self.write(async |conn| {
            let user = CachedStatement(
                diesel::update(users::table.find(id))
                    // One text, whichever fields are given.
                    .set((
                        users::name.eq(coalesce(changes.name.as_ref(), users::name)),
                        users::timezone.eq(coalesce(changes.timezone.as_ref(), users::timezone)),
                        users::bio.eq(coalesce_nullable(changes.bio.as_ref(), users::bio)),
                        users::programming_language
                            .eq(coalesce_nullable(changes.programming_language.as_ref(), users::programming_language)),
                        users::skill_level.eq(coalesce_nullable(changes.skill_level, users::skill_level)),
                        users::career_goals.eq(coalesce_nullable(changes.career_goals.as_ref(), users::career_goals)),
                        users::learning_style
                            .eq(coalesce_nullable(changes.learning_style.as_ref(), users::learning_style)),
                        users::time_commitment
                            .eq(coalesce_nullable(changes.time_commitment.as_ref(), users::time_commitment)),
                        users::updated_at.eq(Timestamp::now()),
                    ))
                    .returning(user_row()),
            );
            Ok(user.get_result(conn).await.optional()?)
        })
        .await
    }

    async fn complete_onboarding(&self, id: i64, profile: LearningProfile) -> Result<Option<User>> {
        self.write(async |conn| {
            let user = CachedStatement(
                diesel::update(users::table.find(id).filter(users::onboarding_completed.eq(false)))
                    .set((&profile, users::onboarding_completed.eq(true), users::updated_at.eq(Timestamp::now())))
                    .returning(user_row()),
            );
            Ok(user.get_result(conn).await.optional()?)
        })
        .await
    }
}

/// Converts the stored keys of addresses to the current form, [`BACKFILL_BATCH`] users at a time. Resumes after an
/// interruption, and does nothing once all keys are converted. The caller must hold the lock of migrations.
pub(super) async fn backfill_addresses(conn: &mut Conn) -> Result<()> {
    let progress = backfills::table.find("addresses");
    loop {
        let after: Option<i64> = progress.select(backfills::after_id).first(conn).await.optional()?;
        let Some(after) = after else { return Ok(()) };
        let batch: Vec<(i64, String, String)> = users::table
            .filter(users::id.gt(after))
            .order(users::id)
            .limit(BACKFILL_BATCH)
            .select((users::id, users::email, users::email_folded))
            .load(conn)
            .await?;
        let Some(last) = batch.last().map(|(id, ..)| *id) else {
            diesel::delete(progress).execute(conn).await?;
            return Ok(());
        };
        for (id, email, folded) in batch {
            let key = address::key(&email);
            if key == folded {
                continue;
            }
            let changed = diesel::update(users::table.find(id)).set(users::email_folded.eq(key)).execute(conn).await;
            match changed {
                Err(DatabaseError(DatabaseErrorKind::UniqueViolation, _)) => {
                    diesel::insert_into(address_collisions::table)
                        .values(address_collisions::user_id.eq(id))
                        .on_conflict_do_nothing()
                        .execute(conn)
                        .await?;
                }
                other => drop(other?),
            }
        }
        diesel::update(progress).set(backfills::after_id.eq(last)).execute(conn).await?;
    }
}
