//! The clock against caches that keep to the rules, and against the worst that such a cache can do.

use super::*;

const CACHING: Caching = Caching {
    negative: Some(Ttl(60)),
    spread: Duration::ZERO,
};

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(1_800_000_000_000 + millis).unwrap()
}

fn a(host: &str, ttl: u32, value: &str) -> RecordSet {
    set(host, RecordType::A, ttl, value)
}

fn cname(host: &str, ttl: u32, value: &str) -> RecordSet {
    set(host, RecordType::Cname, ttl, value)
}

fn set(host: &str, kind: RecordType, ttl: u32, value: &str) -> RecordSet {
    RecordSet {
        host: host.into(),
        kind,
        ttl: Ttl(ttl),
        values: [value.to_owned()].into(),
    }
}

/// One write, also from one type to another.
fn changes(before: Option<&RecordSet>, after: Option<&RecordSet>) -> Vec<RecordChange> {
    let change =
        |set: &RecordSet, before: Option<&RecordSet>, after: Option<&RecordSet>| RecordChange {
            host: set.host.clone(),
            kind: set.kind,
            before: before.cloned(),
            after: after.cloned(),
        };
    match (before, after) {
        (Some(b), Some(c)) if b.kind != c.kind => {
            vec![change(b, before, None), change(c, None, after)]
        }
        (Some(set), _) | (None, Some(set)) => vec![change(set, before, after)],
        (None, None) => vec![],
    }
}

/// Writes that begin and are confirmed at once; the answer is in milliseconds.
fn check(writes: &[(i64, Option<RecordSet>, Option<RecordSet>)], host: &str) -> Option<i64> {
    let mut history = Published::default();
    for (when, before, after) in writes {
        let changes = changes(before.as_ref(), after.as_ref());
        record_changes(&mut history, &changes, at(*when), at(*when), CACHING);
    }
    effective_at(&history, &host.into(), RecordType::A, CACHING)
        .map(|instant| instant.as_millisecond() - at(0).as_millisecond())
}

#[test]
fn what_never_changed_is_in_effect() {
    assert_eq!(check(&[], "www"), None);
    // It existed before the history began, and only its TTL changed.
    let (old, low) = (a("www", 3600, "1"), a("www", 60, "1"));
    assert_eq!(check(&[(0, Some(old), Some(low))], "www"), None);
}

#[test]
fn a_new_name_waits_for_cached_denials() {
    assert_eq!(
        check(&[(500, None, Some(a("www", 5, "1")))], "www"),
        Some(61_000)
    );
}

#[test]
fn every_superseded_version_counts_with_its_own_ttl() {
    let (old, low, new) = (a("www", 3600, "1"), a("www", 60, "1"), a("www", 60, "2"));
    // Lowered at 0 and flipped after ten minutes: the hour of the first version is what lasts.
    let writes = [
        (0, Some(old.clone()), Some(low.clone())),
        (600_000, Some(low.clone()), Some(new.clone())),
    ];
    assert_eq!(check(&writes, "www"), Some(3_601_000));
    // Flipped after two hours: only the last minute does.
    let writes = [
        (0, Some(old), Some(low.clone())),
        (7_200_000, Some(low), Some(new)),
    ];
    assert_eq!(check(&writes, "www"), Some(7_261_000));
}

#[test]
fn after_a_rollback_only_the_detour_is_wrong() {
    let (old, new) = (a("www", 3600, "1"), a("www", 60, "2"));
    let writes = [
        (0, Some(old.clone()), Some(new.clone())),
        (10_000, Some(new), Some(old)),
    ];
    assert_eq!(check(&writes, "www"), Some(71_000));
}

#[test]
fn links_are_cached_separately() {
    let link = cname("www", 3600, "edge");
    let (old, new) = (a("edge", 60, "1"), a("edge", 60, "2"));
    let writes = [
        (-9_000_000, None, Some(link.clone())),
        (-9_000_000, None, Some(old.clone())),
        (0, Some(old.clone()), Some(new)),
    ];
    // A cached link is followed to the new addresses; only the target's TTL counts.
    assert_eq!(check(&writes, "www"), Some(61_000));
    // A link that moves counts with its own, whatever it led to.
    let writes = [
        (-9_000_000, None, Some(link.clone())),
        (-9_000_000, None, Some(old)),
        (-9_000_000, None, Some(a("other", 60, "2"))),
        (0, Some(link), Some(cname("www", 60, "other"))),
    ];
    assert_eq!(check(&writes, "www"), Some(3_601_000));
}

#[test]
fn a_write_in_doubt_never_takes_effect() {
    let mut history = Published::default();
    let (old, new) = (a("www", 60, "1"), a("www", 60, "2"));
    let write = changes(Some(&old), Some(&new));
    begin_changes(&mut history, &write, at(0), CACHING);
    let when = |history: &Published| effective_at(history, &"www".into(), RecordType::A, CACHING);
    assert_eq!(when(&history), Some(Timestamp::MAX));
    assert_eq!(history.current(&"www".into(), RecordType::A), Some(&new));

    let mut never = history.clone();
    withdraw_changes(&mut never, &write);
    assert_eq!(when(&never), None);
    assert_eq!(never.current(&"www".into(), RecordType::A), Some(&old));

    // Begun twice (a resumed run) is begun once.
    begin_changes(&mut history, &write, at(500), CACHING);
    confirm_changes(&mut history, &write, at(1_700));
    assert_eq!(when(&history), Some(at(62_000)));
    assert_eq!(history.versions.len(), 2);
}

#[test]
fn what_somebody_else_served_is_waited_for() {
    let mut history = Published::default();
    let (old, foreign, new) = (a("www", 60, "1"), a("www", 600, "9"), a("www", 60, "2"));
    let host = "www".into();
    let ours = changes(None, Some(&old));
    record_changes(&mut history, &ours, at(-9_000_000), at(-9_000_000), CACHING);
    let write = changes(Some(&foreign), Some(&new));
    begin_changes(&mut history, &write, at(0), CACHING);
    assert_eq!(history.current(&host, RecordType::A), Some(&new));
    confirm_changes(&mut history, &write, at(1_700));
    let when = effective_at(&history, &host, RecordType::A, CACHING);
    assert_eq!(when, Some(at(602_000)));

    // Nothing was written: what is served is known from now on.
    let mut lost = Published::default();
    confirm_changes(&mut lost, &changes(None, Some(&new)), at(0));
    assert_eq!(lost.current(&host, RecordType::A), Some(&new));
}

#[test]
fn a_removed_set_is_not_current() {
    let mut history = Published::default();
    let set = a("www", 60, "1");
    record_changes(
        &mut history,
        &changes(None, Some(&set)),
        at(0),
        at(0),
        CACHING,
    );
    record_changes(
        &mut history,
        &changes(Some(&set), None),
        at(0),
        at(0),
        CACHING,
    );
    assert_eq!(history.current(&"www".into(), RecordType::A), None);
}

#[test]
fn pruning_changes_no_instant_that_is_still_to_come() {
    let mut random = Random(7);
    for _ in 0..300 {
        let world = World::random(&mut random);
        let now = at(random.below(1_200_000) as i64);
        let mut pruned = world.history.clone();
        prune(&mut pruned, now, world.caching);
        for host in HOSTS {
            let when = |history| effective_at(history, &host.into(), RecordType::A, world.caching);
            let later = |instant: Option<Timestamp>| instant.filter(|instant| *instant > now);
            assert_eq!(later(when(&pruned)), later(when(&world.history)));
        }
    }
}

#[test]
fn leases_keep_what_they_restore() {
    let mut history = Published::default();
    let www: HostName = "www".into();
    lower(&mut history, &www, Ttl(3600), Ttl(60), at(0), at(1000));
    lower(&mut history, &www, Ttl(60), Ttl(30), at(500), at(2000));
    let lease = TtlLease {
        normal: Ttl(3600),
        lowered: Ttl(30),
        since: at(0),
        until: at(2000),
    };
    assert_eq!(history.ttl_leases.get(&www), Some(&lease));
    assert_eq!(restore(&mut history, &www), Some(Ttl(3600)));
    assert_eq!(restore(&mut history, &www), None);
}

/// SplitMix64: the same worlds in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize].clone()
    }
}

const HOSTS: [&str; 3] = ["www", "edge", "spare"];

type State = Option<RecordSet>;

/// One write as it really was: at every instant of the window a server may have answered either way.
#[derive(Clone)]
struct Write {
    from: i64,
    to: i64,
    after: State,
}

/// What was really served, kept apart from the history that the clock reads.
struct World {
    writes: [Vec<Write>; 3],
    history: Published,
    caching: Caching,
}

impl World {
    fn random(random: &mut Random) -> World {
        let caching = Caching {
            negative: Some(Ttl(random.pick(&[0, 5, 60]))),
            spread: Duration::from_millis(random.pick(&[0, 300, 2500])),
        };
        let mut writes: [Vec<Write>; 3] = Default::default();
        let mut history = Published::default();
        let mut now = 0;
        for _ in 0..random.below(10) {
            now += random.pick(&[0, 1, 900, 20_000, 60_000, 200_000]) + random.below(1000) as i64;
            let from = now;
            now += random.pick(&[0, 0, 40, 3000]);
            let host = random.below(3) as usize;
            let before = writes[host].last().and_then(|write| write.after.clone());
            let after = World::state(random, host);
            if before == after {
                continue;
            }
            let batch = changes(before.as_ref(), after.as_ref());
            record_changes(&mut history, &batch, at(from), at(now), caching);
            writes[host].push(Write {
                from,
                to: now,
                after,
            });
            now += 1;
        }
        World {
            writes,
            history,
            caching,
        }
    }

    fn state(random: &mut Random, host: usize) -> State {
        let ttl = random.pick(&[0, 1, 5, 30, 60, 300]);
        match random.below(10) {
            0 => None,
            1..7 if host == 0 => Some(cname("www", ttl, random.pick(&HOSTS[1..]))),
            7 if host == 1 => Some(cname("edge", ttl, "spare")),
            _ => Some(a(HOSTS[host], ttl, random.pick(&["1", "2", "3"]))),
        }
    }

    /// The states of a host, and when each may have been given out.
    fn states(&self, host: usize) -> Vec<(State, i64, i64)> {
        let writes = &self.writes[host];
        let ends = |index: usize| writes.get(index).map_or(i64::MAX / 4, |write| write.to);
        let first = (None, i64::MIN / 4, ends(0));
        let rest = writes
            .iter()
            .enumerate()
            .map(|(index, write)| (write.after.clone(), write.from, ends(index + 1)));
        std::iter::once(first).chain(rest).collect()
    }

    fn ttl(&self, state: &State) -> i64 {
        let negative = self.caching.negative.unwrap();
        i64::from(state.as_ref().map_or(negative.0, |set| set.ttl.0)) * 1000
    }

    fn spread(&self) -> i64 {
        self.caching.spread.as_millis() as i64
    }

    /// What everybody should find at the end: the values, nothing, or a name that nobody knows.
    fn truth(&self) -> Vec<String> {
        self.resolve(&mut |host| self.states(host).pop().unwrap().0)
    }

    /// Follows `www`.
    fn resolve(&self, state: &mut dyn FnMut(usize) -> State) -> Vec<String> {
        let mut host = 0;
        for _ in 0..4 {
            if self.writes[host].is_empty() {
                // Whatever the rest of the world says about it.
                return vec![format!("outside {host}")];
            }
            match state(host) {
                None => return vec![],
                Some(set) if set.kind == RecordType::Cname => {
                    let target = set.values.first().unwrap();
                    host = HOSTS.iter().position(|name| name == target).unwrap();
                }
                Some(set) => return set.values.into_iter().collect(),
            }
        }
        unreachable!("the hosts make no loop")
    }
}

/// An honest cache: keeps each answer for its TTL after it arrived.
struct HonestCache {
    entries: [Option<(State, i64)>; 3],
    /// Like resolvers whose clock has whole seconds and which use an entry to the end of its last one.
    whole_seconds: bool,
}

impl HonestCache {
    fn answer(&mut self, world: &World, now: i64, random: &mut Random) -> Vec<String> {
        world.resolve(&mut |host| self.state(world, host, now, random))
    }

    fn state(&mut self, world: &World, host: usize, now: i64, random: &mut Random) -> State {
        if let Some((state, arrived)) = &self.entries[host] {
            let ttl = world.ttl(state);
            let valid = if self.whole_seconds {
                now.div_euclid(1000) <= arrived.div_euclid(1000) + ttl / 1000
            } else {
                now < arrived + ttl
            };
            if valid {
                return state.clone();
            }
        }
        let given_out = now - random.below(world.spread() as u64 + 1) as i64;
        let mut possible = world.states(host);
        possible.retain(|(_, from, to)| (*from..=*to).contains(&given_out));
        let (state, _, _) = random.pick(&possible);
        self.entries[host] = Some((state.clone(), now));
        state
    }
}

#[test]
fn no_honest_cache_outlives_the_clock() {
    let mut random = Random(1);
    let (mut caches, mut stale, mut late) = (0, 0, 0);
    for _ in 0..1700 {
        let world = World::random(&mut random);
        let instant = effective_at(&world.history, &"www".into(), RecordType::A, world.caching)
            .map(|instant| instant.as_millisecond() - at(0).as_millisecond());
        let truth = world.truth();
        for number in 0..6 {
            caches += 1;
            let mut cache = HonestCache {
                entries: Default::default(),
                whole_seconds: number % 2 == 0,
            };
            let mut when: Vec<i64> = (0..60).map(|_| random.below(1_500_000) as i64).collect();
            // Just around what matters: the ends of writes, and the instant.
            for write in world.writes.iter().flatten() {
                when.extend([write.to, write.to + world.spread(), write.from]);
            }
            when.extend(instant.iter().flat_map(|i| [*i, *i + 1, *i - 1, *i - 900]));
            when.sort();
            for now in when {
                // Other clients ask it about the links themselves.
                if random.below(4) == 0 {
                    cache.state(&world, 1 + random.below(2) as usize, now, &mut random);
                }
                let answer = cache.answer(&world, now, &mut random);
                let over = instant.is_none_or(|instant| now >= instant);
                if answer != truth {
                    stale += 1;
                    assert!(
                        !over,
                        "{answer:?} at {now}, clock {instant:?}, {:#?}",
                        world.history
                    );
                }
                late += usize::from(over);
            }
        }
    }
    assert!(caches >= 10_000, "{caches} caches");
    assert!(
        stale > 1000 && late > 10_000,
        "{stale} stale answers, {late} after the clock"
    );
}

#[test]
fn the_clock_is_at_most_a_second_late() {
    let mut random = Random(2);
    let mut checked = 0;
    for _ in 0..2000 {
        let world = World::random(&mut random);
        let instant = effective_at(&world.history, &"www".into(), RecordType::A, world.caching);
        let Some(instant) = instant else { continue };
        assert_ne!(instant, Timestamp::MAX);
        checked += 1;
        let now = instant.as_millisecond() - at(0).as_millisecond() - 1000;
        assert!(
            some_cache_is_wrong(&world, now),
            "nothing old at {now}: {:#?}",
            world.history
        );
    }
    assert!(checked > 1000, "{checked}");
}

/// Whether a cache that asked at the worst times answers differently from the truth at `now`.
fn some_cache_is_wrong(world: &World, now: i64) -> bool {
    let held = |host: usize| -> Vec<State> {
        let possible = world.states(host).into_iter().filter(|(state, from, to)| {
            let arrived = (*to + world.spread()).min(now);
            arrived >= *from
                && now.div_euclid(1000) <= arrived.div_euclid(1000) + world.ttl(state) / 1000
        });
        possible.map(|(state, _, _)| state).collect()
    };
    let truth = world.truth();
    let all = [held(0), held(1), held(2)];
    all[0].iter().any(|zero| {
        all[1].iter().any(|one| {
            all[2].iter().any(|two| {
                let states = [zero, one, two];
                world.resolve(&mut |host| states[host].clone()) != truth
            })
        })
    })
}

#[test]
fn what_a_clock_that_was_ahead_wrote_down_is_not_waited_for() {
    let mut history = Published::default();
    let (old, new) = (a("www", 10, "192.0.2.1"), a("www", 5, "192.0.2.1"));
    let hour = 3_600_000;
    begin_changes(&mut history, &changes(None, Some(&old)), at(0), CACHING);
    confirm_changes(&mut history, &changes(None, Some(&old)), at(0));
    let change = changes(Some(&old), Some(&new));
    begin_changes(&mut history, &change, at(hour), CACHING);
    confirm_changes(&mut history, &change, at(hour));
    let gone = |history: &Published| slower_gone_at(history, &"www".into(), RecordType::A, Ttl(5));
    assert_eq!(gone(&history), Some(at(hour + 10_000)));
    // The clock is right again, a minute after the change.
    let serial = history.serial;
    not_later_than(&mut history, at(60_000));
    assert_eq!(gone(&history), Some(at(70_000)));
    assert_eq!(history.serial, serial + 1);
    // And what is not later stays as it is.
    let settled = history.clone();
    not_later_than(&mut history, at(61_000));
    assert_eq!(history, settled);
}
