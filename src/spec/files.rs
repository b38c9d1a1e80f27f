//! Files beside the spec that a build will need. Apart from `load`, because a failover at night must not stop for a
//! template that somebody moved.

use std::path::Path;

use crate::error::{Fault, Kind};
use crate::model::stack::{CodeFrom, Stack};

/// Returns a fault for every file and code folder that is not there.
pub fn missing_files(stack: &Stack, base_dir: &Path) -> Vec<Fault> {
    let mut faults = Vec::new();
    for recipe in stack.recipes.values() {
        let files = recipe.files.iter().map(|file| {
            let what = if file.raw { "file" } else { "template" };
            (what, &file.from)
        });
        let code = recipe.code.iter().filter_map(|code| match &code.from {
            CodeFrom::Path(path) => Some(("code folder", path)),
            CodeFrom::Git { .. } => None,
        });
        for (what, path) in files.chain(code) {
            let whole = base_dir.join(path);
            let there = match what {
                "code folder" => whole.is_dir(),
                _ => whole.is_file(),
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
