use super::CloudAbout; pub const CLOUDS:&[&CloudAbout]=&[]; pub fn find(name:&str)->Option<&'static CloudAbout>{CLOUDS.iter().copied().find(|c|c.name==name)}
