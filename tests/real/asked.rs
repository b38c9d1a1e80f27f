//! A person who takes their time at the prompt: what they agreed to must still be what there is to do.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

use super::lab::{Lab, turn};

const APP: &str = r#"
import http.server
class App(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.ThreadingHTTPServer(("", 8000), App).serve_forever()
"#;

/// hafog at a terminal of its own, whose clock stands in a file.
struct Asked {
    child: Child,
    said: String,
}

impl Asked {
    fn begin(lab: &Lab, words: &str) -> Asked {
        let hafog = lab.home.command(&[]);
        let line = format!("{} {words}", hafog.get_program().to_string_lossy());
        let mut command = Command::new("script");
        command
            .args(["--quiet", "--flush", "--return", "--command", &line])
            .arg("/dev/null")
            .current_dir(lab.home.path())
            .env_clear()
            .envs(hafog.get_envs().filter_map(|(k, v)| Some((k, v?))))
            .env("SHELL", "/bin/sh")
            .env("NO_COLOR", "1")
            .env("HAFOG_CLOCK_STEP", lab.home.path().join("step"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let child = command.spawn().expect("script starts");
        let said = String::new();
        let mut asked = Asked { child, said };
        let question = "go on? [y/N]";
        asked.hear(Some(question));
        assert!(asked.said.ends_with(question), "{}", asked.said);
        asked
    }

    /// Reads until the words are there, or to the end.
    fn hear(&mut self, words: Option<&str>) {
        let out = self.child.stdout.as_mut().expect("a pipe");
        let mut byte = [0];
        while words.is_none_or(|words| !self.said.ends_with(words)) {
            match out.read(&mut byte).expect("a pipe") {
                0 => break,
                _ => self.said.push(char::from(byte[0])),
            }
        }
    }

    /// What it ends with after this answer.
    fn answer(mut self, answer: &str) -> (i32, String) {
        let input = self.child.stdin.as_mut().expect("a pipe");
        writeln!(input, "{answer}").expect("somebody reads");
        self.hear(None);
        let status = self.child.wait().expect("it ends");
        (status.code().unwrap_or(-1), self.said)
    }
}

#[test]
fn an_old_answer_is_to_a_plan_that_is_looked_at_again() {
    let test = "an_old_answer_is_to_a_plan_that_is_looked_at_again";
    let Some(_turn) = turn(test) else { return };
    if !std::path::Path::new("/usr/bin/script").exists() {
        return crate::harness::skip::skipped(test, "script is missing: apt-get install bsdutils");
    }
    let lab = Lab::web(APP, "");
    lab.must("local power shop-east-web-1 off");
    let asked = Asked::begin(&lab, "up");
    // Meanwhile.
    lab.must("local power shop-east-web-2 off");
    lab.home.write("step", "3600");
    let (code, said) = asked.answer("y");
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("the world moved: the plan is"), "{said}");
    assert!(said.contains("hint: hafog up"), "{said}");

    // Somebody who only took long is not asked twice.
    lab.home.write("step", "0");
    let asked = Asked::begin(&lab, "up");
    lab.home.write("step", "3600");
    let (code, said) = asked.answer("y");
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("looking again"), "{said}");
    lab.home.write("step", "0");
    assert!(lab.must("up --yes").stdout.contains("nothing to do"));
}
