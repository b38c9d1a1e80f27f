//! Recipes: what goes into an image. The digest over the cloud-neutral recipe, its files and its code is part of the
//! image's name: same inputs, same name, nothing to build.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use sha2::{Digest, Sha256};

use super::lock::Lock;
use super::template;
use crate::error::Fault;
use crate::model::digest::hex;
use crate::model::id::{ImageName, RecipeName};
use crate::model::stack::{Builtin, CodeFrom, Recipe, RecipeFile, SecretRef, Stack};

/// How long one repository may take where its code is needed. A git host that is silent must not hold up a command for
/// ever.
pub const GIT_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// Whoever runs hafog from a hook of git has these, and they would lead to that repository
/// (`git rev-parse --local-env-vars`).
const GIT_PLACES: [&str; 7] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_PREFIX",
];

/// Everything that is put into an image, read.
pub struct Contents {
    recipe: RecipeName,
    digest: Sha256,
    pub files: Vec<Content>,
}

impl Contents {
    /// The image that this makes, with the versions of packages that were asked for anew that often.
    pub fn image(&self, upgrades: u32) -> ImageName {
        let mut digest = self.digest.clone();
        if upgrades > 0 {
            digest.update(format!("\0upgrades {upgrades}"));
        }
        let hex = hex(&digest.finalize());
        ImageName::new(format!("{}-{}", self.recipe, &hex[..12]))
    }
}

pub struct Content {
    /// Absolute path inside the image.
    pub to: String,
    pub bytes: Vec<u8>,
    pub executable: bool,
}

/// A program that a builtin image needs on a cloud that does not install packages.
pub struct Program {
    pub name: &'static str,
    pub package: String,
    /// A shell line that succeeds when it is there.
    pub look: String,
}

/// Which versions of packages an image gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Versions {
    #[default]
    Locked,
    /// Those that there are by now.
    Upgraded,
}

/// The image that each recipe of the stack makes now. `limit` is for one repository.
pub fn names(
    stack: &Stack,
    base: &Path,
    limit: Duration,
    versions: Versions,
) -> Result<BTreeMap<RecipeName, ImageName>, Fault> {
    let lock = Lock::read(base)?;
    let recipes = stack.recipes.iter();
    let images = recipes.map(|(name, recipe)| {
        let contents = contents(stack, recipe, base, limit)?;
        let more = match versions {
            Versions::Upgraded if !packages(recipe).is_empty() => 1,
            _ => 0,
        };
        let upgrades = lock.upgrades(&stack.name, name).saturating_add(more);
        Ok((name.clone(), contents.image(upgrades)))
    });
    images.collect()
}

/// What a recipe installs on a machine.
pub fn packages(recipe: &Recipe) -> Vec<String> {
    let needed = programs(recipe).into_iter().map(|one| one.package);
    recipe.packages.iter().cloned().chain(needed).collect()
}

/// Reads the recipe's files and code. Programs that it runs are not given the stack's secrets.
pub fn contents(
    stack: &Stack,
    recipe: &Recipe,
    base: &Path,
    limit: Duration,
) -> Result<Contents, Fault> {
    let files = recipe.files.iter();
    let files = files.map(|file| one_file(stack, recipe, base, file));
    let mut files = files.collect::<Result<Vec<Content>, Fault>>()?;
    if let Some(code) = &recipe.code {
        match &code.from {
            CodeFrom::Path(folder) => folder_files(&base.join(folder), &code.to, &mut files)?,
            CodeFrom::Git { url, r#ref } => git_files(
                url,
                r#ref,
                &code.to,
                base,
                &stack.secrets,
                &mut files,
                limit,
            )?,
        }
    }
    files.sort_by(|a, b| a.to.cmp(&b.to));
    let mut digest = Sha256::new();
    digest.update(serde_json::to_vec(recipe).expect("a recipe serialises"));
    for file in &files {
        digest.update(format!(
            "\0{}\0{}\0{}\0",
            file.to,
            file.executable,
            file.bytes.len()
        ));
        digest.update(&file.bytes);
    }
    Ok(Contents {
        recipe: recipe.name.clone(),
        digest,
        files,
    })
}

fn one_file(
    stack: &Stack,
    recipe: &Recipe,
    base: &Path,
    file: &RecipeFile,
) -> Result<Content, Fault> {
    let path = base.join(&file.from);
    let bytes = std::fs::read(&path).map_err(|error| {
        let (path, name) = (path.display(), &recipe.name);
        Fault::new(format!("cannot read `{path}` of image `{name}`")).because(error)
    })?;
    let bytes = match file.raw {
        true => bytes,
        false => template::fill(stack, recipe, &path, bytes)?,
    };
    Ok(Content {
        to: file.to.clone(),
        bytes,
        executable: is_executable(&path),
    })
}

/// A fault for every file of every recipe that cannot be made.
pub fn bad_files(stack: &Stack, base: &Path) -> Vec<Fault> {
    let files = stack.recipes.values().flat_map(|recipe| {
        let files = recipe.files.iter();
        files.filter_map(|file| one_file(stack, recipe, base, file).err())
    });
    files.collect()
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|meta| meta.permissions().mode() & 0o111 != 0)
}

/// A link to a file of the folder becomes that file; any other link is a fault, because nobody else would miss it.
fn folder_files(from: &Path, to: &str, files: &mut Vec<Content>) -> Result<(), Fault> {
    let fault = |path: &Path, error: std::io::Error| {
        Fault::new(format!("cannot read `{}`", path.display())).because(error)
    };
    let mut folders: Vec<(PathBuf, String)> =
        vec![(from.to_owned(), to.trim_end_matches('/').to_owned())];
    while let Some((folder, to)) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|error| fault(&folder, error))? {
            let entry = entry.map_err(|error| fault(&folder, error))?;
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == ".git" {
                continue;
            }
            let to = format!("{to}/{name}");
            let kind = entry.file_type().map_err(|error| fault(&path, error))?;
            if kind.is_dir() {
                folders.push((path, to));
            } else if kind.is_file() || kind.is_symlink() && leads_to_file_in(from, &path)? {
                let bytes = std::fs::read(&path).map_err(|error| fault(&path, error))?;
                files.push(Content {
                    to,
                    bytes,
                    executable: is_executable(&path),
                });
            }
        }
    }
    Ok(())
}

fn leads_to_file_in(folder: &Path, link: &Path) -> Result<bool, Fault> {
    let inside =
        |target: PathBuf| Ok(target.starts_with(folder.canonicalize()?) && target.is_file());
    match link.canonicalize().and_then(inside) {
        Ok(true) => Ok(true),
        _ => {
            let message = format!(
                "`{}` is a symbolic link, and leads to no file of `{}`",
                link.display(),
                folder.display()
            );
            Err(Fault::new(message)
                .hint("make it in `run`, with `ln -s`, or take it out of the code"))
        }
    }
}

/// The tree of one commit, by the `git` program, without a work tree of ours.
fn git_files(
    url: &str,
    r#ref: &str,
    to: &str,
    base: &Path,
    secrets: &BTreeMap<String, SecretRef>,
    files: &mut Vec<Content>,
    limit: Duration,
) -> Result<(), Fault> {
    let scratch = tempfile::tempdir()
        .map_err(|error| Fault::new("cannot make a temporary folder").because(error))?;
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        for secret in secrets.values() {
            if let SecretRef::Env(variable) = secret {
                command.env_remove(variable);
            }
        }
        for variable in GIT_PLACES {
            command.env_remove(variable);
        }
        command
            .args(arguments)
            .current_dir(base)
            .env("GIT_TERMINAL_PROMPT", "0");
        let cannot = || {
            let fault = Fault::unavailable(format!("cannot get `{}` of {url}", r#ref));
            let is_short = r#ref.len() < 40 && r#ref.bytes().all(|byte| byte.is_ascii_hexdigit());
            match is_short {
                true => fault.hint("a commit is written with all its 40 digits"),
                false => fault,
            }
        };
        let Some((status, said)) = run_within(&mut command, scratch.path(), limit)? else {
            return Err(cannot().because(format!("not done within {} s", limit.as_secs_f64())));
        };
        match status.success() {
            true => Ok(()),
            false => Err(cannot().because(said.trim())),
        }
    };
    let folder = scratch.path().join("code");
    let tree = format!("--work-tree={}", folder.display());
    let store = format!("--git-dir={}", folder.join(".git").display());
    git(&["init", "--quiet", &folder.to_string_lossy()])?;
    // Not a clone: that knows branches and tags alone.
    git(&[&store, "fetch", "--quiet", "--depth", "1", "--", url, r#ref])?;
    git(&[
        &store,
        &tree,
        "checkout",
        "--quiet",
        "--detach",
        "FETCH_HEAD",
    ])?;
    folder_files(&folder, to, files)
}

/// Runs `git` and what it starts, and ends all of it at the limit. `None` when it was not done by then.
fn run_within(
    command: &mut Command,
    scratch: &Path,
    limit: Duration,
) -> Result<Option<(ExitStatus, String)>, Fault> {
    let cannot = |error: std::io::Error| Fault::new("cannot run `git`").because(error);
    let said = scratch.join("stderr");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&said).map_err(cannot)?)
        .process_group(0)
        .spawn()
        .map_err(|error| cannot(error).hint("apt-get install git"))?;
    let give_up = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().map_err(cannot)? {
            let said = std::fs::read(&said).unwrap_or_default();
            return Ok(Some((status, String::from_utf8_lossy(&said).into_owned())));
        }
        if Instant::now() >= give_up {
            // Its helpers hold the connection: the whole group goes.
            let group = Pid::from_raw(child.id().cast_signed());
            let _ = nix::sys::signal::killpg(group, Signal::SIGKILL);
            let _ = child.wait();
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

/// The programs that a builtin recipe needs.
pub fn programs(recipe: &Recipe) -> Vec<Program> {
    match &recipe.builtin {
        Some(Builtin::Haproxy) => vec![daemon("haproxy", "haproxy")],
        Some(Builtin::Varnish) => vec![daemon("varnishd", "varnish"), daemon("haproxy", "haproxy")],
        Some(Builtin::Postgres { major }) => {
            let version = major.map_or_else(|| "*".to_owned(), |major| major.to_string());
            let package = match major {
                Some(major) => format!("postgresql-{major}"),
                None => "postgresql".to_owned(),
            };
            let look = format!("ls /usr/lib/postgresql/{version}/bin/initdb || command -v initdb");
            vec![Program {
                name: "postgresql",
                package,
                look,
            }]
        }
        None => Vec::new(),
    }
}

fn daemon(name: &'static str, package: &str) -> Program {
    Program {
        name,
        package: package.to_owned(),
        look: format!("PATH=\"$PATH:/usr/sbin:/usr/local/sbin\" command -v {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_that_of_a_branch_a_tag_or_a_commit() {
        let folder = tempfile::tempdir().unwrap();
        let git = |words: &str| {
            let mut command = Command::new("git");
            command.args(["-c", "user.name=a", "-c", "user.email=a@b.test"]);
            let ran = command
                .args(words.split(' '))
                .current_dir(folder.path().join("repo"))
                .output();
            let ran = ran.unwrap();
            assert!(ran.status.success(), "{ran:?}");
            String::from_utf8(ran.stdout).unwrap().trim().to_owned()
        };
        std::fs::create_dir(folder.path().join("repo")).unwrap();
        git("init --quiet --initial-branch main .");
        let release = |text: &str| {
            std::fs::write(folder.path().join("repo/release"), text).unwrap();
            git("add release");
            git("commit --quiet -m release");
            git("rev-parse HEAD")
        };
        let first = release("1");
        git("tag -a v1 -m v1");
        release("2");
        git("branch old v1");
        release("3");
        let found = |r#ref: &str| {
            let (secrets, mut files) = (BTreeMap::new(), Vec::new());
            let here = folder.path();
            git_files(
                "./repo", r#ref, "/app", here, &secrets, &mut files, GIT_LIMIT,
            )?;
            let names: Vec<&str> = files.iter().map(|file| file.to.as_str()).collect();
            assert_eq!(names, ["/app/release"]);
            Ok::<_, Fault>(String::from_utf8(files[0].bytes.clone()).unwrap())
        };
        for (r#ref, text) in [("main", "3"), ("v1", "1"), ("old", "1"), (&*first, "1")] {
            assert_eq!(found(r#ref).unwrap(), text, "{}", r#ref);
        }
        let fault = found(&first[..9]).unwrap_err();
        assert!(fault.hints()[0].contains("40 digits"), "{fault}");
        assert!(found("nothing").is_err());
    }

    #[test]
    fn links_become_what_they_lead_to_or_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let (code, link) = (folder.path(), std::os::unix::fs::symlink::<&str, PathBuf>);
        std::fs::create_dir(code.join("bin")).unwrap();
        std::fs::write(code.join("bin/run"), "run").unwrap();
        link("bin/run", code.join("start")).unwrap();
        let found = || {
            let mut files = Vec::new();
            folder_files(code, "/app", &mut files)?;
            files.sort_by(|a, b| a.to.cmp(&b.to));
            let files = files.into_iter();
            let files = files.map(|file| (file.to, String::from_utf8(file.bytes).unwrap()));
            Ok::<_, Fault>(files.collect::<Vec<_>>())
        };
        let both = ["/app/bin/run", "/app/start"].map(|to| (to.to_owned(), "run".to_owned()));
        assert_eq!(found().unwrap(), both);
        for target in ["/etc/passwd", "bin", "nowhere"] {
            link(target, code.join("odd")).unwrap();
            let fault = found().unwrap_err().to_string();
            assert!(fault.contains("odd` is a symbolic link"), "{fault}");
            std::fs::remove_file(code.join("odd")).unwrap();
        }
    }

    #[test]
    fn a_git_host_that_never_answers_is_given_up() {
        // It is in the backlog and nobody accepts it: connected, and silent.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("git://{}/x", silent.local_addr().unwrap());
        let limit = Duration::from_millis(300);
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let (secrets, mut files) = (BTreeMap::new(), Vec::new());
            let here = Path::new("/");
            let got = git_files(&url, "main", "/app", here, &secrets, &mut files, limit);
            tell.send(got).unwrap();
        });
        let got = told.recv_timeout(Duration::from_secs(30));
        drop(silent);
        let fault = got.expect("it waits without a limit").unwrap_err();
        let text = format!("{fault}");
        assert!(text.contains("not done within 0.3 s"), "{text}");
    }
}
