//! Images: what goes into one, and the templates that are rendered for it and for a server. Baking is steps.

pub mod lock;
pub mod recipe;
pub mod render;
pub mod sbom;
pub mod shelf;
pub mod template;
