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
use diesel::query_builder::{BoxedSqlQuery, SqlQuery};
use diesel::sql_types::{BigInt, Bool, Integer, Nullable, Text};
use diesel_async::{AsyncConnectionCore, RunQueryDsl};
use tutord_core::model::progress::{Board, LeaderboardEntry, Neighbourhood, starts_on, utc_day};
use tutord_core::model::{Metric, Period};
use tutord_core::page::{Cursor, Page, PageRequest, Position};
use tutord_core::rules::{BoardValues, CompletedExercise};
use tutord_core::schema::{leaderboard_entries, leaderboards};
use tutord_core::sql_types::Day;
use tutord_core::{LocalDate, Result, Timestamp};

use super::Conn;
use super::locks::lock_student;
use crate::cached_statement::{CachedStatement, Optional};

/// The levels of the tree: exact values, and groups of 256 and of 65,536.
const LEVELS: [(i32, i64); 3] = [(0, 1), (1, 256), (2, 65_536)];

/// A leaderboard with the student's entry on it, where there is one.
#[derive(Debug, Queryable)]
pub(super) struct BoardEntry {
    id: i64,
    metric: Metric,
    period: Period,
    starts_on: LocalDate,
    language: String,
    value: Option<i64>,
}

/// The periods of leaderboards.
pub(super) const PERIODS: [Period; 3] = [Period::All, Period::Weekly, Period::Monthly];

/// Selects the leaderboards of the periods that contain `day`, of these languages, with the student's entries.
macro_rules! board_entries {
    ($user_id:expr, $day:expr, $languages:expr) => {{
        let [all, weekly, monthly] = PERIODS
            .map(|period| leaderboards::period.eq(period).and(leaderboards::starts_on.eq(starts_on(period, $day))));
        leaderboards::table
            .left_join(leaderboard_entries::table.on(
                leaderboard_entries::leaderboard_id.eq(leaderboards::id).and(leaderboard_entries::user_id.eq($user_id)),
            ))
            .filter($languages)
            .filter(all.or(weekly).or(monthly))
            .select((
                leaderboards::id,
                leaderboards::metric,
                leaderboards::period,
                leaderboards::starts_on,
                leaderboards::language,
                leaderboard_entries::value.nullable(),
            ))
    }};
}

pub(super) use board_entries;

/// Completes entries that were read: reads those of leaderboards that do not exist yet, which it creates.
async fn complete_entries(
    conn: &mut Conn,
    found: Vec<BoardEntry>,
    user_id: i64,
    day: LocalDate,
    languages: &[&str],
) -> Result<Vec<BoardEntry>> {
    let count = PERIODS.len() * languages.len() * Metric::ALL.len();
    if found.len() == count {
        return Ok(found);
    }
    let sql = format!(
        "INSERT INTO leaderboards (metric, period, starts_on, language) VALUES {} ON CONFLICT DO NOTHING",
        rows("", 1, 4, count)
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
    let insert = CachedStatement(insert);
    let wanted = board_entries!(user_id, day, leaderboards::language.eq_any(languages));
    let (_, entries) = pipelined!(conn, insert.execute, wanted.load::<BoardEntry>);
    Ok(entries)
}

/// Returns the changes of a student's entries by a completion: leaderboard, old value, new value. `found` are the entries
/// of the day `read_on`.
pub(super) async fn changes(
    conn: &mut Conn,
    user_id: i64,
    done: &CompletedExercise,
    (points, streak): (i32, i32),
    (found, read_on): (Vec<BoardEntry>, LocalDate),
) -> Result<Vec<EntryChange>> {
    let mut languages = vec!["", &done.language];
    languages.sort_unstable();
    languages.dedup();
    let day = utc_day(done.completed_at);
    // The completion was moved past an earlier one, of another day.
    let found = if day == read_on { found } else { Vec::new() };
    let entries = complete_entries(conn, found, user_id, day, &languages).await?;
    let streak = i64::from(streak);
    let changed = entries.into_iter().filter_map(|entry| {
        let old = entry.value;
        let new = match entry.metric {
            Metric::Points => old.unwrap_or(0) + i64::from(points),
            Metric::Streak => old.unwrap_or(0).max(streak),
        };
        (old != Some(new)).then_some((entry.id, old, Some(new)))
    });
    Ok(changed.collect())
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
    let entries = complete_entries(conn, Vec::new(), user_id, day, &languages).await?;
    let changed = entries.into_iter().filter_map(|entry| {
        let key = (entry.period, entry.starts_on, entry.language, entry.metric);
        let new = found.0.get(&key).copied();
        (entry.value != new).then_some((entry.id, entry.value, new))
    });
    let changed: Vec<_> = changed.collect();
    store(conn, user_id, hidden, &changed).await
}

/// A statement whose text depends on a number of rows.
type RowsStatement = CachedStatement<BoxedSqlQuery<'static, <Conn as AsyncConnectionCore>::Backend, SqlQuery>>;

/// Stores the new values of entries of a student.
pub(super) fn stored_entries(user_id: i64, hidden: bool, changed: &[EntryChange]) -> Optional<RowsStatement> {
    let stored: Vec<(i64, i64)> = changed.iter().filter_map(|(id, _, new)| Some((*id, (*new)?))).collect();
    if stored.is_empty() {
        return Optional(None);
    }
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
    Optional(Some(CachedStatement(query)))
}

/// Appends to the changes that the tree does not include yet. Hidden entries are not in the tree.
pub(super) fn appended_changes(hidden: bool, changed: &[EntryChange]) -> Optional<RowsStatement> {
    let changes: Vec<(i64, i64, i64)> = changed
        .iter()
        .flat_map(|(id, old, new)| [(id, *old, -1_i64), (id, *new, 1)])
        .filter_map(|(id, value, delta)| Some((*id, value?, delta)))
        .collect();
    if changes.is_empty() || hidden {
        return Optional(None);
    }
    let placeholders = rows("", 1, 3, changes.len());
    let sql = format!("INSERT INTO leaderboard_changes (leaderboard_id, value, delta) VALUES {placeholders}");
    let mut query = diesel::sql_query(sql).into_boxed();
    for (id, value, delta) in changes {
        query = query.bind::<BigInt, _>(id).bind::<BigInt, _>(value).bind::<BigInt, _>(delta);
    }
    Optional(Some(CachedStatement(query)))
}

/// A change of a student's entry: leaderboard, old value, new value.
pub(super) type EntryChange = (i64, Option<i64>, Option<i64>);

/// Stores entries of a student and appends the changes.
async fn store(conn: &mut Conn, user_id: i64, hidden: bool, changed: &[EntryChange]) -> Result<()> {
    let gone: Vec<i64> = changed.iter().filter(|(_, _, new)| new.is_none()).map(|(id, ..)| *id).collect();
    if !gone.is_empty() {
        let own = leaderboard_entries::table.filter(leaderboard_entries::user_id.eq(user_id));
        diesel::delete(own.filter(leaderboard_entries::leaderboard_id.eq_any(gone))).execute(conn).await?;
    }
    stored_entries(user_id, hidden, changed).execute(conn).await?;
    appended_changes(hidden, changed).execute(conn).await?;
    Ok(())
}

/// `(common $first, $first+1), (…), …`: the placeholders of `count` rows with `columns` values each.
fn rows(common: &str, first: usize, columns: usize, count: usize) -> String {
    let row = |row: usize| {
        let numbers = (0..columns).map(|column| format!("${}", first + row * columns + column));
        format!("({common}{})", numbers.collect::<Vec<_>>().join(", "))
    };
    (0..count).map(row).collect::<Vec<_>>().join(", ")
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
    // Hidden entries leave the tree, and shown ones enter it.
    appended_changes(false, &changed).execute(conn).await?;
    Ok(())
}

/// An entry with its rank, on the leaderboard's only row without an entry if the page is empty.
#[derive(QueryableByName)]
struct RankedRow {
    #[diesel(sql_type = Nullable<BigInt>)]
    user_id: Option<i64>,
    #[diesel(sql_type = Nullable<Text>)]
    display_name: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    avatar_url: Option<String>,
    #[diesel(sql_type = Nullable<BigInt>)]
    value: Option<i64>,
    #[diesel(sql_type = BigInt)]
    rank: i64,
    #[diesel(sql_type = BigInt)]
    total: i64,
}

const DOWN: &str = "e.value DESC, e.user_id";
const UP: &str = "e.value, e.user_id DESC";

/// Selects the id of the leaderboard `$1` to `$4`.
const BOARD: &str = "SELECT id FROM leaderboards \
     WHERE period = $1 AND starts_on = $2 AND language = $3 AND metric = $4";

/// Entries of the leaderboard.
fn entries(condition: &str, order: &str, cut: &str) -> String {
    // `NOT e.hidden` stands as text: a bound value could not use the partial index.
    format!(
        "SELECT e.user_id, e.value FROM leaderboard_entries e \
         WHERE e.leaderboard_id = (SELECT id FROM board) AND NOT e.hidden {condition} ORDER BY {order} {cut}"
    )
}

/// Ranks the entries of a page, all as of one instant.
///
/// Who they are is looked up for the page alone, by one index look-up each: of a join, an offset would look up
/// all that it passes over, and a plan made without knowing the limit would read all students.
fn ranked(page: &str) -> String {
    // Each level of the tree gives what its parents have not: the siblings above the value's own bucket.
    let siblings =
        "COALESCE((SELECT SUM(students) FROM leaderboard_counts WHERE leaderboard_id = (SELECT id FROM board)";
    let changes = "COALESCE((SELECT SUM(delta) FROM leaderboard_changes WHERE leaderboard_id = (SELECT id FROM board)";
    let highest = "(SELECT highest FROM bounds)";
    let lowest = "(SELECT lowest FROM bounds)";
    format!(
        "WITH board AS ({BOARD}), page AS MATERIALIZED ({page}), \
         bounds AS MATERIALIZED (SELECT COALESCE(MAX(value), 0) AS highest, COALESCE(MIN(value), 0) AS lowest FROM page), \
         above AS MATERIALIZED (SELECT \
         {siblings} AND level = 0 AND bucket > {highest} AND bucket <= ({highest} | 255)), 0) \
         + {siblings} AND level = 1 AND bucket > ({highest} >> 8) AND bucket <= (({highest} >> 8) | 255)), 0) \
         + {siblings} AND level = 2 AND bucket > ({highest} >> 16)), 0) \
         + {changes} AND value > {highest}), 0) AS students, \
         {siblings} AND level = 2), 0) + {changes}), 0) AS total), \
         counts AS MATERIALIZED (SELECT value, SUM(students) AS students FROM ( \
         SELECT bucket AS value, students FROM leaderboard_counts WHERE leaderboard_id = (SELECT id FROM board) \
         AND level = 0 AND bucket >= {lowest} AND bucket <= {highest} \
         UNION ALL SELECT value, delta FROM leaderboard_changes WHERE leaderboard_id = (SELECT id FROM board) \
         AND value >= {lowest} AND value <= {highest}) AS counted GROUP BY value) \
         SELECT page.user_id, page.value, \
         (SELECT u.name FROM users u WHERE u.id = page.user_id) AS display_name, \
         (SELECT u.avatar_url FROM users u WHERE u.id = page.user_id) AS avatar_url, \
         CAST(1 + above.students + COALESCE((SELECT SUM(students) FROM counts WHERE counts.value > page.value), 0) \
         AS BIGINT) AS rank, CAST(above.total AS BIGINT) AS total \
         FROM above LEFT JOIN page ON TRUE ORDER BY page.value DESC, page.user_id"
    )
}

/// Binds the leaderboard to `$1` to `$4`.
macro_rules! of_board {
    ($sql:expr, $board:expr) => {
        diesel::sql_query($sql)
            .bind::<Text, _>($board.period)
            .bind::<Day, _>($board.starts_on)
            .bind::<Text, _>(&$board.language)
            .bind::<Text, _>($board.metric)
    };
}

/// Returns the entries, and the number of entries of the leaderboard.
fn rows_of(rows: Vec<RankedRow>) -> (Vec<LeaderboardEntry>, i64) {
    let total = <[RankedRow]>::first(&rows).map_or(0, |row| row.total);
    let entries = rows.into_iter().filter_map(|row| {
        Some(LeaderboardEntry {
            rank: row.rank,
            user_id: row.user_id?,
            display_name: row.display_name?,
            avatar_url: row.avatar_url,
            value: row.value?,
        })
    });
    (entries.collect(), total)
}

/// Returns a page of a leaderboard. The cost grows with the offset, which the caller limits.
pub(super) async fn page(conn: &mut Conn, board: &Board, page: &PageRequest) -> Result<Page<LeaderboardEntry>> {
    let rows: Vec<RankedRow> = match page.position {
        Position::Cursor(cursor) => {
            let (value, user_id) = cursor.value();
            let after = entries("AND e.value <= $5 AND (e.value < $5 OR e.user_id > $6)", DOWN, "LIMIT $7");
            let query = of_board!(ranked(&after), board).bind::<BigInt, _>(value).bind::<BigInt, _>(user_id);
            CachedStatement(query.bind::<BigInt, _>(page.limit + 1)).load(conn).await?
        }
        Position::Offset(offset) => {
            let query = of_board!(ranked(&entries("", DOWN, "LIMIT $5 OFFSET $6")), board);
            CachedStatement(query.bind::<BigInt, _>(page.limit + 1).bind::<BigInt, _>(offset)).load(conn).await?
        }
    };
    let (entries, total) = rows_of(rows);
    Ok(Page::cut(entries, total, page.limit, |last| Cursor::after_value(last.value, last.user_id)))
}

#[derive(QueryableByName)]
struct OwnEntry {
    #[diesel(sql_type = Bool)]
    opted_out: bool,
    #[diesel(sql_type = Nullable<BigInt>)]
    value: Option<i64>,
}

/// Returns a student's place and the neighbours.
pub(super) async fn around(conn: &mut Conn, board: &Board, user_id: i64, neighbours: i64) -> Result<Neighbourhood> {
    let own = format!(
        "SELECT leaderboard_opt_out AS opted_out, (SELECT e.value FROM leaderboard_entries e \
         WHERE e.leaderboard_id = ({BOARD}) AND e.user_id = users.id AND NOT e.hidden) AS value \
         FROM users WHERE id = $5"
    );
    let OwnEntry { opted_out, value } =
        CachedStatement(of_board!(own, board).bind::<BigInt, _>(user_id)).get_result(conn).await?;
    // Without an entry, no other is read.
    let (value, neighbours) = value.map_or((-1, 0), |value| (value, neighbours));
    let before = entries("AND e.value >= $5 AND (e.value > $5 OR e.user_id < $6)", UP, "LIMIT $7");
    let own = entries("AND e.value = $5 AND e.user_id = $6", DOWN, "");
    let after = entries("AND e.value <= $5 AND (e.value < $5 OR e.user_id > $6)", DOWN, "LIMIT $7");
    let around = format!(
        "SELECT * FROM ({before}) AS b UNION ALL SELECT * FROM ({own}) AS o UNION ALL SELECT * FROM ({after}) AS a"
    );
    let query = of_board!(ranked(&around), board).bind::<BigInt, _>(value).bind::<BigInt, _>(user_id);
    let (mut entries, total) = rows_of(CachedStatement(query.bind::<BigInt, _>(neighbours)).load(conn).await?);
    let Some(place) = entries.iter().position(|entry| entry.user_id == user_id) else {
        // The entry has changed between the statements, or there is none.
        return Ok(Neighbourhood { opted_out, own: None, before: Vec::new(), after: Vec::new(), total });
    };
    let after = entries.split_off(place + 1);
    let own = entries.pop();
    Ok(Neighbourhood { opted_out, own, before: entries, after, total })
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
