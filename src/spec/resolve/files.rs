//! Files that follow the primary site.

use std::collections::BTreeMap;

use crate::model::id::*;
use crate::model::stack::*;
use crate::model::units;

use super::{Resolver, amount, time};
use crate::spec::spot::Spot;
use crate::spec::types::*;

impl<'a> Resolver<'a, '_> {
    pub(super) fn files(&mut self) -> Vec<Files> {
        let mut paths: Vec<(&str, &str)> = Vec::new();
        let mut all = Vec::new();
        for (name, files) in self.spec.files.iter() {
            let spot = self.root.key("files").key(&name.0);
            let on = files.on.0.as_str();
            if let Some(group) = self.group(on, spot.key("on")) {
                self.one_writer(name, files, group, spot);
            }
            if self
                .spec
                .databases
                .iter()
                .any(|(_, database)| database.on.0 == on)
            {
                let message =
                    format!("group `{on}` holds a database, which is replicated by itself");
                self.complain(spot.key("on"), message);
            }
            let path = files.path.0.trim_end_matches('/');
            let at = spot.key("path");
            let mut others = paths.iter();
            let inside =
                |one: &str, other: &str| format!("{one}/").starts_with(&format!("{other}/"));
            let other = others.find(|(other, group)| {
                *group == on && (inside(path, other) || inside(other, path))
            });
            if let Some((other, _)) = other.filter(|_| at.sound) {
                let message = format!("`{path}` and `{other}` are one inside the other");
                self.complain(at, message);
            }
            if path.is_empty() && at.sound {
                self.complain(at, "the whole server cannot be copied; name a folder");
            }
            paths.push((path, on));
            all.push(self.one_of_files(name, files, path, spot));
        }
        all
    }

    /// Files that several servers write cannot be kept in step by copying: whose would count?
    fn one_writer(&mut self, name: &Word, files: &FilesSpec, group: &GroupSpec, spot: Spot) {
        let count = self.root.key("servers").key(&files.on.0).key("count");
        if !count.sound || group.count < 2 || files.writer.is_some() {
            return;
        }
        let message = format!(
            "`{name}` is copied from one server, and group `{}` has {}",
            files.on, group.count
        );
        let hints = [
            "give what takes the files a group of its own".to_owned(),
            "or write `writer: first`, if no other server changes them".to_owned(),
        ];
        self.complain_hinted(spot.key("on"), message, hints);
    }

    fn one_of_files(&mut self, name: &Word, files: &FilesSpec, path: &str, spot: Spot) -> Files {
        let lag = spot.key("lag");
        let (lag_warn, lag_critical) = (time(&files.lag.warn), time(&files.lag.critical));
        if lag_warn > lag_critical && lag.key("warn").sound && lag.key("critical").sound {
            let message = format!("`warn` ({lag_warn}) is above `critical` ({lag_critical})");
            self.complain(lag.key("warn"), message);
        }
        let every = time(&files.every);
        if every < units::Span::secs(1) && spot.key("every").sound {
            let message = format!("files are copied every 1s at most, not {every}");
            self.complain(spot.key("every"), message);
        }
        Files {
            name: FilesName::new(&name.0),
            on: GroupName::new(&files.on.0),
            path: path.to_owned(),
            user: files.user.as_ref().map(|user| user.0.clone()),
            every,
            bandwidth: files.bandwidth.as_ref().map(amount),
            most_deleted: files.delete.into(),
            lag_warn,
            lag_critical,
        }
    }

    /// Their servers need the program that copies.
    pub(super) fn rsync(&mut self, files: &[Files], recipes: &mut BTreeMap<RecipeName, Recipe>) {
        for one in files {
            let Some(group) = self.groups.get(one.on.as_str()) else {
                continue;
            };
            let recipe = recipes.get_mut(&RecipeName::new(&group.image.0));
            let Some(recipe) = recipe.filter(|recipe| recipe.builtin.is_none()) else {
                continue;
            };
            if !recipe.packages.iter().any(|package| package == "rsync") {
                recipe.packages.push("rsync".to_owned());
            }
        }
    }
}
