//! Files of a recipe that are templates: filled in with what is the same at every site, because an image is.
//!
//! What differs from server to server (its address, its database, secrets) is in the environment of services.

use std::collections::BTreeMap;
use std::path::Path;

use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;

use crate::error::{Fault, Kind, Place};
use crate::model::stack::{Recipe, Stack};

#[derive(Serialize)]
struct Known<'a> {
    stack: &'a str,
    image: &'a str,
    sites: Vec<&'a str>,
    /// Host names that the stack publishes.
    names: Vec<&'a str>,
    databases: BTreeMap<&'a str, KnownDatabase<'a>>,
    /// Ports of the servers that start from the image, as the spec says them.
    open: &'a [u16],
}

#[derive(Serialize)]
struct KnownDatabase<'a> {
    engine: &'a str,
    user: &'a str,
    port: u16,
}

impl<'a> Known<'a> {
    fn of(stack: &'a Stack, recipe: &'a Recipe) -> Known<'a> {
        let databases = stack.databases.iter().map(|database| {
            let known = KnownDatabase {
                engine: &database.engine,
                user: &database.user,
                port: database.port,
            };
            (database.name.as_str(), known)
        });
        let server = stack
            .servers
            .iter()
            .find(|server| server.recipe == recipe.name);
        Known {
            stack: stack.name.as_str(),
            image: recipe.name.as_str(),
            sites: stack.sites.iter().map(|site| site.name.as_str()).collect(),
            names: stack.names.iter().map(|name| name.host.as_str()).collect(),
            databases: databases.collect(),
            open: server.map_or(&[], |server| &server.open),
        }
    }
}

/// What a template of the recipe becomes. Everything outside of `{{ }}`, `{% %}` and `{# #}` stays, byte for byte.
pub fn fill(stack: &Stack, recipe: &Recipe, path: &Path, bytes: Vec<u8>) -> Result<Vec<u8>, Fault> {
    let is_plain = !bytes
        .windows(2)
        .any(|pair| matches!(pair, b"{{" | b"{%" | b"{#"));
    if is_plain {
        return Ok(bytes);
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let message = format!("the template `{}` is no text in UTF-8", path.display());
        hinted(Fault::of(Kind::Spec, message).because(error))
    })?;
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_debug(true);
    let known = Known::of(stack, recipe);
    let filled = environment.render_str(&text, minijinja::value::Serde(&known));
    let mut filled = filled.map_err(|error| wrong(path, &text, &error))?;
    // The engine drops the last line's end.
    let ends = ["\r\n", "\n", "\r"];
    let end = ends.into_iter().find(|end| text.ends_with(end));
    filled.push_str(end.unwrap_or_default());
    Ok(filled.into_bytes())
}

fn hinted(fault: Fault) -> Fault {
    fault
        .hint("a template knows `stack`, `image`, `sites`, `names`, `open` and `databases.NAME`; what differs from server to server is in the environment of services")
        .hint("write `copy:` in place of `template:` for a file that stays as it is")
}

fn wrong(path: &Path, text: &str, error: &minijinja::Error) -> Fault {
    let line = error.line().unwrap_or(1);
    let found = text.lines().nth(line - 1).unwrap_or_default();
    let start: usize = text
        .split_inclusive('\n')
        .take(line - 1)
        .map(str::len)
        .sum();
    // What is wrong of that line; all of it where nobody says.
    let range = error.range().filter(|range| range.start >= start);
    let from = range.as_ref().map_or(0, |range| range.start - start);
    let from = from.min(found.len());
    let to = range.map_or(found.len(), |range| range.end - start);
    let to = to.clamp(from, found.len());
    let width = found.get(from..to).map_or(1, |part| part.chars().count());
    let place = Place {
        file: path.display().to_string(),
        line,
        column: found.get(..from).map_or(0, |part| part.chars().count()) + 1,
        text: found.to_owned(),
        width: width.max(1),
    };
    let why = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    hinted(
        Fault::of(
            Kind::Spec,
            format!("this template cannot be filled in: {why}"),
        )
        .at(place),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::stacks;

    fn filled(text: &str) -> Result<String, Fault> {
        let stack = stacks::small();
        let recipe = stack.recipes.values().find(|one| one.builtin.is_none());
        let recipe = recipe.expect("the shop has a recipe of its own");
        let bytes = fill(&stack, recipe, Path::new("site.conf"), text.into());
        bytes.map(|bytes| String::from_utf8(bytes).expect("it was text"))
    }

    #[test]
    fn a_template_knows_what_is_the_same_at_every_site() {
        let text = "# {{ stack }} {{ image }} {{ sites|join(',') }}\n\
            {% for name in names %}server_name {{ name }};\n{% endfor %}\
            port {{ databases.main.port }} of {{ databases.main.engine }}\n\n";
        let want = "# shop web east,west\nserver_name www.shop.test;\nport 5432 of postgres\n\n";
        assert_eq!(filled(text).unwrap(), want);
        for plain in ["a { b } $c %d\n\n\n", "a\r\n", "a\r", "a"] {
            assert_eq!(filled(plain).unwrap(), plain);
        }
    }

    #[test]
    fn what_it_does_not_know_is_shown_with_its_place() {
        for (text, line, column, found) in [
            ("a\nb {{ secrets.KEY }}\n", 2, 6, "secrets"),
            ("{{ databases.more.port }}", 1, 13, ".more"),
            ("echo ${#list[@]}\n", 1, 17, ""),
        ] {
            let fault = filled(text).unwrap_err();
            assert_eq!(fault.kind(), Kind::Spec);
            let place = fault.place().expect("a place");
            let at: String = place.text.chars().skip(place.column - 1).collect();
            assert_eq!((place.line, place.column), (line, column), "{fault}");
            assert!(at.starts_with(found), "{at:?}: {fault}");
            assert!(fault.hints().iter().any(|hint| hint.contains("copy:")));
        }
    }
}
