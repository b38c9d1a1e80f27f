//! Files beside the spec that a build will need. Apart from `load`, because a failover at night must not stop for a
//! template that somebody moved.

use std::path::Path;

use crate::error::{Fault, Kind};
use crate::model::stack::{CodeFrom, Stack};

/// Returns a fault for every template and code folder that is not there.
pub fn missing_files(stack: &Stack, base_dir: &Path) -> Vec<Fault> {
    let mut faults = Vec::new();
    for recipe in stack.recipes.values() {
        let templates = recipe.files.iter().map(|file| ("template", &file.template));
        let code = recipe.code.iter().filter_map(|code| match &code.from {
            CodeFrom::Path(path) => Some(("code folder", path)),
            CodeFrom::Git { .. } => None,
        });
        for (what, path) in templates.chain(code) {
            let whole = base_dir.join(path);
            let there = if what == "template" {
                whole.is_file()
            } else {
                whole.is_dir()
            };
            if !there {
                let message = format!(
                    "the image `{}` needs the {what} `{}`, which is not there",
                    recipe.name,
                    whole.display()
                );
                faults.push(Fault::of(Kind::Spec, message));
            }
        }
    }
    faults
}
