//! Large and hostile texts are read or refused in linear time.

use std::time::Duration;

use super::*;

/// Time that this thread has spent on a processor. Other work on the machine does not count.
fn busy() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    stat.split(' ')
        .next()?
        .parse()
        .ok()
        .map(Duration::from_nanos)
}

#[expect(clippy::print_stdout, reason = "a test that cannot run says so")]
/// Does the work in two sizes, the second eight times the first: it may take thrice as long as linear work would,
/// where quadratic work takes eight times as long. What is done in an instant is not measured.
fn check_linear(what: &str, work: impl Fn(usize)) {
    let measured = |times: usize| {
        let start = busy();
        work(times);
        Some(busy()? - start?)
    };
    work(1);
    let (Some(little), Some(much)) = (measured(1), measured(8)) else {
        println!("skipped: linear time of {what}: this kernel does not count time per thread");
        return;
    };
    let most = little.max(Duration::from_millis(5)) * 24;
    assert!(
        much < most,
        "{what} takes {little:?}, eight times as much of it {much:?}"
    );
}

#[test]
fn large_stacks_take_linear_time() {
    let one = good(&small().replace("count: 2, open", "count: 10000, open"));
    assert_eq!(one.stack.servers.len(), 2 * (10_000 + 2 + 1));
    check_linear("a stack of groups", |times| {
        let entries = times * 1_250;
        let groups: String = (0..entries)
            .map(|n| format!("  g{n}: {{ image: web, open: [80] }}\n"))
            .collect();
        let text = small().replace("servers:\n", &format!("servers:\n{groups}"));
        assert_eq!(good(&text).stack.servers.len(), 2 * (entries + 5));
    });
    let many = bad(&small()
        .replace("count: 2, open", "count: 10000, open")
        .replace("count: 2 }", "count: 10000 }")
        .replace("  db:", "  dc: { image: web, count: 10000 }\n  db:"));
    assert_eq!(
        many[0].message(),
        "these are 60000 servers; a stack has at most 50000"
    );
}

/// Every one of these once stopped some YAML reader for good.
#[test]
fn hostile_texts_are_refused_in_linear_time() {
    let lines = |line: &'static str| move |bytes: usize| line.repeat(bytes / line.len());
    type Text = Box<dyn Fn(usize) -> String>;
    let mut texts: Vec<Text> = vec![
        Box::new(|bytes| (0..bytes / 8).map(|n| format!("k{n}: x\n")).collect()),
        Box::new(|bytes| (0..bytes / 8).map(|n| format!("k{n}: {{}}\n")).collect()),
        Box::new(move |bytes| format!("servers: {{ {} }}", lines("a: {},\n ")(bytes))),
        Box::new(move |bytes| format!("names:\n{}", lines("- { host: x, bad: y }\n")(bytes))),
        Box::new(|bytes| {
            (0..bytes / 80)
                .map(|n| format!("{}a:\n", " ".repeat(n.min(80))))
                .collect()
        }),
    ];
    for line in [
        "[",
        "[\n",
        "{a: \n",
        "- ",
        "- - - -\n",
        "? ",
        "? \n",
        "\"",
        "'\n",
        "a: &a *a\n",
        "&a\n",
        "!a\n",
        "---\n",
        "%YAML 1.2\n",
        "a: |\n",
        "x\n",
        "# x\n",
        "a:\n b:\n",
        "\n",
        "[], ",
        "[],\n",
        "{},\n",
        "\u{e9}\n",
    ] {
        texts.push(Box::new(lines(line)));
    }
    for text in &texts {
        let head: String = text(40).chars().take(20).collect();
        check_linear(&format!("{head:?}"), |times| {
            let text = text(times << 16);
            let faults = load_str("f", &text, &KNOWN).unwrap_err();
            assert!(faults.len() <= 1_000);
            if times == 1 {
                inside(&faults, &text);
            }
        });
    }
}
