//! A machine with systemd, seen through a wire that runs one command at a time as root.
//!
//! A command is a transient unit, so that all that it started ends with it. A service is a unit `hafog-NAME`, whose
//! file lies with the server's own files and so survives a change of image.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::tunnel::Stream;
use super::{
    Command, File, Host, Ran, ReloadSignal, Service, ServiceChange, ServiceState, Shell,
    StopSignal, straight,
};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::posix::quoted;

/// What a command said, as bytes.
pub struct Output {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Output {
    /// Its complaints, on one line.
    pub fn said(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr);
        text.trim().replace('\n', "; ")
    }
}

#[async_trait]
pub trait Wire: Send + Sync {
    /// Runs a program with its arguments and input. It may go on when the limit is over.
    async fn exec(
        &self,
        on: &Host,
        argv: &[String],
        input: Vec<u8>,
        limit: Duration,
    ) -> Result<Output, Trouble>;

    /// A connection to a port of the server's own address.
    async fn dial(&self, on: &Host, port: u16) -> io::Result<Stream> {
        straight(on, port).await
    }

    /// Whether the server's image is sealed: then nothing is written into it.
    fn is_sealed(&self, _: &Host) -> bool {
        false
    }
}

/// For what the machine answers at once.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// How much longer than its own limit a command's wire is waited for.
const WIRE: Duration = Duration::from_secs(5);
/// How much of each output of a command is kept.
const OUTPUT_MOST: usize = 1 << 20;
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// How long a command of `before` may run.
const BEFORE_LIMIT: Duration = Duration::from_secs(60);

/// Folders of a machine that no image keeps.
const PASSING: &[&str] = &["/tmp", "/run", "/proc", "/sys", "/dev"];

pub struct Systemd<W> {
    pub wire: Arc<W>,
}

/// The user that databases and commands without rights run as, as shell words.
const SERVICE_USER: &str = "$(id -un postgres 2>/dev/null || echo nobody)";

/// `$1` is the limit in seconds, `$2` the unit, `$3` the folder, `$4` whether it runs as the service user. The rest is
/// the command; its environment comes as shell words on standard input, because everybody can read a command line.
/// The description would be the whole command line: a script's lines would be lines of the unit's file.
const RUN: &str = r#"
limit=$1 unit=$2 folder=$3 as=$4; shift 4
command -v "$1" >/dev/null 2>&1 || { echo 'hafog: there is no such program' >&2; exit 127; }
user=root; [ "$as" = user ] && user=USER
exec systemd-run --quiet --pipe --wait --collect --unit="$unit" --description="hafog: $1" --service-type=exec --uid="$user" \
  --property=RuntimeMaxSec="$limit" --property=TimeoutStopSec=1 --working-directory="$folder" \
  -- /bin/sh -c 'eval "$(cat)"; exec "$@" </dev/null' sh "$@""#;

/// A word of a command line that systemd would otherwise put variables into, systemd.service(5).
fn literal(word: &str) -> String {
    word.replace('$', "$$")
}

const NO_PROGRAM: &[u8] = b"hafog: there is no such program\n";

/// `$1` is for configuration, `$2` for data, which is the service user's, `$3` for logs: systemd opens those as root, so
/// nobody else may put a link there.
const PREPARE: &str = r#"
for folder in "$@"; do mkdir -p "$folder" || exit 1; done
chown USER: "$2" && chown root: "$3""#;

const PUT: &str = r#"
set -e
path=$1 mode=$2 owner=$3; folder=$(dirname "$path")
if [ "$owner" = user ]; then
  owner=USER; made=
  while [ ! -d "$folder" ]; do made="$folder $made"; folder=$(dirname "$folder"); done
  for one in $made; do mkdir "$one"; chown "$owner:" "$one"; done
else owner=root; mkdir -p "$folder"; fi
folder=$(dirname "$path"); new=$(mktemp "$folder/.hafog-XXXXXX")
trap 'rm -f "$new"' EXIT
cat > "$new"; chmod "$mode" "$new"; chown "$owner:" "$new"; sync "$new"; mv -T "$new" "$path"; sync "$folder""#;

const GET: &str = r#"[ -e "$1" ] || exit 44; cat "$1""#;

/// Where a path really is, links resolved, without its last part.
const PARENT: &str = r#"readlink -m "$(dirname "$1")""#;

/// How big a log may become, and how much of its end is left then.
const LOG_MOST: u64 = 64 << 20;
const LOG_KEPT: u64 = 16 << 20;

/// The units that keep logs small, without their endings. No service: those are called `hafog-NAME`.
const LOGS: &str = "logs-of-hafog";

/// Cuts the logs in the folder `$1` that have more than `$2` bytes down to their last `$3`. Services append, so they go on
/// behind what is left; a line that is written at that very moment may be lost. Where there is no room for the end, it
/// goes too: a full disk is worse.
const CUT: &str = r#"
for log in "$1"/*.log; do
  [ -f "$log" ] && [ ! -L "$log" ] && [ "$(stat -c %s "$log")" -gt "$2" ] || continue
  end=$(mktemp) && tail -c "$3" "$log" >"$end"
  : >"$log"
  [ -z "$end" ] || { cat "$end" >>"$log"; rm -f "$end"; }
done"#;

/// What cuts the logs, and when. A timer rather than logrotate or cron, which a machine need not have; and not the journal,
/// which a change of image would take away with the machine's disk.
fn log_units(on: &Host) -> (String, String) {
    let about = "[Unit]\nDescription=hafog: keeps logs small\n";
    let (most, kept) = (LOG_MOST.to_string(), LOG_KEPT.to_string());
    let argv = script(CUT, &[&on.dirs.log, &most, &kept]);
    let service = format!(
        "{about}\n[Service]\nType=oneshot\nExecStart={}\n",
        line(&argv)
    );
    let timer =
        format!("{about}\n[Timer]\nOnCalendar=*:0/5\n\n[Install]\nWantedBy=timers.target\n");
    (service, timer)
}

/// A shell script as a command line; its first argument is `$1`, and `USER` in it is the service user.
pub fn script(text: &str, arguments: &[&str]) -> Vec<String> {
    let text = text.replace("USER", SERVICE_USER);
    let head = ["/bin/sh".to_owned(), "-c".to_owned(), text, "sh".to_owned()];
    let arguments = arguments.iter().map(|one| (*one).to_owned());
    head.into_iter().chain(arguments).collect()
}

fn next_unit() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = jiff::Timestamp::now().as_microsecond();
    format!("hafog-run-{now}-{}-{count}.service", std::process::id())
}

fn text_from(bytes: &[u8]) -> String {
    let end = bytes.len().min(OUTPUT_MOST);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

impl<W: Wire + 'static> Systemd<W> {
    pub fn new(wire: Arc<W>) -> Systemd<W> {
        Systemd { wire }
    }

    async fn exec(&self, on: &Host, text: &str, arguments: &[&str]) -> Result<Output, Trouble> {
        let argv = script(text, arguments);
        self.wire.exec(on, &argv, Vec::new(), ANSWER_LIMIT).await
    }

    /// Starts again, after a change of image, what a boot starts.
    pub async fn restore(&self, on: &Host) -> Result<(), Trouble> {
        const RESTORE: &str = r#"
for unit in "$1"/hafog-*.service; do
  [ -e "$unit" ] || continue
  systemctl link --quiet "$unit" || exit 1
  grep -q '^WantedBy' "$unit" || continue
  systemctl enable --quiet "$unit" && systemctl start --no-block "$(basename "$unit")" || exit 1
done
[ -e "$1/$2.timer" ] || exit 0
systemctl link --quiet "$1/$2.service" && systemctl enable --quiet "$1/$2.timer" && systemctl start --no-block "$2.timer""#;
        let done = self.exec(on, RESTORE, &[&units(on), LOGS]).await?;
        match done.code {
            0 => Ok(()),
            _ => {
                let message = format!("cannot start the services of `{}` again", on.name);
                Err(Trouble::Partial(Fault::new(message).because(done.said())))
            }
        }
    }

    /// Refuses what is outside of the server's own folders, also behind a link.
    async fn belongs(&self, on: &Host, path: &str, write: bool) -> Result<(), Fault> {
        let outside = || {
            Fault::new(format!(
                "`{path}` is outside of the folders of server `{}`",
                on.name
            ))
        };
        let own = [&on.dirs.etc, &on.dirs.data, &on.dirs.log];
        if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
            return Err(outside());
        }
        let real = self.exec(on, PARENT, &[path]).await;
        let real = real.map_err(|trouble| trouble.fault().clone())?;
        let real = String::from_utf8_lossy(&real.stdout).trim().to_owned();
        let below = |folder: &str| {
            let rest = real.strip_prefix(folder);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if own.iter().any(|folder| below(folder)) {
            return Ok(());
        }
        let is_image = !PASSING.iter().any(|folder| below(folder))
            && below(on.dirs.image.as_str())
            && !own.iter().any(|folder| folder.as_str() == path)
            && !path.starts_with(super::ssh::SERVER_DIRS);
        match (is_image && write, self.wire.is_sealed(on)) {
            (true, false) => Ok(()),
            (true, true) => {
                let name = &on.name;
                Err(Fault::new(format!(
                    "the image of server `{name}` is sealed"
                )))
            }
            (false, _) => Err(outside()),
        }
    }

    async fn systemctl(
        &self,
        on: &Host,
        arguments: &[&str],
        limit: Duration,
    ) -> Result<Output, Trouble> {
        let mut argv = vec!["systemctl".to_owned()];
        argv.extend(arguments.iter().map(|one| (*one).to_owned()));
        self.wire.exec(on, &argv, Vec::new(), limit).await
    }

    async fn state(&self, on: &Host, name: &str) -> Result<Option<ServiceState>, Fault> {
        let states = self.services(on).await?;
        Ok(states.into_iter().find(|state| state.name == name))
    }

    async fn install(&self, on: &Host, name: &str, service: &Service) -> Result<(), Trouble> {
        let unit = unit_of(name);
        let path = format!("{}/{unit}", units(on));
        let file = File {
            path: path.clone(),
            bytes: text_of(on, service).into_bytes(),
            mode: 0o600,
            for_service_user: false,
        };
        self.put(on, &file).await?;
        const INSTALL: &str = r#"
sed -i "s/^User=SERVICE$/User=USER/" "$1"
logs=$(dirname "$1")/$3
printf %s "$4" >"$logs.new" && mv -T "$logs.new" "$logs.service" || exit 1
printf %s "$5" >"$logs.new" && mv -T "$logs.new" "$logs.timer" || exit 1
systemctl daemon-reload && systemctl link --quiet "$1" && if [ "$2" = boot ]; then systemctl enable --quiet "$1"; fi &&
systemctl link --quiet "$logs.service" && systemctl enable --quiet --now "$logs.timer""#;
        let boot = if service.at_boot { "boot" } else { "hand" };
        let (cut, when) = log_units(on);
        let arguments = [&path, boot, LOGS, &cut, &when];
        let done = self.exec(on, INSTALL, &arguments).await?;
        self.accept(on, name, "cannot be installed", &done)
    }

    fn accept(&self, on: &Host, name: &str, what: &str, done: &Output) -> Result<(), Trouble> {
        match done.code {
            0 => Ok(()),
            _ => {
                let message = format!("service `{name}` on `{}` {what}", on.name);
                Err(Trouble::Partial(Fault::new(message).because(done.said())))
            }
        }
    }

    async fn start(
        &self,
        on: &Host,
        name: &str,
        verb: &str,
        limit: Duration,
    ) -> Result<(), Trouble> {
        let unit = unit_of(name);
        let done = self.systemctl(on, &[verb, &unit], limit).await?;
        if done.code == 0 {
            return Ok(());
        }
        let state = self.state(on, name).await.partial()?;
        let why = state.and_then(|state| state.trouble);
        let why = why.unwrap_or_else(|| done.said());
        let message = format!("service `{name}` did not start: {why}");
        Err(Trouble::Partial(Fault::new(message)))
    }

    async fn stop(
        &self,
        on: &Host,
        name: &str,
        signal: Option<StopSignal>,
        limit: Duration,
    ) -> Result<(), Trouble> {
        // A machine that was made anew around an old disk has no such unit, so nothing of it runs.
        const STOP: &str = r#"
if [ "$(systemctl show -p LoadState "$1")" = LoadState=not-found ] \
  && [ "$(systemctl show -p ActiveState "$1")" = ActiveState=inactive ]; then exit 0; fi
drop=/run/systemd/system/$1.d
if [ -n "$2" ]; then
  mkdir -p "$drop" && printf '[Service]\nKillSignal=%s\n' "$2" > "$drop/stop.conf" && systemctl daemon-reload || exit 1
fi
systemctl stop "$1"; code=$?
if [ -n "$2" ]; then rm -rf "$drop"; systemctl daemon-reload; fi
systemctl reset-failed "$1" 2>/dev/null
exit $code"#;
        let unit = unit_of(name);
        let signal = signal.map_or("", signal_name);
        let argv = script(STOP, &[&unit, signal]);
        let done = self.wire.exec(on, &argv, Vec::new(), limit).await?;
        self.accept(on, name, "could not be stopped", &done)
    }

    async fn forget(&self, on: &Host, name: &str, limit: Duration) -> Result<(), Trouble> {
        const FORGET: &str = r#"
systemctl stop "$1"; systemctl disable --quiet "$1"; rm -f "$2/$1" && systemctl daemon-reload
systemctl reset-failed "$1" 2>/dev/null; [ ! -e "$2/$1" ]"#;
        let argv = script(FORGET, &[&unit_of(name), &units(on)]);
        let done = self.wire.exec(on, &argv, Vec::new(), limit).await?;
        self.accept(on, name, "could not be removed", &done)
    }
}

fn units(on: &Host) -> String {
    format!("{}/units", on.dirs.etc)
}

fn unit_of(name: &str) -> String {
    format!("hafog-{name}.service")
}

fn signal_name(signal: StopSignal) -> &'static str {
    match signal {
        StopSignal::Term => "SIGTERM",
        StopSignal::Int => "SIGINT",
        StopSignal::Quit => "SIGQUIT",
        StopSignal::Usr1 => "SIGUSR1",
    }
}

/// One argument in a unit file, systemd.syntax(7).
fn word(text: &str) -> String {
    let text = text.replace('\\', r"\\").replace('"', "\\\"");
    format!("\"{}\"", text.replace('%', "%%").replace('\n', r"\n"))
}

/// Without expansion of variables: what is written is what runs.
fn line(argv: &[String]) -> String {
    let words: Vec<String> = argv.iter().skip(1).map(|one| word(one)).collect();
    format!(":{} {}", argv[0].replace('%', "%%"), words.join(" "))
}

/// The unit file, systemd.service(5).
fn text_of(on: &Host, service: &Service) -> String {
    let mut text = format!(
        "[Unit]\nDescription=hafog: {}\nAfter=network-online.target\nStartLimitIntervalSec=0\n\n[Service]\nType=exec\n",
        service.name
    );
    let mut set = |key: &str, value: String| text.push_str(&format!("{key}={value}\n"));
    for argv in &service.before {
        set("ExecStartPre", line(argv));
    }
    set("ExecStart", line(&service.argv));
    let reload = match service.reload_signal {
        ReloadSignal::Hup => "HUP",
        ReloadSignal::Usr2 => "USR2",
    };
    set("ExecReload", format!("/bin/kill -{reload} $MAINPID"));
    for (name, value) in &service.env {
        set("Environment", word(&format!("{name}={value}")));
    }
    if let Some(path) = &service.env_file {
        set("EnvironmentFile", path.clone());
    }
    if service.as_service_user {
        set("User", "SERVICE".to_owned());
    }
    set("WorkingDirectory", on.dirs.data.clone());
    set(
        "StandardOutput",
        format!("append:{}/{}.log", on.dirs.log, service.name),
    );
    set("StandardError", "inherit".to_owned());
    set("KillMode", "mixed".to_owned());
    set("KillSignal", signal_name(service.stop_signal).to_owned());
    set(
        "TimeoutStopSec",
        format!("{}ms", service.stop_limit.as_millis()),
    );
    let start = BEFORE_LIMIT.saturating_mul(service.before.len() as u32 + 1);
    set("TimeoutStartSec", start.as_secs().to_string());
    set("Restart", "always".to_owned());
    set("RestartSec", "200ms".to_owned());
    if service.at_boot {
        text.push_str("\n[Install]\nWantedBy=multi-user.target\n");
    }
    text
}

/// What `systemctl show` prints, a block a unit.
fn state_of(block: &str) -> Option<ServiceState> {
    let get = |key: &str| {
        let mut lines = block.lines().filter_map(|line| line.split_once('='));
        lines.find(|(name, _)| *name == key).map(|(_, value)| value)
    };
    let number = |key: &str| {
        get(key)
            .and_then(|value| value.parse::<u32>().ok())
            .unwrap_or(0)
    };
    let name = get("Id")?
        .strip_prefix("hafog-")?
        .strip_suffix(".service")?;
    let (active, sub) = (get("ActiveState")?, get("SubState")?);
    // It goes on while it reads its files again.
    let running = active == "reloading" || (active == "active" && sub == "running");
    let wanted = active != "inactive" && active != "deactivating";
    let started = get("ExecMainStartTimestampMonotonic").is_some_and(|at| at != "0");
    let main = match (get("ExecMainCode"), number("ExecMainStatus")) {
        (Some("1"), code) => Some(format!("exited with code {code}")),
        (Some("2" | "3"), signal) => Some(format!("was ended by signal {signal}")),
        _ => None,
    };
    // `{ path=/bin/sh ; … ; code=exited ; status=1 }`
    let before = block
        .lines()
        .filter_map(|line| line.strip_prefix("ExecStartPre="));
    let before = before.filter_map(|line| {
        let part = |key: &str| {
            let mut parts = line.split([';', '{', '}']).map(str::trim);
            parts.find_map(|part| part.strip_prefix(key)?.strip_prefix('='))
        };
        let failed = part("status").filter(|status| !matches!(*status, "0" | "0/0" | "0/SUCCESS"));
        let status = failed.filter(|_| part("code") == Some("exited"))?;
        let code = status.split('/').next().unwrap_or_default();
        Some(format!("`{}` exited with code {code}", part("path")?))
    });
    let failed = before.collect::<Vec<_>>().pop();
    let trouble = match (running, wanted) {
        (false, true) => failed.or(main).or_else(|| get("Result").map(str::to_owned)),
        _ => None,
    };
    Some(ServiceState {
        name: name.to_owned(),
        running,
        wanted,
        pid: Some(number("MainPID")).filter(|pid| *pid != 0 && running),
        starts: if started { 1 + number("NRestarts") } else { 0 },
        trouble,
    })
}

/// Ends a command's unit when the caller stops waiting for it.
struct Unit<W: Wire + 'static> {
    wire: Arc<W>,
    on: Host,
    name: String,
    ended: bool,
}

impl<W: Wire + 'static> Unit<W> {
    async fn kill(wire: &W, on: &Host, name: &str) {
        let argv = ["systemctl", "kill", "--signal=SIGKILL", name].map(str::to_owned);
        let _ = wire.exec(on, &argv, Vec::new(), KILL_LIMIT).await;
    }
}

impl<W: Wire + 'static> Drop for Unit<W> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let (wire, on, name) = (self.wire.clone(), self.on.clone(), self.name.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { Self::kill(&wire, &on, &name).await });
        }
    }
}

#[async_trait]
impl<W: Wire + 'static> Shell for Systemd<W> {
    async fn dial(&self, on: &Host, port: u16) -> io::Result<Stream> {
        self.wire.dial(on, port).await
    }

    async fn run(&self, on: &Host, command: &Command) -> Result<Ran, Trouble> {
        let unit = next_unit();
        let folder = command.dir.as_ref().unwrap_or(&on.dirs.data);
        let limit = (command.limit + WIRE).as_secs_f64().to_string();
        let user = if command.as_service_user {
            "user"
        } else {
            "root"
        };
        let mut arguments = vec![limit.as_str(), &unit, folder, user];
        let words: Vec<String> = command.argv.iter().map(|word| literal(word)).collect();
        arguments.extend(words.iter().map(String::as_str));
        let input: String = command
            .env
            .iter()
            .map(|(name, value)| format!("export {name}={}\n", quoted(value)))
            .collect();
        let mut guard = Unit {
            wire: self.wire.clone(),
            on: on.clone(),
            name: unit.clone(),
            ended: false,
        };
        let argv = script(RUN, &arguments);
        let ran = self
            .wire
            .exec(on, &argv, input.into_bytes(), command.limit)
            .await;
        let program = command.argv.first().map(String::as_str).unwrap_or_default();
        match ran {
            Ok(output) if output.code == 127 && output.stderr.ends_with(NO_PROGRAM) => {
                guard.ended = true;
                let message = format!("cannot run `{program}` on `{}`", on.name);
                Err(Trouble::NothingChanged(Fault::new(message)))
            }
            Ok(output) => {
                guard.ended = true;
                Ok(Ran {
                    code: output.code,
                    stdout: text_from(&output.stdout),
                    stderr: text_from(&output.stderr),
                })
            }
            Err(Trouble::Unknown(fault)) => {
                Unit::kill(self.wire.as_ref(), on, &unit).await;
                guard.ended = true;
                let message = format!(
                    "`{program}` on `{}` did not end within {} s",
                    on.name,
                    command.limit.as_secs_f64()
                );
                Err(Trouble::Unknown(
                    match fault.message().contains("did not end") {
                        true => Fault::unavailable(message),
                        false => fault,
                    },
                ))
            }
            Err(trouble) => {
                guard.ended = true;
                Err(trouble)
            }
        }
    }

    async fn prepare(&self, on: &Host) -> Result<(), Trouble> {
        let made = self
            .exec(on, PREPARE, &[&on.dirs.etc, &on.dirs.data, &on.dirs.log])
            .await?;
        match made.code {
            0 => Ok(()),
            _ => {
                let message = format!("cannot make the folders of `{}`", on.name);
                Err(Trouble::Partial(Fault::new(message).because(made.said())))
            }
        }
    }

    async fn put(&self, on: &Host, file: &File) -> Result<(), Trouble> {
        self.belongs(on, &file.path, true).await.nothing_changed()?;
        let mode = format!("{:o}", file.mode);
        let owner = if file.for_service_user {
            "user"
        } else {
            "root"
        };
        let argv = script(PUT, &[&file.path, &mode, owner]);
        let limit = Duration::from_secs(60 + (file.bytes.len() >> 20) as u64);
        let done = self.wire.exec(on, &argv, file.bytes.clone(), limit).await?;
        match done.code {
            0 => Ok(()),
            _ => {
                let message = format!("cannot write `{}` on `{}`", file.path, on.name);
                Err(Trouble::Partial(Fault::new(message).because(done.said())))
            }
        }
    }

    async fn get(&self, on: &Host, path: &str) -> Result<Option<Vec<u8>>, Fault> {
        let got = self.exec(on, GET, &[path]).await;
        let got = got.map_err(|trouble| trouble.fault().clone())?;
        match got.code {
            0 => Ok(Some(got.stdout)),
            44 => Ok(None),
            _ => {
                let message = format!("cannot read `{path}` on `{}`", on.name);
                Err(Fault::new(message).because(got.said()))
            }
        }
    }

    async fn end_of(&self, on: &Host, path: &str, most: usize) -> Result<Vec<u8>, Fault> {
        const END: &str = r#"[ ! -e "$1" ] || tail -c "$2" "$1""#;
        let got = self.exec(on, END, &[path, &most.to_string()]).await;
        let got = got.map_err(|trouble| trouble.fault().clone())?;
        match got.code {
            0 => Ok(got.stdout),
            _ => {
                let message = format!("cannot read `{path}` on `{}`", on.name);
                Err(Fault::new(message).because(got.said()))
            }
        }
    }

    async fn remove(&self, on: &Host, path: &str) -> Result<(), Trouble> {
        self.belongs(on, path, false).await.nothing_changed()?;
        let done = self.exec(on, r#"rm -rf -- "$1""#, &[path]).await?;
        match done.code {
            0 => Ok(()),
            _ => {
                let message = format!("cannot remove `{path}` on `{}`", on.name);
                Err(Trouble::Partial(Fault::new(message).because(done.said())))
            }
        }
    }

    async fn services(&self, on: &Host) -> Result<Vec<ServiceState>, Fault> {
        const SHOW: &str = r#"
cd "$1" 2>/dev/null || exit 0
set -- hafog-*.service; [ -e "$1" ] || exit 0
systemctl show --property=Id,ActiveState,SubState,MainPID,NRestarts,Result,ExecMainCode,ExecMainStatus,ExecMainStartTimestampMonotonic,ExecStartPre "$@""#;
        let shown = self.exec(on, SHOW, &[&units(on)]).await;
        let shown = shown.map_err(|trouble| trouble.fault().clone())?;
        if shown.code != 0 {
            let message = format!("the services of `{}` cannot be listed", on.name);
            return Err(Fault::new(message).because(shown.said()));
        }
        let text = String::from_utf8_lossy(&shown.stdout);
        Ok(text.split("\n\n").filter_map(state_of).collect())
    }

    async fn service(&self, on: &Host, name: &str, change: ServiceChange) -> Result<(), Trouble> {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if name.is_empty() || !name.chars().all(good) {
            let message = format!("`{name}` is no name for a service");
            return Err(Trouble::NothingChanged(Fault::new(message)));
        }
        if let ServiceChange::Install(service) = &change {
            return self.install(on, name, service).await;
        }
        let state = self.state(on, name).await.nothing_changed()?;
        let Some(state) = state else {
            if matches!(change, ServiceChange::Remove) {
                return Ok(());
            }
            let message = format!("there is no service `{name}`");
            return Err(Trouble::NothingChanged(Fault::new(message)));
        };
        // What the unit itself says of its limits counts; this is for a machine that does not answer.
        let limit = Duration::from_secs(900);
        match change {
            ServiceChange::Install(_) => Ok(()),
            ServiceChange::Start => self.start(on, name, "start", limit).await,
            ServiceChange::Restart => self.start(on, name, "restart", limit).await,
            ServiceChange::Stop { signal } => self.stop(on, name, signal, limit).await,
            ServiceChange::Remove => self.forget(on, name, limit).await,
            ServiceChange::Reload if !state.wanted => {
                let message = format!("service `{name}` is not running");
                Err(Trouble::NothingChanged(Fault::new(message)))
            }
            ServiceChange::Reload => {
                let done = self
                    .systemctl(on, &["reload", &unit_of(name)], ANSWER_LIMIT)
                    .await?;
                self.accept(on, name, "could not be reloaded", &done)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::Dirs;

    fn host() -> Host {
        let below = |part: &str| format!("/var/lib/hafog/{part}");
        Host {
            name: "shop-east-db-1".into(),
            site: "east".into(),
            address: [10, 66, 1, 2].into(),
            dirs: Dirs {
                image: String::new(),
                etc: below("etc"),
                data: below("data"),
                log: below("log"),
            },
        }
    }

    #[test]
    fn a_service_is_a_unit_that_does_just_that() {
        let argv = ["/bin/sh", "-c", "echo \"$HOME\" 100%\n"].map(str::to_owned);
        let mut service = Service::new("db", argv.to_vec(), Duration::from_secs(20));
        service.before = vec![vec!["/bin/true".to_owned()]];
        service.env.insert("A".to_owned(), "b c".to_owned());
        service.env_file = Some("/var/lib/hafog/etc/db.env".to_owned());
        service.as_service_user = true;
        service.stop_signal = StopSignal::Int;
        insta::assert_snapshot!(text_of(&host(), &service), @r#"
        [Unit]
        Description=hafog: db
        After=network-online.target
        StartLimitIntervalSec=0

        [Service]
        Type=exec
        ExecStartPre=:/bin/true 
        ExecStart=:/bin/sh "-c" "echo \"$HOME\" 100%%\n"
        ExecReload=/bin/kill -HUP $MAINPID
        Environment="A=b c"
        EnvironmentFile=/var/lib/hafog/etc/db.env
        User=SERVICE
        WorkingDirectory=/var/lib/hafog/data
        StandardOutput=append:/var/lib/hafog/log/db.log
        StandardError=inherit
        KillMode=mixed
        KillSignal=SIGINT
        TimeoutStopSec=20000ms
        TimeoutStartSec=120
        Restart=always
        RestartSec=200ms

        [Install]
        WantedBy=multi-user.target
        "#);
        service.at_boot = false;
        assert!(!text_of(&host(), &service).contains("[Install]"));
    }

    #[test]
    fn logs_are_cut_by_a_timer_that_is_no_service() {
        let (service, timer) = log_units(&host());
        let tail = "\" \"sh\" \"/var/lib/hafog/log\" \"67108864\" \"16777216\"\n";
        assert!(service.ends_with(tail), "{service}");
        assert_eq!(service.lines().count(), 6, "{service}");
        assert!(timer.contains("\nOnCalendar="), "{timer}");
        assert!(!LOGS.starts_with("hafog-"));
        let state = state_of(&format!("Id={LOGS}.service\nActiveState=inactive\n"));
        assert_eq!(state, None);
    }

    #[test]
    fn a_log_is_cut_while_it_is_written_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let logs = folder.path().join("log");
        std::fs::create_dir(&logs).unwrap();
        // Somebody gave the logs another disk.
        let named = folder.path().join("named");
        std::os::unix::fs::symlink(&logs, &named).unwrap();
        let read = |name: &str| std::fs::read_to_string(logs.join(name)).unwrap();
        let write = |name: &str, text: &str| std::fs::write(logs.join(name), text).unwrap();
        let long = "a line\n".repeat(100);
        write("small.log", "short\n");
        write("other.txt", &long);
        write("db.log", &long);
        std::fs::write(folder.path().join("secret"), &long).unwrap();
        std::os::unix::fs::symlink(folder.path().join("secret"), logs.join("link.log")).unwrap();
        let mut open = std::fs::File::options()
            .append(true)
            .open(logs.join("db.log"))
            .unwrap();
        let argv = script(CUT, &[named.to_str().unwrap(), "500", "14"]);
        let cut = || {
            let ran = std::process::Command::new(&argv[0])
                .args(&argv[1..])
                .output();
            let ran = ran.unwrap();
            assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
        };
        cut();
        std::io::Write::write_all(&mut open, b"goes on\n").unwrap();
        cut();
        assert_eq!(read("db.log"), "a line\na line\ngoes on\n");
        assert_eq!(read("small.log"), "short\n");
        assert_eq!(read("other.txt"), long);
        assert_eq!(read("link.log"), long);
    }

    #[test]
    fn what_systemd_shows_is_a_state() {
        let running = "Id=hafog-db.service\nActiveState=active\nSubState=running\nMainPID=77\nNRestarts=2\n\
            Result=success\nExecMainCode=0\nExecMainStatus=0\nExecMainStartTimestampMonotonic=5\n";
        let state = state_of(running).expect("a unit of ours");
        assert_eq!(
            (state.name.as_str(), state.running, state.wanted),
            ("db", true, true)
        );
        assert_eq!(
            (state.pid, state.starts, state.trouble),
            (Some(77), 3, None)
        );
        let crashing = running.replace("SubState=running", "SubState=auto-restart");
        let crashing = crashing.replace("ActiveState=active", "ActiveState=activating");
        let crashing = crashing.replace(
            "ExecMainCode=0\nExecMainStatus=0",
            "ExecMainCode=1\nExecMainStatus=3",
        );
        let state = state_of(&crashing).expect("a unit of ours");
        assert_eq!(
            (state.running, state.wanted, state.pid),
            (false, true, None)
        );
        assert_eq!(state.trouble.as_deref(), Some("exited with code 3"));
        let before =
            "ExecStartPre={ path=/bin/sh ; argv[]=/bin/sh -c x ; code=exited ; status=1 }\n";
        let state = state_of(&format!("{crashing}{before}")).expect("a unit of ours");
        assert_eq!(
            state.trouble.as_deref(),
            Some("`/bin/sh` exited with code 1")
        );
        let stopped = running
            .replace("=active", "=inactive")
            .replace("=running", "=dead");
        let state = state_of(&stopped).expect("a unit of ours");
        assert_eq!(
            (state.running, state.wanted, state.trouble),
            (false, false, None)
        );
        assert_eq!(
            state_of("Id=ssh.service\nActiveState=active\nSubState=running\n"),
            None
        );
        assert_eq!(state_of(""), None);
    }
}
