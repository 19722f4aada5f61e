//! Idempotency keys of submissions and of generated exercises.

use serde_json::{Value, json};
use testbed::model::Behaviour;

use crate::support::TestApp;
use crate::support::fixtures::{exercise_reply, grade_reply};

crate::on_both!(a_repeated_submission_returns_its_grade, a_repeated_generation_returns_the_same_exercise,);

async fn a_repeated_submission_returns_its_grade(app: &TestApp) {
    let exercises = app.load_catalogue().await;
    let (first, second) = (exercises[0], exercises[1]);
    let ada = app.student("ada").await;
    let request = json!({"solution": "print(1)", "time_spent_seconds": 30, "idempotency_key": "first"});
    let submit = async |id: i64, body: &Value| ada.submit_solution(id, body.clone()).await;
    app.model.next(Behaviour::Fail(400, None));
    submit(first, &request).await.assert_error(503, "LLM_UNAVAILABLE");
    app.model.next(grade_reply(70));
    let graded = submit(first, &request).await.assert_ok().body;
    assert_eq!((&graded["grade"], &graded["submission_count"]), (&json!(70), &json!(1)), "one submission");
    let prompts = app.model.received().len();
    assert_eq!(submit(first, &request).await.assert_ok().body, graded, "the same response");
    assert_eq!(app.model.received().len(), prompts, "graded once");
    for (id, field, value) in [
        (first, "solution", json!("print(2)")),
        (first, "time_spent_seconds", json!(31)),
        (second, "solution", json!("print(1)")),
    ] {
        let mut other = request.clone();
        other[field] = value;
        submit(id, &other).await.assert_invalid_field("idempotency_key");
    }
    assert_eq!(app.model.received().len(), prompts);
}

async fn a_repeated_generation_returns_the_same_exercise(app: &TestApp) {
    let ada = app.student("ada").await;
    let request = json!({"topic": "loops", "idempotency_key": "first"});
    app.model.next(exercise_reply("A first exercise"));
    let first = ada.post("/api/exercises/generate", request.clone()).await.assert_status(201).body;
    let prompts = app.model.received().len();
    assert_eq!(ada.post("/api/exercises/generate", request).await.assert_status(201).body, first);
    let other = json!({"topic": "trees", "idempotency_key": "first"});
    ada.post("/api/exercises/generate", other).await.assert_invalid_field("idempotency_key");
    let id = first["exercise"]["id"].as_i64().unwrap();
    let other = json!({"solution": "x", "idempotency_key": "first"});
    ada.submit_solution(id, other).await.assert_invalid_field("idempotency_key");
    assert_eq!(app.model.received().len(), prompts, "generated once");
}
