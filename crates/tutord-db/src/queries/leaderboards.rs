//! Leaderboards: entries ordered by value, and a tree of counts that determines ranks.
//!
//! The rank of a value is one more than the number of students with a higher one. Counting them would
//! read half a leaderboard on average; instead a radix tree of counts with 256 children a node says how
//! many there are in at most some five hundred rows (the order-statistic tree of Cormen et al.,
//! "Introduction to Algorithms", ch. 14, kept in rows). Completions do not write to the tree, where all of
//! them would meet at the root, but append their changes; [`fold`] brings the tree up to date in the
//! background, and ranks add what it has not seen yet. So ranks are exact at any time.

use std::collections::BTreeMap;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Integer, Nullable, Text};
use diesel_async::RunQueryDsl;
use tutord_core::model::progress::{Board, LeaderboardEntry, Neighbourhood, starts_on, utc_day};
use tutord_core::model::{Metric, Period};
use tutord_core::page::{Cursor, Page, PageRequest, Position};
use tutord_core::rules::{BoardValues, CompletedExercise};
use tutord_core::schema::{leaderboard_entries, leaderboards, users};
use tutord_core::sql_types::Day;
use tutord_core::{LocalDate, Result, Timestamp};

use super::Conn;
use super::locks::lock_student;
use crate::cached_statement::CachedStatement;

/// The levels of the tree: exact values, and groups of 256 and of 65,536.
const LEVELS: [(i32, i64); 3] = [(0, 1), (1, 256), (2, 65_536)];

/// A leaderboard with the student's entry on it, where there is one.
#[derive(Debug, Queryable)]
struct BoardEntry {
    id: i64,
    metric: Metric,
    period: Period,
    starts_on: LocalDate,
    language: String,
    value: Option<i64>,
}

/// Returns the leaderboards of the periods that contain `day`, of these languages; creates missing ones.
async fn board_entries(conn: &mut Conn, user_id: i64, day: LocalDate, languages: &[&str]) -> Result<Vec<BoardEntry>> {
    const PERIODS: [Period; 3] = [Period::All, Period::Weekly, Period::Monthly];
    let [all, weekly, monthly] =
        PERIODS.map(|period| leaderboards::period.eq(period).and(leaderboards::starts_on.eq(starts_on(period, day))));
    let wanted = || {
        leaderboards::table
            .left_join(leaderboard_entries::table.on(
                leaderboard_entries::leaderboard_id.eq(leaderboards::id).and(leaderboard_entries::user_id.eq(user_id)),
            ))
            .filter(leaderboards::language.eq_any(languages))
            .filter(all.or(weekly).or(monthly))
            .select((
                leaderboards::id,
                leaderboards::metric,
                leaderboards::period,
                leaderboards::starts_on,
                leaderboards::language,
                leaderboard_entries::value.nullable(),
            ))
    };
    let found: Vec<BoardEntry> = wanted().load(conn).await?;
    if found.len() == PERIODS.len() * languages.len() * Metric::ALL.len() {
        return Ok(found);
    }
    let missing = PERIODS.len() * languages.len() * Metric::ALL.len();
    let sql = format!(
        "INSERT INTO leaderboards (metric, period, starts_on, language) VALUES {} ON CONFLICT DO NOTHING",
        rows("", 1, 4, missing)
    );
    let mut insert = diesel::sql_query(sql).into_boxed();
    // The same order everywhere: two transactions that make the same leaderboards wait, but not in a circle.
    for period in PERIODS {
        for language in languages {
            for metric in Metric::ALL {
                insert = insert.bind::<Text, _>(*metric).bind::<Text, _>(period);
                insert = insert.bind::<Day, _>(starts_on(period, day)).bind::<Text, _>(*language);
            }
        }
    }
    insert.execute(conn).await?;
    Ok(wanted().load(conn).await?)
}

/// Counts a completion on its leaderboards.
pub(super) async fn count(
    conn: &mut Conn,
    user_id: i64,
    done: &CompletedExercise,
    points: i32,
    streak: i32,
) -> Result<()> {
    let hidden = lock_student(conn, user_id).await?;
    let mut languages = vec!["", &done.language];
    languages.sort_unstable();
    languages.dedup();
    let entries = board_entries(conn, user_id, utc_day(done.completed_at), &languages).await?;
    let streak = i64::from(streak);
    let changed = entries.into_iter().filter_map(|entry| {
        let old = entry.value;
        let new = match entry.metric {
            Metric::Points => old.unwrap_or(0) + i64::from(points),
            Metric::Streak => old.unwrap_or(0).max(streak),
        };
        (old != Some(new)).then_some((entry.id, old, Some(new)))
    });
    let changed: Vec<_> = changed.collect();
    store(conn, user_id, hidden, &changed).await
}

/// Replaces a student's entries by the result of a recomputation.
pub(super) async fn replace(conn: &mut Conn, user_id: i64, found: &BoardValues, now: Timestamp) -> Result<()> {
    let hidden = lock_student(conn, user_id).await?;
    let day = utc_day(now);
    let mut languages: Vec<&str> = found.0.keys().map(|(_, _, language, _)| language.as_str()).collect();
    let own: Vec<String> = leaderboard_entries::table
        .inner_join(leaderboards::table.on(leaderboards::id.eq(leaderboard_entries::leaderboard_id)))
        .filter(leaderboard_entries::user_id.eq(user_id))
        .select(leaderboards::language)
        .distinct()
        .load(conn)
        .await?;
    languages.extend(own.iter().map(String::as_str));
    languages.sort_unstable();
    languages.dedup();
    if languages.is_empty() {
        return Ok(());
    }
    let entries = board_entries(conn, user_id, day, &languages).await?;
    let changed = entries.into_iter().filter_map(|entry| {
        let key = (entry.period, entry.starts_on, entry.language, entry.metric);
        let new = found.0.get(&key).copied();
        (entry.value != new).then_some((entry.id, entry.value, new))
    });
    let changed: Vec<_> = changed.collect();
    store(conn, user_id, hidden, &changed).await
}

/// Stores entries (leaderboard, old value, new value) of a student and appends the changes.
async fn store(conn: &mut Conn, user_id: i64, hidden: bool, changed: &[(i64, Option<i64>, Option<i64>)]) -> Result<()> {
    let gone: Vec<i64> = changed.iter().filter(|(_, _, new)| new.is_none()).map(|(id, ..)| *id).collect();
    if !gone.is_empty() {
        let own = leaderboard_entries::table.filter(leaderboard_entries::user_id.eq(user_id));
        diesel::delete(own.filter(leaderboard_entries::leaderboard_id.eq_any(gone))).execute(conn).await?;
    }
    let stored: Vec<(i64, i64)> = changed.iter().filter_map(|(id, _, new)| Some((*id, (*new)?))).collect();
    if !stored.is_empty() {
        // The student's other entries of the same call are as hidden as this one.
        let sql = format!(
            "INSERT INTO leaderboard_entries (user_id, hidden, leaderboard_id, value) VALUES {} \
             ON CONFLICT (leaderboard_id, user_id) DO UPDATE SET value = excluded.value",
            rows("$1, $2, ", 3, 2, stored.len())
        );
        let mut query = diesel::sql_query(sql).into_boxed().bind::<BigInt, _>(user_id).bind::<Bool, _>(hidden);
        for (id, value) in stored {
            query = query.bind::<BigInt, _>(id).bind::<BigInt, _>(value);
        }
        query.execute(conn).await?;
    }
    if hidden {
        return Ok(());
    }
    append(conn, changed).await
}

/// `(common $first, $first+1), (…), …`: the placeholders of `count` rows with `columns` values each.
fn rows(common: &str, first: usize, columns: usize, count: usize) -> String {
    let row = |row: usize| {
        let numbers = (0..columns).map(|column| format!("${}", first + row * columns + column));
        format!("({common}{})", numbers.collect::<Vec<_>>().join(", "))
    };
    (0..count).map(row).collect::<Vec<_>>().join(", ")
}

/// Appends to the changes that the tree does not include yet.
async fn append(conn: &mut Conn, changed: &[(i64, Option<i64>, Option<i64>)]) -> Result<()> {
    let changes: Vec<(i64, i64, i64)> = changed
        .iter()
        .flat_map(|(id, old, new)| [(id, *old, -1_i64), (id, *new, 1)])
        .filter_map(|(id, value, delta)| Some((*id, value?, delta)))
        .collect();
    if changes.is_empty() {
        return Ok(());
    }
    let placeholders = rows("", 1, 3, changes.len());
    let sql = format!("INSERT INTO leaderboard_changes (leaderboard_id, value, delta) VALUES {placeholders}");
    let mut query = diesel::sql_query(sql).into_boxed();
    for (id, value, delta) in changes {
        query = query.bind::<BigInt, _>(id).bind::<BigInt, _>(value).bind::<BigInt, _>(delta);
    }
    query.execute(conn).await?;
    Ok(())
}

/// Hides or shows all entries of a student.
pub(super) async fn set_hidden(conn: &mut Conn, user_id: i64, hidden: bool) -> Result<()> {
    let own = leaderboard_entries::table.filter(leaderboard_entries::user_id.eq(user_id));
    let entries: Vec<(i64, i64)> =
        own.select((leaderboard_entries::leaderboard_id, leaderboard_entries::value)).load(conn).await?;
    CachedStatement(diesel::update(own).set(leaderboard_entries::hidden.eq(hidden))).execute(conn).await?;
    let changed: Vec<_> = entries
        .into_iter()
        .map(|(id, value)| if hidden { (id, Some(value), None) } else { (id, None, Some(value)) })
        .collect();
    append(conn, &changed).await
}

#[derive(QueryableByName)]
struct EntryRow {
    #[diesel(sql_type = BigInt)]
    user_id: i64,
    #[diesel(sql_type = Text)]
    display_name: String,
    #[diesel(sql_type = Nullable<Text>)]
    avatar_url: Option<String>,
    #[diesel(sql_type = BigInt)]
    value: i64,
}

const DOWN: &str = "e.value DESC, e.user_id";
const UP: &str = "e.value, e.user_id DESC";

/// Entries of leaderboard `$1` with their students.
///
/// Who they are is looked up for the page alone, by one index look-up each: of a join, an offset would look up
/// all that it passes over, and a plan made without knowing the limit would read all students.
fn entries(condition: &str, order: &str, cut: &str) -> String {
    // `NOT e.hidden` stands as text: a bound value could not use the partial index.
    format!(
        "SELECT e.user_id, e.value, (SELECT u.name FROM users u WHERE u.id = e.user_id) AS display_name, \
         (SELECT u.avatar_url FROM users u WHERE u.id = e.user_id) AS avatar_url FROM ( \
         SELECT e.user_id, e.value FROM leaderboard_entries e \
         WHERE e.leaderboard_id = $1 AND NOT e.hidden {condition} ORDER BY {order} {cut}) e ORDER BY {order}"
    )
}

/// Selects entries after (value, user) in the order of the leaderboard.
async fn entries_after(conn: &mut Conn, id: i64, after: (i64, i64), limit: i64) -> QueryResult<Vec<EntryRow>> {
    let (value, user_id) = after;
    let sql = entries("AND e.value <= $2 AND (e.value < $2 OR e.user_id > $3)", DOWN, "LIMIT $4");
    let query = diesel::sql_query(sql).bind::<BigInt, _>(id).bind::<BigInt, _>(value);
    CachedStatement(query.bind::<BigInt, _>(user_id).bind::<BigInt, _>(limit)).load(conn).await
}

/// Selects entries before (value, user), nearest first.
async fn entries_before(conn: &mut Conn, id: i64, before: (i64, i64), limit: i64) -> QueryResult<Vec<EntryRow>> {
    let (value, user_id) = before;
    let sql = entries("AND e.value >= $2 AND (e.value > $2 OR e.user_id < $3)", UP, "LIMIT $4");
    let query = diesel::sql_query(sql).bind::<BigInt, _>(id).bind::<BigInt, _>(value);
    CachedStatement(query.bind::<BigInt, _>(user_id).bind::<BigInt, _>(limit)).load(conn).await
}

async fn find(conn: &mut Conn, board: &Board) -> QueryResult<Option<i64>> {
    leaderboards::table
        .filter(leaderboards::period.eq(board.period))
        .filter(leaderboards::starts_on.eq(board.starts_on))
        .filter(leaderboards::language.eq(&board.language))
        .filter(leaderboards::metric.eq(board.metric))
        .select(leaderboards::id)
        .first(conn)
        .await
        .optional()
}

/// Returns a page of a leaderboard. The cost grows with the offset, which the caller limits.
pub(super) async fn page(conn: &mut Conn, board: &Board, page: &PageRequest) -> Result<Page<LeaderboardEntry>> {
    let Some(id) = find(conn, board).await? else {
        return Ok(Page::cut(Vec::new(), 0, page.limit, |_: &LeaderboardEntry| Cursor::after_value(0, 1)));
    };
    let rows = match page.position {
        Position::Cursor(cursor) => entries_after(conn, id, cursor.value(), page.limit + 1).await?,
        Position::Offset(offset) => {
            let query = diesel::sql_query(entries("", DOWN, "LIMIT $2 OFFSET $3"))
                .bind::<BigInt, _>(id)
                .bind::<BigInt, _>(page.limit + 1);
            CachedStatement(query.bind::<BigInt, _>(offset)).load(conn).await?
        }
    };
    let (entries, total) = ranked(conn, id, rows).await?;
    Ok(Page::cut(entries, total, page.limit, |last| Cursor::after_value(last.value, last.user_id)))
}

/// Returns a student's place and the neighbours.
pub(super) async fn around(conn: &mut Conn, board: &Board, user_id: i64, neighbours: i64) -> Result<Neighbourhood> {
    let opted_out = users::table.find(user_id).select(users::leaderboard_opt_out).first(conn).await?;
    let nowhere = Neighbourhood { opted_out, own: None, before: Vec::new(), after: Vec::new(), total: 0 };
    let Some(id) = find(conn, board).await? else { return Ok(nowhere) };
    let own = diesel::sql_query(entries("AND e.user_id = $2", DOWN, ""));
    let own = CachedStatement(own.bind::<BigInt, _>(id).bind::<BigInt, _>(user_id));
    let own: Option<EntryRow> = own.get_result(conn).await.optional()?;
    let Some(own) = own else {
        return Ok(Neighbourhood { total: ranked(conn, id, Vec::new()).await?.1, ..nowhere });
    };
    let place = (own.value, user_id);
    let mut rows = entries_before(conn, id, place, neighbours).await?;
    rows.reverse();
    let before = rows.len();
    rows.push(own);
    rows.extend(entries_after(conn, id, place, neighbours).await?);
    let (mut entries, total) = ranked(conn, id, rows).await?;
    let after = entries.split_off((before + 1).min(entries.len()));
    let own = entries.pop();
    Ok(Neighbourhood { opted_out, own, before: entries, after, total })
}

#[derive(QueryableByName)]
struct RankCounts {
    #[diesel(sql_type = BigInt)]
    above: i64,
    #[diesel(sql_type = BigInt)]
    total: i64,
}

#[derive(QueryableByName)]
struct ValueCount {
    #[diesel(sql_type = BigInt)]
    value: i64,
    #[diesel(sql_type = BigInt)]
    students: i64,
}

/// Returns the ranks of consecutive entries, and the number of entries of the leaderboard.
async fn ranked(conn: &mut Conn, id: i64, rows: Vec<EntryRow>) -> Result<(Vec<LeaderboardEntry>, i64)> {
    let highest = <[EntryRow]>::first(&rows).map_or(0, |row| row.value);
    let lowest = rows.last().map_or(0, |row| row.value);
    // Each level of the tree gives what its parents have not: the siblings above the value's own bucket.
    let siblings = "COALESCE((SELECT SUM(students) FROM leaderboard_counts WHERE leaderboard_id = $1";
    let above = format!(
        "SELECT CAST({siblings} AND level = 0 AND bucket > $2 AND bucket <= $3), 0) \
         + {siblings} AND level = 1 AND bucket > $4 AND bucket <= $5), 0) \
         + {siblings} AND level = 2 AND bucket > $6), 0) \
         + COALESCE((SELECT SUM(delta) FROM leaderboard_changes WHERE leaderboard_id = $1 AND value > $2), 0) \
         AS BIGINT) AS above, \
         CAST({siblings} AND level = 2), 0) \
         + COALESCE((SELECT SUM(delta) FROM leaderboard_changes WHERE leaderboard_id = $1), 0) AS BIGINT) AS total"
    );
    let RankCounts { above, total } = CachedStatement(
        diesel::sql_query(above)
            .bind::<BigInt, _>(id)
            .bind::<BigInt, _>(highest)
            .bind::<BigInt, _>(highest | 0xff)
            .bind::<BigInt, _>(highest >> 8)
            .bind::<BigInt, _>((highest >> 8) | 0xff)
            .bind::<BigInt, _>(highest >> 16),
    )
    .get_result(conn)
    .await?;
    // Below the first entry, a rank is that of the value before and how many share that value.
    let counts = "SELECT value, CAST(SUM(students) AS BIGINT) AS students FROM ( \
         SELECT bucket AS value, students FROM leaderboard_counts \
         WHERE leaderboard_id = $1 AND level = 0 AND bucket >= $2 AND bucket <= $3 \
         UNION ALL SELECT value, delta FROM leaderboard_changes \
         WHERE leaderboard_id = $1 AND value >= $2 AND value <= $3) AS counted \
         GROUP BY value HAVING SUM(students) > 0 ORDER BY value DESC";
    let counts: Vec<ValueCount> = CachedStatement(
        diesel::sql_query(counts).bind::<BigInt, _>(id).bind::<BigInt, _>(lowest).bind::<BigInt, _>(highest),
    )
    .load(conn)
    .await?;
    let mut rank = above + 1;
    let mut ranks = BTreeMap::new();
    for count in counts {
        ranks.insert(count.value, rank);
        rank += count.students;
    }
    let entries = rows.into_iter().map(|row| LeaderboardEntry {
        // A value that was committed between the statements has the rank of the next lower one.
        rank: ranks.range(..=row.value).next_back().map_or(above + 1, |(_, rank)| *rank),
        user_id: row.user_id,
        display_name: row.display_name,
        avatar_url: row.avatar_url,
        value: row.value,
    });
    Ok((entries.collect(), total))
}

#[derive(QueryableByName)]
struct CountChange {
    #[diesel(sql_type = BigInt)]
    leaderboard_id: i64,
    #[diesel(sql_type = BigInt)]
    value: i64,
    #[diesel(sql_type = BigInt)]
    delta: i64,
}

/// Applies at most `batch` changes to the tree, and returns their number.
pub(super) async fn fold(conn: &mut Conn, batch: i64) -> Result<usize> {
    let take = "DELETE FROM leaderboard_changes WHERE id IN \
         (SELECT id FROM leaderboard_changes ORDER BY id LIMIT $1) RETURNING leaderboard_id, value, delta";
    let changes: Vec<CountChange> =
        CachedStatement(diesel::sql_query(take).bind::<BigInt, _>(batch)).load(conn).await?;
    // Sorted, so that two processes that fold at once lock the same nodes in the same order.
    let mut nodes = BTreeMap::new();
    for change in &changes {
        for (level, width) in LEVELS {
            *nodes.entry((change.leaderboard_id, level, change.value / width)).or_insert(0) += change.delta;
        }
    }
    for ((id, level, bucket), students) in nodes.into_iter().filter(|(_, students)| *students != 0) {
        let add = "INSERT INTO leaderboard_counts (leaderboard_id, level, bucket, students) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (leaderboard_id, level, bucket) \
             DO UPDATE SET students = leaderboard_counts.students + excluded.students";
        CachedStatement(
            diesel::sql_query(add)
                .bind::<BigInt, _>(id)
                .bind::<Integer, _>(level)
                .bind::<BigInt, _>(bucket)
                .bind::<BigInt, _>(students),
        )
        .execute(conn)
        .await?;
    }
    Ok(changes.len())
}

/// Removes at most `batch` entries of a leaderboard whose period is over, and the leaderboard with its last entry.
pub(super) async fn purge(conn: &mut Conn, today: LocalDate, batch: i64) -> Result<usize> {
    let over =
        |period: Period| leaderboards::period.eq(period).and(leaderboards::starts_on.lt(starts_on(period, today)));
    let ended: Option<i64> = leaderboards::table
        .filter(over(Period::Weekly).or(over(Period::Monthly)))
        .order(leaderboards::id.asc())
        .select(leaderboards::id)
        .first(conn)
        .await
        .optional()?;
    let Some(id) = ended else { return Ok(0) };
    let remove = "DELETE FROM leaderboard_entries WHERE leaderboard_id = $1 AND user_id IN \
         (SELECT user_id FROM leaderboard_entries WHERE leaderboard_id = $1 LIMIT $2)";
    let removed =
        CachedStatement(diesel::sql_query(remove).bind::<BigInt, _>(id).bind::<BigInt, _>(batch)).execute(conn).await?;
    if i64::try_from(removed).unwrap_or(i64::MAX) < batch {
        return Ok(removed + diesel::delete(leaderboards::table.find(id)).execute(conn).await?);
    }
    Ok(removed)
}

/// Recomputes the tree from the entries. Nothing else may write the entries meanwhile.
pub(super) async fn recount(conn: &mut Conn) -> Result<()> {
    exclusively!(conn, "leaderboard_entries, leaderboard_changes, leaderboard_counts");
    let statements = [
        "DELETE FROM leaderboard_changes",
        "DELETE FROM leaderboard_counts",
        "INSERT INTO leaderboard_counts (leaderboard_id, level, bucket, students) \
         SELECT leaderboard_id, 0, value, COUNT(*) FROM leaderboard_entries WHERE NOT hidden \
         GROUP BY leaderboard_id, value",
        "INSERT INTO leaderboard_counts (leaderboard_id, level, bucket, students) \
         SELECT leaderboard_id, 1, bucket / 256, SUM(students) FROM leaderboard_counts WHERE level = 0 \
         GROUP BY leaderboard_id, bucket / 256",
        "INSERT INTO leaderboard_counts (leaderboard_id, level, bucket, students) \
         SELECT leaderboard_id, 2, bucket / 256, SUM(students) FROM leaderboard_counts WHERE level = 1 \
         GROUP BY leaderboard_id, bucket / 256",
    ];
    for statement in statements {
        diesel::sql_query(statement).execute(conn).await?;
    }
    Ok(())
}
