//! Accounts and profiles.

use std::sync::Arc;

use async_trait::async_trait;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::Adapter;
use crate::error::Result;
use crate::model::time::Timestamp;
use crate::model::{Credentials, LearningProfile, NewUser, User, UserChanges};
use crate::schema::users;
use crate::store::Users;

#[async_trait]
impl Users for Adapter {
    async fn create_user(&self, new: NewUser) -> Result<User> {
        self.write(async |conn| {
            let user = diesel::insert_into(users::table)
                .values((
                    users::email_folded.eq(fold(&new.email)),
                    users::email.eq(&new.email),
                    users::password_hash.eq(&new.password_hash),
                    users::name.eq(&new.name),
                    users::role.eq(new.role),
                    users::email_verified.eq(new.email_verified),
                    users::created_at.eq(new.created_at),
                    users::updated_at.eq(new.created_at),
                ))
                .returning(User::as_returning())
                .get_result(conn)
                .await?;
            Ok(user)
        })
        .await
    }

    async fn user(&self, id: i64) -> Result<Option<Arc<User>>> {
        self.read(async |conn| {
            let found = users::table.find(id).select(User::as_select()).first(conn).await.optional()?;
            Ok(found.map(Arc::new))
        })
        .await
    }

    async fn credentials(&self, email: &str) -> Result<Option<Credentials>> {
        self.read(async |conn| {
            let found = users::table
                .filter(users::email_folded.eq(fold(email)))
                .select((User::as_select(), users::password_hash))
                .first(conn)
                .await
                .optional()?;
            Ok(found.map(|(user, password_hash)| Credentials { user, password_hash }))
        })
        .await
    }

    async fn update_user(&self, id: i64, changes: UserChanges) -> Result<Option<User>> {
        self.write(async |conn| {
            let user = diesel::update(users::table.find(id))
                .set((&changes, users::updated_at.eq(Timestamp::now())))
                .returning(User::as_returning())
                .get_result(conn)
                .await
                .optional()?;
            Ok(user)
        })
        .await
    }

    async fn complete_onboarding(&self, id: i64, profile: LearningProfile) -> Result<Option<User>> {
        self.write(async |conn| {
            let user = diesel::update(users::table.find(id).filter(users::onboarding_completed.eq(false)))
                .set((&profile, users::onboarding_completed.eq(true), users::updated_at.eq(Timestamp::now())))
                .returning(User::as_returning())
                .get_result(conn)
                .await
                .optional()?;
            Ok(user)
        })
        .await
    }
}

/// Addresses are unique whatever their case: only case is folded, nothing else of an address is safe to change.
fn fold(email: &str) -> String {
    email.to_lowercase()
}
