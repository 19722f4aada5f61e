use reqwest::Method;
use serde_json::{Value, json};
use tutord::progress::{
    ACHIEVEMENTS_BUDGET, AROUND_BUDGET, HISTORY_BUDGET, LEADERBOARD_BUDGET, PROGRESS_BUDGET, SKILLS_BUDGET,
    STATISTICS_BUDGET,
};

use crate::exercises::load_catalogue;
use crate::harness::{Client, TestApp, answer};

crate::on_both!(
    progress_sums_up_what_was_completed,
    achievements_and_badges_show_what_is_there,
    // These two change rows past the store.
    a_streak_is_what_the_days_say("--cache-enabled", "false"),
    statistics_are_of_their_period("--cache-enabled", "false"),
    a_history_has_a_line_for_each_day,
    levels_are_shown_and_calculated,
    leaderboards_rank_and_page,
    who_opts_out_is_not_shown,
    an_export_holds_everything,
    routes_keep_their_statement_budgets("--cache-enabled", "false"),
);

async fn complete(client: &Client<'_>, ids: std::ops::RangeInclusive<i64>) {
    for id in ids {
        client.start(id).await;
        client.post(&format!("/api/exercises/{id}/complete"), json!({"time_spent_seconds": 60})).await.ok();
    }
}

async fn progress_sums_up_what_was_completed(app: &TestApp) {
    load_catalogue(app).await;
    let ada = app.student("ada").await;
    let nothing = ada.get("/api/progress").await.ok().body;
    insta::assert_json_snapshot!("progress_of_a_beginner", nothing, { ".user_id" => "[id]" });
    assert_eq!(ada.get("/api/progress/").await.ok().body, nothing);
    complete(&ada, 1..=2).await;
    let some = ada.get("/api/progress").await.ok().body;
    assert_eq!((&some["exercises_completed"], &some["total_time_spent_seconds"]), (&json!(2), &json!(120)));
    assert_eq!((&some["current_streak"], &some["longest_streak"]), (&json!(1), &json!(1)));
    assert_eq!(some["achievements"][0]["slug"], "exercises-1");
    assert!(some["skill_levels"].as_object().unwrap().values().all(|level| level == "beginner"));
    assert_eq!(ada.get("/api/users/me/progress").await.ok().body["exercises_completed"], 2);
}

async fn achievements_and_badges_show_what_is_there(app: &TestApp) {
    load_catalogue(app).await;
    let ada = app.student("ada").await;
    let path = "/api/progress/achievements";
    let before = ada.get(path).await.ok().body;
    let slugs = |body: &Value| -> Vec<String> {
        let achievements = body["achievements"].as_array().unwrap();
        achievements.iter().map(|achievement| achievement["slug"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((&before["unlocked_count"], &before["total_count"]), (&json!(0), &json!(18)));
    assert!(!slugs(&before).contains(&"no-hint-run-5".to_owned()), "hidden until unlocked");
    complete(&ada, 1..=5).await;
    let after = ada.get(path).await.ok().body;
    assert_eq!((&after["unlocked_count"], &after["total_count"]), (&json!(2), &json!(19)));
    assert_eq!(after["total_points"], 55);
    let ten = after["achievements"].as_array().unwrap().iter().find(|item| item["slug"] == "exercises-10").unwrap();
    insta::assert_json_snapshot!("achievement", ten, { ".id" => "[id]" });
    let streaks = ada.get(&format!("{path}?category=streak")).await.ok().body;
    assert_eq!(streaks["total_count"], 7);
    let unlocked = ada.get(&format!("{path}?unlocked_only=true")).await.ok().body;
    assert_eq!(slugs(&unlocked), ["exercises-1", "no-hint-run-5"]);
    assert_eq!(ada.get("/api/users/me/achievements").await.ok().body, after);
    ada.get(&format!("{path}?category=luck")).await.refuses("category");
    ada.get(&format!("{path}?unlocked_only=maybe")).await.refuses("unlocked_only");
    let badges = ada.get("/api/progress/badges").await.ok().body;
    assert_eq!(
        (&badges["total_earned"], &badges["total_available"], &badges["points_earned"]),
        (&json!(2), &json!(19), &json!(55))
    );
    let earned = badges["badges"].as_array().unwrap().iter().find(|badge| badge["type"] == "exercises-1").unwrap();
    insta::assert_json_snapshot!("badge", earned, { ".id" => "[id]", ".earned_at" => "[time]" });
}

async fn a_streak_is_what_the_days_say(app: &TestApp) {
    load_catalogue(app).await;
    let ada = app.student("ada").await;
    let path = "/api/progress/update-streak";
    let streak = answer(ada.request(Method::POST, path)).await.ok().body;
    insta::assert_json_snapshot!("streak_of_a_beginner", streak);
    complete(&ada, 1..=1).await;
    let streak = ada.post(path, json!({"user_timezone": "Asia/Tokyo", "current_streak": 99})).await.ok().body;
    assert_eq!(
        (&streak["current_streak"], &streak["streak_maintained"], &streak["new_record"]),
        (&json!(1), &json!(true), &json!(true))
    );
    // Three days later it is over; the profile says so without any write.
    let url = app.app.config.database.url();
    let past = "2020-01-01";
    crate::process::execute(&url, &format!("UPDATE activity SET starts_on = '{past}' WHERE period = 'daily'")).await;
    crate::process::execute(&url, &format!("UPDATE users SET last_completed_at = NULL, last_exercise_date = '{past}'"))
        .await;
    let streak = ada.post(path, json!({})).await.ok().body;
    assert_eq!(
        (&streak["current_streak"], &streak["streak_broken"], &streak["previous_streak"], &streak["longest_streak"]),
        (&json!(0), &json!(true), &json!(1), &json!(1))
    );
    assert_eq!(ada.get("/api/users/me").await.ok().body["current_streak"], 0);
    assert_eq!(ada.get("/api/users/me/progress").await.ok().body["current_streak"], 0);
    ada.post(path, json!({"user_timezone": "Mars/Olympus"})).await.refuses("user_timezone");
}

async fn statistics_are_of_their_period(app: &TestApp) {
    load_catalogue(app).await;
    let ada = app.student("ada").await;
    let get = async |period: &str| ada.get(&format!("/api/progress/statistics{period}")).await.ok().body;
    insta::assert_json_snapshot!("statistics_of_a_beginner", get("").await);
    ada.post("/api/exercises/1/hint", json!({})).await.ok();
    complete(&ada, 1..=4).await;
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
    let url = app.app.config.database.url();
    crate::process::execute(&url, "UPDATE activity SET starts_on = '2020-01-01' WHERE period = 'daily'").await;
    assert_eq!(get("?period=monthly").await["exercises_by_difficulty"], json!({"easy": 0, "medium": 0, "hard": 0}));
    assert_eq!(get("?period=all").await["exercises_by_type"], today["exercises_by_type"]);
    ada.get("/api/progress/statistics?period=yearly").await.refuses("period");
}

async fn a_history_has_a_line_for_each_day(app: &TestApp) {
    load_catalogue(app).await;
    let ada = app.student("ada").await;
    complete(&ada, 1..=2).await;
    let path = "/api/progress/history";
    let month = ada.get(path).await.ok().body;
    assert_eq!((&month["total_days"], month["history"].as_array().unwrap().len()), (&json!(30), 30));
    let today = month["history"][29].clone();
    assert_eq!((&today["date"], &today["exercises_completed"]), (&month["end_date"], &json!(2)));
    assert_eq!((&today["streak"], &today["time_spent_seconds"]), (&json!(1), &json!(120)));
    assert_eq!((&today["achievements_unlocked"], &month["history"][28]["exercises_completed"]), (&json!(1), &json!(0)));
    assert_eq!(ada.get(&format!("{path}?days=365")).await.ok().body["total_days"], 365);
    let leap = ada.get(&format!("{path}?start_date=2024-01-01&end_date=2024-12-31")).await.ok().body;
    assert_eq!((&leap["total_days"], &leap["start_date"]), (&json!(366), &json!("2024-01-01")));
    // The first and the last day that can be asked for.
    for (from, to) in [("0000-01-01", "0000-12-31"), ("9999-12-31", "9999-12-31"), ("9999-12-01", "9999-12-31")] {
        let edge = ada.get(&format!("{path}?start_date={from}&end_date={to}")).await.ok().body;
        assert_eq!((&edge["start_date"], &edge["end_date"]), (&json!(from), &json!(to)));
    }
    for days in ["0", "-1", "366", "1000000000", "abc"] {
        assert_eq!(ada.get(&format!("{path}?days={days}")).await.refuses("days"), "days must be between 1 and 365");
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
        ada.get(&format!("{path}?{query}")).await.refuses(field);
    }
}

async fn levels_are_shown_and_calculated(app: &TestApp) {
    load_catalogue(app).await;
    let ada = app.student("ada").await;
    let calculate =
        async |topic: &str| ada.post("/api/progress/calculate-skill-level", json!({"topic": topic})).await.ok().body;
    insta::assert_json_snapshot!("level_of_an_unknown_topic", calculate(" loops ").await);
    complete(&ada, 1..=10).await;
    let levels = ada.get("/api/progress/skill-levels").await.ok().body;
    let first = levels["skill_levels"][0].clone();
    assert_eq!((&first["level"], &first["average_grade"]), (&json!("beginner"), &Value::Null));
    assert_eq!(ada.get("/api/progress/skills").await.ok().body, levels, "the frontend's path");
    let topic = first["topic"].as_str().unwrap();
    assert_eq!(calculate(topic).await["exercises_completed"], first["exercises_completed"]);
    for body in [json!({}), json!({"topic": "  "}), json!({"topic": "x".repeat(101)})] {
        ada.post("/api/progress/calculate-skill-level", body).await.refuses("topic");
    }
}

async fn leaderboards_rank_and_page(app: &TestApp) {
    load_catalogue(app).await;
    let (ada, eve, kim) = (app.student("ada").await, app.student("eve").await, app.student("kim").await);
    let path = "/api/progress/leaderboard";
    let empty = ada.get(path).await.ok().body;
    assert_eq!((&empty["total"], &empty["entries"], &empty["has_more"]), (&json!(0), &json!([]), &json!(false)));
    complete(&ada, 1..=2).await;
    complete(&eve, 1..=2).await;
    complete(&kim, 1..=1).await;
    let all = ada.get(path).await.ok().body;
    insta::assert_json_snapshot!("leaderboard", all, { ".entries[].user_id" => "[id]" });
    assert!(!all.to_string().contains('@'), "no address is shown");
    for query in ["period=weekly", "period=monthly", "metric=points&period=all"] {
        assert_eq!(ada.get(&format!("{path}?{query}")).await.ok().body["entries"], all["entries"], "{query}");
    }
    let streaks = ada.get(&format!("{path}?metric=streak")).await.ok().body;
    let ranks: Vec<_> = streaks["entries"].as_array().unwrap().iter().map(|entry| entry["rank"].clone()).collect();
    assert_eq!(ranks, [1, 1, 1]);
    assert_eq!(ada.get(&format!("{path}?language=cobol")).await.ok().body["total"], 0);
    let language = ada.get("/api/exercises/1").await.ok().body["programming_language"].as_str().unwrap().to_uppercase();
    assert_eq!(ada.get(&format!("{path}?language={language}")).await.ok().body["total"], 3);
    let first = ada.get(&format!("{path}?limit=2")).await.ok().body;
    assert_eq!(first["has_more"], true);
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest = ada.get(&format!("{path}?limit=2&cursor={cursor}")).await.ok().body;
    assert_eq!((&rest["entries"][0], &rest["has_more"]), (&all["entries"][2], &json!(false)));
    assert_eq!(ada.get(&format!("{path}?limit=2&offset=2")).await.ok().body["entries"], rest["entries"]);
    let me = kim.get(&format!("{path}/me")).await.ok().body;
    assert_eq!((&me["entry"], &me["below"]), (&all["entries"][2], &json!([])));
    assert_eq!(me["above"], json!([all["entries"][0], all["entries"][1]]));
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
        ada.get(&format!("{path}?{query}")).await.refuses(field);
    }
    ada.get(&format!("{path}?language={}", "x".repeat(51))).await.refuses("language");
    ada.get(&format!("{path}/me?period=daily")).await.refuses("period");
}

async fn who_opts_out_is_not_shown(app: &TestApp) {
    load_catalogue(app).await;
    let (ada, eve) = (app.student("ada").await, app.student("eve").await);
    complete(&ada, 1..=2).await;
    complete(&eve, 1..=1).await;
    let path = "/api/progress/leaderboard";
    assert_eq!(ada.put(&format!("{path}/me"), json!({"opted_out": true})).await.ok().body, json!({"opted_out": true}));
    let seen = eve.get(path).await.ok().body;
    assert_eq!((&seen["total"], &seen["entries"][0]["rank"]), (&json!(1), &json!(1)));
    assert_eq!(seen["entries"][0]["display_name"], "eve");
    let me = ada.get(&format!("{path}/me")).await.ok().body;
    assert_eq!((&me["opted_out"], &me["entry"]), (&json!(true), &Value::Null));
    ada.put(&format!("{path}/me"), json!({"opted_out": false})).await.ok();
    assert_eq!(eve.get(path).await.ok().body["total"], 2);
    ada.put(&format!("{path}/me"), json!({})).await.refuses("opted_out");
    ada.put(&format!("{path}/me"), json!({"opted_out": "yes"})).await.refuses("opted_out");
}

async fn an_export_holds_everything(app: &TestApp) {
    load_catalogue(app).await;
    let (ada, eve) = (app.student("ada").await, app.student("eve").await);
    complete(&ada, 1..=3).await;
    ada.post("/api/exercises/4/skip", json!({})).await.ok();
    let json = ada.get("/api/progress/export").await.ok();
    assert_eq!(json.headers["content-type"], "application/json");
    assert_eq!(json.headers["content-disposition"], "attachment; filename=\"progress.json\"");
    assert_eq!(json.body["exercises"].as_array().unwrap().len(), 4);
    assert_eq!(json.body["exercises"][0]["status"], "skipped");
    assert_eq!(json.body["progress"]["exercises_completed"], 3);
    let csv = ada.get("/api/progress/export?format=csv").await.ok();
    assert_eq!(csv.headers["content-type"], "text/csv; charset=utf-8");
    let lines: Vec<_> = csv.body.as_str().unwrap().lines().collect();
    assert_eq!(lines.len(), 5);
    assert!(lines[0].starts_with("exercise_id,title,programming_language,") && lines[1].starts_with("4,"), "{lines:?}");
    let empty = eve.get("/api/progress/export?format=csv").await.ok();
    assert_eq!(empty.body.as_str().unwrap().trim_end(), lines[0], "the names alone");
    assert_eq!(eve.get("/api/progress/export?format=json").await.ok().body["exercises"], json!([]));
    ada.get("/api/progress/export?format=xml").await.refuses("format");
}

async fn routes_keep_their_statement_budgets(app: &TestApp) {
    load_catalogue(app).await;
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
    let statements = async |path: &str| ada.get(&format!("/api/progress{path}")).await.ok().statements();
    complete(&ada, 1..=1).await;
    let mut few = Vec::new();
    for (path, budget) in paths {
        few.push(statements(path).await);
        assert!(few.last().unwrap() <= &budget, "{path}: {few:?}");
    }
    complete(&ada, 2..=30).await;
    for number in 0..25 {
        complete(&app.student(&format!("s{number}")).await, 1..=1).await;
    }
    for (index, (path, _)) in paths.iter().enumerate() {
        assert_eq!(statements(path).await, few[index], "{path}");
    }
}
