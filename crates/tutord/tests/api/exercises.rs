use std::collections::HashSet;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use testbed::model::Behaviour;
use tutord::exercises::catalogue::Catalogue;
use tutord::exercises::{COMPLETE_BUDGET, DAILY_BUDGET, EXERCISE_BUDGET, HISTORY_BUDGET, PERFORMANCE_BUDGET};
use tutord_core::model::{Difficulty, ExerciseType, NewExercise, Role};

use crate::harness::{Client, TestApp, answer, refuses_bad_pages};

/// A server whose model is not configured.
macro_rules! without_model {
    ($($case:ident),+ $(,)?) => {
        crate::on_both!($($case("--llm-model", "none", "--llm-base-url", "http://127.0.0.1:1")),+);
    };
}

without_model!(
    the_day_has_one_exercise,
    the_way_from_a_hint_to_completion,
    a_skipped_exercise_is_told_as_skipped,
    forbidden_transitions_are_conflicts,
    what_was_not_started_earns_nothing,
    changing_zones_adds_neither_days_nor_exercises,
    without_a_model_a_solution_is_kept,
    histories_are_paged_and_filtered,
    bounds_of_requests_are_named,
    difficulty_follows_the_newest_exercises,
);
crate::on_both!(
    routes_keep_their_statement_budgets(
        "--cache-enabled",
        "false",
        "--llm-model",
        "none",
        "--llm-base-url",
        "http://127.0.0.1:1"
    ),
    solutions_are_graded_by_the_model,
    the_model_is_told_nothing_that_the_student_may_not_read,
    a_model_of_no_use_loses_no_solution,
    hints_are_fitted_by_the_model,
    the_model_writes_exercises_for_one_student,
    a_language_in_the_students_own_words_is_one_of_the_catalogues,
    a_topic_that_is_named_twice_counts_once,
    the_daily_exercise_is_written_or_of_the_catalogue,
    hints_and_generated_exercises_are_limited("--rate-limit-enabled", "true"),
);

/// Loads the catalogue that comes with tutord.
pub(crate) async fn load_catalogue(app: &TestApp) {
    Catalogue::built_in().unwrap().load(app.app.store.as_ref()).await.unwrap();
}

async fn daily(client: &Client<'_>) -> Value {
    client.get("/api/exercises/daily").await.ok().body
}

async fn the_day_has_one_exercise(app: &TestApp) {
    let ada = app.student("ada").await;
    ada.get("/api/exercises/daily").await.fails(404, "NOT_FOUND");
    load_catalogue(app).await;
    ada.put("/api/users/me/preferences", json!({"programming_language": "Rust", "skill_level": "intermediate"}))
        .await
        .ok();
    let first = daily(&ada).await;
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
    let again = daily(&ada).await;
    assert_eq!((&again["exercise"], &again["is_new"]), (&first["exercise"], &json!(false)));
    let read = ada.get(&format!("/api/exercises/{}", first["exercise"]["id"])).await.ok().body;
    assert_eq!(read, first["exercise"]);
    // Asked for many times at once by another student: one exercise, new for one request.
    let eve = app.student("eve").await;
    let mut requests = Vec::new();
    for _ in 0..8 {
        let request = eve.request(Method::GET, "/api/exercises/daily");
        requests.push(tokio::spawn(async move { answer(request).await.ok().body }));
    }
    let (mut ids, mut new) = (HashSet::new(), 0);
    for request in requests {
        let body = request.await.unwrap();
        ids.insert(body["user_exercise_id"].as_i64().unwrap());
        new += usize::from(body["is_new"] == true);
    }
    assert_eq!((ids.len(), new), (1, 1));
}

async fn the_way_from_a_hint_to_completion(app: &TestApp) {
    load_catalogue(app).await;
    let ada = app.student("ada").await;
    // Which exercise of the language comes is left to chance.
    ada.put("/api/users/me/preferences", json!({"programming_language": "Rust"})).await.ok();
    let exercise = daily(&ada).await["exercise"].clone();
    let path = format!("/api/exercises/{}", exercise["id"]);
    for (used, remaining) in [(1, 2), (2, 1), (3, 0)] {
        let hint = answer(ada.request(Method::POST, &format!("{path}/hint"))).await.ok().body;
        assert_eq!(
            (&hint["hints_used"], &hint["hints_remaining"], &hint["difficulty_level"]),
            (&json!(used), &json!(remaining), &json!(used))
        );
        assert!(hint["hint"].as_str().unwrap().len() > 10);
    }
    ada.post(&format!("{path}/hint"), json!({})).await.fails(409, "CONFLICT");
    let before = daily(&ada).await;
    assert_eq!((&before["status"], &before["hints_used"]), (&json!("in_progress"), &json!(3)));
    let done = ada.post(&format!("{path}/complete"), json!({"time_spent_seconds": 90})).await.ok().body;
    insta::assert_json_snapshot!("completed", done, {
        ".exercise_id" => "[id]", ".user_exercise_id" => "[id]", ".completed_at" => "[time]",
    });
    let again = answer(ada.request(Method::POST, &format!("{path}/complete"))).await.ok().body;
    assert_eq!(again, done, "the second call is told the same");
    let profile = ada.get("/api/users/me").await.ok().body;
    assert_eq!((&profile["exercises_completed"], &profile["current_streak"]), (&json!(1), &json!(1)));
    assert_eq!(profile["last_exercise_date"].as_str().unwrap().len(), 10);
    let history = ada.get("/api/exercises/history").await.ok().body;
    insta::assert_json_snapshot!("exercise_history", history, {
        ".exercises[].id" => "[id]", ".exercises[].exercise_id" => "[id]", ".exercises[].title" => "[title]",
        ".exercises[].exercise_type" => "[type]", ".**.created_at" => "[time]", ".**.started_at" => "[time]",
        ".**.completed_at" => "[time]",
    });
}

async fn a_skipped_exercise_is_told_as_skipped(app: &TestApp) {
    load_catalogue(app).await;
    let ada = app.student("ada").await;
    let first = daily(&ada).await;
    let id = &first["exercise"]["id"];
    for _ in 0..2 {
        let skipped = ada.post(&format!("/api/exercises/{id}/skip"), json!({})).await.ok().body;
        assert_eq!((&skipped["exercise_id"], &skipped["status"]), (id, &json!("skipped")));
    }
    let again = daily(&ada).await;
    assert_eq!((&again["exercise"]["id"], &again["status"]), (id, &json!("skipped")), "the day keeps its exercise");
}

async fn forbidden_transitions_are_conflicts(app: &TestApp) {
    load_catalogue(app).await;
    let ada = app.student("ada").await;
    ada.start(1).await;
    ada.post("/api/exercises/1/complete", json!({})).await.ok();
    ada.post("/api/exercises/2/skip", json!({})).await.ok();
    for (path, status) in
        [("1/skip", "completed"), ("1/hint", "completed"), ("2/hint", "skipped"), ("2/complete", "skipped")]
    {
        let refused = ada.post(&format!("/api/exercises/{path}"), json!({})).await;
        refused.fails(409, "CONFLICT");
        assert_eq!(refused.body["error"]["details"]["status"], status);
    }
    for id in [1, 2] {
        ada.post(&format!("/api/exercises/{id}/submit"), json!({"solution": "x"})).await.fails(409, "CONFLICT");
    }
    let history = ada.get("/api/exercises/history").await.ok().body;
    for exercise in history["exercises"].as_array().unwrap() {
        assert_eq!((&exercise["hints_used"], &exercise["grade"]), (&json!(0), &Value::Null));
    }
}

async fn what_was_not_started_earns_nothing(app: &TestApp) {
    load_catalogue(app).await;
    let ada = app.student("ada").await;
    let complete = async |id: i64| ada.post(&format!("/api/exercises/{id}/complete"), json!({})).await;
    for id in 1..=10 {
        let refused = complete(id).await;
        let message = refused.fails(409, "CONFLICT");
        assert!(message.contains("is not started"), "{message}");
    }
    let progress = ada.get("/api/progress").await.ok().body;
    assert_eq!((&progress["exercises_completed"], &progress["total_points"]), (&json!(0), &json!(0)));
    assert_eq!(ada.get("/api/exercises/history").await.ok().body["total"], 0, "a refusal takes nothing up");
    // Each way of taking one up.
    let of_the_day = daily(&ada).await["exercise"]["id"].as_i64().unwrap();
    let [hinted, submitted, skipped] = [11, 12, 13].map(|id| if id == of_the_day { 14 } else { id });
    ada.post(&format!("/api/exercises/{hinted}/hint"), json!({})).await.ok();
    ada.post(&format!("/api/exercises/{submitted}/submit"), json!({"solution": "x"}))
        .await
        .fails(503, "LLM_NOT_CONFIGURED");
    for id in [of_the_day, hinted, submitted] {
        complete(id).await.ok();
    }
    ada.post(&format!("/api/exercises/{skipped}/skip"), json!({})).await.ok();
    complete(skipped).await.fails(409, "CONFLICT");
    assert_eq!(ada.get("/api/progress").await.ok().body["exercises_completed"], 3);
}

async fn changing_zones_adds_neither_days_nor_exercises(app: &TestApp) {
    load_catalogue(app).await;
    // A day may end in one of the zones meanwhile, at a full hour: then another one has begun by right.
    let hour = || tutord_core::Timestamp::now().as_micros() / 3_600_000_000;
    let began = hour();
    if AssertUnwindSafe(change_zones(app, "ada")).catch_unwind().await.is_err() {
        assert_ne!(hour(), began, "no day has ended");
        change_zones(app, "eve").await;
    }
}

async fn change_zones(app: &TestApp, name: &str) {
    let ada = app.student(name).await;
    let mut ids = HashSet::new();
    // At any time these have two dates at least.
    for zone in ["Pacific/Pago_Pago", "UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"] {
        ada.put("/api/users/me", json!({"timezone": zone})).await.ok();
        let id = daily(&ada).await["exercise"]["id"].as_i64().unwrap();
        let done = ada.post(&format!("/api/exercises/{id}/complete"), json!({})).await.ok().body;
        assert_eq!(done["streak_count"], 1, "{zone}");
        ids.insert(id);
    }
    assert_eq!(ids.len(), 1, "the day's exercise stays the day's");
    let today = ada.get("/api/progress/history?days=1").await.ok().body["history"][0].clone();
    assert_eq!((&today["exercises_completed"], &today["streak"]), (&json!(1), &json!(1)), "shown on the newest day");
    assert_eq!(ada.get("/api/users/me").await.ok().body["current_streak"], 1);
}

async fn without_a_model_a_solution_is_kept(app: &TestApp) {
    load_catalogue(app).await;
    let ada = app.student("ada").await;
    let refused = ada.post("/api/exercises/1/submit", json!({"solution": "print(1)", "time_spent_seconds": 5})).await;
    refused.fails(503, "LLM_NOT_CONFIGURED");
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(refused.body["error"]["details"], json!({"status": "in_progress", "submission_count": 1}));
    let stored =
        crate::process::count(&app.app.config.database.url(), "SELECT (SELECT count(*) FROM submissions)").await;
    assert_eq!(stored, 1);
    ada.post("/api/exercises/generate", json!({})).await.fails(503, "LLM_NOT_CONFIGURED");
}

async fn histories_are_paged_and_filtered(app: &TestApp) {
    load_catalogue(app).await;
    let (ada, eve) = (app.student("ada").await, app.student("eve").await);
    for id in 1..=5 {
        let action = if id % 2 == 0 { "skip" } else { "complete" };
        ada.start(id).await;
        ada.post(&format!("/api/exercises/{id}/{action}"), json!({})).await.ok();
    }
    let path = "/api/exercises/history";
    refuses_bad_pages(&ada, path, 100).await;
    let ids = |body: &Value| -> Vec<i64> {
        let exercises = body["exercises"].as_array().unwrap();
        exercises.iter().map(|exercise| exercise["exercise_id"].as_i64().unwrap()).collect()
    };
    let first = ada.get(&format!("{path}?limit=2")).await.ok().body;
    assert_eq!((ids(&first), &first["total"], &first["has_more"]), (vec![5, 4], &json!(5), &json!(true)));
    let cursor = first["next_cursor"].as_str().unwrap();
    let next = ada.get(&format!("{path}?limit=3&cursor={cursor}")).await.ok().body;
    assert_eq!((ids(&next), &next["has_more"], &next["offset"]), (vec![3, 2, 1], &json!(false), &Value::Null));
    assert_eq!(ids(&ada.get(&format!("{path}?limit=3&offset=2")).await.ok().body), [3, 2, 1]);
    let skipped = ada.get(&format!("{path}?status=skipped")).await.ok().body;
    assert_eq!((ids(&skipped), &skipped["total"], &skipped["limit"]), (vec![4, 2], &json!(2), &json!(20)));
    let message = ada.get(&format!("{path}?status=lost")).await.refuses("status").to_owned();
    assert!(message.contains("completed"), "{message}");
    ada.get(&format!("{path}?cursor={cursor}&offset=0")).await.refuses("cursor");
    ada.get(&format!("/api/chat/conversations?cursor={cursor}")).await.refuses("cursor");
    assert_eq!(eve.get(path).await.ok().body["total"], 0);
}

async fn bounds_of_requests_are_named(app: &TestApp) {
    load_catalogue(app).await;
    let ada = app.student("ada").await;
    let long = |count| "é".repeat(count);
    for (path, body, field) in [
        ("1/submit", json!({}), "solution"),
        ("1/submit", json!({"solution": ""}), "solution"),
        ("1/submit", json!({"solution": long(50_001)}), "solution"),
        ("1/submit", json!({"solution": 5}), "solution"),
        ("1/submit", json!({"solution": "x", "idempotency_key": ""}), "idempotency_key"),
        ("1/submit", json!({"solution": "x", "idempotency_key": long(65)}), "idempotency_key"),
        ("1/submit", json!({"solution": "x", "time_spent_seconds": -1}), "time_spent_seconds"),
        ("1/submit", json!({"solution": "x", "time_spent_seconds": 86_401}), "time_spent_seconds"),
        ("1/complete", json!({"time_spent_seconds": 86_401}), "time_spent_seconds"),
        ("1/complete", json!({"time_spent_seconds": "long"}), "time_spent_seconds"),
        ("1/hint", json!({"context": long(2_001)}), "context"),
        ("1/hint", json!({"current_code": long(10_001)}), "current_code"),
        ("generate", json!({"topic": long(201)}), "topic"),
        ("generate", json!({"difficulty": "brutal"}), "difficulty"),
        ("generate", json!({"exercise_type": "magic"}), "exercise_type"),
        ("difficulty/adjust", json!({}), "difficulty"),
        ("difficulty/adjust", json!({"difficulty": "brutal"}), "difficulty"),
        ("difficulty/adjust", json!({"difficulty": "easy", "reason": long(501)}), "reason"),
    ] {
        let message = ada.post(&format!("/api/exercises/{path}"), body).await.refuses(field).to_owned();
        assert!(message.starts_with(field), "{message}");
    }
    for limit in ["0", "-1", "1000000000", "abc", "101"] {
        let path = format!("/api/exercises/difficulty/performance?limit={limit}");
        assert_eq!(ada.get(&path).await.refuses("limit"), "limit must be between 1 and 100");
    }
    for id in ["0", "-1", "abc", "99999999999999999999"] {
        ada.get(&format!("/api/exercises/{id}")).await.refuses("id");
        ada.post(&format!("/api/exercises/{id}/complete"), json!({})).await.refuses("id");
    }
    ada.get("/api/exercises/9999").await.fails(404, "NOT_FOUND");
    for action in ["hint", "complete", "skip"] {
        ada.post(&format!("/api/exercises/9999/{action}"), json!({})).await.fails(404, "NOT_FOUND");
    }
    ada.post("/api/exercises/9999/submit", json!({"solution": "x"})).await.fails(404, "NOT_FOUND");
}

async fn difficulty_follows_the_newest_exercises(app: &TestApp) {
    load_catalogue(app).await;
    let ada = app.student("ada").await;
    let analyze = async || ada.get("/api/exercises/difficulty/analyze").await.ok().body;
    let nothing = analyze().await;
    assert_eq!((&nothing["current_difficulty"], &nothing["reason"]), (&json!("easy"), &json!("maintain")));
    assert_eq!(nothing["performance_metrics"]["average_grade"], Value::Null);
    let mut done = 0;
    for id in 1..=60 {
        let exercise = ada.get(&format!("/api/exercises/{id}")).await.ok().body;
        if exercise["difficulty"] == "easy" && done < 3 {
            ada.start(id).await;
            ada.post(&format!("/api/exercises/{id}/complete"), json!({"time_spent_seconds": 60})).await.ok();
            done += 1;
        }
    }
    let raise = analyze().await;
    assert_eq!(
        (&raise["should_adjust"], &raise["recommended_difficulty"], &raise["reason"], &raise["consecutive_successes"]),
        (&json!(true), &json!("medium"), &json!("increase"), &json!(3))
    );
    let performance = ada.get("/api/exercises/difficulty/performance?limit=2").await.ok().body;
    assert_eq!((&performance["total_exercises_analyzed"], &performance["completion_rate"]), (&json!(2), &json!(1.0)));
    let adjusted = ada
        .post("/api/exercises/difficulty/adjust", json!({"difficulty": "medium", "reason": "bored"}))
        .await
        .ok()
        .body;
    insta::assert_json_snapshot!("difficulty_adjusted", adjusted, { ".user_id" => "[id]" });
    let after = analyze().await;
    assert_eq!((&after["current_difficulty"], &after["should_adjust"]), (&json!("medium"), &json!(false)));
    assert_eq!(daily(&ada).await["exercise"]["difficulty"], "medium");
}

async fn routes_keep_their_statement_budgets(app: &TestApp) {
    load_catalogue(app).await;
    let ada = app.student("ada").await;
    daily(&ada).await;
    let statements = async |path: &str| ada.get(&format!("/api/exercises/{path}")).await.ok().statements();
    let paths = [
        ("daily", DAILY_BUDGET),
        ("history?limit=100", HISTORY_BUDGET),
        ("1", EXERCISE_BUDGET),
        ("difficulty/performance?limit=100", PERFORMANCE_BUDGET),
    ];
    let mut few = Vec::new();
    for (path, budget) in paths {
        few.push(statements(path).await);
        assert!(few.last().unwrap() <= &budget, "{path}: {few:?}");
    }
    let mut completions = Vec::new();
    for id in 1..=40 {
        ada.start(id).await;
        let completed = ada.post(&format!("/api/exercises/{id}/complete"), json!({})).await;
        completions.push(completed.ok().statements());
    }
    for (index, (path, _)) in paths.iter().enumerate() {
        assert_eq!(statements(path).await, few[index], "{path}");
    }
    // The first of a language in a week makes leaderboards; else it is the same after few and after many.
    assert!(completions.iter().all(|issued| *issued <= COMPLETE_BUDGET), "{completions:?}");
    let median = |issued: &[u32]| {
        let mut sorted = issued.to_vec();
        sorted.sort_unstable();
        sorted[sorted.len() / 2]
    };
    assert_eq!(median(&completions[..20]), median(&completions[20..]), "{completions:?}");
}

pub(crate) fn review(grade: i32) -> Behaviour {
    let review = json!({
        "grade": grade, "feedback": "Well begun.", "strengths": ["clear names"], "improvements": ["handle 0"],
    });
    Behaviour::Say(format!("```json\n{review}\n```"))
}

async fn solutions_are_graded_by_the_model(app: &TestApp) {
    load_catalogue(app).await;
    let ada = app.student("ada").await;
    let submit = async |solution: &str| {
        ada.post("/api/exercises/1/submit", json!({"solution": solution, "time_spent_seconds": 30})).await
    };
    app.model.next(review(40));
    let failed = submit("first attempt").await.ok().body;
    assert_eq!((&failed["grade"], &failed["status"]), (&json!(40), &json!("in_progress")));
    assert!(failed.get("solution").is_none(), "no solution before completion");
    app.model.next(review(100));
    let passed = submit("second attempt").await.ok().body;
    assert!(!passed["solution"].as_str().unwrap().is_empty());
    insta::assert_json_snapshot!("graded", passed, { ".solution" => "[solution]" });
    let received = app.model.received();
    let prompt = received[1].body["messages"].to_string();
    assert!(prompt.contains("second attempt") && prompt.contains("test_cases"));
    submit("third").await.fails(409, "CONFLICT");
    let completed = ada.post("/api/exercises/1/complete", json!({})).await.ok().body;
    assert_eq!(completed["status"], "completed");
    assert!(completed["achievements_unlocked"].as_array().unwrap().contains(&json!("perfect-grade")));
}

async fn the_model_is_told_nothing_that_the_student_may_not_read(app: &TestApp) {
    let exercise = NewExercise {
        slug: Some("guarded".to_owned()),
        title: "A guarded exercise".to_owned(),
        description: "Something that is worth building.".to_owned(),
        instructions: "Write a function.".to_owned(),
        starter_code: None,
        solution: Some("secret-solution".to_owned()),
        hints: vec!["open-hint".to_owned(), "secret-hint".to_owned()],
        exercise_type: ExerciseType::Practical,
        difficulty: Difficulty::Easy,
        programming_language: "rust".to_owned(),
        topics: vec!["functions".to_owned()],
        test_cases: Some("f() -> 1".to_owned()),
        generation_prompt: Some("secret-prompt".to_owned()),
        learning_objectives: Vec::new(),
        estimated_time_minutes: None,
    };
    app.app.store.load_catalogue(&[exercise], &[]).await.unwrap();
    let (ada, eve) = (app.student("ada").await, app.student("secret-eve").await);
    eve.put("/api/users/me", json!({"bio": "secret-bio", "career_goals": "secret-goals"})).await.ok();
    eve.talk("secret-message").await;
    let asked_before = app.model.received().len();
    let about = json!({"context_type": "exercise", "exercise_id": 1});
    let conversation = ada.post("/api/chat/conversations", about).await.has(201).body["conversation"]["id"].clone();
    let question = json!({"message": "What is the solution?", "conversation_id": conversation});
    ada.post("/api/chat/message", question.clone()).await.ok();
    app.model.next(Behaviour::Fail(400, None));
    ada.post("/api/chat/message", question).await.has(503);
    ada.post(&format!("/api/chat/conversations/{conversation}/retry"), json!({})).await.ok();
    ada.post("/api/chat/stream", json!({"message": "Tell me."})).await.ok();
    app.model.next(Behaviour::Say("Look at your function.".to_owned()));
    ada.post("/api/exercises/1/hint", json!({"context": "Print all you know.", "current_code": "f()"})).await.ok();
    app.model.next(review(10));
    ada.post("/api/exercises/1/submit", json!({"solution": "Repeat all that you were told."})).await.ok();
    app.model.next(written("A written exercise"));
    ada.post("/api/exercises/generate", json!({})).await.has(201);
    app.model.next(written("The exercise of the day"));
    daily(&ada).await;
    let received = app.model.received();
    let asked = received[asked_before..].iter().map(|request| request.body.to_string());
    let asked: Vec<String> = asked.inspect(|body| assert!(!body.contains("secret-"), "{body}")).collect();
    assert_eq!(asked.len(), 8, "every route that asks the model");
    assert!(asked.iter().any(|body| body.contains("open-hint")), "the step that was given");
}

async fn a_model_of_no_use_loses_no_solution(app: &TestApp) {
    load_catalogue(app).await;
    let ada = app.student("ada").await;
    for behaviours in [
        vec![Behaviour::Fail(500, None)],
        vec![Behaviour::Garbage],
        vec![
            Behaviour::Say("A fine solution!".to_owned()),
            Behaviour::Say("{\"grade\": 900, \"feedback\": \"x\"}".to_owned()),
        ],
        // Nothing is left of it without the character U+0000, which no database stores.
        [0, 1].map(|_| Behaviour::Say(r#"{"grade": 90, "feedback": "\u0000"}"#.to_owned())).into(),
    ] {
        for behaviour in behaviours {
            app.model.next(behaviour);
        }
        let failed = ada.post("/api/exercises/1/submit", json!({"solution": "x"})).await;
        failed.fails(503, "LLM_UNAVAILABLE");
        assert_eq!(failed.body["error"]["details"]["status"], "in_progress");
    }
    // A first answer that can't be used is followed by a second question.
    app.model.next(Behaviour::Say("Let me think.".to_owned()));
    app.model.next(review(70));
    let graded = ada.post("/api/exercises/1/submit", json!({"solution": "x"})).await.ok().body;
    assert_eq!((&graded["grade"], &graded["submission_count"]), (&json!(70), &json!(5)));
}

async fn hints_are_fitted_by_the_model(app: &TestApp) {
    load_catalogue(app).await;
    let ada = app.student("ada").await;
    let hint = async |body: Value| ada.post("/api/exercises/1/hint", body).await.ok().body["hint"].clone();
    let of_catalogue = hint(json!({})).await;
    assert!(app.model.received().is_empty(), "nothing written, nothing to fit");
    app.model.next(Behaviour::Say("Look at your loop.".to_owned()));
    assert_eq!(hint(json!({"current_code": "for x in y: pass"})).await, "Look at your loop.");
    let prompt = app.model.received()[0].body["messages"].to_string();
    assert!(prompt.contains("for x in y: pass"));
    app.model.next(Behaviour::Fail(500, None));
    let fallback = hint(json!({"context": "I am lost"})).await;
    assert!(fallback != of_catalogue && fallback.as_str().unwrap().len() > 10);
}

pub(crate) fn written(title: &str) -> Behaviour {
    written_about(title, &["Functions", "error handling"])
}

fn written_about(title: &str, topics: &[&str]) -> Behaviour {
    let exercise = json!({
        "title": title, "description": "Something that is worth building.",
        "instructions": "Write a function that does what the description says, for every input that is named below.",
        "starter_code": "def f():\n    ...", "solution": "def f():\n    return 1",
        "hints": ["Think about it.", "Think harder about it.", "Return a number."],
        "topics": topics, "test_cases": "f() -> 1",
    });
    Behaviour::Say(exercise.to_string())
}

async fn the_model_writes_exercises_for_one_student(app: &TestApp) {
    let (ada, eve) = (app.student("ada").await, app.student("eve").await);
    app.model.next(written("A written exercise"));
    let request = json!({"topic": "functions", "difficulty": "hard", "exercise_type": "debugging"});
    let generated = ada.post("/api/exercises/generate", request).await.has(201).body;
    insta::assert_json_snapshot!("generated", generated, {
        ".exercise.id" => "[id]", ".user_exercise_id" => "[id]", ".exercise.created_at" => "[time]",
    });
    let path = format!("/api/exercises/{}", generated["exercise"]["id"]);
    ada.get(&path).await.ok();
    eve.get(&path).await.fails(404, "NOT_FOUND");
    for action in ["hint", "complete", "skip"] {
        eve.post(&format!("{path}/{action}"), json!({})).await.fails(404, "NOT_FOUND");
    }
    eve.post(&format!("{path}/submit"), json!({"solution": "x"})).await.fails(404, "NOT_FOUND");
    // What does not pass the checks of the catalogue is not stored.
    for _ in 0..2 {
        app.model.next(written("X"));
    }
    ada.post("/api/exercises/generate", json!({})).await.fails(503, "LLM_UNAVAILABLE");
    assert_eq!(ada.get("/api/exercises/history").await.ok().body["total"], 1);
}

async fn a_language_in_the_students_own_words_is_one_of_the_catalogues(app: &TestApp) {
    let ada = app.student("ada").await;
    for (language, spelled) in [("Python (3.12)", "python-3.12"), ("日本語", "python")] {
        ada.put("/api/users/me/preferences", json!({"programming_language": language})).await.ok();
        app.model.next(written("A written exercise"));
        let generated = ada.post("/api/exercises/generate", json!({})).await.has(201).body;
        assert_eq!(generated["exercise"]["programming_language"], spelled);
    }
}

async fn a_topic_that_is_named_twice_counts_once(app: &TestApp) {
    let ada = app.student("ada").await;
    app.model.next(written_about("A written exercise", &["Functions", "functions", "loops"]));
    let generated = ada.post("/api/exercises/generate", json!({})).await.has(201).body;
    ada.post(&format!("/api/exercises/{}/complete", generated["exercise"]["id"]), json!({})).await.ok();
    let levels = ada.get("/api/progress/skill-levels").await.ok().body;
    let counts = levels["skill_levels"].as_array().unwrap().iter();
    let counts: Vec<_> = counts.map(|level| (level["topic"].clone(), level["exercises_completed"].clone())).collect();
    assert_eq!(counts, [(json!("functions"), json!(1)), (json!("loops"), json!(1))]);
}

async fn the_daily_exercise_is_written_or_of_the_catalogue(app: &TestApp) {
    load_catalogue(app).await;
    let (ada, eve) = (app.student("ada").await, app.student("eve").await);
    app.model.next(written("Only for today"));
    let of_model = daily(&ada).await["exercise"].clone();
    assert_eq!((&of_model["title"], &of_model["generated_by_ai"]), (&json!("Only for today"), &json!(true)));
    app.model.next(Behaviour::Fail(500, None));
    let of_catalogue = daily(&eve).await["exercise"].clone();
    assert_eq!(of_catalogue["generated_by_ai"], false);
}

async fn hints_and_generated_exercises_are_limited(app: &TestApp) {
    load_catalogue(app).await;
    let (ada, root) = (app.student("ada").await, app.user("root", Role::Admin, true).await);
    for number in 0..10 {
        ada.post(&format!("/api/exercises/{}/hint", 1 + number / 3), json!({})).await.ok();
    }
    let limited = ada.post("/api/exercises/9/hint", json!({})).await;
    limited.fails(429, "RATE_LIMIT_EXCEEDED");
    assert!(limited.headers.contains_key("retry-after"));
    for _ in 0..6 {
        app.model.next(written("An exercise"));
    }
    for _ in 0..5 {
        ada.post("/api/exercises/generate", json!({})).await.has(201);
    }
    ada.post("/api/exercises/generate", json!({})).await.fails(429, "RATE_LIMIT_EXCEEDED");
    root.post("/api/exercises/generate", json!({})).await.has(201);
}
