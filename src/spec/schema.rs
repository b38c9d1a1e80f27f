//! The JSON Schema of the spec, from the types in `types.rs` and the words that this build knows.
//!
//! [`rules`] is what `check.rs` walks; [`schema`] is the same without our own `x-` keywords, for editors.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::Known;
use super::types::Spec;

/// Returns the JSON Schema (draft 2020-12) that editors use.
pub fn schema(known: &Known) -> Value {
    let mut schema = rules(known);
    each_object(&mut schema, &mut |object| {
        object.retain(|key, _| !key.starts_with("x-"));
    });
    schema["title"] = json!("hafog.yaml");
    schema
}

/// Returns the schema with the `x-` keywords that steer the checks.
pub fn rules(known: &Known) -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut rules = generator.into_root_schema_for::<Spec>().to_value();
    each_object(&mut rules, &mut without_null);
    each_object(&mut rules, &mut |object| fill_words(object, known));
    rules
}

/// Calls `change` on every object, parents first. Also on maps such as `properties`, which have no keyword in them.
fn each_object(value: &mut Value, change: &mut dyn FnMut(&mut Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            change(object);
            object
                .values_mut()
                .for_each(|value| each_object(value, change));
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|value| each_object(value, change)),
        _ => {}
    }
}

/// A key of the spec is there or not; `null` is nobody's value.
fn without_null(object: &mut Map<String, Value>) {
    let null = json!("null");
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| *name != null);
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
    if object.get("default") == Some(&Value::Null) {
        object.remove("default");
    }
    let Some(Value::Array(variants)) = object.get("anyOf") else {
        return;
    };
    let real: Vec<&Value> = variants
        .iter()
        .filter(|variant| variant.get("type") != Some(&null))
        .collect();
    if let ([Value::Object(only)], true) = (real.as_slice(), real.len() < variants.len()) {
        let only = only.clone();
        object.remove("anyOf");
        for (key, value) in only {
            object.entry(key).or_insert(value);
        }
    }
}

fn fill_words(object: &mut Map<String, Value>, known: &Known) {
    let Some(which) = object.get("x-known").and_then(Value::as_str) else {
        return;
    };
    let (noun, words): (&str, Vec<&str>) = match which {
        "clouds" => (
            "cloud",
            known.clouds.iter().map(|cloud| cloud.name).collect(),
        ),
        "engines" => (
            "engine",
            known.engines.iter().map(|engine| engine.name).collect(),
        ),
        "dns-hosts" => (
            "DNS host",
            known.dns_hosts.iter().map(|host| host.name).collect(),
        ),
        "zone-settings" => return fill_zone_settings(object, known),
        other => unreachable!("the types name the words `{other}`, which nobody has"),
    };
    object.insert("enum".to_owned(), json!(words));
    object.insert("x-noun".to_owned(), json!(noun));
}

/// Which setting belongs to which DNS host is checked by `resolve.rs`.
fn fill_zone_settings(object: &mut Map<String, Value>, known: &Known) {
    object.insert("additionalProperties".to_owned(), json!(false));
    let Some(Value::Object(properties)) = object.get_mut("properties") else {
        unreachable!("a zone has properties");
    };
    for host in known.dns_hosts {
        for setting in host.settings {
            properties
                .entry((*setting).to_owned())
                .or_insert_with(|| json!({ "type": "string", "x-format": "text", "description": "A setting of the DNS host." }));
        }
    }
}
