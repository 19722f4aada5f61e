//! The cached store: users, sessions and mailed tokens.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use readthrough::Key;
use tutord_core::model::change::ChangeKind;
use tutord_core::model::{
    ClaimedMail, Credentials, EmailTokenPurpose, FailedMail, Identity, LearningProfile, MailCounts, MailKind,
    NewEmailToken, NewSessionTokens, NewUser, Rotation, TokenHash, User, UserChanges,
};
use tutord_core::store::{EmailTokens, Loaded, Mails, Sessions, Users};
use tutord_core::{Result, Timestamp};

use super::super::effects::CacheEffect;
use super::{CachedStore, fresh, read_error};

#[async_trait]
impl Users for CachedStore {
    async fn create_user(&self, new: NewUser) -> Result<User> {
        let store = Arc::clone(&self.store);
        // The cache may hold that this id does not exist.
        self.write(async move { store.create_user(new).await }, |created| {
            created.iter().map(|user| CacheEffect::Profile { user: user.id }).collect()
        })
        .await
    }

    async fn user(&self, id: i64) -> Result<Option<Loaded<User>>> {
        let load = async || self.store.user(id).await.map(fresh);
        let found = self.namespaces.profiles.get_or_load(&Key::new(id), load).await.map_err(read_error)?;
        Ok(found.map(|user| self.loaded(user)))
    }

    async fn prefetched_user(&self, id: i64) -> Option<Loaded<User>> {
        if self.has_l1 {
            return None;
        }
        Some(self.loaded(self.namespaces.profiles.get(&Key::new(id)).await??))
    }

    async fn credentials(&self, email: &str) -> Result<Option<Credentials>> {
        self.store.credentials(email).await
    }

    async fn replace_password_hash(&self, id: i64, old: &str, new: &str) -> Result<()> {
        let (store, old, new) = (Arc::clone(&self.store), old.to_owned(), new.to_owned());
        let write = async move { store.replace_password_hash(id, &old, &new).await };
        self.write(write, move |_| vec![CacheEffect::Profile { user: id }]).await
    }

    async fn address_collisions(&self, limit: i64) -> Result<Vec<i64>> {
        self.store.address_collisions(limit).await
    }

    async fn update_user(&self, id: i64, changes: UserChanges) -> Result<Option<User>> {
        let store = Arc::clone(&self.store);
        let written = match &changes.name {
            Some(_) => CacheEffect::Name { user: id },
            None => CacheEffect::Profile { user: id },
        };
        self.write(async move { store.update_user(id, changes).await }, move |_| vec![written]).await
    }

    async fn complete_onboarding(&self, id: i64, profile: LearningProfile) -> Result<Option<User>> {
        let store = Arc::clone(&self.store);
        let write = async move { store.complete_onboarding(id, profile).await };
        self.write(write, move |_| vec![CacheEffect::Profile { user: id }]).await
    }
}

#[async_trait]
impl Sessions for CachedStore {
    async fn create_session(&self, user_id: i64, tokens: NewSessionTokens) -> Result<i64> {
        let store = Arc::clone(&self.store);
        // The profile shows the time of the log-in.
        let write = async move { store.create_session(user_id, tokens).await };
        self.write(write, move |_| vec![CacheEffect::Profile { user: user_id }]).await
    }

    async fn identity(&self, access: &TokenHash, named: Option<i64>) -> Result<Option<Identity>> {
        // A token of an earlier version names no user, and is looked up in the database until it expires.
        let Some(user) = named.filter(|_| self.cache.is_enabled()) else {
            return self.store.identity(access, named).await;
        };
        let key = Key::in_group(user, URL_SAFE_NO_PAD.encode(access));
        if let Some(found) = self.namespaces.identities.get(&key).await {
            return Ok(found.map(|identity| *identity));
        }
        // A guessed token leaves nothing in the cache, and nothing in Redis.
        if self.store.identity(access, named).await?.is_none() {
            return Ok(None);
        }
        let load = async || self.store.identity(access, named).await;
        let found = self.namespaces.identities.get_or_load(&key, load).await.map_err(read_error)?;
        Ok(found.map(|identity| *identity))
    }

    async fn refresh_token_owner(&self, refresh: &TokenHash) -> Result<Option<i64>> {
        self.store.refresh_token_owner(refresh).await
    }

    async fn rotate_session(
        &self,
        refresh: &TokenHash,
        successors: NewSessionTokens,
        now: Timestamp,
        grace: Duration,
    ) -> Result<Rotation> {
        let (store, refresh) = (Arc::clone(&self.store), *refresh);
        let write = async move { store.rotate_session(&refresh, successors, now, grace).await };
        self.write(write, |rotation| match rotation {
            Ok(Rotation::Reused { user_id, .. }) => vec![CacheEffect::Session { user: *user_id }],
            Ok(_) => Vec::new(),
            // The statement may have committed, and the owner of the session is unknown.
            Err(_) => vec![CacheEffect::Any(ChangeKind::Session)],
        })
        .await
    }

    async fn revoke_session(&self, user_id: i64, session_id: i64) -> Result<()> {
        let store = Arc::clone(&self.store);
        let write = async move { store.revoke_session(user_id, session_id).await };
        self.write(write, move |_| vec![CacheEffect::Session { user: user_id }]).await
    }

    async fn revoke_session_of(&self, refresh: &TokenHash) -> Result<Option<i64>> {
        let (store, refresh) = (Arc::clone(&self.store), *refresh);
        self.write(async move { store.revoke_session_of(&refresh).await }, |user| match user {
            Ok(Some(user)) => vec![CacheEffect::Session { user: *user }],
            Ok(None) => Vec::new(),
            Err(_) => vec![CacheEffect::Any(ChangeKind::Session)],
        })
        .await
    }

    async fn revoke_sessions(&self, user_id: i64) -> Result<()> {
        let store = Arc::clone(&self.store);
        let write = async move { store.revoke_sessions(user_id).await };
        self.write(write, move |_| vec![CacheEffect::Session { user: user_id }]).await
    }

    async fn is_trusted_device(&self, user_id: i64, device: &TokenHash) -> Result<bool> {
        self.store.is_trusted_device(user_id, device).await
    }

    async fn trust_device(&self, user_id: i64, device: &TokenHash, expires_at: Timestamp) -> Result<()> {
        self.store.trust_device(user_id, device, expires_at).await
    }
}

#[async_trait]
impl EmailTokens for CachedStore {
    async fn create_email_token(&self, token: NewEmailToken) -> Result<()> {
        self.store.create_email_token(token).await
    }

    async fn email_token_owner(&self, hash: &TokenHash, purpose: EmailTokenPurpose) -> Result<Option<Credentials>> {
        self.store.email_token_owner(hash, purpose).await
    }

    async fn verify_email(&self, hash: &TokenHash) -> Result<Option<User>> {
        let (store, hash) = (Arc::clone(&self.store), *hash);
        self.write(async move { store.verify_email(&hash).await }, |user| match user {
            Ok(Some(user)) => vec![CacheEffect::Profile { user: user.id }, CacheEffect::Session { user: user.id }],
            Ok(None) => Vec::new(),
            Err(_) => vec![CacheEffect::Any(ChangeKind::Profile)],
        })
        .await
    }

    async fn reset_password(&self, hash: &TokenHash, password_hash: &str) -> Result<Option<i64>> {
        let (store, hash, password_hash) = (Arc::clone(&self.store), *hash, password_hash.to_owned());
        self.write(async move { store.reset_password(&hash, &password_hash).await }, |user| match user {
            Ok(Some(user)) => vec![CacheEffect::Session { user: *user }, CacheEffect::Profile { user: *user }],
            Ok(None) => Vec::new(),
            Err(_) => vec![CacheEffect::Any(ChangeKind::Session), CacheEffect::Any(ChangeKind::Profile)],
        })
        .await
    }
}

// Mails are not cached.
#[async_trait]
impl Mails for CachedStore {
    async fn enqueue_mail(&self, user_id: i64, kind: MailKind, message_id: &str) -> Result<bool> {
        self.store.enqueue_mail(user_id, kind, message_id).await
    }

    async fn claim_mails(&self, now: Timestamp, until: Timestamp, limit: i64) -> Result<Vec<ClaimedMail>> {
        self.store.claim_mails(now, until, limit).await
    }

    async fn remove_mail(&self, mail: &ClaimedMail) -> Result<()> {
        self.store.remove_mail(mail).await
    }

    async fn postpone_mail(&self, mail: &ClaimedMail, due_at: Timestamp, error: &str) -> Result<()> {
        self.store.postpone_mail(mail, due_at, error).await
    }

    async fn fail_mail(&self, mail: &ClaimedMail, error: &str) -> Result<()> {
        self.store.fail_mail(mail, error).await
    }

    async fn failed_mails(&self, limit: i64) -> Result<Vec<FailedMail>> {
        self.store.failed_mails(limit).await
    }

    async fn mail_counts(&self) -> Result<MailCounts> {
        self.store.mail_counts().await
    }
}
