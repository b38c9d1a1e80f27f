//! Every combination, against the rules written down a second time, as sentences about the row and not as code paths.

use super::*;

const ME: &str = "shop-east-db-1";
const WEST: &str = "shop-west-db-1";

fn named(epoch: u64, node: Option<&str>) -> Named {
    Named {
        epoch,
        node: node.map(ServerName::from),
    }
}

fn unreachable(last: Option<Named>) -> Document {
    Document::Unreachable {
        why: "no answer within 1s".to_owned(),
        last,
    }
}

/// The letter of the verdict: what a row of the table says.
fn letter(verdict: &Verdict) -> char {
    match verdict {
        Verdict::Idle { .. } => 'i',
        Verdict::Beat { .. } => 'b',
        Verdict::Renew { .. } => 'r',
        Verdict::Open { .. } => 'o',
        Verdict::Opening { .. } => 'p',
        Verdict::Start { .. } => 's',
        Verdict::Wait { .. } => 'w',
        Verdict::Continue { .. } => 'c',
        Verdict::Ask { .. } => '?',
        Verdict::Leave { .. } => '-',
        Verdict::Fence { .. } => 'F',
    }
}

/// The five answers of the others, in the order of the last table's letters.
fn others() -> [Others; 5] {
    [
        Others::NotAsked,
        Others::Nobody,
        Others::Answering { by: WEST.into() },
        Others::Writable { node: WEST.into() },
        Others::Silent,
    ]
}

/// Each cell holds five letters, one for each answer of the others; one letter stands for five.
/// Columns: writable, opening, replica, down; each with a valid and with an expired lease.
#[rustfmt::skip]
const TABLE: &[(&str, SelfFence, [&str; 8])] = &[
    //                                      writable      opening       replica   down
    //                                      valid exp.    valid exp.    v.   e.   v.   e.
    ("absent",       SelfFence::Isolated, ["i", "i",     "i", "i",     "i", "i", "i", "i"]),
    ("absent",       SelfFence::Strict,   ["F", "F",     "F", "F",     "i", "i", "i", "i"]),
    ("me",           SelfFence::Isolated, ["b", "r",     "p", "p",     "o", "o", "w", "w"]),
    ("me",           SelfFence::Strict,   ["b", "r",     "p", "p",     "o", "o", "w", "w"]),
    ("other",        SelfFence::Isolated, ["F", "F",     "F", "F",     "-", "-", "-", "-"]),
    ("other",        SelfFence::Strict,   ["F", "F",     "F", "F",     "-", "-", "-", "-"]),
    ("none",         SelfFence::Isolated, ["F", "F",     "F", "F",     "-", "-", "-", "-"]),
    ("none",         SelfFence::Strict,   ["F", "F",     "F", "F",     "-", "-", "-", "-"]),
    ("newer",        SelfFence::Isolated, ["F", "F",     "F", "F",     "o", "o", "w", "w"]),
    ("newer",        SelfFence::Strict,   ["F", "F",     "F", "F",     "o", "o", "w", "w"]),
    ("lost, me",     SelfFence::Isolated, ["c", "?ccFF", "c", "?ccFF", "-", "-", "-", "-"]),
    ("lost, me",     SelfFence::Strict,   ["c", "F",     "c", "F",     "-", "-", "-", "-"]),
    ("lost, unread", SelfFence::Isolated, ["c", "?ccFF", "c", "?ccFF", "-", "-", "-", "-"]),
    ("lost, unread", SelfFence::Strict,   ["c", "F",     "c", "F",     "-", "-", "-", "-"]),
    ("lost, other",  SelfFence::Isolated, ["F", "F",     "F", "F",     "-", "-", "-", "-"]),
    ("lost, other",  SelfFence::Strict,   ["F", "F",     "F", "F",     "-", "-", "-", "-"]),
    ("lost, none",   SelfFence::Isolated, ["F", "F",     "F", "F",     "-", "-", "-", "-"]),
    ("lost, none",   SelfFence::Strict,   ["F", "F",     "F", "F",     "-", "-", "-", "-"]),
];

fn document(name: &str) -> Document {
    match name {
        "absent" => Document::Absent,
        "me" => Document::Read(named(3, Some(ME))),
        "newer" => Document::Read(named(5, Some(ME))),
        "other" => Document::Read(named(4, Some(WEST))),
        "none" => Document::Read(named(4, None)),
        "lost, me" => unreachable(Some(named(3, Some(ME)))),
        "lost, unread" => unreachable(None),
        "lost, other" => unreachable(Some(named(4, Some(WEST)))),
        "lost, none" => unreachable(Some(named(4, None))),
        _ => panic!("no document `{name}`"),
    }
}

/// Calls `each` with every cell: its row's name, what was seen, and the letter that the table wants.
fn every_cell(mut each: impl FnMut(&str, Observation, char)) {
    for (name, self_fence, cells) in TABLE {
        let columns = [Seen::Writable, Seen::Opening, Seen::Replica, Seen::Down];
        for (index, cell) in cells.iter().enumerate() {
            for (answer, others) in others().into_iter().enumerate() {
                let seen = Observation {
                    me: ME.into(),
                    document: document(name),
                    engine: columns[index / 2],
                    opened_under: Some(3),
                    stopped_here: false,
                    lease: index % 2 == 0,
                    self_fence: *self_fence,
                    others,
                };
                let wanted = cell.chars().nth(answer).or(cell.chars().next());
                each(name, seen, wanted.expect("a cell is not empty"));
            }
        }
    }
}

#[test]
fn every_combination_is_judged_as_the_table_says() {
    let mut rows = 0;
    every_cell(|name, seen, wanted| {
        let verdict = judge(&seen);
        assert_eq!(
            letter(&verdict),
            wanted,
            "{name}: {seen:?} gave `{verdict}`"
        );
        rows += 1;
    });
    assert_eq!(rows, 18 * 8 * 5);
}

#[test]
fn whoever_is_not_named_is_never_left_writable() {
    every_cell(|name, seen, _| {
        let named_else = ["other", "none", "lost, other", "lost, none"].contains(&name);
        let may_write = matches!(seen.engine, Seen::Writable | Seen::Opening);
        if named_else && may_write {
            assert!(matches!(judge(&seen), Verdict::Fence { .. }), "{seen:?}");
        }
    });
}

#[test]
fn strict_without_lease_and_arbiter_is_never_writable() {
    every_cell(|name, seen, _| {
        let may_write = matches!(seen.engine, Seen::Writable | Seen::Opening);
        if name.starts_with("lost")
            && seen.self_fence == SelfFence::Strict
            && !seen.lease
            && may_write
        {
            assert!(matches!(judge(&seen), Verdict::Fence { .. }), "{seen:?}");
        }
    });
}

#[test]
fn only_an_engine_that_this_agent_stopped_is_started() {
    every_cell(|name, seen, _| {
        let stopped = Observation {
            stopped_here: true,
            ..seen.clone()
        };
        let starts = matches!(judge(&stopped), Verdict::Start { .. });
        let wanted = ["me", "newer"].contains(&name) && seen.engine == Seen::Down;
        assert_eq!(starts, wanted, "{stopped:?}");
    });
}

#[test]
fn an_engine_found_open_is_adopted_under_the_epoch_of_the_record() {
    every_cell(|name, seen, _| {
        if ["me", "newer"].contains(&name) && seen.engine == Seen::Writable {
            let restarted = Observation {
                opened_under: None,
                ..seen
            };
            assert!(
                matches!(
                    judge(&restarted),
                    Verdict::Beat { .. } | Verdict::Renew { .. }
                ),
                "{restarted:?}"
            );
        }
    });
}

#[test]
fn verdicts_read_as_sentences() {
    let mut sentences: Vec<String> = Vec::new();
    every_cell(|_, seen, _| {
        let starts = Observation {
            stopped_here: true,
            ..seen.clone()
        };
        for verdict in [judge(&seen), judge(&starts)] {
            let sentence = verdict.to_string();
            if !sentences.contains(&sentence) {
                sentences.push(sentence);
            }
        }
    });
    assert_eq!(sentences.join("\n"), SENTENCES.trim());
}

const SENTENCES: &str = "
idle: the database of shop-east-db-1 has no writer record yet
fence: shop-east-db-1 must not write: there is no writer record, and `self_fence` is `strict`
hold: shop-east-db-1 is the writer at epoch 3; lease renewed
renew: shop-east-db-1 is the writer at epoch 3, without a lease
opening: shop-east-db-1 is the writer at epoch 3; lease renewed
open: shop-east-db-1 is the writer at epoch 3, and its engine is not writable
wait: shop-east-db-1 is the writer at epoch 3, and its engine does not answer; lease renewed
start: shop-east-db-1 is the writer at epoch 3, and this agent had stopped its engine
fence: shop-east-db-1 must not write: shop-west-db-1 is the writer at epoch 4
leave: shop-east-db-1 is not writable: shop-west-db-1 is the writer at epoch 4
fence: shop-east-db-1 must not write: nobody may write at epoch 4
leave: shop-east-db-1 is not writable: nobody may write at epoch 4
fence: shop-east-db-1 must not write: it was opened under epoch 3, and the epoch is 5
open: shop-east-db-1 is the writer at epoch 5, and its engine is not writable
wait: shop-east-db-1 is the writer at epoch 5, and its engine does not answer; lease renewed
start: shop-east-db-1 is the writer at epoch 5, and this agent had stopped its engine
continue: shop-east-db-1 stays writable without the arbiter: its write lease is still good (no answer within 1s)
ask: shop-east-db-1 has no write lease, and the arbiter does not answer (no answer within 1s)
continue: shop-east-db-1 stays writable without the arbiter: there is no other node (no answer within 1s)
continue: shop-east-db-1 stays writable without the arbiter: shop-west-db-1 answers and no other node is writable (no answer within 1s)
fence: shop-east-db-1 must not write: its write lease is over, and shop-west-db-1 is writable (no answer within 1s)
fence: shop-east-db-1 must not write: its write lease is over, and neither the arbiter nor another site answers (no answer within 1s)
leave: shop-east-db-1 is not writable: nothing is opened without a renewal (no answer within 1s)
fence: shop-east-db-1 must not write: its write lease is over, and `self_fence` is `strict` (no answer within 1s)
fence: shop-east-db-1 must not write: shop-west-db-1 is the writer at epoch 4, says what was heard last (no answer within 1s)
leave: shop-east-db-1 is not writable: shop-west-db-1 is the writer at epoch 4, says what was heard last (no answer within 1s)
fence: shop-east-db-1 must not write: nobody may write at epoch 4, says what was heard last (no answer within 1s)
leave: shop-east-db-1 is not writable: nobody may write at epoch 4, says what was heard last (no answer within 1s)
";
