// STUB(lead): db::postgres is merged later.

use std::sync::Arc;

use super::{Engine, EngineAbout};
use crate::sim::{SimWorld, stacks};

pub const ABOUT: EngineAbout = EngineAbout {
    name: "postgres",
    about: "PostgreSQL",
    port: 5432,
    open,
};

fn open() -> Arc<dyn Engine> {
    SimWorld::new(jiff::Timestamp::now(), &stacks::small()).engine("postgres")
}
