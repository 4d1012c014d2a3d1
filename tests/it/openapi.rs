//! The description of the API agrees with the API.

use serde_json::Value;

use super::support::http;
use super::support::operated::Operated;

/// Every path of the API. A new path must be added here and to the description.
const PATHS: [&str; 12] = [
    "/api/v1/backends",
    "/api/v1/backends/{id}/orders",
    "/api/v1/backends/{id}/scan",
    "/api/v1/events",
    "/api/v1/explain",
    "/api/v1/fleet",
    "/api/v1/mirrors",
    "/api/v1/openapi.json",
    "/api/v1/reload",
    "/api/v1/session",
    "/api/v1/stats",
    "/api/v1/zones/{zone}/orders",
];

/// Checks an answer to GET against the description of its path.
#[track_caller]
pub fn check_answer(description: &Value, path: &str, answer: &Value) {
    let described = &description["paths"][path]["get"]["responses"]["200"]["content"]["application/json"];
    check(description, &described["schema"], answer, path);
}

/// Checks a value against the parts of JSON Schema that the description uses.
#[track_caller]
fn check(description: &Value, schema: &Value, value: &Value, place: &str) {
    if let Some(name) = schema["$ref"].as_str() {
        let named = description.pointer(name.strip_prefix('#').unwrap()).unwrap();
        return check(description, named, value, place);
    }
    if let Some(either) = schema["oneOf"].as_array() {
        let fitting = either.iter().find(|schema| value.is_null() == (schema["type"] == "null")).unwrap();
        return check(description, fitting, value, place);
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let kinds = schema["type"].as_array().cloned().unwrap_or_else(|| vec![schema["type"].clone()]);
    let fits = kinds.iter().any(|allowed| allowed == kind || (allowed == "number" && kind == "integer"));
    assert!(fits, "{place}: {value} is {kind}, not {kinds:?}");
    if let Some(allowed) = schema["enum"].as_array() {
        assert!(allowed.contains(value), "{place}: {value}");
    }
    if let Value::Array(items) = value {
        for item in items {
            check(description, &schema["items"], item, place);
        }
    }
    if let (Value::Object(members), Some(properties)) = (value, schema["properties"].as_object()) {
        for (name, member) in members {
            let schema = properties.get(name).unwrap_or_else(|| panic!("{place}.{name} is not described"));
            check(description, schema, member, &format!("{place}.{name}"));
        }
        for name in schema["required"].as_array().unwrap() {
            assert!(members.contains_key(name.as_str().unwrap()), "{place}.{name} is missing");
        }
    }
}

#[test]
fn every_answer_of_the_api_is_described() {
    let balancer = Operated::start(&["--statistics-days", "3"]);
    let admin = balancer.admin();
    let answer = http::get(admin, "/api/v1/openapi.json");
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    let description: Value = serde_json::from_slice(&answer.body).unwrap();
    let described: Vec<_> = description["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(described, PATHS);
    let name = balancer.name(0);
    let order = |path: &str| path.replace("{id}", &name).replace("{zone}", "eu");
    // The order of the requests makes orders and events appear in the answers.
    for (path, method, query, body) in [
        ("/api/v1/backends/{id}/orders", "POST", "", r#"{"order":"weight","weight":2,"until":"1h"}"#),
        ("/api/v1/zones/{zone}/orders", "POST", "", r#"{"order":"drain","note":"new disk"}"#),
        ("/api/v1/backends/{id}/orders", "POST", "", r#"{"order":"stop"}"#),
        ("/api/v1/backends/{id}/orders", "POST", "", r#"{"order":"enable","until":"1h"}"#),
        ("/api/v1/session", "POST", "", "{}"),
        ("/api/v1/reload", "POST", "", "{}"),
        ("/api/v1/backends", "GET", "", ""),
        ("/api/v1/explain", "GET", "?path=/x&client=192.0.2.7&scheme=https", ""),
        ("/api/v1/explain", "GET", "?path=/../x", ""),
        ("/api/v1/explain", "GET", "", ""),
        ("/api/v1/events", "GET", "?limit=50", ""),
        ("/api/v1/events", "GET", "?backend=none:1", ""),
        ("/api/v1/events", "GET", "?limit=x", ""),
        ("/api/v1/fleet", "GET", "", ""),
        ("/api/v1/stats", "GET", "?days=3&by=server", ""),
        ("/api/v1/stats", "GET", "?by=x", ""),
        ("/api/v1/mirrors", "GET", "", ""),
        ("/api/v1/backends/{id}/scan", "POST", "", r#"{"now":true}"#),
        ("/api/v1/backends/{id}/scan", "POST", "", "{"),
        ("/api/v1/openapi.json", "GET", "", ""),
    ] {
        let length = body.len();
        let request = format!(
            "{method} {}{query} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}",
            order(path)
        );
        let answer = http::request(admin, request);
        let operation = &description["paths"][path][method.to_lowercase()];
        let place = format!("{method} {path}{query} {body}: {}", answer.status);
        let described = &operation["responses"][answer.status.to_string()];
        assert!(described.is_object(), "{place}: {answer:?}");
        if let Some(content) = described["content"].as_object() {
            let kind = answer.header("Content-Type").unwrap();
            let schema = &content.get(kind).unwrap_or_else(|| panic!("{place}: {kind}"))["schema"];
            check(&description, schema, &serde_json::from_slice(&answer.body).unwrap(), &place);
        }
    }
    // All paths exist, and refuse other methods.
    for path in PATHS {
        let request = format!("DELETE {} HTTP/1.1\r\nHost: localhost\r\n\r\n", order(path));
        let answer = http::request(admin, request);
        assert_eq!(answer.status, 405, "{path}");
        let allowed = answer.header("Allow").unwrap().to_lowercase();
        let mut methods = description["paths"][path].as_object().unwrap().keys();
        assert!(methods.all(|method| allowed.contains(method.as_str())), "{path}: {allowed}");
    }
}
