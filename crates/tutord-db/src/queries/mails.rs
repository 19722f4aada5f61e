//! The queue of mails.

use async_trait::async_trait;
use diesel::dsl::{count, min};
use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel_async::RunQueryDsl;
use tutord_core::model::{ClaimedMail, FailedMail, MailCounts, MailKind};
use tutord_core::schema::{mails, users};
use tutord_core::sql_types::Instant;
use tutord_core::store::Mails;
use tutord_core::{Result, Timestamp};

use super::{Adapter, Conn};
use crate::cached_statement::CachedStatement;

#[async_trait]
impl Mails for Adapter {
    async fn enqueue_mail(&self, user_id: i64, kind: MailKind, message_id: &str) -> Result<bool> {
        self.write(async |conn| {
            let now = Timestamp::now();
            let recipient = users::table
                .filter(users::id.eq(user_id))
                .filter(users::is_active)
                .filter(users::email_verified.eq(false).or(kind.into_sql::<Text>().ne(MailKind::VerifyEmail)))
                .select((
                    users::id,
                    kind.into_sql::<Text>(),
                    message_id.into_sql::<Text>(),
                    now.into_sql::<Instant>(),
                    now.into_sql::<Instant>(),
                ));
            let stored = CachedStatement(
                diesel::insert_into(mails::table)
                    .values(recipient)
                    .into_columns((mails::user_id, mails::kind, mails::message_id, mails::created_at, mails::due_at))
                    .on_conflict((mails::user_id, mails::kind))
                    .do_update()
                    .set((
                        mails::message_id.eq(message_id),
                        mails::created_at.eq(now),
                        mails::due_at.eq(now),
                        mails::attempts.eq(0),
                        mails::last_error.eq(None::<String>),
                        mails::failed_at.eq(None::<Timestamp>),
                    )),
            )
            .execute(conn)
            .await?;
            Ok(stored == 1)
        })
        .await
    }

    async fn claim_mails(&self, now: Timestamp, until: Timestamp, limit: i64) -> Result<Vec<ClaimedMail>> {
        self.transaction(async |conn| claim(conn, now, until, limit).await).await
    }

    async fn remove_mail(&self, mail: &ClaimedMail) -> Result<()> {
        self.write(async |conn| {
            diesel::delete(mails::table.find(mail.id).filter(mails::message_id.eq(&mail.message_id)))
                .execute(conn)
                .await?;
            Ok(())
        })
        .await
    }

    async fn postpone_mail(&self, mail: &ClaimedMail, due_at: Timestamp, error: &str) -> Result<()> {
        self.write(async |conn| {
            diesel::update(mails::table.find(mail.id).filter(mails::message_id.eq(&mail.message_id)))
                .set((mails::due_at.eq(due_at), mails::last_error.eq(error)))
                .execute(conn)
                .await?;
            Ok(())
        })
        .await
    }

    async fn fail_mail(&self, mail: &ClaimedMail, error: &str) -> Result<()> {
        self.write(async |conn| {
            diesel::update(mails::table.find(mail.id).filter(mails::message_id.eq(&mail.message_id)))
                .set((mails::failed_at.eq(Timestamp::now()), mails::last_error.eq(error)))
                .execute(conn)
                .await?;
            Ok(())
        })
        .await
    }

    async fn failed_mails(&self, limit: i64) -> Result<Vec<FailedMail>> {
        self.read(async |conn| {
            let failed = mails::table
                .inner_join(users::table)
                .filter(mails::failed_at.is_not_null())
                .order(mails::failed_at.desc())
                .select((
                    users::email,
                    mails::kind,
                    mails::attempts,
                    mails::last_error,
                    mails::failed_at.assume_not_null(),
                ))
                .limit(limit)
                .load(conn)
                .await?;
            Ok(failed)
        })
        .await
    }

    async fn mail_counts(&self) -> Result<MailCounts> {
        self.read(async |conn| {
            let (pending, oldest) = mails::table
                .filter(mails::failed_at.is_null())
                .select((count(mails::id), min(mails::created_at)))
                .first(conn)
                .await?;
            let failed = mails::table.filter(mails::failed_at.is_not_null()).count().get_result(conn).await?;
            Ok(MailCounts { pending, oldest, failed })
        })
        .await
    }
}

/// Postpones due mails to `until`: other processes can't claim them before, and send them if this process dies.
async fn claim(conn: &mut Conn, now: Timestamp, until: Timestamp, limit: i64) -> Result<Vec<ClaimedMail>> {
    let due = diesel::alias!(mails as due);
    let first = due
        .filter(due.field(mails::failed_at).is_null())
        .filter(due.field(mails::due_at).le(now))
        .order(due.field(mails::due_at))
        .select(due.field(mails::id))
        .limit(limit);
    // The condition is checked once more: another process may have claimed them since the subquery.
    let is_due = mails::failed_at.is_null().and(mails::due_at.le(now));
    let ids: Vec<i64> = diesel::update(mails::table.filter(mails::id.eq_any(first)).filter(is_due))
        .set((mails::due_at.eq(until), mails::attempts.eq(mails::attempts + 1)))
        .returning(mails::id)
        .get_results(conn)
        .await?;
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let claimed = mails::table
        .inner_join(users::table)
        .filter(mails::id.eq_any(ids))
        .select((
            mails::id,
            mails::user_id,
            mails::kind,
            mails::message_id,
            mails::created_at,
            mails::attempts,
            users::email,
        ))
        .load(conn)
        .await?;
    Ok(claimed)
}
