//! Every list query of the PostgreSQL adapter is served by an index.
//!
//! The statements are those that the adapter really sends: auto_explain puts their plans into the
//! server's log, and a function makes the log readable here.

use testbed::Postgres;
use tutord_core::model::progress::{Board, starts_on};
use tutord_core::model::{CandidateFilter, Difficulty, ExerciseStatus, Metric, NewSubmission, Order, Period};
use tutord_core::{Database, PageRequest, Position};

use crate::exercises::moment;
use crate::fixture::{self, Fixture};

/// Tables that grow with use: none may be read from end to end.
const GROWING: [&str; 14] = [
    "users",
    "sessions",
    "session_tokens",
    "email_tokens",
    "conversations",
    "messages",
    "idempotency_keys",
    "user_exercises",
    "submissions",
    "user_achievements",
    "skill_levels",
    "activity",
    "leaderboard_entries",
    "leaderboard_counts",
];

/// A well-filled database, and a store on it whose plans are logged.
async fn explained() -> (Fixture, std::sync::Arc<dyn Database>, String) {
    let fixture = fixture::postgres().await;
    fixture.seed(&crate::seed::plan(2_000, 10_000, 60_000, 10), &|_| {}).await.unwrap();
    fixture.execute(FILL).await;
    fixture.recount_leaderboards().await.unwrap();
    // Only these: of an empty table a scan is right, and the planner should not know that it is empty.
    let filled = "exercises, user_exercises, submissions, achievements, user_achievements, skill_levels, activity, \
        leaderboards, leaderboard_entries, leaderboard_counts";
    fixture.execute(&format!("VACUUM ANALYZE {filled}")).await;
    let tag = fixture.url.rsplit('/').next().unwrap().to_owned();
    let client = Postgres::shared().await.unwrap().client(&tag).await.unwrap();
    for setting in [
        "session_preload_libraries = 'auto_explain'",
        "auto_explain.log_min_duration = 0",
        "auto_explain.log_nested_statements = on",
        // Planned without a look at the values, as a prepared statement is after a few uses.
        "plan_cache_mode = force_generic_plan",
        "log_min_messages = log",
    ] {
        client.batch_execute(&format!("ALTER DATABASE {tag} SET {setting}")).await.unwrap();
    }
    let store = fixture::open(&fixture.url).await;
    (fixture, store, tag)
}

/// Many rows of the exercises' tables; what they say does not matter here.
const FILL: &str = "
    INSERT INTO exercises (slug, title, description, instructions, exercise_type, difficulty, programming_language, created_at)
        SELECT 'slug' || n, 't', 'd', 'i', 'algorithm', 'easy', 'rust', now() FROM generate_series(1, 3000) AS n;
    INSERT INTO user_exercises (user_id, exercise_id, status, completed_at, completed_on, ended_at, daily_date, created_at, updated_at)
        SELECT u.id, e.id, 'completed', now(), '2026-01-01', now(), date '2026-01-01' + (e.id % 20)::int, now(), now()
        FROM users u, exercises e WHERE e.id % 100 < 20 AND e.id <= 100;
    INSERT INTO submissions (user_exercise_id, solution, created_at) SELECT id, 's', now() FROM user_exercises;
    INSERT INTO achievements (slug, name, title, description, category, rarity, requirement_value, requirement_description)
        SELECT 'slug' || n, 'n', 't', 'd', 'streak', 'rare', n, 'r' FROM generate_series(1, 20) AS n;
    INSERT INTO user_achievements (user_id, achievement_id, unlocked_at)
        SELECT u.id, a.id, now() FROM users u, achievements a;
    INSERT INTO skill_levels (user_id, topic, level, level_updated_at)
        SELECT id, 'topic' || n, 'beginner', now() FROM users, generate_series(1, 10) AS n;
    INSERT INTO activity SELECT id, 'daily', date '2026-01-01' + n, 1, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 1, 0, 0, 0
        FROM users, generate_series(1, 20) AS n;
    INSERT INTO activity SELECT id, 'all', '1970-01-01', 1, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 1, 0, 0, 0 FROM users;
    INSERT INTO leaderboards (metric, period, starts_on, language)
        SELECT 'points', 'all', '1970-01-01', '' || CASE n WHEN 0 THEN '' ELSE n::text END FROM generate_series(0, 9) AS n;
    INSERT INTO leaderboard_entries (leaderboard_id, user_id, value) SELECT l.id, u.id, u.id * 7 FROM leaderboards l, users u;
";

/// The lines of the server's log since `from` that tell of a sequential scan of a growing table.
async fn sequential_scans(tag: &str, from: i64) -> (Vec<String>, usize) {
    let client = Postgres::shared().await.unwrap().client(tag).await.unwrap();
    let log = client.query_one("SELECT pg_read_file(current_setting('data_directory') || '/../server.log')", &[]).await;
    let log: String = log.unwrap().get(0);
    let log = &log[usize::try_from(from).unwrap()..];
    let scans = log
        .lines()
        .filter(|line| line.contains("Seq Scan on "))
        .filter(|line| {
            let table = line.split("Seq Scan on ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
            GROWING.contains(&table)
        })
        .map(|line| line.trim().to_owned())
        .collect();
    (scans, log.matches("Query Text:").count())
}

async fn log_length(tag: &str) -> i64 {
    let client = Postgres::shared().await.unwrap().client(tag).await.unwrap();
    let sql = "SELECT size FROM pg_stat_file(current_setting('data_directory') || '/../server.log')";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Every read that a page or a request makes, at the beginning and deep inside.
async fn read_everything(store: &dyn Database) {
    let plan = crate::seed::plan(2_000, 10_000, 60_000, 10);
    let user = store.credentials(&plan.email(1)).await.unwrap().unwrap().user.id;
    store.user(user).await.unwrap();
    store.identity(&[1; 32], None).await.unwrap();
    let list = store.list_conversations(user, &PageRequest::first(5)).await.unwrap();
    let next = list.next.expect("the first student has many conversations");
    for position in [Position::Offset(10), Position::Cursor(next)] {
        store.list_conversations(user, &PageRequest { limit: 5, position }).await.unwrap();
    }
    let id = list.items[0].id;
    for order in [Order::Asc, Order::Desc] {
        let first = store.conversation_page(user, id, order, &PageRequest::first(2)).await.unwrap().unwrap();
        let mut positions = vec![Position::Offset(1)];
        positions.extend(first.messages.next.map(Position::Cursor));
        for position in positions {
            let page = PageRequest { limit: 2, position };
            store.conversation_page(user, id, order, &page).await.unwrap().unwrap();
        }
    }
    store.last_exchange(user, id, 50).await.unwrap();
    store.purge_conversations(100).await.unwrap();
    read_exercises(store, user).await;
    read_progress(store, user).await;
}

/// The same of exercises, and the ways of one.
async fn read_exercises(store: &dyn Database, user: i64) {
    let now = moment(0, 0);
    store.exercise(user, 1).await.unwrap();
    store.newest_daily(user).await.unwrap();
    store.due_exercise(user, now.day).await.unwrap();
    store.ended_exercises(user, 10).await.unwrap();
    store.exercise_difficulty(user).await.unwrap();
    let language = CandidateFilter { language: Some("rust".to_owned()), difficulty: Some(Difficulty::Easy) };
    store.daily_candidates(user, &language, 5).await.unwrap();
    for status in [None, Some(ExerciseStatus::Completed)] {
        let first = store.exercise_history(user, status, &PageRequest::first(3)).await.unwrap();
        let position = Position::Cursor(first.next.expect("twenty are completed"));
        store.exercise_history(user, status, &PageRequest { limit: 3, position }).await.unwrap();
    }
    store.history_before(user, None, 5).await.unwrap();
    // A repeated completion returns the same result.
    store.complete_exercise(user, 1, None, now.clone()).await.unwrap();
    let next = store.daily_candidates(user, &language, 1).await.unwrap()[0].id;
    store.submit_solution(user, next, &NewSubmission::new("x", None), now.at).await.unwrap();
    store.complete_exercise(user, next, None, now).await.unwrap();
}

async fn read_progress(store: &dyn Database, user: i64) {
    let now = moment(0, 0);
    store.progress(user).await.unwrap();
    store.activity(user, now.day.plus_days(-30), now.day).await.unwrap();
    store.newest_activity(user).await.unwrap().unwrap();
    store.skill_levels(user).await.unwrap();
    store.skill_level(user, "topic1").await.unwrap().unwrap();
    let board = Board {
        metric: Metric::Points,
        period: Period::All,
        starts_on: starts_on(Period::All, now.day),
        language: String::new(),
    };
    let first = store.leaderboard(&board, &PageRequest::first(5)).await.unwrap();
    for position in [Position::Offset(100), Position::Cursor(first.next.expect("two thousand students"))] {
        store.leaderboard(&board, &PageRequest { limit: 5, position }).await.unwrap();
    }
    let around = store.leaderboard_around(&board, user, 5).await.unwrap();
    assert_eq!((around.own.is_some(), around.total), (true, 2_000));
    store.fold_leaderboards(100).await.unwrap();
}

// One test, not two: both read the one log of the shared server.
#[tokio::test(flavor = "multi_thread")]
async fn no_list_query_scans_a_growing_table_and_a_missing_index_is_found() {
    let (_fixture, store, tag) = explained().await;
    read_everything(store.as_ref()).await;
    let from = log_length(&tag).await;
    read_everything(store.as_ref()).await;
    let (scans, plans) = sequential_scans(&tag, from).await;
    assert!(plans >= 60, "only {plans} plans were logged");
    assert_eq!(scans, Vec::<String>::new());

    let client = Postgres::shared().await.unwrap().client(&tag).await.unwrap();
    client.batch_execute("DROP INDEX conversations_activity; DROP INDEX conversations_user").await.unwrap();
    let from = log_length(&tag).await;
    let user = 1;
    store.list_conversations(user, &PageRequest::first(5)).await.unwrap();
    let (scans, _) = sequential_scans(&tag, from).await;
    assert!(!scans.is_empty(), "the missing index was not noticed");
}
