//! Images: published from a builder, found by their properties, and put under a server by a rebuild.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use super::api::No;
use super::{COPY_LIMIT, QUICK_LIMIT, Site, WORK_LIMIT, server};
use crate::cloud::{Image, ImageFile};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::id::{ImageName, ServerName};
use crate::shell::ssh::HostKeyPair;

/// Properties of an image.
const NAME: &str = "hafog.image";
const STACK: &str = "hafog.stack";
const SITE: &str = "hafog.site";
const TAG: &str = "hafog.tag.";

/// Of an image in one file.
const FORMAT: &str = "application/octet-stream";

/// What must not be in two machines: who it is, and who may come in.
const OWN: &[&str] = &[
    "/etc/ssh/ssh_host_ed25519_key",
    "/etc/ssh/ssh_host_ed25519_key.pub",
    "/root/.ssh/authorized_keys",
];

impl Site {
    async fn listed_images(&self) -> Result<Vec<Value>, Fault> {
        let path = "/1.0/images?recursion=1&project=default";
        let listed = self.incus.get(path).await.map_err(No::fault)?;
        let listed = listed.as_array().cloned().unwrap_or_default();
        let ours = |image: &Value| {
            let properties = &image["properties"];
            properties[STACK] == self.stack.as_str()
                && properties[SITE] == self.site.as_str()
                && properties[NAME].is_string()
        };
        Ok(listed.into_iter().filter(ours).collect())
    }

    /// A publish whose answer was lost may have been repeated: of several with one name the first listed counts.
    pub(super) async fn published(&self) -> Result<Vec<Image>, Fault> {
        let mut images: BTreeMap<String, Image> = BTreeMap::new();
        for listed in self.listed_images().await? {
            let image = describe(&listed);
            images.entry(image.name.to_string()).or_insert(image);
        }
        Ok(images.into_values().collect())
    }

    /// The fingerprint of an image of ours.
    pub(super) async fn need(&self, name: &ImageName) -> Result<String, Fault> {
        let images = self.published().await?;
        let found = images.into_iter().find(|image| &image.name == name);
        let none = || Fault::new(format!("site `{}` has no image `{name}`", self.site));
        Ok(found.ok_or_else(none)?.id)
    }

    /// The fingerprint of what builders start from: whoever runs the host has put an alias there.
    pub(super) async fn base(&self, base: &str) -> Result<String, Fault> {
        let path = format!("/1.0/images/aliases/{base}?project=default");
        let alias = self.incus.get(&path).await.map_err(No::fault);
        let alias = alias.map_err(|fault| {
            fault
                .while_doing(format!("Incus has no base image `{base}`"))
                .hint(format!(
                    "incus publish MACHINE --alias {base}: a machine with systemd, apt-get and an SSH server (docs/incus.md)"
                ))
        })?;
        Ok(alias["target"].as_str().unwrap_or_default().to_owned())
    }

    pub(super) async fn publish(
        &self,
        builder: &ServerName,
        name: &ImageName,
        tags: &BTreeMap<String, String>,
    ) -> Result<Image, Trouble> {
        let found = self.published().await.nothing_changed()?;
        if let Some(image) = found.into_iter().find(|image| &image.name == name) {
            return Ok(image);
        }
        if self.find(builder).await.nothing_changed()?.is_none() {
            let message = format!("site `{}` has no server `{builder}`", self.site);
            return Err(Trouble::NothingChanged(Fault::new(message)));
        }
        self.off(builder).await?;
        for file in OWN {
            let path = self.file_path(builder, file).nothing_changed()?;
            let removed = self.incus.delete(&path, QUICK_LIMIT).await;
            removed.map_err(No::trouble)?;
        }
        self.push(builder, "/etc/machine-id", "0444", "").await?;
        let image = json!({
            "source": { "type": "instance", "name": builder.as_str() },
            "compression_algorithm": "none",
            "properties": self.properties(name, tags),
            "public": false,
        });
        let path = self.within("/1.0/images");
        let made = self.incus.change(Method::POST, &path, &image, WORK_LIMIT);
        made.await.map_err(No::trouble)?;
        self.made(name).await
    }

    fn properties(
        &self,
        name: &ImageName,
        tags: &BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        let tags = tags.iter();
        let tags = tags.map(|(tag, value)| (format!("{TAG}{tag}"), value.clone()));
        let own = [
            (NAME.to_owned(), name.to_string()),
            (STACK.to_owned(), self.stack.to_string()),
            (SITE.to_owned(), self.site.to_string()),
        ];
        tags.chain(own).collect()
    }

    async fn made(&self, name: &ImageName) -> Result<Image, Trouble> {
        let found = self.published().await.unknown()?;
        let found = found.into_iter().find(|image| &image.name == name);
        let hidden = || Fault::unavailable(format!("image `{name}` was made and is not listed"));
        found.ok_or_else(|| Trouble::Unknown(hidden()))
    }

    pub(super) async fn export(&self, name: &ImageName) -> Result<ImageFile, Fault> {
        let fingerprint = self.need(name).await?;
        let path = format!("/1.0/images/{fingerprint}/export?project=default");
        let file = self.incus.open(&path, COPY_LIMIT).await;
        let (body, format) = file.map_err(No::fault)?;
        Ok(ImageFile { body, format })
    }

    /// What the properties say is for this site, whatever the file says in them.
    pub(super) async fn import(
        &self,
        name: &ImageName,
        tags: &BTreeMap<String, String>,
        file: ImageFile,
    ) -> Result<Image, Trouble> {
        let found = self.published().await.nothing_changed()?;
        if let Some(image) = found.into_iter().find(|image| &image.name == name) {
            return Ok(image);
        }
        let format = file.format.unwrap_or_else(|| FORMAT.to_owned());
        let headers = vec![
            ("content-type", format),
            ("x-incus-filename", format!("{name}.tar")),
            ("x-incus-properties", as_query(&self.properties(name, tags))),
        ];
        let path = "/1.0/images?project=default";
        let sent = self.incus.upload(path, headers, file.body, COPY_LIMIT);
        sent.await.map_err(No::trouble)?;
        self.made(name).await
    }

    pub(super) async fn tag_published(
        &self,
        name: &ImageName,
        tags: &BTreeMap<String, String>,
    ) -> Result<(), Trouble> {
        let fingerprint = self.need(name).await.nothing_changed()?;
        let listed = self.listed_images().await.nothing_changed()?;
        let mut listed = listed.into_iter();
        let image = listed.find(|one| one["fingerprint"] == fingerprint.as_str());
        // A change of some properties replaces all of them.
        let mut properties = image.map_or(Value::Null, |image| image["properties"].clone());
        for (tag, value) in tags {
            properties[format!("{TAG}{tag}")] = value.as_str().into();
        }
        let path = format!("/1.0/images/{fingerprint}?project=default");
        let body = json!({ "properties": properties });
        let changed = self.incus.change(Method::PATCH, &path, &body, QUICK_LIMIT);
        changed.await.map(drop).map_err(No::trouble)
    }

    /// Everything on the root disk goes, and the volume stays. It reboots.
    pub(super) async fn rebuild(
        &self,
        name: &ServerName,
        image: &ImageName,
    ) -> Result<(), Trouble> {
        let instance = self.known(name).await.nothing_changed()?;
        let fingerprint = self.need(image).await.nothing_changed()?;
        let config = &instance["config"];
        if config[server::IMAGE] == image.as_str() && !config[server::REBUILDING].is_string() {
            return Ok(());
        }
        // Whatever was on it is no longer known until all of this is done.
        self.set(name, &[(server::REBUILDING, "true")]).await?;
        let pair = HostKeyPair::make(name).await.nothing_changed()?;
        self.off(name).await?;
        self.way.ssh.hang_up(name);
        let path = self.path(name).nothing_changed()?;
        let path = path.replacen("?project=", "/rebuild?project=", 1);
        let source = json!({ "source": { "type": "image", "fingerprint": fingerprint } });
        let rebuilt = self.incus.change(Method::POST, &path, &source, WORK_LIMIT);
        rebuilt.await.map_err(No::trouble)?;
        self.equip(name, &pair.private).await?;
        self.set(name, &[(server::HOST_KEY, &pair.public)]).await?;
        self.boot(name).await?;
        let there = self.describe(&self.known(name).await.partial()?);
        if let Some(host) = &there.host {
            self.once_up(|| async { self.machine().restore(host).await })
                .await?;
        }
        // Last: until here, the same call does all of it again.
        let done = [(server::IMAGE, image.as_str()), (server::REBUILDING, "")];
        self.set(name, &done).await
    }

    pub(super) async fn unpublish(&self, name: &ImageName) -> Result<(), Trouble> {
        let servers = self.all().await.nothing_changed()?;
        if let Some(server) = servers
            .iter()
            .find(|server| server.image.as_ref() == Some(name))
        {
            let message = format!("image `{name}` is used by server `{}`", server.name);
            return Err(Trouble::NothingChanged(Fault::new(message)));
        }
        for listed in self.listed_images().await.nothing_changed()? {
            let image = describe(&listed);
            if &image.name != name {
                continue;
            }
            let path = format!("/1.0/images/{}?project=default", image.id);
            let deleted = self.incus.delete(&path, WORK_LIMIT).await;
            deleted.map_err(No::trouble)?;
        }
        Ok(())
    }
}

fn as_query(properties: &BTreeMap<String, String>) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(properties);
    query.finish()
}

fn describe(listed: &Value) -> Image {
    let properties = listed["properties"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    let tags = properties.iter().filter_map(|(key, value)| {
        Some((
            key.strip_prefix(TAG)?.to_owned(),
            value.as_str()?.to_owned(),
        ))
    });
    Image {
        name: ImageName::new(properties[NAME].as_str().unwrap_or_default()),
        id: listed["fingerprint"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        bytes: listed["size"].as_u64().unwrap_or_default(),
        tags: tags.collect(),
    }
}
