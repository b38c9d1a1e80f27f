//! What came of each case, kept in a file so that a run of hours can be taken up again, and the table at its end.
//!
//! `tests/torture/seen/SEED.jsonl` holds what earlier runs on other machines saw; those cases are not run again with this
//! seed. To keep a run: `cat target/torture/SEED.jsonl >>tests/torture/seen/SEED.jsonl`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
pub struct Record {
    pub case: String,
    pub verb: String,
    pub step: String,
    pub fault: String,
    pub failed: bool,
    /// The end state in words, or what is wrong.
    pub end: String,
    pub seconds: f64,
    /// The commit that was tested.
    #[serde(default)]
    pub code: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    /// Verb, and the lines of its journal in an uncut run: the same cases after a restart.
    Learned(String, Vec<String>),
    Done(Record),
}

pub struct Results {
    file: Option<File>,
    done: Vec<Record>,
    learned: BTreeMap<String, Vec<String>>,
}

impl Results {
    /// Of a sample nothing is kept.
    pub fn open(seed: Option<u64>) -> Results {
        let mut results = Results {
            file: None,
            done: Vec::new(),
            learned: BTreeMap::new(),
        };
        let Some(seed) = seed else { return results };
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let (seen, folder) = (root.join("tests/torture/seen"), root.join("target/torture"));
        std::fs::create_dir_all(&folder).expect("target/ is writable");
        let path = folder.join(format!("{seed}.jsonl"));
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let (before, text) = (read(seen.join(format!("{seed}.jsonl"))), read(path.clone()));
        for line in before
            .lines()
            .chain(text.lines())
            .filter_map(|line| serde_json::from_str(line).ok())
        {
            match line {
                Line::Learned(verb, lines) => drop(results.learned.insert(verb, lines)),
                Line::Done(record) => results.done.push(record),
            }
        }
        let file = File::options().append(true).create(true).open(&path);
        results.file = Some(file.expect("target/torture is writable"));
        crate::say(&format!("results: {}\n", path.display()));
        results
    }

    fn write(&mut self, line: &Line) {
        if let Some(file) = &mut self.file {
            let text = serde_json::to_string(line).expect("a result is JSON");
            writeln!(file, "{text}").expect("target/torture is writable");
        }
    }

    pub fn has(&self, case: &str) -> bool {
        self.done.iter().any(|record| record.case == case)
    }

    pub fn add(&mut self, record: Record) {
        self.write(&Line::Done(record.clone()));
        self.done.push(record);
    }

    pub fn learned(&self, verb: &str) -> Option<Vec<String>> {
        self.learned.get(verb).cloned()
    }

    pub fn learn(&mut self, verb: &str, lines: Vec<String>) {
        self.write(&Line::Learned(verb.to_owned(), lines.clone()));
        self.learned.insert(verb.to_owned(), lines);
    }

    pub fn failures(&self) -> usize {
        self.done.iter().filter(|record| record.failed).count()
    }

    /// Verb × kind of step × fault → end states.
    pub fn table(&self) -> String {
        let mut rows: BTreeMap<(&str, String, &str), BTreeMap<&str, usize>> = BTreeMap::new();
        for record in &self.done {
            let end = if record.failed {
                "FAILED"
            } else {
                record.end.as_str()
            };
            let row = rows
                .entry((&record.verb, kind(&record.step), &record.fault))
                .or_default();
            *row.entry(end).or_default() += 1;
        }
        let mut text = format!(
            "\n{:<12} {:<34} {:<20} END STATE\n",
            "VERB", "STEP", "FAULT"
        );
        for ((verb, step, fault), ends) in &rows {
            let ends: Vec<String> = ends
                .iter()
                .map(|(end, count)| format!("{count} {end}"))
                .collect();
            text.push_str(&format!(
                "{verb:<12} {step:<34} {fault:<20} {}\n",
                ends.join(", ")
            ));
        }
        text.push_str(&self.sums());
        text
    }

    fn sums(&self) -> String {
        let failed: Vec<&Record> = self.done.iter().filter(|record| record.failed).collect();
        let with = |word: &str| {
            let says = |record: &&&Record| record.end.contains(word);
            failed.iter().filter(says).count()
        };
        let hours = self.done.iter().map(|record| record.seconds).sum::<f64>() / 3600.0;
        let verbs: BTreeSet<&str> = self
            .done
            .iter()
            .map(|record| record.verb.as_str())
            .collect();
        let mut text = format!(
            "\n{} cases of {} verbs, {hours:.2} h of cases: {} failed, {} with strays, {} with two writers\n",
            self.done.len(),
            verbs.len(),
            failed.len(),
            with(STRAY),
            with(DOUBLE),
        );
        let mut codes: BTreeMap<&str, usize> = BTreeMap::new();
        for record in &self.done {
            *codes.entry(&record.code).or_default() += 1;
        }
        let codes: Vec<String> = codes
            .iter()
            .map(|(code, count)| format!("{count} of {code}"))
            .collect();
        text.push_str(&format!("commits: {}\n", codes.join(", ")));
        for record in failed {
            text.push_str(&format!("failed: {}\n", record.case));
        }
        text
    }
}

/// How a judge marks what nobody needs. No text of hafog's own has these words.
pub const STRAY: &str = "stray: ";
/// And two nodes that acknowledge.
pub const DOUBLE: &str = "DOUBLE WRITER";

/// `finished create-server shop-east-web-1` is of the kind `finished create-server`.
pub fn kind(step: &str) -> String {
    step.split(' ').take(2).collect::<Vec<_>>().join(" ")
}
