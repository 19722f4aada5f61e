//! The API's description, and the routes that it names.

use std::fmt::Display;

use reqwest::Method;
use serde_json::Value;

use super::TestApp;

/// A route of the description.
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) operation: Value,
}

impl Route {
    /// Returns the method and the path. The older release's path of a route has the same name.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.method, self.path.replace("/api/v1/", "/api/"))
    }

    /// Returns the path with an id in it.
    pub(crate) fn at(&self, id: impl Display) -> String {
        self.path.replace("{id}", &id.to_string())
    }

    /// Returns who may call the route: `public`, `login`, `verified` or `admin`.
    pub(crate) fn requires(&self) -> &str {
        self.operation["x-requires"].as_str().expect("x-requires")
    }

    pub(crate) fn is_public(&self) -> bool {
        self.requires() == "public"
    }

    pub(crate) fn takes_body(&self) -> bool {
        self.operation.get("requestBody").is_some()
    }

    /// Returns a valid body, or `None` if the route takes none.
    pub(crate) fn body(&self) -> Option<Value> {
        let content = &self.operation.get("requestBody")?["content"]["application/json"];
        let name = self.name();
        Some(content.get("example").expect(&name).clone())
    }

    /// Returns the query parameters with their schemas.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = (&str, &Value)> {
        let all = self.operation["parameters"].as_array().into_iter().flatten();
        all.filter(|parameter| parameter["in"] == "query")
            .map(|parameter| (parameter["name"].as_str().unwrap(), &parameter["schema"]))
    }

    /// Returns the fields of the body with their schemas.
    pub(crate) fn fields(&self, description: &Value) -> Vec<(String, Value)> {
        let schema = &self.operation["requestBody"]["content"]["application/json"]["schema"];
        let alternatives = schema["oneOf"].as_array().into_iter().flatten();
        let name = alternatives.chain([schema]).find_map(|schema| schema["$ref"].as_str());
        let body = resolve_reference(name.expect("a body of one type"), description);
        body["properties"].as_object().unwrap().clone().into_iter().collect()
    }
}

/// Returns the API's description.
pub(crate) async fn description(app: &TestApp) -> Value {
    app.get("/api/openapi.json").await.assert_ok().body
}

/// Returns the routes of a description.
pub(crate) fn routes(description: &Value) -> Vec<Route> {
    let mut routes = Vec::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if let Ok(method) = method.to_uppercase().parse()
                && operation.get("responses").is_some()
            {
                routes.push(Route { method, path: path.clone(), operation: operation.clone() });
            }
        }
    }
    assert!(routes.len() > 60, "{}", routes.len());
    routes
}

/// The kind of a value.
#[derive(Debug, PartialEq)]
pub(crate) enum ValueKind {
    Text,
    Integer,
    Boolean,
    Enumeration,
}

impl ValueKind {
    /// Returns the kind of the values of a schema.
    pub(crate) fn of(schema: &Value, description: &Value) -> Self {
        if let Some(name) = schema["$ref"].as_str() {
            return Self::of(&resolve_reference(name, description), description);
        }
        if schema.get("enum").is_some() {
            return Self::Enumeration;
        }
        let alternatives = ["oneOf", "anyOf"].iter().find_map(|key| schema[key].as_array());
        if let Some(alternatives) = alternatives {
            return Self::of(alternatives.iter().find(|schema| schema["type"] != "null").unwrap(), description);
        }
        let types = schema["type"].to_string();
        let known = [("string", Self::Text), ("integer", Self::Integer), ("boolean", Self::Boolean)];
        known.into_iter().find(|(name, _)| types.contains(name)).expect("a kind of value that this test covers").1
    }
}

/// Returns what a reference of the description points to.
pub(crate) fn resolve_reference(name: &str, description: &Value) -> Value {
    description.pointer(name.trim_start_matches('#')).expect(name).clone()
}
