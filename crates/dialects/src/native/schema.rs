//! The JSON Schema of the native format (draft 2020-12), written from the table of keys.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::jobs::ENVIRONMENTS;
use super::keys::{AXIS, ENVIRONMENT_FORM, MATRIX_FORM, NameKind, PIPELINE, Phase, Presence, Record, Type};

/// The JSON Schema of a pipeline file, with the documentation of every key. Editors complete and check by it; what only
/// lowering can see (needs, expressions, regexes) it leaves open.
#[must_use]
pub fn schema() -> Value {
    let mut records: BTreeMap<String, Value> = BTreeMap::new();
    let root = record(&PIPELINE, &mut records);
    let mut schema = Map::new();
    schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".to_owned(), json!("Ropewalk pipeline"));
    schema.extend(root.as_object().cloned().unwrap_or_default());
    schema.insert("$defs".to_owned(), json!(records));
    Value::Object(schema)
}

fn record(record: &'static Record, records: &mut BTreeMap<String, Value>) -> Value {
    let mut properties = Map::new();
    for key in record.keys {
        let mut value = value(&key.takes, records);
        value["description"] = json!(key.documentation);
        properties.insert(key.name.to_owned(), value);
    }
    let required: Vec<&str> =
        record.keys.iter().filter(|key| key.presence == Presence::Required).map(|key| key.name).collect();
    let others = if std::ptr::eq(record, &raw const MATRIX_FORM) { value(&AXIS, records) } else { json!(false) };
    let is_one_of_kinds = std::ptr::eq(record, &raw const ENVIRONMENT_FORM);
    let may_be_empty = required.is_empty() && !is_one_of_kinds;
    let kinds = if may_be_empty { json!(["object", "null"]) } else { json!("object") };
    let mut schema = json!({
        "type": kinds, "description": record.documentation, "properties": properties, "additionalProperties": others,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    if is_one_of_kinds {
        let kinds = ENVIRONMENTS.iter().map(|(kind, _)| json!({ "required": [kind] }));
        schema["oneOf"] = kinds.collect();
    }
    schema
}

fn value(takes: &'static Type, records: &mut BTreeMap<String, Value>) -> Value {
    match takes {
        Type::Any => json!({}),
        Type::Boolean => json!({ "type": "boolean" }),
        Type::Integer(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Type::Number => json!({ "type": "number", "exclusiveMinimum": 0 }),
        // A matrix, or a part of one, that is no map or list comes from an expression.
        Type::Template(Phase::Matrix) => json!({ "type": "string", "pattern": "\\$\\{\\{" }),
        Type::Template(_) | Type::Scalar => json!({ "type": ["string", "number", "boolean"] }),
        Type::Duration => {
            json!({ "type": "string", "pattern": "^([0-9]+(d|h|ms|m|s))+$", "examples": ["30s", "20m", "6h"] })
        }
        Type::Size => json!({
            "type": ["string", "integer"], "minimum": 1,
            "pattern": "^0*[1-9][0-9]*\\s*(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)$",
            "examples": ["512MiB", "4GiB"],
        }),
        Type::Filled(Type::Name(_)) => name(NameKind::Filled),
        Type::Name(kind) => name(*kind),
        Type::Word(words) => {
            let words: Vec<Value> =
                words.iter().map(|(word, meaning)| json!({ "const": word, "description": meaning })).collect();
            json!({ "oneOf": words })
        }
        Type::List(items) => json!({ "type": "array", "items": value(items, records) }),
        Type::Map(names, values) => {
            json!({ "type": "object", "propertyNames": name(*names), "additionalProperties": value(values, records) })
        }
        Type::Record(of) => {
            let key = definition(of, records);
            json!({ "$ref": format!("#/$defs/{key}") })
        }
        Type::Either(types) => {
            let types: Vec<Value> = types.iter().map(|takes| value(takes, records)).collect();
            json!({ "anyOf": types })
        }
        Type::Text
        | Type::Condition(_)
        | Type::Script
        | Type::Regex
        | Type::Glob
        | Type::Filled(_)
        | Type::Directory(_)
        | Type::CachePath
        | Type::Cron
        | Type::Timezone => json!({ "type": "string" }),
    }
}

/// The name under which a record is defined; its definition is added once. Different records of one name are numbered.
fn definition(of: &'static Record, records: &mut BTreeMap<String, Value>) -> String {
    let mark = |record: &Record| json!({ "description": record.documentation });
    let mut name = of.name.to_owned();
    let mut number = 1;
    while let Some(known) = records.get(&name) {
        if known["description"] == of.documentation {
            return name;
        }
        number += 1;
        name = format!("{}_{number}", of.name);
    }
    // The mark ends records that hold themselves.
    records.insert(name.clone(), mark(of));
    let schema = record(of, records);
    records.insert(name.clone(), schema);
    name
}

fn name(kind: NameKind) -> Value {
    match kind {
        NameKind::JobId | NameKind::Id => json!({ "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_-]{0,99}$" }),
        NameKind::Variable => json!({ "type": "string", "pattern": "^(?!ROPEWALK_)[A-Za-z_][A-Za-z0-9_]{0,99}$" }),
        NameKind::OfPlugin => {
            json!({ "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_-]{0,99}\\.[A-Za-z_][A-Za-z0-9_-]{0,99}$" })
        }
        NameKind::JobName | NameKind::Filled | NameKind::Label => json!({ "type": "string", "minLength": 1 }),
    }
}
