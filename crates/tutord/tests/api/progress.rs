use reqwest::Method;
use serde_json::{Value, json};
use tutord::progress::{
    ACHIEVEMENTS_BUDGET, AROUND_BUDGET, HISTORY_BUDGET, LEADERBOARD_BUDGET, PROGRESS_BUDGET, SKILLS_BUDGET,
    STATISTICS_BUDGET,
};

use crate::support::{TestApp, TestClient, fetch};

crate::on_both!(
    the_progress_counts_completed_exercises,
    a_completion_unlocks_achievements,
    the_achievements_can_be_filtered,
    the_badges_are_the_unlocked_achievements,
    a_completion_starts_a_streak,
    // These two change rows past the store.
    a_streak_ends_after_missed_days(without_cache()),
    the_statistics_cover_their_period(without_cache()),
    the_history_has_an_entry_for_each_day,
    the_history_covers_any_year,
    an_invalid_period_of_the_history_names_the_field,
    the_level_of_a_topic_follows_its_completed_exercises,
    a_leaderboard_ranks_students_by_points,
    a_leaderboard_can_be_filtered_by_language,
    a_leaderboard_has_pages_by_offset_and_cursor,
    a_leaderboard_shows_the_neighbours_of_a_student,
    an_invalid_leaderboard_request_names_the_field,
    a_student_who_opts_out_is_not_on_the_leaderboard,
    the_export_contains_every_exercise,
    the_export_of_a_new_student_is_empty,
    the_routes_stay_within_their_statement_budgets(without_cache()),
);

async fn the_progress_counts_completed_exercises(app: &TestApp) {
    let exercises = app.load_catalogue().await;
    let ada = app.student("ada").await;
    let nothing = ada.get("/api/progress").await.assert_ok().body;
    insta::assert_json_snapshot!("progress_of_a_beginner", nothing, { ".user_id" => "[id]" });
    assert_eq!(ada.get("/api/progress/").await.assert_ok().body, nothing);
    ada.complete_exercises(&exercises[..2]).await;
    let some = ada.get("/api/progress").await.assert_ok().body;
    assert_eq!((&some["exercises_completed"], &some["total_time_spent_seconds"]), (&json!(2), &json!(120)));
    assert_eq!((&some["current_streak"], &some["longest_streak"]), (&json!(1), &json!(1)));
    assert_eq!(some["achievements"][0]["slug"], "exercises-1");
    assert!(some["skill_levels"].as_object().unwrap().values().all(|level| level == "beginner"));
    assert_eq!(ada.get("/api/users/me/progress").await.assert_ok().body["exercises_completed"], 2);
}

const ACHIEVEMENTS: &str = "/api/progress/achievements";

fn slugs(body: &Value) -> Vec<String> {
    let achievements = body["achievements"].as_array().unwrap();
    achievements.iter().map(|achievement| achievement["slug"].as_str().unwrap().to_owned()).collect()
}

async fn a_completion_unlocks_achievements(app: &TestApp) {
    let exercises = app.load_catalogue().await;
    let ada = app.student("ada").await;
    let before = ada.get(ACHIEVEMENTS).await.assert_ok().body;
    assert_eq!((&before["unlocked_count"], &before["total_count"]), (&json!(0), &json!(18)));
    assert!(!slugs(&before).contains(&"no-hint-run-5".to_owned()), "hidden until unlocked");
    ada.complete_exercises(&exercises[..5]).await;
    let after = ada.get(ACHIEVEMENTS).await.assert_ok().body;
    assert_eq!((&after["unlocked_count"], &after["total_count"]), (&json!(2), &json!(19)));
    assert_eq!(after["total_points"], 55);
    let ten = after["achievements"].as_array().unwrap().iter().find(|item| item["slug"] == "exercises-10").unwrap();
    insta::assert_json_snapshot!("achievement", ten, { ".id" => "[id]" });
    assert_eq!(ada.get("/api/users/me/achievements").await.assert_ok().body, after);
}

async fn the_achievements_can_be_filtered(app: &TestApp) {
    let exercises = app.load_catalogue().await;
    let ada = app.student("ada").await;
    ada.complete_exercises(&exercises[..5]).await;
    let streaks = ada.get(&format!("{ACHIEVEMENTS}?category=streak")).await.assert_ok().body;
    assert_eq!(streaks["total_count"], 7);
    let unlocked = ada.get(&format!("{ACHIEVEMENTS}?unlocked_only=true")).await.assert_ok().body;
    assert_eq!(slugs(&unlocked), ["exercises-1", "no-hint-run-5"]);
    ada.get(&format!("{ACHIEVEMENTS}?category=luck")).await.assert_invalid_field("category");
    ada.get(&format!("{ACHIEVEMENTS}?unlocked_only=maybe")).await.assert_invalid_field("unlocked_only");
}

async fn the_badges_are_the_unlocked_achievements(app: &TestApp) {
    let exercises = app.load_catalogue().await;
    let ada = app.student("ada").await;
    ada.complete_exercises(&exercises[..5]).await;
    let badges = ada.get("/api/progress/badges").await.assert_ok().body;
    assert_eq!(
        (&badges["total_earned"], &badges["total_available"], &badges["points_earned"]),
        (&json!(2), &json!(19), &json!(55))
    );
    let earned = badges["badges"].as_array().unwrap().iter().find(|badge| badge["type"] == "exercises-1").unwrap();
    insta::assert_json_snapshot!("badge", earned, { ".id" => "[id]", ".earned_at" => "[time]" });
}

async fn a_completion_starts_a_streak(app: &TestApp) {
    let exercises = app.load_catalogue().await;
    let ada = app.student("ada").await;
    let path = "/api/progress/update-streak";
    let streak = fetch(ada.request(Method::POST, path)).await.assert_ok().body;
    insta::assert_json_snapshot!("streak_of_a_beginner", streak);
    ada.complete_exercises(&exercises[..1]).await;
    let streak = ada.post(path, json!({"user_timezone": "Asia/Tokyo", "current_streak": 99})).await.assert_ok().body;
    assert_eq!(
        (&streak["current_streak"], &streak["streak_maintained"], &streak["new_record"]),
        (&json!(1), &json!(true), &json!(true))
    );
    ada.post(path, json!({"user_timezone": "Mars/Olympus"})).await.assert_invalid_field("user_timezone");
}

/// The profile shows the end of the streak without a write.
async fn a_streak_ends_after_missed_days(app: &TestApp) {
    let exercises = app.load_catalogue().await;
    let ada = app.student("ada").await;
    ada.complete_exercises(&exercises[..1]).await;
    let past = "2020-01-01";
    app.execute_sql(&format!("UPDATE activity SET starts_on = '{past}' WHERE period = 'daily'")).await;
    app.execute_sql(&format!("UPDATE users SET last_completed_at = NULL, last_exercise_date = '{past}'")).await;
    let streak = ada.post("/api/progress/update-streak", json!({})).await.assert_ok().body;
    assert_eq!(
        (&streak["current_streak"], &streak["streak_broken"], &streak["previous_streak"], &streak["longest_streak"]),
        (&json!(0), &json!(true), &json!(1), &json!(1))
    );
    assert_eq!(ada.get("/api/users/me").await.assert_ok().body["current_streak"], 0);
    assert_eq!(ada.get("/api/users/me/progress").await.assert_ok().body["current_streak"], 0);
}

async fn the_statistics_cover_their_period(app: &TestApp) {
    let exercises = app.load_catalogue().await;
    let ada = app.student("ada").await;
    let get = async |period: &str| ada.get(&format!("/api/progress/statistics{period}")).await.assert_ok().body;
    insta::assert_json_snapshot!("statistics_of_a_beginner", get("").await);
    ada.request_hint(exercises[0]).await.assert_ok();
    ada.complete_exercises(&exercises[..4]).await;
    let today = get("?period=daily").await;
    for period in ["?period=weekly", "?period=monthly", "?period=all", ""] {
        let sums = get(period).await;
        for field in
            ["exercises_by_difficulty", "exercises_by_type", "average_time_per_exercise", "total_hints_requested"]
        {
            assert_eq!(sums[field], today[field], "{period} {field}");
        }
    }
    assert_eq!((&today["total_hints_requested"], &today["average_time_per_exercise"]), (&json!(1), &json!(60.0)));
    let counted: i64 =
        today["exercises_by_type"].as_object().unwrap().values().map(|count| count.as_i64().unwrap()).sum();
    assert_eq!(counted, 4);
    assert_eq!(today["recent_performance_trend"][0]["exercises_completed"], 4);
    app.execute_sql("UPDATE activity SET starts_on = '2020-01-01' WHERE period = 'daily'").await;
    assert_eq!(get("?period=monthly").await["exercises_by_difficulty"], json!({"easy": 0, "medium": 0, "hard": 0}));
    assert_eq!(get("?period=all").await["exercises_by_type"], today["exercises_by_type"]);
    ada.get("/api/progress/statistics?period=yearly").await.assert_invalid_field("period");
}

const HISTORY: &str = "/api/progress/history";

async fn the_history_has_an_entry_for_each_day(app: &TestApp) {
    let exercises = app.load_catalogue().await;
    let ada = app.student("ada").await;
    ada.complete_exercises(&exercises[..2]).await;
    let month = ada.get(HISTORY).await.assert_ok().body;
    assert_eq!((&month["total_days"], month["history"].as_array().unwrap().len()), (&json!(30), 30));
    let today = month["history"][29].clone();
    assert_eq!((&today["date"], &today["exercises_completed"]), (&month["end_date"], &json!(2)));
    assert_eq!((&today["streak"], &today["time_spent_seconds"]), (&json!(1), &json!(120)));
    assert_eq!((&today["achievements_unlocked"], &month["history"][28]["exercises_completed"]), (&json!(1), &json!(0)));
    assert_eq!(ada.get(&format!("{HISTORY}?days=365")).await.assert_ok().body["total_days"], 365);
}

async fn the_history_covers_any_year(app: &TestApp) {
    let ada = app.student("ada").await;
    let leap = ada.get(&format!("{HISTORY}?start_date=2024-01-01&end_date=2024-12-31")).await.assert_ok().body;
    assert_eq!((&leap["total_days"], &leap["start_date"]), (&json!(366), &json!("2024-01-01")));
    // The first and the last day that a request can name.
    for (from, to) in [("0000-01-01", "0000-12-31"), ("9999-12-31", "9999-12-31"), ("9999-12-01", "9999-12-31")] {
        let edge = ada.get(&format!("{HISTORY}?start_date={from}&end_date={to}")).await.assert_ok().body;
        assert_eq!((&edge["start_date"], &edge["end_date"]), (&json!(from), &json!(to)));
    }
}

async fn an_invalid_period_of_the_history_names_the_field(app: &TestApp) {
    let ada = app.student("ada").await;
    for days in ["0", "-1", "366", "1000000000", "abc"] {
        assert_eq!(
            ada.get(&format!("{HISTORY}?days={days}")).await.assert_invalid_field("days"),
            "days must be between 1 and 365"
        );
    }
    for (query, field) in [
        ("start_date=2024-01-01", "end_date"),
        ("end_date=2024-01-01", "start_date"),
        ("start_date=2024-01-02&end_date=2024-01-01", "end_date"),
        ("start_date=2024-01-01&end_date=2025-01-01", "end_date"),
        ("start_date=soon&end_date=2024-01-01", "start_date"),
        ("start_date=-009999-01-01&end_date=-009999-01-02", "start_date"),
        ("start_date=2024-01-01T10:00&end_date=2024-01-02", "start_date"),
        ("start_date=2024-01-01&end_date=2024-02-30", "end_date"),
        ("start_date=2024-01-01&end_date=2024-01-02&days=3", "days"),
    ] {
        ada.get(&format!("{HISTORY}?{query}")).await.assert_invalid_field(field);
    }
}

async fn the_level_of_a_topic_follows_its_completed_exercises(app: &TestApp) {
    let exercises = app.load_catalogue().await;
    let ada = app.student("ada").await;
    let calculate = async |topic: &str| {
        ada.post("/api/progress/calculate-skill-level", json!({"topic": topic})).await.assert_ok().body
    };
    insta::assert_json_snapshot!("level_of_an_unknown_topic", calculate(" loops ").await);
    ada.complete_exercises(&exercises[..10]).await;
    let levels = ada.get("/api/progress/skill-levels").await.assert_ok().body;
    let first = levels["skill_levels"][0].clone();
    assert_eq!((&first["level"], &first["average_grade"]), (&json!("beginner"), &Value::Null));
    assert_eq!(ada.get("/api/progress/skills").await.assert_ok().body, levels, "the frontend's path");
    let topic = first["topic"].as_str().unwrap();
    assert_eq!(calculate(topic).await["exercises_completed"], first["exercises_completed"]);
    for body in [json!({}), json!({"topic": "  "}), json!({"topic": "x".repeat(101)})] {
        ada.post("/api/progress/calculate-skill-level", body).await.assert_invalid_field("topic");
    }
}

const LEADERBOARD: &str = "/api/progress/leaderboard";

/// Creates Ada and Eve, who have the same points, and Kim, who has fewer.
async fn three_students(app: &TestApp) -> [TestClient<'_>; 3] {
    let exercises = app.load_catalogue().await;
    let students = [app.student("ada").await, app.student("eve").await, app.student("kim").await];
    for (student, count) in students.iter().zip([2, 2, 1]) {
        student.complete_exercises(&exercises[..count]).await;
    }
    students
}

async fn a_leaderboard_ranks_students_by_points(app: &TestApp) {
    let first = app.student("first").await;
    let empty = first.get(LEADERBOARD).await.assert_ok().body;
    assert_eq!((&empty["total"], &empty["entries"], &empty["has_more"]), (&json!(0), &json!([]), &json!(false)));
    let [ada, ..] = three_students(app).await;
    let all = ada.get(LEADERBOARD).await.assert_ok().body;
    insta::assert_json_snapshot!("leaderboard", all, { ".entries[].user_id" => "[id]" });
    assert!(!all.to_string().contains('@'), "no address is shown");
    for query in ["period=weekly", "period=monthly", "metric=points&period=all"] {
        let board = ada.get(&format!("{LEADERBOARD}?{query}")).await.assert_ok().body;
        assert_eq!(board["entries"], all["entries"], "{query}");
    }
    let streaks = ada.get(&format!("{LEADERBOARD}?metric=streak")).await.assert_ok().body;
    let ranks: Vec<_> = streaks["entries"].as_array().unwrap().iter().map(|entry| entry["rank"].clone()).collect();
    assert_eq!(ranks, [1, 1, 1]);
}

async fn a_leaderboard_can_be_filtered_by_language(app: &TestApp) {
    let [ada, ..] = three_students(app).await;
    assert_eq!(ada.get(&format!("{LEADERBOARD}?language=cobol")).await.assert_ok().body["total"], 0);
    let history = ada.get("/api/exercises/history").await.assert_ok().body;
    let exercise = ada.exercise(history["exercises"][0]["exercise_id"].as_i64().unwrap()).await;
    let language = exercise["programming_language"].as_str().unwrap().to_uppercase();
    assert_eq!(ada.get(&format!("{LEADERBOARD}?language={language}")).await.assert_ok().body["total"], 3);
    ada.get(&format!("{LEADERBOARD}?language={}", "x".repeat(51))).await.assert_invalid_field("language");
}

async fn a_leaderboard_has_pages_by_offset_and_cursor(app: &TestApp) {
    let [ada, ..] = three_students(app).await;
    let all = ada.get(LEADERBOARD).await.assert_ok().body;
    let first = ada.get(&format!("{LEADERBOARD}?limit=2")).await.assert_ok().body;
    assert_eq!(first["has_more"], true);
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest = ada.get(&format!("{LEADERBOARD}?limit=2&cursor={cursor}")).await.assert_ok().body;
    assert_eq!((&rest["entries"][0], &rest["has_more"]), (&all["entries"][2], &json!(false)));
    let by_offset = ada.get(&format!("{LEADERBOARD}?limit=2&offset=2")).await.assert_ok().body;
    assert_eq!(by_offset["entries"], rest["entries"]);
}

async fn a_leaderboard_shows_the_neighbours_of_a_student(app: &TestApp) {
    let [ada, _, kim] = three_students(app).await;
    let all = ada.get(LEADERBOARD).await.assert_ok().body;
    let me = kim.get(&format!("{LEADERBOARD}/me")).await.assert_ok().body;
    assert_eq!((&me["entry"], &me["below"]), (&all["entries"][2], &json!([])));
    assert_eq!(me["above"], json!([all["entries"][0], all["entries"][1]]));
    ada.get(&format!("{LEADERBOARD}/me?period=daily")).await.assert_invalid_field("period");
}

async fn an_invalid_leaderboard_request_names_the_field(app: &TestApp) {
    let ada = app.student("ada").await;
    for (query, field) in [
        ("period=daily", "period"),
        ("period=yearly", "period"),
        ("metric=luck", "metric"),
        ("offset=10001", "offset"),
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=1000000000", "limit"),
        ("limit=abc", "limit"),
        ("cursor=x", "cursor"),
        ("cursor=x&offset=1", "cursor"),
    ] {
        ada.get(&format!("{LEADERBOARD}?{query}")).await.assert_invalid_field(field);
    }
}

async fn a_student_who_opts_out_is_not_on_the_leaderboard(app: &TestApp) {
    let exercises = app.load_catalogue().await;
    let (ada, eve) = (app.student("ada").await, app.student("eve").await);
    ada.complete_exercises(&exercises[..2]).await;
    eve.complete_exercises(&exercises[..1]).await;
    let path = LEADERBOARD;
    assert_eq!(
        ada.put(&format!("{path}/me"), json!({"opted_out": true})).await.assert_ok().body,
        json!({"opted_out": true})
    );
    let board = eve.get(path).await.assert_ok().body;
    assert_eq!((&board["total"], &board["entries"][0]["rank"]), (&json!(1), &json!(1)));
    assert_eq!(board["entries"][0]["display_name"], "eve");
    let me = ada.get(&format!("{path}/me")).await.assert_ok().body;
    assert_eq!((&me["opted_out"], &me["entry"]), (&json!(true), &Value::Null));
    ada.put(&format!("{path}/me"), json!({"opted_out": false})).await.assert_ok();
    assert_eq!(eve.get(path).await.assert_ok().body["total"], 2);
    ada.put(&format!("{path}/me"), json!({})).await.assert_invalid_field("opted_out");
    ada.put(&format!("{path}/me"), json!({"opted_out": "yes"})).await.assert_invalid_field("opted_out");
}

async fn the_export_contains_every_exercise(app: &TestApp) {
    let exercises = app.load_catalogue().await;
    let ada = app.student("ada").await;
    ada.complete_exercises(&exercises[..3]).await;
    ada.skip_exercise(exercises[3]).await.assert_ok();
    let json = ada.get("/api/progress/export").await.assert_ok();
    assert_eq!(json.headers["content-type"], "application/json");
    assert_eq!(json.headers["content-disposition"], "attachment; filename=\"progress.json\"");
    assert_eq!(json.body["exercises"].as_array().unwrap().len(), 4);
    assert_eq!(json.body["exercises"][0]["status"], "skipped");
    assert_eq!(json.body["progress"]["exercises_completed"], 3);
    let csv = ada.get("/api/progress/export?format=csv").await.assert_ok();
    assert_eq!(csv.headers["content-type"], "text/csv; charset=utf-8");
    let lines: Vec<_> = csv.text().lines().collect();
    assert_eq!(lines.len(), 5);
    assert!(lines[0] == CSV_COLUMNS && lines[1].starts_with(&format!("{},", exercises[3])), "{lines:?}");
    ada.get("/api/progress/export?format=xml").await.assert_invalid_field("format");
}

const CSV_COLUMNS: &str = "exercise_id,title,programming_language,difficulty,exercise_type,topics,status,grade,hints_used,\
                           submission_count,time_spent_seconds,points_earned,created_at,started_at,completed_at,completed_on";

async fn the_export_of_a_new_student_is_empty(app: &TestApp) {
    let eve = app.student("eve").await;
    let empty = eve.get("/api/progress/export?format=csv").await.assert_ok();
    assert_eq!(empty.text().trim_end(), CSV_COLUMNS, "the header alone");
    assert_eq!(eve.get("/api/progress/export?format=json").await.assert_ok().body["exercises"], json!([]));
}

async fn the_routes_stay_within_their_statement_budgets(app: &TestApp) {
    let exercises = app.load_catalogue().await;
    let ada = app.student("ada").await;
    let paths = [
        ("", PROGRESS_BUDGET),
        ("/achievements", ACHIEVEMENTS_BUDGET),
        ("/badges", ACHIEVEMENTS_BUDGET),
        ("/statistics", STATISTICS_BUDGET),
        ("/history?days=365", HISTORY_BUDGET),
        ("/skill-levels", SKILLS_BUDGET),
        ("/leaderboard?limit=100", LEADERBOARD_BUDGET),
        ("/leaderboard/me", AROUND_BUDGET),
    ];
    let statements = async |path: &str| ada.get(&format!("/api/progress{path}")).await.assert_ok().statement_count();
    ada.complete_exercises(&exercises[..1]).await;
    let mut few = Vec::new();
    for (path, budget) in paths {
        few.push(statements(path).await);
        assert!(few.last().unwrap() <= &budget, "{path}: {few:?}");
    }
    ada.complete_exercises(&exercises[1..30]).await;
    for number in 0..25 {
        app.student(&format!("s{number}")).await.complete_exercises(&exercises[..1]).await;
    }
    for (index, (path, _)) in paths.iter().enumerate() {
        assert_eq!(statements(path).await, few[index], "{path}");
    }
}
