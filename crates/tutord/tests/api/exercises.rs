//! Exercises: the daily one, steps, completions, the history and the difficulty.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::FutureExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use tutord::exercises::{COMPLETE_BUDGET, DAILY_BUDGET, EXERCISE_BUDGET, HISTORY_BUDGET, PERFORMANCE_BUDGET};

use crate::support::checks::assert_rejects_invalid_pages;
use crate::support::fixtures::UNKNOWN_ID;
use crate::support::fixtures::exercises::exercise_path;
use crate::support::{TestApp, TestClient, fetch};

crate::on_both!(
    an_empty_catalogue_has_no_daily_exercise(without_model()),
    the_daily_exercise_follows_the_preferences(without_model()),
    the_daily_exercise_stays_the_same_all_day(without_model()),
    concurrent_requests_assign_one_daily_exercise(without_model()),
    an_exercise_has_three_hints(without_model()),
    a_hint_starts_an_exercise(without_model()),
    a_completion_is_counted_once(without_model()),
    a_skipped_exercise_stays_the_daily_exercise(without_model()),
    an_ended_exercise_rejects_further_steps(without_model()),
    an_exercise_that_was_not_started_cannot_be_completed(without_model()),
    each_way_of_starting_an_exercise_allows_its_completion(without_model()),
    a_change_of_time_zone_adds_neither_days_nor_exercises(without_model()),
    a_solution_is_stored_without_a_model(without_model()),
    the_history_has_pages_by_offset_and_cursor(without_model()),
    the_history_can_be_filtered_by_status(without_model()),
    an_invalid_request_names_the_field(without_model()),
    an_unknown_exercise_is_not_found(without_model()),
    the_difficulty_follows_the_newest_exercises(without_model()),
    the_routes_stay_within_their_statement_budgets(without_cache().without_model()),
    hints_are_rate_limited(rate_limits()),
);

async fn an_empty_catalogue_has_no_daily_exercise(app: &TestApp) {
    let ada = app.student("ada").await;
    ada.get("/api/exercises/daily").await.assert_error(404, "NOT_FOUND");
}

async fn the_daily_exercise_follows_the_preferences(app: &TestApp) {
    app.load_catalogue().await;
    let ada = app.student("ada").await;
    ada.put("/api/users/me/preferences", json!({"programming_language": "Rust", "skill_level": "intermediate"}))
        .await
        .assert_ok();
    let first = ada.daily_exercise().await;
    assert_eq!((&first["is_new"], &first["status"]), (&json!(true), &json!("pending")));
    assert_eq!(first["exercise"]["programming_language"], "rust");
    assert_eq!(first["exercise"]["difficulty"], "medium");
    for secret in ["solution", "generation_prompt", "hints"] {
        assert!(first["exercise"].get(secret).is_none(), "{secret} left the server");
    }
    let keys: HashSet<_> = first["exercise"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys.len(), 15, "{keys:?}");
    assert_eq!(first["exercise"]["language"], first["exercise"]["programming_language"]);
    assert!(!first["exercise"]["learning_objectives"].as_array().unwrap().is_empty());
    assert!(first["exercise"]["estimated_time_minutes"].as_i64().unwrap() > 0);
}

async fn the_daily_exercise_stays_the_same_all_day(app: &TestApp) {
    app.load_catalogue().await;
    let ada = app.student("ada").await;
    let first = ada.daily_exercise().await;
    let again = ada.daily_exercise().await;
    assert_eq!((&again["exercise"], &again["is_new"]), (&first["exercise"], &json!(false)));
    let read = ada.get(&format!("/api/exercises/{}", first["exercise"]["id"])).await.assert_ok().body;
    assert_eq!(read, first["exercise"]);
}

/// The exercise is new for one of the requests.
async fn concurrent_requests_assign_one_daily_exercise(app: &TestApp) {
    app.load_catalogue().await;
    let eve = app.student("eve").await;
    let mut requests = Vec::new();
    for _ in 0..8 {
        let request = eve.request(Method::GET, "/api/exercises/daily");
        requests.push(tokio::spawn(async move { fetch(request).await.assert_ok().body }));
    }
    let (mut ids, mut new) = (HashSet::new(), 0);
    for request in requests {
        let body = request.await.unwrap();
        ids.insert(body["user_exercise_id"].as_i64().unwrap());
        new += usize::from(body["is_new"] == true);
    }
    assert_eq!((ids.len(), new), (1, 1));
}

async fn an_exercise_has_three_hints(app: &TestApp) {
    let exercise_id = app.load_catalogue().await[0];
    let ada = app.student("ada").await;
    for (used, remaining) in [(1, 2), (2, 1), (3, 0)] {
        let hint = ada.request_hint(exercise_id).await.assert_ok().body;
        assert_eq!(
            (&hint["hints_used"], &hint["hints_remaining"], &hint["difficulty_level"]),
            (&json!(used), &json!(remaining), &json!(used))
        );
        assert!(hint["hint"].as_str().unwrap().len() > 10);
    }
    ada.request_hint(exercise_id).await.assert_error(409, "CONFLICT");
}

async fn a_hint_starts_an_exercise(app: &TestApp) {
    app.load_catalogue().await;
    let ada = app.student("ada").await;
    let exercise_id = ada.daily_exercise().await["exercise"]["id"].as_i64().unwrap();
    for _ in 0..3 {
        ada.request_hint(exercise_id).await.assert_ok();
    }
    let daily = ada.daily_exercise().await;
    assert_eq!((&daily["status"], &daily["hints_used"]), (&json!("in_progress"), &json!(3)));
}

async fn a_completion_is_counted_once(app: &TestApp) {
    app.load_catalogue().await;
    let ada = app.student("ada").await;
    // The daily exercise is a random one of the language.
    ada.put("/api/users/me/preferences", json!({"programming_language": "Rust"})).await.assert_ok();
    let exercise = ada.daily_exercise().await["exercise"].clone();
    let path = format!("/api/exercises/{}", exercise["id"]);
    for _ in 0..3 {
        fetch(ada.request(Method::POST, &format!("{path}/hint"))).await.assert_ok();
    }
    let done = ada.post(&format!("{path}/complete"), json!({"time_spent_seconds": 90})).await.assert_ok().body;
    insta::assert_json_snapshot!("completed", done, {
        ".exercise_id" => "[id]", ".user_exercise_id" => "[id]", ".completed_at" => "[time]",
    });
    let again = fetch(ada.request(Method::POST, &format!("{path}/complete"))).await.assert_ok().body;
    assert_eq!(again, done, "the second call gets the same response");
    let profile = ada.get("/api/users/me").await.assert_ok().body;
    assert_eq!((&profile["exercises_completed"], &profile["current_streak"]), (&json!(1), &json!(1)));
    assert_eq!(profile["last_exercise_date"].as_str().unwrap().len(), 10);
    let history = ada.get("/api/exercises/history").await.assert_ok().body;
    insta::assert_json_snapshot!("exercise_history", history, {
        ".exercises[].id" => "[id]", ".exercises[].exercise_id" => "[id]", ".exercises[].title" => "[title]",
        ".exercises[].exercise_type" => "[type]", ".**.created_at" => "[time]", ".**.started_at" => "[time]",
        ".**.completed_at" => "[time]",
    });
}

async fn a_skipped_exercise_stays_the_daily_exercise(app: &TestApp) {
    app.load_catalogue().await;
    let ada = app.student("ada").await;
    let first = ada.daily_exercise().await;
    let id = &first["exercise"]["id"];
    for _ in 0..2 {
        let skipped = ada.post(&format!("/api/exercises/{id}/skip"), json!({})).await.assert_ok().body;
        assert_eq!((&skipped["exercise_id"], &skipped["status"]), (id, &json!("skipped")));
    }
    let again = ada.daily_exercise().await;
    assert_eq!((&again["exercise"]["id"], &again["status"]), (id, &json!("skipped")), "the day has the same exercise");
}

async fn an_ended_exercise_rejects_further_steps(app: &TestApp) {
    let exercises = app.load_catalogue().await;
    let (completed, skipped) = (exercises[0], exercises[1]);
    let ada = app.student("ada").await;
    ada.complete_exercises(&[completed]).await;
    ada.skip_exercise(skipped).await.assert_ok();
    for (rejected, status) in [
        (ada.skip_exercise(completed).await, "completed"),
        (ada.request_hint(completed).await, "completed"),
        (ada.request_hint(skipped).await, "skipped"),
        (ada.complete_exercise(skipped).await, "skipped"),
    ] {
        rejected.assert_error(409, "CONFLICT");
        assert_eq!(rejected.body["error"]["details"]["status"], status);
    }
    for id in [completed, skipped] {
        ada.submit_solution(id, json!({"solution": "x"})).await.assert_error(409, "CONFLICT");
    }
    let history = ada.get("/api/exercises/history").await.assert_ok().body;
    for exercise in history["exercises"].as_array().unwrap() {
        assert_eq!((&exercise["hints_used"], &exercise["grade"]), (&json!(0), &Value::Null));
    }
}

async fn an_exercise_that_was_not_started_cannot_be_completed(app: &TestApp) {
    let exercises = app.load_catalogue().await;
    let ada = app.student("ada").await;
    for id in &exercises[..10] {
        let rejected = ada.complete_exercise(*id).await;
        let message = rejected.assert_error(409, "CONFLICT");
        assert!(message.contains("is not started"), "{message}");
    }
    let progress = ada.get("/api/progress").await.assert_ok().body;
    assert_eq!((&progress["exercises_completed"], &progress["total_points"]), (&json!(0), &json!(0)));
    assert_eq!(
        ada.get("/api/exercises/history").await.assert_ok().body["total"],
        0,
        "a rejected completion starts nothing"
    );
}

async fn each_way_of_starting_an_exercise_allows_its_completion(app: &TestApp) {
    let mut exercises = app.load_catalogue().await;
    let ada = app.student("ada").await;
    let daily = ada.daily_exercise().await["exercise"]["id"].as_i64().unwrap();
    exercises.retain(|id| *id != daily);
    let [hinted, submitted, skipped] = [exercises[0], exercises[1], exercises[2]];
    ada.post(&format!("{}/hint", exercise_path(hinted)), json!({})).await.assert_ok();
    ada.submit_solution(submitted, json!({"solution": "x"})).await.assert_error(503, "LLM_NOT_CONFIGURED");
    for id in [daily, hinted, submitted] {
        ada.complete_exercise(id).await.assert_ok();
    }
    ada.skip_exercise(skipped).await.assert_ok();
    ada.complete_exercise(skipped).await.assert_error(409, "CONFLICT");
    assert_eq!(ada.get("/api/progress").await.assert_ok().body["exercises_completed"], 3);
}

async fn a_change_of_time_zone_adds_neither_days_nor_exercises(app: &TestApp) {
    app.load_catalogue().await;
    // A day may end in one of the zones during the test, at a full hour. The next day rightly adds one.
    let hour = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 3_600;
    let began = hour();
    if AssertUnwindSafe(change_zones(app, "ada")).catch_unwind().await.is_err() {
        assert_ne!(hour(), began, "no day has ended");
        change_zones(app, "eve").await;
    }
}

async fn change_zones(app: &TestApp, name: &str) {
    let ada = app.student(name).await;
    let mut ids = HashSet::new();
    // At any time these zones have at least two dates.
    for zone in ["Pacific/Pago_Pago", "UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"] {
        ada.put("/api/users/me", json!({"timezone": zone})).await.assert_ok();
        let id = ada.daily_exercise().await["exercise"]["id"].as_i64().unwrap();
        let done = ada.complete_exercise(id).await.assert_ok().body;
        assert_eq!(done["streak_count"], 1, "{zone}");
        ids.insert(id);
    }
    assert_eq!(ids.len(), 1, "the day has one exercise");
    let today = ada.get("/api/progress/history?days=1").await.assert_ok().body["history"][0].clone();
    assert_eq!((&today["exercises_completed"], &today["streak"]), (&json!(1), &json!(1)), "shown on the newest day");
    assert_eq!(ada.get("/api/users/me").await.assert_ok().body["current_streak"], 1);
}

async fn a_solution_is_stored_without_a_model(app: &TestApp) {
    let exercise_id = app.load_catalogue().await[0];
    let ada = app.student("ada").await;
    let failed = ada.submit_solution(exercise_id, json!({"solution": "print(1)", "time_spent_seconds": 5})).await;
    failed.assert_error(503, "LLM_NOT_CONFIGURED");
    assert!(failed.headers.contains_key("retry-after"));
    assert_eq!(failed.body["error"]["details"], json!({"status": "in_progress", "submission_count": 1}));
    let stored = app.query_count("SELECT count(*) FROM submissions").await;
    assert_eq!(stored, 1);
    ada.post("/api/exercises/generate", json!({})).await.assert_error(503, "LLM_NOT_CONFIGURED");
}

/// Ends five exercises, every second one by skipping it; returns them, the newest first.
async fn end_five_exercises(client: &TestClient<'_>) -> [i64; 5] {
    let exercises = client.app.load_catalogue().await;
    let mut ended = [0, 1, 2, 3, 4].map(|index| exercises[index]);
    for (index, id) in ended.into_iter().enumerate() {
        client.start_exercise(id).await;
        let step = if index % 2 == 1 { client.skip_exercise(id).await } else { client.complete_exercise(id).await };
        step.assert_ok();
    }
    ended.reverse();
    ended
}

fn history_ids(body: &Value) -> Vec<i64> {
    let exercises = body["exercises"].as_array().unwrap();
    exercises.iter().map(|exercise| exercise["exercise_id"].as_i64().unwrap()).collect()
}

async fn the_history_has_pages_by_offset_and_cursor(app: &TestApp) {
    let (ada, eve) = (app.student("ada").await, app.student("eve").await);
    let newest = end_five_exercises(&ada).await;
    let path = "/api/exercises/history";
    assert_rejects_invalid_pages(&ada, path, 100).await;
    let first = ada.get(&format!("{path}?limit=2")).await.assert_ok().body;
    assert_eq!(
        (&history_ids(&first)[..], &first["total"], &first["has_more"]),
        (&newest[..2], &json!(5), &json!(true))
    );
    let cursor = first["next_cursor"].as_str().unwrap();
    let next = ada.get(&format!("{path}?limit=3&cursor={cursor}")).await.assert_ok().body;
    assert_eq!(
        (&history_ids(&next)[..], &next["has_more"], &next["offset"]),
        (&newest[2..], &json!(false), &Value::Null)
    );
    assert_eq!(history_ids(&ada.get(&format!("{path}?limit=3&offset=2")).await.assert_ok().body), newest[2..]);
    ada.get(&format!("{path}?cursor={cursor}&offset=0")).await.assert_invalid_field("cursor");
    ada.get(&format!("/api/chat/conversations?cursor={cursor}")).await.assert_invalid_field("cursor");
    assert_eq!(eve.get(path).await.assert_ok().body["total"], 0);
}

async fn the_history_can_be_filtered_by_status(app: &TestApp) {
    let ada = app.student("ada").await;
    let newest = end_five_exercises(&ada).await;
    let path = "/api/exercises/history";
    let skipped = ada.get(&format!("{path}?status=skipped")).await.assert_ok().body;
    assert_eq!((history_ids(&skipped), &skipped["total"]), (vec![newest[1], newest[3]], &json!(2)));
    assert_eq!(skipped["limit"], 20, "the default");
    let rejected = ada.get(&format!("{path}?status=lost")).await;
    let message = rejected.assert_invalid_field("status");
    assert!(message.contains("completed"), "{message}");
}

async fn an_invalid_request_names_the_field(app: &TestApp) {
    let exercise_id = app.load_catalogue().await[0];
    let ada = app.student("ada").await;
    let long = |count| "é".repeat(count);
    for (path, body, field) in [
        ("ID/submit", json!({}), "solution"),
        ("ID/submit", json!({"solution": ""}), "solution"),
        ("ID/submit", json!({"solution": long(50_001)}), "solution"),
        ("ID/submit", json!({"solution": 5}), "solution"),
        ("ID/submit", json!({"solution": "x", "idempotency_key": ""}), "idempotency_key"),
        ("ID/submit", json!({"solution": "x", "idempotency_key": long(65)}), "idempotency_key"),
        ("ID/submit", json!({"solution": "x", "time_spent_seconds": -1}), "time_spent_seconds"),
        ("ID/submit", json!({"solution": "x", "time_spent_seconds": 86_401}), "time_spent_seconds"),
        ("ID/complete", json!({"time_spent_seconds": 86_401}), "time_spent_seconds"),
        ("ID/complete", json!({"time_spent_seconds": "long"}), "time_spent_seconds"),
        ("ID/hint", json!({"context": long(2_001)}), "context"),
        ("ID/hint", json!({"current_code": long(10_001)}), "current_code"),
        ("generate", json!({"topic": long(201)}), "topic"),
        ("generate", json!({"difficulty": "brutal"}), "difficulty"),
        ("generate", json!({"exercise_type": "magic"}), "exercise_type"),
        ("difficulty/adjust", json!({}), "difficulty"),
        ("difficulty/adjust", json!({"difficulty": "brutal"}), "difficulty"),
        ("difficulty/adjust", json!({"difficulty": "easy", "reason": long(501)}), "reason"),
    ] {
        let path = format!("/api/exercises/{}", path.replace("ID", &exercise_id.to_string()));
        let message = ada.post(&path, body).await.assert_invalid_field(field).to_owned();
        assert!(message.starts_with(field), "{message}");
    }
    for limit in ["0", "-1", "1000000000", "abc", "101"] {
        let path = format!("/api/exercises/difficulty/performance?limit={limit}");
        assert_eq!(ada.get(&path).await.assert_invalid_field("limit"), "limit must be between 1 and 100");
    }
    for id in ["0", "-1", "abc", "99999999999999999999"] {
        ada.get(&format!("/api/exercises/{id}")).await.assert_invalid_field("id");
        ada.post(&format!("/api/exercises/{id}/complete"), json!({})).await.assert_invalid_field("id");
    }
}

async fn an_unknown_exercise_is_not_found(app: &TestApp) {
    app.load_catalogue().await;
    let ada = app.student("ada").await;
    ada.get(&exercise_path(UNKNOWN_ID)).await.assert_error(404, "NOT_FOUND");
    for step in ["hint", "complete", "skip"] {
        ada.post(&format!("{}/{step}", exercise_path(UNKNOWN_ID)), json!({})).await.assert_error(404, "NOT_FOUND");
    }
    ada.submit_solution(UNKNOWN_ID, json!({"solution": "x"})).await.assert_error(404, "NOT_FOUND");
}

async fn the_difficulty_follows_the_newest_exercises(app: &TestApp) {
    let exercises = app.load_catalogue().await;
    let ada = app.student("ada").await;
    let analyze = async || ada.get("/api/exercises/difficulty/analyze").await.assert_ok().body;
    let nothing = analyze().await;
    assert_eq!((&nothing["current_difficulty"], &nothing["reason"]), (&json!("easy"), &json!("maintain")));
    assert_eq!(nothing["performance_metrics"]["average_grade"], Value::Null);
    let mut easy = Vec::new();
    for id in exercises {
        if ada.exercise(id).await["difficulty"] == "easy" {
            easy.push(id);
        }
    }
    ada.complete_exercises(&easy[..3]).await;
    let raise = analyze().await;
    assert_eq!(
        (&raise["should_adjust"], &raise["recommended_difficulty"], &raise["reason"], &raise["consecutive_successes"]),
        (&json!(true), &json!("medium"), &json!("increase"), &json!(3))
    );
    let performance = ada.get("/api/exercises/difficulty/performance?limit=2").await.assert_ok().body;
    assert_eq!((&performance["total_exercises_analyzed"], &performance["completion_rate"]), (&json!(2), &json!(1.0)));
    let adjusted = ada
        .post("/api/exercises/difficulty/adjust", json!({"difficulty": "medium", "reason": "bored"}))
        .await
        .assert_ok()
        .body;
    insta::assert_json_snapshot!("difficulty_adjusted", adjusted, { ".user_id" => "[id]" });
    let after = analyze().await;
    assert_eq!((&after["current_difficulty"], &after["should_adjust"]), (&json!("medium"), &json!(false)));
    assert_eq!(ada.daily_exercise().await["exercise"]["difficulty"], "medium");
}

async fn the_routes_stay_within_their_statement_budgets(app: &TestApp) {
    let exercises = app.load_catalogue().await;
    let ada = app.student("ada").await;
    ada.daily_exercise().await;
    let statements = async |path: &str| ada.get(&format!("/api/exercises/{path}")).await.assert_ok().statement_count();
    let paths = [
        ("daily", DAILY_BUDGET),
        ("history?limit=100", HISTORY_BUDGET),
        (&exercises[0].to_string(), EXERCISE_BUDGET),
        ("difficulty/performance?limit=100", PERFORMANCE_BUDGET),
    ];
    let mut few = Vec::new();
    for (path, budget) in paths {
        few.push(statements(path).await);
        assert!(few.last().unwrap() <= &budget, "{path}: {few:?}");
    }
    let mut completions = Vec::new();
    for id in &exercises[..40] {
        ada.start_exercise(*id).await;
        completions.push(ada.complete_exercise(*id).await.assert_ok().statement_count());
    }
    for (index, (path, _)) in paths.iter().enumerate() {
        assert_eq!(statements(path).await, few[index], "{path}");
    }
    // The first completion in a language and a week creates leaderboards. All others issue the same statements.
    assert!(completions.iter().all(|issued| *issued <= COMPLETE_BUDGET), "{completions:?}");
    let median = |issued: &[u32]| {
        let mut sorted = issued.to_vec();
        sorted.sort_unstable();
        sorted[sorted.len() / 2]
    };
    assert_eq!(median(&completions[..20]), median(&completions[20..]), "{completions:?}");
}

async fn hints_are_rate_limited(app: &TestApp) {
    let exercises = app.load_catalogue().await;
    let ada = app.student("ada").await;
    for number in 0..10 {
        ada.request_hint(exercises[number / 3]).await.assert_ok();
    }
    let limited = ada.request_hint(exercises[9]).await;
    limited.assert_error(429, "RATE_LIMIT_EXCEEDED");
    assert!(limited.headers.contains_key("retry-after"));
}
