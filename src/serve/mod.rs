use crate::model::units::Ttl;
pub const NEGATIVE_TTL: Ttl = Ttl(60);
