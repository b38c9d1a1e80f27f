//! Every move, cut at every change that it makes, and taken up by somebody who turns back, or gets no further either.
//!
//! A run that is closed is over for every command, so the world has to be as before the move or as after it then. While
//! it is neither, there has to be a run that somebody can take up.

use std::sync::Arc;
use std::time::Duration;

use hafog::db::keys::Keys;
use hafog::journal::Silent;
use hafog::model::stack::Stack;
use hafog::run::open;
use hafog::run::runner::{End, Stop};
use hafog::sim::{Mishap, Script, SimWorld};

use super::simulated::open_world;
use super::table::{count_from, difference, forgotten};
use super::verbs::*;
use super::{Ended, command, options, starting_world};

/// What becomes of whoever takes the run up first.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Taken {
    /// They turn back.
    Back,
    /// They go on, and the first thing that they would change is refused, twice.
    OnAndRefused,
    /// They go on while nobody reaches the site that is to take over.
    OnWithoutTheNew,
    /// They go on while nobody reaches the site that is left.
    OnWithoutTheOld,
}

const ACROSS: &[Taken] = &[
    Taken::Back,
    Taken::OnAndRefused,
    Taken::OnWithoutTheNew,
    Taken::OnWithoutTheOld,
];
/// Both nodes are at one site.
const WITHIN_A_SITE: &[Taken] = &[Taken::Back, Taken::OnAndRefused];

#[derive(Clone, Copy, PartialEq)]
enum Way {
    On,
    Back,
}

/// `hafog resume` or `hafog abort`; nothing when no run is unfinished.
async fn take_up(
    sim: &SimWorld,
    stack: &Arc<Stack>,
    keys: &Arc<Keys>,
    verb: &Verb,
    way: Way,
) -> Option<Ended> {
    let options = options(verb, Duration::from_secs(60));
    let session = match open::open(open_world(sim, stack, keys), &options).await {
        Ok(session) => session,
        Err(fault) => return Some(Ended::Not(fault.to_string())),
    };
    let unfinished = session.unfinished().await;
    let (stop, silent) = (Stop::default(), Arc::new(Silent));
    let end = match (unfinished, way) {
        (Err(fault), _) => Some(Err(fault)),
        (Ok(None), _) => None,
        (Ok(Some(run)), Way::On) => Some(session.resume(&run, silent, &stop, 4).await),
        (Ok(Some(run)), Way::Back) => Some(session.abort(&run, silent, &stop).await),
    };
    let _ = session.close().await;
    Some(match end? {
        Ok((_, End::Done)) => Ended::Done,
        Ok((_, End::DoneBut(left))) => Ended::But(left.into_iter().map(|one| one.mend).collect()),
        Ok((_, end)) => Ended::Not(format!("{end:?}")),
        Err(fault) => Ended::Not(fault.to_string()),
    })
}

async fn is_unfinished(sim: &SimWorld, stack: &Arc<Stack>, keys: &Arc<Keys>) -> bool {
    let world = open_world(sim, stack, keys);
    let found = open::unfinished(&world.stores).await;
    found.expect("the stores answer").is_some()
}

/// The picture of the world, and who is said to write.
async fn picture(sim: &SimWorld, stack: &Arc<Stack>, keys: &Arc<Keys>) -> serde_json::Value {
    let mut picture = sim.snapshot();
    let world = open_world(sim, stack, keys);
    let writer = world.writer(&"main".into()).await.expect("a record");
    let roles = world.roles().await.expect("a document");
    picture["writer"] = serde_json::json!(writer.and_then(|(writer, _)| writer.node));
    picture["primary"] = serde_json::json!(roles.map(|roles| roles.primary));
    picture
}

/// Who writes, which site is primary, and where the names lead.
fn said(picture: &serde_json::Value) -> [&serde_json::Value; 3] {
    ["writer", "primary", "zones"].map(|part| &picture[part])
}

async fn cut_and_turned(name: &str, ways: &[Taken]) {
    let verb = verb(name);
    let stack = stack_of(verb);
    let folder = tempfile::tempdir().expect("a folder");
    let keys = Arc::new(Keys::open(folder.path()).expect("keys"));
    let standing = starting_world(&stack, &keys, verb).await;
    let start = picture(&standing.twin(), &stack, &keys).await;
    let uncut = standing.twin();
    let begun = uncut.changes();
    let ended = command(&uncut, &stack, &keys, verb).await;
    assert!(matches!(ended, Ended::Done), "{name}, uncut: {ended:?}");
    let end = picture(&uncut, &stack, &keys).await;
    let changes = uncut.changes() - begun;
    let (old, new) = match name {
        "rollback" => (west(), east()),
        _ => (east(), west()),
    };

    let cases = (1..=changes).flat_map(|n| ways.iter().map(move |taken| (n, *taken)));
    for (n, taken) in cases {
        let case = format!("{name}, change {n} of {changes}, {taken:?}");
        if std::env::var("HAFOG_CASE").is_ok_and(|wanted| !case.contains(&wanted)) {
            continue;
        }
        let sim = standing.twin();
        sim.script(Script::on_change(n, Mishap::CrashAfter));
        let ended = sim.until_death(command(&sim, &stack, &keys, verb)).await;
        if let Some(ended) = ended {
            // Behind its end.
            assert!(matches!(ended, Ended::Done), "{case}: {ended:?}");
            continue;
        }
        let sim = sim.restart();
        sim.advance(Duration::from_secs(31));
        sim.forget_scripts();
        let mut story = Vec::new();
        let mut mends = Vec::new();
        let mut way = Way::On;
        match taken {
            Taken::Back => way = Way::Back,
            Taken::OnAndRefused => {
                for nth in 1..=2 {
                    let refused = Script::on_change(nth, Mishap::FailBefore);
                    sim.script(refused.outside_of_stores());
                }
            }
            Taken::OnWithoutTheNew => sim.cut_off(&new),
            Taken::OnWithoutTheOld => sim.cut_off(&old),
        }
        for attempt in 0..6 {
            let ended = take_up(&sim, &stack, &keys, verb, way).await;
            if attempt == 0 {
                sim.forget_scripts();
                sim.reconnect(&old);
                sim.reconnect(&new);
                sim.advance(Duration::from_secs(5));
            }
            story.push(format!("{ended:?}"));
            if let Some(Ended::But(left)) = &ended {
                mends.clone_from(left);
            }
            // Past the point of no return there is only forward.
            if matches!(&ended, Some(Ended::Not(why)) if why.contains("past its point of no return"))
            {
                way = Way::On;
            }
            if !is_unfinished(&sim, &stack, &keys).await {
                break;
            }
        }
        assert_eq!(sim.violations(), [""; 0], "{case}: {story:#?}");
        assert_eq!(forgotten(&sim, &stack), [""; 0], "{case}: {story:#?}");
        let mended = uncut.twin();
        for mend in &mends {
            for sim in [&sim, &mended] {
                let ended = command(sim, &stack, &keys, mending(mend)).await;
                assert!(matches!(ended, Ended::Done), "{case}, {mend}: {ended:?}");
            }
        }
        // A mend may do more than what was left.
        let end = match mends[..] {
            [] => end.clone(),
            _ => picture(&mended, &stack, &keys).await,
        };
        let mut seen = picture(&sim, &stack, &keys).await;
        if seen != end {
            count_from(&start, &mut seen);
        }
        let is_open = is_unfinished(&sim, &stack, &keys).await;
        assert!(!is_open, "{case}: nobody gets to its end.\n{story:#?}");
        // A dead primary is switched on where the fence of it is taken back.
        let is_as_before = match name {
            "failover" => said(&seen) == said(&start),
            _ => seen == start,
        };
        assert!(
            is_as_before || seen == end,
            "{case}: the run is closed, and the world is as neither.\n{story:#?}\nfrom the start:\n{}\nfrom the end:\n{}",
            difference(&start, &seen),
            difference(&end, &seen)
        );
    }
}

macro_rules! turned {
    ($($test:ident: $verb:expr, $ways:expr,)*) => {$(
        #[tokio::test]
        async fn $test() {
            cut_and_turned($verb, $ways).await;
        }
    )*};
}

turned! {
    switchover_turned_anywhere_is_as_before_or_done: "switchover", ACROSS,
    rollback_turned_anywhere_is_as_before_or_done: "rollback", ACROSS,
    failover_turned_anywhere_is_as_before_or_done: "failover", ACROSS,
    switchover_within_a_site_turned_anywhere_is_as_before_or_done: "switchover, within", WITHIN_A_SITE,
}
