//! Names as types, so that a server's name cannot be passed where a site's is meant.

use std::fmt;
use std::str::FromStr;

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            pub fn new(text: impl Into<String>) -> $name {
                $name(text.into())
            }
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl From<&str> for $name {
            fn from(text: &str) -> $name {
                $name(text.to_owned())
            }
        }
        impl FromStr for $name {
            type Err = std::convert::Infallible;
            fn from_str(text: &str) -> Result<$name, Self::Err> {
                Ok($name(text.to_owned()))
            }
        }
    )*};
}

names! {
    /// `shop`.
    StackName
    /// `east`: the user's, never changes, says nothing about the role.
    SiteName
    /// `web`: an entry of `servers:` (or `balancer`, which hafog adds).
    GroupName
    /// `shop-east-web-1`.
    ServerName
    /// `main`: an entry of `databases:`.
    DatabaseName
    /// `uploads`: an entry of `files:`.
    FilesName
    /// `web`: an entry of `images:`, or one that hafog brings (`haproxy`, `postgres`).
    RecipeName
    /// `web-3f9c1e2a7b10`: recipe and digest.
    ImageName
    /// `shop.test`, lower case, no final dot.
    ZoneName
    /// `www.shop.test`, lower case, no final dot.
    HostName
    /// `20261121T091403-7c1e`.
    RunId
    /// `promote-standby`, or `create-server shop-west-web-1` where one plan has several.
    StepName
}
