//! Whatever bytes a file holds: no panic, the same answer twice, and every fault with its place.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Change {
    DeleteLine(usize),
    DoubleLine(usize),
    SwapLines(usize, usize),
    ReplaceLine(usize, String),
    ReplaceByte(usize, u8),
    DeleteByte(usize),
    /// Another value behind a colon.
    Retype(usize, String),
    InsertText(usize, String),
    Cut(usize),
}

fn change() -> impl Strategy<Value = Change> {
    let odd = prop::sample::select(vec![
        "",
        " ",
        "\t",
        "- ",
        ": ",
        "{",
        "}",
        "[",
        "]",
        "&a ",
        "*a",
        "!x ",
        "? ",
        "|\n",
        ">-\n",
        "'",
        "\"",
        "#",
        "~",
        "null",
        "true",
        "1e999",
        "0x1F",
        "-1",
        "99999999999999999999",
        "\u{0}",
        "\u{feff}",
        "\u{202e}",
        "é",
        "漢",
        "\r",
        "\r\n",
        "\u{2028}",
        "---\n",
        "...\n",
        "%TAG ! x\n",
        "<<: ",
        "stack",
        "secrets",
        "count: 0",
        "a: b",
        "@",
        "`",
        "\\",
    ])
    .prop_map(str::to_owned);
    let at = any::<usize>();
    prop_oneof![
        at.prop_map(Change::DeleteLine),
        at.prop_map(Change::DoubleLine),
        (at, at).prop_map(|(a, b)| Change::SwapLines(a, b)),
        (at, odd.clone()).prop_map(|(at, text)| Change::ReplaceLine(at, text)),
        (at, any::<u8>()).prop_map(|(at, byte)| Change::ReplaceByte(at, byte)),
        at.prop_map(Change::DeleteByte),
        (at, value()).prop_map(|(at, text)| Change::Retype(at, text)),
        (at, odd).prop_map(|(at, text)| Change::InsertText(at, text)),
        at.prop_map(Change::Cut),
    ]
}

/// Values of every type, right for some key and wrong for most.
fn value() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "",
        "~",
        "true",
        "no",
        "0",
        "1",
        "-1",
        "8080",
        "1.5",
        "010",
        "0x10",
        "1_000",
        "1:30",
        ".inf",
        "99999999999",
        "x",
        "X y",
        "\"\"",
        "\"8080\"",
        "[]",
        "{}",
        "[1, x]",
        "[[x]]",
        "{ a: b }",
        "{ image: web }",
        "10s",
        "4GiB",
        "/x",
        "http://x/",
        "www.shop.test",
        "east",
        "web",
        "db",
        "balancer",
        "env",
        "*x",
        "&x y",
        "!x y",
        "|",
        "\u{a0}",
        "\u{43e}",
        "a # b",
        "a: b",
    ])
    .prop_map(str::to_owned)
}

/// The text with what stands behind its `at`th colon, up to the next comma, bracket or line's end, replaced.
fn retyped(text: &[u8], at: usize, with: &str) -> Vec<u8> {
    let colons: Vec<usize> = (0..text.len())
        .filter(|at| text[*at..].starts_with(b": "))
        .collect();
    let Some(colon) = colons.get(at % colons.len().max(1)) else {
        return text.to_vec();
    };
    let start = colon + 2;
    let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b'\n');
    let length = text[start..]
        .iter()
        .position(ends)
        .unwrap_or(text.len() - start);
    [&text[..start], with.as_bytes(), &text[start + length..]].concat()
}

fn changed(text: &[u8], change: &Change) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = text
        .split_inclusive(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect();
    let mut bytes = text.to_vec();
    if lines.is_empty() {
        return bytes;
    }
    let line = |at: &usize| at % lines.len();
    let byte = |at: &usize| at % text.len();
    match change {
        Change::DeleteLine(at) => drop(lines.remove(line(at))),
        Change::DoubleLine(at) => {
            let at = line(at);
            lines.insert(at, lines[at].clone());
        }
        Change::SwapLines(a, b) => {
            let (a, b) = (line(a), line(b));
            lines.swap(a, b);
        }
        Change::ReplaceLine(at, text) => {
            let at = line(at);
            lines[at] = format!("{text}\n").into_bytes();
        }
        Change::ReplaceByte(at, with) => bytes[byte(at)] = *with,
        Change::DeleteByte(at) => drop(bytes.remove(byte(at))),
        Change::InsertText(at, text) => {
            let at = byte(at);
            bytes.splice(at..at, text.bytes());
        }
        Change::Cut(at) => bytes.truncate(byte(at)),
        Change::Retype(at, with) => bytes = retyped(text, *at, with),
    }
    match change {
        Change::DeleteLine(_)
        | Change::DoubleLine(_)
        | Change::SwapLines(..)
        | Change::ReplaceLine(..) => lines.concat(),
        _ => bytes,
    }
}

/// All that a user could see of a check.
fn said(checked: &Result<Loaded, Vec<Fault>>) -> String {
    match checked {
        Ok(loaded) => format!("{:?}\n{:?}\n{:?}", loaded.spec, loaded.stack, loaded.lints),
        Err(faults) => all(faults),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_specs_never_panic(which in 0..20_usize, changes in prop::collection::vec(change(), 1..6)) {
        let mut texts: Vec<Vec<u8>> = fixtures("").iter().map(|path| fs::read(path).unwrap()).collect();
        texts.extend(starters().iter().map(|(name, _, _)| starter(name, "shop").unwrap().into_bytes()));
        let mut bytes = texts[which % texts.len()].clone();
        for change in &changes {
            bytes = changed(&bytes, change);
        }
        let checked = load_bytes("hafog.yaml", &bytes, &KNOWN);
        prop_assert_eq!(said(&checked), said(&load_bytes("hafog.yaml", &bytes, &KNOWN)), "not the same twice");
        if let Err(faults) = checked {
            prop_assert!(!faults.is_empty());
            inside(&faults, &String::from_utf8_lossy(&bytes));
            for fault in &faults {
                prop_assert_eq!(fault.kind(), Kind::Spec);
                let text = snippet::render(fault, false);
                prop_assert!(!text.contains("this spec cannot be read"), "{}", text);
                prop_assert!(!text.contains(|c: char| c.is_control() && c != '\n'));
            }
        }
    }

    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Err(faults) = load_bytes("f", &bytes, &KNOWN) {
            inside(&faults, &String::from_utf8_lossy(&bytes));
        }
    }
}
