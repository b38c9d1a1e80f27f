// STUB(lead): agent is merged later.

use std::path::Path;

use crate::error::Fault;

pub async fn run(config: &Path) -> Result<(), Fault> {
    Err(Fault::new(format!(
        "no agent in this build for `{}`",
        config.display()
    )))
}
