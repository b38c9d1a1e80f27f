//! Images: `images/<name>/tree`, read-only, and `image.json`, which is written last: without it there is no image.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{GONE, Site, component};
use crate::cloud::Image;
use crate::durable;
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::id::{ImageName, ServerName, SiteName};

impl Site {
    fn image_folder(&self, name: &ImageName) -> Result<PathBuf, Fault> {
        Ok(self.base.join("images").join(component(name.as_str())?))
    }

    pub(super) fn image(&self, name: &ImageName) -> Result<Option<Image>, Fault> {
        let path = self.image_folder(name)?.join("image.json");
        let Some(bytes) = durable::read(&path)? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| durable::fault("understand", &path, error))
    }

    pub(super) fn images(&self) -> Result<Vec<Image>, Fault> {
        let names = durable::names(&self.base.join("images"))?;
        let images = names
            .into_iter()
            .map(|name| self.image(&ImageName::new(name)));
        images.filter_map(Result::transpose).collect()
    }

    pub(super) fn seal(
        &self,
        builder: &ServerName,
        name: &ImageName,
        tags: &BTreeMap<String, String>,
    ) -> Result<Image, Trouble> {
        let to = self.image_folder(name).nothing_changed()?;
        let from = self.server_folder(builder).nothing_changed()?.join("tree");
        let _lock = self.lock().nothing_changed()?;
        if let Some(image) = self.image(name).nothing_changed()? {
            return Ok(image);
        }
        // A seal that was cut off after its rename: that tree is whole.
        if !to.join("tree").exists() {
            if !from.is_dir() {
                let message = format!(
                    "server `{builder}` has no tree of its own to make image `{name}` from"
                );
                return Err(Trouble::NothingChanged(Fault::new(message)));
            }
            self.power_off(builder)?;
            durable::make_folders(&to, 0o755).partial()?;
            durable::sync_file_system(&from).partial()?;
            fs::rename(&from, to.join("tree"))
                .and_then(|()| durable::sync_folder(&to))
                .map_err(|error| durable::fault("seal", &from, error))
                .partial()?;
        }
        let failed = |error| durable::fault("make read-only", &to, error);
        let image = Image {
            name: name.clone(),
            id: name.to_string(),
            bytes: make_read_only(&to.join("tree")).map_err(failed).partial()?,
            tags: tags.clone(),
        };
        let bytes = serde_json::to_vec_pretty(&image).expect("an image is always JSON");
        durable::replace(&to.join("image.json"), &bytes, 0o644, None).partial()?;
        Ok(image)
    }

    pub(super) fn tag_image(
        &self,
        name: &ImageName,
        tags: &BTreeMap<String, String>,
    ) -> Result<(), Trouble> {
        let _lock = self.lock().nothing_changed()?;
        let none = || Trouble::NothingChanged(no_image(&self.site, name));
        let mut image = self.image(name).nothing_changed()?.ok_or_else(none)?;
        image.tags.extend(tags.clone());
        let path = self.image_folder(name).nothing_changed()?;
        let bytes = serde_json::to_vec_pretty(&image).expect("an image is always JSON");
        durable::replace(&path.join("image.json"), &bytes, 0o644, None).unknown()
    }

    pub(super) fn delete_image(&self, name: &ImageName) -> Result<(), Trouble> {
        let folder = self.image_folder(name).nothing_changed()?;
        if !self.base.exists() {
            return Ok(());
        }
        let _lock = self.lock().nothing_changed()?;
        let servers = self.records().nothing_changed()?;
        let user = servers
            .iter()
            .find(|server| self.image_of(&server.name).as_ref() == Some(name));
        if let Some(server) = user {
            let message = format!("image `{name}` is used by server `{}`", server.name);
            return Err(Trouble::NothingChanged(Fault::new(message)));
        }
        // In one step, so that a later seal cannot take the rest of a tree for a whole one.
        let gone = folder.with_file_name(format!("{GONE}{name}"));
        durable::remove(&gone).nothing_changed()?;
        match fs::rename(&folder, &gone) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(durable::fault("remove", &folder, error)).unknown(),
            Ok(()) => durable::remove(&gone).partial(),
        }
    }

    /// The image that a server's link leads to; `None` for a builder.
    pub(super) fn image_of(&self, server: &ServerName) -> Option<ImageName> {
        let target = fs::read_link(self.server_folder(server).ok()?.join("image")).ok()?;
        let name = target.strip_prefix("../../images").ok()?.parent()?;
        Some(ImageName::new(name.to_str()?))
    }

    pub(super) fn change_image(
        &self,
        server: &ServerName,
        image: &ImageName,
    ) -> Result<(), Trouble> {
        let _lock = self.lock().nothing_changed()?;
        self.known(server).nothing_changed()?;
        self.need_image(image).nothing_changed()?;
        let folder = self.server_folder(server).nothing_changed()?;
        link_image(&folder, Some(image)).unknown()
    }

    pub(super) fn need_image(&self, name: &ImageName) -> Result<(), Fault> {
        let none = || no_image(&self.site, name);
        self.image(name)?.map(|_| ()).ok_or_else(none)
    }
}

fn no_image(site: &SiteName, name: &ImageName) -> Fault {
    Fault::new(format!("site `{site}` has no image `{name}`")).hint("hafog build")
}

/// Points a server at an image, or at its own tree, in one step.
pub(super) fn link_image(folder: &Path, image: Option<&ImageName>) -> Result<(), Fault> {
    let target = match image {
        Some(name) => Path::new("../../images").join(name.as_str()).join("tree"),
        None => PathBuf::from("tree"),
    };
    durable::link(&target, &folder.join("image"))
}

/// Returns the size of all files.
fn make_read_only(path: &Path) -> std::io::Result<u64> {
    let meta = fs::symlink_metadata(path)?;
    if meta.is_symlink() {
        return Ok(0);
    }
    let mut bytes = 0;
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            bytes += make_read_only(&entry?.path())?;
        }
    } else {
        bytes = meta.len();
    }
    let mode = meta.permissions().mode();
    fs::set_permissions(path, Permissions::from_mode(mode & !0o222))?;
    Ok(bytes)
}
