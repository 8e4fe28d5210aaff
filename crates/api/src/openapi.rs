//! The OpenAPI 3.1 document, made from the table of routes and the types. Golden: `crates/api/openapi.json`.

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::problem::{MEDIA_TYPE, Problem, ProblemKind};
use crate::routes::{
    Access, Answer, Body, Content, IDEMPOTENCY_KEY, IDEMPOTENCY_KEY_BYTES_MAX, Parameter, Place, Presence, ROUTES,
    Route, Shape, Tag,
};

/// The document. The same bytes every time.
#[must_use]
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for route in ROUTES {
        let operation = operation(route, &mut generator);
        paths.entry(route.path).or_default().insert(route.method.name().to_lowercase(), operation);
    }
    let problem = generator.subschema_for::<Problem>();
    let responses: Map<String, Value> =
        ProblemKind::ALL.into_iter().map(|kind| (kind.word().to_owned(), refusal(kind, &problem))).collect();
    let tags: Vec<_> = Tag::ALL.into_iter().map(|tag| json!({ "name": tag.name() })).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Ropewalk",
            "version": "1",
            "description": "Builds, jobs, logs and workers of a Ropewalk server. Times are RFC 3339 in UTC with \
                            microseconds. Lists come a page at a time: `cursor` takes the `next` of the page before. \
                            Refusals are problems (RFC 9457) that say what to do. Segments of paths are \
                            percent-encoded: the job `test/linux` is `test%2Flinux`.",
            "license": { "name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT" },
        },
        "tags": tags,
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "responses": responses,
            "schemas": generator.take_definitions(true),
        },
    })
}

/// The document as it is kept and served.
#[must_use]
pub fn text() -> String {
    let mut text = serde_json::to_string_pretty(&document()).unwrap_or_default();
    text.push('\n');
    text
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut operation = json!({
        "operationId": route.operation,
        "tags": [route.tag.name()],
        "summary": route.summary,
        "responses": responses(route, generator),
    });
    let path = route.path_parameters().map(path_parameter);
    let others = route.parameters.iter().map(|parameter| other_parameter(parameter, generator));
    let mut parameters: Vec<_> = path.chain(others).collect();
    if route.takes_key() {
        parameters.push(json!({
            "name": IDEMPOTENCY_KEY, "in": "header", "required": false,
            "description": "makes the call safe to repeat for a day: the same key and body give the answer that was given",
            "schema": { "type": "string", "minLength": 1, "maxLength": IDEMPOTENCY_KEY_BYTES_MAX,
                        "pattern": "^[!-~]+$" },
        }));
    }
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(body) = &route.body {
        operation["requestBody"] = request_body(body, generator);
    }
    match route.access {
        Access::Public | Access::Visitor => operation["security"] = json!([]),
        Access::Token | Access::Session | Access::Sender | Access::Grant(..) => {
            operation["security"] = json!([{ "token": [] }]);
            operation["x-access"] = access(route.access).into();
        }
    }
    operation
}

/// Who may, for people.
fn access(access: Access) -> String {
    match access {
        Access::Public => "anybody".to_owned(),
        Access::Visitor => "anybody, where the settings say so; else `read` on the project".to_owned(),
        Access::Token => "any token".to_owned(),
        Access::Session => "the session of a worker".to_owned(),
        Access::Sender => "`submit`, or the session of a worker".to_owned(),
        Access::Grant(verb, on) => format!("`{}` on {}", verb.name(), on.text()),
    }
}

fn path_parameter(name: &str) -> Value {
    let schema = match name {
        // A build's number is an integer of 64 bits that no store lets grow beyond this.
        "build" | "number" => json!({ "type": "integer", "minimum": 1, "maximum": i64::MAX }),
        "attempt" => json!({ "type": "integer", "minimum": 1, "maximum": u32::MAX }),
        "step" => json!({ "type": "integer", "minimum": 0, "maximum": u16::MAX }),
        "digest" => json!({ "type": "string", "pattern": "^[0-9a-f]{64}$" }),
        "commit" => json!({ "type": "string", "pattern": "^([0-9a-f]{40}|[0-9a-f]{64})$" }),
        "project" | "pool" => json!({ "type": "string", "pattern": crate::project::NAME_PATTERN }),
        "secret" => json!({ "type": "string", "pattern": crate::project::SECRET_NAME_PATTERN }),
        _ => json!({ "type": "string", "minLength": 1, "maxLength": 512 }),
    };
    let mut parameter = json!({ "name": name, "in": "path", "required": true, "schema": schema });
    if let Some(example) = example(name) {
        parameter["example"] = example;
    }
    parameter
}

/// What might stand there, for people, and for testers that begin with it.
fn example(name: &str) -> Option<Value> {
    Some(match name {
        "build" | "number" | "attempt" => json!(1),
        "step" => json!(0),
        "project" => json!("sails"),
        "job" => json!("hello"),
        "pool" => json!("default"),
        "secret" => json!("TOKEN"),
        _ => return None,
    })
}

fn other_parameter(parameter: &Parameter, generator: &mut SchemaGenerator) -> Value {
    let place = match parameter.place {
        Place::Query => "query",
        Place::Header => "header",
    };
    json!({
        "name": parameter.name,
        "in": place,
        "required": parameter.presence == Presence::Required,
        "description": parameter.text,
        "schema": (parameter.shape)(generator),
    })
}

fn request_body(body: &Body, generator: &mut SchemaGenerator) -> Value {
    let media = content(body.content, generator);
    json!({ "required": body.presence == Presence::Required, "content": { body.media: media } })
}

fn responses(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut responses = Map::new();
    for answer in route.answers {
        let Answer { status, media, content: holds, text } = *answer;
        let response = responses.entry(status.to_string()).or_insert_with(|| json!({ "description": text }));
        if !media.is_empty() {
            response["content"][media] = content(holds, generator);
        }
    }
    for kind in route.refusals() {
        let refusal = json!({ "$ref": format!("#/components/responses/{}", kind.word()) });
        match responses.get_mut(&kind.status().to_string()) {
            // A status that is also an answer of its own: both media types stand in it.
            Some(response) => response["content"][MEDIA_TYPE] = content(Content::Json(problem_shape), generator),
            None => drop(responses.insert(kind.status().to_string(), refusal)),
        }
    }
    Value::Object(responses)
}

fn problem_shape(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<Problem>()
}

fn content(content: Content, generator: &mut SchemaGenerator) -> Value {
    let schema = |shape: Shape, generator: &mut SchemaGenerator| json!(shape(generator));
    match content {
        Content::Nothing => json!({}),
        Content::Json(shape) => json!({ "schema": schema(shape, generator) }),
        Content::AnyJson => json!({ "schema": { "type": "object" } }),
        Content::Text => json!({ "schema": { "type": "string" } }),
        Content::Bytes => json!({ "schema": { "type": "string", "format": "binary" } }),
        // OpenAPI 3.1 has no word for a stream's items; 3.2 has `itemSchema`, which older readers pass over.
        Content::Stream(shape) => {
            json!({ "schema": { "type": "string" }, "x-item-schema": schema(shape, generator) })
        }
    }
}

fn refusal(kind: ProblemKind, problem: &Schema) -> Value {
    json!({ "description": kind.title(), "content": { MEDIA_TYPE: { "schema": problem } } })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_document_is_as_it_was_read_and_accepted() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
        let text = super::text();
        if std::env::var_os("ROPEWALK_ACCEPT").is_some() {
            std::fs::write(&path, &text).expect("the golden file can be written");
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(golden == text, "crates/api/openapi.json differs: look at what ROPEWALK_ACCEPT=1 makes of it");
    }
}
