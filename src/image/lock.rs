//! `hafog.lock`, beside the spec: the versions of the packages that recipes got, so that every cloud gets the same. It
//! is for version control, like the spec.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::durable;
use crate::error::Fault;
use crate::model::digest::sha256;
use crate::model::id::{RecipeName, StackName};
use crate::model::stack::Recipe;

pub const FILE: &str = "hafog.lock";
const HEAD: &str = "# The versions of packages, by hafog. Keep this file with the spec. `hafog build --upgrade` asks for them anew.\n";
const MODE: u32 = 0o644;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    #[serde(default)]
    stacks: BTreeMap<StackName, BTreeMap<RecipeName, Locked>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locked {
    /// How often versions were asked for anew. It is part of the image's digest.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub upgrades: u32,
    /// Digest of what was asked for: versions are of this and of nothing else.
    of: String,
    /// Everything that was installed for it, what it depends on too.
    packages: BTreeMap<String, String>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What a recipe asks for.
fn asked(recipe: &Recipe, packages: &[String]) -> String {
    sha256(format!("{}\n{}", recipe.base, packages.join("\n")).as_bytes())[..16].to_owned()
}

impl Locked {
    pub fn new(
        upgrades: u32,
        recipe: &Recipe,
        packages: &[String],
        got: BTreeMap<String, String>,
    ) -> Locked {
        Locked {
            upgrades,
            of: asked(recipe, packages),
            packages: got,
        }
    }

    /// The versions, where they are of these packages on this base.
    pub fn versions(
        &self,
        recipe: &Recipe,
        packages: &[String],
    ) -> Option<&BTreeMap<String, String>> {
        (self.of == asked(recipe, packages)).then_some(&self.packages)
    }
}

impl Lock {
    pub fn path(base: &Path) -> PathBuf {
        base.join(FILE)
    }

    /// None yet is an empty one.
    pub fn read(base: &Path) -> Result<Lock, Fault> {
        let path = Lock::path(base);
        let Some(bytes) = durable::read(&path)? else {
            return Ok(Lock::default());
        };
        let read = serde_yaml::from_slice(&bytes);
        read.map_err(|error| {
            durable::fault("understand", &path, error).hint(format!("git checkout {FILE}"))
        })
    }

    pub fn find(&self, stack: &StackName, recipe: &RecipeName) -> Option<&Locked> {
        self.stacks.get(stack)?.get(recipe)
    }

    pub fn upgrades(&self, stack: &StackName, recipe: &RecipeName) -> u32 {
        self.find(stack, recipe).map_or(0, |locked| locked.upgrades)
    }

    fn set(&mut self, stack: &StackName, recipe: &RecipeName, locked: Locked) {
        let recipes = self.stacks.entry(stack.clone()).or_default();
        recipes.insert(recipe.clone(), locked);
    }

    /// Adds to what is in the file by then: it may be of several stacks, each with its own run.
    pub fn put(
        base: &Path,
        home: &Path,
        stack: &StackName,
        recipe: &RecipeName,
        locked: Locked,
    ) -> Result<(), Fault> {
        let _alone = durable::lock_in(home, ".packages-lock", Duration::from_secs(10))?;
        let mut lock = Lock::read(base)?;
        lock.set(stack, recipe, locked);
        lock.write(base)
    }

    fn write(&self, base: &Path) -> Result<(), Fault> {
        let path = Lock::path(base);
        let text = serde_yaml::to_string(self);
        let text = text.map_err(|error| durable::fault("write", &path, error))?;
        durable::replace(&path, format!("{HEAD}{text}").as_bytes(), MODE, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(base: &str) -> Recipe {
        Recipe {
            name: RecipeName::from("web"),
            base: base.to_owned(),
            packages: Vec::new(),
            code: None,
            files: Vec::new(),
            run: Vec::new(),
            services: Vec::new(),
            cron: Vec::new(),
            users: Vec::new(),
            sysctl: Vec::new(),
            check: None,
            builtin: None,
        }
    }

    #[test]
    fn versions_hold_for_what_was_asked_and_survive_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let (stack, name) = (StackName::from("shop"), RecipeName::from("web"));
        let twelve = recipe("debian-12");
        let curl = ["curl".to_owned()];
        let got = BTreeMap::from([("curl".to_owned(), "7.88.1-10+deb12u12".to_owned())]);
        let lock = Lock::read(folder.path()).unwrap();
        assert_eq!(lock.upgrades(&stack, &name), 0);
        let put = |stack: &str| {
            let locked = Locked::new(2, &twelve, &curl, got.clone());
            let (base, home) = (folder.path(), folder.path().join(".hafog"));
            Lock::put(base, &home, &StackName::from(stack), &name, locked).unwrap();
        };
        put("shop");
        put("another");
        let read = Lock::read(folder.path()).unwrap();
        assert_eq!(read.upgrades(&stack, &name), 2);
        let locked = read.find(&stack, &name).unwrap();
        assert_eq!(locked.versions(&twelve, &curl), Some(&got));
        assert_eq!(locked.versions(&recipe("debian-13"), &curl), None);
        let more = ["curl".to_owned(), "git".to_owned()];
        assert_eq!(locked.versions(&twelve, &more), None);
    }

    #[test]
    fn what_is_no_lock_is_said_with_a_way_out() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(Lock::path(folder.path()), "<<<<<<< ours\n").unwrap();
        let fault = Lock::read(folder.path()).unwrap_err();
        assert!(fault.message().contains("hafog.lock"), "{fault}");
        assert_eq!(fault.hints().len(), 1);
    }
}
