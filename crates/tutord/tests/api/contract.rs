//! Rules that hold for every route of the API's description, and so for each route that is added later.

use std::collections::HashSet;
use std::fmt::Display;

use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tutord::auth::ME_BUDGET;
use tutord::chat::{CONVERSATION_BUDGET, SEND_BUDGET};
use tutord::exercises::{DIFFICULTY_BUDGET, STEP_BUDGET};
use tutord::progress::{LEVEL_BUDGET, OPT_OUT_BUDGET, STREAK_BUDGET};
use tutord::users::PROFILE_BUDGET;

use crate::support::checks::{Requirement, assert_protected, assert_rejects_invalid_bodies};
use crate::support::fixtures::UNKNOWN_ID;
use crate::support::fixtures::exercises::exercise_path;
use crate::support::fixtures::users::UserBuilder;
use crate::support::openapi::{Route, ValueKind, description, resolve_reference, routes};
use crate::support::{TestApp, TestClient, TestResponse, fetch};

crate::on_both!(
    the_description_has_the_routes_of_the_contract,
    the_description_documents_every_response,
    the_description_bounds_every_parameter_and_field,
    every_route_enforces_the_bounds_of_the_description,
    every_route_has_a_statement_budget,
    every_route_that_is_not_public_is_protected,
    every_route_rejects_an_invalid_body,
    every_route_rejects_a_field_of_the_wrong_type,
    every_route_rejects_an_invalid_parameter,
    every_route_rejects_an_invalid_id,
    every_route_hides_the_rows_of_another_student,
    the_statement_counts_do_not_grow_with_the_rows(without_cache()),
);

/// Collects the references of a description.
fn collect_references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().for_each(|value| collect_references(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| collect_references(value, found)),
        _ => {}
    }
}

async fn the_description_has_the_routes_of_the_contract(app: &TestApp) {
    let description = description(app).await;
    let mut found = Vec::new();
    collect_references(&description, &mut found);
    for name in found {
        resolve_reference(name, &description);
    }
    let lines: Vec<String> = routes(&description)
        .iter()
        .map(|route| {
            let callers = match route.requires() {
                "public" => "everybody",
                "login" => "users",
                "verified" => "verified users",
                _ => "admins",
            };
            format!("{:<6} {}  {callers}", route.method.as_str(), route.path)
        })
        .collect();
    insta::assert_snapshot!("routes", lines.join("\n"));
}

async fn the_description_documents_every_response(app: &TestApp) {
    let description = description(app).await;
    let mut ids = HashSet::new();
    for route in routes(&description) {
        let operation = &route.operation;
        assert!(ids.insert(operation["operationId"].to_string()), "{}: {}", route.path, operation["operationId"]);
        assert_eq!(operation["security"] == json!([]), route.is_public(), "{}", route.path);
        // The server bounds a head before it selects a route.
        for status in ["414", "431"] {
            assert!(operation["responses"][status].is_object(), "{} {} has no {status}", route.method, route.path);
        }
        for (status, response) in operation["responses"].as_object().unwrap() {
            let of = format!("{} {} {status}", route.method, route.path);
            let response = match response["$ref"].as_str() {
                Some(name) => resolve_reference(name, &description),
                None => response.clone(),
            };
            assert!(!response["description"].as_str().unwrap_or_default().is_empty(), "{of} has no description");
            // The readiness route has the same body in its 503 and in its 200.
            let is_readiness = status == "503" && route.path.starts_with("/api/health");
            let is_error = status.starts_with(['4', '5']) && !is_readiness;
            let schema = &response["content"]["application/json"]["schema"]["$ref"];
            assert_eq!(is_error, schema == "#/components/schemas/ErrorBody", "{of}: {schema}");
        }
    }
}

async fn the_description_bounds_every_parameter_and_field(app: &TestApp) {
    let description = description(app).await;
    let kind = |schema: &Value| ValueKind::of(schema, &description);
    for route in routes(&description) {
        for (name, schema) in route.parameters().filter(|(_, schema)| kind(schema) == ValueKind::Integer) {
            assert!(
                schema["minimum"].is_i64() && schema["maximum"].is_i64(),
                "{} has an unbounded {name}",
                route.name()
            );
        }
        if route.body().is_some() {
            for (name, schema) in route.fields(&description) {
                let bound = match kind(&schema) {
                    ValueKind::Text => "maxLength",
                    ValueKind::Integer => "minimum",
                    ValueKind::Boolean | ValueKind::Enumeration => continue,
                };
                assert!(schema[bound].is_u64(), "{} has an unbounded {name}", route.name());
            }
        }
    }
}

/// A route rejects a value beyond a bound and names the field. It does not reject the bound itself for its size.
async fn every_route_enforces_the_bounds_of_the_description(app: &TestApp) {
    let (ada, admin) = (app.student("ada").await, app.admin("root").await);
    let description = description(app).await;
    let mut checked = 0;
    for route in &routes(&description) {
        let client = if route.requires() == "admin" { &admin } else { &ada };
        let mut check = async |field: &str, request: RequestBuilder, fits: bool| {
            let response = fetch(request).await;
            let message = response.body["error"]["message"].as_str().unwrap_or_default();
            let bounds = ["must have at", "must have between", "must be at", "must be between"];
            let names_field = response.body["error"]["details"]["field"] == field;
            let is_rejected = names_field && bounds.iter().any(|bound| message.contains(bound));
            assert_ne!(is_rejected, fits, "{} {field}: {:#}", route.name(), response.body);
            checked += 1;
        };
        let is_integer = |schema: &Value| ValueKind::of(schema, &description) == ValueKind::Integer;
        for (name, schema) in route.parameters().filter(|(_, schema)| is_integer(schema)) {
            for (bound, beyond) in [("minimum", -1), ("maximum", 1)] {
                let bound = schema[bound].as_i64().unwrap();
                for (value, fits) in [(bound, true), (bound + beyond, false)] {
                    let path = format!("{}?{name}={value}", route.at(UNKNOWN_ID));
                    check(name, client.request(route.method.clone(), &path), fits).await;
                }
            }
        }
        let Some(body) = route.body() else { continue };
        for (name, schema) in route.fields(&description) {
            for (bound, beyond) in [("minLength", -1), ("maxLength", 1), ("minimum", -1), ("maximum", 1)] {
                let Some(limit) = schema[bound].as_i64() else { continue };
                // A route rejects an unknown time zone of any length.
                let is_zone = name.ends_with("timezone");
                for (value, fits) in [(limit, true), (limit + beyond, false)] {
                    if is_zone {
                        continue;
                    }
                    let mut body = body.clone();
                    body[&name] = match bound {
                        "minLength" | "maxLength" => json!("x".repeat(usize::try_from(value).unwrap())),
                        _ => json!(value),
                    };
                    check(&name, client.request(route.method.clone(), &route.at(UNKNOWN_ID)).json(&body), fits).await;
                }
            }
        }
    }
    assert!(checked > 100, "{checked}");
}

async fn every_route_has_a_statement_budget(app: &TestApp) {
    for route in routes(&description(app).await) {
        assert!(
            tutord::mounts::route_table().budget(&route.method, &route.path).is_some(),
            "{} {}",
            route.method,
            route.path
        );
    }
}

async fn every_route_that_is_not_public_is_protected(app: &TestApp) {
    for route in routes(&description(app).await).iter().filter(|route| !route.is_public()) {
        let path = route.at(UNKNOWN_ID);
        let requirement = if route.requires() == "login" {
            let unverified = app.user(&UserBuilder::random_name()).unverified().create().await;
            fetch(unverified.request(route.method.clone(), &path)).await.assert_ok();
            Requirement::Login
        } else {
            Requirement::VerifiedEmail
        };
        assert_protected(app, requirement, route.method.clone(), &path, route.body()).await;
    }
}

async fn every_route_rejects_an_invalid_body(app: &TestApp) {
    let ada = app.student("ada").await;
    for route in routes(&description(app).await).iter().filter(|route| route.takes_body()) {
        let is_optional = route.operation["requestBody"]["required"] != true;
        assert_rejects_invalid_bodies(&ada, route.method.clone(), &route.at(UNKNOWN_ID), is_optional).await;
    }
}

async fn every_route_rejects_a_field_of_the_wrong_type(app: &TestApp) {
    let ada = app.student("ada").await;
    let description = description(app).await;
    for route in routes(&description).iter().filter(|route| route.takes_body()) {
        let send = async |field: &str, value: &Value| {
            let mut body = route.body().unwrap();
            body[field] = value.clone();
            fetch(ada.request(route.method.clone(), &route.at(UNKNOWN_ID)).json(&body)).await
        };
        for (field, schema) in route.fields(&description) {
            let wrong = match ValueKind::of(&schema, &description) {
                ValueKind::Text => vec![json!(5), json!(["x"]), json!({}), json!("a\0b")],
                ValueKind::Integer => vec![json!("1"), json!(1.5), json!(-1), json!(1e30), json!(true)],
                ValueKind::Boolean => vec![json!("true"), json!(1)],
                ValueKind::Enumeration => vec![json!("no such value"), json!(""), json!(0), json!("a\0b")],
            };
            for value in wrong {
                send(&field, &value).await.assert_invalid_field(&field);
            }
        }
    }
}

async fn every_route_rejects_an_invalid_parameter(app: &TestApp) {
    let exercises = app.load_catalogue().await;
    let ada = app.student("ada").await;
    let conversation = ada.start_conversation("hello").await;
    let admin = app.admin("root").await;
    let description = description(app).await;
    for route in &routes(&description) {
        let client = if route.path.starts_with("/api/admin") { &admin } else { &ada };
        let id = if route.path.starts_with("/api/chat/") { conversation.id } else { exercises[0] };
        for (name, schema) in route.parameters() {
            let wrong: &[&str] = match (name, ValueKind::of(schema, &description)) {
                ("offset", _) => &["-1", "abc", "", "99999999999999999999"],
                (_, ValueKind::Integer) => &["0", "-1", "1000000000", "abc", "", "1.5", "99999999999999999999"],
                // The last four have the right format, but contain times that no row has.
                ("cursor", _) => &[
                    "x",
                    "",
                    "AAAA",
                    "%00",
                    "AQB__________wAAAAAAAAAB",
                    "AQCAAAAAAAAAAAAAAAAAAAAB",
                    "BAB__________wAAAAAAAAAB",
                    "BACAAAAAAAAAAAAAAAAAAAAB",
                ],
                (_, ValueKind::Boolean) => &["maybe", "", "%00"],
                (_, ValueKind::Enumeration) => &["no-such-value", "", "%00"],
                (_, ValueKind::Text) => &["%00"],
            };
            for value in wrong {
                let path = format!("{}?{name}={value}", route.at(id));
                fetch(client.request(route.method.clone(), &path)).await.assert_invalid_field(name);
            }
        }
    }
}

/// Calls a route with an id and a valid body.
async fn call(client: &TestClient<'_>, route: &Route, id: impl Display) -> TestResponse {
    let request = client.request(route.method.clone(), &route.at(id));
    fetch(match route.body() {
        Some(body) => request.json(&body),
        None => request,
    })
    .await
}

fn routes_with_id(description: &Value) -> Vec<Route> {
    let mut routes = routes(description);
    routes.retain(|route| route.path.contains("{id}"));
    assert_eq!(routes.len(), 9);
    routes
}

async fn every_route_rejects_an_invalid_id(app: &TestApp) {
    let ada = app.student("ada").await;
    for route in &routes_with_id(&description(app).await) {
        for id in ["0", "-1", "abc", "1.5", "99999999999999999999", "%27", "%00"] {
            assert_eq!(call(&ada, route, id).await.assert_invalid_field("id"), "id must be a positive integer");
        }
    }
}

async fn every_route_hides_the_rows_of_another_student(app: &TestApp) {
    let (ada, eve) = (app.student("ada").await, app.student("eve").await);
    let conversation = ada.start_conversation("my secret").await;
    let exercise = ada.generate_exercise("For Ada alone").await;
    let prompts = app.model.received().len();
    for route in &routes_with_id(&description(app).await) {
        let id = if route.path.starts_with("/api/chat/") { conversation.id } else { exercise };
        let (foreign, unknown) = (call(&eve, route, id).await, call(&eve, route, UNKNOWN_ID).await);
        foreign.assert_error(404, "NOT_FOUND");
        assert_eq!(foreign.body, unknown.body, "like one that does not exist");
    }
    let about = json!({"context_type": "exercise", "exercise_id": exercise});
    eve.post("/api/chat/conversations", about.clone()).await.assert_error(404, "NOT_FOUND");
    ada.post("/api/chat/conversations", about).await.assert_status(201);
    assert_eq!(app.model.received().len(), prompts, "no request to the model");
    assert_eq!(eve.get("/api/exercises/history").await.assert_ok().body["total"], 0);
}

/// Pages, lists and completions have tests of their own.
async fn the_statement_counts_do_not_grow_with_the_rows(app: &TestApp) {
    let exercises = app.load_catalogue().await;
    let about = exercises[0];
    let ada = app.student("ada").await;
    let started = ada.start_conversation("hello").await;
    let (id, conversation) = (started.id, started.path());
    let issued = async |method: &str, path: &str, body: Value, budget: u32| {
        let request = ada.request(method.parse().unwrap(), path).json(&body);
        let response = fetch(request).await;
        assert!(response.status.is_success(), "{method} {path}: {:#}", response.body);
        assert!(response.statement_count() <= budget, "{method} {path}: {}", response.statement_count());
        response.statement_count()
    };
    let all = async |round: &str, exercises: &[i64]| {
        let [hinted, skipped] = [0, 1].map(|index| exercise_path(exercises[index]));
        [
            issued("GET", "/api/auth/me", json!({}), ME_BUDGET).await,
            issued("GET", "/api/users/me", json!({}), PROFILE_BUDGET).await,
            issued("GET", "/api/users/me/progress", json!({}), PROFILE_BUDGET).await,
            issued("GET", "/api/users/me/preferences", json!({}), PROFILE_BUDGET).await,
            issued("GET", "/api/users/onboarding/status", json!({}), PROFILE_BUDGET).await,
            issued("PUT", "/api/users/me", json!({"name": round}), PROFILE_BUDGET).await,
            issued("PUT", "/api/users/me/preferences", json!({"skill_level": "expert"}), PROFILE_BUDGET).await,
            issued("POST", "/api/chat/conversations", json!({"exercise_id": about}), CONVERSATION_BUDGET).await,
            issued("PATCH", &conversation, json!({"title": round}), CONVERSATION_BUDGET).await,
            issued("POST", "/api/chat/message", json!({"message": "x", "idempotency_key": round}), SEND_BUDGET).await,
            issued("POST", "/api/chat/message", json!({"message": "x", "conversation_id": id}), SEND_BUDGET).await,
            issued("POST", &format!("{hinted}/hint"), json!({}), STEP_BUDGET).await,
            issued("POST", &format!("{skipped}/skip"), json!({}), STEP_BUDGET).await,
            issued("GET", "/api/exercises/difficulty/analyze", json!({}), DIFFICULTY_BUDGET).await,
            issued("POST", "/api/exercises/difficulty/adjust", json!({"difficulty": "easy"}), DIFFICULTY_BUDGET).await,
            issued("POST", "/api/progress/update-streak", json!({}), STREAK_BUDGET).await,
            issued("POST", "/api/progress/calculate-skill-level", json!({"topic": "x"}), LEVEL_BUDGET).await,
        ]
    };
    let few = all("few", &exercises[..2]).await;
    for exercise in &exercises[10..30] {
        ada.send_message_in(started, "x").await.assert_ok();
        ada.start_exercise(*exercise).await;
        ada.complete_exercise(*exercise).await.assert_ok();
    }
    assert_eq!(all("many", &exercises[2..4]).await, few);
    let opt_out = json!({"opted_out": true});
    issued("PUT", "/api/progress/leaderboard/me", opt_out, OPT_OUT_BUDGET).await;
    issued("DELETE", &conversation, json!({}), CONVERSATION_BUDGET).await;
}
