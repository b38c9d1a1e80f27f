//! What is in an image, as CycloneDX 1.5 (<https://cyclonedx.org/docs/1.5/json/>). The same contents give the same text.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::model::id::ImageName;

/// A package of the operating system.
#[derive(Clone, Debug, PartialEq)]
pub struct Package {
    pub name: String,
    pub version: String,
    pub architecture: String,
}

/// The operating system, as os-release(5) says it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct System {
    pub id: String,
    pub version: String,
}

/// Prints both: the system in the first line, a package in each of the others.
pub const ASK: &str = r#". /etc/os-release; echo "$ID ${VERSION_ID:-}"
dpkg-query -W -f '${db:Status-Abbrev}|${Package}|${Version}|${Architecture}\n' | sed -n 's/^ii *|//p'"#;

/// What [`ASK`] printed.
pub fn read(text: &str) -> Option<(System, Vec<Package>)> {
    let mut lines = text.lines();
    let (id, version) = lines.next()?.split_once(' ')?;
    let system = System {
        id: id.to_owned(),
        version: version.to_owned(),
    };
    let packages = lines.map(|line| {
        let mut parts = line.split('|').map(str::to_owned);
        Some(Package {
            name: parts.next()?,
            version: parts.next()?,
            architecture: parts.next()?,
        })
    });
    Some((system, packages.collect::<Option<_>>()?))
}

/// <https://github.com/package-url/purl-spec>, type `deb`.
fn purl(system: &System, package: &Package) -> String {
    let Package {
        name,
        version,
        architecture,
    } = package;
    let version = version.replace('%', "%25").replace('+', "%2B");
    let version = version.replace(':', "%3A");
    let name = name.replace('+', "%2B");
    let System { id, version: of } = system;
    format!("pkg:deb/{id}/{name}@{version}?arch={architecture}&distro={id}-{of}")
}

pub fn cyclonedx(image: &ImageName, system: &System, packages: &[Package]) -> Vec<u8> {
    let component = |package: &Package| -> Value {
        let purl = purl(system, package);
        json!({
            "type": "library",
            "bom-ref": purl,
            "name": package.name,
            "version": package.version,
            "purl": purl,
        })
    };
    let operating = json!({
        "type": "operating-system",
        "name": system.id,
        "version": system.version,
    });
    let components: Vec<Value> = [operating]
        .into_iter()
        .chain(packages.iter().map(component))
        .collect();
    let bom = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": { "type": "container", "name": image.as_str() },
            "tools": { "components": [{ "type": "application", "name": "hafog", "version": env!("CARGO_PKG_VERSION") }] },
        },
        "components": components,
    });
    let mut text = serde_json::to_vec_pretty(&bom).expect("a value is always JSON");
    text.push(b'\n');
    text
}

/// What an image consists of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Contents {
    /// Such as `debian 12`.
    pub system: String,
    /// Names and versions.
    pub packages: BTreeMap<String, String>,
}

/// What [`cyclonedx`] has written.
pub fn contents(bytes: &[u8]) -> Option<Contents> {
    let bom: Value = serde_json::from_slice(bytes).ok()?;
    let (mut system, mut packages) = (None, BTreeMap::new());
    for component in bom["components"].as_array()? {
        let text = |key: &str| Some(component[key].as_str()?.to_owned());
        match component["type"].as_str()? {
            "operating-system" => system = Some(format!("{} {}", text("name")?, text("version")?)),
            _ => drop(packages.insert(text("name")?, text("version")?)),
        }
    }
    Some(Contents {
        system: system?,
        packages,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_named_as_the_field_names_them() {
        let said = "debian 12\nlibstdc++6|12.2.0-14+deb12u1|amd64\ntzdata|1:2024b-0|all\n";
        let (system, packages) = read(said).unwrap();
        let bom = cyclonedx(&ImageName::from("web-1"), &system, &packages);
        let bom: Value = serde_json::from_slice(&bom).unwrap();
        let purls: Vec<&str> = bom["components"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|one| one["purl"].as_str())
            .collect();
        assert_eq!(
            purls,
            [
                "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?arch=amd64&distro=debian-12",
                "pkg:deb/debian/tzdata@1%3A2024b-0?arch=all&distro=debian-12",
            ]
        );
        assert_eq!(bom["components"][0]["type"], "operating-system");
        let contents = contents(&serde_json::to_vec(&bom).unwrap()).unwrap();
        assert_eq!(contents.system, "debian 12");
        let versions = [("libstdc++6", "12.2.0-14+deb12u1"), ("tzdata", "1:2024b-0")];
        let versions = versions.map(|(name, version)| (name.to_owned(), version.to_owned()));
        assert_eq!(contents.packages, BTreeMap::from(versions));
        assert_eq!(read("debian 12\nnonsense\n"), None);
    }
}
