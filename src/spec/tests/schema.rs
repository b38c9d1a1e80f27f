//! The published schema has what the types read, and nothing else.

use super::*;

#[test]
fn the_schema_is_what_the_checks_walk() {
    let schema = schema(&WIDE);
    assert!(
        !schema.to_string().contains("\"x-"),
        "our own keywords are not published"
    );
    assert!(!schema.to_string().contains("\"null\""));
    let clouds = schema.pointer("/$defs/CloudName/enum").unwrap();
    assert_eq!(
        clouds,
        &serde_json::json!(["local", "aws", "digitalocean", "incus"])
    );
    let zone = schema.pointer("/$defs/ZoneSpec").unwrap();
    assert_eq!(zone["additionalProperties"], serde_json::json!(false));
    assert!(zone["properties"].get("server").is_some());
    undescribed(&schema, "#");
}

/// Editors show descriptions; nothing is without one.
fn undescribed(value: &serde_json::Value, at: &str) {
    let Some(object) = value.as_object() else {
        return;
    };
    if let Some(serde_json::Value::Object(properties)) = object.get("properties") {
        for (key, property) in properties {
            assert!(
                property.get("description").is_some(),
                "{at}/{key} has no description"
            );
            if property.get("type") == Some(&serde_json::json!("integer")) {
                assert!(
                    property.get("maximum").is_some(),
                    "{at}/{key} has no maximum"
                );
            }
        }
    }
    for (key, value) in object {
        undescribed(value, &format!("{at}/{key}"));
    }
}

/// Every key of the schema is in `everything.yaml`, which the types read; every key that the types write is in the
/// schema. So neither has a key that the other lacks.
#[test]
fn schema_and_types_have_the_same_keys() {
    let text = fs::read_to_string(fixture("everything.yaml")).unwrap();
    let spec = load_str("f", &text, &KNOWN).unwrap().spec;
    let written = serde_json::to_value(spec).unwrap();
    let mut used = std::collections::BTreeSet::new();
    keys(&written, &mut used);
    let mut named = std::collections::BTreeSet::new();
    properties(&schema(&KNOWN), &mut named);
    let missing: Vec<&String> = named.difference(&used).collect();
    assert!(
        missing.is_empty(),
        "in the schema but not in everything.yaml: {missing:?}"
    );
    for text in ["{stack: x}", &text] {
        let value: serde_json::Value = serde_yaml::from_str(text).unwrap();
        let ours = load_str("f", text, &KNOWN).is_ok();
        assert_eq!(serde_json::from_value::<Spec>(value).is_ok(), ours);
    }
}

fn keys(value: &serde_json::Value, into: &mut std::collections::BTreeSet<String>) {
    match value {
        serde_json::Value::Object(object) => {
            for (key, value) in object {
                into.insert(key.clone());
                keys(value, into);
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| keys(item, into)),
        _ => {}
    }
}

fn properties(value: &serde_json::Value, into: &mut std::collections::BTreeSet<String>) {
    match value {
        serde_json::Value::Object(object) => {
            if let Some(serde_json::Value::Object(properties)) = object.get("properties") {
                into.extend(properties.keys().cloned());
            }
            object.values().for_each(|value| properties(value, into));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| properties(item, into)),
        _ => {}
    }
}

#[test]
fn defaults_of_the_schema_are_those_of_the_stack() {
    let schema = schema(&KNOWN);
    let default = |pointer: &str| {
        schema
            .pointer(pointer)
            .unwrap_or_else(|| panic!("{pointer}"))
            .clone()
    };
    assert_eq!(default("/$defs/NameSpec/properties/ttl/default"), "1h");
    assert_eq!(
        default("/$defs/NameSpec/properties/failover_ttl/default"),
        "60s"
    );
    assert_eq!(default("/$defs/LagSpec/properties/warn/default"), "10s");
    assert_eq!(default("/$defs/LagSpec/properties/critical/default"), "60s");
    assert_eq!(
        default("/$defs/DatabaseSpec/properties/write_lease/default"),
        "10s"
    );
    assert_eq!(
        default("/$defs/DatabaseSpec/properties/keep_log/default"),
        "1GiB"
    );
    assert_eq!(default("/properties/commit_window/default"), "30m");
    assert_eq!(default("/$defs/SiteSpec/properties/tier/default"), "warm");
}
