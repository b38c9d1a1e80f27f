//! Compares a tree with the rules and notes every mistake, not the first.
//!
//! What is missing or wrong is replaced by a stand-in that fits, marked as such, so that the rest of the spec can
//! still be resolved and its mistakes found; nobody complains about a stand-in again.

use serde_json::Value as Rule;
use serde_yaml::Value;

use super::format;
use super::nearest::{did_you_mean, nearest, one_of};
use super::source::{Mistakes, Span};
use super::tree::{Entry, Map, Node, What, describe, in_one_line, is_touchy};

/// Checks the whole spec. Afterwards the tree fits the rules, with stand-ins where it did not.
pub fn check(root: &mut Node, rules: &Rule, mistakes: &mut Mistakes) {
    let mut checker = Checker { rules, mistakes };
    let at = At {
        parent: None,
        key: None,
        span: Span::new(1, 1, 1),
        secret: false,
    };
    checker.node(root, rules, &at);
}

/// Where the checker is, for messages.
struct At<'a> {
    parent: Option<&'a At<'a>>,
    /// `None` for an element of a list, and for the root.
    key: Option<&'a str>,
    /// What to underline when something is missing here.
    span: Span,
    /// Values here are never repeated in messages.
    secret: bool,
}

impl<'a> At<'a> {
    fn path(&self) -> String {
        let mut keys = Vec::new();
        let mut at = Some(self);
        while let Some(here) = at {
            keys.extend(here.key);
            at = here.parent;
        }
        keys.reverse();
        keys.join(".")
    }

    fn name(&self) -> String {
        match (self.parent, self.key) {
            (None, _) => "the spec".to_owned(),
            (Some(_), Some(_)) => format!("`{}`", self.path()),
            (Some(_), None) => format!("an entry of `{}`", self.path()),
        }
    }

    fn last_key(&self) -> &'a str {
        match (self.key, self.parent) {
            (Some(key), _) => key,
            (None, Some(parent)) => parent.last_key(),
            (None, None) => "spec",
        }
    }
}

struct Checker<'r, 'm> {
    rules: &'r Rule,
    mistakes: &'m mut Mistakes,
}

impl<'r> Checker<'r, '_> {
    /// Looks a keyword up in a rule and in what it refers to.
    fn keyword(&self, rule: &'r Rule, keyword: &str) -> Option<&'r Rule> {
        let mut rule = rule;
        loop {
            if let Some(found) = rule.get(keyword) {
                return Some(found);
            }
            let reference = rule.get("$ref")?.as_str()?;
            rule = self.rules.pointer(reference.strip_prefix('#')?)?;
        }
    }

    fn text_keyword(&self, rule: &'r Rule, keyword: &str) -> Option<&'r str> {
        self.keyword(rule, keyword).and_then(Rule::as_str)
    }

    /// The words of an enumeration, or nothing when the rule is not one.
    fn words(&self, rule: &'r Rule) -> Option<Vec<&'r str>> {
        if let Some(Rule::Array(words)) = self.keyword(rule, "enum") {
            return Some(words.iter().filter_map(Rule::as_str).collect());
        }
        let Some(Rule::Array(variants)) = self.keyword(rule, "oneOf") else {
            return None;
        };
        let mut words = Vec::new();
        for variant in variants {
            match (variant.get("const"), variant.get("enum")) {
                (Some(word), _) => words.extend(word.as_str()),
                (_, Some(Rule::Array(more))) => words.extend(more.iter().filter_map(Rule::as_str)),
                _ => {}
            }
        }
        Some(words)
    }

    fn node(&mut self, node: &mut Node, rule: &'r Rule, at: &At) {
        if node.stand_in {
            *node = self.stand_in(rule, node.at);
            return;
        }
        if let Some(Rule::Array(variants)) = self.keyword(rule, "anyOf") {
            return self.variant(node, variants, at);
        }
        if let Some(words) = self.words(rule) {
            return self.word(node, rule, &words, at);
        }
        match self.text_keyword(rule, "type") {
            Some("object") => self.object(node, rule, at),
            Some("array") => self.list(node, rule, at),
            Some("string") => self.text(node, rule, at),
            Some("integer") => self.integer(node, rule, at),
            Some("boolean") => self.boolean(node, rule, at),
            other => unreachable!("the types make a rule of type {other:?}, which is not checked"),
        }
    }

    fn wrong(&mut self, node: &mut Node, rule: &'r Rule, message: String, hint: Option<String>) {
        self.mistakes.add_hinted(node.at, message, hint);
        *node = self.stand_in(rule, node.at);
    }

    /// What is there instead of what was expected; nothing about it where secrets are.
    fn found(&mut self, node: &Node, at: &At) -> String {
        if at.secret {
            self.mistakes.mask(node.at);
            return "something else".to_owned();
        }
        if at.parent.is_none()
            && matches!(&node.what, What::Scalar { value, .. } if value.is_string())
        {
            // A whole file of another kind, with whatever is in it.
            return "a text".to_owned();
        }
        describe(node)
    }

    fn wrong_type(&mut self, node: &mut Node, rule: &'r Rule, expected: &str, at: &At) {
        if let (What::List(_), Some(later)) = (&node.what, self.text_keyword(rule, "x-list-later"))
        {
            let hint = "write only the first of them, without `[` and `]`".to_owned();
            return self.wrong(node, rule, format!("{later} is not built yet"), Some(hint));
        }
        let found = self.found(node, at);
        let hint = self.type_hint(node, rule, expected, at);
        let message = format!("expected {expected} for {}, found {found}", at.name());
        if matches!(&node.what, What::Scalar { text, .. } if text.is_empty()) && at.key.is_some() {
            // There is nothing behind the key that could be underlined.
            node.at = at.span;
        }
        self.wrong(node, rule, message, hint);
    }

    fn type_hint(&self, node: &Node, rule: &'r Rule, expected: &str, at: &At) -> Option<String> {
        match &node.what {
            _ if at.secret => None,
            _ if at.parent.is_none() => self.map_hint(rule, at),
            What::Scalar { text, value } if !value.is_null() => {
                if let Some(meant) = self.meant(text, rule) {
                    return Some(format!("write `{meant}`"));
                }
                if expected == "a map" {
                    return self.map_hint(rule, at);
                }
                let listed = expected == "a list" && text.len() < 60 && self.holds_texts(rule);
                let format = self.text_keyword(rule, "x-format");
                match format {
                    Some(format) if !value.is_string() => format::meant_by_number(format, text),
                    _ => listed.then(|| format!("write `[{text}]`")),
                }
            }
            What::List(_)
                if expected == "a map" && self.keyword(rule, "propertyNames").is_some() =>
            {
                Some("write each entry as `NAME: …`, without `- `".to_owned())
            }
            What::List(_) if expected == "a map" => self.map_hint(rule, at),
            What::Map(_) if expected == "a list" => Some("begin each entry with `- `".to_owned()),
            _ => None,
        }
    }

    /// A number or truth value that was written in another program's way.
    fn meant(&self, text: &str, rule: &'r Rule) -> Option<String> {
        match self.text_keyword(rule, "type")? {
            "boolean" => match text.to_lowercase().as_str() {
                "yes" | "on" | "y" | "1" | "true" => Some("true".to_owned()),
                "no" | "off" | "n" | "0" | "false" => Some("false".to_owned()),
                _ => None,
            },
            "integer" => {
                let digits = text.trim().replace('_', "");
                let whole = digits.strip_suffix(".0").unwrap_or(&digits);
                let number: u64 = whole.parse().ok()?;
                let bound = |keyword| self.keyword(rule, keyword).and_then(Rule::as_u64);
                let fits = bound("minimum").is_none_or(|low| low <= number)
                    && bound("maximum").is_none_or(|high| number <= high);
                fits.then(|| number.to_string())
            }
            _ => None,
        }
    }

    /// A list of plain values, so that `[value]` is right.
    fn holds_texts(&self, rule: &'r Rule) -> bool {
        let items = self.keyword(rule, "items");
        items.is_some_and(|items| match self.keyword(items, "anyOf") {
            Some(Rule::Array(variants)) => variants
                .iter()
                .any(|rule| self.text_keyword(rule, "type") == Some("string")),
            _ => self.text_keyword(items, "type") != Some("object"),
        })
    }

    /// What belongs into a map that is none; or that a key of the spec's first level is indented too far.
    fn map_hint(&self, rule: &'r Rule, at: &At) -> Option<String> {
        let outer = self.rules.get("properties").and_then(Rule::as_object);
        if let Some(key) = at.key
            && at.parent.is_some_and(|parent| parent.parent.is_some())
            && outer.is_some_and(|keys| keys.contains_key(key))
        {
            return Some(format!("begin the line of `{key}` in the first column"));
        }
        if at.parent.is_none() {
            return Some("`hafog init` writes one to start from".to_owned());
        }
        let keys = self.keyword(rule, "properties").and_then(Rule::as_object)?;
        Some(format!(
            "write `{{ … }}` with {}",
            one_of(keys.keys().map(String::as_str))
        ))
    }

    fn object(&mut self, node: &mut Node, rule: &'r Rule, at: &At) {
        if !matches!(node.what, What::Map(_)) {
            return self.wrong_type(node, rule, "a map", at);
        }
        if let Some(key_rule) = self.keyword(rule, "propertyNames") {
            return self.entries(node, rule, key_rule, at);
        }
        let span = node.at;
        let What::Map(map) = &mut node.what else {
            return;
        };
        let meant = self.unknown_keys(map, rule, at);
        let Some(Rule::Object(properties)) = self.keyword(rule, "properties") else {
            return;
        };
        for entry in &mut map.entries {
            let Some(rule) = properties.get(&entry.key) else {
                continue;
            };
            let here = At {
                parent: Some(at),
                key: Some(&entry.key),
                span: entry.key_at,
                secret: at.secret || self.keyword(rule, "x-secret").is_some(),
            };
            self.node(&mut entry.node, rule, &here);
        }
        if let Some(Rule::Array(required)) = self.keyword(rule, "required") {
            for key in required.iter().filter_map(Rule::as_str) {
                if map.get(key).is_none() {
                    let said = meant.contains(&key);
                    self.missing(map, key, &properties[key], span, at, said);
                }
            }
        }
    }

    fn missing(
        &mut self,
        map: &mut Map,
        key: &str,
        rule: &'r Rule,
        span: Span,
        at: &At,
        said: bool,
    ) {
        let about = rule
            .get("description")
            .and_then(Rule::as_str)
            .map(first_sentence)
            .unwrap_or_default();
        let message = format!("missing key `{key}` in {}: {about}", at.name());
        // The root and the entries of a list have no key to underline: their first line will do.
        let underlined = if at.key.is_some() { at.span } else { span };
        if !said {
            self.mistakes.add(underlined, message);
        }
        let node = self.stand_in(rule, span);
        let entry = Entry {
            key: key.to_owned(),
            key_at: span,
            key_wrong: false,
            node,
        };
        map.add(entry).expect("the key is missing");
    }

    /// Removes what is not known. Returns the keys that were probably meant.
    fn unknown_keys(&mut self, map: &mut Map, rule: &'r Rule, at: &At) -> Vec<&'r str> {
        let mut meant = Vec::new();
        let Some(Rule::Object(properties)) = self.keyword(rule, "properties") else {
            return meant;
        };
        let not_yet = self.keyword(rule, "x-not-yet");
        let not_yet: Vec<&str> = match not_yet {
            Some(Rule::Array(keys)) => keys.iter().filter_map(Rule::as_str).collect(),
            _ => Vec::new(),
        };
        let keys = || properties.keys().map(String::as_str);
        // All that could be written there is said once a map.
        let mut listed = false;
        let held = map.entries.len();
        map.retain(|entry| {
            if properties.contains_key(&entry.key) {
                return true;
            }
            if entry.key_wrong {
                return false;
            }
            if self.mistakes.is_full() {
                self.mistakes.add(entry.key_at, String::new());
                return false;
            }
            let unspaced = entry.key.split_once(':');
            let unspaced = unspaced.and_then(|(word, _)| keys().find(|key| *key == word));
            let (message, hint) = match entry.key.as_str() {
                key if not_yet.contains(&key) => (
                    format!("`{key}` is not built yet"),
                    Some(format!("remove `{key}`")),
                ),
                "<<" => (
                    "merge keys (`<<`) are not read in a spec".to_owned(),
                    Some("write the keys themselves".to_owned()),
                ),
                _ if let Some(word) = unspaced => {
                    meant.push(word);
                    // What follows is a value, and perhaps a secret.
                    if at.secret || is_touchy(word) {
                        self.mistakes.mask(tail(entry.key_at, word));
                    }
                    (
                        format!("there is no space behind the `:` of `{word}`"),
                        Some(format!("write `{word}: `")),
                    )
                }
                key => {
                    let mut message = format!("unknown key {} in {}", quoted(key), at.name());
                    if !listed {
                        message.push_str(&format!(", expected {}", one_of(keys())));
                        listed = true;
                    }
                    let near = nearest(key, keys());
                    meant.extend(near);
                    (
                        message,
                        near.map(|near| format!("did you mean `{near}`?"))
                            .or_else(|| comment(key)),
                    )
                }
            };
            self.mistakes.add_hinted(entry.key_at, message, hint);
            false
        });
        map.lost |= map.entries.len() < held;
        meant
    }

    /// A map whose keys are the user's.
    fn entries(&mut self, node: &mut Node, rule: &'r Rule, key_rule: &'r Rule, at: &At) {
        let Some(value_rule) = self.keyword(rule, "additionalProperties") else {
            unreachable!("a map has a rule for its values");
        };
        let span = node.at;
        let What::Map(map) = &mut node.what else {
            return;
        };
        let format = self.text_keyword(key_rule, "x-format").unwrap_or("text");
        for entry in &mut map.entries {
            if let Err(wrong) = format::check(format, &entry.key)
                && !entry.key_wrong
            {
                self.mistakes
                    .add_hinted(entry.key_at, wrong.message, wrong.hint);
                if wrong.secret {
                    self.mistakes.mask(entry.key_at);
                }
                map.lost = true;
            }
            let here = At {
                parent: Some(at),
                key: Some(&entry.key),
                span: entry.key_at,
                secret: at.secret,
            };
            self.node(&mut entry.node, value_rule, &here);
        }
        if map.entries.is_empty() && self.keyword(rule, "minProperties").is_some() {
            self.mistakes.add(span, format!("{} is empty", at.name()));
            node.stand_in = true;
        }
    }

    fn list(&mut self, node: &mut Node, rule: &'r Rule, at: &At) {
        if !matches!(node.what, What::List(_)) {
            return self.wrong_type(node, rule, "a list", at);
        }
        let span = node.at;
        let (What::List(items), Some(item_rule)) = (&mut node.what, self.keyword(rule, "items"))
        else {
            return;
        };
        for item in items.iter_mut() {
            let here = At {
                parent: Some(at),
                key: None,
                span: item.at,
                secret: at.secret,
            };
            self.node(item, item_rule, &here);
        }
        if items.is_empty() && self.keyword(rule, "minItems").is_some() {
            self.mistakes.add(span, format!("{} is empty", at.name()));
            node.stand_in = true;
        }
    }

    fn text(&mut self, node: &mut Node, rule: &'r Rule, at: &At) {
        let format = self.text_keyword(rule, "x-format").unwrap_or("text");
        let What::Scalar { text, value } = &node.what else {
            return self.wrong_type(node, rule, format::expected(format), at);
        };
        if !value.is_string() {
            return self.wrong_type(node, rule, format::expected(format), at);
        }
        if let Err(wrong) = format::check(format, text) {
            if wrong.secret {
                self.mistakes.mask(node.at);
            }
            self.wrong(node, rule, wrong.message, wrong.hint);
        }
    }

    fn word(&mut self, node: &mut Node, rule: &'r Rule, words: &[&'r str], at: &At) {
        let noun = self
            .text_keyword(rule, "x-noun")
            .map_or_else(|| at.last_key().replace('_', " "), str::to_owned);
        let words = || words.iter().copied();
        let text = match &node.what {
            What::Scalar { text, value } if value.is_string() => text,
            _ => return self.wrong_type(node, rule, &one_of(words()), at),
        };
        if words().any(|word| word == text) {
            return;
        }
        let message = format!(
            "unknown {noun} {}, expected {}",
            quoted(text).trim_end_matches(','),
            one_of(words())
        );
        let hint = did_you_mean(text, words());
        self.wrong(node, rule, message, hint);
    }

    fn integer(&mut self, node: &mut Node, rule: &'r Rule, at: &At) {
        let bound = |keyword| self.keyword(rule, keyword).and_then(Rule::as_u64);
        let (low, high) = (
            bound("minimum").unwrap_or(0),
            bound("maximum").unwrap_or(u64::MAX),
        );
        let number = match &node.what {
            What::Scalar {
                value: Value::Number(number),
                ..
            } => number.as_u64(),
            _ => None,
        };
        if !number.is_some_and(|number| (low..=high).contains(&number)) {
            let expected = format!("a whole number from {low} to {high}");
            self.wrong_type(node, rule, &expected, at);
        }
    }

    fn boolean(&mut self, node: &mut Node, rule: &'r Rule, at: &At) {
        let only = self.keyword(rule, "const").and_then(Rule::as_bool);
        let found = match &node.what {
            What::Scalar {
                value: Value::Bool(found),
                ..
            } => Some(*found),
            _ => None,
        };
        match (found, only) {
            (Some(found), Some(only)) if found != only => {
                let message = format!("{} can only be `{only}`", at.name());
                self.wrong(node, rule, message, None);
            }
            (Some(_), _) => {}
            (None, _) => self.wrong_type(node, rule, "`true` or `false`", at),
        }
    }

    /// Chooses the variant that was probably meant: by kind of node, then by the key that tells variants apart.
    fn variant(&mut self, node: &mut Node, variants: &'r [Rule], at: &At) {
        let (maps, texts): (Vec<&Rule>, Vec<&Rule>) = variants
            .iter()
            .partition(|rule| self.text_keyword(rule, "type") == Some("object"));
        let first = &variants[0];
        let What::Map(map) = &node.what else {
            return match (texts.first(), &node.what) {
                (Some(rule), What::Scalar { .. }) => self.node(node, rule, at),
                _ => self.wrong_type(node, first, &self.expected_variants(&maps, &texts), at),
            };
        };
        let meant = maps.iter().find(|rule| {
            self.telling_key(rule)
                .is_some_and(|key| map.get(key).is_some())
        });
        match meant {
            Some(rule) => {
                self.two_in_one(node, rule, &maps, at);
                self.object(node, rule, at)
            }
            None => {
                let keys: Vec<&str> = maps
                    .iter()
                    .filter_map(|rule| self.telling_key(rule))
                    .collect();
                let hint = map
                    .entries
                    .iter()
                    .find_map(|entry| did_you_mean(&entry.key, keys.iter().copied()));
                let message = format!("expected a key {} in {}", one_of(keys), at.name());
                self.wrong(node, first, message, hint);
            }
        }
    }

    /// Keys that each mean another variant: the second is complained about and left out.
    fn two_in_one(&mut self, node: &mut Node, meant: &'r Rule, maps: &[&'r Rule], at: &At) {
        let What::Map(map) = &mut node.what else {
            return;
        };
        let Some(first) = self.telling_key(meant) else {
            return;
        };
        let others = maps.iter().filter_map(|rule| self.telling_key(rule));
        let others: Vec<&str> = others.filter(|key| *key != first).collect();
        map.retain(|entry| {
            let both = others.contains(&entry.key.as_str());
            if both {
                let message = format!(
                    "`{first}` and `{}` do not go together in {}",
                    entry.key,
                    at.name()
                );
                self.mistakes.add(entry.key_at, message);
            }
            !both
        });
    }

    fn expected_variants(&self, maps: &[&'r Rule], texts: &[&'r Rule]) -> String {
        let keys: Vec<&str> = maps
            .iter()
            .filter_map(|rule| self.telling_key(rule))
            .collect();
        match (keys.is_empty(), texts.is_empty()) {
            (true, _) => "a text".to_owned(),
            (false, true) => format!("a map with {}", one_of(keys)),
            (false, false) => format!("a text or a map with {}", one_of(keys)),
        }
    }

    /// The first required key of a variant that is not a mere name.
    fn telling_key(&self, rule: &'r Rule) -> Option<&'r str> {
        let Some(Rule::Array(required)) = self.keyword(rule, "required") else {
            return None;
        };
        let mut keys = required.iter().filter_map(Rule::as_str);
        keys.find(|key| !["name", "to", "ref"].contains(key))
    }

    /// The smallest value that fits.
    fn stand_in(&self, rule: &'r Rule, at: Span) -> Node {
        let text = |text: &str| What::Scalar {
            text: text.to_owned(),
            value: Value::String(text.to_owned()),
        };
        let what = if let Some(Rule::Array(variants)) = self.keyword(rule, "anyOf") {
            self.stand_in(&variants[0], at).what
        } else if let Some(words) = self.words(rule) {
            text(words.first().copied().unwrap_or_default())
        } else {
            match self.text_keyword(rule, "type") {
                Some("object") => What::Map(self.stand_in_map(rule, at)),
                Some("array") => What::List(Vec::new()),
                Some("integer") => {
                    let low = self.keyword(rule, "minimum").and_then(Rule::as_u64);
                    let low = low.unwrap_or(0);
                    What::Scalar {
                        text: low.to_string(),
                        value: Value::Number(low.into()),
                    }
                }
                Some("boolean") => {
                    let only = self.keyword(rule, "const").and_then(Rule::as_bool);
                    let only = only.unwrap_or(false);
                    What::Scalar {
                        text: only.to_string(),
                        value: Value::Bool(only),
                    }
                }
                _ => {
                    let format = self.text_keyword(rule, "x-format").unwrap_or("text");
                    text(format::sample(format))
                }
            }
        };
        Node {
            at,
            what,
            stand_in: true,
        }
    }

    fn stand_in_map(&self, rule: &'r Rule, at: Span) -> Map {
        let mut map = Map::default();
        let Some(Rule::Array(required)) = self.keyword(rule, "required") else {
            return map;
        };
        let Some(properties) = self.keyword(rule, "properties") else {
            return map;
        };
        for key in required.iter().filter_map(Rule::as_str) {
            let entry = Entry {
                key: key.to_owned(),
                key_at: at,
                key_wrong: false,
                node: self.stand_in(&properties[key], at),
            };
            map.add(entry).expect("required keys differ");
        }
        map
    }
}

/// A comment as other languages write it.
fn comment(key: &str) -> Option<String> {
    key.starts_with("//")
        .then(|| "a comment begins with `#`".to_owned())
}

/// What follows `word` and its colon.
fn tail(at: Span, word: &str) -> Span {
    let skipped = word.chars().count() + 1;
    Span::new(
        at.line,
        at.column + skipped,
        at.width.saturating_sub(skipped).max(1),
    )
}

/// The word in backticks, with the character that makes it another word than it looks like.
fn quoted(word: &str) -> String {
    match word.chars().find(|c| !c.is_ascii()) {
        Some(odd) => format!(
            "`{}`, which has {} in it,",
            in_one_line(word),
            format::character(odd)
        ),
        None => format!("`{}`", in_one_line(word)),
    }
}

/// The first sentence of a description, as part of a message: `a key of `secrets``.
fn first_sentence(text: &str) -> String {
    let sentence = text.split(['.', '\n']).next().unwrap_or_default().trim();
    let mut chars = sentence.chars();
    match chars.next() {
        Some(first) => format!("{}{}", first.to_lowercase(), chars.as_str()),
        None => String::new(),
    }
}
