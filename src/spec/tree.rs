//! YAML text as a tree in which every key and value knows its place.
//!
//! Anchors, aliases, tags and further documents are refused: a spec does without them, and without them no text can
//! stand for more than itself. Depth and number of values are bounded, so the work is linear in a bounded text.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span as Extent};
use serde_yaml::Value;

use super::source::{Mistakes, Source, Span};
use super::{secret, syntax};

pub const DEPTH_MAX: usize = 32;
const VALUES_MAX: usize = 500_000;

#[derive(Clone, Debug)]
pub struct Node {
    pub at: Span,
    pub what: What,
    /// Put here in place of a value that was missing or wrong, and complained about already.
    pub stand_in: bool,
}

#[derive(Clone, Debug)]
pub enum What {
    /// `text` is as written; `value` is null, a boolean, a number or a string.
    Scalar {
        text: String,
        value: Value,
    },
    List(Vec<Node>),
    Map(Map),
}

#[derive(Clone, Debug, Default)]
pub struct Map {
    pub entries: Vec<Entry>,
    /// A key was wrong and complained about, so what is missing here may have been meant by it.
    pub lost: bool,
    index: HashMap<String, usize>,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub key: String,
    pub key_at: Span,
    /// The key is not a word, and was complained about.
    pub key_wrong: bool,
    pub node: Node,
}

impl Map {
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.index.get(key).map(|index| &self.entries[*index])
    }

    /// `Err` with the earlier entry when there is one of that key.
    pub fn add(&mut self, entry: Entry) -> Result<(), Span> {
        if let Some(earlier) = self.get(&entry.key) {
            return Err(earlier.key_at);
        }
        self.index.insert(entry.key.clone(), self.entries.len());
        self.entries.push(entry);
        Ok(())
    }

    pub fn retain(&mut self, keep: impl FnMut(&Entry) -> bool) {
        self.entries.retain(keep);
        self.index = self
            .entries
            .iter()
            .enumerate()
            .map(|(index, entry)| (entry.key.clone(), index))
            .collect();
    }
}

impl Node {
    pub fn new(at: Span, what: What) -> Node {
        Node {
            at,
            what,
            stand_in: false,
        }
    }

    pub fn as_map(&self) -> Option<&Map> {
        match &self.what {
            What::Map(map) => Some(map),
            _ => None,
        }
    }

    /// What serde reads. Not deeper than `DEPTH_MAX`.
    pub fn value(&self) -> Value {
        match &self.what {
            What::Scalar { value, .. } => value.clone(),
            What::List(items) => Value::Sequence(items.iter().map(Node::value).collect()),
            What::Map(map) => Value::Mapping(
                map.entries
                    .iter()
                    .map(|entry| (Value::String(entry.key.clone()), entry.node.value()))
                    .collect(),
            ),
        }
    }
}

/// What a plain scalar means is for serde_yaml to say, which also reads the final values.
fn meaning(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => match text.parse() {
            Ok(number) => Value::Number(number),
            Err(_) => Value::String(text.to_owned()),
        },
    }
}

/// Reads the text. `None` when it is not YAML, or not of the kind that a spec is; the reasons are in `mistakes`.
pub fn read(source: &Source, text: &str, mistakes: &mut Mistakes) -> Option<Node> {
    let mut builder = Builder {
        source,
        mistakes,
        open: Vec::new(),
        done: None,
        values: 0,
    };
    let mut parser = Parser::new_from_str(text);
    while let Some(next) = parser.next_event() {
        match next {
            Ok((event, extent)) => builder.take(event, extent).ok()?,
            Err(error) => {
                builder.syntax(error.marker(), error.info());
                return None;
            }
        }
    }
    if let Some(Node {
        what: What::Scalar { .. },
        ..
    }) = builder.done
    {
        builder.mask_assignments();
    }
    match builder.done {
        Some(node) => Some(node),
        None => {
            mistakes.add_hinted(
                Span::new(1, 1, 1),
                "the spec is empty",
                ["`hafog init` writes one to start from".to_owned()],
            );
            None
        }
    }
}

struct Key {
    text: String,
    at: Span,
    wrong: bool,
}

/// The text cannot be read any further; a mistake was noted.
struct Stop;

enum Open {
    List {
        extent: Extent,
        items: Vec<Node>,
    },
    Map {
        extent: Extent,
        map: Map,
        key: Option<Key>,
    },
}

struct Builder<'a, 't> {
    source: &'a Source<'t>,
    mistakes: &'a mut Mistakes,
    open: Vec<Open>,
    done: Option<Node>,
    values: usize,
}

impl Builder<'_, '_> {
    fn take(&mut self, event: Event, extent: Extent) -> Result<(), Stop> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => self.document(extent),
            Event::Alias(_) => {
                self.refuse_alias(self.span(extent));
                let mut node = self.scalar_node(self.span(extent), String::new(), Value::Null);
                node.stand_in = true;
                self.place(node)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let at = self.span(extent);
                self.refuse_extras(at, anchor, tag.is_some());
                let is_key = matches!(self.open.last(), Some(Open::Map { key: None, .. }));
                if !is_key && self.may_be_secret(&text) {
                    self.mask(at, extent);
                }
                self.scalar(at, text.into_owned(), style)
            }
            Event::SequenceStart(anchor, tag) => {
                self.begin(extent, anchor, tag.is_some())?;
                let items = Vec::new();
                self.open.push(Open::List { extent, items });
                Ok(())
            }
            Event::MappingStart(anchor, tag) => {
                self.begin(extent, anchor, tag.is_some())?;
                self.open.push(Open::Map {
                    extent,
                    map: Map::default(),
                    key: None,
                });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(extent),
        }
    }

    fn document(&mut self, extent: Extent) -> Result<(), Stop> {
        if self.done.is_none() {
            return Ok(());
        }
        self.mistakes.add(
            self.span(extent),
            "a second document begins here; a spec is one document",
        );
        Err(Stop)
    }

    fn begin(&mut self, extent: Extent, anchor: usize, tagged: bool) -> Result<(), Stop> {
        let at = self.span(extent);
        self.refuse_extras(at, anchor, tagged);
        if let Some(Open::Map { key: None, .. }) = self.open.last() {
            self.mistakes.add_hinted(
                at,
                "expected a word as key, found a list or a map",
                ["quote a text that begins with `{` or `[`".to_owned()],
            );
            return Err(Stop);
        }
        if self.open.len() >= DEPTH_MAX {
            self.mistakes.add(
                at,
                format!("lists and maps are nested deeper than {DEPTH_MAX} levels"),
            );
            return Err(Stop);
        }
        Ok(())
    }

    fn end(&mut self, extent: Extent) -> Result<(), Stop> {
        let node = match self.open.pop().expect("the parser ends only what it began") {
            Open::List {
                extent: from,
                items,
            } => Node::new(self.between(from.start, extent.end), What::List(items)),
            Open::Map {
                extent: from, map, ..
            } => Node::new(self.between(from.start, extent.end), What::Map(map)),
        };
        self.place(node)
    }

    fn scalar(&mut self, at: Span, text: String, style: ScalarStyle) -> Result<(), Stop> {
        let plain = matches!(style, ScalarStyle::Plain);
        let value = if plain {
            meaning(&text)
        } else {
            Value::String(text.clone())
        };
        if let Some(Open::Map {
            key: key @ None, ..
        }) = self.open.last_mut()
        {
            let wrong = !value.is_string();
            if wrong {
                let found = describe_value(&value, &text);
                let message = format!("expected a word as key, found {found}");
                self.mistakes.add(at, message);
            }
            *key = Some(Key { text, at, wrong });
            return Ok(());
        }
        let node = self.scalar_node(at, text, value);
        self.place(node)
    }

    /// Hides a value with all its lines.
    fn mask(&mut self, first: Span, extent: Extent) {
        self.mistakes.mask(first);
        for line in extent.start.line() + 1..=extent.end.line() {
            let text = self.source.lines.get(line - 1).copied().unwrap_or_default();
            let end = if line == extent.end.line() {
                extent.end.col()
            } else {
                text.chars().count()
            };
            self.mistakes.mask(Span::new(line, 1, end));
        }
    }

    /// Whether a value, whatever else is wrong with it, may be a secret that was written into the spec.
    fn may_be_secret(&self, text: &str) -> bool {
        let keys = self.open.iter().filter_map(|open| match open {
            Open::Map { key: Some(key), .. } => Some(key.text.as_str()),
            _ => None,
        });
        let mut below = false;
        let mut leaf = false;
        for key in keys {
            leaf = is_touchy(key);
            below |= key.to_lowercase().contains("secret");
        }
        (below || leaf) && !secret::is_harmless(text)
    }

    fn scalar_node(&self, at: Span, text: String, value: Value) -> Node {
        Node::new(at, What::Scalar { text, value })
    }

    /// Puts a complete node where it belongs.
    fn place(&mut self, node: Node) -> Result<(), Stop> {
        self.values += 1;
        if self.values > VALUES_MAX {
            let message = format!("the spec has more than {VALUES_MAX} values");
            self.mistakes.add(node.at, message);
            return Err(Stop);
        }
        match self.open.last_mut() {
            None => self.done = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { map, key, .. }) => match key.take() {
                // Only an alias comes here without a key: it was complained about.
                None => {
                    *key = Some(Key {
                        text: String::new(),
                        at: node.at,
                        wrong: true,
                    });
                }
                Some(key) => {
                    let key_at = key.at;
                    let entry = Entry {
                        key: key.text,
                        key_at,
                        key_wrong: key.wrong,
                        node,
                    };
                    let name = entry.key.clone();
                    if let Err(earlier) = map.add(entry) {
                        let message = format!(
                            "duplicate key `{name}`, there is one in line {}",
                            earlier.line
                        );
                        self.mistakes.add(key_at, message);
                    }
                }
            },
        }
        Ok(())
    }

    fn refuse_alias(&mut self, at: Span) {
        self.mistakes.add_hinted(
            at,
            "aliases (`*name`) are not read in a spec",
            ["write the value itself".to_owned()],
        );
    }

    fn refuse_extras(&mut self, at: Span, anchor: usize, tagged: bool) {
        if anchor != 0 {
            let message = "anchors (`&name`) are not read in a spec";
            self.mistakes
                .add_hinted(at, message, ["remove the anchor".to_owned()]);
        }
        if tagged {
            let message = "tags (`!name`) are not read in a spec";
            self.mistakes
                .add_hinted(at, message, ["remove the tag".to_owned()]);
        }
    }

    /// Where the text is not YAML nobody knows what is a value, so whole lines are taken for secrets.
    fn mask_unread_secrets(&mut self) {
        let mut below = false;
        for (index, line) in self.source.lines.iter().enumerate() {
            let top = line.starts_with(|c: char| !c.is_whitespace() && c != '#');
            if top {
                below = line.contains("secret");
            }
            let colon = line.find(':');
            if !below && !colon.is_some_and(|colon| is_touchy(&line[..colon])) {
                continue;
            }
            // A top line's value begins after its own colon; elsewhere a key is a name that may be shown.
            let shown = colon.map_or(0, |colon| line[..=colon].chars().count());
            let hidden = line.chars().count() - shown;
            let value = colon.map_or(*line, |colon| &line[colon + 1..]).trim();
            if hidden > 0 && !value.is_empty() && !secret::is_harmless(value) {
                self.mistakes.mask(Span::new(index + 1, shown + 1, hidden));
            }
        }
    }

    /// A file of another kind is one text to YAML: what stands behind `TOKEN=` in it is not shown.
    fn mask_assignments(&mut self) {
        for (index, line) in self.source.lines.iter().enumerate() {
            if is_touchy(line) {
                let shown = line.find(['=', ':']).map_or(0, |at| at + 1);
                let start = line[..shown].chars().count() + 1;
                let width = line[shown..].chars().count().max(1);
                self.mistakes.mask(Span::new(index + 1, start, width));
            }
        }
    }

    fn span(&self, extent: Extent) -> Span {
        self.between(extent.start, extent.end)
    }

    /// From `start` to `end`, but not beyond the line of `start`, and without blanks at the end: a parser's idea of an
    /// end may lie behind them.
    fn between(&self, start: Marker, end: Marker) -> Span {
        let line = self.source.lines.get(start.line().saturating_sub(1));
        let line = line.copied().unwrap_or_default();
        let rest = skip(line, start.col());
        let inside = if end.line() == start.line() {
            let length = end.col().saturating_sub(start.col());
            &rest[..rest.len() - skip(rest, length).len()]
        } else {
            rest
        };
        let width = inside.trim_end().chars().count();
        Span::new(start.line(), start.col() + 1, width.max(1))
    }

    fn syntax(&mut self, marker: &Marker, info: &str) {
        self.mask_unread_secrets();
        let at = Span::new(marker.line(), marker.col() + 1, 1);
        let hidden = self.mistakes.hides(at);
        let said = syntax::explain(self.source, at, info, self.open_bracket(), hidden);
        self.mistakes.add_hinted(said.at, said.message, said.hint);
    }

    /// The innermost `{` or `[` that was not closed yet.
    fn open_bracket(&self) -> Option<(char, Span)> {
        let extents = self.open.iter().rev().map(|open| match open {
            Open::List { extent, .. } | Open::Map { extent, .. } => extent.start,
        });
        extents
            .filter_map(|start| {
                let line = self.source.lines.get(start.line().checked_sub(1)?)?;
                let first = skip(line, start.col()).chars().next();
                let at = Span::new(start.line(), start.col() + 1, 1);
                first.filter(|c| matches!(c, '{' | '[')).map(|c| (c, at))
            })
            .next()
    }
}

/// The text behind its first `count` characters.
fn skip(text: &str, count: usize) -> &str {
    let mut chars = text.chars();
    if count > 0 {
        chars.nth(count - 1);
    }
    chars.as_str()
}

/// Keys whose values are secrets in most programs' configuration.
pub fn is_touchy(key: &str) -> bool {
    let key = key.to_lowercase();
    ["pass", "secret", "token", "key", "credential"]
        .iter()
        .any(|word| key.contains(word))
}

/// `the number `8080``, `text `two``, `nothing`, for "expected …, found …".
pub fn describe(node: &Node) -> String {
    match &node.what {
        What::Scalar { text, value } => describe_value(value, text),
        What::List(_) => "a list".to_owned(),
        What::Map(_) => "a map".to_owned(),
    }
}

fn describe_value(value: &Value, text: &str) -> String {
    let short = in_one_line(text);
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(_) => format!("`{short}`, which YAML reads as a truth value"),
        Value::Number(_) => format!("the number `{short}`"),
        _ if text.is_empty() => "an empty text".to_owned(),
        _ => format!("the text `{short}`"),
    }
}

/// The start of a text as part of a message: without line breaks, and with what cannot be seen made visible.
pub fn in_one_line(text: &str) -> String {
    const SHOWN: usize = 60;
    let mut short = String::new();
    for c in text.chars().take(SHOWN) {
        match c {
            '\n' => short.push_str("\\n"),
            '\t' => short.push_str("\\t"),
            c if is_invisible(c) => short.push_str(&format!("\\u{{{:04X}}}", u32::from(c))),
            c => short.push(c),
        }
    }
    if text.chars().nth(SHOWN).is_some() {
        short.push('…');
    }
    short
}

/// Characters that look like nothing, or like a space.
pub fn is_invisible(c: char) -> bool {
    matches!(c, '\u{a0}' | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{1680}' | '\u{180e}' | '\u{2000}'..='\u{200f}'
        | '\u{2028}'..='\u{202f}' | '\u{205f}'..='\u{206f}' | '\u{3000}' | '\u{feff}')
}
