//! Every fixture with its exact output.

use super::*;

/// `UPDATE=1 cargo test` writes what is printed now; read the difference before you commit it.
fn check_expected(path: &Path, actual: &str) -> Result<(), String> {
    let expected_path = path.with_extension("expected");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&expected_path, actual).unwrap();
    }
    let expected = fs::read_to_string(&expected_path).unwrap_or_default();
    if expected == actual {
        return Ok(());
    }
    Err(format!(
        "{}\n--- expected\n{expected}--- actual\n{actual}",
        path.display()
    ))
}

#[test]
fn fixtures_are_as_expected() {
    let mut wrong = Vec::new();
    for path in fixtures("bad") {
        let faults = load_bytes(name(&path), &fs::read(&path).unwrap(), &KNOWN)
            .expect_err(&format!("{} has mistakes", path.display()));
        let text = all(&faults);
        assert!(
            !text.contains("s3cret") && !text.contains("1234,"),
            "{text}"
        );
        wrong.extend(check_expected(&path, &text).err());
    }
    for path in fixtures("lint") {
        let loaded = load_bytes(name(&path), &fs::read(&path).unwrap(), &WIDE)
            .unwrap_or_else(|faults| panic!("{}", all(&faults)));
        let lints: Vec<String> = loaded
            .lints
            .iter()
            .map(|lint| snippet::warning(&lint.fault(), false))
            .collect();
        wrong.extend(check_expected(&path, &lints.join("\n")).err());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_expected_output_has_its_fixture() {
    for folder in ["bad", "lint"] {
        let at = fixtures(folder)[0].parent().unwrap().to_owned();
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            assert!(path.with_extension("yaml").exists(), "{}", path.display());
        }
    }
}

/// Each of the bad specs shows something that no other shows.
#[test]
fn bad_specs_differ_in_what_they_show() {
    let paths = fixtures("bad");
    assert!(paths.len() >= 60, "{} bad specs", paths.len());
    let mut messages = std::collections::HashMap::new();
    for path in &paths {
        let faults = load_bytes("f", &fs::read(path).unwrap(), &KNOWN).unwrap_err();
        let said: Vec<(String, Vec<String>)> = faults
            .iter()
            .map(|fault| (fault.to_string(), fault.hints().to_vec()))
            .collect();
        let places: Vec<_> = faults
            .iter()
            .map(|fault| fault.place().map(|it| it.text.clone()))
            .collect();
        if let Some(other) = messages.insert((said, places), path) {
            panic!("{} and {} show the same", path.display(), other.display());
        }
    }
}

#[test]
fn good_fixtures_check_clean() {
    for path in fixtures("") {
        let loaded = load(&path, &KNOWN).unwrap_or_else(|faults| panic!("{}", all(&faults)));
        let lints: Vec<&str> = loaded.lints.iter().map(|lint| lint.name).collect();
        let expected: &[&str] = match name(&path) {
            "least.yaml" => &["no-names", "one-site"],
            // It shows every word, also those that nothing acts on yet.
            "everything.yaml" => &[
                "balancer-without-tls",
                "disk-not-given",
                "disk-not-given",
                "packages-on-local",
                "ping-is-not-asked",
                "service-without-run",
                "service-without-run",
                "system-on-local",
                "system-on-local",
                "system-on-local",
                "system-on-local",
            ],
            _ => &[],
        };
        let mut lints = lints;
        lints.sort();
        assert_eq!(lints, expected, "{}", path.display());
    }
}

/// `show spec` prints a spec that means the same.
#[test]
fn specs_are_written_back() {
    for path in fixtures("") {
        let loaded = load(&path, &KNOWN).unwrap();
        let text = serde_yaml::to_string(&loaded.spec).unwrap();
        let again = load_str("again", &text, &KNOWN)
            .unwrap_or_else(|faults| panic!("{text}\n{}", all(&faults)));
        assert_eq!((again.spec, again.stack), (loaded.spec, loaded.stack));
    }
}
