// STUB(lead): image is merged later. The name does not depend on what is in the files.

pub mod recipe {
    use std::collections::BTreeMap;
    use std::path::Path;

    use sha2::{Digest, Sha256};

    use crate::error::Fault;
    use crate::model::id::{ImageName, RecipeName};
    use crate::model::stack::Stack;

    pub fn names(stack: &Stack, _base: &Path) -> Result<BTreeMap<RecipeName, ImageName>, Fault> {
        let name = |name: &RecipeName| {
            let recipe = serde_json::to_vec(&stack.recipes[name]).expect("a recipe serialises");
            let digest = crate::plan::hex(&Sha256::digest(recipe)[..6]);
            ImageName::new(format!("{name}-{digest}"))
        };
        Ok(stack
            .recipes
            .keys()
            .map(|recipe| (recipe.clone(), name(recipe)))
            .collect())
    }
}
