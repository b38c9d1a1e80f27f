//! Readers for the texts of a spec: the `x-format` of the types. Each says what it expects.

use std::net::IpAddr;

use crate::model::cron::Schedule;
use crate::model::subnet::Subnet;
use crate::model::units::{Bytes, Span};

use super::secret;
use super::tree::{in_one_line, is_invisible};

/// Why a text was not accepted, and perhaps what to write instead.
#[derive(Debug, PartialEq)]
pub struct Wrong {
    pub message: String,
    pub hint: Option<String>,
    /// The text may be a secret and must not be printed.
    pub secret: bool,
}

impl Wrong {
    fn new(message: impl Into<String>) -> Wrong {
        Wrong {
            message: message.into(),
            hint: None,
            secret: false,
        }
    }

    fn meant(mut self, meant: Option<String>) -> Wrong {
        self.hint = meant.map(|meant| format!("did you mean `{meant}`?"));
        self
    }

    fn hint(mut self, hint: &str) -> Wrong {
        self.hint = Some(hint.to_owned());
        self
    }

    fn secret(mut self) -> Wrong {
        self.secret = true;
        self
    }
}

const TIME: &str = "a time such as `10s`, `30m` or `1h`";
const TTL: &str = "a time in whole seconds such as `60s`, `5m` or `1h`";
const CRON: &str = "times as in a crontab, such as `*/5 * * * *` or `0 3 * * * Europe/Berlin`";
const SYSCTL: &str = "a kernel parameter such as `net.core.somaxconn = 1024`";
const AMOUNT: &str = "a size such as `512MiB`, `4GiB` or `200GB`";

/// What to expect where there is no text at all, for messages.
pub fn expected(format: &str) -> &'static str {
    match format {
        "time" => TIME,
        "ttl" => TTL,
        "amount" => AMOUNT,
        "secret" => "`env`, `env:VARIABLE` or `file:./path`",
        "cron" => CRON,
        "sysctl" => SYSCTL,
        _ => "a text",
    }
}

/// The smallest text that fits.
pub fn sample(format: &str) -> &'static str {
    match format {
        "role" | "word" | "service" | "text" | "git-url" | "store" | "host" | "ssh-place" => "x",
        "variable" => "X",
        "secret" => "env",
        "time" | "ttl" => "1s",
        "amount" => "1GiB",
        "absolute-path" | "url-path" => "/",
        "http-url" => "http://x/",
        "host-key" => "ssh-ed25519 AAAA",
        "address" => "::1",
        "subnet" => "10.66.20.0/24",
        "cron" => "* * * * *",
        "user" | "base" => "x",
        "ssh-key" => "ssh-ed25519 AAAA",
        "sysctl" => "net.core.somaxconn = 1024",
        other => unreachable!("the types use the format `{other}`, which has no sample"),
    }
}

/// What a number in place of a text of this format was probably meant to be.
pub fn meant_by_number(format: &str, text: &str) -> Option<String> {
    let unit = match format {
        "time" | "ttl" => "s",
        "amount" => "GiB",
        _ => {
            return check(format, text)
                .is_ok()
                .then(|| format!("write `\"{text}\"`"));
        }
    };
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        Some(format!("did you mean `{text}{unit}`?"))
    } else {
        None
    }
}

/// Checks a text against its format. A format that is not known is a bug.
pub fn check(format: &str, text: &str) -> Result<(), Wrong> {
    match format {
        "text" => plain(text),
        "word" => word(text),
        "service" => service(text),
        "variable" => variable(text),
        "role" => role(text),
        "secret" => secret_reference(text),
        "time" => time(text),
        "ttl" => ttl(text),
        "amount" => amount(text),
        "absolute-path" => absolute_path(text),
        "url-path" => url_path(text),
        "http-url" => http_url(text),
        "git-url" => git_url(text),
        "host" => host(text),
        "store" => no_password(text).and_then(|()| plain(text)),
        "host-key" => host_key(text),
        "ssh-place" => ssh_place(text).map(drop),
        "address" => address(text),
        "subnet" => text.parse::<Subnet>().map(drop).map_err(Wrong::new),
        "cron" => cron(text),
        "user" => user(text),
        "base" => base(text),
        "ssh-key" => ssh_key(text),
        "sysctl" => sysctl(text),
        other => unreachable!("the types use the format `{other}`, which has no reader"),
    }
}

fn plain(text: &str) -> Result<(), Wrong> {
    if text.trim().is_empty() {
        return Err(Wrong::new("expected a text, found an empty one"));
    }
    if text
        .chars()
        .any(|c| c.is_control() && c != '\n' && c != '\t')
    {
        return Err(Wrong::new("a text may not have control characters"));
    }
    Ok(())
}

/// crontab(5).
fn cron(text: &str) -> Result<(), Wrong> {
    let short = match text.trim() {
        "@yearly" | "@annually" => Some("0 0 1 1 *"),
        "@monthly" => Some("0 0 1 * *"),
        "@weekly" => Some("0 0 * * 0"),
        "@daily" | "@midnight" => Some("0 0 * * *"),
        "@hourly" => Some("0 * * * *"),
        _ => None,
    };
    let Err(why) = Schedule::parse(text) else {
        return Ok(());
    };
    let message = format!("expected {CRON}, found `{}`: {why}", in_one_line(text));
    Err(Wrong::new(message).meant(short.map(str::to_owned)))
}

/// Server names are made of words and must be valid host names (RFC 1123 section 2.1).
fn word(text: &str) -> Result<(), Wrong> {
    let good = text.split('-').all(|part| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    }) && text.starts_with(|c: char| c.is_ascii_lowercase());
    if text.is_empty() {
        return Err(Wrong::new("expected a name, found an empty text"));
    }
    if let Some(odd) = text.chars().find(|c| !c.is_ascii()) {
        let message = format!(
            "`{}` is not a name: it has {} in it",
            in_one_line(text),
            character(odd)
        );
        let plain: String = text.chars().filter(char::is_ascii).collect();
        let meant = (!odd.is_alphanumeric() && word(&plain).is_ok()).then_some(plain);
        return Err(Wrong::new(message).meant(meant));
    }
    if !good {
        let plain = text.split('#').next().unwrap_or_default().trim();
        let shown = in_one_line(text);
        let message = format!(
            "`{shown}` is not a name: expected small letters, digits and single hyphens, beginning with a letter"
        );
        let wrong = Wrong::new(message);
        return Err(
            match plain.len() < text.trim().len() && word(plain).is_ok() {
                true => wrong.hint("a comment begins with a space and `#`"),
                false => wrong.meant(tidy_word(text)),
            },
        );
    }
    if text.len() > 40 {
        let message = format!(
            "`{text}` is too long for a name: {} characters, at most 40",
            text.len()
        );
        return Err(Wrong::new(message));
    }
    Ok(())
}

/// A character that is hard to tell from another, by its number.
pub fn character(c: char) -> String {
    let code = format!("U+{:04X}", u32::from(c));
    if is_invisible(c) || c.is_control() {
        format!("the invisible character {code}")
    } else {
        format!("`{c}` ({code})")
    }
}

fn tidy_word(text: &str) -> Option<String> {
    let parts: Vec<String> = text
        .to_lowercase()
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect();
    let tidy = parts.join("-");
    (tidy.len() <= 40 && tidy.starts_with(|c: char| c.is_ascii_lowercase())).then_some(tidy)
}

fn service(text: &str) -> Result<(), Wrong> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._@-".contains(c);
    if text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(allowed)
        && text.len() <= 64
    {
        return Ok(());
    }
    let wrong = Wrong::new(format!("`{text}` is not the name of a service"));
    if text.contains(' ') {
        return Err(wrong.hint("a command line is written `{ name: app, run: \"…\" }`"));
    }
    Err(wrong)
}

/// Passwords end up where names of secrets belong, so only what looks like a name is repeated.
fn variable(text: &str) -> Result<(), Wrong> {
    if secret::is_variable(text) {
        return Ok(());
    }
    let message =
        "expected the name of a secret: letters, digits and `_`, such as `DATABASE_PASSWORD`";
    Err(Wrong::new(message).secret())
}

fn role(text: &str) -> Result<(), Wrong> {
    let good = text
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && text.len() <= 63;
    if good {
        return Ok(());
    }
    let tidy = text.to_lowercase().replace('-', "_");
    let meant = (tidy != text && role(&tidy).is_ok()).then_some(tidy);
    let message =
        format!("`{text}` is not a role: expected small letters, digits and `_`, at most 63");
    Err(Wrong::new(message).meant(meant))
}

fn secret_reference(text: &str) -> Result<(), Wrong> {
    match secret::parse("X", text) {
        Some(_) => Ok(()),
        None => Err(Wrong::new(
            "expected a reference to a secret, never its value: `env`, `env:VARIABLE` or `file:./path`",
        )
        .hint("put the value into the environment and write `env`")
        .secret()),
    }
}

fn time(text: &str) -> Result<(), Wrong> {
    match Span::parse(text) {
        Ok(_) => Ok(()),
        Err(_) => {
            Err(Wrong::new(format!("expected {TIME}, found `{text}`")).meant(tidy_time(text)))
        }
    }
}

/// RFC 2181 section 8: a TTL is less than 2^31 seconds. Zero forbids caching and breaks some resolvers.
fn ttl(text: &str) -> Result<(), Wrong> {
    let expected = || Wrong::new(format!("expected {TTL}, found `{text}`"));
    let span = Span::parse(text).map_err(|_| expected().meant(tidy_time(text)))?;
    if span.0.subsec_millis() != 0 {
        return Err(expected());
    }
    match span.0.as_secs() {
        0 => Err(Wrong::new("a TTL is at least `1s`")),
        1..=2_147_483_647 => Ok(()),
        _ => Err(Wrong::new("a TTL is at most 2147483647 seconds (RFC 2181)")),
    }
}

/// `10 sec` was meant as `10s`.
fn tidy_time(text: &str) -> Option<String> {
    let text = text.to_lowercase();
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    let unit = match text[digits.len()..].trim() {
        "" | "sec" | "secs" | "second" | "seconds" | "s" => "s",
        "min" | "mins" | "minute" | "minutes" | "m" => "m",
        "hr" | "hrs" | "hour" | "hours" | "h" => "h",
        "day" | "days" | "d" => "d",
        "ms" | "msec" | "millis" => "ms",
        _ => return None,
    };
    (!digits.is_empty() && digits.len() < 10).then(|| format!("{digits}{unit}"))
}

fn amount(text: &str) -> Result<(), Wrong> {
    match Bytes::parse(text) {
        Ok(Bytes(0)) => Err(Wrong::new(format!("expected {AMOUNT}, found `{text}`"))),
        Ok(_) => Ok(()),
        Err(_) => {
            let wrong = Wrong::new(format!("expected {AMOUNT}, found `{text}`"));
            Err(wrong.meant(tidy_amount(text)))
        }
    }
}

/// `4G` and `4 gb` were meant as `4GiB` and `4GB`.
fn tidy_amount(text: &str) -> Option<String> {
    let text = text.to_lowercase();
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    let unit = match text[digits.len()..].trim() {
        "k" | "kib" => "KiB",
        "m" | "mib" => "MiB",
        "g" | "gib" => "GiB",
        "t" | "tib" => "TiB",
        "kb" => "kB",
        "mb" => "MB",
        "gb" => "GB",
        "tb" => "TB",
        _ => return None,
    };
    (!digits.is_empty() && digits.len() < 10).then(|| format!("{digits}{unit}"))
}

fn absolute_path(text: &str) -> Result<(), Wrong> {
    if !text.starts_with('/') {
        let message = format!("expected an absolute path such as `/srv/app`, found `{text}`");
        return Err(Wrong::new(message));
    }
    if text.split('/').any(|part| part == "..") {
        return Err(Wrong::new(format!("`{text}` may not have `..` in it")));
    }
    plain(text)
}

fn url_path(text: &str) -> Result<(), Wrong> {
    let good = text.starts_with('/') && text.chars().all(|c| c.is_ascii_graphic());
    if good {
        return Ok(());
    }
    let path = text
        .split_once("://")
        .and_then(|(_, rest)| rest.find('/').map(|at| rest[at..].to_owned()));
    let message = format!("expected a path such as `/healthz`, found `{text}`");
    Err(Wrong::new(message).meant(path))
}

/// The host of an `http` or `https` URL, without port and brackets.
pub fn url_host(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split_once(']').map(|(host, _)| host);
    }
    Some(
        authority
            .split_once(':')
            .map_or(authority, |(host, _)| host),
    )
}

fn http_url(text: &str) -> Result<(), Wrong> {
    no_password(text)?;
    let expected = || {
        Wrong::new(format!(
            "expected a URL such as `https://www.example.com/healthz`, found `{text}`"
        ))
    };
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"))
        .ok_or_else(expected)?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let port = match authority.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') => Some(port),
        _ => None,
    };
    let port_good = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let host_good = url_host(text).is_some_and(|name| {
        name.parse::<IpAddr>().is_ok() || host(&name.to_ascii_lowercase()).is_ok()
    });
    if !host_good || !port_good || !text.chars().all(|c| c.is_ascii_graphic()) {
        return Err(expected());
    }
    Ok(())
}

fn host_key(text: &str) -> Result<(), Wrong> {
    let word = |text: &str, also: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || also.contains(c))
    };
    let good = text.split_once(' ').is_some_and(|(kind, body)| {
        word(kind, "-@.") && kind.contains('-') && body.starts_with("AAAA") && word(body, "+/=")
    });
    match good {
        true => Ok(()),
        false => Err(Wrong::new(format!(
            "expected a public key such as `ssh-ed25519 AAAA...`, found `{text}`"
        ))),
    }
}

/// os-release(5): `ID` and `VERSION_ID`.
fn base(text: &str) -> Result<(), Wrong> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_part = |part: &str| !part.is_empty() && part.chars().all(plain);
    match text.split(['-', '.']).all(is_part) && text.len() <= 63 {
        true => Ok(()),
        false => Err(Wrong::new(format!(
            "`{}` is not the name of a system: expected one such as `debian-12` or `ubuntu-24.04`",
            in_one_line(text)
        ))),
    }
}

/// useradd(8).
fn user(text: &str) -> Result<(), Wrong> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    let good = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && text.chars().all(plain)
        && text.len() <= 32;
    match good {
        true => Ok(()),
        false => Err(Wrong::new(format!(
            "`{}` is not the name of a user: expected small letters, digits, `_` and `-`, at most 32, beginning with a letter",
            in_one_line(text)
        ))),
    }
}

/// sshd(8), without options. A comment may follow.
fn ssh_key(text: &str) -> Result<(), Wrong> {
    let private = text.contains("PRIVATE KEY");
    let mut words = text.splitn(3, ' ');
    let key: Vec<&str> = words.by_ref().take(2).collect();
    let is_one_line = !text.chars().any(char::is_control);
    if is_one_line && host_key(&key.join(" ")).is_ok() {
        return Ok(());
    }
    let expected = "expected a public SSH key such as `ssh-ed25519 AAAA... ada@example.com`";
    // What is longer may be a private one, or a part of it.
    Err(match text.len() {
        0..=40 => Wrong::new(format!("{expected}, found `{}`", in_one_line(text))),
        _ if private => Wrong::new(format!("{expected}, found a private one")).secret(),
        _ => Wrong::new(expected).secret(),
    })
}

/// sysctl.d(5).
fn sysctl(text: &str) -> Result<(), Wrong> {
    let good = text.split_once('=').is_some_and(|(name, value)| {
        let name = name.trim().trim_start_matches('-');
        let parts = name.split(['.', '/']);
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-*:".contains(c);
        parts.clone().count() > 1
            && parts
                .into_iter()
                .all(|part| !part.is_empty() && part.chars().all(plain))
            && !value.trim().is_empty()
    });
    match good && !text.chars().any(char::is_control) {
        true => Ok(()),
        false => Err(Wrong::new(format!(
            "expected {SYSCTL}, found `{}`",
            in_one_line(text)
        ))),
    }
}

/// How `ssh` reaches a server.
#[derive(Debug, PartialEq)]
pub struct SshParts<'a> {
    pub user: Option<&'a str>,
    pub host: &'a str,
    pub port: Option<u16>,
}

/// `user@host:port`; an IPv6 address with a port is in brackets.
pub fn ssh_place(text: &str) -> Result<SshParts<'_>, Wrong> {
    let wrong = || {
        Wrong::new(format!(
            "expected a server such as `root@203.0.113.7`, found `{text}`"
        ))
    };
    let (user, place) = match text.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, text),
    };
    let bracketed = place
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'));
    let (host, port) = match (bracketed, place.rsplit_once(':')) {
        (Some((host, "")), _) => (host, None),
        (Some((host, rest)), _) => (host, Some(rest.strip_prefix(':').ok_or_else(wrong)?)),
        (None, Some((host, port))) if !host.contains(':') => (host, Some(port)),
        (None, _) => (place, None),
    };
    let port = match port.map(str::parse::<u16>) {
        None => None,
        Some(Ok(port @ 1..)) => Some(port),
        Some(_) => return Err(wrong()),
    };
    // ssh would take what begins with a hyphen for an option.
    let word = |text: &str, also: &str| {
        !text.is_empty()
            && !text.starts_with('-')
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || also.contains(c))
    };
    match word(host, "-._:%") && user.is_none_or(|user| word(user, "-._")) {
        true => Ok(SshParts { user, host, port }),
        false => Err(wrong()),
    }
}

fn address(text: &str) -> Result<(), Wrong> {
    match text.parse::<IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) => Err(Wrong::new(format!(
            "expected an IP address such as `203.0.113.7`, found `{text}`"
        ))),
    }
}

fn git_url(text: &str) -> Result<(), Wrong> {
    no_password(text)?;
    // git would take it for an option.
    if text.starts_with('-') {
        return Err(Wrong::new(format!("`{text}` is not a git repository")));
    }
    plain(text)
}

/// State and plans hold URLs, and they never hold secrets.
fn no_password(text: &str) -> Result<(), Wrong> {
    let authority = text
        .split_once("://")
        .and_then(|(_, rest)| rest.split('/').next());
    match authority.and_then(|authority| authority.rsplit_once('@')) {
        Some((user, _)) if user.contains(':') || user.len() >= 20 => Err(Wrong::new(
            "a URL in the spec may not have a password in it",
        )
        .hint("use a credential helper or a deploy key")
        .secret()),
        _ => Ok(()),
    }
}

/// RFC 1123 section 2.1 and RFC 1035 section 2.3.4, in the one spelling that hafog uses.
fn host(text: &str) -> Result<(), Wrong> {
    let wrong =
        |why: &str| Wrong::new(format!("`{}` is not a host name: {why}", in_one_line(text)));
    if text.is_empty() {
        return Err(Wrong::new("expected a host name such as `www.example.com`"));
    }
    match text.chars().find(|c| !c.is_ascii()) {
        Some(letter) if letter.is_alphanumeric() => {
            let form = "in its ASCII form it begins with `xn--`";
            return Err(wrong(&format!(
                "it has {} in it; {form}",
                character(letter)
            )));
        }
        Some(odd) => {
            let plain: String = text.chars().filter(char::is_ascii).collect();
            let meant = host(&plain).is_ok().then_some(plain);
            return Err(wrong(&format!("it has {} in it", character(odd))).meant(meant));
        }
        None => {}
    }
    let tidy = text.trim_end_matches('.').to_ascii_lowercase();
    if tidy != text {
        let meant = host(&tidy).is_ok().then_some(tidy);
        return Err(wrong("it is written in small letters without a final dot").meant(meant));
    }
    if let Some((_, rest)) = text.split_once("://") {
        let meant = rest
            .split(['/', ':'])
            .next()
            .filter(|name| host(name).is_ok());
        return Err(wrong("it is a URL").meant(meant.map(str::to_owned)));
    }
    if text.parse::<IpAddr>().is_ok() {
        return Err(wrong("it is an address"));
    }
    if text.starts_with("*.") {
        return Err(wrong("wildcards are not published"));
    }
    if text.len() > 253 {
        return Err(wrong("it is longer than 253 characters"));
    }
    for label in text.split('.') {
        label_fits(label).map_err(|why| wrong(&why))?;
    }
    Ok(())
}

fn label_fits(label: &str) -> Result<(), String> {
    if label.is_empty() {
        return Err("it has an empty label".to_owned());
    }
    if label.len() > 63 {
        return Err(format!("its label `{label}` is longer than 63 characters"));
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err(format!("its label `{label}` begins or ends with a hyphen"));
    }
    let bad = label
        .chars()
        .find(|c| !c.is_ascii_lowercase() && !c.is_ascii_digit() && *c != '-');
    match bad {
        Some(c) => Err(format!("it has a `{c}` in it")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(format: &str, texts: &[&str]) {
        for text in texts {
            assert_eq!(check(format, text), Ok(()), "{format} {text}");
        }
    }

    fn bad(format: &str, texts: &[(&str, Option<&str>)]) {
        for (text, meant) in texts {
            let wrong = check(format, text).expect_err(text);
            let meant = meant.map(|meant| format!("did you mean `{meant}`?"));
            assert_eq!(wrong.hint, meant, "{format} {text}");
        }
    }

    #[test]
    fn words() {
        good("word", &["shop", "a", "us-east-1", "w2"]);
        bad(
            "word",
            &[
                ("Shop_Two", Some("shop-two")),
                ("1st", None),
                ("a--b", Some("a-b")),
                ("-a", Some("a")),
                ("", None),
                ("ä", None),
            ],
        );
        bad("word", &[(&"x".repeat(41), None)]);
    }

    #[test]
    fn times_and_sizes() {
        good("time", &["250ms", "0s", "7d"]);
        bad(
            "time",
            &[
                ("10 sec", Some("10s")),
                ("5 Minutes", Some("5m")),
                ("60", Some("60s")),
                ("soon", None),
            ],
        );
        good("ttl", &["1s", "60s", "1h"]);
        bad(
            "ttl",
            &[
                ("0s", None),
                ("500ms", None),
                ("99999d", None),
                ("1hr", Some("1h")),
            ],
        );
        good("amount", &["512MiB", "200GB"]);
        bad(
            "amount",
            &[
                ("4G", Some("4GiB")),
                ("4gb", Some("4GB")),
                ("4", None),
                ("0GiB", None),
                ("lots", None),
            ],
        );
    }

    #[test]
    fn systems() {
        good("base", &["debian-12", "ubuntu-24.04"]);
        bad(
            "base",
            &[
                ("Debian 12", None),
                ("images:debian/12", None),
                ("debian-", None),
                ("", None),
            ],
        );
    }

    #[test]
    fn users_keys_and_parameters() {
        good("user", &["shop", "www-data", "_apt", "a1"]);
        let long = "a".repeat(33);
        bad(
            "user",
            &[
                ("Shop", None),
                ("1a", None),
                ("a b", None),
                ("", None),
                (&long, None),
            ],
        );
        good(
            "ssh-key",
            &[
                "ssh-ed25519 AAAAx== ada lovelace",
                "sk-ssh-ed25519@openssh.com AAAAx",
            ],
        );
        bad(
            "ssh-key",
            &[("ssh-ed25519", None), ("from=\"*\" ssh-ed25519 AAAA", None)],
        );
        let private = check(
            "ssh-key",
            "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1r",
        );
        assert!(private.unwrap_err().secret);
        good(
            "sysctl",
            &[
                "net.core.somaxconn = 1024",
                "-net/ipv4/conf/eth0.1/forwarding=1",
            ],
        );
        bad(
            "sysctl",
            &[("x = 1", None), ("a..b = 1", None), ("a.b =", None)],
        );
    }

    #[test]
    fn crons() {
        good(
            "cron",
            &["*/5 * * * *", "0 3 1-7 jan,jul mon Europe/Berlin"],
        );
        bad(
            "cron",
            &[
                ("@daily", Some("0 0 * * *")),
                ("* * * *", None),
                ("5m", None),
                ("* * * * * *", None),
                ("0 0 31 feb *", None),
                ("60 * * * *", None),
            ],
        );
    }

    #[test]
    fn hosts() {
        good(
            "host",
            &[
                "shop.test",
                "www.shop.test",
                "a-b.c2",
                "xn--bcher-kva.example",
            ],
        );
        bad(
            "host",
            &[
                ("WWW.shop.test", Some("www.shop.test")),
                ("www.shop.test.", Some("www.shop.test")),
                ("https://www.shop.test/x", Some("www.shop.test")),
                ("bücher.example", None),
                ("www..test", None),
                ("-a.test", None),
                ("a_b.test", None),
                ("10.0.0.1", None),
                ("*.shop.test", None),
            ],
        );
        bad(
            "host",
            &[
                (&format!("{}.test", "x".repeat(64)), None),
                (&"a.".repeat(130), None),
            ],
        );
    }

    #[test]
    fn urls() {
        good(
            "http-url",
            &[
                "http://www.shop.test:8080/x?y",
                "https://[::1]:8443/",
                "http://10.0.0.1",
            ],
        );
        for text in [
            "www.shop.test",
            "ftp://x",
            "http://",
            "http://a:0/",
            "http://a:99999/",
            "http://a b/",
            "http://a_b/",
        ] {
            assert!(check("http-url", text).is_err(), "{text}");
        }
        for text in [
            "https://me:s3cret@git.test/x",
            "https://ghp_16C7e42F292c6912E7@github.com/x",
        ] {
            let wrong = check("git-url", text).unwrap_err();
            assert!(wrong.secret && !wrong.message.contains("s3cret"));
        }
        good(
            "git-url",
            &[
                "git@github.com:a/b.git",
                "ssh://git@host/x",
                "https://git.test/x.git",
                "../x",
            ],
        );
        assert!(check("git-url", "--upload-pack=x").is_err());
    }

    #[test]
    fn a_value_in_place_of_a_reference_is_not_repeated() {
        for (format, text) in [("secret", "sk_live_123"), ("variable", "hunter-2!")] {
            let wrong = check(format, text).unwrap_err();
            assert!(wrong.secret);
            assert!(
                !wrong.message.contains(text) && !wrong.hint.unwrap_or_default().contains(text)
            );
        }
    }
}
