//! Words as a POSIX shell reads them, and environment files, which systemd reads the same way (systemd.exec(5)).

/// What a backslash stands before within double quotes.
const ESCAPED: [char; 4] = ['\\', '"', '$', '`'];

/// One word, whatever is in it.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A line of an environment file. The value has no line break.
pub fn assignment(name: &str, value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+=,".contains(c);
    if value.chars().all(is_plain) {
        return format!("{name}={value}\n");
    }
    let mut escaped = String::new();
    for c in value.chars() {
        if ESCAPED.contains(&c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    format!("{name}=\"{escaped}\"\n")
}

/// Names and values of an environment file of `assignment`s; comments and anything else are passed over.
pub fn assignments(text: &str) -> impl Iterator<Item = (String, String)> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| {
        let within = value.strip_prefix('"');
        let within = within.and_then(|value| value.strip_suffix('"'));
        let value = within.map_or_else(|| value.to_owned(), unescaped);
        (name.to_owned(), value)
    })
}

fn unescaped(text: &str) -> String {
    let mut plain = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match chars.next_if(|next| c == '\\' && ESCAPED.contains(next)) {
            Some(escaped) => plain.push(escaped),
            None => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_file_says_what_was_written_to_a_shell_and_to_us() {
        let values = [
            "",
            "plain-1.2/3:4@5%20+6=7,8",
            "MAIN OTHER",
            " around ",
            r#"a "quoted" \back \\two $HOME `id` 'single' #more!"#,
            r"ends with \",
            "\"",
            "größer → 3",
        ];
        for value in values {
            let line = assignment("ODD", value);
            let read: Vec<(String, String)> = assignments(&line).collect();
            assert_eq!(read, [("ODD".to_owned(), value.to_owned())], "{line}");
            let script = format!("{line}printf %s \"$ODD\"");
            let shell = std::process::Command::new("sh")
                .args(["-c", &script])
                .output();
            let said = shell.expect("sh is there").stdout;
            assert_eq!(String::from_utf8_lossy(&said), value, "{line}");
        }
    }

    #[test]
    fn what_is_no_assignment_is_passed_over() {
        let read: Vec<(String, String)> =
            assignments("# A=1\n\nnothing\nB=\"2\nC=a\\b\n").collect();
        let want = [("B", "\"2"), ("C", r"a\b")];
        let want = want.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(read, want);
    }
}
